"""The landing phase: its guide lands, and no way of not landing out-scores a landing."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mission_rocket.phases import landing_burn
from mission_rocket.phases.landing_burn import LANDED, Params

FLIGHTS = 96
GUIDE, DIVE, HOVER, DRIFT = range(4)


class Result(NamedTuple):
    success: np.ndarray
    cause: np.ndarray
    total: np.ndarray
    sides: dict[str, np.ndarray]


@cache
def _program():
    """(pilot, keys [N]) -> how each flight ended; one compiled program for all pilots."""
    params = Params(residual=0.0)
    env, reward = landing_burn.environment(params), landing_burn.reward(params)

    def act(pilot, state):
        told = env.guide(state)
        dive = told.at[1].set(1.0)  # never lights
        hover = told.at[0].set(-1.0).at[1].set(-1.0)  # lights at once, least throttle
        drift = told.at[2:6].add(0.6)  # leans to one side all the way
        return jnp.clip(jnp.stack([told, dive, hover, drift])[pilot], -1.0, 1.0)

    def fly(pilot, key):
        begin = env.enter(jax.random.fold_in(key, 0), env.start(key))

        def step(carry, number):
            state, ended, total = carry
            action = act(pilot, state)
            after = env.step(jax.random.fold_in(key, number), state, action)
            outcome = env.outcome(after)
            gained = sum(reward(state, action, after, outcome).values())
            keep = jax.tree.map(lambda old, new: jnp.where(ended, old, new), state, after)
            return (keep, ended | outcome.terminated, total + jnp.where(ended, 0.0, gained)), None

        start = (begin, jnp.bool_(False), jnp.zeros(()))
        (state, _, total), _ = jax.lax.scan(step, start, jnp.arange(1, 251))
        outcome = env.outcome(state)
        return outcome.success, outcome.cause, total, env.touchdown(state)

    return jax.jit(jax.vmap(fly, (None, 0)))


@cache
def flown(pilot: int) -> Result:
    result = _program()(pilot, jax.random.split(jax.random.key(17), FLIGHTS))
    return Result(*jax.tree.map(np.asarray, result))


def test_the_guide_lands_dispersed_flights() -> None:
    assert flown(GUIDE).success.mean() >= 0.60


def test_a_landing_is_inside_every_side_of_the_box() -> None:
    result = flown(GUIDE)
    inside = np.stack(list(result.sides.values())).max(axis=0) <= 1.0
    assert (result.cause[result.success] == LANDED).all()
    assert inside[result.success].all()


@pytest.mark.parametrize("pilot", [DIVE, HOVER, DRIFT], ids=["diver", "hoverer", "drifter"])
def test_not_landing_never_out_scores_landing(pilot: int) -> None:
    other, guide = flown(pilot), flown(GUIDE)
    assert other.success.mean() < 0.05
    assert other.total[~other.success].max() < guide.total[guide.success].min() - 10.0
