"""Channels derived from a state: named with their units, used by phases, limits and reports alike."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from mission_rocket.physics.constants import DEGREE
from mission_rocket.physics.dynamics import loads
from mission_rocket.physics.gravity import Site, altitude, free_fall, up
from mission_rocket.physics.integrate import rk4_increment
from mission_rocket.physics.state import Command, Dispersion, State, idle
from mission_rocket.physics.vector import Scalar, Vector, body_axis, dot, norm
from mission_rocket.physics.vehicle import Body
from mission_rocket.physics.wind import gust_velocity, steady_wind


def fall(site: Site, position: Vector, velocity: Vector, level: Scalar = 0.0, steps: int = 4) -> tuple[Vector, Array]:
    """(where a fall without air passes down through altitude `level` [m], how long it takes [s]).

    The time is guessed with constant gravity, flown in `steps` Runge-Kutta steps of the real
    gravity and rotation, and corrected by one more step: metres of error after 300 s. Below the
    level the last point is where the way up passed it.
    """

    def rate(there: tuple[Vector, Vector]) -> tuple[Vector, Vector]:
        return there[1], free_fall(site, *there)

    def time_to(position: Vector, velocity: Vector, pull: Scalar, signed: bool) -> Array:
        """Root of height + climb t - pull t^2 / 2; `signed` takes the one near zero."""
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


def channels(
    body: Body, site: Site, dispersion: Dispersion, state: State, command: Command | None = None
) -> dict[str, Array]:
    """Every derived channel of a vehicle; `command` matters to the RCS' force only."""
    motion = state.motion
    command = idle(body) if command is None else command
    height = altitude(site, motion.position)
    gust = gust_velocity(dispersion.wind, state.gust, height)
    wind = steady_wind(dispersion.wind, height) + gust
    acting = loads(body, site, dispersion, motion, command, gust)
    felt = acting.wrench.force * (1.0 / acting.mass.mass)
    vertical = up(site, motion.position)
    axis = body_axis(motion.attitude)
    speed = norm(motion.velocity, 1e-9)
    climb = dot(motion.velocity, vertical)
    level_speed = jnp.sqrt(jnp.maximum(speed * speed - climb * climb, 1e-9))
    landing, seconds = fall(site, motion.position, motion.velocity)
    incidence, pressure = acting.flow.incidence, acting.flow.dynamic_pressure
    running = sum(level * len(group.positions) for level, group in zip(motion.levels, body.engines, strict=True))
    lit = sum(
        jnp.where(since > 0.0, 1.0 * len(group.positions), 0.0)
        for since, group in zip(state.lit_for, body.engines, strict=True)
    )
    found = {
        "time_s": state.time,
        "position_x_m": motion.position.x,
        "position_y_m": motion.position.y,
        "position_z_m": motion.position.z,
        "altitude_m": height,
        "downrange_m": motion.position.x,
        "crossrange_m": motion.position.y,
        "velocity_x_m_s": motion.velocity.x,
        "velocity_y_m_s": motion.velocity.y,
        "velocity_z_m_s": motion.velocity.z,
        "speed_m_s": speed,
        "vertical_speed_m_s": climb,
        "flight_path_angle_deg": jnp.arctan2(climb, level_speed) / DEGREE,
        "tilt_deg": jnp.arctan2(norm_across(axis, vertical), dot(axis, vertical)) / DEGREE,
        "attitude_w": motion.attitude.w,
        "attitude_x": motion.attitude.x,
        "attitude_y": motion.attitude.y,
        "attitude_z": motion.attitude.z,
        "rate_deg_s": norm(motion.rates) / DEGREE,
        "mach": acting.flow.mach,
        "dynamic_pressure_pa": pressure,
        "incidence_deg": incidence / DEGREE,
        "q_alpha_pa_deg": pressure * incidence / DEGREE,
        "axial_load_m_s2": felt.z,
        "lateral_load_m_s2": jnp.sqrt(felt.x * felt.x + felt.y * felt.y + 1e-9),
        "mass_kg": acting.mass.mass,
        "propellant_kg": motion.propellant,
        "rcs_propellant_kg": motion.rcs_propellant,
        "throttle": running / jnp.maximum(lit, 1.0),
        "engines_lit": lit,
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
    return {name: jnp.asarray(value) for name, value in found.items()}


def norm_across(axis: Vector, vertical: Vector) -> Array:
    """Sine of the angle between two unit vectors."""
    along = dot(axis, vertical)
    across = axis - vertical * along
    return norm(across, 1e-12)
