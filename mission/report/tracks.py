"""Telemetry at every control step: fly and record a batch, and derive tracks and bands from the recording.

Shapes: N vehicles of a batch (at most 1,000), C channels of a phase, K channels of the mission, B control steps of a
block, T instants, M vehicles that are read, S samples, G grid points.
"""

from __future__ import annotations

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
from mission.report.flight_records import Bands, Track

BLOCK = 64  # control steps between two checks of a batch by the host
GRID_S = 0.5
_LEAST_SHARE = 0.05  # of the flights; bands end where fewer are left, or fewer than half of those that succeed
_SPECS: dict[str, Any] = dict.fromkeys(Flying._fields, SPLIT) | {"t": REPLICATED}
_FLYING = Flying(**_SPECS)


class BatchTelemetry(NamedTuple):
    """The telemetry of one phase of one batch, as one array per device, since little of it is read."""

    blocks: list[tuple[np.ndarray, ...]]  # by block, by device: float32 [B, N / devices, C] after each control step
    flight: PhaseFlight
    alive: np.ndarray  # bool [N]

    def at(self, steps: np.ndarray, lanes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the telemetry of vehicles `lanes` (int [M]) after `steps` (int [T]) control steps, or at their end.

        Returns:
          table: float32 [T, M, C].
          steps: int [T, M], of each vehicle.
        """
        flown = np.minimum(steps[:, None], self.flight.steps[lanes])
        table = np.repeat(self.flight.enter[None, lanes], len(steps), axis=0)
        for number, devices in enumerate(self.blocks):
            row = flown - 1 - number * BLOCK
            here, share = (row >= 0) & (row < BLOCK), BATCH // len(devices)
            for device, written in enumerate(devices):
                at = np.nonzero(here & (lanes // share == device))
                table[at] = written[row[at], lanes[at[1]] % share]
        return table, flown


class TelemetryRecorder:
    """Flies batches of a chain and keeps their telemetry; one per chain, since it holds compiled programs."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self.programs = [_programs(phase) for phase in chain.phases]

    def fly(self, numbers: np.ndarray) -> list[BatchTelemetry]:
        """Fly flights `numbers` (int [N], one batch) through every phase."""
        recorded: list[BatchTelemetry] = []

        def fly_one(index: int, handoff: Any, keys: Any, alive: np.ndarray) -> PhaseFlight:
            recorded.append(self.fly_one(index, handoff, keys, alive))
            return recorded[-1].flight

        results = self.chain.fly(numbers, fly_one)
        return [part._replace(flight=result) for part, result in zip(recorded, results, strict=True)]

    def entering(self, index: int, rows: Any, keys: Array) -> np.ndarray:
        """Return the telemetry [M, C] of phase `index` on entering it from at most BATCH rows."""
        count = len(keys)
        _, first = self.programs[index][0](*to_devices((pad(rows, count), pad(keys, count), np.zeros(BATCH, bool))))
        return np.asarray(first)[:count]

    def fly_one(self, index: int, handoff: Any, keys: Any, alive: np.ndarray) -> BatchTelemetry:
        """Fly one phase of one batch; for the arguments see `Chain.fly_one`."""
        phase, (begin, block) = self.chain.phases[index], self.programs[index]
        rows = len(alive)
        lanes = np.pad(alive, (0, BATCH - rows))
        handoff, keys, lanes = to_devices((pad(handoff, rows), pad(keys, rows), lanes))
        now, enter = begin(handoff, keys, lanes)
        blocks, last, over = [], enter, False
        while not over:
            now, last, table, left = block(self.chain.actors[index], keys, now, last)
            blocks.append(tuple(np.asarray(shard.data) for shard in table.addressable_shards))
            over = bool(now.ended.all())
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
        return BatchTelemetry(blocks, first_rows(flight, rows), alive)


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


def _seconds(phase: Phase, table: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Return the seconds since entering [T, M], from the channel `phase_time_s` if there is one, else from steps."""
    if "phase_time_s" in phase.channels:
        return table[..., phase.channels.index("phase_time_s")]
    return steps * phase.environment.control_period_s


def tracks_of(chain: Chain, recorded: list[BatchTelemetry], lane: int) -> tuple[Track, ...]:
    """Return the complete flight of one vehicle, phase by phase, until it ended."""
    tracks, clock = [], 0.0
    for phase, part in zip(chain.phases, recorded, strict=True):
        if not part.alive[lane]:
            break
        table, steps = part.at(np.arange(part.flight.steps[lane] + 1), np.array([lane]))
        time_s = clock + _seconds(phase, table, steps)[:, 0]
        values = {name: table[:, 0, at] for at, name in enumerate(phase.channels)}
        tracks.append(Track(phase.name, time_s.astype(np.float32), values))
        clock = float(time_s[-1])
    return tuple(tracks)


def bands_of(chain: Chain, recorded: list[BatchTelemetry]) -> Bands:
    """Return quantiles of every channel over the vehicles that are still flying, at 2 Hz since the mission began."""
    flights = len(recorded[0].alive)
    sampled = [_sampled(phase, part) for phase, part in zip(chain.phases, recorded, strict=True)]
    begins, clock = [], np.zeros(flights)
    for part, (_, time_s) in zip(recorded, sampled, strict=True):
        begins.append(clock)
        clock = clock + np.where(part.alive, time_s[-1], 0.0)
    grid = np.arange(0.0, float(clock.max()) + GRID_S, GRID_S)
    places = [
        _places(grid, time_s, part.alive, begin)
        for part, (_, time_s), begin in zip(recorded, sampled, begins, strict=True)
    ]
    fewest = max(_LEAST_SHARE * flights, 0.5 * float(recorded[-1].flight.success.sum()))
    quantiles = np.full((3, len(grid), len(chain.channels)), np.nan, np.float32)
    for at, name in enumerate(chain.channels):
        cube = np.full((len(grid), flights), np.nan, np.float32)
        for phase, (values, _), (rows, low, high, weight, inside) in zip(chain.phases, sampled, places, strict=True):
            if name in phase.channels:
                flat = values[phase.channels.index(name)].reshape(-1)
                before = flat[low]
                np.copyto(cube[rows], before + weight * (flat[high] - before), where=inside)
        quantiles[:, :, at] = _quantiles(cube, fewest)
    count = np.zeros(len(grid), np.int32)
    for rows, *_, inside in places:
        count[rows] += inside.sum(axis=1, dtype=np.int32)
    p05, p50, p95 = quantiles
    return Bands(flights=flights, time_s=grid, count=count, channels=chain.channels, p05=p05, p50=p50, p95=p95)


def _sampled(phase: Phase, part: BatchTelemetry) -> tuple[np.ndarray, np.ndarray]:
    """Return channels [C, S, N] and seconds since entering [S, N]: every GRID_S, or every control step if that is
    longer, and at the end."""
    stride, last = max(1, round(GRID_S / phase.environment.control_period_s)), int(part.flight.steps.max())
    table, steps = part.at(np.append(np.arange(0, last, stride), last), np.arange(len(part.alive)))
    return np.ascontiguousarray(table.transpose(2, 0, 1)), _seconds(phase, table, steps)


def _places(
    grid: np.ndarray, time_s: np.ndarray, alive: np.ndarray, begin: np.ndarray
) -> tuple[slice, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return where the grid falls between the samples of a phase.

    Args:
      grid: [G] seconds since the mission began.
      time_s: [S, N] seconds since entering, of the samples.
      alive: bool [N], those that entered.
      begin: [N] seconds since the mission began, on entering.

    Returns:
      rows: the grid rows that the phase covers; the other results are [., N] on these rows.
      low, high: flat index of the sample before and of the one after.
      weight: of the latter.
      inside: whether the vehicle is in this phase.
    """
    begins, ends = begin[alive], (begin + time_s[-1])[alive]
    first, last = (float(begins.min()), float(ends.max())) if begins.size else (0.0, 0.0)
    rows = slice(int(np.searchsorted(grid, first)), int(np.searchsorted(grid, last, "right")))
    since = grid[rows, None] - begin[None, :]
    spacing = time_s[1:2].max() if len(time_s) > 1 else 1.0  # uniform until a vehicle ends
    low = np.clip((since / max(float(spacing), 1e-9)).astype(np.int64), 0, len(time_s) - 1)
    high = np.minimum(low + 1, len(time_s) - 1)
    flights = np.arange(len(alive))
    low, high = low * len(alive) + flights, high * len(alive) + flights
    t0, t1 = time_s.reshape(-1)[low], time_s.reshape(-1)[high]
    weight = np.clip((since - t0) / np.where(t1 > t0, t1 - t0, 1.0), 0.0, 1.0).astype(np.float32)
    inside = alive[None, :] & (since >= 0.0) & (since < np.maximum(time_s[-1], 1e-6)[None, :])
    return rows, low, high, weight, inside


def _quantiles(cube: np.ndarray, fewest: float) -> np.ndarray:
    """Return 5, 50 and 95 % along the last axis of [G, N] as [3, G], NaN where fewer than `fewest` are finite."""
    ordered = np.sort(cube, axis=1)  # NaN last
    n = np.isfinite(cube).sum(axis=1)
    rows = np.arange(len(cube))
    result = []
    for q in (0.05, 0.5, 0.95):
        place = q * np.maximum(n - 1, 0)
        low = place.astype(np.int64)
        low_value, high_value = ordered[rows, low], ordered[rows, np.minimum(low + 1, np.maximum(n - 1, 0))]
        value = low_value + (place - low) * (high_value - low_value)
        result.append(np.where(n >= max(fewest, 1.0), value, np.nan))
    return np.stack(result).astype(np.float32)
