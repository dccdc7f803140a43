"""Rigid-body motion with six degrees of freedom, variable mass and lagging actuators.

Rates of `Motion`: translation in the turning local frame, Euler's equations about the centre of
mass in principal axes, quaternion kinematics relative to the local frame, tanks, first-order lags.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from mission_rocket.physics.aerodynamics import Flow, body_wrench, fin_wrench, flow
from mission_rocket.physics.atmosphere import Air, atmosphere
from mission_rocket.physics.gravity import Site, altitude, free_fall, rotation_vector
from mission_rocket.physics.propulsion import Wrench, engine_wrench, rcs_wrench
from mission_rocket.physics.state import Command, Dispersion, Motion
from mission_rocket.physics.vector import Scalar, Vector, quaternion_rate, rotate, rotate_back
from mission_rocket.physics.vehicle import Body, MassProperties, mass_properties
from mission_rocket.physics.wind import steady_wind


class Loads(NamedTuple):
    """Everything that acts on a vehicle now."""

    wrench: Wrench  # without gravity, body axes
    thrust: Scalar
    flow: Flow
    air: Air
    mass: MassProperties
    propellant_flow: Array
    rcs_flow: Array


def loads(body: Body, site: Site, dispersion: Dispersion, motion: Motion, command: Command, gust: Vector) -> Loads:
    """Forces and moments; `gust` is the turbulent wind in the local frame, held over a step [m/s]."""
    height = altitude(site, motion.position)
    air = atmosphere(height)
    wind = steady_wind(dispersion.wind, height) + gust
    met = flow(air, rotate_back(motion.attitude, motion.velocity - wind))
    mass = mass_properties(body, dispersion.dry_mass, motion.propellant, motion.rcs_propellant)
    engines, propellant_flow = engine_wrench(body, dispersion, motion, mass, air.pressure)
    rcs, rcs_flow = rcs_wrench(body, command, motion, mass)
    wrench = engines + rcs + body_wrench(body, dispersion, met, motion.rates, mass)
    wrench = wrench + fin_wrench(body, motion, met, mass)
    return Loads(wrench, engines.force.z, met, air, mass, propellant_flow, rcs_flow)


def motion_rate(
    body: Body, site: Site, dispersion: Dispersion, motion: Motion, command: Command, gust: Vector
) -> Motion:
    """d(Motion)/dt."""
    acting = loads(body, site, dispersion, motion, command, gust)
    felt = rotate(motion.attitude, acting.wrench.force * (1.0 / acting.mass.mass))
    acceleration = felt + free_fall(site, motion.position, motion.velocity)
    inertia, rates, moment = acting.mass.inertia, motion.rates, acting.wrench.moment
    turning = Vector(
        (moment.x - (inertia.z - inertia.y) * rates.y * rates.z) / inertia.x,
        (moment.y - (inertia.x - inertia.z) * rates.z * rates.x) / inertia.y,
        (moment.z - (inertia.y - inertia.x) * rates.x * rates.y) / inertia.z,
    )
    relative = rates
    if site.rotation:
        relative = rates - rotate_back(motion.attitude, rotation_vector(site))
    lag = dispersion.actuator_lag
    gimbal_rate = 1.0 / (body.gimbal.lag * lag)
    fin_rate = 1.0 / ((body.fins.lag if body.fins else 1.0) * lag)
    return Motion(
        motion.velocity,
        acceleration,
        quaternion_rate(motion.attitude, relative),
        turning,
        -acting.propellant_flow,
        -acting.rcs_flow,
        tuple(
            (told - level) / (group.lag * lag)
            for group, told, level in zip(body.engines, command.throttle, motion.levels, strict=True)
        ),
        (command.gimbal - motion.gimbal) * gimbal_rate,
        (command.fins - motion.fins) * fin_rate,
    )


def limited(body: Body, command: Command) -> Command:
    """A command within the actuators' ranges; each fin's sum of pitch or yaw and roll stays within its limit."""

    def clip(part: Scalar, bound: Scalar) -> Array:
        return jnp.clip(part, -bound, bound)

    throttle = tuple(
        jnp.where(told > 0.0, jnp.clip(jnp.asarray(told), group.throttle_min, 1.0), 0.0)
        for group, told in zip(body.engines, command.throttle, strict=True)
    )
    gimbal = Vector(*(clip(part, body.gimbal.limit) for part in command.gimbal))
    fins = command.fins
    if body.fins is not None:
        yaw, pitch = clip(fins.x, body.fins.limit), clip(fins.y, body.fins.limit)
        room = body.fins.limit - jnp.maximum(jnp.abs(yaw), jnp.abs(pitch))
        fins = Vector(yaw, pitch, clip(fins.z, room))
    return Command(throttle, gimbal, fins, Vector(*(clip(part, 1.0) for part in command.rcs)))
