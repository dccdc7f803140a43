"""Thrust, its moment and propellant flow of the engine groups and of the RCS.

Thrust of an engine at throttle l: l T_vacuum - A_exit p; flow l T_vacuum / (I_sp g0) (Sutton,
Rocket Propulsion Elements, eq. 2-13). Below the least throttle, while starting and stopping, the
back-pressure fades with the level.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from mission_rocket.physics.state import Command, Dispersion, Motion
from mission_rocket.physics.vector import Scalar, Vector
from mission_rocket.physics.vehicle import Body, MassProperties


class Wrench(NamedTuple):
    """Force [N] and moment about the centre of mass [N m] in body axes."""

    force: Vector
    moment: Vector

    def __add__(self, other: Wrench) -> Wrench:  # ty: ignore[incompatible-method-override]
        return Wrench(self.force + other.force, self.moment + other.moment)


def engine_wrench(
    body: Body, dispersion: Dispersion, motion: Motion, mass: MassProperties, pressure: Scalar
) -> tuple[Wrench, Array]:
    """Return the wrench of all engine groups and their propellant flow [kg/s]; an empty tank stops both."""
    yaw, pitch, roll = motion.gimbal
    direction = Vector(-jnp.sin(pitch) * jnp.cos(yaw), jnp.sin(yaw), jnp.cos(pitch) * jnp.cos(yaw))
    fed = jnp.where(motion.propellant > 0.0, 1.0, 0.0)
    arm_z = body.gimbal.height - mass.centre
    flow = force = jnp.zeros_like(motion.propellant)
    side_x = side_y = swirl = jnp.zeros_like(motion.propellant)
    number = 0
    for group, level in zip(body.engines, motion.levels, strict=True):
        running = jnp.clip(level * (1.0 / group.throttle_min), 0.0, 1.0)
        each = jnp.maximum(level * (group.thrust * dispersion.thrust) - running * group.exit_area * pressure, 0.0)
        each = each * fed
        count = at_x = at_y = at_radius = jnp.zeros_like(force)
        for x, y in group.positions:
            alive = jnp.where(dispersion.engine_out == number, 0.0, 1.0)
            number += 1
            count, at_x, at_y = count + alive, at_x + alive * x, at_y + alive * y
            at_radius = at_radius + alive * (x * x + y * y) ** 0.5
        force, side_x, side_y = force + each * count, side_x + each * at_x, side_y + each * at_y
        swirl = swirl + each * at_radius
        flow = flow + level * count * fed * (group.flow * dispersion.thrust / dispersion.specific_impulse)
    side_x = side_x - force * dispersion.centre_of_mass_x
    side_y = side_y - force * dispersion.centre_of_mass_y
    moment = Vector(
        side_y * direction.z - arm_z * force * direction.y,
        arm_z * force * direction.x - side_x * direction.z,
        side_x * direction.y - side_y * direction.x + swirl * jnp.sin(roll),
    )
    return Wrench(direction * force, moment), flow


def rcs_wrench(body: Body, command: Command, motion: Motion, mass: MassProperties) -> tuple[Wrench, Array]:
    """Return the wrench of the RCS and its gas flow [kg/s]; both are zero when it is empty or absent."""
    zero = jnp.zeros_like(motion.propellant)
    if body.rcs is None:
        return Wrench(Vector(zero, zero, zero), Vector(zero, zero, zero)), zero
    gas = jnp.where(motion.rcs_propellant > 0.0, body.rcs.thrust, 0.0)
    yaw, pitch, roll = (jnp.clip(part, -1.0, 1.0) * gas for part in command.rcs)
    arm = body.rcs.height - mass.centre
    wrench = Wrench(Vector(pitch, -yaw, zero), Vector(arm * yaw, arm * pitch, body.rcs.radius * roll))
    return wrench, (jnp.abs(yaw) + jnp.abs(pitch) + jnp.abs(roll)) * (1.0 / body.rcs.exhaust_speed)
