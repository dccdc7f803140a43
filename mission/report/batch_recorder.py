"""Fly batches of a chain and pack them as the arrays of a report; on this machine, and in workers of a cluster."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mission.flight.chain import Chain
from mission.flight.fly import PhaseFlight
from mission.missionfile.phases import Phase, PolicyPhase, json_of
from mission.report.arrays import Arrays, flights_from, pack_bands, pack_flight, pack_tracks
from mission.report.bands import bands_of, tracks_of
from mission.report.benchmark import read_benchmark
from mission.report.choosing import lost_flights, ordinary_flights
from mission.report.header import PhaseHeader
from mission.report.tracks import TelemetryRecorder


class BatchRecorder:
    """Flies batches of a report; if their telemetry is recorded, candidates for the chosen flights and bands are kept."""

    def __init__(self, chain: Chain, telemetry: TelemetryRecorder | None, first: int = 0) -> None:
        """Prepare for a report whose first flight has the number `first`; its batch holds the bands."""
        self.chain, self.telemetry, self.first = chain, telemetry, first
        self.headers = tuple(phase_header(phase, chain.folder(k)) for k, phase in enumerate(chain.phases))

    def fly(self, numbers: np.ndarray) -> Arrays:
        """Fly one batch."""
        if self.telemetry is None:
            return self._pack(self.chain.fly(numbers))
        recorded = self.telemetry.fly(numbers)
        arrays = self._pack([part.flight for part in recorded])
        for phase, part in zip(self.chain.phases, recorded, strict=True):
            if part.feasible is not None:
                arrays[f"{self.chain.policy}/{phase.name}/feasible"] = part.feasible
        flights = flights_from(self.headers, arrays, self.chain.policy)
        lanes = lost_flights(flights)
        if numbers[0] == self.first:
            lanes += [lane for lane, _ in ordinary_flights(flights)]
            arrays |= pack_bands(bands_of(self.chain, recorded))
        for lane in lanes:
            arrays |= pack_tracks(numbers[lane], tracks_of(self.chain, recorded, lane))
        return arrays

    def _pack(self, results: list[PhaseFlight]) -> Arrays:
        arrays: Arrays = {}
        for phase, result in zip(self.chain.phases, results, strict=True):
            arrays |= pack_flight(phase, result, self.chain.policy)
        return arrays


def phase_header(phase: Phase, folder: Path) -> PhaseHeader:
    """Return the header of a phase in a report; `folder` is that of the policy that flies it."""
    return PhaseHeader(
        name=phase.name,
        plugin=phase.origin.name,
        distribution=phase.origin.distribution,
        version=phase.origin.version,
        source_sha256=phase.origin.source_sha256,
        flown_by=phase.pilot,
        params=json_of(phase.params),
        causes=phase.causes,
        channels=phase.channels,
        limits=phase.limits,
        benchmark=read_benchmark(folder) if isinstance(phase, PolicyPhase) else None,
        control_period_s=phase.environment.control_period_s,
    )
