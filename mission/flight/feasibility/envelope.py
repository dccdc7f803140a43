"""The states at a hand-over from which the rest of the mission succeeds: the largest box, and maps over two channels.

Shapes: N flights, C channels, G cells along one axis of a map.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mission.missionfile.statistics import wilson
from mission.strict import Fraction01, Natural, StrictModel

Sides = tuple[np.ndarray, np.ndarray]  # lower and upper bounds of a box, [C] each
_PEEL, _MOST_PEEL = 0.02, 0.1  # shares of the flights in the box that one cut removes: as a rule, and at most
_FEWEST = 50  # flights that a box must hold
_CELLS = 16


class Side(StrictModel):
    """The range of a channel in a box (None: unbounded). `cut` is the share of flights outside the range."""

    channel: str
    low: float | None
    high: float | None
    cut: Fraction01


class Box(StrictModel):
    """An axis-aligned box of states on entering a phase.

    `flights` entered inside of it, of those that did not shape it, and `succeeded` of them ended the mission; `low` is the lower bound of
    their share at the confidence that was asked. `holds` says whether it reaches the probability that was asked; if no box
    does, this one holds all flights and has no sides. `limiting` names the channel whose bounds cut off most flights; None
    if the box bounds nothing. `share` is that of all flights.
    """

    probability: Fraction01
    confidence: Fraction01
    sides: tuple[Side, ...]
    share: Fraction01
    flights: Natural
    succeeded: Natural
    low: Fraction01
    holds: bool
    limiting: str | None


def largest_box(
    channels: Sequence[str],
    table: np.ndarray,
    feasible: np.ndarray,
    success: np.ndarray,
    probability: float,
    confidence: float,
) -> Box:
    """Return a box that is as large as possible among those from which the mission succeeds with a probability.

    Patient rule induction (Friedman and Fisher 1999, doi:10.1023/A:1008894516817): from the box of all flights, cut off again
    and again the 2 % whose loss raises the share of successes inside most. Half of the flights shape these nested boxes; the
    other half choose the largest that holds, in a fixed sequence of tests (Maurer et al. 1995).

    Args:
      channels: C names.
      table: [N, C] on entering the phase, finite.
      feasible: [N], the probability of success that the network gives each flight; it ranks the cuts.
      success: bool [N], of the mission.
      probability: that is asked for inside the box.
      confidence: of the statement that the box has it, one-sided.
    """
    shaping = np.arange(len(table)) % 2 == 0

    def bound(sides: Sides, rows: np.ndarray) -> float:
        held = _inside(table[rows], sides)
        return lower_bound(int(success[rows][held].sum()), int(held.sum()), confidence)

    boxes = _nested(table[shaping], feasible[shaping], success[shaping])
    bounds = [bound(sides, shaping) for sides in boxes]
    if max(bounds) < probability:
        chosen = boxes[0]
    else:
        # From the box that promises most to larger ones, until one does not hold: testing in a fixed order needs no
        # correction for the number of tests.
        at = int(np.argmax(bounds))
        while at > 0 and bound(boxes[at - 1], ~shaping) >= probability:
            at -= 1
        chosen = boxes[at] if bound(boxes[at], ~shaping) >= probability else boxes[0]
    return _described(channels, table, success, chosen, ~shaping, probability, confidence)


def _inside(table: np.ndarray, sides: Sides) -> np.ndarray:
    return np.all((table >= sides[0][None, :]) & (table <= sides[1][None, :]), axis=1)


def _nested(table: np.ndarray, feasible: np.ndarray, success: np.ndarray) -> list[Sides]:
    """Return nested boxes, each inside the previous one; the first contains all flights [N]."""
    low, high = np.full(table.shape[1], -np.inf), np.full(table.shape[1], np.inf)
    boxes, held = [(low, high)], np.arange(len(table))
    while len(held) * (1.0 - _MOST_PEEL) >= _FEWEST and not success[held].all():
        cut = _best_cut(table[held], feasible[held], success[held])
        if cut is None:
            break
        at, upper, value = cut
        low, high = low.copy(), high.copy()
        (high if upper else low)[at] = value
        boxes.append((low, high))
        held = held[_inside(table[held], boxes[-1])]
    return boxes


def _described(
    channels: Sequence[str],
    table: np.ndarray,
    success: np.ndarray,
    sides: Sides,
    testing: np.ndarray,
    probability: float,
    confidence: float,
) -> Box:
    """Return a box, evaluated on the flights that did not shape it (bool [N])."""
    low, high = sides
    held = _inside(table[testing], sides)
    succeeded, flights = int(success[testing][held].sum()), int(held.sum())
    found = lower_bound(succeeded, flights, confidence)
    beyond = [float(((table[:, at] < low[at]) | (table[:, at] > high[at])).mean()) for at in range(len(channels))]
    return Box(
        probability=probability,
        confidence=confidence,
        sides=tuple(
            Side(channel=name, low=_finite(low[at]), high=_finite(high[at]), cut=beyond[at])
            for at, name in enumerate(channels)
            if np.isfinite([low[at], high[at]]).any()
        ),
        share=float(_inside(table, sides).mean()) if len(table) else 0.0,
        flights=flights,
        succeeded=succeeded,
        low=found,
        holds=found >= probability,
        limiting=channels[int(np.argmax(beyond))] if max(beyond, default=0.0) > 0.0 else None,
    )


def lower_bound(succeeded: int, flights: int, confidence: float) -> float:
    """Return the one-sided Wilson lower bound of a probability at a confidence; 0 if there are no flights."""
    from scipy.stats import norm

    return wilson(succeeded, flights, float(norm.ppf(confidence)))[0]


def _best_cut(table: np.ndarray, feasible: np.ndarray, success: np.ndarray) -> tuple[int, bool, float] | None:
    """Return the channel, whether above, and the value of the cut that raises the mean inside most; None if none can.

    The criterion is the mean of feasibility and outcome: the network ranks cuts for which there are too few losses.
    """
    value = 0.5 * (feasible + success)
    best, found = 0.0, None
    for at, column in enumerate(table.T):
        ends = np.quantile(column, (_PEEL, 1.0 - _PEEL), method="closest_observation")
        for upper, end in enumerate(ends):
            kept = column <= end if upper else column >= end
            if kept.all():  # a channel with many equal values at its end
                kept = column < end if upper else column > end
                if not kept.any():
                    continue
                end = column[kept].max() if upper else column[kept].min()
            if kept.mean() < 1.0 - _MOST_PEEL:
                continue
            gain = (value[kept].mean() - value.mean()) / (1.0 - kept.mean())
            if gain > best:
                best, found = gain, (at, bool(upper), float(end))
    return found


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


class Map(StrictModel):
    """Mean feasibility over two channels; `cells` [G, G] by row of the second channel from below, None without flights."""

    channels: tuple[str, str]
    edges: tuple[tuple[float, ...], tuple[float, ...]]
    cells: tuple[tuple[float | None, ...], ...]
    flights: tuple[tuple[Natural, ...], ...]


def feasibility_map(names: tuple[str, str], first: np.ndarray, second: np.ndarray, feasible: np.ndarray) -> Map:
    """Return the mean feasibility of flights [N] over a grid of two channels, from their 0.5th to 99.5th percentile."""
    edges = [_edges(values) for values in (first, second)]
    at = [
        np.clip(np.searchsorted(e, v, side="right") - 1, 0, _CELLS - 1)
        for e, v in zip(edges, (first, second), strict=True)
    ]
    cell = at[1] * _CELLS + at[0]
    count = np.bincount(cell, minlength=_CELLS**2)
    total = np.bincount(cell, feasible, minlength=_CELLS**2)
    mean = [float(t / n) if n else None for t, n in zip(total, count, strict=True)]
    rows = range(0, _CELLS**2, _CELLS)
    return Map(
        channels=names,
        edges=(tuple(edges[0].tolist()), tuple(edges[1].tolist())),
        cells=tuple(tuple(mean[row : row + _CELLS]) for row in rows),
        flights=tuple(tuple(count[row : row + _CELLS].tolist()) for row in rows),
    )


def _edges(values: np.ndarray) -> np.ndarray:
    low, high = np.percentile(values, (0.5, 99.5))
    return np.linspace(low, high if high > low else low + 1.0, _CELLS + 1)


def telling_channels(channels: Sequence[str], table: np.ndarray, feasible: np.ndarray) -> list[str]:
    """Return the channels, sorted by the share of the variance of feasibility that each explains alone, largest first.

    A channel that is correlated with an earlier one (|correlation| above 0.95) comes after all others.
    """
    ranked = sorted(range(len(channels)), key=lambda at: -_explained(table[:, at], feasible))
    first: list[int] = []
    for at in ranked:
        if not any(_correlation(table[:, at], table[:, other]) > 0.95 for other in first):
            first.append(at)
    return [channels[at] for at in (*first, *(at for at in ranked if at not in first))]


def _explained(column: np.ndarray, values: np.ndarray) -> float:
    """Return the variance of the means over ten bins with equal numbers of flights."""
    if column.std() == 0.0:
        return 0.0
    parts = np.array_split(values[np.argsort(column, kind="stable")], 10)
    return float(np.var([part.mean() for part in parts if len(part)]))


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    spread = first.std() * second.std()
    return abs(float(((first - first.mean()) * (second - second.mean())).mean() / spread)) if spread > 0.0 else 0.0
