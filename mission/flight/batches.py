"""Compiled flights in batches of 1,000; evaluation, gate, bank and `mission fly` all use them.

Every batch is padded to 1,000 vehicles and split over the devices, and the key of a flight is folded from its number,
so the result of a flight does not depend on the number of other flights. Shapes: N flights of a batch, at most 1,000.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import NamedSharding

from mission.devices import REPLICATED, SPLIT, mesh
from mission.flight.causes import check_flight_causes
from mission.flight.fly import PhaseFlight, agent_controller, fly_phase, guide_controller
from mission.flight.trees import is_key
from mission.missionfile.phases import Phase, TrainedPhase
from mission.statistics import wilson

BATCH = 1000
# (policy parameters, handoff [N, ...], keys [N], alive bool [N]) -> the flights of one phase
FlightProgram = Callable[[Any, Any, Array, Array], PhaseFlight]


def name_key(key: Array, name: str) -> Array:
    """Fold a name into a key, so that inserting a phase does not change the keys of the others."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def flight_keys(key: Array, numbers: np.ndarray) -> Array:
    """Return typed keys [N], folded from flight numbers."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.asarray(numbers, jnp.uint32))


def compile_flight(phase: Phase) -> FlightProgram:
    """Return `fly_phase` for one batch, jitted and split over the devices: by the agent of a TrainedPhase, else by
    the guide."""
    control = agent_controller(phase) if isinstance(phase, TrainedPhase) else guide_controller(phase)
    fly = partial(fly_phase, phase, control)
    specs = (REPLICATED, SPLIT, SPLIT, SPLIT)
    return jax.jit(jax.shard_map(fly, mesh=mesh(), in_specs=specs, out_specs=SPLIT, check_vma=False))


def batches(total: int) -> Iterator[np.ndarray]:
    """Yield flight numbers, 1,000 at a time."""
    for first in range(0, total, BATCH):
        yield np.arange(first, min(first + BATCH, total))


def to_host(tree: Any) -> Any:
    """Return numpy arrays, so that row operations between two compiled flights do not launch further XLA programs.

    XLA runs at most 32 programs of a device at once, and the next one waits in a thread that the others may need:
    a slice for each of sixty leaves was enough to deadlock a busy machine (docs/decisions/0008-rows-on-the-host.md).
    Typed keys are left as they are.
    """
    return jax.tree.map(lambda leaf: leaf if is_key(leaf) else np.asarray(leaf), tree)


def pad(tree: Any, rows: int) -> Any:
    """Repeat row 0 until a batched pytree has BATCH rows."""
    index = np.arange(BATCH)
    index[rows:] = 0
    return jax.tree.map(lambda leaf: leaf[index], tree) if rows < BATCH else tree


def nominal_starts(phase: Phase, keys: Array) -> Any:
    """Return nominal entry states [N] of a phase, one per key, for at most one batch."""
    padded = jax.vmap(name_key, (0, None))(pad(keys, len(keys)), "start")
    return jax.tree.map(lambda leaf: leaf[: len(keys)], to_host(_compile_start(phase)(padded)))


def to_devices(tree: Any) -> Any:
    """Spread BATCH rows over the devices as every compiled flight takes them: one sharding, traced once."""
    return jax.device_put(tree, NamedSharding(mesh(), SPLIT))


@cache
def _compile_start(phase: Phase) -> Callable[[Array], Any]:
    return jax.jit(jax.vmap(phase.environment.start))


def fly_batch(flight: FlightProgram, params: Any, handoff: Any, keys: Array, alive: np.ndarray) -> PhaseFlight:
    """Fly one batch of at most 1,000 flights; everything is returned on the host."""
    rows = len(alive)
    lanes = np.pad(alive, (0, BATCH - rows))
    return first_rows(flight(params, *to_devices((pad(handoff, rows), pad(keys, rows), lanes))), rows)


def first_rows(result: PhaseFlight, rows: int) -> PhaseFlight:
    """Return the first `rows` flights of a batch, on the host."""
    return jax.tree.map(lambda leaf: leaf[:rows], to_host(result))


def fly_rows(
    phase: Phase, flight: FlightProgram, params: Any, rows: Any | None, index: np.ndarray, key: Array
) -> PhaseFlight:
    """Fly one phase from stored rows, or from its own start if there are none.

    Args:
      phase, flight, params: the phase, its compiled flight, and the parameters of its policy.
      rows: leaves [M, ...], or None.
      index: int [N], the row of each flight; its length is the number of flights.
      key: flight n uses fold_in(key, n); consumed.

    Raises:
      PluginError: a flight ended with a cause that contradicts the contract.
    """
    parts, rows = [], to_host(rows)
    for numbers in batches(len(index)):
        keys = flight_keys(key, numbers)
        handoff = (
            nominal_starts(phase, keys) if rows is None else jax.tree.map(lambda leaf, n=numbers: leaf[index[n]], rows)
        )
        flown = np.ones(len(numbers), bool)
        parts.append(fly_batch(flight, params, handoff, keys, flown))
        check_flight_causes(phase, parts[-1].cause, flown)
    return jax.tree.map(concatenate, *parts)


def fly_batches(
    flights: int,
    until: float | None,
    fly: Callable[[np.ndarray], list[PhaseFlight]],
    progress: Callable[[int, int], None] | None = None,
) -> list[PhaseFlight]:
    """Fly batch after batch, up to `flights`, or until the success interval is narrow enough.

    The rule is evaluated after whole batches only, so an interruption does not change the result.

    Args:
      flights: largest number of flights.
      until: half-width of the 95 % Wilson interval of the whole chain's success at which to stop.
      fly: flies the flights whose numbers it is given; returns one record per phase.
      progress: called with (flights done, flights).
    """
    parts: list[list[PhaseFlight]] = []
    succeeded = flown = 0
    for numbers in batches(flights):
        parts.append(fly(numbers))
        succeeded, flown = succeeded + int(parts[-1][-1].success.sum()), flown + len(numbers)
        if progress is not None:
            progress(flown, flights)
        low, high = wilson(succeeded, flown)
        if until is not None and (high - low) / 2.0 <= until:
            break
    return [jax.tree.map(lambda *leaves: np.concatenate(leaves), *phase) for phase in zip(*parts, strict=True)]


def concatenate(*leaves: Any) -> Any:
    """Concatenate leaves of batches; typed keys are JAX's, everything else is numpy's."""
    return jnp.concatenate(leaves) if is_key(leaves[0]) else np.concatenate(leaves)


def loss_causes(phase: Phase, result: PhaseFlight, entered: np.ndarray) -> dict[str, int]:
    """Return the number of failures by cause among the flights that entered; every cause is listed."""
    lost = entered & ~result.success
    return {cause: int((lost & (result.cause == i)).sum()) for i, cause in enumerate(phase.causes) if i > 0}
