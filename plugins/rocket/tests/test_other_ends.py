"""In every phase of the booster, no way of failing out-scores success; the landing has tests of its own."""

from __future__ import annotations

import importlib
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

FLIGHTS = 16
PHASES = ("ascent", "flip_boostback", "ballistic_arc", "entry_burn")
PILOTS = ("guide", "low", "middle", "high", "drift")


@cache
def flown(phase: str) -> tuple[np.ndarray, np.ndarray]:
    """(success, return), each [pilot, flight]; one compiled program for all pilots."""
    module = importlib.import_module(f"mission_rocket.phases.{phase}")
    spec, params = module.mission_phase(), module.Params(residual=0.0)
    env, reward = spec.environment(params), spec.reward(params)

    def fly(pilot, key):
        begin = env.enter(jax.random.fold_in(key, 0), env.start(key))

        def step(carry, number):
            state, ended, total = carry
            guided = env.guide(state)
            constant = jnp.ones_like(guided)
            wrong = jnp.stack([guided, -constant, 0.0 * constant, constant, jnp.clip(guided + 0.7, -1.0, 1.0)])
            action = wrong[pilot]
            after = env.step(jax.random.fold_in(key, number), state, action)
            outcome = env.outcome(after)
            gained = sum(reward(state, action, after, outcome).values())
            kept = jax.tree.map(lambda old, new: jnp.where(ended, old, new), state, after)
            return (kept, ended | outcome.terminated, total + jnp.where(ended, 0.0, gained)), None

        (state, _, total), _ = jax.lax.scan(
            step, (begin, jnp.bool_(False), jnp.zeros(())), jnp.arange(1, env.max_steps + 1)
        )
        return env.outcome(state).success, total

    keys = jax.random.split(jax.random.key(5), FLIGHTS)
    program = jax.jit(jax.vmap(jax.vmap(fly, (None, 0)), (0, None)))
    success, total = program(jnp.arange(len(PILOTS)), keys)
    return np.asarray(success), np.asarray(total)


@pytest.mark.parametrize("phase", PHASES)
def test_failing_never_out_scores_success(phase: str) -> None:
    success, total = flown(phase)
    assert success[0].mean() >= 0.7
    assert success[1:].mean() < 0.3
    assert total[~success].max() < total[0][success[0]].min()
