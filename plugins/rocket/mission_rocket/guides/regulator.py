"""Lateral regulator of a landing: finite-horizon linear-quadratic control about a vertical descent.

The equations of motion are linearised along a nominal descent straight down, and the discrete Riccati
recursion (Bryson and Ho, Applied Optimal Control, 1975, chapter 5) runs back from touchdown. In
each of the two lateral directions, the state is position, velocity, tilt, its rate, gimbal and fins, and three
measured disturbances: the steady wind, and what accelerometers and gyros measure beyond the model. Lags, the
opposite motion of the base, and the reversal of steering at high dynamic pressure need no special rules,
because they are in the model.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.linalg import expm

from mission_rocket.physics.atmosphere import atmosphere
from mission_rocket.physics.constants import DEGREE
from mission_rocket.physics.dynamics import motion_rate
from mission_rocket.physics.gravity import Site
from mission_rocket.physics.state import idle, nominal, start_state
from mission_rocket.physics.tables import at_x
from mission_rocket.physics.vector import Scalar, Vector, quaternion_of_axis
from mission_rocket.physics.vehicle import Body
from mission_rocket.physics.wind import Profile, Wind, steady_wind

_MOVING = 6  # states that move; the three after them are disturbances
# Steps of the central differences, in the order of states, commands and wind: m, m/s, rad, rad/s.
_DIFFERENCE = (10.0, 1.0, DEGREE, DEGREE, DEGREE, DEGREE, DEGREE, DEGREE, 1.0)
_SLOWEST_M_S = 1.0
_MOST_ROWS = 4000  # a descent that takes longer than any landing is not followed to its top
_HEAVIEST = 2.5  # bound on the actual thrust or pressure over the nominal one, and on its inverse


class Weights(NamedTuple):
    """The magnitudes with unit cost: errors at touchdown, and use of actuators and structure per second.

    `settle` times the cost at touchdown is also charged per second before it, fading with `settle_s`, so
    that the last moments are calm and the time of touchdown need not be known. `disturbance_s` is how long a
    disturbance is expected to last.
    """

    position_m: float
    velocity_m_s: float
    tilt: float
    rate: float
    gimbal: float
    fins: float
    q_alpha: float
    disturbance_s: float
    settle_s: float
    settle: float


class Descent(NamedTuple):
    """A nominal descent from touchdown upwards [rows]: height [m], speed [m/s], throttle level, propellant [kg]."""

    height: np.ndarray
    speed: np.ndarray
    level: np.ndarray
    propellant: np.ndarray


class Lateral(NamedTuple):
    """The measured state in one lateral direction; SI, angles positive towards that direction."""

    position: Scalar
    velocity: Scalar
    tilt: Scalar
    rate: Scalar
    gimbal: Scalar
    fins: Scalar
    wind: Scalar
    specific_force: Scalar
    angular_acceleration: Scalar


class Regulator(NamedTuple):
    """Tables over `key` [rows], see `time_key`: gains [rows, 2, 9] and expected accelerations [rows, 2, 9]."""

    key: np.ndarray
    gains: np.ndarray
    expected: np.ndarray
    level: np.ndarray
    pressure: np.ndarray


def time_key(height: Array, speed: Array) -> Array:
    """Return the seconds to touchdown at constant deceleration to 1 m/s, by which the gains are looked up."""
    return 2.0 * height / (speed + 1.0)


def descend(
    body: Body,
    gravity: float,
    throttle: float,
    engines: float,
    period: float,
    highest_m: float,
    flare: tuple[float, float],
    left_kg: float,
    lights_m_s: float,
) -> Descent:
    """Integrate a vertical landing backwards in time, from 1 m/s at the ground.

    Args:
      body: the vehicle.
      gravity: [m/s2].
      throttle, engines: throttle and number of engines of the burn.
      period: time between two rows [s].
      highest_m: height at which the table ends.
      flare: (speed [m/s] below which, deceleration [m/s2] with which the last metres are flown).
      left_kg: propellant at touchdown.
      lights_m_s: speed at ignition; above it the vehicle falls freely.
    """
    heights, machs = np.linspace(0.0, 2.0 * highest_m, 801), np.linspace(0.0, 5.0, 101)
    air = jax.jit(jax.vmap(atmosphere))(jnp.asarray(heights))
    density, pressure, sound = (np.asarray(part, float) for part in (air.density, air.pressure, air.sound_speed))
    along = at_x(body.aerodynamics.engine_first.drag, 0.0)
    drags = np.interp(machs, along.x, along.y)
    engine = body.engines[0]
    rows = []
    h, v, left, falling = 0.0, 1.0, left_kg, False
    while h < highest_m and len(rows) < _MOST_ROWS:
        falling = falling or v >= lights_m_s
        mass = body.dry_mass + left
        drag = 0.5 * np.interp(h, heights, density) * v * v * body.aerodynamics.area
        drag *= np.interp(v / np.interp(h, heights, sound), machs, drags)
        against = engine.exit_area * np.interp(h, heights, pressure)
        if falling:
            level, braking = 0.0, drag / mass - gravity
        elif v <= flare[0]:
            braking = flare[1]
            level = (mass * (braking + gravity) - drag) / (engines * engine.thrust) + against / engine.thrust
        else:
            level = throttle
            braking = (engines * (throttle * engine.thrust - against) + drag) / mass - gravity
        rows.append((h, v, level, left))
        h += v * period + 0.5 * braking * period**2
        v = max(v + braking * period, _SLOWEST_M_S)  # a body that falls ever faster, followed back in time
        left += engines * level * engine.flow * period
    return Descent(*np.array(rows).T)


def linearise(body: Body, site: Site, path: Descent) -> np.ndarray:
    """Return the derivatives [rows, 6, 9] of the rates of the moving states by these states, commands and wind."""
    site = site._replace(rotation=0.0, winds=None)

    def rates(z: Array, row: Array) -> Array:
        height, speed, level, left = row
        zero = 0.0 * height
        attitude = quaternion_of_axis(Vector(jnp.sin(z[2]), zero, jnp.cos(z[2])))
        state = start_state(body, Vector(z[0], zero, height), Vector(z[1], zero, -speed), attitude, left)
        levels = (level, *(zero for _ in body.engines[1:]))
        motion = state.motion._replace(
            rates=Vector(zero, z[3], zero),
            levels=levels,
            gimbal=Vector(zero, z[4], zero),
            fins=Vector(zero, z[5], zero),
        )
        command = idle(body)._replace(throttle=levels, gimbal=Vector(zero, z[6], zero), fins=Vector(zero, z[7], zero))
        windy = nominal()._replace(wind=Wind(zero, zero + 1.0, zero, zero, z[8]))
        rate = motion_rate(body, site, windy, motion, command, Vector(zero, zero, zero))
        return jnp.stack([rate.position.x, rate.velocity.x, z[3], rate.rates.y, rate.gimbal.y, rate.fins.y])

    steps = np.asarray(_DIFFERENCE)
    either = jnp.asarray(np.concatenate([np.diag(steps), -np.diag(steps)]), jnp.float32)
    rows = jnp.asarray(np.stack(path, axis=1), jnp.float32)
    changed = jax.jit(jax.vmap(jax.vmap(rates, in_axes=(0, None)), in_axes=(None, 0)))(either, rows)
    ahead, behind = np.split(np.asarray(changed, float), 2, axis=1)
    return np.swapaxes((ahead - behind) / (2.0 * steps[:, None]), 1, 2)


def design(
    slopes: np.ndarray, path: Descent, weights: Weights, period: float, winds: Profile | None = None
) -> Regulator:
    """Return the gains along a descent of one row per `period`; plain numpy, computed once per phase."""
    air = jax.jit(jax.vmap(atmosphere))(jnp.asarray(path.height))
    pressure = 0.5 * np.asarray(air.density, float) * path.speed**2
    wind = _wind_speeds(path, winds)

    size = len(Lateral._fields)
    at_touchdown = np.zeros((size, size))
    bounds = (weights.position_m, weights.velocity_m_s, weights.tilt, weights.rate)
    at_touchdown[range(4), range(4)] = np.array(bounds) ** -2.0
    effort = period * np.diag([weights.gimbal**-2, weights.fins**-2])
    cost = at_touchdown
    gains, expected = [], []
    for at, (slope, speed) in enumerate(zip(slopes, path.speed, strict=True)):
        system = np.zeros((size + 2, size + 2))
        system[:_MOVING, :_MOVING] = slope[:, :_MOVING]
        system[:_MOVING, size:] = slope[:, _MOVING : _MOVING + 2]
        system[:_MOVING, 6] = slope[:, -1]
        system[1, 7] = system[3, 8] = 1.0
        system[6, 6] = np.log(wind[at] / wind[min(at + 1, len(wind) - 1)]) / period
        system[7, 7] = system[8, 8] = -1.0 / weights.disturbance_s
        step = expm(system * period)
        f, g = step[:size, :size], step[:size, size:]
        incidence = np.zeros(size)
        incidence[[1, 2, 6]] = 1.0 / max(speed, 5.0), 1.0, -1.0 / max(speed, 5.0)
        running = period * (pressure[at] / weights.q_alpha) ** 2 * np.outer(incidence, incidence)
        running = running + period * weights.settle * np.exp(-at * period / weights.settle_s) * at_touchdown
        gain = np.linalg.solve(effort + g.T @ cost @ g, g.T @ cost @ f)
        cost = f.T @ cost @ (f - g @ gain) + running
        cost = 0.5 * (cost + cost.T)
        gains.append(gain)
        expected.append(system[[1, 3], :size] * ([1.0] * 7 + [0.0] * 2))
    key = time_key(jnp.asarray(path.height), jnp.asarray(path.speed))
    return Regulator(*(np.asarray(part, np.float32) for part in (key, gains, expected, path.level, pressure)))


def _wind_speeds(path: Descent, winds: Profile | None) -> np.ndarray:
    """Return the wind speeds by which the wind is expected to fade towards the ground [rows].

    They are those of the 75th percentile of the envelope or, with a profile, of the profile, and at least 1 m/s.
    """
    if winds is not None:
        parts = [np.interp(path.height, table.x, table.y) for table in winds]
        return np.maximum(np.hypot(*parts), 1.0)
    envelope = nominal().wind._replace(percentile=jnp.full((), 75.0))
    return np.asarray(jax.jit(jax.vmap(lambda h: steady_wind(envelope, h).x))(jnp.asarray(path.height)), float)


def regulate(
    regulator: Regulator, key: Array, level: Scalar, pressure: Scalar, measured: Lateral
) -> tuple[Array, Array]:
    """Return the commands to gimbal and fins [rad].

    Args:
      regulator: the tables.
      key: `time_key`.
      level: throttle level, to which the effect of a gimbal angle is proportional.
      pressure: dynamic pressure [Pa], to which the effect of a fin angle is proportional.
      measured: with the whole measured accelerations [m/s2, rad/s2]; the part that the model expects is subtracted.
    """
    keys, gains, expected, levels, pressures = (jnp.asarray(part) for part in regulator)
    at = jnp.clip(jnp.searchsorted(keys, key) - 1, 0, len(regulator.key) - 2)
    share = jnp.clip((key - keys[at]) / (keys[at + 1] - keys[at]), 0.0, 1.0)

    def here(table: Array) -> Array:
        return table[at] + share * (table[at + 1] - table[at])

    burning = (jnp.asarray(level) > 0.0) & (levels[at] > 0.0)
    ratio = jnp.where(burning, level / jnp.maximum(levels[at], 0.1), 1.0)
    by_gimbal = jnp.clip(ratio, 1.0 / _HEAVIEST, _HEAVIEST)
    by_fins = jnp.clip(pressure / here(pressures), 1.0 / _HEAVIEST, _HEAVIEST)
    state = jnp.stack([jnp.asarray(part) for part in measured])
    state = state.at[4].multiply(by_gimbal).at[5].multiply(by_fins)
    state = state.at[7:].add(-here(expected) @ state)
    command = -here(gains) @ state
    return command[0] / by_gimbal, command[1] / by_fins
