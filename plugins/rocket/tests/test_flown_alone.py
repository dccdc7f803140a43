"""Phases that a network flies alone: what it sees, and that no plan of the guidance law decides its flight."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mission_rocket.dispersions import Dispersions
from mission_rocket.phases import ascent, ballistic_arc, entry_burn, flip_boostback, landing_burn
from mission_rocket.physics.vector import Quaternion, Vector, multiply

STEPS = 60
PHASES = {
    ascent.Ascent: ascent.Params,
    flip_boostback.FlipBoostback: flip_boostback.Params,
    ballistic_arc.BallisticArc: ballistic_arc.Params,
    entry_burn.EntryBurn: entry_burn.Params,
    landing_burn.LandingBurn: landing_burn.Params,
}


class _NoLaw:
    """A guidance law whose plans are not numbers; its estimates of what sensors tell are those of the real one."""

    def __init__(self, law: Any) -> None:
        for name in ("nominal", "estimate", "rest"):
            if hasattr(law, name):
                setattr(self, name, getattr(law, name))

    def plan(self, *_: Any) -> Any:
        return type("Plan", (), {"action": jnp.full(11, jnp.nan)})()

    first_plan = plan


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


@pytest.mark.parametrize("phase", PHASES)
def test_a_flight_is_the_same_to_the_last_bit_without_the_plans_of_the_guide(phase: Any) -> None:
    env = built(phase)
    assert env.params.residual == 0.0
    whole, alone = _fly(env.unguided(), False), _fly(dataclasses.replace(env.unguided()), True)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(alone), strict=True):
        assert np.array_equal(np.asarray(a), np.asarray(b), equal_nan=True)


@pytest.mark.parametrize("phase", PHASES)
def test_no_entry_of_the_observation_comes_from_a_plan(phase: Any) -> None:
    """Without plans in the state, whatever reads one fails."""
    env = built(phase).unguided()
    state = env.enter(jax.random.key(0), env.start(jax.random.key(1)))
    assert state.plan == ()
    assert np.isfinite(np.asarray(env.observe(state))).all()


@pytest.mark.parametrize("phase", PHASES)
def test_a_vehicle_that_is_turned_about_its_axis_sees_the_world_turned(phase: Any) -> None:
    """By half a turn: the components across the axis change their sign, and so do the commands of the guide.

    With observations in local axes both states looked alike, although they need opposite commands.
    """
    env = built(phase)
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
        np.testing.assert_allclose(after, np.where(across, -1.0, 1.0) * before, atol=5e-4)
        assert np.abs(np.asarray(before)[across]).max() > 0.01


def built(phase: Any) -> Any:
    """Return a phase whose vehicle is symmetric."""
    return phase.build(PHASES[phase](dispersions=Dispersions(centre_of_mass_m=0.0)))
