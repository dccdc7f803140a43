"""Rigid-body motion with six degrees of freedom, variable mass and lagging actuators.

The rates of `Motion`: translation in the rotating local frame, Euler's equations about the centre of
mass in principal axes, quaternion kinematics relative to the local frame, tanks and first-order lags.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from mission_rocket.physics.aerodynamics import Flow, body_wrench, fin_wrench, flow
from mission_rocket.physics.atmosphere import Air, atmosphere
from mission_rocket.physics.gravity import Site, altitude, free_fall, rotation_vector
from mission_rocket.physics.propulsion import Feed, Wrench, engine_wrench, rcs_wrench
from mission_rocket.physics.state import Command, Dispersion, Motion
from mission_rocket.physics.tracing import traced_once
from mission_rocket.physics.vector import Scalar, Vector, quaternion_rate, rotate, rotate_back
from mission_rocket.physics.vehicle import Body, MassProperties, mass_properties
from mission_rocket.physics.wind import steady_wind


class Loads(NamedTuple):
    """The loads on a vehicle; `wrench` is in body axes and excludes gravity, `wind` is the steady wind at the vehicle."""

    wrench: Wrench
    thrust: Scalar
    flow: Flow
    air: Air
    wind: Vector
    mass: MassProperties
    propellant_flow: Array
    rcs_flow: Array


@traced_once(2)
def loads(
    body: Body,
    site: Site,
    dispersion: Dispersion,
    motion: Motion,
    command: Command,
    gust: Vector,
    feed: Feed | None = None,
) -> Loads:
    """Evaluate all forces and moments.

    `gust` is the turbulent wind in the local frame, held over a step [m/s]; `feed` is that of a stage of the integrator.
    """
    height = altitude(site, motion.position)
    air = atmosphere(height)
    wind = steady_wind(dispersion.wind, height, site.winds)
    stream = flow(air, rotate_back(motion.attitude, motion.velocity - (wind + gust)))
    mass = mass_properties(body, dispersion.dry_mass, motion.propellant, motion.rcs_propellant)
    feed = Feed.of(motion) if feed is None else feed
    engines, propellant_flow = engine_wrench(body, dispersion, motion, mass, air.pressure, feed)
    rcs, gas_flow = rcs_wrench(body, command, mass, feed)
    wrench = engines + rcs + body_wrench(body, dispersion, stream, motion.rates, mass)
    wrench = wrench + fin_wrench(body, motion, stream, mass)
    return Loads(
        wrench=wrench,
        thrust=engines.force.z,
        flow=stream,
        air=air,
        wind=wind,
        mass=mass,
        propellant_flow=propellant_flow,
        rcs_flow=gas_flow,
    )


def motion_rate(
    body: Body,
    site: Site,
    dispersion: Dispersion,
    motion: Motion,
    command: Command,
    gust: Vector,
    feed: Feed | None = None,
) -> Motion:
    """Return the time derivative of the motion."""
    acting = loads(body, site, dispersion, motion, command, gust, feed)
    specific_force = rotate(motion.attitude, acting.wrench.force * (1.0 / acting.mass.mass))
    acceleration = specific_force + free_fall(site, motion.position, motion.velocity)
    inertia, rates, moment = acting.mass.inertia, motion.rates, acting.wrench.moment
    angular_acceleration = Vector(
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
        position=motion.velocity,
        velocity=acceleration,
        attitude=quaternion_rate(motion.attitude, relative),
        rates=angular_acceleration,
        propellant=-acting.propellant_flow,
        rcs_propellant=-acting.rcs_flow,
        levels=tuple(
            (throttle - level) / (group.lag * lag)
            for group, throttle, level in zip(body.engines, command.throttle, motion.levels, strict=True)
        ),
        gimbal=(command.gimbal - motion.gimbal) * gimbal_rate,
        fins=(command.fins - motion.fins) * fin_rate,
    )


def limited(body: Body, command: Command) -> Command:
    """Clip a command to the ranges of the actuators; each fin keeps pitch or yaw plus roll within its limit."""

    def clip(part: Scalar, bound: Scalar) -> Array:
        return jnp.clip(part, -bound, bound)

    throttle = tuple(
        jnp.where(wanted > 0.0, jnp.clip(jnp.asarray(wanted), group.throttle_min, 1.0), 0.0)
        for group, wanted in zip(body.engines, command.throttle, strict=True)
    )
    gimbal = Vector(*(clip(part, body.gimbal.limit) for part in command.gimbal))
    fins = command.fins
    if body.fins is not None:
        yaw, pitch = clip(fins.x, body.fins.limit), clip(fins.y, body.fins.limit)
        room = body.fins.limit - jnp.maximum(jnp.abs(yaw), jnp.abs(pitch))
        fins = Vector(yaw, pitch, clip(fins.z, room))
    return Command(throttle, gimbal, fins, Vector(*(clip(part, 1.0) for part in command.rcs)))
