"""NASA's 6-DOF check-cases 1, 2, 4, 6, 7 and 9 (TM-2015-218675) in float32; medians of the NASA tools."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from bodies import NASA, ROUND, at, fly, plain
from mission_rocket.physics.constants import DEGREE
from mission_rocket.physics.gravity import Site, altitude, up
from mission_rocket.physics.state import State, nominal
from mission_rocket.physics.vector import Vector, dot
from mission_rocket.physics.vehicle import Body
from mission_rocket.physics.wind import calm

SLUG_FT2 = 1.3558179483314
BALL = plain(mass=14.5939, area=0.0182415, drag=0.1)
FALLING_BALL = BALL._replace(name="no drag", aerodynamics=plain(drag=0.0).aerodynamics)
DROP = Vector(0.0, 0.0, 9144.0)


def at_times(states: State, site: Site) -> np.ndarray:
    """[3, 3]: altitude, speed upwards, speed eastwards at 10, 20, 30 s."""
    position, velocity = states.motion.position, states.motion.velocity
    vertical = up(site, position)
    east = Vector(vertical.z, np.zeros_like(vertical.y), -vertical.x)
    columns = [altitude(site, position), dot(velocity, vertical), dot(velocity, east)]
    return np.stack([np.asarray(column) for column in columns], axis=1)[[9, 19, 29]]


@pytest.mark.parametrize(
    ("body", "site", "altitudes", "down"),
    [
        pytest.param(FALLING_BALL, NASA, (8656.38, 7193.38, 4754.55), (97.526, 195.082, 292.697), id="1"),
        pytest.param(BALL, ROUND, (8656.71, 7224.37, 4947.31), (96.987, 187.861, 264.294), id="4"),
        pytest.param(BALL, NASA, (8658.69, 7232.04, 4963.50), (96.595, 187.129, 263.350), id="6"),
    ],
)
def test_drops(within, body: Body, site: Site, altitudes: tuple[float, ...], down: tuple[float, ...]) -> None:
    found = at_times(fly(body, site, at(body, DROP), 30.0), site)
    assert found.dtype == np.float32
    within("altitude m", found[:, 0] - altitudes, 1.0)
    within("vertical speed m/s", found[:, 1] + down, 0.05)


def test_case_1_drifts_eastwards(within) -> None:
    found = at_times(fly(FALLING_BALL, NASA, at(FALLING_BALL, DROP), 30.0), NASA)
    within("east speed m/s", found[:, 2] - (0.0711, 0.2845, 0.6404), 0.002)


def test_case_7_steady_wind(within) -> None:
    windy = nominal()._replace(wind=calm()._replace(uniform=jnp.float32(6.096)))
    found = at_times(fly(BALL, NASA, at(BALL, DROP), 30.0, dispersion=windy), NASA)
    within("altitude m", found[2, 0] - 4963.72, 1.0)
    within("east speed m/s", found[:, 2] - (0.1583, 0.6356, 1.4351), 0.005)


def test_case_9_throw(within) -> None:
    found = at_times(fly(BALL, NASA, at(BALL, velocity=Vector(304.8, 0.0, 304.8)), 30.0), NASA)
    within("altitude m", found[:, 0] - (2227.01, 3177.15, 3096.97), 1.0)
    within("vertical speed m/s", found[:, 1] - (152.41, 41.13, -55.41), 0.05)
    within("east speed m/s", found[:, 2] - (239.67, 207.88, 186.15), 0.05)


def test_case_2_tumbling_brick(within) -> None:
    inertia = tuple(part * SLUG_FT2 for part in (0.001894220, 0.006211019, 0.007194665))
    brick = plain(mass=2.26796, inertia=inertia)
    rates = Vector(*(part * DEGREE for part in (10.0, 20.0, 30.0)))
    flown = fly(brick, NASA, at(brick, DROP, rates=rates), 30.0, step_s=0.025)
    found = np.stack(flown.motion.rates, axis=1)[[9, 29]] / DEGREE
    expected = ((-2.41890, -23.55257, 28.12859), (12.61839, -17.39747, 31.11959))
    within("rates deg/s", found - expected, 0.01)
