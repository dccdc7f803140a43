"""Tsiolkovsky, a vertical throw, energy, momentum, and a plane: to float32's limit, and 1e-10 under x64."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bodies import EARTH_AT_REST, G0, at, engine, fly, last, plain
from mission_rocket.physics.constants import EARTH_MU_M3_S2, EARTH_RADIUS_M
from mission_rocket.physics.gravity import Site, altitude, rotation_vector
from mission_rocket.physics.state import State, idle, nominal
from mission_rocket.physics.vector import Quaternion, Vector, cross, quaternion_of_axis, rotate
from mission_rocket.vehicles import build_body, load_vehicle

SPACE = Site(surface_gravity=0.0, rotation=0.0)
DROPPED = plain()


def doubles(vector: Vector) -> Vector:
    return Vector(*(np.asarray(part, np.float64) for part in vector))


@pytest.mark.parametrize(
    ("x64", "bound"), [pytest.param(False, 2e-6, id="float32"), pytest.param(True, 1e-10, id="x64")]
)
@pytest.mark.parametrize(
    ("impulse_s", "full", "left", "gain"), [(311.0, 100e3, 40e3, 2794.566), (282.0, 30e3, 25.6e3, 438.618)]
)
def test_tsiolkovsky(within, x64: bool, bound: float, impulse_s: float, full: float, left: float, gain: float) -> None:
    seconds = 100.0
    flow = (full - left) / seconds
    with jax.enable_x64(x64):
        body = plain(mass=0.5 * left, engines=(engine(flow * impulse_s * G0, impulse_s),), propellant=full - 0.5 * left)
        state = at(body, levels=(1.0,))._replace(lit_for=(jnp.ones(()),))
        told = idle(body)._replace(throttle=(jnp.ones(()),))
        end = last(fly(body, SPACE, state, seconds, command=told)).motion
    exact = impulse_s * G0 * math.log(full / left)
    assert exact == pytest.approx(gain, abs=5e-4)
    within("relative", end.velocity.z / exact - 1.0, bound)
    within("propellant, relative", end.propellant / (0.5 * left) - 1.0, bound)


@pytest.mark.parametrize(
    ("x64", "bound"), [pytest.param(False, 5e-7, id="float32"), pytest.param(True, 1e-10, id="x64")]
)
def test_vertical_throw(within, x64: bool, bound: float) -> None:
    with jax.enable_x64(x64):
        state = at(DROPPED, velocity=Vector(0.0, 0.0, 1000.0))
        flown = fly(DROPPED, EARTH_AT_REST, state, 104.0).motion
        height, speed = np.float64(flown.position.z[-1]), np.float64(flown.velocity.z[-1])
    radius = EARTH_RADIUS_M + height
    top = 1.0 / (1.0 / radius - 0.5 * speed**2 / EARTH_MU_M3_S2) - EARTH_RADIUS_M
    exact = 1.0 / (1.0 / EARTH_RADIUS_M - 0.5 * 1000.0**2 / EARTH_MU_M3_S2) - EARTH_RADIUS_M
    assert exact == pytest.approx(51_325.38, abs=0.005)
    within("relative", top / exact - 1.0, bound)


def jacobi(site: Site, states: State) -> np.ndarray:
    """Specific energy in the turning frame [J/kg], less its value at rest at the pad, in float64."""
    position, velocity = doubles(states.motion.position), doubles(states.motion.velocity)
    kinetic = 0.5 * (velocity.x**2 + velocity.y**2 + velocity.z**2)
    height = np.asarray(altitude(site, position), np.float64)
    potential = EARTH_MU_M3_S2 / EARTH_RADIUS_M * height / (EARTH_RADIUS_M + height)
    carried = cross(rotation_vector(site), Vector(position.x, position.y, position.z + site.radius))
    return kinetic + potential - 0.5 * (carried.x**2 + carried.y**2 + carried.z**2)


@pytest.mark.parametrize(
    ("x64", "bound"), [pytest.param(False, 1e-6, id="float32"), pytest.param(True, 1e-10, id="x64")]
)
def test_energy_on_a_turning_earth(within, x64: bool, bound: float) -> None:
    site = Site()
    with jax.enable_x64(x64):
        flown = fly(DROPPED, site, at(DROPPED, velocity=Vector(600.0, 100.0, 1500.0)), 300.0)
        with jax.enable_x64(True):
            energy = jacobi(site, flown)
    begin = 0.5 * (600.0**2 + 100.0**2 + 1500.0**2)
    within("drift over the kinetic energy at the start", (energy - energy[0]) / begin, bound)


@pytest.mark.parametrize(
    ("x64", "bound", "step_s"),
    [pytest.param(False, 2e-6, 0.025, id="float32"), pytest.param(True, 1e-10, 0.005, id="x64")],
)
def test_angular_momentum_of_a_tumbling_body(within, x64: bool, bound: float, step_s: float) -> None:
    inertia = (1900.0, 6200.0, 7200.0)
    body = plain(inertia=inertia)
    with jax.enable_x64(x64):
        state = at(body, rates=Vector(0.17, 0.35, 0.52))
        motion = fly(body, SPACE, state, 30.0, step_s).motion
    rates, attitude = doubles(motion.rates), Quaternion(*(np.asarray(part, np.float64) for part in motion.attitude))
    spin = Vector(*(part * moment for part, moment in zip(rates, inertia, strict=True)))
    momentum = np.stack(rotate(attitude, spin))
    energy = 0.5 * sum(part * part * moment for part, moment in zip(rates, inertia, strict=True))
    begin = np.array([[0.17 * 1900.0], [0.35 * 6200.0], [0.52 * 7200.0]])
    within("momentum, relative", (momentum - begin) / np.linalg.norm(begin), bound)
    within("energy, relative", energy / (0.5 * (0.17**2 * 1900 + 0.35**2 * 6200 + 0.52**2 * 7200)) - 1.0, bound)


def test_angular_momentum_about_the_earth_s_centre(within) -> None:
    with jax.enable_x64(True):
        motion = fly(DROPPED, EARTH_AT_REST, at(DROPPED, velocity=Vector(600.0, 100.0, 1500.0)), 300.0).motion
    centre = motion.position._replace(z=motion.position.z + EARTH_RADIUS_M)
    momentum = np.stack(cross(centre, motion.velocity))
    within("relative", (momentum - momentum[:, :1]) / np.linalg.norm(momentum[:, 0]), 1e-10)


@pytest.mark.parametrize("site", [EARTH_AT_REST, Site(latitude=0.0)], ids=["at rest", "turning, on the equator"])
def test_motion_stays_in_its_plane(within, site: Site) -> None:
    """A powered, finned descent in the x-z plane: no cross-wind, no command out of the plane."""
    body = build_body(load_vehicle("falcon9_class"), carrying=False)
    axis = Vector(jnp.float32(math.sin(0.1)), jnp.float32(0.0), jnp.float32(math.cos(0.1)))
    state = at(
        body,
        Vector(-3000.0, 0.0, 9000.0),
        Vector(80.0, 0.0, -400.0),
        attitude=quaternion_of_axis(axis),
        propellant=15e3,
    )
    errors = nominal()
    errors = errors._replace(wind=errors.wind._replace(percentile=jnp.float32(75.0)))
    told = idle(body)
    told = told._replace(
        throttle=(jnp.float32(0.7), jnp.float32(0.0), jnp.float32(0.0)),
        gimbal=told.gimbal._replace(y=jnp.float32(0.01)),
        fins=told.fins._replace(y=jnp.float32(-0.1)),
        rcs=told.rcs._replace(y=jnp.float32(0.2)),
    )
    motion = fly(body, site, state, 10.0, 0.05, dispersion=errors, command=told).motion
    assert np.abs(motion.position.x - motion.position.x[0]).max() > 100.0
    within("position m", motion.position.y, 1e-4)
    within("velocity m/s", motion.velocity.y, 1e-5)
    within("rates rad/s", np.stack([motion.rates.x, motion.rates.z]), 1e-7)
