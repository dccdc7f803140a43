"""Fly for a report: start and end of every flight, bands, a few full flights, and the guides on the same seeds."""

from __future__ import annotations

import hashlib
import platform
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mission import __version__
from mission.flight.batches import BATCH, fly_batches
from mission.flight.chain import Chain
from mission.flight.fly import PhaseFlight
from mission.machine.devices import describe
from mission.missionfile.phases import Phase, TrainedPhase, json_of
from mission.report.arrays import (
    Arrays,
    flights_from,
    pack_bands,
    pack_flight,
    pack_tracks,
    records_from,
    unpack_flight,
)
from mission.report.bands import bands_of, tracks_of
from mission.report.benchmark import read_benchmark
from mission.report.choosing import choose_flights, lost_flights, ordinary_flights
from mission.report.folder import UnfinishedReport, check_target, encode_arrays, write_folder
from mission.report.handovers import compare_handovers, training_starts
from mission.report.header import BandsHeader, ChosenHeader, PhaseHeader, Provenance, ReportHeader, UnfinishedKey
from mission.report.page import render_page
from mission.report.summary import MissionSummary, mission_summary
from mission.report.tracks import TelemetryRecorder
from mission.storage.lock import folder_lock

ProgressCallback = Callable[[int, int], None]  # (flights done, flights)


class StoredBatches:
    """Flies batches of a chain and stores their arrays, so that an interrupted report can be resumed."""

    def __init__(
        self,
        chain: Chain,
        headers: Sequence[PhaseHeader],
        unfinished: UnfinishedReport,
        recorder: TelemetryRecorder | None = None,
    ) -> None:
        """Prepare; with a recorder, candidates for the chosen flights and the bands of the first batch are kept too."""
        self.chain, self.headers, self.unfinished, self.recorder = chain, headers, unfinished, recorder
        self.parts: list[Arrays] = []

    def fly(self, numbers: np.ndarray) -> list[PhaseFlight]:
        """Fly one batch, or read it if it is stored."""
        chain = self.chain
        name = f"{chain.policy}-{numbers[0]}-{len(numbers)}"
        arrays = self.unfinished.get(name)
        if arrays is None:
            arrays = self._pack(chain.fly(numbers)) if self.recorder is None else self._record(self.recorder, numbers)
            self.unfinished.put(name, arrays)
        self.parts.append(arrays)
        return [unpack_flight(phase, arrays, chain.policy) for phase in chain.phases]

    def _record(self, recorder: TelemetryRecorder, numbers: np.ndarray) -> Arrays:
        recorded = recorder.fly(numbers)
        arrays = self._pack([part.flight for part in recorded])
        flights = flights_from(self.headers, arrays, self.chain.policy)
        lanes = lost_flights(flights)
        if numbers[0] == 0:
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

    def arrays(self) -> Arrays:
        """Return the arrays of all batches, joined."""
        every = {name: values for part in self.parts for name, values in part.items()}
        joined = [name for name in self.parts[0] if name.startswith(f"{self.chain.policy}/")]
        return every | {name: np.concatenate([part[name] for part in self.parts]) for name in joined}


def report_flights(
    chain: Chain, folder: Path, flights: int, until: float | None, progress: ProgressCallback | None
) -> MissionSummary:
    """Fly a chain, and its guides on the same seeds, and write the report folder (docs/reports.md).

    Args:
      chain: the mission to fly; the guides fly the same seeds if an agent flies some phase and every phase has a guide.
      folder: folder of the report; only a report of the same mission is replaced.
      flights, until, progress: as in `fly_batches`.

    Raises:
      InputError: the folder holds something else.
      FormatError: the folder holds a report of a format that this version does not read.
      MachineError: the folder cannot be written.
    """
    check_target(folder, chain.mission.name)
    with folder_lock(folder, "--report"):
        return _fly_and_write(chain, folder, flights, until, progress)


def _fly_and_write(
    chain: Chain, folder: Path, flights: int, until: float | None, progress: ProgressCallback | None
) -> MissionSummary:
    unfinished, recorder = UnfinishedReport(folder, _key(chain)), TelemetryRecorder(chain)
    headers = tuple(_phase_header(phase, chain.root) for phase in chain.phases)
    flown = StoredBatches(chain, headers, unfinished, recorder)
    summary = mission_summary(chain, fly_batches(flights, until, flown.fly, progress), until)
    arrays, guide_summary = flown.arrays(), None
    if chain.has_agents_and_guides():
        guide = chain.guided()
        guided = StoredBatches(guide, headers, unfinished)
        guide_summary = mission_summary(guide, fly_batches(summary.flights, None, guided.fly, progress))
        arrays |= guided.arrays()
    starts = {phase.name: training_starts(chain, k, recorder) for k, phase in enumerate(chain.phases) if k > 0}
    arrays |= {f"starts/{name}": start.values for name, start in starts.items()}
    records = flights_from(headers, arrays, chain.policy)
    chosen = choose_flights(records)
    arrays = _only_chosen(arrays, [number for number, _ in chosen])
    data = encode_arrays(arrays)
    header = ReportHeader(
        mission=chain.mission.name,
        report=summary,
        guide=guide_summary,
        phases=headers,
        provenance=_provenance(chain, folder, flights, until),
        starts={name: start.source for name, start in starts.items()},
        bands=BandsHeader(flights=min(BATCH, summary.flights), channels=chain.channels),
        chosen=tuple(ChosenHeader(number=n, role=role, outcome=records.outcome(n)) for n, role in chosen),
        handovers=compare_handovers(records, starts),
        flights_bytes=len(data),
        flights_sha256=hashlib.sha256(data).hexdigest(),
    )
    reports = {phase.name: phase.report for phase in chain.phases}
    write_folder(folder, header, data, render_page(records_from(header, arrays), header.handovers, reports))
    return summary


def _only_chosen(arrays: Arrays, numbers: list[int]) -> Arrays:
    """Return the arrays without the tracks of flights that might have been chosen but were not."""
    kept = {f"{number}" for number in numbers}
    return {
        name: values for name, values in arrays.items() if not name.startswith("flight/") or name.split("/")[1] in kept
    }


def _phase_header(phase: Phase, root: Path) -> PhaseHeader:
    trained = isinstance(phase, TrainedPhase)
    return PhaseHeader(
        name=phase.name,
        plugin=phase.origin.name,
        distribution=phase.origin.distribution,
        version=phase.origin.version,
        source_sha256=phase.origin.source_sha256,
        flown_by="agent" if trained else "guide",
        params=json_of(phase.params),
        causes=phase.causes,
        channels=phase.channels,
        limits=phase.limits,
        benchmark=read_benchmark(root / phase.name) if trained else None,
    )


def _key(chain: Chain) -> UnfinishedKey:
    return UnfinishedKey(
        mission=chain.mission.name,
        digest=chain.digest,
        seed=chain.seed,
        policy=chain.policy,
        actors=chain.policy_hashes(),
        plugins=tuple(phase.origin.source_sha256 for phase in chain.phases),
        engine=__version__,
    )


def _provenance(chain: Chain, folder: Path, flights: int, until: float | None) -> Provenance:
    source = chain.mission.source
    overrides = [place for place in source.positions.values() if isinstance(place, str)]
    words = ["mission", "fly", str(source.path), "--flights", str(flights), "--seed", str(chain.seed)]
    words += ["--until", f"{until:g}"] if until is not None else []
    words += ["--policy", "guide"] if chain.policy == "guide" else []
    words += [word for text in overrides for word in text.split(" ", 1)]
    return Provenance(
        commands=(shlex.join([*words, "--report", str(folder)]), shlex.join(["mission", "report", str(folder)])),
        mission_file=str(source.path),
        engine=__version__,
        policies_sha256=chain.policy_hashes(),
        training_seed=chain.mission.seed,
        python=platform.python_version(),
        numpy=np.__version__,
        **describe().model_dump(),
    )
