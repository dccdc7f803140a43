"""Channels derived from a state, named with their units; phases, limits and reports use them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from mission_rocket.physics.constants import DEGREE
from mission_rocket.physics.dynamics import Loads
from mission_rocket.physics.gravity import Site, altitude, free_fall, up
from mission_rocket.physics.integrate import rk4_increment
from mission_rocket.physics.state import Motion, State
from mission_rocket.physics.tracing import traced_once
from mission_rocket.physics.vector import Scalar, Vector, body_axis, dot, norm
from mission_rocket.physics.vehicle import Body

Impact = tuple[Vector, Array]  # position [m] and time to it [s]


def fall(site: Site, position: Vector, velocity: Vector, level: Scalar = 0.0, steps: int = 4) -> Impact:
    """Predict a ballistic fall in vacuum: (position on descending through the altitude `level` [m], time to it [s]).

    The time is guessed with constant gravity, flown in `steps` Runge-Kutta steps of the actual gravity and
    rotation, and corrected by one more step: the error is metres after 300 s. Below the level the result is the
    point at which the ascent passed it.
    """

    def rate(there: tuple[Vector, Vector]) -> tuple[Vector, Vector]:
        return there[1], free_fall(site, *there)

    def time_to(position: Vector, velocity: Vector, pull: Scalar, signed: bool) -> Array:
        """Solve height + climb t - pull t^2 / 2 = 0; `signed` takes the root near zero."""
        height, climb = altitude(site, position) - level, dot(velocity, up(site, position))
        root = jnp.sqrt(jnp.maximum(climb * climb + 2.0 * pull * height, 1e-6))
        whole = (climb + root) / pull
        return jnp.where(climb < 0.0, 2.0 * height / (root - climb), whole) if signed else whole

    start_pull = -dot(free_fall(site, position, velocity), up(site, position))
    guess = jnp.maximum(time_to(position, velocity, start_pull, False), 0.0)

    def leg(there: tuple[Vector, Vector], _: None) -> tuple[tuple[Vector, Vector], None]:
        change = rk4_increment(rate, there, guess / steps)
        return jax.tree.map(lambda a, b: a + b, there, change), None

    there, _ = jax.lax.scan(leg, (position, velocity), None, length=steps)
    pull = -dot(free_fall(site, *there), up(site, there[0]))
    rest = time_to(*there, pull, True)
    change = rk4_increment(rate, there, rest)
    return there[0] + change[0], guess + rest


@traced_once(2)
def channels(
    body: Body, site: Site, state: State, acting: Loads, wind: Vector, impact: Impact | None = None
) -> dict[str, Array]:
    """Return every derived channel of a vehicle.

    Args:
      body, site, state: the vehicle.
      acting: the loads on it, without the force of the RCS.
      wind: at the vehicle, gusts included.
      impact: the vacuum impact point if the caller knows it; None: it is predicted here.
    """
    motion = state.motion
    landing, seconds = fall(site, motion.position, motion.velocity) if impact is None else impact
    named = {"time_s": state.time} | _motion_channels(site, motion) | _load_channels(acting)
    named |= _engine_channels(body, state) | {
        "propellant_kg": motion.propellant,
        "rcs_propellant_kg": motion.rcs_propellant,
        "thrust_n": acting.thrust,
        "gimbal_pitch_deg": motion.gimbal.y / DEGREE,
        "gimbal_yaw_deg": motion.gimbal.x / DEGREE,
        "fin_pitch_deg": motion.fins.y / DEGREE,
        "fin_yaw_deg": motion.fins.x / DEGREE,
        "fin_roll_deg": motion.fins.z / DEGREE,
        "impact_x_m": landing.x,
        "impact_y_m": landing.y,
        "impact_time_s": seconds,
        "wind_x_m_s": wind.x,
        "wind_y_m_s": wind.y,
    }
    return {name: jnp.asarray(value) for name, value in named.items()}


def _motion_channels(site: Site, motion: Motion) -> dict[str, Scalar]:
    """Return position, velocity and attitude of the vehicle."""
    vertical, axis = up(site, motion.position), body_axis(motion.attitude)
    speed, climb = norm(motion.velocity, 1e-9), dot(motion.velocity, vertical)
    level_speed = jnp.sqrt(jnp.maximum(speed * speed - climb * climb, 1e-9))
    across = norm(axis - vertical * dot(axis, vertical), 1e-12)
    return {
        "position_x_m": motion.position.x,
        "position_y_m": motion.position.y,
        "position_z_m": motion.position.z,
        "altitude_m": altitude(site, motion.position),
        "downrange_m": motion.position.x,
        "crossrange_m": motion.position.y,
        "velocity_x_m_s": motion.velocity.x,
        "velocity_y_m_s": motion.velocity.y,
        "velocity_z_m_s": motion.velocity.z,
        "speed_m_s": speed,
        "vertical_speed_m_s": climb,
        "flight_path_angle_deg": jnp.arctan2(climb, level_speed) / DEGREE,
        "tilt_deg": jnp.arctan2(across, dot(axis, vertical)) / DEGREE,
        "attitude_w": motion.attitude.w,
        "attitude_x": motion.attitude.x,
        "attitude_y": motion.attitude.y,
        "attitude_z": motion.attitude.z,
        "rate_deg_s": norm(motion.rates) / DEGREE,
    }


def _load_channels(acting: Loads) -> dict[str, Scalar]:
    """Return the loads of air and engines on the structure."""
    specific_force = acting.wrench.force * (1.0 / acting.mass.mass)
    incidence, pressure = acting.flow.incidence, acting.flow.dynamic_pressure
    return {
        "mach": acting.flow.mach,
        "dynamic_pressure_pa": pressure,
        "incidence_deg": incidence / DEGREE,
        "q_alpha_pa_deg": pressure * incidence / DEGREE,
        "axial_load_m_s2": specific_force.z,
        "lateral_load_m_s2": lateral(specific_force),
        "mass_kg": acting.mass.mass,
    }


def _engine_channels(body: Body, state: State) -> dict[str, Scalar]:
    """Return how many engines are lit and their mean throttle."""
    groups = list(zip(state.motion.levels, state.lit_for, body.engines, strict=True))
    running = sum(level * len(group.positions) for level, _, group in groups)
    lit = sum(jnp.where(since > 0.0, 1.0 * len(group.positions), 0.0) for _, since, group in groups)
    return {"throttle": running / jnp.maximum(lit, 1.0), "engines_lit": lit}


def lateral(specific_force: Vector) -> Array:
    """Return the lateral load [m/s2] of a specific force in body axes."""
    return jnp.sqrt(specific_force.x * specific_force.x + specific_force.y * specific_force.y + 1e-9)
