"""The first observations of flights in each phase, with the outcomes of the flights."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from mission.flight.batches import (
    block_rows,
    first_rows,
    fly_batch,
    join,
    map_each,
    pad,
    program_identity,
    to_host,
)
from mission.flight.chain import Chain
from mission.flight.fly import PhaseFlight, enter_phase
from mission.machine.programs import Program
from mission.missionfile.phases import Phase


class Entered(NamedTuple):
    """N flights in one phase: their first observations, float32 [N, O], and their flights.

    Rows of flights that did not enter the phase have no meaning.
    """

    obs: np.ndarray
    flight: PhaseFlight


def first_observations(phase: Phase) -> Program:
    """Return the program (hand-overs [B, ...], keys [B]) -> first observations [B, O] of one block."""
    identity = program_identity(phase, "first observations")
    return Program(partial(_observe_first, phase), identity, None, phase.name)


def _observe_first(phase: Phase, handoff: Any, keys: Array) -> Array:
    return jax.vmap(phase.environment.observe)(enter_phase(phase, handoff, keys))


def fly_observing(chain: Chain) -> Callable[[np.ndarray], list[Entered]]:
    """Return the function that flies flights by number and returns their first observations, by phase."""
    programs = [first_observations(phase) for phase in chain.phases]

    def fly(numbers: np.ndarray) -> list[Entered]:
        seen: list[np.ndarray] = []

        def fly_one(index: int, handoff: Any, keys: Any, alive: np.ndarray) -> PhaseFlight:
            handoff, rows = to_host(handoff), len(alive)
            blocks = [block_rows(pad(tree, rows), rows) for tree in (handoff, keys)]
            seen.append(first_rows(join(map_each(programs[index], *blocks, devices=chain.devices)), rows))
            return fly_batch(chain.flights[index], chain.actors[index], handoff, keys, alive)

        flights = chain.fly(numbers, fly_one)
        return [Entered(obs, flight) for obs, flight in zip(seen, flights, strict=True)]

    return fly
