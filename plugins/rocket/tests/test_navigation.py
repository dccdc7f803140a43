"""Errors of navigation: guides and agents see them, what happens to the vehicle does not."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mission_rocket.dispersions import Dispersions
from mission_rocket.measurement import exact
from mission_rocket.phases.landing_burn import LandingBurn, Params
from mission_rocket.physics.constants import DEGREE
from mission_rocket.physics.vector import Quaternion, Vector, multiply

BIASED = Dispersions(position_bias_m=5.0, velocity_bias_m_s=0.5, attitude_bias_deg=0.5, rate_bias_deg_s=0.1)
NOISY = Dispersions(position_noise_m=2.0, velocity_noise_m_s=0.2, attitude_noise_deg=0.2, rate_noise_deg_s=0.05)
FLIGHTS = 2000


def states(dispersions: Dispersions, steps: int = 1) -> Any:
    """Return the landing after some steps with the engines off and everything centred, [FLIGHTS]."""
    env = LandingBurn.build(Params(dispersions=dispersions))
    idle = jnp.zeros(len(env.action_names)).at[env.action_names.index("time_to_ignition")].set(1.0)

    def fly(key: Any) -> Any:
        state = env.enter(key, env.start(key))
        for step in range(steps):
            state = env.step(jax.random.fold_in(key, step), state, idle)
        return state

    return env, jax.jit(jax.vmap(fly))(jax.random.split(jax.random.key(1), FLIGHTS))


def errors(state: Any) -> dict[str, np.ndarray]:
    """Return what navigation reports less what is true, [FLIGHTS, 3] by quantity; the attitude as a rotation vector."""
    seen, true = state.measured.motion, state.flight.state.motion
    q = true.attitude
    turn = multiply(Quaternion(q.w, -q.x, -q.y, -q.z), seen.attitude)
    return {
        "position": np.stack(seen.position - true.position, axis=1),
        "velocity": np.stack(seen.velocity - true.velocity, axis=1),
        "attitude": 2.0 * np.stack([turn.x, turn.y, turn.z], axis=1),
        "rates": np.stack(seen.rates - true.rates, axis=1),
    }


def test_without_errors_navigation_reports_the_truth() -> None:
    _, state = states(Dispersions())
    for a, b in zip(jax.tree.leaves(state.measured.motion), jax.tree.leaves(state.flight.state.motion), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("dispersions", "factor"), [(BIASED, 1.0), (NOISY, 0.4)], ids=["constant", "noise"])
def test_errors_have_the_spread_that_was_asked_for(dispersions: Dispersions, factor: float) -> None:
    _, state = states(dispersions)
    spreads = {"position": 5.0, "velocity": 0.5, "attitude": 0.5 * DEGREE, "rates": 0.1 * DEGREE}
    spreads["rates"] *= 1.25 if dispersions is NOISY else 1.0  # 0.05 deg/s is half of it, not 0.4
    for name, error in errors(state).items():
        np.testing.assert_allclose(error.std(axis=0), factor * spreads[name], rtol=0.08)
        assert np.abs(error.mean(axis=0)).max() < 0.1 * spreads[name]


def test_a_constant_error_stays_and_noise_changes() -> None:
    for dispersions, same in ((BIASED, True), (NOISY, False)):
        first, later = (errors(states(dispersions, steps)[1])["rates"] for steps in (1, 3))
        assert np.allclose(first, later, atol=1e-6) == same


def test_the_vehicle_flies_the_same_and_the_observation_differs() -> None:
    (env, plain), (_, biased) = states(Dispersions()), states(BIASED)
    for a, b in zip(jax.tree.leaves(plain.flight.state), jax.tree.leaves(biased.flight.state), strict=True):
        np.testing.assert_array_equal(a, b)
    for judge in (env.outcome, env.telemetry):
        for a, b in zip(*(jax.tree.leaves(jax.vmap(judge)(one)) for one in (plain, biased)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    seen = np.abs(np.asarray(jax.vmap(env.observe)(plain) - jax.vmap(env.observe)(biased))).max(axis=0)
    unchanged = {name for name, change in zip(env.observation_names, seen, strict=True) if change == 0.0}
    assert {"mass", "pressure", "level", "lit"} <= unchanged
    assert not unchanged & {"position_x", "velocity_y", "height", "climb", "tilt_x", "rate_z", "force_x"}
    assert np.abs(np.asarray(jax.vmap(env.guide)(plain) - jax.vmap(env.guide)(biased))).max() > 0.01


def test_the_truth_is_recovered_from_a_measurement() -> None:
    env, state = states(BIASED)
    true = jax.vmap(lambda one: exact(env.site, one.measured, one.flight.state.motion))(state)
    for name in ("position", "velocity"):
        for a, b in zip(getattr(true.motion, name), getattr(state.flight.state.motion, name), strict=True):
            np.testing.assert_array_equal(a, b)
    assert isinstance(true.axis, Vector)
    np.testing.assert_allclose(np.asarray(true.altitude), np.asarray(state.flight.state.motion.position.z), rtol=1e-3)
