"""Fly for a report: start and end of every flight, bands, a few full flights, and the guides on the same seeds."""

from __future__ import annotations

import contextlib
import logging
import platform
import shlex
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mission import __version__
from mission.errors import MissionError
from mission.flight.batches import batches, fly_batches
from mission.flight.chain import Chain
from mission.flight.feasibility.store import Feasibility, chain_feasibility
from mission.flight.fly import PhaseFlight
from mission.machine.devices import describe
from mission.report.arrays import Arrays, unpack_flight
from mission.report.batch_recorder import BatchRecorder
from mission.report.folder import UnfinishedReport, check_target
from mission.report.handovers import training_starts
from mission.report.header import Provenance, UnfinishedKey
from mission.report.summary import MissionSummary, mission_summary
from mission.report.tables import with_flights
from mission.report.tracks import TelemetryRecorder
from mission.report.writing import Flown, write_report
from mission.storage.lock import folder_lock
from mission.storage.steps import content_hash

log = logging.getLogger("mission")
ProgressCallback = Callable[[int, int], None]  # (flights done, flights)


class Elsewhere(Protocol):
    """Flies batches in other processes."""

    def record(
        self, policy: str, telemetry: bool, first: int, wanted: Sequence[np.ndarray]
    ) -> Generator[tuple[np.ndarray, Arrays]]:
        """Fly the batches `wanted` by agents or guides; yield their numbers and arrays as they complete.

        `telemetry` and `first` are as for `BatchRecorder`.
        """
        ...


class StoredBatches:
    """The batches of a report that begins with flight `first`; stored, so that an interrupted report can be resumed."""

    def __init__(
        self, recorder: BatchRecorder, unfinished: UnfinishedReport, flights: int, elsewhere: Elsewhere | None = None
    ) -> None:
        """Prepare to fly at most `flights`; those that are not stored are flown elsewhere if there is such a place."""
        self.recorder, self.unfinished = recorder, unfinished
        self.parts: list[Arrays] = []
        self._missing: set[int] = set()
        self._arriving: Generator[tuple[np.ndarray, Arrays]] | None = None
        if elsewhere is not None:
            wanted = [one for one in batches(flights, recorder.first) if not unfinished.has(self._name(one))]
            self._missing = {int(one[0]) for one in wanted}
            policy, telemetry = recorder.chain.policy, recorder.telemetry is not None
            self._arriving = elsewhere.record(policy, telemetry, recorder.first, wanted)

    def fly(self, numbers: np.ndarray) -> list[PhaseFlight]:
        """Fly one batch, or read it if it is stored; one that is flown elsewhere is waited for."""
        while self._arriving is not None and int(numbers[0]) in self._missing:
            arrived, arrays = next(self._arriving)  # in any order
            self.unfinished.put(self._name(arrived), arrays)
            self._missing.remove(int(arrived[0]))
        name = self._name(numbers)
        arrays = self.unfinished.get(name)
        if arrays is None:
            arrays = self.recorder.fly(numbers)
            self.unfinished.put(name, arrays)
        self.parts.append(arrays)
        chain = self.recorder.chain
        return [unpack_flight(phase, arrays, chain.policy) for phase in chain.phases]

    def _name(self, numbers: np.ndarray) -> str:
        begins = numbers[0] == self.recorder.first > 0  # such a batch holds the bands, elsewhere it does not
        return f"{self.recorder.chain.policy}-{numbers[0]}-{len(numbers)}" + ("-first" if begins else "")

    def close(self) -> None:
        """Stop what is flown elsewhere and was not waited for."""
        if self._arriving is not None:
            self._arriving.close()

    def arrays(self) -> Arrays:
        """Return the arrays of all batches, joined."""
        every = {name: values for part in self.parts for name, values in part.items()}
        joined = [name for name in self.parts[0] if name.startswith(f"{self.recorder.chain.policy}/")]
        return every | {name: np.concatenate([part[name] for part in self.parts]) for name in joined}


def report_flights(
    chain: Chain,
    folder: Path,
    flights: int,
    until: float | None,
    progress: ProgressCallback | None,
    first: int = 0,
    elsewhere: Elsewhere | None = None,
    sensitive: bool = False,
) -> MissionSummary:
    """Fly a chain, and its guides on the same seeds, and write the report folder (docs/reports.md).

    Args:
      chain: the mission to fly; the guides fly the same seeds if an agent flies some phase and every phase has a guide.
      folder: folder of the report; only a report of the same mission is replaced.
      flights, until, progress, first: as in `fly_batches`.
      elsewhere: where the batches are flown; None: in this process.
      sensitive: whether to find out what losses and end states depend on.

    Raises:
      InputError: the folder holds something else.
      FormatError: the folder holds a report of a format that this version does not read.
      MachineError: the folder cannot be written.
    """
    check_target(folder, chain.mission.name)
    with folder_lock(folder, "--report"):
        return _fly_and_write(chain, folder, flights, until, progress, first, elsewhere, sensitive)


def _fly_and_write(
    chain: Chain,
    folder: Path,
    flights: int,
    until: float | None,
    progress: ProgressCallback | None,
    first: int,
    elsewhere: Elsewhere | None,
    sensitive: bool,
) -> MissionSummary:
    feasibility = _feasibility(chain) if elsewhere is None else None
    unfinished, telemetry = UnfinishedReport(folder, _key(chain, feasibility)), TelemetryRecorder(chain, feasibility)
    recorder = BatchRecorder(chain, telemetry, first)
    with contextlib.closing(StoredBatches(recorder, unfinished, flights, elsewhere)) as flown:
        results = fly_batches(flights, until, flown.fly, progress, first)
        summary = mission_summary(chain, results, until, first, sensitive)
    arrays, guide_summary = flown.arrays(), None
    if chain.has_agents_and_guides():
        guide, count = chain.guided(), summary.flights
        with contextlib.closing(
            StoredBatches(BatchRecorder(guide, None, first), unfinished, count, elsewhere)
        ) as guided:
            guide_summary = mission_summary(guide, fly_batches(count, None, guided.fly, progress, first))
        arrays |= guided.arrays()
    starts = {phase.name: training_starts(chain, k, telemetry) for k, phase in enumerate(chain.phases) if k > 0}
    write_report(
        folder,
        Flown(
            mission=chain.mission.name,
            summary=summary,
            guide=guide_summary,
            first=first,
            headers=recorder.headers,
            channels=chain.channels,
            starts={name: start.source for name, start in starts.items()},
            arrays=arrays | {f"starts/{name}": start.values for name, start in starts.items()},
            provenance=_provenance(chain, folder, flights, until, first, sensitive),
        ),
        {phase.name: phase.report for phase in chain.phases},
    )
    return with_flights(summary, chain, results, first)


def _feasibility(chain: Chain) -> Feasibility | None:
    """Return the feasibility of a chain, if it is stored and valid."""
    try:
        return chain_feasibility(chain)
    except MissionError as error:
        log.warning("the report says nothing of feasibility: %s", error.found)
        return None


def _key(chain: Chain, feasibility: Feasibility | None) -> UnfinishedKey:
    return UnfinishedKey(
        mission=chain.mission.name,
        digest=chain.digest,
        seed=chain.seed,
        policy=chain.policy,
        actors=chain.policy_hashes(),
        plugins=tuple(phase.origin.source_sha256 for phase in chain.phases),
        engine=__version__,
        feasibility=None if feasibility is None else content_hash(feasibility.weights),
        starts=None if chain.given is None else chain.given.sha256,
    )


def _provenance(
    chain: Chain, folder: Path, flights: int, until: float | None, first: int, sensitive: bool
) -> Provenance:
    return Provenance(
        commands=_commands(chain, folder, flights, until, first, sensitive),
        mission_file=str(chain.mission.source.path),
        engine=__version__,
        policies_sha256=chain.policy_hashes(),
        training_seed=chain.mission.seed,
        python=platform.python_version(),
        numpy=np.__version__,
        **describe().model_dump(),
    )


def _commands(
    chain: Chain, folder: Path, flights: int, until: float | None, first: int, sensitive: bool
) -> tuple[str, str]:
    """Return how to fly these flights again, and how to draw the page again."""
    source = chain.mission.source
    if not source.is_file:
        given: dict[str, Any] = {"flights": flights, "seed": chain.seed, "report": str(folder)}
        given |= {"policy": chain.policy} if chain.policy != "agent" else {}
        given |= {"until": until} if until is not None else {}
        given |= {"first_flight": first} if first else {}
        given |= {"judge": chain.mission.judge} if chain.mission.judge != "box" else {}
        given |= {"sensitivity": True} if sensitive else {}
        arguments = ", ".join(f"{name}={value!r}" for name, value in given.items())
        return f"fly_mission(mission, {arguments})", f"draw_report({str(folder)!r}, mission)"
    overrides = [place for place in source.positions.values() if isinstance(place, str)]
    count = ["--flights", str(flights)] if chain.given is None else ["--starts", str(chain.given.path)]
    words = ["mission", "fly", str(source.path), *count, "--seed", str(chain.seed)]
    words += ["--first-flight", str(first)] if first else []
    words += ["--until", f"{until:g}"] if until is not None else []
    words += ["--policy", "guide"] if chain.policy == "guide" else []
    words += ["--judge", chain.mission.judge] if chain.mission.judge != "box" else []
    words += ["--sensitivity"] if sensitive else []
    words += [word for text in overrides for word in text.split(" ", 1)]
    return shlex.join([*words, "--report", str(folder)]), shlex.join(["mission", "report", str(folder)])
