"""Flying a chunk again, step by step, to keep what the first flight threw away.

Shapes: N vehicles of a chunk (1,000), C channels, B control steps of a block, T samples, G grid points.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import PartitionSpec

from mission.chain import Chain
from mission.devices import AXIS, REPLICATED, SPLIT, mesh
from mission.flying import CHUNK, agent_controller, pad
from mission.phase import Phase
from mission.records import Bands, Track
from mission.rollout import (
    Flying,
    PhaseFlight,
    advance_flights,
    begin_flights,
    channels_of,
    end_flights,
    guide_controller,
)

BLOCK = 64
GRID_S = 0.5
_FEWEST = 0.05  # of the flights; bands end where fewer are left, or half of those that succeed
_SPECS: list[Any] = [SPLIT] * 8 + [REPLICATED]
_FLYING = Flying(*_SPECS)


class Frames(NamedTuple):
    """One phase of one chunk, as it was flown again."""

    channels: tuple[str, ...]
    sampled: np.ndarray  # float32 [S, N, C]: every GRID_S from the entry, then the end
    sampled_s: np.ndarray  # [S, N] seconds since entering
    watched: list[np.ndarray]  # [T, C] of each watched vehicle, every control step and the end
    watched_s: list[np.ndarray]  # [T]
    flight: PhaseFlight
    alive: np.ndarray  # bool [N]


def _table(phase: Phase, state: Any) -> Array:
    """Telemetry as [N, C]."""
    return jnp.stack(list(channels_of(phase, state).values()), axis=-1)


class Recorder:
    """Flies chunks of a chain again; one per chain, since it holds compiled programs."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self.programs = [_programs(phase, phase.trained) for phase in chain.phases]

    def fly(self, numbers: np.ndarray, watched: np.ndarray, everyone: bool) -> list[Frames]:
        """Flights `numbers` again, each in the slot it had.

        Args:
          numbers: int [N] of one chunk.
          watched: int [W], positions in the chunk of the vehicles to keep whole.
          everyone: fly all of the chunk, or only the watched.
        """
        frames: list[Frames] = []
        wanted = np.ones(len(numbers), bool) if everyone else np.isin(np.arange(len(numbers)), watched)

        def fly_one(index: int, handoff: Any, keys: Any, alive: np.ndarray) -> PhaseFlight:
            frames.append(self._phase(index, handoff, keys, alive & wanted, watched))
            return frames[-1].flight

        self.chain.fly(numbers, fly_one)
        return frames

    def _phase(self, index: int, handoff: Any, keys: Any, alive: np.ndarray, watched: np.ndarray) -> Frames:
        phase, (begin, block, end) = self.chain.phases[index], self.programs[index]
        rows, stride = len(alive), max(1, round(GRID_S / phase.environment.control_period_s))
        lanes = jnp.zeros(CHUNK, bool).at[:rows].set(jnp.asarray(alive))
        keys = pad(keys, rows)
        now, first = begin(pad(handoff, rows), keys, lanes)
        sampled, whole, steps = [np.asarray(first)[None, :rows]], [np.asarray(first)[None, watched]], 0
        while not bool(now.ended.all()):
            now, tables = block(self.chain.actors[index], keys, now)
            tables = np.asarray(tables)
            sampled.append(tables[(stride - 1 - steps) % stride :: stride, :rows])
            whole.append(tables[:, watched])
            steps += BLOCK
        flight = end(now, lanes)
        handoff = jax.tree.map(lambda leaf: leaf[:rows], flight.handoff)
        flight = jax.tree.map(lambda leaf: np.asarray(leaf)[:rows], flight._replace(handoff=()))
        channels = tuple(flight.telemetry)
        last = np.stack([flight.telemetry[name] for name in channels], axis=-1)
        table = np.concatenate([*sampled, last[None]])
        time_s = self._times(phase, channels, table, np.arange(len(table)) * stride, flight.steps)
        each, each_s = [], []
        series = np.concatenate(whole)
        for column, lane in enumerate(watched):
            rows_flown = series[: flight.steps[lane] + 1, column]
            each.append(rows_flown)
            each_s.append(self._times(phase, channels, rows_flown, np.arange(len(rows_flown)), flight.steps[lane]))
        return Frames(channels, table, time_s, each, each_s, flight._replace(handoff=handoff), alive)

    @staticmethod
    def _times(
        phase: Phase, channels: tuple[str, ...], table: np.ndarray, steps: np.ndarray, last: np.ndarray
    ) -> np.ndarray:
        """Seconds since entering, of each row of a table; frozen once a vehicle has ended."""
        if "phase_time_s" in channels:
            return table[..., channels.index("phase_time_s")]
        steps = steps.reshape((-1,) + (1,) * (table.ndim - 2))
        return np.minimum(steps, last) * phase.environment.control_period_s


def _programs(phase: Phase, agent: bool) -> tuple[Any, Any, Any]:
    """(begin, block, end), jitted and split over the devices as the flight itself is."""
    control = agent_controller(phase) if agent else guide_controller(phase)

    def begin(handoff: Any, keys: Array, alive: Array) -> tuple[Flying, Array]:
        now = begin_flights(phase, handoff, keys, alive)
        return now, _table(phase, now.state)

    def block(params: Any, keys: Array, now: Flying) -> tuple[Flying, Array]:
        def step(now: Flying, _: None) -> tuple[Flying, Array]:
            now = advance_flights(phase, control, params, keys, now)
            return now, _table(phase, now.state)

        return lax.scan(step, now, None, length=BLOCK)

    def split(function: Any, inputs: Any, outputs: Any) -> Any:
        return jax.jit(jax.shard_map(function, mesh=mesh(), in_specs=inputs, out_specs=outputs, check_vma=False))

    return (
        split(begin, (SPLIT, SPLIT, SPLIT), (_FLYING, SPLIT)),
        split(block, (REPLICATED, SPLIT, _FLYING), (_FLYING, PartitionSpec(None, AXIS))),
        split(partial(end_flights, phase), (_FLYING, SPLIT), SPLIT),
    )


def tracks_of(chain: Chain, frames: list[Frames], column: int, lane: int) -> tuple[Track, ...]:
    """The whole flight of one watched vehicle, phase after phase until it ended."""
    tracks, clock = [], 0.0
    for phase, part in zip(chain.phases, frames, strict=True):
        if not part.alive[lane]:
            break
        time_s = clock + part.watched_s[column]
        values = {name: part.watched[column][:, i] for i, name in enumerate(part.channels)}
        tracks.append(Track(phase.name, time_s.astype(np.float32), values))
        clock = float(time_s[-1])
    return tuple(tracks)


def bands_of(frames: list[Frames]) -> Bands:
    """Quantiles of every channel over the vehicles still flying, at 2 Hz since the mission began."""
    flights = len(frames[0].alive)
    begins, clock = [], np.zeros(flights)
    for part in frames:
        begins.append(clock)
        clock = clock + np.where(part.alive, part.sampled_s[-1], 0.0)
    grid = np.arange(0.0, float(clock.max()) + GRID_S, GRID_S)
    places = [_places(grid, part, begin) for part, begin in zip(frames, begins, strict=True)]
    channels = tuple(dict.fromkeys(name for part in frames for name in part.channels))
    fewest = max(_FEWEST * flights, 0.5 * float(frames[-1].flight.success.sum()))
    quantiles = np.full((3, len(grid), len(channels)), np.nan, np.float32)
    for at, name in enumerate(channels):
        cube = np.full((len(grid), flights), np.nan, np.float32)
        for part, (rows, low, weight, inside) in zip(frames, places, strict=True):
            if name in part.channels:
                values = part.sampled[:, :, part.channels.index(name)]
                low_value = np.take_along_axis(values, low, 0)
                high_value = np.take_along_axis(values, np.minimum(low + 1, len(values) - 1), 0)
                np.copyto(cube[rows], low_value + weight * (high_value - low_value), where=inside)
        quantiles[:, :, at] = _quantiles(cube, fewest)
    count = np.zeros(len(grid), np.int32)
    for rows, _, _, inside in places:
        count[rows] += inside.sum(axis=1, dtype=np.int32)
    return Bands(flights, grid, count, channels, *quantiles)


def _places(grid: np.ndarray, part: Frames, begin: np.ndarray) -> tuple[slice, np.ndarray, np.ndarray, np.ndarray]:
    """Rows of the grid that a phase touches; on them [., N]: sample before, weight of the one after, whether inside."""
    whole = part.sampled_s
    begins, ends = begin[part.alive], (begin + whole[-1])[part.alive]
    first, last = (float(begins.min()), float(ends.max())) if begins.size else (0.0, 0.0)
    rows = slice(int(np.searchsorted(grid, first)), int(np.searchsorted(grid, last, "right")))
    since = grid[rows, None] - begin[None, :]
    spacing = whole[1:2].max() if len(whole) > 1 else 1.0  # uniform until a vehicle ends
    low = np.clip((since / max(float(spacing), 1e-9)).astype(np.int64), 0, len(whole) - 1)
    high = np.minimum(low + 1, len(whole) - 1)
    t0, t1 = np.take_along_axis(whole, low, 0), np.take_along_axis(whole, high, 0)
    weight = np.clip((since - t0) / np.where(t1 > t0, t1 - t0, 1.0), 0.0, 1.0).astype(np.float32)
    inside = part.alive[None, :] & (since >= 0.0) & (since < np.maximum(whole[-1], 1e-6)[None, :])
    return rows, low, weight, inside


def _quantiles(cube: np.ndarray, fewest: float) -> np.ndarray:
    """5, 50 and 95 % along the last axis [3, G], NaN where fewer than `fewest` values are finite."""
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
