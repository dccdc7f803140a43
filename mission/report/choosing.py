"""Which flights a report keeps whole.

Shapes: N flights, C channels.
"""

from __future__ import annotations

import numpy as np

from mission.flight.batches import BATCH
from mission.report.records import Flights

EACH_CAUSE = 2
MOST_LOST = 8


def choose_flights(flights: Flights) -> list[tuple[int, str]]:
    """(number, role) of the flights to keep, in the order of the page.

    `ordinary_flights` of the first 1,000, and `lost`: the first two of each phase and cause, at most eight.
    """
    chosen = ordinary_flights(flights)
    lost = [(number, "lost") for number in lost_flights(flights) if number not in dict(chosen)]
    return chosen + lost[:MOST_LOST]


def ordinary_flights(flights: Flights) -> list[tuple[int, str]]:
    """(number, role) of the first 1,000 flights, role by role.

    `nominal` entered the mission most ordinarily, `median` and `worst` are the successes that ended most
    and least ordinarily.
    """
    first, last = flights.phases[0], flights.phases[-1]
    pool = np.arange(min(BATCH, flights.count))
    landed = pool[flights.success[pool]]
    chosen: list[tuple[int, str]] = []
    for role, numbers, table, sign in (
        ("nominal", pool, first.enter, 1.0),
        ("median", landed, last.end, 1.0),
        ("worst", landed, last.end, -1.0),
    ):
        free = np.setdiff1d(numbers, [number for number, _ in chosen])
        if free.size:
            chosen.append((int(free[np.argmin(sign * unusualness(table[free]))]), role))
    return chosen


def lost_flights(flights: Flights) -> list[int]:
    """Numbers of the first two of each phase and cause."""
    numbers: list[int] = []
    for phase in flights.phases:
        for cause in range(1, len(phase.causes)):
            these = np.flatnonzero(phase.entered & ~phase.success & (phase.cause == cause))
            numbers += [int(number) for number in these[:EACH_CAUSE]]
    return numbers


def unusualness(table: np.ndarray) -> np.ndarray:
    """Mean squared distance from the median in units of the 5-95 % range, over the channels of [N, C]."""
    p05, p50, p95 = np.nanpercentile(table, (5, 50, 95), axis=0)
    spread = p95 - p05
    kept = spread > 1e-6 * np.maximum(np.abs(p50), 1e-6)
    if not kept.any():
        return np.zeros(len(table))
    return np.nan_to_num((((table - p50) / np.where(kept, spread, 1.0)) ** 2)[:, kept], nan=np.inf).mean(axis=1)
