"""`fit_feasibility`: fly a mission, and fit for each phase how likely the rest of the mission succeeds from its start.

Flights begin at the start of the mission, not at the rows of a bank: they are the same states, with the ends of every flight,
those that a box fails included if the mission judges, and one flight teaches the networks of all phases that it
enters. Rare losses provide too little data, so rounds of split flights follow, which multiply flights where the
network is still uncertain.
Shapes: N flights, O observation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from mission import __version__
from mission.errors import MachineError
from mission.flight.batches import BATCH, batches
from mission.flight.chain import Chain, check_flights
from mission.flight.entering import fly_observing
from mission.flight.feasibility.conditions import conditions_of
from mission.flight.feasibility.network import FeasibilitySettings, fit, likely
from mission.flight.feasibility.scores import scores
from mission.flight.feasibility.store import (
    Feasibility,
    FeasibilityPhase,
    FeasibilityRecord,
    write_feasibility,
)
from mission.flight.splitting import Samples, finite_samples, fly_splitting, samples_of
from mission.storage.lock import folder_lock
from mission.storage.protection import refuse_read_only

_FIRST = 1 << 31  # number of the first flight, so that what is flown to use feasibility is always fresh
_TEST = 5  # one flight in five scores the networks
_FEWEST = 40  # flights that must enter a phase
_ROUND = 1_000_000  # split batches that teach have other numbers than those of `mission fly --splitting`


def fit_feasibility(
    chain: Chain, settings: FeasibilitySettings | None = None, progress: Callable[[int, int], None] | None = None
) -> FeasibilityRecord:
    """Fly a mission, fit the probability of its success at entry to each phase, and store it in its checkpoint folder.

    The inputs of the networks are the first observations of the phases. A fifth of the flights is kept to score them.

    Args:
      chain: the mission with its pilots, from `prepare_chain`.
      settings: numbers of flights and rounds, sizes and lengths; None: the defaults.
      progress: called with (flights done, flights).

    Raises:
      MissionError: the folder is read-only (2); too few flights enter a phase, or the folder cannot be written (3).
    """
    settings = settings or FeasibilitySettings()
    check_flights(settings.flights, None)
    refuse_read_only(chain.home, "--checkpoints")
    with folder_lock(chain.home, "--checkpoints"):
        feasibility = _fit(chain, settings, progress)
        write_feasibility(chain.home, feasibility)
    return feasibility.record


def _fit(chain: Chain, settings: FeasibilitySettings, progress: Callable[[int, int], None] | None) -> Feasibility:
    total, done = settings.flights * (1 + settings.rounds), 0

    def flew(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total)

    phases = _plain_flights(chain, settings.flights, flew)
    for phase, plain in zip(chain.phases, phases, strict=True):
        if len(plain.teach.success) < _FEWEST:
            raise MachineError(
                f'phase "{phase.name}"',
                expected=f"at least {_FEWEST} flights that enter it with a finite observation, to fit its feasibility",
                found=str(len(plain.teach.success)),
                remedy="fly more (--flights), or train the phases before it",
            )
    teach = [plain.teach for plain in phases]
    weights = [fit(*one, settings, chain.seed) for one in teach]
    split = fly_splitting(chain)
    for number in range(settings.rounds if len(chain.phases) > 1 else 0):
        for batch in range(-(-settings.flights // BATCH)):
            levels = split(weights, _ROUND * (number + 1) + batch, True)
            teach = [_joined(old, samples_of(levels, k)) if k < len(levels) else old for k, old in enumerate(teach)]
            flew(BATCH)
        weights = [fit(*one, settings, chain.seed) for one in teach]
    conditions = conditions_of(chain.phases, chain.policy_hashes())
    scored = [
        FeasibilityPhase(**dict(one), scores=scores(likely(network, plain.kept.obs), plain.kept.success))
        for one, network, plain in zip(conditions, weights, phases, strict=True)
    ]
    record = FeasibilityRecord(
        mission=chain.mission.name,
        seed=chain.seed,
        flights=settings.flights,
        judge=chain.mission.judge,
        engine=__version__,
        phases=tuple(scored),
    )
    return Feasibility(record, tuple(weights))


class _Plain(NamedTuple):
    """Whole flights that entered one phase: those to which its network is fitted, and those that score it."""

    teach: Samples
    kept: Samples


def _plain_flights(chain: Chain, flights: int, flew: Callable[[int], None]) -> list[_Plain]:
    """Fly whole missions; return by phase the first observations of its flights, and the outcome of the mission."""
    fly, parts = fly_observing(chain), []
    for numbers in batches(flights, _FIRST):
        parts.append(fly(numbers))
        flew(len(numbers))
    by_phase = list(zip(*parts, strict=True))
    ends = [np.concatenate([part.flight.success for part in seen]) for seen in by_phase]
    entered, landed, scoring = np.ones(flights, bool), np.logical_and.reduce(ends), np.arange(flights) % _TEST == 0
    found = []
    for seen, success in zip(by_phase, ends, strict=True):
        obs = np.concatenate([part.obs for part in seen])
        rows = (entered & ~scoring, entered & scoring)
        found.append(_Plain(*(finite_samples(Samples(obs[at], landed[at], np.ones(at.sum()))) for at in rows)))
        entered = entered & success
    return found


def _joined(first: Samples, second: Samples) -> Samples:
    return Samples(*(np.concatenate(pair) for pair in zip(first, second, strict=True)))
