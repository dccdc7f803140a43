"""Fly for a report: every flight's ends, bands, chosen flights once more, the guide beside the agent."""

from __future__ import annotations

import dataclasses
import json
import logging
import platform
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mission import __version__
from mission.chain import Chain, fly_chunks
from mission.choosing import choose_flights
from mission.devices import describe
from mission.flying import CHUNK, pad
from mission.handovers import compare_handovers, training_starts
from mission.lock import folder_lock
from mission.packing import describe_phase, pack_bands, pack_chosen, pack_flight, records_from, unpack_flight
from mission.records import Bands, ChosenFlight, Flights
from mission.report import MissionReport, mission_report
from mission.rollout import PhaseFlight, channels_of, enter_phase
from mission.store import Unfinished, check_target, write_folder
from mission.tracks import Recorder, bands_of, tracks_of

log = logging.getLogger("mission")
Progress = Callable[[int, int], None]
BENCHMARK = "benchmark.json"


class _Watcher:
    """Flies chunks of a chain and keeps their arrays, so that an interrupted run goes on."""

    def __init__(self, chain: Chain, unfinished: Unfinished) -> None:
        self.chain, self.unfinished = chain, unfinished
        self.parts: list[dict[str, np.ndarray]] = []
        self.channels = [tuple(_channel_shapes(phase)) for phase in chain.phases]
        self.entry = [
            jax.jit(lambda handoff, keys, phase=phase: channels_of(phase, enter_phase(phase, handoff, keys)))
            for phase in chain.phases
        ]

    def fly(self, numbers: np.ndarray) -> list[PhaseFlight]:
        """One chunk, flown or found."""
        chain = self.chain
        name = f"{chain.policy}-{numbers[0]}-{len(numbers)}"
        arrays = self.unfinished.get(name)
        if arrays is None:
            arrays = self._fly(numbers)
            self.unfinished.put(name, arrays)
        self.parts.append(arrays)
        pairs = zip(chain.phases, self.channels, strict=True)
        return [unpack_flight(phase, arrays, channels, chain.policy) for phase, channels in pairs]

    def _fly(self, numbers: np.ndarray) -> dict[str, np.ndarray]:
        entries: list[dict[str, np.ndarray]] = []

        def fly_one(index: int, handoff: Any, keys: Any, alive: np.ndarray) -> PhaseFlight:
            rows = len(alive)
            entered = self.entry[index](pad(handoff, rows), pad(keys, rows))
            entries.append({name: np.asarray(values)[:rows] for name, values in entered.items()})
            return self.chain.fly_one(index, handoff, keys, alive)

        arrays: dict[str, np.ndarray] = {}
        for phase, result, enter in zip(self.chain.phases, self.chain.fly(numbers, fly_one), entries, strict=True):
            arrays |= pack_flight(phase, result, enter, self.chain.policy)
        return arrays

    def arrays(self) -> dict[str, np.ndarray]:
        """All chunks joined."""
        return {name: np.concatenate([part[name] for part in self.parts]) for name in self.parts[0]}


def _channel_shapes(phase: Any) -> dict[str, Any]:
    env = phase.environment
    return jax.eval_shape(lambda key: env.telemetry(env.enter(key, env.start(key))), jax.random.key(0))


def report_flights(
    chain: Chain, guide: Chain | None, folder: Path, flights: int, until: float | None, progress: Progress | None
) -> MissionReport:
    """Fly a chain, and its guide on the same seeds, and write the report folder (docs/reports.md).

    Args:
      chain: who flies.
      guide: the same mission by classical controllers; None leaves the comparison out.
      folder: of the report; only a report of the same mission is replaced.
      flights, until, progress: as of `fly_chunks`; the guide flies as many as the chain did.
    """
    check_target(folder, chain.mission.name)
    with folder_lock(folder, "--report"):
        return _report(chain, guide, folder, flights, until, progress)


def _report(
    chain: Chain, guide: Chain | None, folder: Path, flights: int, until: float | None, progress: Progress | None
) -> MissionReport:
    from mission.page import render_page

    unfinished = Unfinished(folder, _key(chain))
    watcher = _Watcher(chain, unfinished)
    report = mission_report(chain, fly_chunks(flights, until, watcher.fly, progress))
    arrays, beside = watcher.arrays(), None
    if guide is not None:
        other = _Watcher(guide, unfinished)
        beside = mission_report(guide, fly_chunks(report.flights, None, other.fly, progress))
        arrays |= other.arrays()
    summary: dict[str, Any] = {
        "mission": chain.mission.name,
        "report": dataclasses.asdict(report),
        "guide": dataclasses.asdict(beside) if beside is not None else None,
        "phases": [
            describe_phase(p, c) | {"benchmark": stored_benchmark(chain.root / p.name) if p.trained else None}
            for p, c in zip(chain.phases, watcher.channels, strict=True)
        ],
        "provenance": _provenance(chain, folder, flights, until),
    }
    bands, chosen = fly_again(chain, _flights(summary, arrays, chain.policy))
    starts = {phase.name: training_starts(chain, k) for k, phase in enumerate(chain.phases) if k > 0}
    arrays |= pack_bands(bands) | pack_chosen(chosen) | {f"starts/{name}": s.values for name, s in starts.items()}
    summary |= {
        "starts": {name: s.source for name, s in starts.items()},
        "bands": {"flights": bands.flights, "channels": list(bands.channels)},
        "chosen": [{f: getattr(flight, f) for f in ("number", "role", "outcome", "same")} for flight in chosen],
    }
    records = records_from(summary, arrays)
    handovers = compare_handovers(records)
    summary["handovers"] = [dataclasses.asdict(handover) for handover in handovers]
    page = render_page(records, handovers, {phase.name: phase.report for phase in chain.phases})
    write_folder(folder, summary, arrays, page)
    return report


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


def _flights(summary: dict[str, Any], arrays: dict[str, np.ndarray], policy: str) -> Flights:
    from mission.packing import flights_from

    return flights_from(summary["phases"], arrays, policy)


def fly_again(chain: Chain, flights: Flights) -> tuple[Bands, tuple[ChosenFlight, ...]]:
    """Bands over the first chunk, and the chosen flights whole, each in the slot it had."""
    wanted = choose_flights(flights)
    recorder = Recorder(chain)
    bands, again = None, {}
    for chunk in sorted({0} | {number // CHUNK for number, _ in wanted}):
        numbers = np.arange(chunk * CHUNK, min((chunk + 1) * CHUNK, flights.count))
        watched = np.array([number - numbers[0] for number, _ in wanted if number // CHUNK == chunk], int)
        frames = recorder.fly(numbers, watched, everyone=chunk == 0)
        bands = bands_of(frames) if chunk == 0 else bands
        for column, lane in enumerate(watched):
            number = int(numbers[lane])
            pairs = zip(frames, flights.phases, strict=True)
            same = all(
                bool(
                    part.flight.success[lane] == phase.success[number]
                    and part.flight.cause[lane] == phase.cause[number]
                )
                for part, phase in pairs
                if part.alive[lane]
            )
            if not same:
                log.warning("flight %d ended otherwise when it was flown again", number)
            again[number] = (flights.outcome(number), same, tracks_of(chain, frames, column, int(lane)))
    assert bands is not None
    return bands, tuple(ChosenFlight(number, role, *again[number]) for number, role in wanted)


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
        **describe(),
    }
