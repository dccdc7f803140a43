"""The site, gravity about the Earth's centre, and the Earth's rotation.

Local frame fixed to the pad: x downrange, y to its left, z up; with the default azimuth of 90
degrees x is east and y is north. Position is relative to the pad, so float32 keeps its resolution.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from mission_rocket.physics.constants import EARTH_MU_M3_S2, EARTH_RADIUS_M, EARTH_ROTATION_RAD_S
from mission_rocket.physics.vector import Vector, cross


class Site(NamedTuple):
    """A launch site; plain floats.

    `surface_gravity` is the gravitation at the pad without centrifugal acceleration [m/s2]; `rotation` [rad/s]
    is 0 for a sphere at rest; `latitude`, and `azimuth` of x clockwise from north [rad].
    """

    radius: float = EARTH_RADIUS_M
    surface_gravity: float = EARTH_MU_M3_S2 / EARTH_RADIUS_M**2
    rotation: float = EARTH_ROTATION_RAD_S
    latitude: float = math.radians(28.4858)  # LZ-1, Cape Canaveral
    azimuth: float = math.pi / 2.0
    constant_gravity: bool = False  # for comparison only: flat Earth


def rotation_vector(site: Site) -> Vector:
    """Return the Earth's rotation in the local frame [rad/s], as plain floats."""
    along = site.rotation * math.cos(site.latitude)
    return Vector(
        along * math.cos(site.azimuth), along * math.sin(site.azimuth), site.rotation * math.sin(site.latitude)
    )


def altitude(site: Site, position: Vector) -> Array:
    """Return the height above the sphere [m], (2 R z + r^2) / (|p| + R): float32 cannot resolve |p| - R."""
    square = position.x * position.x + position.y * position.y + position.z * position.z
    excess = 2.0 * site.radius * position.z + square
    return excess / (site.radius * jnp.sqrt(1.0 + excess / site.radius**2) + site.radius)


def up(site: Site, position: Vector) -> Vector:
    """Return the unit vector away from the Earth's centre."""
    height = position.z + site.radius
    scale = 1.0 / jnp.sqrt(position.x * position.x + position.y * position.y + height * height)
    return Vector(position.x * scale, position.y * scale, height * scale)


def gravity(site: Site, position: Vector) -> Vector:
    """Return the inverse-square gravitation towards (0, 0, -R) [m/s2]."""
    if site.constant_gravity:
        zero = jnp.zeros_like(position.x)
        return Vector(zero, zero, zero - site.surface_gravity)
    square = position.x * position.x + position.y * position.y + position.z * position.z
    excess = (2.0 * site.radius * position.z + square) / site.radius**2
    scale = -site.surface_gravity / site.radius / ((1.0 + excess) * jnp.sqrt(1.0 + excess))
    return Vector(position.x * scale, position.y * scale, (position.z + site.radius) * scale)


def inertial_acceleration(site: Site, position: Vector, velocity: Vector) -> Vector:
    """Return the Coriolis and centrifugal acceleration in the rotating local frame [m/s2]."""
    spin = rotation_vector(site)
    from_centre = Vector(position.x, position.y, position.z + site.radius)
    return -(cross(spin, velocity) * 2.0) - cross(spin, cross(spin, from_centre))


def free_fall(site: Site, position: Vector, velocity: Vector) -> Vector:
    """Return the acceleration of a body on which no surface force acts [m/s2]."""
    pull = gravity(site, position)
    return pull + inertial_acceleration(site, position, velocity) if site.rotation else pull
