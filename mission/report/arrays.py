"""Flights as named arrays, packed and unpacked: the same names in `flights.npz` and in batches of an unfinished run.

Shapes: N flights, C channels of a phase, L limits of it, T samples of a flight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mission.flight.fly import PhaseFlight
from mission.missionfile.phases import Phase
from mission.report.flight_records import Bands, ChosenFlight, FlightRecords, Flights, FlownPhase, Track, TrainingStarts
from mission.report.header import PhaseHeader, ReportHeader
from mission.report.summary import durations, phase_returns

Arrays = dict[str, np.ndarray]
_FIELDS = ("success", "cause", "returns", "duration_s", "enter", "end", "lowest", "highest")


def pack_flight(phase: Phase, result: PhaseFlight, prefix: str) -> Arrays:
    """Return N flights of one phase as arrays."""

    def table(values: Mapping[str, np.ndarray], names: Sequence[str]) -> np.ndarray:
        columns = [np.asarray(values[name], np.float32) for name in names]
        return np.stack(columns, axis=-1) if columns else np.zeros((len(result.success), 0), np.float32)

    limited = [limit.channel for limit in phase.limits]
    fields = {
        "success": result.success,
        "cause": np.asarray(result.cause, np.int32),
        "steps": np.asarray(result.steps, np.int32),
        "returns": np.asarray(phase_returns(phase, result), np.float32),
        "duration_s": np.asarray(durations(phase, result), np.float32),
        "enter": result.enter,
        "end": table(result.telemetry, phase.channels),
        "lowest": table(result.lowest, limited),
        "highest": table(result.highest, limited),
    }
    if phase.guarded:
        fields["takeover"] = result.takeover
    return {f"{prefix}/{phase.name}/{name}": np.asarray(values) for name, values in fields.items()}


def unpack_flight(phase: Phase | PhaseHeader, arrays: Arrays, prefix: str) -> PhaseFlight:
    """Return N flights of one phase from arrays; the hand-over is not stored and stays empty."""
    get = {name: arrays[f"{prefix}/{phase.name}/{name}"] for name in (*_FIELDS, "steps")}
    return PhaseFlight(
        handoff=(),
        success=get["success"],
        cause=get["cause"],
        steps=get["steps"],
        returns=get["returns"],
        enter=get["enter"],
        telemetry={name: get["end"][:, i] for i, name in enumerate(phase.channels)},
        lowest={limit.channel: get["lowest"][:, i] for i, limit in enumerate(phase.limits)},
        highest={limit.channel: get["highest"][:, i] for i, limit in enumerate(phase.limits)},
        takeover=arrays.get(f"{prefix}/{phase.name}/takeover", np.full(len(get["steps"]), -1, np.int32)),
    )


def flights_from(headers: Sequence[PhaseHeader], arrays: Arrays, prefix: str) -> Flights:
    """Return the flights by one set of policies, from the arrays of a report."""
    phases: list[FlownPhase] = []
    for header in headers:
        get = {name: arrays[f"{prefix}/{header.name}/{name}"] for name in _FIELDS}
        entered = phases[-1].entered & phases[-1].success if phases else np.ones(len(get["success"]), bool)
        phases.append(
            FlownPhase(
                name=header.name,
                plugin=header.plugin,
                params=header.params,
                causes=header.causes,
                channels=header.channels,
                limits=header.limits,
                entered=entered,
                takeover=arrays.get(f"{prefix}/{header.name}/takeover"),
                feasible=arrays.get(f"{prefix}/{header.name}/feasible"),
                **get,
            )
        )
    return Flights(prefix, tuple(phases))


def pack_bands(bands: Bands) -> Arrays:
    """Return bands as arrays."""
    return {f"bands/{name}": getattr(bands, name) for name in ("time_s", "count", "p05", "p50", "p95")}


def pack_tracks(number: int, tracks: Sequence[Track]) -> Arrays:
    """Return a whole flight as arrays: time [T] and the phase's channels [T, C]."""
    return {
        f"flight/{number}/{track.phase}/{name}": values
        for track in tracks
        for name, values in (("time_s", track.time_s), ("channels", np.stack(list(track.channels.values()), -1)))
    }


def _tracks_from(header: ReportHeader, arrays: Arrays, number: int) -> tuple[Track, ...]:
    tracks = []
    for phase in header.phases:
        at = f"flight/{number}/{phase.name}"
        if f"{at}/time_s" in arrays:
            table = arrays[f"{at}/channels"]
            values = {channel: table[:, i] for i, channel in enumerate(phase.channels)}
            tracks.append(Track(phase.name, arrays[f"{at}/time_s"], values))
    return tuple(tracks)


def records_from(header: ReportHeader, arrays: Arrays) -> FlightRecords:
    """Return the records of a report folder, from its header and arrays."""
    return FlightRecords(
        mission=header.mission,
        digest=header.report.digest,
        seed=header.report.seed,
        headers=header.phases,
        flights=flights_from(header.phases, arrays, header.report.policy),
        guide=flights_from(header.phases, arrays, "guide") if header.guide is not None else None,
        starts={name: TrainingStarts(source, arrays[f"starts/{name}"]) for name, source in header.starts.items()},
        bands=Bands(
            flights=header.bands.flights,
            time_s=arrays["bands/time_s"],
            count=arrays["bands/count"],
            channels=header.bands.channels,
            p05=arrays["bands/p05"],
            p50=arrays["bands/p50"],
            p95=arrays["bands/p95"],
        ),
        chosen=tuple(
            ChosenFlight(entry.number, entry.role, entry.outcome, _tracks_from(header, arrays, entry.number))
            for entry in header.chosen
        ),
        provenance=header.provenance,
        interval_note=header.report.interval_note(),
        sensitivity=header.report.sensitivity,
        guard=header.report.guard,
    )
