"""Compare the outcomes of the same flights at two times: differing flights, and the difference in success rates.

Shapes: N flights.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mission.missionfile.statistics import paired_difference
from mission.storage.baseline import PhaseOutcomes
from mission.strict import StrictModel

_SHOWN = 5  # differences that are listed
# Another compiler or processor rounds differently in the last bits. That moves the end of some flights across the edge
# of a control step; a changed plugin moves more of them.
_ROUNDED = 0.005  # of the flights may end by the same cause one control step earlier or later


class FlightEnd(StrictModel):
    """How one flight ended a phase."""

    success: bool
    cause: str
    steps: int


class FlightDifference(StrictModel):
    """A flight, and the first phase that it ended differently than before."""

    phase: str
    flight: int
    before: FlightEnd
    now: FlightEnd

    def __str__(self) -> str:
        before, now = (f"{end.cause} after {end.steps} steps" for end in (self.before, self.now))
        return f"{self.phase}, flight {self.flight}: {before} before, {now} now"


class RateDifference(StrictModel):
    """Success now minus success before, with its 95 % interval, over the flights that entered both times."""

    name: str
    flights: int
    difference: float | None
    low: float
    high: float

    def within(self, bound: float) -> bool:
        """Return whether the interval lies within +-bound."""
        return -bound <= self.low and self.high <= bound

    def __str__(self) -> str:
        change = "-" if self.difference is None else f"{100 * self.difference:+.3f}"
        interval = f"{100 * self.low:+.3f} to {100 * self.high:+.3f}"
        return f"{self.name}: {change} percentage points ({interval}) over {self.flights:,} flights"


class OutcomeComparison(StrictModel):
    """The outcomes of N flights at two times; `differences` lists the first few of the flights that differ.

    `rounded` flights end with the same success by the same cause, but one control step earlier or later in some phase;
    `different` are the others that do not end as before.
    """

    flights: int
    different: int
    rounded: int
    differences: tuple[FlightDifference, ...]
    chain: RateDifference
    phases: tuple[RateDifference, ...]

    @property
    def equal(self) -> bool:
        """Return whether all flights end as before, but for the rounding of a few."""
        return self.different == 0 and self.rounded <= _ROUNDED * self.flights


def compare_outcomes(
    names: Sequence[str], before: Sequence[PhaseOutcomes], now: Sequence[PhaseOutcomes]
) -> OutcomeComparison:
    """Compare success, cause and steps of flights, phase by phase.

    Args:
      names: of the phases.
      before, now: one per phase; of `before`, the first N flights count if `now` has N.
    """
    flights = len(now[0].success)
    entered = [np.ones(flights, bool), np.ones(flights, bool)]
    different, rounded = np.zeros(flights, bool), np.zeros(flights, bool)
    differences: list[FlightDifference] = []
    rates: list[RateDifference] = []
    for name, *sides in zip(names, before, now, strict=True):
        ends = [_ends(side, flights) for side in sides]
        both = entered[0] & entered[1]
        (success, cause, steps), (success_now, cause_now, steps_now) = ends
        apart = np.abs(steps.astype(int) - steps_now.astype(int))
        other = both & ((success != success_now) | (cause != cause_now) | (apart > 1))
        shifted = both & (apart == 1)
        for flight in np.flatnonzero((other | shifted) & ~different & ~rounded)[: _SHOWN - len(differences)]:
            first, second = (_end(end, int(flight)) for end in ends)
            differences.append(FlightDifference(phase=name, flight=int(flight), before=first, now=second))
        different, rounded = different | other, rounded | shifted
        rates.append(_rate(name, ends[0][0][both], ends[1][0][both]))
        entered = [end[0] for end in ends]
    return OutcomeComparison(
        flights=flights,
        different=int(different.sum()),
        rounded=int((rounded & ~different).sum()),
        differences=tuple(differences),
        chain=_rate("the whole mission", *entered),
        phases=tuple(rates),
    )


def _ends(outcomes: PhaseOutcomes, flights: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return success, name of the cause, and steps [N each]; by name, since a plugin may reorder its causes."""
    causes = np.array(outcomes.causes)[outcomes.cause[:flights]]
    return outcomes.success[:flights], causes, outcomes.steps[:flights]


def _end(ends: tuple[np.ndarray, np.ndarray, np.ndarray], flight: int) -> FlightEnd:
    success, cause, steps = (values[flight] for values in ends)
    return FlightEnd(success=bool(success), cause=str(cause), steps=int(steps))


def _rate(name: str, before: np.ndarray, now: np.ndarray) -> RateDifference:
    pair = paired_difference(before, now)
    return RateDifference(name=name, flights=pair.flights, difference=pair.difference, low=pair.low, high=pair.high)
