"""Telemetry while flying: fly and record a batch.

Every control step is recorded as long as they are few; a long flight is thinned while it is flown, so that memory and
time follow the number of samples, not the seconds that are simulated.

Shapes: N vehicles of a batch (at most 1,000), C channels of a phase, B control steps of a block, T instants, M vehicles
that are read, S samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import PartitionSpec

from mission.devices import AXIS, REPLICATED, SPLIT, mesh
from mission.flight.batches import BATCH, first_rows, pad, to_devices
from mission.flight.chain import Chain
from mission.flight.fly import (
    Flying,
    PhaseFlight,
    advance_flights,
    agent_controller,
    begin_flights,
    guide_controller,
    telemetry_table,
)
from mission.missionfile.phases import Phase, TrainedPhase

BLOCK = 64  # control steps between two checks of a batch by the host
SAMPLES = 2000  # of one flight through the whole mission, besides the start and the end of each phase
_SPECS: dict[str, Any] = dict.fromkeys(Flying._fields, SPLIT) | {"t": REPLICATED}
_FLYING = Flying(**_SPECS)


class StepTables:
    """The telemetry of one phase of one batch after every `stride`-th control step.

    It is kept as one array per block and device, since little of it is read.
    """

    def __init__(self) -> None:
        self.stride = 1
        # by block: the numbers of the control steps, int [B], and by device float32 [B, N / devices, C]
        self.blocks: list[tuple[np.ndarray, tuple[np.ndarray, ...]]] = []

    def __len__(self) -> int:
        return sum(len(steps) for steps, _ in self.blocks)

    def add(self, first: int, devices: tuple[np.ndarray, ...], flown: int) -> None:
        """Add a block of which `flown` control steps were flown; its first row follows control step `first`."""
        steps = np.arange(first, first + flown)
        if self.stride > 1 or flown < BLOCK:
            rows = np.flatnonzero(steps % self.stride == 0)
            steps, devices = steps[rows], tuple(table[rows] for table in devices)  # copies: the block is released
        if len(steps):
            self.blocks.append((steps, devices))

    def thin(self) -> None:
        """Keep every second sample, in one block."""
        self.stride *= 2
        rows = [np.flatnonzero(steps % self.stride == 0) for steps, _ in self.blocks]
        kept = np.concatenate([steps[at] for at, (steps, _) in zip(rows, self.blocks, strict=True)])
        tables = tuple(
            np.concatenate([devices[device][at] for at, (_, devices) in zip(rows, self.blocks, strict=True)])
            for device in range(len(self.blocks[0][1]))
        )
        self.blocks = [(kept, tables)] if len(kept) else []


class BatchTelemetry(NamedTuple):
    """The telemetry of one phase of one batch."""

    tables: StepTables
    flight: PhaseFlight
    alive: np.ndarray  # bool [N]

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
        for numbers, devices in self.tables.blocks:
            row = np.searchsorted(numbers, flown).clip(max=len(numbers) - 1)
            here, share = ~ended & (numbers[row] == flown), BATCH // len(devices)
            for device, written in enumerate(devices):
                at = np.nonzero(here & (lanes // share == device))
                table[at] = written[row[at], lanes[at[1]] % share]
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

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self.programs = [_programs(phase) for phase in chain.phases]

    def fly(self, numbers: np.ndarray) -> list[BatchTelemetry]:
        """Fly flights `numbers` (int [N], one batch) through every phase."""
        recorded: list[BatchTelemetry] = []

        def fly_one(index: int, handoff: Any, keys: Any, alive: np.ndarray) -> PhaseFlight:
            before = [part.tables for part in recorded]
            recorded.append(self.fly_one(index, handoff, keys, alive, before))
            return recorded[-1].flight

        results = self.chain.fly(numbers, fly_one)
        return [part._replace(flight=result) for part, result in zip(recorded, results, strict=True)]

    def entering(self, index: int, rows: Any, keys: Array) -> np.ndarray:
        """Return the telemetry [M, C] of phase `index` on entering it from at most BATCH rows."""
        count = len(keys)
        _, first = self.programs[index][0](*to_devices((pad(rows, count), pad(keys, count), np.zeros(BATCH, bool))))
        return np.asarray(first)[:count]

    def fly_one(
        self, index: int, handoff: Any, keys: Any, alive: np.ndarray, before: Sequence[StepTables] = ()
    ) -> BatchTelemetry:
        """Fly one phase of one batch.

        Args:
          index, handoff, keys, alive: as for `Chain.fly_one`.
          before: the tables of the phases before, which are thinned, too, once there are too many samples.
        """
        phase, (begin, block) = self.chain.phases[index], self.programs[index]
        rows = len(alive)
        lanes = np.pad(alive, (0, BATCH - rows))
        handoff, keys, lanes = to_devices((pad(handoff, rows), pad(keys, rows), lanes))
        now, enter = begin(handoff, keys, lanes)
        tables, last, first, over = StepTables(), enter, 1, False
        while not over:
            now, last, table, left = block(self.chain.actors[index], keys, now, last)
            flown = min(BLOCK, int(np.asarray(now.steps).max()) + 1 - first)
            tables.add(first, tuple(np.asarray(shard.data) for shard in table.addressable_shards), flown)
            _limit_samples([*before, tables])
            first, over = first + BLOCK, bool(now.ended.all())
        flight = PhaseFlight(
            handoff=left,
            success=np.asarray(now.success) & np.asarray(lanes),
            cause=now.cause,
            steps=now.steps,
            returns=now.returns,
            enter=enter,
            telemetry=dict(zip(phase.channels, np.asarray(last).T, strict=True)),
            lowest=now.lowest,
            highest=now.highest,
        )
        return BatchTelemetry(tables, first_rows(flight, rows), alive)


def _limit_samples(tables: Sequence[StepTables]) -> None:
    """Thin the phases with the most samples until a flight has at most SAMPLES of them."""
    while sum(map(len, tables)) > SAMPLES:
        max(tables, key=len).thin()


def _programs(phase: Phase) -> tuple[Any, Any]:
    """Return the programs (begin, block), jitted and split over the devices as the flight itself is."""
    control = agent_controller(phase) if isinstance(phase, TrainedPhase) else guide_controller(phase)

    def block(params: Any, keys: Array, now: Flying, last: Array) -> tuple[Flying, Array, Array, Any]:
        """Advance by BLOCK steps, or fewer if all vehicles end earlier.

        Returns the vehicles, their telemetry [N, C], the table [B, N, C] of the block (the rows of steps that were
        not flown are zero), and the hand-over.
        """

        def step(carry: tuple[Array, Flying, Array, Array]) -> tuple[Array, Flying, Array, Array]:
            row, now, _, table = carry
            now, channels = advance_flights(phase, control, params, keys, now)
            last = telemetry_table(channels)
            return row + 1, now, last, lax.dynamic_update_index_in_dim(table, last, row, 0)

        begun = (jnp.int32(0), now, last, jnp.zeros((BLOCK, *last.shape), jnp.float32))
        _, after, last, table = lax.while_loop(lambda c: (c[0] < BLOCK) & ~c[1].ended.all(), step, begun)
        left = jax.vmap(phase.environment.leave)(after.state)
        return (
            after._replace(t=now.t + BLOCK),
            last,
            table,
            left,
        )  # t is the same on all devices, even if one stops early

    def split(function: Any, inputs: Any, outputs: Any) -> Any:
        return jax.jit(jax.shard_map(function, mesh=mesh(), in_specs=inputs, out_specs=outputs, check_vma=False))

    return (
        split(partial(begin_flights, phase), (SPLIT, SPLIT, SPLIT), (_FLYING, SPLIT)),
        split(block, (REPLICATED, SPLIT, _FLYING, SPLIT), (_FLYING, SPLIT, PartitionSpec(None, AXIS), SPLIT)),
    )
