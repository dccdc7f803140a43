"""`mission_envelope`: fly new flights of a mission, and find the states at each hand-over from which the rest succeeds.

Shapes: N flights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from mission.errors import InputError, MachineError
from mission.flight.batches import batches
from mission.flight.chain import Chain, check_flights
from mission.flight.entering import fly_observing
from mission.flight.feasibility.network import likely
from mission.flight.feasibility.store import FEASIBILITY, Feasibility, chain_feasibility
from mission.missionfile.models import Judge
from mission.report.feasibility import HandoverFeasibility, feasibility_html, handover_feasibility
from mission.report.page import document
from mission.strict import StrictModel


class Envelope(StrictModel):
    """The analysis of a mission's hand-overs by flights that were not used to fit its feasibility."""

    mission: str
    seed: int
    flights: int
    succeeded: int
    judge: Judge
    handovers: tuple[HandoverFeasibility, ...]

    def to_html(self) -> str:
        """Return a page that opens offline."""
        lead = (
            f'<p class="soft">{self.succeeded:,} of {self.flights:,} flights succeeded, none of which fitted the networks. Green cells of a map are states from '
            "which the rest of the mission succeeds, red ones from which it does not.</p>"
        )
        parts = [(f"phase-{at}", one.phase, feasibility_html(one)) for at, one in enumerate(self.handovers)]
        return document(f"{self.mission}: feasibility at its hand-overs", lead, parts)


def mission_envelope(
    chain: Chain,
    flights: int = 10_000,
    *,
    only: Sequence[str] = (),
    channels: Sequence[str] = (),
    probability: float = 0.99,
    confidence: float = 0.95,
    progress: Callable[[int, int], None] | None = None,
) -> Envelope:
    """Fly a mission whose feasibility is fitted, and find the largest box at each hand-over from which the rest succeeds.

    Args:
      chain: the mission with its pilots, from `prepare_chain`.
      flights: their number.
      only: phases; empty: all.
      channels: of the maps and of the boxes; empty: the most telling ones.
      probability, confidence: of the boxes: from inside, the mission succeeds with at least this probability, which the
        flights show at this confidence.
      progress: called with (flights done, flights).

    Raises:
      MissionError: wrong input or stale feasibility (2); no readable feasibility (3).
    """
    for name, value in (("--probability", probability), ("--confidence", confidence)):
        if not 0.0 < value < 1.0:
            raise InputError(name, expected="above 0 and below 1", found=str(value), remedy="0.99 is 99 %")
    check_flights(flights, None)
    feasibility = chain_feasibility(chain)
    if feasibility is None:
        raise MachineError(
            str(chain.home / FEASIBILITY),
            expected="the feasibility of this mission",
            found="none",
            remedy=f"run {chain.mission.source.command('feasibility')}, with the same pilots",
        )
    _check_names(chain, only, channels)
    return _envelope(chain, feasibility, flights, only, channels, probability, confidence, progress)


def _check_names(chain: Chain, only: Sequence[str], channels: Sequence[str]) -> None:
    for option, names, known in (
        ("--phase", only, [phase.name for phase in chain.phases]),
        ("--channels", channels, chain.channels),
    ):
        for name in names:
            if name not in known:
                raise InputError(option, expected=f"one of {', '.join(known)}", found=name, remedy="name one of them")


def _envelope(
    chain: Chain,
    feasibility: Feasibility,
    flights: int,
    only: Sequence[str],
    channels: Sequence[str],
    probability: float,
    confidence: float,
    progress: Callable[[int, int], None] | None,
) -> Envelope:
    fly, parts = fly_observing(chain), []
    for numbers in batches(flights):
        parts.append(fly(numbers))
        if progress is not None:
            progress(int(numbers[-1]) + 1, flights)
    by_phase = list(zip(*parts, strict=True))
    ends = [np.concatenate([part.flight.success for part in phase]) for phase in by_phase]
    entered, landed = np.ones(flights, bool), np.logical_and.reduce(ends)
    found = []
    for k, (phase, seen) in enumerate(zip(chain.phases, by_phase, strict=True)):
        if entered.any() and (phase.name in only or not only):
            obs = np.concatenate([part.obs for part in seen])[entered]
            enter = np.concatenate([part.flight.enter for part in seen])[entered]
            found.append(
                handover_feasibility(
                    phase.name,
                    phase.channels,
                    enter,
                    likely(feasibility.weights[k], obs),
                    landed[entered],
                    probability=probability,
                    confidence=confidence,
                    chosen=[name for name in channels if name in phase.channels],
                )
            )
        entered = entered & ends[k]
    return Envelope(
        mission=chain.mission.name,
        seed=chain.seed,
        flights=flights,
        succeeded=int(landed.sum()),
        judge=chain.mission.judge,
        handovers=tuple(found),
    )
