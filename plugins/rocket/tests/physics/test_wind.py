"""Dryden turbulence: variance and correlation whatever the step; the steady profile."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mission_rocket.physics.wind import Gust, Wind, advance_gust, calm, gust_velocity, start_gust, steady_wind

VEHICLES = 1 << 16
HEIGHT_M, AIRSPEED_M_S = 5_000.0, 200.0
TIME_S = 533.0 / AIRSPEED_M_S  # length over airspeed
UNIT = Wind(jnp.zeros(()), jnp.ones(()), jnp.zeros(()), jnp.ones(()))


def velocities(gust: Gust) -> np.ndarray:
    """[3, vehicles] in units of the intensity there, 2.04 m/s."""
    found = np.stack(jax.vmap(lambda g: gust_velocity(UNIT, g, jnp.float32(HEIGHT_M)))(gust))
    return found / np.interp(HEIGHT_M, (3_000.0, 10_000.0), (2.1, 1.9))


def blown(gust: Gust, step_s: float, steps: int) -> Gust:
    @jax.jit
    def run(gust: Gust) -> Gust:
        def step(number: jax.Array, gust: Gust) -> Gust:
            keys = jax.random.split(jax.random.fold_in(jax.random.key(1), number), VEHICLES)
            advance = jax.vmap(advance_gust, (0, 0, None, None, None))
            return advance(gust, keys, jnp.float32(AIRSPEED_M_S), jnp.float32(HEIGHT_M), jnp.float32(step_s))

        return jax.lax.fori_loop(0, steps, step, gust)

    return run(gust)


@pytest.mark.parametrize("step_s", [0.001, 0.05, 1.0, 20.0])
def test_variance_and_correlation_whatever_the_step(within, step_s: float) -> None:
    before = jax.vmap(start_gust)(jax.random.split(jax.random.key(0), VEHICLES))
    steps = 16
    first, second = velocities(before), velocities(blown(before, step_s, steps))
    # five standard errors of a variance or a correlation of 65,536 draws
    bound = 5.0 * np.sqrt(2.0 / VEHICLES)
    within("variance at the start", first.var(axis=1) - 1.0, bound)
    within("variance at the end", second.var(axis=1) - 1.0, bound)
    lag = steps * step_s / TIME_S
    expected = np.exp(-lag) * np.array([1.0 - 0.5 * lag, 1.0 - 0.5 * lag, 1.0])
    within("correlation", (first * second).mean(axis=1) - expected, bound)


def test_turbulence_grows_from_still_air_to_the_same_variance(within) -> None:
    still = Gust(*(jnp.zeros(VEHICLES),) * 5)
    bound = 5.0 * np.sqrt(2.0 / VEHICLES)
    within("variance", velocities(blown(still, 0.5, 60)).var(axis=1) - 1.0, bound)


def test_steady_profile(within) -> None:
    table = {
        1e3: (10, 14, 19, 19, 28),
        10e3: (46, 56, 67, 75, 96),
        20e3: (15, 18, 22, 25, 40),
        80e3: (57, 72, 90, 102, 119),
    }
    for height, speeds in table.items():
        for percentile, speed in zip((50.0, 75.0, 90.0, 95.0, 99.0), speeds, strict=True):
            wind = calm()._replace(
                percentile=jnp.float32(percentile), along_x=jnp.float32(0.6), along_y=jnp.float32(-0.8)
            )
            found = steady_wind(wind, jnp.float32(height))
            within("speed m/s", np.array(found) - (0.6 * speed, -0.8 * speed, 0.0), 1e-4)
    still = steady_wind(calm(), jnp.float32(10e3))
    assert np.array_equal(np.array(still), (0.0, 0.0, 0.0))
