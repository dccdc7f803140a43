"""`fit_guard`: fly a mission, fit networks that predict when its guides should take over, and choose the margins.

There are three disjoint sets of flights: the first fits the networks, the second chooses the margins, and the third
compares flights with and without guard. Shapes: N flights, S samples, O observation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mission import __version__
from mission.errors import InputError
from mission.flight.chain import Chain, check_flights
from mission.flight.feasibility.conditions import conditions_of
from mission.flight.feasibility.network import FitSettings, Weights, fit
from mission.flight.feasibility.scores import Scores, scores
from mission.flight.guard.choosing import choose_margin, compare_chain
from mission.flight.guard.counts import PhaseGuard
from mission.flight.guard.decision import foreseen
from mission.flight.guard.flying import Entries, Explorer, Flew, fly_entries, guard_phases, rows_of, with_guards
from mission.flight.guard.store import Guard, GuardRecord, guarded_parameters, write_guard
from mission.storage.lock import folder_lock
from mission.storage.protection import refuse_read_only
from mission.strict import Count

_FITTED, _CHOSEN = (
    1 << 31,
    3 << 30,
)  # numbers of the first flights that fit and that choose; those that compare begin at 0
_FEWEST = 20  # lost flights from which a network can learn
_TEST = 5  # one flight in five scores the networks


class GuardSettings(FitSettings):
    """The settings of a guard and of the flights to which it is fitted."""

    flights: Count = 20_000  # of each of the three sets
    samples: Count = 12_000  # take-overs in flights that succeed, by phase
    repeats: Count = 12  # take-overs in each flight that is lost
    members: Count = 4  # of each network
    updates: Count = 2000


class Samples(NamedTuple):
    """Take-overs: the observations, and whether the mission succeeds without and with the take-over."""

    flights: np.ndarray  # int [S]
    obs: np.ndarray  # float32 [S, O]
    stay: np.ndarray  # bool [S]
    take: np.ndarray  # bool [S]
    weights: np.ndarray  # [S]


def fit_guard(
    chain: Chain,
    settings: GuardSettings | None = None,
    *,
    only: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> GuardRecord:
    """Fly a mission, fit the guard of each phase, and store it in the mission's checkpoint folder.

    Args:
      chain: the mission without guards, from `prepare_chain(..., guard=False)`.
      settings: numbers of flights, sizes and lengths; None: the defaults.
      only: phases to guard; empty: all that have an agent and a guide.
      progress: called with (flights done, flights).

    Raises:
      MissionError: no phase has an agent and a guide, one of `only` has not, or the folder is read-only (2); the folder
        cannot be written (3).
    """
    settings = settings or GuardSettings()
    check_flights(settings.flights, None)
    indices = _chosen_phases(chain, only)
    refuse_read_only(chain.home, "--checkpoints")
    with folder_lock(chain.home, "--checkpoints"):
        guard = _fit(chain, indices, settings, _Progress(progress, settings, len(indices)))
        write_guard(chain.home, guard)
    return guard.record


def _chosen_phases(chain: Chain, only: Sequence[str]) -> list[int]:
    indices, names = guard_phases(chain), [phase.name for phase in chain.phases]
    able = [names[k] for k in indices]
    for name in only:
        if name not in able:
            raise InputError(
                f"--phase {name}",
                expected=f"a phase that has both an agent and a guide: {', '.join(able) or '(none)'}",
                found=name if name not in names else f"{name}, which has not",
                remedy="name one of them" if able else "there is nothing to guard",
            )
    if not able:
        raise InputError(
            str(chain.mission.source.path),
            expected="a phase that has both an agent and a guide, which could take over",
            found="none",
            remedy="fly the mission without guard, or add a guide to a plugin",
        )
    return [k for k in indices if not only or names[k] in only]


class _Progress:
    """Count flights; their total number is only an estimate, because not all flights enter all phases."""

    def __init__(self, progress: Callable[[int, int], None] | None, settings: GuardSettings, phases: int) -> None:
        self._progress, self._done = progress, 0
        self._total = 3 * settings.flights + phases * (settings.flights + settings.samples)

    def __call__(self, count: int) -> None:
        self._done += count
        if self._progress is not None:
            self._progress(min(self._done, self._total), self._total)


def _fit(chain: Chain, indices: list[int], settings: GuardSettings, flew: Flew) -> Guard:
    agents = with_guards(chain, indices)
    entries = fly_entries(agents, _FITTED + np.arange(settings.flights), flew)
    networks: dict[int, dict[str, Weights]] = {}
    scored: dict[int, tuple[Scores | None, Scores | None]] = {}
    for k in indices:
        lost = int((~_steered(entries[k])).sum())
        if min(lost, len(_steered(entries[k])) - lost) >= _FEWEST:
            samples = _sampled(Explorer(agents, k), entries[k], settings, flew)
            networks[k], scored[k] = _networks(samples, settings, chain.seed)
    fresh = fly_entries(agents, _CHOSEN + np.arange(settings.flights), flew) if networks else []
    guards = [
        _chosen(Explorer(agents, k), networks[k], fresh[k], scored[k], flew)
        if k in networks
        else _off(chain.phases[k].name, _steered(entries[k]))
        for k in indices
    ]
    on = {k: guard.margin for k, guard in zip(indices, guards, strict=True) if guard.margin is not None}
    record = GuardRecord(
        mission=chain.mission.name,
        seed=chain.seed,
        flights=settings.flights,
        judge=chain.mission.judge,
        engine=__version__,
        phases=tuple(conditions_of(chain.phases, chain.policy_hashes())),
        guards=tuple(guards),
        comparison=compare_chain(chain, {k: (networks[k], margin) for k, margin in on.items()}, settings.flights, flew),
    )
    return Guard(record, {chain.phases[k].name: networks[k] for k in on})


def _steered(entries: Entries) -> np.ndarray:
    """Return the success, bool [N], of the flights that did not end on entering, so that the guide could take over."""
    return entries.success[entries.steps > 0]


def _off(phase: str, success: np.ndarray) -> PhaseGuard:
    """Return the guard of a phase that has too few flights of a kind, given the success of those it steered, bool [N]."""
    lost = int((~success).sum())
    reason = (
        f"{lost:,} of {len(success):,} flights that could be taken over were lost, too few or too many to learn from"
    )
    return PhaseGuard(phase=phase, margin=None, reason=reason, stay=None, take=None, chosen_by=None)


def _chosen(
    explorer: Explorer,
    networks: dict[str, Weights],
    entries: Entries,
    scored: tuple[Scores | None, Scores | None],
    flew: Flew,
) -> PhaseGuard:
    """Return the guard of a phase; its margin is chosen on flights that were not used to fit its networks."""
    params = guarded_parameters(explorer.chain.actors[explorer.index]["actor"], networks)
    margin, counts = choose_margin(explorer, params, entries, flew)
    reason = "" if margin is not None else "no margin saved more flights than it spoiled with few false alarms"
    stay, take = scored
    return PhaseGuard(phase=explorer.phase.name, margin=margin, reason=reason, stay=stay, take=take, chosen_by=counts)


def _sampled(explorer: Explorer, entries: Entries, settings: GuardSettings, flew: Flew) -> Samples:
    """Return take-overs at steps that are drawn uniformly over flights; lost flights have several, with the weight of one."""
    rng = np.random.default_rng([explorer.chain.seed, explorer.index])
    flown = np.flatnonzero(entries.steps > 0)
    lost, landed = (flown[entries.success[flown] == end] for end in (False, True))
    some = rng.permutation(landed)[: settings.samples]
    chosen = np.concatenate([some, np.repeat(lost, settings.repeats)])
    weights = np.concatenate(
        [
            np.full(len(some), len(landed) / max(len(some), 1)),
            np.full(len(lost) * settings.repeats, 1 / settings.repeats),
        ]
    )
    at = (rng.uniform(size=len(chosen)) * entries.steps[chosen]).astype(np.int32)
    rows = rows_of(entries, chosen)
    found, success = explorer.explore(explorer.chain.actors[explorer.index], rows, at, flew)
    met = (found.flight.takeover >= 0) & np.isfinite(found.obs).all(axis=1)
    return Samples(*(leaf[met] for leaf in (rows.numbers, found.obs, rows.success, success, weights)))


def _fit_members(
    samples: Samples, rows: np.ndarray, success: np.ndarray, settings: GuardSettings, seed: int
) -> Weights:
    """Fit a network to some rows (bool [S]): stacked members, each fitted to different three quarters of the flights.

    Lost flights and others have equal weight in the fit; the calibration uses their true frequencies.
    """
    data = [leaf[rows] for leaf in (samples.obs, success, samples.weights, samples.flights)]
    members = [fit(*data[:3], settings, seed + member, data[3], even=True) for member in range(settings.members)]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *members)


def _networks(
    samples: Samples, settings: GuardSettings, seed: int
) -> tuple[dict[str, Weights], tuple[Scores | None, Scores | None]]:
    """Return the networks of a phase, and their scores on flights that did not fit them."""
    kept = samples.flights % _TEST == 0
    chance = samples.weights[kept] / samples.weights[kept].sum()
    drawn = np.random.default_rng(seed).choice(np.flatnonzero(kept), kept.sum(), p=chance)  # so that each counts once
    teach, test = (jax.tree.map(lambda leaf, rows=rows: leaf[rows], samples) for rows in (~kept, drawn))
    every = np.ones(len(teach.stay), bool)
    networks = {
        name: _fit_members(teach, rows, success, settings, seed)
        for name, rows, success in (
            ("stay", every, teach.stay),
            ("saves", ~teach.stay, teach.take),
            ("keeps", teach.stay, teach.take),
        )
    }
    stay, take = (np.asarray(one, np.float64) for one in foreseen(networks, jnp.asarray(test.obs)))
    return networks, (scores(stay, test.stay), scores(take, test.take))
