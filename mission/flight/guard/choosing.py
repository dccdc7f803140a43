"""Choose the margin of a guard on flights that fitted no network, and compare flights with and without guard.

Shapes: N flights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mission.flight.batches import batches
from mission.flight.chain import Chain
from mission.flight.feasibility.network import Weights
from mission.flight.guard.counts import GuardComparison, TakeOvers, compare_guarded, count_takeovers
from mission.flight.guard.flying import NEVER, Entries, Explorer, Flew, rows_of, with_guards
from mission.flight.guard.store import guarded_parameters

MOST_ALARMS = 0.0075  # share of the flights that succeed; the guard may show 1 % on other flights
_ALARMS = (0.0, 0.0005, 0.001, 0.002, 0.003, 0.005, MOST_ALARMS)  # shares at which margins are tried
_LEAST_MARGIN = 0.02  # of probability


def choose_margin(
    explorer: Explorer, params: dict[str, Any], entries: Entries, flew: Flew
) -> tuple[float | None, TakeOvers | None]:
    """Return the margin with the largest number of saved minus spoilt flights in a phase, and its counts.

    At least half of the lost flights with a take-over must succeed with it. None if there is no such margin.

    Args:
      explorer: of the phase.
      params: its parameters, with networks.
      entries: N flights that did not fit the networks.
      flew: called with numbers of flights.
    """
    found, _ = explorer.explore(params, entries, np.full(len(entries.numbers), NEVER, np.int32), flew)
    best: tuple[float, TakeOvers] | None = None
    for margin in _candidates(found.peak, entries.success):
        counts = _with_margin(explorer, params, entries, found.peak > margin, margin, flew)
        gain = counts.saved.count - counts.spoiled
        enough = 2 * counts.saved.count >= counts.in_lost
        if gain > 0 and enough and (best is None or gain > best[1].saved.count - best[1].spoiled):
            best = margin, counts
    return best if best is not None else (None, None)


def _candidates(peak: np.ndarray, success: np.ndarray) -> list[float]:
    """Return margins to try, given the largest advantage of each flight [N] and its success, bool [N]; large ones first."""
    alarms = np.sort(peak[success])[::-1]
    at = [min(int(share * len(alarms)), len(alarms) - 1) for share in _ALARMS]
    return sorted({max(float(alarms[i]), _LEAST_MARGIN) for i in at}, reverse=True)


def _with_margin(
    explorer: Explorer, params: dict[str, Any], entries: Entries, near: np.ndarray, margin: float, flew: Flew
) -> TakeOvers:
    """Count the effects of a guard with a margin; only the flights `near` it (bool [N]) are flown."""
    taken, guarded = np.zeros(len(near), bool), entries.success.copy()
    if near.any():
        flown = {**params, "margin": np.float32(margin)}
        flight, success = explorer.guarded(flown, rows_of(entries, np.flatnonzero(near)), flew)
        taken[near], guarded[near] = flight.takeover >= 0, success
    return count_takeovers(taken, entries.success, np.where(taken, guarded, entries.success))


def compare_chain(
    chain: Chain, guards: Mapping[int, tuple[dict[str, Weights], float]], flights: int, flew: Flew
) -> GuardComparison:
    """Fly a mission under guard, and fly the flights with a take-over again without guard; all others are identical.

    Args:
      chain: the mission without guards.
      guards: networks and margin of each guarded phase, by index.
      flights: their number; they begin with number 0.
      flew: called with numbers of flights.
    """
    sides = [
        with_guards(chain, list(guards), {k: guarded_parameters(chain.actors[k], *one) for k, one in side.items()})
        for side in (guards, {k: (networks, None) for k, (networks, _) in guards.items()})
    ]
    taken: dict[str, list[np.ndarray]] = {chain.phases[k].name: [] for k in guards}
    without, guarded = [], []
    for numbers in batches(flights):
        results = sides[0].fly(numbers)
        guarded.append(np.logical_and.reduce([one.success for one in results]))
        without.append(guarded[-1].copy())
        for k in guards:
            entered = np.logical_and.reduce([np.ones(len(numbers), bool), *(one.success for one in results[:k])])
            taken[chain.phases[k].name].append(entered & (results[k].takeover >= 0))
        some = np.logical_or.reduce([np.zeros(len(numbers), bool), *(one[-1] for one in taken.values())])
        if some.any():
            again = sides[1].fly(numbers[some])
            without[-1][some] = np.logical_and.reduce([one.success for one in again])
        flew(len(numbers))
    joined = {name: np.concatenate(parts) for name, parts in taken.items()}
    return compare_guarded(chain.seed, joined, np.concatenate(without), np.concatenate(guarded))
