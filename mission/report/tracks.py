"""Telemetry while flying: fly and record a batch.

Every control step is recorded as long as they are few; a long flight is thinned while it is flown, so that memory and
time follow the number of samples, not the seconds that are simulated.

Shapes: N vehicles of a batch (at most 1,000), B of a block, C channels of a phase, S control steps of a span, T instants, M vehicles
that are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from mission.flight.batches import (
    BATCH,
    BLOCK,
    block_rows,
    first_rows,
    join,
    map_each,
    pad,
    program_identity,
    to_host,
)
from mission.flight.chain import Chain
from mission.flight.entering import first_observations
from mission.flight.feasibility.network import likely
from mission.flight.feasibility.store import Feasibility
from mission.flight.fly import (
    Flying,
    PhaseFlight,
    advance_flights,
    begin_flights,
    controller_of,
    telemetry_table,
)
from mission.machine.programs import Program
from mission.missionfile.phases import Phase

SPAN = 64  # control steps between two checks of a batch by the host
SAMPLES = 2000  # of one flight through the whole mission, besides the start and the end of each phase


class StepTables:
    """The telemetry of one phase of one batch after every `stride`-th control step.

    It is kept as one array per span of control steps and block of vehicles, since little of it is read.
    """

    def __init__(self) -> None:
        self.stride = 1
        # by span: the numbers of the control steps, int [S], and by block of vehicles float32 [S, B, C]
        self.spans: list[tuple[np.ndarray, tuple[np.ndarray, ...]]] = []

    def __len__(self) -> int:
        return sum(len(steps) for steps, _ in self.spans)

    def add(self, first: int, blocks: tuple[np.ndarray, ...], flown: int) -> None:
        """Add a span of which `flown` control steps were flown; its first row follows control step `first`."""
        steps = np.arange(first, first + flown)
        if self.stride > 1 or flown < SPAN:
            rows = np.flatnonzero(steps % self.stride == 0)
            steps, blocks = steps[rows], tuple(table[rows] for table in blocks)  # copies: the span is released
        if len(steps):
            self.spans.append((steps, blocks))

    def thin(self) -> None:
        """Keep every second sample, in one span."""
        self.stride *= 2
        rows = [np.flatnonzero(steps % self.stride == 0) for steps, _ in self.spans]
        kept = np.concatenate([steps[at] for at, (steps, _) in zip(rows, self.spans, strict=True)])
        tables = tuple(
            np.concatenate([blocks[block][at] for at, (_, blocks) in zip(rows, self.spans, strict=True)])
            for block in range(len(self.spans[0][1]))
        )
        self.spans = [(kept, tables)] if len(kept) else []


class BatchTelemetry(NamedTuple):
    """The telemetry of one phase of one batch."""

    tables: StepTables
    flight: PhaseFlight
    alive: np.ndarray  # bool [N]
    feasible: np.ndarray | None = None  # [N] on entering, if the feasibility of the mission is known

    def at(self, steps: np.ndarray, lanes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the telemetry of vehicles `lanes` (int [M]) after `steps` (int [T]) control steps, or at their end.

        A control step that was not kept is replaced by the last one before it that was.

        Returns:
          table: float32 [T, M, C].
          steps: int [T, M], of each vehicle.
        """
        ends = self.flight.steps[lanes]
        ended = steps[:, None] >= ends
        flown = np.where(ended, ends, steps[:, None] - steps[:, None] % self.tables.stride)
        table = np.repeat(self.flight.enter[None, lanes], len(steps), axis=0)
        for numbers, blocks in self.tables.spans:
            row = np.searchsorted(numbers, flown).clip(max=len(numbers) - 1)
            here = ~ended & (numbers[row] == flown)
            for block, written in enumerate(blocks):
                at = np.nonzero(here & (lanes // BLOCK == block))
                table[at] = written[row[at], lanes[at[1]] % BLOCK]
        last = np.stack([self.flight.telemetry[name] for name in self.flight.telemetry], axis=-1)[lanes]
        return np.where((ended & (ends > 0))[:, :, None], last, table), flown

    def samples(self, lanes: np.ndarray, every: int = 1) -> np.ndarray:
        """Return the control steps [S] to read vehicles at: every `every`-th or more, as far as they were kept, and the
        end of the vehicle that flew longest."""
        stride = self.tables.stride * max(1, round(every / self.tables.stride))
        last = int(self.flight.steps[lanes].max())
        return np.append(np.arange(0, last, stride), last)


class TelemetryRecorder:
    """Flies batches of a chain and keeps their telemetry; one per chain, since it holds compiled programs."""

    def __init__(self, chain: Chain, feasibility: Feasibility | None = None) -> None:
        self.chain, self.feasibility = chain, feasibility
        self.programs = [_programs(phase) for phase in chain.phases]
        self.observe = [first_observations(phase) for phase in chain.phases] if feasibility is not None else []

    def fly(self, numbers: np.ndarray) -> list[BatchTelemetry]:
        """Fly flights `numbers` (int [N], one batch) through every phase."""
        recorded: list[BatchTelemetry] = []

        def fly_one(index: int, handoff: Any, keys: Any, alive: np.ndarray) -> PhaseFlight:
            before = [part.tables for part in recorded]
            flown = self.fly_one(index, handoff, keys, alive, before)
            recorded.append(flown._replace(feasible=self._foreseen(index, handoff, keys)))
            return flown.flight

        results = self.chain.fly(numbers, fly_one)
        return [part._replace(flight=result) for part, result in zip(recorded, results, strict=True)]

    def _foreseen(self, index: int, handoff: Any, keys: Array) -> np.ndarray | None:
        """Return the feasibility [N] of entering phase `index`, if it is known."""
        if self.feasibility is None:
            return None
        blocks = [block_rows(pad(tree, len(keys)), len(keys)) for tree in (to_host(handoff), keys)]
        obs = join(map_each(self.observe[index], *blocks, devices=self.chain.devices))
        return likely(self.feasibility.weights[index], first_rows(obs, len(keys))).astype(np.float32)

    def entering(self, index: int, rows: Any, keys: Array) -> np.ndarray:
        """Return the telemetry [M, C] of phase `index` on entering it from at most BATCH rows."""
        count = len(keys)
        trees = (pad(to_host(rows), count), pad(keys, count), np.zeros(BATCH, bool))
        arguments = [block_rows(tree, count) for tree in trees]
        begun = map_each(self.programs[index][0], *arguments, devices=self.chain.devices)
        return np.concatenate([first for _, first in begun])[:count]

    def fly_one(
        self, index: int, handoff: Any, keys: Any, alive: np.ndarray, before: Sequence[StepTables] = ()
    ) -> BatchTelemetry:
        """Fly one phase of one batch.

        Args:
          index, handoff, keys, alive: as for `Chain.fly_one`.
          before: the tables of the phases before, which are thinned, too, once there are too many samples.
        """
        phase, (begin, advance) = self.chain.phases[index], self.programs[index]
        rows, actor = len(alive), self.chain.actors[index]
        lanes = np.pad(alive, (0, BATCH - rows))
        keys = block_rows(pad(keys, rows), rows)
        arguments = (block_rows(pad(to_host(handoff), rows), rows), keys, block_rows(lanes, rows))
        flying = map_each(begin, *arguments, devices=self.chain.devices)
        enter = np.concatenate([channels for _, channels in flying])
        tables, first, over, left = StepTables(), 1, False, []
        while not over:
            flown = map_each(partial(advance, actor), keys, *zip(*flying, strict=True), devices=self.chain.devices)
            flying, left = [(now, last) for now, last, *_ in flown], [hand_over for *_, hand_over in flown]
            steps = min(SPAN, max(int(now.steps.max()) for now, _ in flying) + 1 - first)
            tables.add(first, tuple(table for _, _, table, _ in flown), steps)
            _limit_samples([*before, tables])
            first, over = first + SPAN, all(now.ended.all() for now, _ in flying)
        now, last = join([now._replace(t=()) for now, _ in flying]), np.concatenate([last for _, last in flying])
        flight = PhaseFlight(
            handoff=join(left),
            success=now.success & lanes[: len(now.success)],
            cause=now.cause,
            steps=now.steps,
            returns=now.returns,
            enter=enter,
            telemetry=dict(zip(phase.channels, last.T, strict=True)),
            lowest=now.lowest,
            highest=now.highest,
            takeover=now.takeover,
        )
        return BatchTelemetry(tables, first_rows(flight, rows), alive)


def _limit_samples(tables: Sequence[StepTables]) -> None:
    """Thin the phases with the most samples until a flight has at most SAMPLES of them."""
    while sum(map(len, tables)) > SAMPLES:
        max(tables, key=len).thin()


def _programs(phase: Phase) -> tuple[Program, Program]:
    """Return the programs (begin, advance) of one block of vehicles."""
    control = controller_of(phase)

    def advance(params: Any, keys: Array, now: Flying, last: Array) -> tuple[Flying, Array, Array, Any]:
        """Advance by SPAN steps, or fewer if all vehicles end earlier.

        Returns the vehicles, their telemetry [B, C], the table [S, B, C] of the span (the rows of steps that were
        not flown are zero), and the hand-over.
        """

        def step(carry: tuple[Array, Flying, Array, Array]) -> tuple[Array, Flying, Array, Array]:
            row, now, _, table = carry
            now, channels = advance_flights(phase, control, params, keys, now)
            last = telemetry_table(channels)
            return row + 1, now, last, lax.dynamic_update_index_in_dim(table, last, row, 0)

        begun = (jnp.int32(0), now, last, jnp.zeros((SPAN, *last.shape), jnp.float32))
        _, after, last, table = lax.while_loop(lambda c: (c[0] < SPAN) & ~c[1].ended.all(), step, begun)
        left = jax.vmap(phase.environment.leave)(after.state)
        # t is the same in all blocks, even if one ends earlier
        return after._replace(t=now.t + SPAN), last, table, left

    begin = partial(begin_flights, phase)
    return Program(begin, program_identity(phase, "begin")), Program(advance, program_identity(phase, "advance"))
