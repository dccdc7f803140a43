"""Thrust, its moment and propellant flow of the engine groups and of the RCS.

Thrust of an engine at throttle l: l T_vacuum - A_exit p; flow l T_vacuum / (I_sp g0) (Sutton,
Rocket Propulsion Elements, eq. 2-13). Below the least throttle, while starting and stopping, the
back-pressure fades with the level.
"""

from __future__ import annotations

import itertools
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


class Feed(NamedTuple):
    """What the tanks feed: 1 for a flow as the engines and the RCS want it, 0 for none."""

    engines: Scalar
    rcs: Scalar

    @classmethod
    def of(cls, motion: Motion) -> Feed:
        """Return the feed of tanks that are empty or not."""
        return cls(jnp.where(motion.propellant > 0.0, 1.0, 0.0), jnp.where(motion.rcs_propellant > 0.0, 1.0, 0.0))


def engine_wrench(
    body: Body, dispersion: Dispersion, motion: Motion, mass: MassProperties, pressure: Scalar, feed: Feed
) -> tuple[Wrench, Array]:
    """Return the wrench of all engine groups and their propellant flow [kg/s]."""
    yaw, pitch, roll = motion.gimbal
    direction = Vector(-jnp.sin(pitch) * jnp.cos(yaw), jnp.sin(yaw), jnp.cos(pitch) * jnp.cos(yaw))
    arm_z = body.gimbal.height - mass.centre
    force = side_x = side_y = swirl = jnp.zeros_like(motion.propellant)
    for group, level, alive in zip(body.engines, motion.levels, _alive(body, dispersion), strict=True):
        running = jnp.clip(level * (1.0 / group.throttle_min), 0.0, 1.0)
        each = jnp.maximum(level * (group.thrust * dispersion.thrust) - running * group.exit_area * pressure, 0.0)
        each = each * feed.engines
        count = at_x = at_y = at_radius = jnp.zeros_like(force)
        for (x, y), lives in zip(group.positions, alive, strict=True):
            count, at_x, at_y = count + lives, at_x + lives * x, at_y + lives * y
            at_radius = at_radius + lives * (x * x + y * y) ** 0.5
        force, side_x, side_y = force + each * count, side_x + each * at_x, side_y + each * at_y
        swirl = swirl + each * at_radius
    side_x = side_x - force * dispersion.centre_of_mass_x
    side_y = side_y - force * dispersion.centre_of_mass_y
    moment = Vector(
        side_y * direction.z - arm_z * force * direction.y,
        arm_z * force * direction.x - side_x * direction.z,
        side_x * direction.y - side_y * direction.x + swirl * jnp.sin(roll),
    )
    return Wrench(direction * force, moment), engine_flow(body, dispersion, motion.levels) * feed.engines


def engine_flow(body: Body, dispersion: Dispersion, levels: tuple[Scalar, ...]) -> Array:
    """Return the propellant flow of all engine groups from tanks that feed them [kg/s]."""
    flow = jnp.zeros_like(dispersion.thrust)
    for group, level, alive in zip(body.engines, levels, _alive(body, dispersion), strict=True):
        flow = flow + level * sum(alive) * (group.flow * dispersion.thrust / dispersion.specific_impulse)
    return flow


def _alive(body: Body, dispersion: Dispersion) -> list[list[Array]]:
    """Return by group and engine 1, or 0 for the engine that never lights."""
    number = itertools.count()
    return [
        [jnp.where(dispersion.engine_out == next(number), 0.0, 1.0) for _ in each.positions] for each in body.engines
    ]


def rcs_wrench(body: Body, command: Command, mass: MassProperties, feed: Feed) -> tuple[Wrench, Array]:
    """Return the wrench of the RCS and its gas flow [kg/s]; both are zero when it is absent."""
    zero = jnp.zeros_like(feed.rcs)
    if body.rcs is None:
        return Wrench(Vector(zero, zero, zero), Vector(zero, zero, zero)), zero
    yaw, pitch, roll = (jnp.clip(part, -1.0, 1.0) * (feed.rcs * body.rcs.thrust) for part in command.rcs)
    arm = body.rcs.height - mass.centre
    wrench = Wrench(Vector(pitch, -yaw, zero), Vector(arm * yaw, arm * pitch, body.rcs.radius * roll))
    return wrench, rcs_flow(body, command) * feed.rcs


def rcs_flow(body: Body, command: Command) -> Array:
    """Return the gas flow of the RCS from a tank that feeds it [kg/s]."""
    wanted = sum(jnp.abs(jnp.clip(part, -1.0, 1.0)) for part in command.rcs)
    return jnp.asarray(wanted) * (body.rcs.thrust / body.rcs.exhaust_speed if body.rcs else 0.0)
