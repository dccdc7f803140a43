"""The vertical mission's physics against float64 numpy, its contract, its guides, and that it is not trivial."""

from __future__ import annotations

import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mission_rocket import vertical
from mission_rocket.phases import vertical_burn, vertical_coast

from mission import fly_mission, load_mission, resolve_mission
from mission.flight.batches import compile_flight, flight_keys, fly_batch, name_key, nominal_starts
from mission.testing import check_phase

MISSION = Path(__file__).parents[2] / "missions" / "vertical.yaml"
G, C, FLOW = 9.80665, 282.0 * 9.80665, 845_000.0 / (282.0 * 9.80665)
optimum = jax.jit(vertical.fuel_optimum)
burn = jax.jit(vertical.burn)


def test_nominal_optimum() -> None:
    best = optimum(jnp.float32(10_000.0), jnp.float32(-300.0), jnp.float32(33_000.0))
    np.testing.assert_allclose(best.coast_s, 13.2395, atol=1e-3)
    np.testing.assert_allclose(best.ignition_height_m, 5168.687, atol=0.3)
    np.testing.assert_allclose(best.propellant_kg, 6934.960, atol=0.1)
    np.testing.assert_allclose(best.burn_s, 6934.960 / FLOW, atol=1e-3)


def full_burn(height: np.ndarray, velocity: np.ndarray, mass: float) -> tuple[np.ndarray, np.ndarray]:
    """Height at rest and burn time of full thrust from each (height, velocity), float64."""
    low, high = np.zeros_like(velocity), np.full_like(velocity, 0.9 * mass / FLOW)
    for _ in range(60):
        middle = 0.5 * (low + high)
        falling = velocity - G * middle + C * np.log(mass / (mass - FLOW * middle)) < 0.0
        low, high = np.where(falling, middle, low), np.where(falling, high, middle)
    left = mass - FLOW * low
    return height + velocity * low - 0.5 * G * low**2 + C * (low - left / FLOW * np.log(mass / left)), low


@pytest.mark.parametrize(
    ("height", "velocity", "mass"),
    [
        (10_000.0, -300.0, 33_000.0),
        (9500.0, -315.0, 34_650.0),
        (10_500.0, -285.0, 31_350.0),
        (6000.0, -150.0, 28_000.0),
    ],
)
def test_optimum_by_brute_force(height: float, velocity: float, mass: float) -> None:
    """Every ignition time on a fine grid; the latest that stops above the ground burns the least."""
    ignition = np.arange(0.0, 40.0, 1e-3)
    at, speed = height + velocity * ignition - 0.5 * G * ignition**2, velocity - G * ignition
    rest, seconds = full_burn(at, speed, mass)
    assert np.argmin(rest >= 0.0) > 0
    latest = np.flatnonzero(rest >= 0.0)[-1]
    best = optimum(jnp.float32(height), jnp.float32(velocity), jnp.float32(mass))
    np.testing.assert_allclose(best.coast_s, ignition[latest], atol=2.5e-3)
    np.testing.assert_allclose(best.ignition_height_m, at[latest], atol=1.2)
    np.testing.assert_allclose(best.propellant_kg, FLOW * seconds[latest], rtol=1e-4)


def test_optimum_of_a_fall_that_is_too_late() -> None:
    best = optimum(jnp.float32(2000.0), jnp.float32(-300.0), jnp.float32(33_000.0))
    assert float(best.coast_s) == 0.0
    assert float(best.ignition_height_m) == 2000.0
    assert np.isfinite(best.propellant_kg)


def test_burn_is_tsiolkovsky() -> None:
    """282 s, 30 t to 25.6 t: 438.618 m/s, less what gravity takes."""
    seconds = 4400.0 / FLOW
    height, velocity, mass = burn(
        jnp.float32(5000.0), jnp.float32(-400.0), jnp.float32(30_000.0), jnp.float32(1.0), jnp.float32(seconds)
    )
    np.testing.assert_allclose(mass, 25_600.0, rtol=1e-6)
    assert C * math.log(30_000.0 / 25_600.0) == pytest.approx(438.618, abs=5e-4)
    np.testing.assert_allclose(velocity + 400.0 + G * seconds, 438.618, atol=2e-3)
    assert float(height) < 5000.0


@pytest.mark.parametrize("throttle", [0.4, 0.73, 1.0])
def test_burn_against_integration(throttle: float) -> None:
    """Runge-Kutta of fourth order at a millisecond, float64."""
    start = np.array([4000.0, -250.0, 30_000.0])

    def rate(state: np.ndarray) -> np.ndarray:
        return np.array([state[1], throttle * 845_000.0 / state[2] - G, -throttle * FLOW])

    state, step = start, 1e-3
    for _ in range(8000):
        k1 = rate(state)
        k2 = rate(state + 0.5 * step * k1)
        k3 = rate(state + 0.5 * step * k2)
        k4 = rate(state + step * k3)
        state = state + step / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4)
    found = burn(*(jnp.float32(value) for value in (*start, throttle, 8.0)))
    np.testing.assert_allclose(found, state, rtol=1e-5, atol=5e-3)


def test_short_burns_keep_their_digits() -> None:
    """A control period of 0.1 s: float32 against float64."""
    found = burn(jnp.float32(100.0), jnp.float32(-40.0), jnp.float32(26_000.0), jnp.float32(0.9), jnp.float32(0.1))
    left = 26_000.0 - 0.9 * FLOW * 0.1
    log_ratio = math.log(26_000.0 / left)
    height = 100.0 - 4.0 - 0.005 * G + C * (0.1 - left / (0.9 * FLOW) * log_ratio)
    np.testing.assert_allclose(found, [height, -40.0 - 0.1 * G + C * log_ratio, left], rtol=1e-5)


def test_dispersed_starts() -> None:
    starts = jax.jit(jax.vmap(vertical.dispersed_start))(jax.random.split(jax.random.key(0), 2000))
    for values, nominal in ((starts.height_m, 10_000.0), (starts.velocity_m_s, -300.0), (starts.mass_kg, 33_000.0)):
        share = np.asarray(values, np.float64) / nominal - 1.0
        assert np.abs(share).max() <= 0.05 + 1e-6
        np.testing.assert_allclose(share.std(), 0.05 / math.sqrt(3.0), rtol=0.05)
    assert np.abs(np.corrcoef(starts.height_m, starts.mass_kg)[0, 1]) < 0.1


@pytest.mark.parametrize("module", [vertical_coast, vertical_burn], ids=["coast", "burn"])
def test_contract(module) -> None:
    check_phase(module.mission_phase())


def test_guides_fly_the_mission() -> None:
    report = fly_mission(load_mission(MISSION), flights=200, policy="guide")
    assert report.success.rate > 0.99
    over = report.phases[-1].end["propellant_over_optimum_percent"]
    assert over.min > -0.1  # nobody beats the optimum
    assert over.mean < 4.5
    for phase in report.phases:
        assert all(limit.violated == 0 for limit in phase.limits.values())


def test_untrained_policies_do_not_land() -> None:
    """Fresh networks, through the chain."""
    phases = resolve_mission(load_mission(MISSION))
    flights = [compile_flight(phase) for phase in phases]
    keys = flight_keys(jax.random.key(1), np.arange(500))
    for seed in range(3):
        handoff, alive = nominal_starts(phases[0], keys), np.ones(500, bool)
        for phase, flight in zip(phases, flights, strict=True):
            learner = phase.build_learner()
            key = jax.random.fold_in(name_key(jax.random.key(2), phase.name), seed)
            actor = learner.policy(learner.init(key))
            result = fly_batch(flight, actor, handoff, jax.vmap(name_key, (0, None))(keys, phase.name), alive)
            handoff, alive = result.handoff, alive & result.success
        assert alive.mean() < 0.05


@pytest.mark.parametrize("index", [0, 1])
def test_no_observation_knows_the_optimum(index: int) -> None:
    env = resolve_mission(load_mission(MISSION))[index].environment
    handoff = env.start(jax.random.key(0))
    seen = [
        env.observe(env.enter(jax.random.key(1), handoff._replace(optimal_propellant_kg=jnp.float32(kg))))
        for kg in (5000.0, 9000.0)
    ]
    np.testing.assert_array_equal(*seen)
