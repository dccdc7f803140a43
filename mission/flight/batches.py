"""Compiled flights in blocks of 250, which evaluation, gate, bank and `mission fly` all use.

A program flies a fixed block of vehicles on one device. Blocks are padded, threads fly them on all cores or accelerators,
and the key of a flight is folded from its number. So the result of a flight depends neither on the number of other flights
nor on the machine's cores. Flights are counted, recorded and stored in batches of 1,000. Shapes: N flights of a batch, at
most 1,000; B of a block, 250.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from itertools import cycle, repeat
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mission.flight.causes import check_flight_causes
from mission.flight.fly import PhaseFlight, controller_of, fly_phase
from mission.machine.devices import workers
from mission.machine.programs import Program
from mission.machine.trees import is_key
from mission.missionfile.phases import LibraryPhase, Phase, PolicyPhase
from mission.missionfile.sources import UNKNOWN_SOURCE
from mission.missionfile.statistics import wilson
from mission.phase import LOCAL_SOURCE

BATCH = 1000
BLOCK = 250
# (policy parameters, handoff [B, ...], keys [B], alive bool [B]) -> the flights of one phase
FlightProgram = Callable[[Any, Any, Any, Any], PhaseFlight]


def name_key(key: Array, name: str) -> Array:
    """Fold a name into a key, so that inserting a phase does not change the keys of the others."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def flight_keys(key: Array, numbers: np.ndarray) -> Array:
    """Return typed keys [N], folded from flight numbers."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.asarray(numbers, jnp.uint32))


def compile_flight(phase: Phase) -> Program:
    """Return `fly_phase` for one block: by the policy of a PolicyPhase, else by the guide."""
    identity = program_identity(phase, "flight")
    return Program(partial(fly_phase, phase, controller_of(phase)), identity, partial(_flight_like, phase), phase.name)


def prepare_flight(flight: Program, phase: Phase, params: Any) -> None:
    """Compile or read the flight of a phase for one block."""
    rows = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((BLOCK, *leaf.shape), leaf.dtype), phase.accepts)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), BLOCK))
    flight.prepare(to_host(params), rows, keys, jax.ShapeDtypeStruct((BLOCK,), bool))


def program_identity(phase: Phase, purpose: str) -> str | None:
    """Return everything that determines a program that flies or trains a phase. It is None if the program cannot be
    stored: a library or an ONNX model flies the phase, or the files of its plugin are unknown or do not exist."""
    origin = phase.origin
    if origin.source_sha256 == UNKNOWN_SOURCE or origin.distribution == LOCAL_SOURCE or isinstance(phase, LibraryPhase):
        return None
    decides = {"params", "sac", "restart", "training_params", "training_share", "tolerated"}
    configuration = phase.configuration().model_dump(include=decides, mode="json")
    # The parameters of a policy are no part of its program: agent, imitator and folder share one.
    configuration["policy"] = "guarded" if phase.guarded else "agent" if isinstance(phase, PolicyPhase) else "guide"
    if phase.rest is not None:  # its numbers are constants of the program
        configuration["rest"] = [phase.rest.sha256, phase.rest.weight, phase.rest.replaces]
    return json.dumps([purpose, origin.source_sha256, phase.entry.plugin, configuration], sort_keys=True)


def _flight_like(phase: Phase, params: Any, handoff: Any, keys: Any, alive: Any) -> PhaseFlight:
    """Return a tree like the result of a flight."""
    limited = dict.fromkeys(limit.channel for limit in phase.limits)
    limits = dict.fromkeys(limited, 0)
    return PhaseFlight(phase.leaves, 0, 0, 0, 0, 0, dict.fromkeys(phase.channels, 0), limits, limits, 0)


def batches(total: int, first: int = 0) -> Iterator[np.ndarray]:
    """Yield the numbers of `total` flights from number `first` on, 1,000 at a time."""
    for begin in range(first, first + total, BATCH):
        yield np.arange(begin, min(begin + BATCH, first + total))


def to_host(tree: Any) -> Any:
    """Return numpy arrays, so that row operations between two compiled flights do not launch further XLA programs.

    XLA runs at most 32 programs per device at the same time, and the next one waits in a thread that the others may
    need: slicing each of sixty leaves was enough to cause a deadlock on a busy machine
    (docs/decisions/0008-rows-on-the-host.md).
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
    blocks = map_each(partial(start_block, phase), block_rows(pad(keys, len(keys)), len(keys)))
    return first_rows(join(blocks), len(keys))


def start_block(phase: Phase, keys: Array) -> Any:
    """Return nominal entry states [B] of a phase for one block."""
    return to_host(_compile_start(phase)(jax.vmap(name_key, (0, None))(keys, "start")))


@cache
def _compile_start(phase: Phase) -> Program:
    start = jax.vmap(phase.environment.start)
    return Program(start, program_identity(phase, "start"), lambda keys: phase.accepts)


def block_rows(tree: Any, rows: int = BATCH) -> list[Any]:
    """Return the blocks of a pytree of BATCH rows that hold the first `rows` of them."""
    return [jax.tree.map(lambda leaf, at=at: leaf[at : at + BLOCK], tree) for at in range(0, rows, BLOCK)]


def map_each(function: Callable[..., Any], *arguments: Sequence[Any], devices: int | None = None) -> list[Any]:
    """Call a function with the arguments of each block, in at most `devices` threads; the results are on the host."""
    places = cycle(jax.devices()[:devices]) if jax.devices()[0].platform != "cpu" else repeat(None)

    def call(device: Any, *block: Any) -> Any:
        return to_host(function(*(block if device is None else jax.device_put(block, device))))

    return list(workers(devices).map(call, places, *arguments))


def join(blocks: list[Any]) -> Any:
    """Join the results of blocks."""
    return jax.tree.map(concatenate, *blocks)


def fly_batch(flight: FlightProgram, params: Any, handoff: Any, keys: Array, alive: np.ndarray) -> PhaseFlight:
    """Fly one batch of at most 1,000 flights; everything is returned on the host."""
    rows = len(alive)
    lanes = np.pad(alive, (0, BATCH - rows))
    arguments = [block_rows(tree, rows) for tree in (pad(to_host(handoff), rows), pad(keys, rows), lanes)]
    blocks = map_each(partial(flight, to_host(params)), *arguments)
    return first_rows(join(blocks), rows)


def first_rows(result: Any, rows: int) -> Any:
    """Return the first `rows` rows of a batch."""
    return jax.tree.map(lambda leaf: leaf[:rows], result)


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
    first: int = 0,
) -> list[PhaseFlight]:
    """Fly one batch after another, up to `flights` flights or until the success interval is narrow enough.

    The rule is evaluated after whole batches only, so an interruption does not change the result.

    Args:
      flights: largest number of flights.
      until: half-width of the 95 % Wilson interval of the whole chain's success at which to stop.
      fly: flies the flights whose numbers it is given; returns one record per phase.
      progress: called with (flights done, flights).
      first: number of the first flight.
    """
    parts: list[list[PhaseFlight]] = []
    succeeded = flown = 0
    for numbers in batches(flights, first):
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


def loss_causes(causes: Sequence[str], result: PhaseFlight, entered: np.ndarray) -> dict[str, int]:
    """Return the number of failures by cause among the flights that entered; every cause is listed."""
    lost = entered & ~result.success
    return {cause: int((lost & (result.cause == i)).sum()) for i, cause in enumerate(causes) if i > 0}
