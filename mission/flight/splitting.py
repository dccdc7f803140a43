"""Multilevel splitting: an unbiased estimate of a rare loss, with the hand-overs as levels.

A batch of N lanes flies each phase. Between two phases, the lanes that are alive are resampled: where the feasibility
says that the rest is uncertain, a flight is copied; elsewhere it may end. The weight of every copy is that of the
flight divided by the expected number of its copies. So the expected weight of the lost lanes is the probability of a
loss for any feasibility; a good one makes the variance small (Glasserman et al. 1999, doi:10.1287/opre.47.4.585;
Villen-Altamirano
1991). Batches are independent, and every copy has its own random keys.
Shapes: N lanes of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from mission.errors import InputError
from mission.flight.batches import (
    BATCH,
    block_rows,
    first_rows,
    flight_keys,
    fly_batch,
    join,
    map_each,
    name_key,
    nominal_starts,
    to_host,
)
from mission.flight.causes import check_flight_causes
from mission.flight.chain import Chain
from mission.flight.entering import first_observations
from mission.flight.feasibility.network import Weights, likely
from mission.flight.feasibility.store import Feasibility
from mission.missionfile.statistics import Z95
from mission.strict import Fraction01, Natural, StrictModel

_RULE_OF_THREE = 3.0  # of flights without a loss: the upper bound of its probability at 95 % is 3 / N (Hanley 1983)
_FAR_POWER = 4.0  # of the largest deviation of a flight's observation, in standard deviations
_DEFENCE = 0.3  # share of the lanes that are drawn by weight alone, whatever the feasibility says


class SplitPhase(StrictModel):
    """One phase: the lanes flown in all batches, and the probability that a mission is lost in this phase, by cause."""

    name: str
    lanes: Natural
    lost: dict[str, float]


class Splitting(StrictModel):
    """The probability that a mission is lost, from `batches` independent batches of `lanes` lanes.

    `low` and `high` bound it at 95 %. `plain_flights` plain flights would give an interval of the same width, and
    `cost_flights` plain flights take the same number of vehicle steps, so `gain` is the ratio of the two.
    """

    mission: str
    seed: int
    batches: Natural
    lanes: Natural
    loss: Fraction01
    low: Fraction01
    high: Fraction01
    standard_error: float
    plain_flights: float | None
    cost_flights: float
    gain: float | None
    phases: tuple[SplitPhase, ...]


class Level(NamedTuple):
    """The lanes of one batch in one phase."""

    obs: np.ndarray  # float32 [N, O], what they first observed
    weights: np.ndarray  # [N]; over all lanes, and those that were lost before, 1 in the mean
    parents: np.ndarray  # int [N], the lane of the phase before that each continues
    success: np.ndarray  # bool [N]
    cause: np.ndarray  # int [N]
    steps: np.ndarray  # int [N]


class Samples(NamedTuple):
    """Flights from one phase to the end of the mission; the weights compensate the resampling after its entry."""

    obs: np.ndarray  # [S, O]
    success: np.ndarray  # bool [S]
    weights: np.ndarray  # [S]


def check_splitting(chain: Chain, feasibility: Feasibility | None, flights: int) -> Feasibility:
    """Return the feasibility that splitting needs.

    Raises:
      InputError: there is none, the chain has one phase, or too few flights were asked for.
    """
    if len(chain.phases) < 2:
        raise InputError("--splitting", expected="a mission of two or more phases", found="one", remedy="remove it")
    if flights < 2 * BATCH:
        raise InputError(
            "--flights",
            expected=f"at least {2 * BATCH:,} with --splitting: batches of {BATCH:,} lanes are compared with each other",
            found=f"{flights:,}",
            remedy=f"fly {2 * BATCH:,} or more",
        )
    if feasibility is None:
        raise InputError(
            "--splitting",
            expected="the feasibility of this mission, which says which flights to multiply",
            found="none stored",
            remedy=f"run {chain.mission.source.command('feasibility')} first, with the same pilots",
        )
    return feasibility


def split_flights(
    chain: Chain, feasibility: Feasibility, flights: int, progress: Callable[[int, int], None] | None = None
) -> Splitting:
    """Estimate the probability that a mission is lost from whole batches of 1,000 lanes, at most `flights` lanes in all."""
    fly, count, parts = fly_splitting(chain), flights // BATCH, []
    for number in range(count):
        parts.append(fly(feasibility.weights, number, False))
        if progress is not None:
            progress((number + 1) * BATCH, count * BATCH)
    return _summary(chain, parts)


def samples_of(levels: list[Level], index: int) -> Samples:
    """Return the samples of one batch for phase `index`: every ended lane, with its ancestor's observation there.

    Lanes whose observation is not finite are left out.
    """
    at = np.arange(len(levels[index].weights))  # the ancestor in phase `index` of each lane of the level
    obs, success, weights = [], [], []
    for k, level in enumerate(levels[index:], index):
        if k > index:
            at = at[level.parents]
        ended = ~level.success if k + 1 < len(levels) else np.ones(len(level.success), bool)
        obs.append(levels[index].obs[at[ended]])
        success.append(level.success[ended])
        weights.append(level.weights[ended] / levels[index].weights[at[ended]])
    return finite_samples(Samples(*(np.concatenate(parts) for parts in (obs, success, weights))))


def finite_samples(samples: Samples) -> Samples:
    """Return the samples whose observations are finite; a network cannot be fitted to the others."""
    rows = np.isfinite(samples.obs).all(axis=1)
    return Samples(*(part[rows] for part in samples))


def expected_copies(weights: np.ndarray, feasible: np.ndarray, far: np.ndarray | None = None) -> np.ndarray:
    """Return the expected number of copies [N] of flights with these weights, in a batch of lanes.

    Most copies are in proportion to the weight times the standard deviation of the outcome, which minimises the
    variance (Neyman 1934). The rest is in proportion to the weight alone, so that a wrong feasibility cannot make the
    variance arbitrarily large. `far` [N] is how unusual each flight is; with it, half of the first part goes to the
    unusual flights.
    """
    parts = [(1.0 - _DEFENCE, weights * np.sqrt(np.clip(feasible * (1.0 - feasible), 1e-12, None)))]
    if far is not None:
        parts = [(0.5 * share, one) for share, one in (*parts, (1.0 - _DEFENCE, weights * far**_FAR_POWER))]
    return BATCH * sum(share * one / max(one.sum(), 1e-300) for share, one in (*parts, (_DEFENCE, weights)))


def draw_copies(expected: np.ndarray, lanes: int, rng: np.random.Generator) -> np.ndarray:
    """Return `lanes` indices in which index i occurs expected[i] times on average, by systematic resampling."""
    points = (np.arange(lanes) + rng.uniform()) / lanes
    edges = np.cumsum(expected) / expected.sum()
    return np.minimum(np.searchsorted(edges, points), len(expected) - 1)


def fly_splitting(chain: Chain) -> Callable[[Sequence[Weights], int, bool], list[Level]]:
    """Return the function that flies a batch: the weights of the feasibility networks by phase, the number of the batch, and
    whether to multiply unusual flights, too, in search of what is lost seldom.
    """
    observe = [first_observations(phase) for phase in chain.phases]

    def first(index: int, handoff: Any, keys: Any) -> np.ndarray:
        blocks = [block_rows(tree) for tree in (to_host(handoff), keys)]
        return first_rows(join(map_each(observe[index], *blocks, devices=chain.devices)), BATCH)

    def fly(networks: Sequence[Weights], number: int, search: bool) -> list[Level]:
        key = jax.random.fold_in(name_key(jax.random.key(chain.seed), "splitting of"), number)
        rng, every = np.random.default_rng([chain.seed, number]), np.ones(BATCH, bool)
        levels: list[Level] = []
        weights, parents, handoff = np.ones(BATCH), np.arange(BATCH), None
        for k, phase in enumerate(chain.phases):
            keys = flight_keys(name_key(key, phase.name), np.arange(BATCH))
            handoff = nominal_starts(phase, keys) if k == 0 else handoff
            flown = fly_batch(chain.flights[k], chain.actors[k], handoff, keys, every)
            check_flight_causes(phase, flown.cause, every)
            obs = first(k, handoff, keys)
            levels.append(Level(obs, weights, parents, flown.success, flown.cause, flown.steps))
            alive = np.flatnonzero(flown.success)
            if k + 1 == len(chain.phases) or not alive.size:
                break
            foreseen = flight_keys(name_key(key, f"{phase.name} left"), np.arange(BATCH))
            network, seen = networks[k + 1], first(k + 1, flown.handoff, foreseen)[alive]
            # any value keeps the estimate unbiased, but NaN would reach every weight
            seen = np.where(np.isfinite(seen), seen, network["mean"])
            far = np.abs((seen - network["mean"]) / network["std"]).max(axis=1) if search else None
            expected = expected_copies(weights[alive], likely(network, seen), far)
            drawn = draw_copies(expected, BATCH, rng)
            parents = alive[drawn]
            weights = weights[parents] / expected[drawn]
            handoff = jax.tree.map(lambda leaf, rows=parents: leaf[rows], flown.handoff)
        return levels

    return fly


def _lost_by_root(levels: list[Level]) -> np.ndarray:
    """Return the lost weight [N] of the descendants of each first lane."""
    roots, lost = np.arange(BATCH), np.zeros(BATCH)
    for k, level in enumerate(levels):
        roots = roots[level.parents] if k else roots
        np.add.at(lost, roots[~level.success], level.weights[~level.success])
    return lost


def _lost_by_cause(level: Level, causes: int) -> np.ndarray:
    """Return the share of all flights that one phase loses, by cause [causes]."""
    lost = ~level.success
    return np.bincount(level.cause[lost], level.weights[lost], minlength=causes) / BATCH


def _summary(chain: Chain, parts: list[list[Level]]) -> Splitting:
    # copies of one root are not independent, so roots are counted; drawing them together only narrows the interval
    by_root = np.concatenate([_lost_by_root(levels) for levels in parts])
    loss, error = float(by_root.mean()), float(by_root.std(ddof=1) / np.sqrt(len(by_root)))
    spread = np.exp(Z95 * error / loss) if loss > 0.0 else 1.0
    plain = loss * (1.0 - loss) / error**2 if error > 0.0 else None
    every = [level for levels in parts for level in levels]
    plain_steps = sum(float(level.steps @ level.weights) for level in every) / len(by_root)
    cost = sum(int(level.steps.sum()) for level in every) / plain_steps
    phases = []
    for k, phase in enumerate(chain.phases):
        here = [levels[k] for levels in parts if k < len(levels)]
        lost = sum((_lost_by_cause(level, len(phase.causes)) for level in here), np.zeros(len(phase.causes))) / len(
            parts
        )
        named = {cause: float(lost[at]) for at, cause in enumerate(phase.causes) if at > 0}
        phases.append(SplitPhase(name=phase.name, lanes=BATCH * len(here), lost=named))
    return Splitting(
        mission=chain.mission.name,
        seed=chain.seed,
        batches=len(parts),
        lanes=BATCH,
        loss=min(loss, 1.0),
        low=float(min(loss / spread, 1.0)),
        high=float(min(loss * spread, 1.0)) if loss > 0.0 else min(_RULE_OF_THREE / len(by_root), 1.0),
        standard_error=error,
        plain_flights=plain,
        cost_flights=cost,
        gain=None if plain is None else plain / cost,
        phases=tuple(phases),
    )
