"""Flights as named arrays: the same names in `flights.npz` and in the chunks of an unfinished run.

Shapes: N flights, C channels of a phase, L limits of it, T samples of a flight.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mission.flight.fly import PhaseFlight
from mission.missionfile.phases import Phase, TrainedPhase
from mission.phase import Limit
from mission.report.records import Bands, ChosenFlight, FlightRecords, Flights, PhaseFlights, Starts, Track
from mission.report.summary import durations

FIELDS = ("success", "cause", "duration_s", "enter", "end", "lowest", "highest")
Arrays = dict[str, np.ndarray]


def describe_phase(phase: Phase) -> dict[str, Any]:
    """What a reader needs to know of a phase, as JSON."""
    return {
        "name": phase.name,
        "plugin": phase.origin.name,
        "distribution": phase.origin.distribution,
        "version": phase.origin.version,
        "source_sha256": phase.origin.source_sha256,
        "flown_by": "agent" if isinstance(phase, TrainedPhase) else "guide",
        "params": json.loads(phase.params.model_dump_json()),
        "causes": list(phase.causes),
        "channels": list(phase.channels),
        "limits": [dataclasses.asdict(limit) for limit in phase.limits],
    }


def pack_flight(phase: Phase, result: PhaseFlight, prefix: str) -> Arrays:
    """N flights of one phase as arrays."""

    def table(values: Mapping[str, np.ndarray], names: Sequence[str]) -> np.ndarray:
        columns = [np.asarray(values[name], np.float32) for name in names]
        return np.stack(columns, axis=-1) if columns else np.zeros((len(result.success), 0), np.float32)

    limited = [limit.channel for limit in phase.limits]
    fields = {
        "success": result.success,
        "cause": np.asarray(result.cause, np.int32),
        "steps": np.asarray(result.steps, np.int32),
        "returns": np.asarray(result.returns, np.float32),
        "duration_s": np.asarray(durations(phase, result), np.float32),
        "enter": result.enter,
        "end": table(result.telemetry, phase.channels),
        "lowest": table(result.lowest, limited),
        "highest": table(result.highest, limited),
    }
    return {f"{prefix}/{phase.name}/{name}": np.asarray(values) for name, values in fields.items()}


def unpack_flight(phase: Phase, arrays: Arrays, prefix: str) -> PhaseFlight:
    """The inverse, without hand-over."""
    get = {name: arrays[f"{prefix}/{phase.name}/{name}"] for name in (*FIELDS, "steps", "returns")}
    telemetry = {name: get["end"][:, i] for i, name in enumerate(phase.channels)}
    lowest, highest = (
        {limit.channel: get[side][:, i] for i, limit in enumerate(phase.limits)} for side in ("lowest", "highest")
    )
    return PhaseFlight(
        (), get["success"], get["cause"], get["steps"], get["returns"], get["enter"], telemetry, lowest, highest
    )  # fmt: skip


def flights_from(phases: Sequence[dict[str, Any]], arrays: Arrays, prefix: str) -> Flights:
    """Flights of one set of policies out of the arrays of a report."""
    rows: list[PhaseFlights] = []
    for phase in phases:
        get = {name: arrays[f"{prefix}/{phase['name']}/{name}"] for name in FIELDS}
        entered = rows[-1].entered & rows[-1].success if rows else np.ones(len(get["success"]), bool)
        limits = tuple(Limit(**limit) for limit in phase["limits"])
        names = (phase["name"], phase["plugin"], phase["params"], tuple(phase["causes"]), tuple(phase["channels"]))
        rows.append(PhaseFlights(*names, limits, entered, **get))
    return Flights(prefix, tuple(rows))


def pack_bands(bands: Bands) -> Arrays:
    """Bands as arrays."""
    return {f"bands/{name}": getattr(bands, name) for name in ("time_s", "count", "p05", "p50", "p95")}


def pack_tracks(number: int, tracks: Sequence[Track]) -> Arrays:
    """A whole flight as arrays: time [T] and the phase's channels [T, C]."""
    return {
        f"flight/{number}/{track.phase}/{name}": values
        for track in tracks
        for name, values in (("time_s", track.time_s), ("channels", np.stack(list(track.channels.values()), -1)))
    }


def _chosen_from(summary: dict[str, Any], arrays: Arrays) -> tuple[ChosenFlight, ...]:
    channels = {phase["name"]: phase["channels"] for phase in summary["phases"]}
    flights = []
    for entry in summary["chosen"]:
        tracks = []
        for name, columns in channels.items():
            at = f"flight/{entry['number']}/{name}"
            if f"{at}/time_s" in arrays:
                table = arrays[f"{at}/channels"]
                values = {channel: table[:, i] for i, channel in enumerate(columns)}
                tracks.append(Track(name, arrays[f"{at}/time_s"], values))
        flights.append(ChosenFlight(**entry, tracks=tuple(tracks)))
    return tuple(flights)


def records_from(summary: dict[str, Any], arrays: Arrays) -> FlightRecords:
    """The records of a report folder, from its header and arrays."""
    phases = summary["phases"]
    bands = Bands(
        summary["bands"]["flights"], arrays["bands/time_s"], arrays["bands/count"], tuple(summary["bands"]["channels"]),
        arrays["bands/p05"], arrays["bands/p50"], arrays["bands/p95"],
    )  # fmt: skip
    policy = summary["report"]["policy"]
    return FlightRecords(
        summary["mission"],
        summary["report"]["digest"],
        summary["report"]["seed"],
        flights_from(phases, arrays, policy),
        flights_from(phases, arrays, "guide") if summary["guide"] is not None else None,
        {name: Starts(source, arrays[f"starts/{name}"]) for name, source in summary["starts"].items()},
        bands,
        _chosen_from(summary, arrays),
        {**summary["provenance"], "phases": phases},
    )
