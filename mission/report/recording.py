"""Fly for a report: every flight's ends, bands, chosen flights whole, the guide beside the agent."""

from __future__ import annotations

import dataclasses
import json
import logging
import platform
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mission import __version__
from mission.devices import describe
from mission.flight.batches import BATCH
from mission.flight.chain import Chain, fly_batches
from mission.flight.fly import PhaseFlight
from mission.missionfile.phases import TrainedPhase
from mission.report.arrays import (
    describe_phase,
    flights_from,
    pack_bands,
    pack_flight,
    pack_tracks,
    records_from,
    unpack_flight,
)
from mission.report.choosing import choose_flights, lost_flights, ordinary_flights
from mission.report.folder import FORMAT, Unfinished, check_target, write_folder
from mission.report.handovers import compare_handovers, training_starts
from mission.report.summary import MissionSummary, mission_summary
from mission.report.tracks import Recorder, bands_of, tracks_of
from mission.storage.lock import folder_lock

log = logging.getLogger("mission")
ProgressCallback = Callable[[int, int], None]
BENCHMARK = "benchmark.json"


class _Watcher:
    """Flies chunks of a chain and keeps their arrays, so that an interrupted run goes on."""

    def __init__(self, chain: Chain, unfinished: Unfinished, recorder: Recorder | None = None) -> None:
        self.chain, self.unfinished, self.recorder = chain, unfinished, recorder
        self.phases = [describe_phase(phase) for phase in chain.phases]
        self.parts: list[dict[str, np.ndarray]] = []

    def fly(self, numbers: np.ndarray) -> list[PhaseFlight]:
        """One chunk, flown or found."""
        chain = self.chain
        name = f"{chain.policy}-{numbers[0]}-{len(numbers)}"
        arrays = self.unfinished.get(name)
        if arrays is None:
            arrays = self._fly(numbers)
            self.unfinished.put(name, arrays)
        self.parts.append(arrays)
        return [unpack_flight(phase, arrays, chain.policy) for phase in chain.phases]

    def _fly(self, numbers: np.ndarray) -> dict[str, np.ndarray]:
        """Every flight of a chunk; with a recorder those whole that may be chosen, and the first chunk's bands."""
        if self.recorder is None:
            return self._pack(self.chain.fly(numbers))
        frames = self.recorder.fly(numbers)
        arrays = self._pack([part.flight for part in frames])
        flights = flights_from(self.phases, arrays, self.chain.policy)
        lanes = lost_flights(flights)
        if numbers[0] == 0:
            lanes += [lane for lane, _ in ordinary_flights(flights)]
            arrays |= pack_bands(bands_of(self.chain, frames))
        for lane in lanes:
            arrays |= pack_tracks(numbers[lane], tracks_of(self.chain, frames, lane))
        return arrays

    def _pack(self, results: list[PhaseFlight]) -> dict[str, np.ndarray]:
        arrays: dict[str, np.ndarray] = {}
        for phase, result in zip(self.chain.phases, results, strict=True):
            arrays |= pack_flight(phase, result, self.chain.policy)
        return arrays

    def arrays(self) -> dict[str, np.ndarray]:
        """All chunks joined."""
        every = {name: values for part in self.parts for name, values in part.items()}
        joined = [name for name in self.parts[0] if name.startswith(f"{self.chain.policy}/")]
        return every | {name: np.concatenate([part[name] for part in self.parts]) for name in joined}


def report_flights(
    chain: Chain, folder: Path, flights: int, until: float | None, progress: ProgressCallback | None
) -> MissionSummary:
    """Fly a chain, and its guides on the same seeds, and write the report folder (docs/reports.md).

    Args:
      chain: who flies; the guides fly as many beside it where an agent flies some phase and each has a guide.
      folder: of the report; only a report of the same mission is replaced.
      flights, until, progress: as of `fly_batches`.
    """
    check_target(folder, chain.mission.name)
    with folder_lock(folder, "--report"):
        return _report(chain, folder, flights, until, progress)


def _report(
    chain: Chain, folder: Path, flights: int, until: float | None, progress: ProgressCallback | None
) -> MissionSummary:
    from mission.report.page import render_page

    unfinished = Unfinished(folder, _key(chain))
    recorder = Recorder(chain)
    watcher = _Watcher(chain, unfinished, recorder)
    report = mission_summary(chain, fly_batches(flights, until, watcher.fly, progress))
    arrays, beside = watcher.arrays(), None
    if chain.has_agents_and_guides():
        guide = chain.guided()
        other = _Watcher(guide, unfinished)
        beside = mission_summary(guide, fly_batches(report.flights, None, other.fly, progress))
        arrays |= other.arrays()
    starts = {phase.name: training_starts(chain, k, recorder) for k, phase in enumerate(chain.phases) if k > 0}
    arrays |= {f"starts/{name}": s.values for name, s in starts.items()}
    flown = flights_from(watcher.phases, arrays, chain.policy)
    chosen = choose_flights(flown)
    arrays = _only_chosen(arrays, [number for number, _ in chosen])
    summary: dict[str, Any] = {
        "mission": chain.mission.name,
        "report": report.model_dump(mode="json"),
        "guide": beside.model_dump(mode="json") if beside is not None else None,
        "phases": [
            described
            | {"benchmark": stored_benchmark(chain.root / phase.name) if isinstance(phase, TrainedPhase) else None}
            for phase, described in zip(chain.phases, watcher.phases, strict=True)
        ],
        "provenance": _provenance(chain, folder, flights, until),
        "starts": {name: s.source for name, s in starts.items()},
        "bands": {"flights": min(BATCH, report.flights), "channels": list(chain.channels)},
        "chosen": [{"number": n, "role": role, "outcome": flown.outcome(n)} for n, role in chosen],
    }
    records = records_from(summary, arrays)
    handovers = compare_handovers(records)
    summary["handovers"] = [dataclasses.asdict(handover) for handover in handovers]
    page = render_page(records, handovers, {phase.name: phase.report for phase in chain.phases})
    write_folder(folder, summary, arrays, page)
    return report


def _only_chosen(arrays: dict[str, np.ndarray], numbers: list[int]) -> dict[str, np.ndarray]:
    """Without the tracks of flights that might have been chosen, and were not."""
    kept = {f"{number}" for number in numbers}
    return {
        name: values for name, values in arrays.items() if not name.startswith("flight/") or name.split("/")[1] in kept
    }


def stored_benchmark(folder: Path) -> dict[str, Any] | None:
    """What a benchmark stored beside a policy, for plugins to draw; None where none did or it cannot be read."""
    path = folder / BENCHMARK
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        log.warning("%s is left out: %s", path, error)
        return None
    return stored if isinstance(stored, dict) else None


def _key(chain: Chain) -> dict[str, Any]:
    """What decides every number of a flight."""
    return {
        "mission": chain.mission.name,
        "digest": chain.digest,
        "seed": chain.seed,
        "policy": chain.policy,
        "actors": chain.policy_hashes(),
        "plugins": [phase.origin.source_sha256 for phase in chain.phases],
        "engine": __version__,
        "format": FORMAT,
    }


def _provenance(chain: Chain, folder: Path, flights: int, until: float | None) -> dict[str, Any]:
    source = chain.mission.source
    overrides = [place for place in source.positions.values() if isinstance(place, str)]
    words = ["mission", "fly", str(source.path), "--flights", str(flights), "--seed", str(chain.seed)]
    words += ["--until", f"{until:g}"] if until is not None else []
    words += ["--policy", "guide"] if chain.policy == "guide" else []
    words += [word for text in overrides for word in text.split(" ", 1)]
    return {
        "commands": [shlex.join([*words, "--report", str(folder)]), shlex.join(["mission", "report", str(folder)])],
        "mission_file": str(source.path),
        "engine": __version__,
        "policies_sha256": list(chain.policy_hashes()),
        "training_seed": chain.mission.seed,
        "python": platform.python_version(),
        "numpy": np.__version__,
        **describe().model_dump(),
    }
