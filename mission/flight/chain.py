"""A mission ready to fly: compiled phases, who flies them, and chunks of flights through all of them.

Shapes: N flights of a chunk, at most 1,000.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mission.devices import configure
from mission.errors import InputError
from mission.flight.batches import Flight, chunks, compile_flight, flight_keys, fly_chunk, name_key, nominal_starts
from mission.flight.fly import PhaseFlight
from mission.missionfile.models import MissionFile
from mission.missionfile.resolve import digest, resolve_mission
from mission.phase import Phase
from mission.statistics import wilson
from mission.storage.policies import find_policies, stored_actor
from mission.storage.steps import PhaseFolder, content_hash

# (phase index, handoff [N, ...], keys [N], alive bool [N]) -> the flights of that phase
FlyOne = Callable[[int, Any, Any, np.ndarray], PhaseFlight]


@dataclasses.dataclass(frozen=True, eq=False)
class Chain:
    """The phases of a mission in order of flight, each with its actor (None: flown by its guide)."""

    mission: MissionFile
    phases: tuple[Phase, ...]
    actors: tuple[Any, ...]
    flights: tuple[Flight, ...]
    seed: int
    policy: str
    root: Path

    @property
    def channels(self) -> tuple[str, ...]:
        """Every telemetry channel, in order of appearance."""
        return tuple(dict.fromkeys(name for phase in self.phases for name in phase.channels))

    @property
    def digest(self) -> str:
        """Of the validated configuration of all phases."""
        return digest([phase.configuration() for phase in self.phases])

    def policy_hashes(self) -> tuple[str | None, ...]:
        """SHA-256 of each actor's numbers; None for a guide."""
        return tuple(None if actor is None else content_hash(actor) for actor in self.actors)

    def fly_one(self, index: int, handoff: Any, keys: Any, alive: np.ndarray) -> PhaseFlight:
        """One phase of one chunk."""
        return fly_chunk(self.flights[index], self.actors[index], handoff, keys, alive)

    def fly(self, numbers: np.ndarray, fly_one: FlyOne | None = None) -> list[PhaseFlight]:
        """Flights `numbers` (int [N]) from the first phase to the last; the lost ones stay where they are.

        Args:
          numbers: of the flights; keys are folded from them, so a flight is the same in any chunk.
          fly_one: how a phase is flown; default `self.fly_one`.
        """
        fly_one = fly_one or self.fly_one
        key = name_key(jax.random.key(self.seed), "flights of")  # no phase can have this name
        keys = flight_keys(key, numbers)
        results: list[PhaseFlight] = []
        handoff, alive = None, np.ones(len(numbers), bool)
        for k, phase in enumerate(self.phases):
            phase_keys = jax.vmap(name_key, (0, None))(keys, phase.name)
            if handoff is None:
                handoff = nominal_starts(phase, phase_keys)
            result = fly_one(k, handoff, phase_keys, alive)
            results.append(result._replace(handoff=()))
            handoff, alive = result.handoff, result.success
        return results


def all_guides(mission: MissionFile) -> MissionFile:
    """The mission with every phase flown by its classical controller."""
    entries = tuple(entry.model_copy(update={"policy": "guide"}) for entry in mission.phases)
    return mission.model_copy(update={"phases": entries})


def has_agents_and_guides(chain: Chain) -> bool:
    """Whether an agent flies some phase, and every phase could be flown without one."""
    guided = all(p.environment.guide is not None or not p.environment.action_names for p in chain.phases)
    return guided and any(phase.trained for phase in chain.phases)


def guide_chain(chain: Chain) -> Chain:
    """The same mission on the same seeds, every phase flown by its guide."""
    mission = all_guides(chain.mission)
    phases = tuple(dataclasses.replace(p, entry=e) for p, e in zip(chain.phases, mission.phases, strict=True))
    flights = tuple(compile_flight(phase, agent=False) for phase in phases)
    return dataclasses.replace(
        chain, mission=mission, phases=phases, actors=(None,) * len(phases), flights=flights, policy="guide"
    )


def prepare_chain(
    mission: MissionFile,
    *,
    checkpoints: str | Path | None = None,
    seed: int | None = None,
    policy: str = "agent",
    allow_stale: bool = False,
    allow_local_plugins: bool = False,
) -> Chain:
    """Resolve a mission, read its policies, compile nothing yet; arguments as of `fly_mission`."""
    configure()
    if policy == "guide":
        mission = all_guides(mission)
    phases = resolve_mission(mission, allow_local_plugins=allow_local_plugins)
    root = find_policies(mission, phases, checkpoints)
    actors = tuple(
        stored_actor(PhaseFolder(root / phase.name), phases, k, allow_stale) if phase.trained else None
        for k, phase in enumerate(phases)
    )
    compiled = tuple(compile_flight(phase, agent=phase.trained) for phase in phases)
    return Chain(mission, phases, actors, compiled, mission.seed if seed is None else seed, policy, root)


def check_flights(flights: int, until: float | None) -> None:
    """Refuse numbers that cannot be flown."""
    if flights < 1:
        raise InputError("--flights", expected="at least 1", found=str(flights), remedy="fly at least one")
    if until is not None and not 0.0 < until < 1.0:
        raise InputError("--until", expected="above 0 and below 1", found=str(until), remedy="0.01 is one percent")


def fly_chunks(
    flights: int,
    until: float | None,
    fly: Callable[[np.ndarray], list[PhaseFlight]],
    progress: Callable[[int, int], None] | None = None,
) -> list[PhaseFlight]:
    """Chunk after chunk, up to `flights`, or until the success interval is narrow enough.

    The rule looks at whole chunks only, so where a run was interrupted changes nothing.

    Args:
      flights: at most so many.
      until: half-width of the 95 % Wilson interval of the whole chain's success at which to stop.
      fly: flies the flights of the numbers it is given, one record a phase.
      progress: called with (flights done, flights).
    """
    parts: list[list[PhaseFlight]] = []
    succeeded = flown = 0
    for numbers in chunks(flights):
        parts.append(fly(numbers))
        succeeded, flown = succeeded + int(parts[-1][-1].success.sum()), flown + len(numbers)
        if progress is not None:
            progress(flown, flights)
        low, high = wilson(succeeded, flown)
        if until is not None and (high - low) / 2.0 <= until:
            break
    return [jax.tree.map(lambda *leaves: np.concatenate(leaves), *phase) for phase in zip(*parts, strict=True)]
