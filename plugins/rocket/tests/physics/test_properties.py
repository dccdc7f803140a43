"""What holds for any numbers: rotations, altitude, tables, air, states."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from bodies import at
from hypothesis import given, settings
from hypothesis import strategies as st
from mission_rocket.dispersions import Dispersions
from mission_rocket.physics.atmosphere import atmosphere
from mission_rocket.physics.channels import channels
from mission_rocket.physics.dynamics import loads
from mission_rocket.physics.gravity import Site, altitude, gravity
from mission_rocket.physics.state import idle
from mission_rocket.physics.tables import Grid, Table, lookup, lookup_grid
from mission_rocket.physics.vector import (
    Quaternion,
    Vector,
    body_axis,
    multiply,
    normalise,
    quaternion_of_axis,
    rotate,
    rotate_back,
)
from mission_rocket.physics.vehicle import mass_properties
from mission_rocket.vehicles import build_body, load_vehicle

SITE = Site()
BOOSTER = build_body(load_vehicle("falcon9_class"), carrying=False)
quick = settings(max_examples=60, deadline=None)


def numbers(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_subnormal=False)


triples = st.tuples(*(numbers(-100.0, 100.0),) * 3).map(lambda parts: Vector(*map(np.float64, parts)))
turns = (
    st.tuples(*(numbers(-1.0, 1.0),) * 4)
    .filter(lambda parts: sum(part * part for part in parts) > 0.01)
    .map(lambda parts: Quaternion(*(np.float64(part) / math.sqrt(sum(p * p for p in parts)) for part in parts)))
)


@quick
@given(turns, turns, triples)
def test_rotations(first: Quaternion, second: Quaternion, vector: Vector) -> None:
    turned = rotate(first, vector)
    assert np.allclose(np.linalg.norm(turned), np.linalg.norm(vector), atol=1e-9)
    assert np.allclose(rotate_back(first, turned), vector, atol=1e-9)
    assert np.allclose(rotate(multiply(second, first), vector), rotate(second, turned), atol=1e-9)
    assert np.allclose(body_axis(first), rotate(first, Vector(0.0, 0.0, 1.0)), atol=1e-12)


@quick
@given(numbers(-1.0, 1.0), numbers(-1.0, 1.0), numbers(-0.99, 1.0))
def test_an_attitude_of_an_axis(x: float, y: float, z: float) -> None:
    length = math.sqrt(x * x + y * y + z * z)
    if length < 0.1 or z / length < -0.99:
        return
    axis = Vector(x / length, y / length, z / length)
    with jax.enable_x64(True):
        found = body_axis(normalise(quaternion_of_axis(Vector(*map(jnp.asarray, axis)))))
    assert np.allclose(np.array(found), axis, atol=1e-9)


@quick
@given(numbers(-2e5, 2e5), numbers(-2e5, 2e5), numbers(-1e3, 4e5))
def test_altitude_and_gravity_in_float32(x: float, y: float, z: float) -> None:
    """To a millionth of the distance from the pad, where |r| - R would be off by half a metre."""
    exact = math.sqrt(x * x + y * y + (z + SITE.radius) ** 2)
    position = Vector(*map(jnp.float32, (x, y, z)))
    assert (
        abs(float(altitude(SITE, position)) - (exact - SITE.radius)) < 1e-6 * (abs(z) + 0.05 * math.hypot(x, y)) + 1e-4
    )
    pull = np.array(gravity(SITE, position), np.float64)
    expected = -SITE.surface_gravity * SITE.radius**2 / exact**3 * np.array([x, y, z + SITE.radius])
    assert np.allclose(pull, expected, atol=5e-6)


@quick
@given(
    st.lists(numbers(0.01, 5.0), min_size=1, max_size=12),
    st.lists(numbers(-10, 10), min_size=13, max_size=13),
    numbers(-5, 70),
)
def test_tables_interpolate(gaps: list[float], values: list[float], x: float) -> None:
    knots = tuple(np.cumsum([0.0, *gaps]).tolist())
    rows = tuple(values[: len(knots)])
    assert np.isclose(lookup(Table(knots, rows), np.float64(x)), np.interp(x, knots, rows), atol=1e-4)
    grid = Grid(knots, (0.0, 1.0, 3.0), tuple((value, 2.0 * value, -value) for value in rows))
    expected = np.interp(x, knots, rows) * np.interp(0.5 * x, (0.0, 1.0, 3.0), (1.0, 2.0, -1.0))
    assert np.isclose(lookup_grid(grid, np.float64(x), np.float64(0.5 * x)), expected, atol=2e-4)


@quick
@given(numbers(-1e4, 1e6), numbers(1.0, 1e3))
def test_air_thins_upwards(height: float, climb: float) -> None:
    below, above = (atmosphere(np.float32(level)) for level in (height, height + climb))
    assert all(np.isfinite(part) and part > 0.0 for part in (*below, *above))
    assert above.pressure <= below.pressure * (1.0 + 1e-6)
    assert above.density <= below.density * (1.0 + 1e-6)


@quick
@given(numbers(0.0, 395_700.0))
def test_mass_properties_are_physical(left: float) -> None:
    found = mass_properties(BOOSTER, 1.0, np.float32(left))
    assert np.isclose(found.mass, BOOSTER.dry_mass + left, rtol=1e-6)
    assert 0.0 < found.centre < BOOSTER.length
    assert found.inertia.x >= BOOSTER.dry_transverse * 0.999
    assert found.inertia.z <= 2.0 * found.inertia.x


@jax.jit
def described(position, velocity, attitude, rates, propellant, key):
    state = at(BOOSTER, position, velocity, attitude=attitude, rates=rates, propellant=propellant)
    still = Vector(0.0, 0.0, 0.0)
    acting = loads(BOOSTER, SITE, Dispersions().draw(key, 9), state.motion, idle(BOOSTER), still)
    found = channels(BOOSTER, SITE, state, acting, still)
    return jnp.stack([jnp.asarray(value, jnp.float32) for value in found.values()])


@quick
@given(triples, triples, turns, triples, numbers(0.0, 5e4), st.integers(0, 1000))
def test_channels_are_finite(
    place: Vector, velocity: Vector, turn: Quaternion, rates: Vector, left: float, seed: int
) -> None:
    single = lambda parts, scale: type(parts)(*(jnp.float32(part * scale) for part in parts))  # noqa: E731
    position = single(place, 1e3)
    position = position._replace(z=jnp.abs(position.z))
    found = described(
        position,
        single(velocity, 20.0),
        single(turn, 1.0),
        single(rates, 0.01),
        jnp.float32(left),
        jax.random.key(seed),
    )
    assert np.isfinite(found).all()
