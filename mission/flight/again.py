"""Fly chosen flights of a campaign again, bit-identically, and record their telemetry after every control step.

A flight is bit-identical only in its own lane of its own block, because XLA rounds the last lanes of a loop
differently, and only in a program that XLA compiles in the same way. Therefore the block of a chosen flight is flown
as in the campaign; the recording flies it a second time and computes the telemetry behind a barrier
(docs/decisions/0020-one-flight-again.md).

Shapes: B vehicles of a block, C channels of a phase, W control steps of a window, L lanes that are recorded, T control steps
of one flight.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from mission.errors import InputError
from mission.flight.batches import BATCH, BLOCK, fly_batch, pad, program_identity, to_host
from mission.flight.chain import MOST_FLIGHTS, Chain
from mission.flight.fly import (
    Controller,
    PhaseFlight,
    TakeOver,
    advance_flights,
    begin_flights,
    channels_of,
    controller_of,
    end_flights,
    telemetry_table,
)
from mission.machine.programs import Program
from mission.machine.trees import without_keys
from mission.missionfile.phases import Phase

log = logging.getLogger("mission")
MOST_AGAIN = 1000
_WINDOW = 4096  # control steps that a program records; a longer phase is flown once for each window
_LANES = 4  # flights that a program records
_RANGE = re.compile(r"(\d{1,10})(?:-(\d{1,10}))?")


class PhaseSteps(NamedTuple):
    """One phase of one flight, after every control step."""

    flight: PhaseFlight  # without leading axis
    table: np.ndarray  # float32 [T + 1, C]: on entering, then after each control step


def parse_flights(text: str) -> tuple[int, ...]:
    """Return the flight numbers of a text such as "4711" or "0,3,8-10".

    Raises:
      InputError: the text is not a list of numbers.
    """
    numbers: list[int] = []
    for part in text.split(","):
        match = _RANGE.fullmatch(part.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
        if not first <= last < first + MOST_AGAIN or len(numbers) > MOST_AGAIN:
            raise InputError(
                f"--only {text}",
                expected=f"flight numbers, single ones and ranges FIRST-LAST, at most {MOST_AGAIN:,} in all",
                found=f'"{part.strip()}"',
                remedy="write --only 4711, or --only 0,3,8-10",
            )
        numbers += range(first, last + 1)
    return tuple(numbers)


def check_again(numbers: Sequence[int], flights: int | None, first: int = 0) -> tuple[int, ...]:
    """Check and sort the numbers of flights to repeat from a campaign of `flights` that begins at `first`.

    Raises:
      InputError: there are none or too many, one is twice, or one is not in the campaign.
    """
    end = MOST_FLIGHTS if flights is None else first + flights
    outside = [n for n in numbers if not isinstance(n, int | np.integer) or not first <= n < end]
    twice = [n for n in numbers if list(numbers).count(n) > 1]
    if outside or twice or not 1 <= len(numbers) <= MOST_AGAIN:
        found = f"{outside[0]}" if outside else f"{twice[0]} twice" if twice else f"{len(numbers)} numbers"
        raise InputError(
            "--only",
            expected=f"1 to {MOST_AGAIN:,} different numbers of flights from {first} to {end - 1}",
            found=found,
            remedy="name flights of the campaign, or raise --flights" if outside else "name each flight once",
        )
    return tuple(sorted(map(int, numbers)))


def fly_again(
    chain: Chain, numbers: Sequence[int], progress: Callable[[int, int], None] | None = None
) -> dict[int, list[PhaseSteps]]:
    """Fly flights again and return number -> the phases that the flight entered.

    Args:
      chain: the mission of the campaign, with its seed.
      numbers: flight numbers, each once.
      progress: called with (flights done, flights).
    """
    programs, done = [_compile_recording(phase) for phase in chain.phases], 0
    found: dict[int, list[PhaseSteps]] = {number: [] for number in sorted(numbers)}
    for begin in sorted({number // BLOCK * BLOCK for number in numbers}):
        block = np.arange(begin, min(begin + BLOCK, chain.most_flights))
        wanted = np.isin(block, numbers)

        def fly_one(index: int, handoff: Any, keys: Any, alive: np.ndarray, wanted: np.ndarray = wanted) -> PhaseFlight:
            handoff, alive = to_host(handoff), alive & wanted  # the others do not change a lane, so they need not fly
            flight = fly_batch(chain.flights[index], chain.actors[index], handoff, keys, alive)
            recorded = _recorded(chain, index, programs[index], (handoff, keys, alive), flight)
            for lane, steps in recorded.items():
                found[int(block[lane])].append(steps)
            return flight

        chain.fly(block, fly_one)
        done += int(wanted.sum())
        if progress is not None:
            progress(done, len(numbers))
    return found


def _recorded(
    chain: Chain, index: int, program: Program, entering: tuple[Any, Any, np.ndarray], flight: PhaseFlight
) -> dict[int, PhaseSteps]:
    """Return lane -> telemetry of the flights that enter phase `index` of one block, given how the campaign flies it."""
    handoff, keys, alive = entering
    rows = len(alive)
    block = [jax.tree.map(lambda leaf: leaf[:BLOCK], pad(tree, rows)) for tree in (handoff, keys)]
    flying = np.pad(alive, (0, BATCH - rows))[:BLOCK]
    lanes, result = np.flatnonzero(alive), {}
    for some in np.split(lanes, range(_LANES, len(lanes), _LANES)) if len(lanes) else []:
        chosen = np.resize(some, _LANES).astype(np.int32)
        tables = []
        for first in range(0, max(int(flight.steps[some].max()), 1), _WINDOW):
            again, table = to_host(program(chain.actors[index], *block, flying, chosen, np.int32(first)))
            tables.append(table)
        table = np.concatenate(tables)
        for at, lane in enumerate(some.tolist()):
            one, same = (_row(result, lane) for result in (flight, again))
            steps = int(one.steps)
            every = np.concatenate([one.enter[None], table[:steps, at]])
            if not _identical(one, same):
                log.warning(
                    'phase "%s": this machine rounds the recorded flight differently; steps between its start and its end '
                    "may differ from the campaign's in their last digits",
                    chain.phases[index].name,
                )
            if steps:  # as the campaign has it
                every[-1] = np.stack([one.telemetry[name] for name in chain.phases[index].channels])
            result[lane] = PhaseSteps(one, every)
    return result


def _row(tree: Any, lane: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[lane], tree)


def _identical(one: PhaseFlight, other: PhaseFlight) -> bool:
    pairs = zip(jax.tree.leaves(without_keys(one)), jax.tree.leaves(without_keys(other)), strict=True)
    return all(np.array_equal(a, b, equal_nan=np.issubdtype(np.asarray(a).dtype, np.inexact)) for a, b in pairs)


def _compile_recording(phase: Phase) -> Program:
    """Return the program (parameters, hand-over [B, ...], keys [B], alive bool [B], lanes int [L], first int []) ->
    (flights [B], telemetry [W, L, C] after the control steps from first + 1 on)."""
    identity = program_identity(phase, "recording")
    return Program(partial(_record, phase, controller_of(phase)), identity, None, phase.name)


def _record(
    phase: Phase,
    control: Controller | TakeOver,
    params: Any,
    handoff: Any,
    keys: Array,
    alive: Array,
    lanes: Array,
    first: Array,
) -> tuple[PhaseFlight, Array]:
    """Fly like `fly_phase`, and record a window of control steps of some lanes."""
    begun, enter = begin_flights(phase, handoff, keys, alive)
    rows = min(_WINDOW, phase.environment.max_steps)

    def step(carry: tuple[Any, Array]) -> tuple[Any, Array]:
        now, table = carry
        after, _ = advance_flights(phase, control, params, keys, now)
        # the barrier keeps XLA from fusing the telemetry with the step, which would then round differently
        channels = telemetry_table(channels_of(phase, lax.optimization_barrier(after.state)))
        at = now.t - first
        row = jnp.clip(at, 0, rows - 1)
        kept = jnp.where((at >= 0) & (at < rows), channels[lanes], table[row])
        return after, lax.dynamic_update_index_in_dim(table, kept, row, 0)

    table = jnp.zeros((rows, lanes.shape[0], enter.shape[1]), jnp.float32)
    end, table = lax.while_loop(lambda carry: ~carry[0].ended.all(), step, (begun, table))
    return end_flights(phase, end, alive, enter), table
