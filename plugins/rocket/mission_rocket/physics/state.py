"""The state of a vehicle, what it is told to do, and the errors of the day."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from mission_rocket.physics.constants import DEGREE
from mission_rocket.physics.vector import Quaternion, Scalar, Vector
from mission_rocket.physics.vehicle import Body
from mission_rocket.physics.wind import Gust, Wind, calm, start_gust


class Motion(NamedTuple):
    """What is integrated. Position [m] and velocity [m/s] local, body rates [rad/s] inertial.

    `levels` are the engine groups' real throttles (0 off), `gimbal` and `fins` real angles about
    the body's x, y and z (yaw, pitch, roll) [rad]; positive turns the body positively.
    """

    position: Vector
    velocity: Vector
    attitude: Quaternion
    rates: Vector
    propellant: Scalar
    rcs_propellant: Scalar
    levels: tuple[Scalar, ...]
    gimbal: Vector
    fins: Vector


class Rounding(NamedTuple):
    """What float32 lost in the sums so far (Kahan): without it 10,000 steps drift by tens of metres."""

    position: Vector
    velocity: Vector
    propellant: Scalar
    time: Scalar


class State(NamedTuple):
    """A vehicle in flight. `lit_for` [s] since each engine group was told to light, 0 when off."""

    motion: Motion
    rounding: Rounding
    lit_for: tuple[Scalar, ...]
    ignitions_left: tuple[Scalar, ...]
    gust: Gust
    time: Array


class Command(NamedTuple):
    """What the actuators are told. `throttle` by engine group, 0 off; angles [rad]; RCS in [-1, 1]."""

    throttle: tuple[Scalar, ...]
    gimbal: Vector
    fins: Vector
    rcs: Vector


class Dispersion(NamedTuple):
    """The errors of the day, drawn once per flight; factors about 1. There is no sensor error.

    `centre_of_mass_x`, `_y` [m] across the axis; `tilt_x`, `_y` initial attitude [rad];
    `ignition_delay` [s]; `engine_out` number of an engine that never lights, -1 for none.
    """

    thrust: Scalar
    specific_impulse: Scalar
    propellant: Scalar
    dry_mass: Scalar
    drag: Scalar
    lift: Scalar
    centre_of_mass_x: Scalar
    centre_of_mass_y: Scalar
    actuator_lag: Scalar
    tilt_x: Scalar
    tilt_y: Scalar
    ignition_delay: Scalar
    engine_out: Scalar
    wind: Wind


def nominal() -> Dispersion:
    """No errors and no wind."""
    one, zero = jnp.ones(()), jnp.zeros(())
    return Dispersion(one, one, one, one, one, one, zero, zero, one, zero, zero, zero, -jnp.ones(()), calm())


def idle(body: Body) -> Command:
    """Engines off, everything centred."""
    zero = jnp.zeros(())
    none = Vector(zero, zero, zero)
    return Command((zero,) * len(body.engines), none, none, none)


def start_state(
    body: Body, position: Vector, velocity: Vector, attitude: Quaternion, propellant: Scalar, key: Array | None = None
) -> State:
    """A state at rest about its axes, engines off, full RCS tank; `key` (consumed) draws the turbulence's state."""
    zero = jnp.zeros(())
    none = Vector(zero, zero, zero)
    groups = len(body.engines)

    def arrays(parts: Vector | Quaternion) -> list[Array]:
        return [jnp.asarray(part, zero.dtype) for part in parts]

    motion = Motion(
        Vector(*arrays(position)),
        Vector(*arrays(velocity)),
        Quaternion(*arrays(attitude)),
        none,
        jnp.asarray(propellant, zero.dtype),
        jnp.asarray(body.rcs.propellant if body.rcs else 0.0, zero.dtype),
        (zero,) * groups,
        none,
        none,
    )
    gust = Gust(zero, zero, zero, zero, zero) if key is None else start_gust(key)
    ignitions = tuple(jnp.asarray(float(group.ignitions), zero.dtype) for group in body.engines)
    return State(motion, Rounding(none, none, zero, zero), (zero,) * groups, ignitions, gust, zero)


class Spread(NamedTuple):
    """How far the day's errors scatter: standard deviations, and ranges of uniform draws."""

    thrust: float = 0.01
    specific_impulse: float = 0.01
    propellant: float = 0.005
    dry_mass: float = 0.01
    drag: float = 0.10
    lift: float = 0.10
    centre_of_mass_m: float = 0.1
    actuator_lag: float = 0.20
    attitude: float = 0.2 * DEGREE
    ignition_delay_s: tuple[float, float] = (0.0, 0.4)
    wind_percentile: tuple[float, float] = (50.0, 95.0)
    turbulence: float = 1.0
    engine_out: int = -1
    uniform_wind_m_s: float = 0.0


def draw_dispersion(spread: Spread, key: Array) -> Dispersion:
    """One flight's errors; normal draws are cut at 3.5 standard deviations. Key consumed."""
    normal_key, uniform_key = jax.random.split(key)
    n = jax.random.truncated_normal(normal_key, -3.5, 3.5, (11,))
    u = jax.random.uniform(uniform_key, (3,))

    def between(bounds: tuple[float, float], fraction: Array) -> Array:
        return bounds[0] + (bounds[1] - bounds[0]) * fraction

    return Dispersion(
        1.0 + spread.thrust * n[0],
        1.0 + spread.specific_impulse * n[1],
        1.0 + spread.propellant * n[2],
        1.0 + spread.dry_mass * n[3],
        1.0 + spread.drag * n[4],
        1.0 + spread.lift * n[5],
        spread.centre_of_mass_m * n[6],
        spread.centre_of_mass_m * n[7],
        1.0 + spread.actuator_lag * n[8],
        spread.attitude * n[9],
        spread.attitude * n[10],
        between(spread.ignition_delay_s, u[0]),
        jnp.full((), float(spread.engine_out)),
        Wind(
            between(spread.wind_percentile, u[1]),
            jnp.cos(2.0 * jnp.pi * u[2]),
            jnp.sin(2.0 * jnp.pi * u[2]),
            jnp.asarray(spread.turbulence, u.dtype),
            jnp.asarray(spread.uniform_wind_m_s, u.dtype),
        ),
    )
