"""Tracks and bands: whole flights, and quantiles over many, from the telemetry that was recorded while flying.

Shapes: N vehicles of a batch, C channels of a phase, K channels of the mission, T instants, M vehicles that are read,
S samples, G grid points.
"""

from __future__ import annotations

import numpy as np

from mission.flight.chain import Chain
from mission.missionfile.phases import Phase
from mission.report.flight_records import Bands, Track
from mission.report.summary import durations
from mission.report.tracks import BatchTelemetry

GRID_S = 0.5
GRID_POINTS = 1500
_LEAST_SHARE = 0.05  # of the flights; bands end where fewer are left, or fewer than half of those that succeed


def _seconds(phase: Phase, table: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Return the seconds since entering [T, M], from the channel `phase_time_s` if there is one, else from steps.

    A vehicle whose clock is not finite on entering is timed by its steps.
    """
    counted = steps * phase.environment.control_period_s
    if "phase_time_s" not in phase.channels:
        return counted
    clock = table[..., phase.channels.index("phase_time_s")]
    return np.where(np.isfinite(clock[:1]), clock, counted)


def tracks_of(chain: Chain, recorded: list[BatchTelemetry], lane: int) -> tuple[Track, ...]:
    """Return the flight of one vehicle, phase by phase, until it ended or its clock broke."""
    tracks, clock, lanes = [], 0.0, np.array([lane])
    for phase, part in zip(chain.phases, recorded, strict=True):
        if not part.alive[lane]:
            break
        table, steps = part.at(part.samples(lanes), lanes)
        time_s = clock + _seconds(phase, table, steps)[:, 0]
        kept = int(np.isfinite(np.append(time_s, np.nan)).argmin())
        values = {name: table[:kept, 0, at] for at, name in enumerate(phase.channels)}
        tracks.append(Track(phase.name, time_s[:kept].astype(np.float32), values))
        clock = float(time_s[kept - 1])
    return tuple(tracks)


def bands_of(chain: Chain, recorded: list[BatchTelemetry]) -> Bands:
    """Return quantiles of every channel over the vehicles that are still flying, since the mission began.

    The grid has a point every GRID_S, or GRID_POINTS in all if that would be more.
    """
    flights = len(recorded[0].alive)
    begins, clock = [], np.zeros(flights)
    for phase, part in zip(chain.phases, recorded, strict=True):
        begins.append(clock)
        clock = clock + np.where(part.alive, _ends(phase, part), 0.0)
    spacing = max(GRID_S, float(clock.max()) / (GRID_POINTS - 1))
    grid = np.arange(0.0, float(clock.max()) + spacing, spacing)[:GRID_POINTS]
    sampled = [_sampled(phase, part, spacing) for phase, part in zip(chain.phases, recorded, strict=True)]
    places = [
        _places(grid, time_s, part.alive, begin, _ends(phase, part))
        for phase, part, (_, time_s), begin in zip(chain.phases, recorded, sampled, begins, strict=True)
    ]
    fewest = max(_LEAST_SHARE * flights, 0.5 * float(recorded[-1].flight.success.sum()))
    quantiles = np.full((3, len(grid), len(chain.channels)), np.nan, np.float32)
    for at, name in enumerate(chain.channels):
        cube = np.full((len(grid), flights), np.nan, np.float32)
        for phase, (values, _), (rows, low, high, weight, inside) in zip(chain.phases, sampled, places, strict=True):
            if name in phase.channels:
                flat = values[phase.channels.index(name)].reshape(-1)
                before = flat[low]
                with np.errstate(over="ignore", invalid="ignore"):  # of a channel that breaks
                    np.copyto(cube[rows], before + weight * (flat[high] - before), where=inside)
        quantiles[:, :, at] = _quantiles(np.where(np.isfinite(cube), cube, np.nan), fewest)
    count = np.zeros(len(grid), np.int32)
    for rows, *_, inside in places:
        count[rows] += inside.sum(axis=1, dtype=np.int32)
    p05, p50, p95 = quantiles
    return Bands(flights=flights, time_s=grid, count=count, channels=chain.channels, p05=p05, p50=p50, p95=p95)


def _ends(phase: Phase, part: BatchTelemetry) -> np.ndarray:
    """Return the seconds [N] after which each vehicle left the phase; from its steps if its clock broke or runs back."""
    seconds = durations(phase, part.flight)
    counted = part.flight.steps * phase.environment.control_period_s
    return np.where(np.isfinite(seconds) & (seconds >= 0.0), seconds, counted)


def _sampled(phase: Phase, part: BatchTelemetry, spacing: float) -> tuple[np.ndarray, np.ndarray]:
    """Return channels [C, S, N] and seconds since entering [S, N]: every `spacing` seconds, or every sample if those are
    longer, and at the end."""
    lanes = np.arange(len(part.alive))
    every = min(spacing / phase.environment.control_period_s, float(part.flight.steps.max() + 1))
    table, steps = part.at(part.samples(lanes, max(1, round(every))), lanes)
    return np.ascontiguousarray(table.transpose(2, 0, 1)), _seconds(phase, table, steps)


def _places(
    grid: np.ndarray, time_s: np.ndarray, alive: np.ndarray, begin: np.ndarray, end: np.ndarray
) -> tuple[slice, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return where the grid falls between the samples of a phase.

    Args:
      grid: [G] seconds since the mission began.
      time_s: [S, N] seconds since entering, of the samples.
      alive: bool [N], those that entered.
      begin: [N] seconds since the mission began, on entering.
      end: [N] seconds since entering, on leaving.

    Returns:
      rows: the grid rows that the phase covers; the other results are [., N] on these rows.
      low, high: flat index of the sample before and of the one after.
      weight: of the latter.
      inside: whether the vehicle is in this phase.
    """
    begins, ends = begin[alive], (begin + end)[alive]
    first, last = (float(begins.min()), float(ends.max())) if begins.size else (0.0, 0.0)
    rows = slice(int(np.searchsorted(grid, first)), int(np.searchsorted(grid, last, "right")))
    since, flights = grid[rows, None] - begin[None, :], np.arange(len(alive))
    times = np.where(np.isfinite(time_s), time_s, np.inf)
    low = np.stack([np.searchsorted(times[:, n], since[:, n], "right") for n in flights], axis=1)
    low = (low - 1).clip(0, len(times) - 1)
    high = np.minimum(low + 1, len(times) - 1)
    low, high = low * len(alive) + flights, high * len(alive) + flights
    t0, t1 = times.reshape(-1)[low], times.reshape(-1)[high]
    with np.errstate(invalid="ignore"):  # of a clock that breaks
        weight = np.clip((since - t0) / np.where(t1 > t0, t1 - t0, 1.0), 0.0, 1.0).astype(np.float32)
    inside = alive[None, :] & (since >= 0.0) & (since < np.maximum(end, 1e-6)[None, :])
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
