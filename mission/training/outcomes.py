"""Compare the outcomes of the same flights at two times: which of them differ, and by how much the success rates do.

Shapes: N flights.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mission.statistics import paired_difference
from mission.storage.baseline import PhaseOutcomes
from mission.strict import StrictModel

_SHOWN = 5  # differences that are listed


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
    """The outcomes of N flights at two times; `differences` lists the first few of the flights that differ."""

    flights: int
    different: int
    differences: tuple[FlightDifference, ...]
    chain: RateDifference
    phases: tuple[RateDifference, ...]


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
    different = np.zeros(flights, bool)
    differences: list[FlightDifference] = []
    rates: list[RateDifference] = []
    for name, *sides in zip(names, before, now, strict=True):
        ends = [_ends(side, flights) for side in sides]
        both = entered[0] & entered[1]
        new = both & ~different & np.any([a != b for a, b in zip(*ends, strict=True)], axis=0)
        for flight in np.flatnonzero(new)[: _SHOWN - len(differences)]:
            first, second = (_end(end, int(flight)) for end in ends)
            differences.append(FlightDifference(phase=name, flight=int(flight), before=first, now=second))
        different |= new
        rates.append(_rate(name, ends[0][0][both], ends[1][0][both]))
        entered = [end[0] for end in ends]
    return OutcomeComparison(
        flights=flights,
        different=int(different.sum()),
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
