"""A mission that is ready to fly: compiled phases, their pilots, and batches of flights through the whole chain.

Shapes: N flights of a batch, at most 1,000.
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
from mission.flight.batches import (
    BATCH,
    FlightProgram,
    compile_flight,
    flight_keys,
    fly_batch,
    name_key,
    nominal_starts,
)
from mission.flight.causes import check_flight_causes
from mission.flight.fly import PhaseFlight
from mission.missionfile.models import MissionFile
from mission.missionfile.phases import Phase, TrainedPhase
from mission.missionfile.resolve import digest, resolve_mission
from mission.storage.policies import find_policies, stored_actor
from mission.storage.steps import PhaseFolder, content_hash

# (phase index, handoff [N, ...], keys [N], alive bool [N]) -> the flights of that phase
FlyOne = Callable[[int, Any, Any, np.ndarray], PhaseFlight]


@dataclasses.dataclass(frozen=True, eq=False)
class Chain:
    """The phases of a mission in the order of flight, each with its actor (None: its guide flies it)."""

    mission: MissionFile
    phases: tuple[Phase, ...]
    actors: tuple[Any, ...]
    flights: tuple[FlightProgram, ...]
    seed: int
    policy: str
    root: Path

    @property
    def channels(self) -> tuple[str, ...]:
        """Every telemetry channel, in order of appearance."""
        return tuple(dict.fromkeys(name for phase in self.phases for name in phase.channels))

    @property
    def digest(self) -> str:
        """The digest of the validated configuration of all phases."""
        return digest([phase.configuration() for phase in self.phases])

    def policy_hashes(self) -> tuple[str | None, ...]:
        """Return the SHA-256 of each actor's numbers; None for a guide."""
        return tuple(None if actor is None else content_hash(actor) for actor in self.actors)

    def fly_one(self, index: int, handoff: Any, keys: Any, alive: np.ndarray) -> PhaseFlight:
        """Fly one phase of one batch."""
        return fly_batch(self.flights[index], self.actors[index], handoff, keys, alive)

    def fly(self, numbers: np.ndarray, fly_one: FlyOne | None = None) -> list[PhaseFlight]:
        """Fly flights `numbers` (int [N]) from the first phase to the last; failed flights stay where they are.

        Args:
          numbers: flight numbers; keys are folded from them, so a flight is the same in any batch.
          fly_one: the function that flies one phase; default `self.fly_one`.

        Raises:
          PluginError: a flight ended with a cause that contradicts the contract.
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
            check_flight_causes(phase, result.cause, alive)
            results.append(result._replace(handoff=()))
            handoff, alive = result.handoff, result.success
        return results

    def has_agents_and_guides(self) -> bool:
        """Return whether an agent flies some phase although every phase could be flown without one."""
        guided = all(p.environment.guide is not None or not p.environment.action_names for p in self.phases)
        return guided and any(isinstance(phase, TrainedPhase) for phase in self.phases)

    def guided(self) -> Chain:
        """Return the same mission on the same seeds, every phase flown by its guide."""
        phases = tuple(phase.guided() for phase in self.phases)
        return dataclasses.replace(
            self,
            mission=self.mission.all_guides(),
            phases=phases,
            actors=(None,) * len(phases),
            flights=tuple(compile_flight(phase) for phase in phases),
            policy="guide",
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
    """Resolve a mission and read its policies; nothing is compiled yet. For the arguments see `fly_mission`."""
    configure()
    if policy == "guide":
        mission = mission.all_guides()
    phases = resolve_mission(mission, allow_local_plugins=allow_local_plugins)
    root = find_policies(mission, phases, checkpoints)
    return Chain(
        mission=mission,
        phases=phases,
        actors=tuple(
            stored_actor(PhaseFolder(root / phase.name), phases, k, allow_stale)
            if isinstance(phase, TrainedPhase)
            else None
            for k, phase in enumerate(phases)
        ),
        flights=tuple(compile_flight(phase) for phase in phases),
        seed=mission.seed if seed is None else seed,
        policy=policy,
        root=root,
    )


def check_flights(flights: int, until: float | None) -> None:
    """Reject numbers of flights and widths of intervals that cannot be flown."""
    if flights < 1:
        raise InputError("--flights", expected="at least 1", found=str(flights), remedy="fly at least one")
    if until is not None and not 0.0 < until < 1.0:
        raise InputError("--until", expected="above 0 and below 1", found=str(until), remedy="0.01 is one percent")
    if until is not None and flights <= BATCH:
        raise InputError(
            "--until",
            expected=f"only with --flights above {BATCH:,}, since the interval is computed after each {BATCH:,} flights",
            found=f"--flights {flights}, which are flown in any case",
            remedy="raise --flights, or remove --until",
        )
