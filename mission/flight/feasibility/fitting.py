"""`fit_feasibility`: fly a mission, and fit for each phase how likely the rest of the mission succeeds from its start.

Flights begin at the start of the mission, not at the rows of a bank: they are the same states, with the ends of every flight,
those that a box fails included if the mission judges, and one flight teaches the networks of all phases that it enters.
Shapes: N flights, O observation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from mission import __version__
from mission.errors import MachineError
from mission.flight.batches import batches
from mission.flight.chain import Chain, check_flights, prepare_chain
from mission.flight.entering import fly_observing
from mission.flight.feasibility.network import FeasibilitySettings, Weights, fit, probability
from mission.flight.feasibility.scores import scores
from mission.flight.feasibility.store import (
    Feasibility,
    FeasibilityRecord,
    feasibility_phases,
    write_feasibility,
)
from mission.missionfile.models import Judge, MissionFile
from mission.storage.lock import folder_lock

_TEST = 5  # one flight in five scores the networks
_FEWEST = 40  # flights that must enter a phase


def fit_feasibility(
    mission: MissionFile,
    *,
    checkpoints: str | Path | None = None,
    settings: FeasibilitySettings | None = None,
    seed: int | None = None,
    policy: str = "agent",
    policies: Mapping[str, str | Path] | None = None,
    judge: Judge | None = None,
    allow_stale: bool = False,
    allow_local_plugins: bool = False,
    progress: Callable[[int, int], None] | None = None,
    devices: int | None = None,
) -> FeasibilityRecord:
    """Fly a mission and store, beside its policies, the probability of its success on entering each phase.

    The networks see what a phase first observes. A fifth of the flights is kept to score them.

    Args:
      settings: number of flights, sizes and lengths; None: the defaults.
      mission, checkpoints, seed, policy, policies, judge, allow_stale, allow_local_plugins, progress, devices: as for
        `mission.fly_mission`.

    Raises:
      MissionError: wrong input or a stale policy (2); no readable policy, or too few flights enter a phase (3).
    """
    settings = settings or FeasibilitySettings()
    check_flights(settings.flights, None)
    chain = prepare_chain(
        mission,
        checkpoints=checkpoints,
        seed=seed,
        policy=policy,
        policies=policies,
        allow_stale=allow_stale,
        allow_local_plugins=allow_local_plugins,
        devices=devices,
        judge=judge,
    )
    with folder_lock(chain.root, "--checkpoints"):
        feasibility = _fit(chain, settings, progress)
        write_feasibility(chain.root, feasibility)
    return feasibility.record


def _fit(chain: Chain, settings: FeasibilitySettings, progress: Callable[[int, int], None] | None) -> Feasibility:
    fly, parts = fly_observing(chain), []
    for numbers in batches(settings.flights):
        parts.append(fly(numbers))
        if progress is not None:
            progress(int(numbers[-1]) + 1, settings.flights)
    entered, landed = np.ones(settings.flights, bool), np.ones(settings.flights, bool)
    by_phase = list(zip(*parts, strict=True))
    ends = [np.concatenate([part.flight.success for part in phase]) for phase in by_phase]
    for success in ends:
        landed &= success
    test = np.arange(settings.flights) % _TEST == 0
    phases, weights = [], []
    for phase, described, seen, success in zip(chain.phases, feasibility_phases(chain), by_phase, ends, strict=True):
        obs = np.concatenate([part.obs for part in seen])
        if (entered & ~test).sum() < _FEWEST:
            raise MachineError(
                f'phase "{phase.name}"',
                expected=f"at least {_FEWEST} flights that enter it, to fit its feasibility",
                found=str(int((entered & ~test).sum())),
                remedy="fly more (--flights), or train the phases before it",
            )
        teach, kept = entered & ~test, entered & test
        weights.append(fit(obs[teach], landed[teach], settings, chain.seed))
        found = scores(np.asarray(probability(weights[-1], jnp.asarray(obs[kept]))), landed[kept])
        phases.append(described.model_copy(update={"scores": found}))
        entered = entered & success
    record = FeasibilityRecord(
        mission=chain.mission.name,
        seed=chain.seed,
        flights=settings.flights,
        judge=chain.mission.judge,
        engine=__version__,
        phases=tuple(phases),
    )
    return Feasibility(record, tuple(weights))


def likely(weights: Weights, obs: np.ndarray) -> np.ndarray:
    """Return the probability of success [N] of observations [N, O], on the host."""
    return np.asarray(probability(weights, jnp.asarray(obs)), np.float64)
