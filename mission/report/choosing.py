"""Choose the flights that a report keeps in full: ordinary ones, and failures of each cause.

Shapes: N flights, C channels.
"""

from __future__ import annotations

import numpy as np

from mission.flight.batches import BATCH
from mission.report.flight_records import Flights
from mission.report.header import Role

EACH_CAUSE = 2
MOST_LOST = 8


def choose_flights(flights: Flights) -> list[tuple[int, Role]]:
    """Return (number, role) of the flights to keep, in the order of the page.

    They are the `ordinary_flights` of the first 1,000, and the first two `lost` flights of each phase and cause, at
    most eight of these. So each flight that is chosen among those of joined reports was chosen in one of them.
    """
    chosen = ordinary_flights(flights)
    lost = lost_flights(flights)[:MOST_LOST]
    return chosen + [(number, "lost") for number in lost if number not in dict(chosen)]


def ordinary_flights(flights: Flights) -> list[tuple[int, Role]]:
    """Return (number, role) of three of the first 1,000 flights.

    `nominal` has the most ordinary start; `median` and `worst` are the successes with the most and the least ordinary
    end.
    """
    first, last = flights.phases[0], flights.phases[-1]
    pool = np.arange(min(BATCH, flights.count))
    succeeded = pool[flights.success[pool]]
    candidates: tuple[tuple[Role, np.ndarray, np.ndarray, float], ...] = (
        ("nominal", pool, first.enter, 1.0),
        ("median", succeeded, last.end, 1.0),
        ("worst", succeeded, last.end, -1.0),
    )
    chosen: list[tuple[int, Role]] = []
    for role, numbers, table, sign in candidates:
        free = np.setdiff1d(numbers, [number for number, _ in chosen])
        if free.size:
            chosen.append((int(free[np.argmin(sign * unusualness(table[free]))]), role))
    return chosen


def lost_flights(flights: Flights) -> list[int]:
    """Return the numbers of the first two failures of each phase and cause."""
    numbers: list[int] = []
    for phase in flights.phases:
        for cause in range(1, len(phase.causes)):
            failed = np.flatnonzero(phase.entered & ~phase.success & (phase.cause == cause))
            numbers += [int(number) for number in failed[:EACH_CAUSE]]
    return numbers


def unusualness(table: np.ndarray) -> np.ndarray:
    """Return, for each row of [N, C], the mean over the channels of the squared distance from the median, in units of
    the 5 to 95 % range."""
    table = np.where(np.isfinite(table), table, np.nan).astype(np.float64)
    table = table[:, np.isfinite(table).any(axis=0)]
    if not table.size:
        return np.zeros(len(table))
    p05, p50, p95 = np.nanpercentile(table, (5, 50, 95), axis=0)
    spread = p95 - p05
    kept = spread > 1e-6 * np.maximum(np.abs(p50), 1e-6)
    if not kept.any():
        return np.zeros(len(table))
    return np.nan_to_num((((table - p50) / np.where(kept, spread, 1.0)) ** 2)[:, kept], nan=np.inf).mean(axis=1)
