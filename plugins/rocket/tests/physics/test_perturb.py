"""Noisy restarts of the booster: every row stays a vehicle, and small noise is unbiased."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mission_rocket.booster import FlightParams
from mission_rocket.dispersions import Dispersions
from mission_rocket.phases.landing_burn import LandingBurn, Params
from mission_rocket.physics.perturb import turned
from mission_rocket.physics.state import Handover
from mission_rocket.physics.vector import Quaternion, Vector, multiply, norm, quaternion_of_axis

ROWS, NOISY = 1000, 10_000


@pytest.fixture(scope="module")
def phase() -> LandingBurn:
    return LandingBurn.build(Params())


@pytest.fixture(scope="module")
def rows(phase: LandingBurn) -> Handover:
    """Return vehicles with any roll, some of them with their engines on, some with almost empty tanks."""
    rng = np.random.default_rng(0)
    flight = jax.jit(jax.vmap(phase.start))(jax.random.split(jax.random.key(0), ROWS))
    motion = flight.state.motion

    def column(low: float, high: float) -> Any:
        return jnp.asarray(rng.uniform(low, high, ROWS), jnp.float32)

    roll = column(-2.7, 1.7)
    zero = jnp.zeros(ROWS)
    burning = jnp.asarray(rng.random(ROWS) < 0.3)
    motion = motion._replace(
        attitude=multiply(motion.attitude, Quaternion(jnp.cos(roll / 2), zero, zero, jnp.sin(roll / 2))),
        rates=Vector(column(-0.1, 0.1), column(-0.1, 0.1), column(-0.1, 0.1)),
        propellant=column(0.0, 3000.0),
        rcs_propellant=column(0.0, 50.0),
        levels=tuple(jnp.where(burning, column(0.4, 1.0), 0.0) for _ in motion.levels),
        gimbal=Vector(*(column(-1.0, 1.0) * phase.body.gimbal.limit for _ in "xyz")),
        fins=Vector(*(column(-0.3, 0.3) for _ in "xyz")),
    )
    lit = tuple(jnp.where(burning, column(0.0, 9.0), 0.0) for _ in motion.levels)
    left = tuple(jnp.asarray(rng.integers(0, 3, ROWS), jnp.float32) for _ in motion.levels)
    return flight._replace(state=flight.state._replace(motion=motion, lit_for=lit, ignitions_left=left))


def noise_of(rows: Handover, chosen: Handover, scale: float) -> Handover:
    """Return noise with the covariance of the rows, by the definition of the restart mixture."""
    table = np.stack([np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(rows)], axis=1)
    deviations = table - table.mean(axis=0)
    weights = np.random.default_rng(1).standard_normal((NOISY, ROWS)) / np.sqrt(ROWS)
    drawn = scale * weights @ deviations
    tree = jax.tree.structure(chosen)
    return jax.tree.unflatten(tree, [jnp.asarray(drawn[:, k], jnp.float32) for k in range(drawn.shape[1])])


@pytest.fixture(scope="module")
def noisy(phase: LandingBurn, rows: Handover) -> tuple[Handover, Handover]:
    chosen = jax.tree.map(lambda leaf: leaf[np.arange(NOISY) % ROWS], rows)
    return chosen, jax.jit(jax.vmap(phase.perturb))(chosen, noise_of(rows, chosen, 0.3))


def test_every_noisy_row_is_a_vehicle(phase: LandingBurn, noisy: tuple[Handover, Handover]) -> None:
    motion = noisy[1].state.motion
    length = np.sqrt(sum(np.asarray(part, np.float64) ** 2 for part in motion.attitude))
    np.testing.assert_allclose(length, 1.0, atol=1e-6)
    for level in motion.levels:
        assert (np.asarray(level).min(), np.asarray(level).max()) == (0.0, 1.0)
    assert np.asarray(motion.propellant).min() == 0.0
    assert np.asarray(motion.rcs_propellant).min() == 0.0
    fins = phase.body.fins
    assert fins is not None
    for angles, limit in ((motion.gimbal, phase.body.gimbal.limit), (motion.fins, fins.limit)):
        assert np.abs(np.stack(angles)).max() <= np.float32(limit)
    assert np.asarray(noisy[1].state.time).min() >= 0.0


def test_counters_and_the_dispersions_of_the_flight_stay(noisy: tuple[Handover, Handover]) -> None:
    before, after = noisy
    for kept in ("lit_for", "ignitions_left", "rounding"):
        for a, b in zip(*(jax.tree.leaves(getattr(one.state, kept)) for one in noisy), strict=True):
            np.testing.assert_array_equal(a, b)
    for a, b in zip(jax.tree.leaves(before.dispersion), jax.tree.leaves(after.dispersion), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_noise_moves_the_vehicle(rows: Handover, noisy: tuple[Handover, Handover]) -> None:
    before, after = (one.state.motion for one in noisy)
    for name in ("position", "velocity", "rates"):
        for part in "xyz":
            moved = np.asarray(getattr(getattr(after, name), part)) - np.asarray(getattr(getattr(before, name), part))
            spread = np.asarray(getattr(getattr(rows.state.motion, name), part), np.float64).std()
            assert moved.std() == pytest.approx(0.3 * spread, rel=0.1, abs=2e-3)
    q, r = before.attitude, after.attitude
    turn = multiply(Quaternion(q.w, -q.x, -q.y, -q.z), r)
    assert np.abs(np.asarray(turn.z)).mean() > 0.03  # the roll spreads
    assert np.abs(np.asarray(turn.x)).mean() < np.abs(np.asarray(turn.z)).mean()


@pytest.mark.parametrize("axis", [(0.0, 0.0, 1.0), (0.6, -0.3, 0.74), (-0.2, 0.9, -0.39)])
def test_small_noise_of_an_attitude_is_unbiased_and_first_order_exact(axis: tuple[float, float, float]) -> None:
    length = float(norm(Vector(*axis)))
    q = quaternion_of_axis(Vector(*(jnp.asarray(part / length) for part in axis)))
    draws = 0.01 * np.random.default_rng(2).standard_normal((20_000, 4))
    draws = np.concatenate([draws, -draws])  # so that what is left of the mean is the bias
    result = jax.jit(jax.vmap(lambda n: jnp.stack(turned(q, Quaternion(*n)))))(jnp.asarray(draws, jnp.float32))
    at = np.stack([np.asarray(part, np.float64) for part in q])
    moved = np.asarray(result, np.float64) - at
    tangent = draws - np.outer(draws @ at, at)
    np.testing.assert_allclose(moved, tangent, atol=2e-3)  # second order: 0.04^2
    bias = moved.mean(axis=0)
    np.testing.assert_allclose(bias - (bias @ at) * at, 0.0, atol=2e-6)  # along the sphere
    assert abs(bias @ at + 1.5e-4) < 2e-5  # a sphere curves: half of three variances


def test_no_noise_changes_nothing(phase: LandingBurn, rows: Handover) -> None:
    still = jax.jit(jax.vmap(phase.perturb))(rows, jax.tree.map(jnp.zeros_like, rows))
    for a, b in zip(jax.tree.leaves(rows), jax.tree.leaves(still), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


def test_new_dispersions_leave_the_vehicle_as_it_is(rows: Handover) -> None:
    wide = Dispersions(thrust_percent=5.0, ignition_delay_s=(0.6, 0.6))
    phase = LandingBurn.build(Params(**{"dispersions": wide}))
    drawn = jax.jit(jax.vmap(phase.redraw))(jax.random.split(jax.random.key(3), ROWS), rows)
    for a, b in zip(jax.tree.leaves(rows.state), jax.tree.leaves(drawn.state), strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.asarray(drawn.dispersion.thrust).std() == pytest.approx(0.05, rel=0.1)
    np.testing.assert_allclose(drawn.dispersion.ignition_delay, 0.6, rtol=1e-6)
    assert FlightParams().dispersions.thrust_percent == 1.0
