"""Compiled flights in chunks of 1,000: evaluation, gate, bank and `fly` all go through here.

Every chunk is padded to 1,000 vehicles and split over the devices, and a flight's key is folded from
its number, so the result of a flight does not depend on how many others fly.
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
from mission.flight.fly import Controller, PhaseFlight, fly_phase, guide_controller, is_key
from mission.phase import Phase
from mission.sac.networks import make_networks, mean_action
from mission.training.bank import TerminalBank, count

CHUNK = 1000
Flight = Callable[[Any, Any, Array, Array], PhaseFlight]


def name_key(key: Array, name: str) -> Array:
    """A key for a name: neighbours' keys do not move when a phase is inserted."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def flight_keys(key: Array, numbers: np.ndarray) -> Array:
    """Typed keys [N], folded from flight numbers."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.asarray(numbers, jnp.uint32))


def agent_controller(phase: Phase) -> Controller:
    """The policy's mean action."""
    assert phase.sac is not None
    head, networks = phase.sac.actor.head, make_networks(phase.sac, len(phase.environment.action_names))
    return lambda params, state, obs: mean_action(head, networks.normal(params, obs))


def compile_flight(phase: Phase, agent: bool) -> Flight:
    """`fly_phase` for one chunk, jitted and split over the devices."""
    control = agent_controller(phase) if agent else guide_controller(phase)
    fly = partial(fly_phase, phase, control)
    specs = (REPLICATED, SPLIT, SPLIT, SPLIT)
    return jax.jit(jax.shard_map(fly, mesh=mesh(), in_specs=specs, out_specs=SPLIT, check_vma=False))


def chunks(total: int) -> Iterator[np.ndarray]:
    """Flight numbers, 1,000 at a time."""
    for begin in range(0, total, CHUNK):
        yield np.arange(begin, min(begin + CHUNK, total))


def to_host(tree: Any) -> Any:
    """Arrays of numpy, so that what is done to rows between two compiled flights is no program of its own.

    XLA runs at most 32 programs of a device at once, and one more waits in a thread that the others may need: a
    slice for each of sixty leaves was enough to stop a busy machine for ever
    (docs/decisions/0008-rows-on-the-host.md). Typed keys stay what they are.
    """
    return jax.tree.map(lambda leaf: leaf if is_key(leaf) else np.asarray(leaf), tree)


def pad(tree: Any, rows: int) -> Any:
    """Repeat row 0 until a batched pytree has CHUNK rows."""
    index = np.arange(CHUNK)
    index[rows:] = 0
    return jax.tree.map(lambda leaf: leaf[index], tree) if rows < CHUNK else tree


def nominal_starts(phase: Phase, keys: Array) -> Any:
    """Nominal entry states [N] of a phase, one a key, for at most one chunk."""
    padded = jax.vmap(name_key, (0, None))(pad(keys, len(keys)), "start")
    return jax.tree.map(lambda leaf: leaf[: len(keys)], to_host(_compile_start(phase)(padded)))


def to_devices(tree: Any) -> Any:
    """Spread CHUNK rows over the devices, as every compiled flight takes them: one sharding, traced once."""
    return jax.device_put(tree, NamedSharding(mesh(), SPLIT))


@cache
def _compile_start(phase: Phase) -> Callable[[Array], Any]:
    return jax.jit(jax.vmap(phase.environment.start))


def fly_chunk(flight: Flight, params: Any, handoff: Any, keys: Array, alive: np.ndarray) -> PhaseFlight:
    """One chunk of at most 1,000 flights; everything comes back on the host."""
    rows = len(alive)
    lanes = np.pad(alive, (0, CHUNK - rows))
    return first_rows(flight(params, *to_devices((pad(handoff, rows), pad(keys, rows), lanes))), rows)


def first_rows(result: PhaseFlight, rows: int) -> PhaseFlight:
    """The first `rows` flights of a chunk, on the host."""
    return jax.tree.map(lambda leaf: leaf[:rows], to_host(result))


def fly_rows(phase: Phase, flight: Flight, params: Any, rows: Any | None, index: np.ndarray, key: Array) -> PhaseFlight:
    """Fly one phase from stored rows, or from its own start where there are none.

    Args:
      phase, flight, params: who flies what.
      rows: leaves [M, ...], or None.
      index: int [N], the row of each flight; its length is the number of flights.
      key: flight n uses fold_in(key, n); consumed.
    """
    parts, rows = [], to_host(rows)
    for numbers in chunks(len(index)):
        keys = flight_keys(key, numbers)
        handoff = (
            nominal_starts(phase, keys) if rows is None else jax.tree.map(lambda leaf, n=numbers: leaf[index[n]], rows)
        )
        parts.append(fly_chunk(flight, params, handoff, keys, np.ones(len(numbers), bool)))
    return join(parts)


def join(parts: list[PhaseFlight]) -> PhaseFlight:
    """Concatenate chunks."""
    return jax.tree.map(_stack, *parts)


def _stack(*leaves: Any) -> Any:
    return jnp.concatenate(leaves) if is_key(leaves[0]) else np.concatenate(leaves)


def bank_flights(
    phase: Phase, flight: Flight, params: Any, upstream: TerminalBank | None, key: Array
) -> tuple[PhaseFlight, np.ndarray]:
    """The flights that fill a phase's bank, and which of them began at held-out rows.

    Held-out rows lead to held-out rows, so that no gate down the chain sees a trained-on ancestor.
    """
    settings = phase.entry.bank
    kept = max(1, round(settings.flights * settings.held_out))
    held_out = np.arange(settings.flights) < kept
    if upstream is None:
        return fly_rows(phase, flight, params, None, np.arange(settings.flights), key), held_out
    rows = jax.tree.map(_stack, to_host(upstream.held_out), to_host(upstream.rows))
    held, train = count(upstream.held_out), count(upstream.rows)
    index = np.where(held_out, np.arange(settings.flights) % held, held + (np.arange(settings.flights) - kept) % train)
    return fly_rows(phase, flight, params, rows, index, key), held_out


def loss_causes(phase: Phase, result: PhaseFlight, entered: np.ndarray) -> dict[str, int]:
    """Number of losses by cause among the flights that entered; every cause is listed."""
    lost = entered & ~result.success
    return {cause: int((lost & (result.cause == i)).sum()) for i, cause in enumerate(phase.causes) if i > 0}
