"""Counts of the effects of take-overs, in flights that are flown with and without guard. Shapes: N flights."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mission.flight.feasibility.scores import Scores
from mission.missionfile.models import Name
from mission.missionfile.statistics import PairedDifference, Rate, paired_difference, rate
from mission.strict import Natural, Seed, StrictModel


class TakeOvers(StrictModel):
    """Take-overs in the same flights with and without guard, of which `landed` succeed and `lost` fail without it.

    `saved` are the take-overs in lost flights after which the mission succeeds, `false_alarms` the take-overs in flights that
    succeed without them, and `spoiled` the false alarms after which it fails.
    """

    lost: Natural
    landed: Natural
    in_lost: Natural
    saved: Rate
    false_alarms: Rate
    spoiled: Natural


class PhaseGuard(StrictModel):
    """The guard of one phase.

    `margin` is by how much the guide must raise the probability of success to take over; None if the guard is off, for the
    `reason` given. `stay` and `take` score the predictions for a continued flight by the agent and for a take-over by
    the guide, on flights that were not used to fit the networks; `chosen_by` is the number of flights that chose the
    margin.
    """

    phase: Name
    margin: float | None
    reason: str
    stay: Scores | None
    take: Scores | None
    chosen_by: TakeOvers | None


class GuardComparison(StrictModel):
    """Flights 0 to `flights` - 1 of a seed, with and without guard; none of them fitted a network or chose a margin.

    `success` pairs them, first without guard. `any_phase` counts flights with a take-over in any phase.
    """

    seed: Seed
    flights: Natural
    without: Rate
    guarded: Rate
    success: PairedDifference
    any_phase: TakeOvers
    phases: dict[str, TakeOvers]


def count_takeovers(taken: np.ndarray, without: np.ndarray, guarded: np.ndarray) -> TakeOvers:
    """Count take-overs, given whether the guide took over and the success without and with guard, bool [N] each."""
    lost, alarms = taken & ~without, taken & without
    return TakeOvers(
        lost=int((~without).sum()),
        landed=int(without.sum()),
        in_lost=int(lost.sum()),
        saved=rate(int((lost & guarded).sum()), int(lost.sum())),
        false_alarms=rate(int(alarms.sum()), int(without.sum())),
        spoiled=int((alarms & ~guarded).sum()),
    )


def compare_guarded(
    seed: int, taken: Mapping[str, np.ndarray], without: np.ndarray, guarded: np.ndarray
) -> GuardComparison:
    """Compare N flights; `taken` says by phase in which of them the guide took over, bool [N]."""
    every = np.zeros(len(without), bool)
    for one in taken.values():
        every |= one
    return GuardComparison(
        seed=seed,
        flights=len(without),
        without=rate(int(without.sum()), len(without)),
        guarded=rate(int(guarded.sum()), len(guarded)),
        success=paired_difference(without, guarded),
        any_phase=count_takeovers(every, without, guarded),
        phases={name: count_takeovers(one, without, guarded) for name, one in taken.items()},
    )


def guard_words(found: GuardComparison) -> str:
    """Return a sentence on the effect of a mission's guard in its comparison flights."""
    one = found.any_phase
    return (
        f"In {found.flights:,} flights that were flown with and without guard (seed {found.seed}), {one.lost:,} were lost without it. "
        f"The guides took over in {one.in_lost:,} of these and saved {one.saved.count:,}. Of the {one.landed:,} others they took over "
        f"{one.false_alarms.count:,} ({100 * (one.false_alarms.rate or 0.0):.2f} %), of which {one.spoiled:,} were then lost."
    )
