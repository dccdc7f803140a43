"""Phases that a network flies alone: what it sees, and that no plan of the guidance law decides its flight."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mission_rocket.dispersions import Dispersions
from mission_rocket.phases.landing_burn import LandingBurn, Params
from mission_rocket.physics.vector import Quaternion, Vector, multiply

STEPS = 60


class _NoLaw:
    """A guidance law whose plans are not numbers; its estimates of lag, drag and thrust are those of the real one."""

    def __init__(self, law: Any) -> None:
        self.nominal, self.estimate = law.nominal, law.estimate

    def plan(self, *_: Any) -> Any:
        return type("Plan", (), {"action": jnp.full(7, jnp.nan)})()


def _fly(env: Any, without_law: bool) -> Any:
    """Return the vehicles after some steps under a fixed network, and what it saw."""
    if without_law:
        env.__dict__["law"] = _NoLaw(env.law)
    weights = 0.3 * jax.random.normal(jax.random.key(3), (len(env.observation_names), len(env.action_names)))

    def fly(key: Any) -> Any:
        def step(state: Any, number: Any) -> Any:
            obs = env.observe(state)
            return env.step(jax.random.fold_in(key, number), state, jnp.tanh(obs @ weights)), obs

        state, seen = jax.lax.scan(step, env.enter(key, env.start(key)), jnp.arange(STEPS))
        return env.leave(state), env.outcome(state), env.telemetry(state), seen

    return jax.jit(jax.vmap(fly))(jax.random.split(jax.random.key(5), 16))


@pytest.mark.parametrize("phase", [LandingBurn])
def test_a_flight_is_the_same_to_the_last_bit_without_the_plans_of_the_guide(phase: Any) -> None:
    env = phase.build(Params())
    assert env.params.residual == 0.0
    whole, alone = _fly(env.unguided(), False), _fly(dataclasses.replace(env.unguided()), True)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(alone), strict=True):
        assert np.array_equal(np.asarray(a), np.asarray(b), equal_nan=True)


def test_a_vehicle_that_is_turned_about_its_axis_sees_the_world_turned() -> None:
    """By half a turn: the components across the axis change their sign, and so do the commands of the guide.

    With observations in local axes both states looked alike, although they need opposite commands.
    """
    env = LandingBurn.build(Params(dispersions=Dispersions(centre_of_mass_m=0.0)))
    flight = env.start(jax.random.key(4))
    motion = flight.state.motion._replace(rates=Vector(*(jnp.float32(rate) for rate in (0.02, -0.03, 0.0))))
    half = Quaternion(*(jnp.float32(part) for part in (0.0, 0.0, 0.0, 1.0)))
    other = motion._replace(
        attitude=multiply(motion.attitude, half), rates=Vector(-motion.rates.x, -motion.rates.y, motion.rates.z)
    )
    first, second = (
        env.enter(jax.random.key(0), flight._replace(state=flight.state._replace(motion=m))) for m in (motion, other)
    )
    for before, after, names in (
        (env.observe(first), env.observe(second), env.observation_names),
        (env.guide(first), env.guide(second), env.action_names),
    ):
        across = np.array(
            [name.removesuffix("_fine")[-2:] in ("_x", "_y") or name.endswith(("yaw", "pitch")) for name in names]
        )
        np.testing.assert_allclose(after, np.where(across, -1.0, 1.0) * before, atol=2e-4)
        assert np.abs(np.asarray(before)[across]).max() > 0.01
