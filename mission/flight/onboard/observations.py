"""Observations from flights of a mission, on which an export is compared with its policy.

Shapes: M observations, N flights of a block, n O entries of an observation with its history, C telemetry channels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from mission.errors import InputError
from mission.flight.batches import BLOCK, fly_batch
from mission.flight.chain import Chain
from mission.flight.fly import PhaseFlight, advance_flights, begin_flights, controller_of, end_flights, telemetry_table

_MOST_BLOCKS = 40


class Observed(NamedTuple):
    """The observation and the telemetry at the beginning of M control steps of a phase, float32."""

    observations: np.ndarray  # [M, n O]
    channels: np.ndarray  # [M, C], in the order of `Phase.channels`


def flown_observations(
    chain: Chain, index: int, count: int, progress: Callable[[int, int], None] | None = None
) -> Observed:
    """Fly a mission up to one phase and return control steps of that phase, drawn evenly from all that were flown.

    Args:
      chain: the mission; its seed decides the flights.
      index: the phase.
      count: M.
      progress: called with (control steps seen, count).

    Raises:
      InputError: too few flights reach the phase to give so many control steps.
    """
    parts: list[Observed] = []
    seen = 0
    for block in range(_MOST_BLOCKS):
        flown = _fly_block(chain, index, np.arange(block * BLOCK, (block + 1) * BLOCK))
        parts.append(flown)
        seen += len(flown.observations)
        if progress is not None:
            progress(min(seen, count), count)
        if seen >= count:
            break
    else:
        raise InputError(
            f'phase "{chain.phases[index].name}"',
            expected=f"{count:,} control steps in {_MOST_BLOCKS * BLOCK:,} flights of the mission",
            found=f"{seen:,}",
            remedy="train the phases before it, or lower the number of observations",
        )
    chosen = np.sort(np.random.default_rng(chain.seed).permutation(seen)[:count])
    return Observed(*(np.concatenate(arrays)[chosen] for arrays in zip(*parts, strict=True)))


def _fly_block(chain: Chain, index: int, numbers: np.ndarray) -> Observed:
    """Fly one block of flights to the end of a phase; return its control steps in the order of time."""
    head = slice(index + 1)
    upto = dataclasses.replace(chain, phases=chain.phases[head], actors=chain.actors[head], flights=chain.flights[head])
    steps: list[Observed] = []

    def fly_one(k: int, handoff: Any, keys: Any, alive: np.ndarray) -> PhaseFlight:
        if k < index:
            return fly_batch(chain.flights[k], chain.actors[k], handoff, keys, alive)
        return _record(chain, index, handoff, keys, alive, steps)

    upto.fly(numbers, fly_one)
    return Observed(*(np.concatenate(arrays) for arrays in zip(*steps, strict=True)))


def _record(
    chain: Chain, index: int, handoff: Any, keys: Array, alive: np.ndarray, steps: list[Observed]
) -> PhaseFlight:
    """Fly a phase step by step, and append what each step begins with for the flights that have not ended."""
    phase, actor = chain.phases[index], chain.actors[index]
    control = controller_of(phase)

    @jax.jit
    def step(now: Any) -> tuple[Any, Array, Array]:
        after, channels = advance_flights(phase, control, actor, keys, now)
        return after, jax.vmap(phase.environment.observe)(after.state), telemetry_table(channels)

    now, channels = jax.jit(lambda *flights: begin_flights(phase, *flights))(handoff, keys, alive)
    obs, enter = jax.jit(jax.vmap(phase.environment.observe))(now.state), channels
    while True:
        live = ~np.asarray(now.ended)
        steps.append(Observed(np.asarray(obs)[live], np.asarray(channels)[live]))
        if not live.any():
            break
        now, obs, channels = step(now)
    return jax.tree.map(np.asarray, jax.jit(lambda *end: end_flights(phase, *end))(now, alive, enter))
