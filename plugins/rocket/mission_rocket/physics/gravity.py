"""The site, gravity about the Earth's centre, and the Earth's rotation.

Local frame fixed to the pad: x downrange, y to its left, z up; with the default azimuth of 90
degrees x is east and y is north. Position is relative to the pad, so float32 keeps its resolution.

The Earth is a sphere with inverse-square gravity. A site may have an ellipsoid (`flattening`), whose normal is then
up, and the oblateness of gravity (`j2`); both are plain floats, so that a site without them computes nothing more.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from mission_rocket.physics.constants import EARTH_MU_M3_S2, EARTH_RADIUS_M, EARTH_ROTATION_RAD_S
from mission_rocket.physics.vector import Vector, cross, dot
from mission_rocket.physics.wind import Profile

WGS84_RADIUS_M = 6_378_137.0  # NIMA TR8350.2, with the flattening and J2 below
WGS84_FLATTENING = 1.0 / 298.257223563
WGS84_J2 = 1.082629821e-3


class Site(NamedTuple):
    """A launch site; plain floats.

    `radius` of the sphere, or of the equator of an ellipsoid [m]; `surface_gravity` is mu / radius^2, the gravitation
    at the pad without centrifugal acceleration and without J2 [m/s2]; `rotation` [rad/s] is 0 for a sphere at rest;
    geodetic `latitude`, and `azimuth` of x clockwise from north [rad]; `winds` replaces the wind envelope.
    """

    radius: float = EARTH_RADIUS_M
    surface_gravity: float = EARTH_MU_M3_S2 / EARTH_RADIUS_M**2
    rotation: float = EARTH_ROTATION_RAD_S
    latitude: float = math.radians(28.4858)  # LZ-1, Cape Canaveral
    azimuth: float = math.pi / 2.0
    constant_gravity: bool = False  # for comparison only: flat Earth
    flattening: float = 0.0
    j2: float = 0.0
    winds: Profile | None = None


def wgs84(**parts: Any) -> Site:
    """Return a site on the WGS-84 ellipsoid with J2; `parts` are further fields of the site."""
    gravity = EARTH_MU_M3_S2 / WGS84_RADIUS_M**2
    return Site(WGS84_RADIUS_M, gravity, flattening=WGS84_FLATTENING, j2=WGS84_J2, **parts)


def polar_axis(site: Site) -> Vector:
    """Return the unit vector of the Earth's axis, towards north, in the local frame, as plain floats."""
    along = math.cos(site.latitude)
    return Vector(along * math.cos(site.azimuth), along * math.sin(site.azimuth), math.sin(site.latitude))


def pad_from_centre(site: Site) -> Vector:
    """Return the position of the pad from the Earth's centre in the local frame [m], as plain floats."""
    eccentricity = site.flattening * (2.0 - site.flattening)
    sine, cosine = math.sin(site.latitude), math.cos(site.latitude)
    normal = site.radius / math.sqrt(1.0 - eccentricity * sine**2)  # to the Earth's axis, along the vertical
    north = -normal * eccentricity * sine * cosine
    return Vector(
        north * math.cos(site.azimuth), north * math.sin(site.azimuth), normal * (1.0 - eccentricity * sine**2)
    )


def rotation_vector(site: Site) -> Vector:
    """Return the Earth's rotation in the local frame [rad/s], as plain floats."""
    along = site.rotation * math.cos(site.latitude)
    return Vector(
        along * math.cos(site.azimuth), along * math.sin(site.azimuth), site.rotation * math.sin(site.latitude)
    )


def altitude(site: Site, position: Vector) -> Array:
    """Return the height above the sphere or ellipsoid [m], on a sphere (2 R z + r^2) / (|p| + R).

    float32 cannot resolve |p| - R.
    """
    if site.flattening:
        return _altitude_above_ellipsoid(site, position)
    square = position.x * position.x + position.y * position.y + position.z * position.z
    excess = 2.0 * site.radius * position.z + square
    return excess / (site.radius * jnp.sqrt(1.0 + excess / site.radius**2) + site.radius)


def up(site: Site, position: Vector) -> Vector:
    """Return the unit vector away from the Earth's centre, or along the normal of the ellipsoid."""
    if site.flattening:
        return _up_from_ellipsoid(site, position)
    height = position.z + site.radius
    scale = 1.0 / jnp.sqrt(position.x * position.x + position.y * position.y + height * height)
    return Vector(position.x * scale, position.y * scale, height * scale)


def gravity(site: Site, position: Vector) -> Vector:
    """Return the gravitation [m/s2]: inverse-square towards the Earth's centre, with J2 if the site has it."""
    if site.constant_gravity:
        zero = jnp.zeros_like(position.x)
        return Vector(zero, zero, zero - site.surface_gravity)
    if site.flattening or site.j2:
        return _oblate_gravity(site, position)
    square = position.x * position.x + position.y * position.y + position.z * position.z
    excess = (2.0 * site.radius * position.z + square) / site.radius**2
    scale = -site.surface_gravity / site.radius / ((1.0 + excess) * jnp.sqrt(1.0 + excess))
    return Vector(position.x * scale, position.y * scale, (position.z + site.radius) * scale)


def inertial_acceleration(site: Site, position: Vector, velocity: Vector) -> Vector:
    """Return the Coriolis and centrifugal acceleration in the rotating local frame [m/s2]."""
    spin = rotation_vector(site)
    if site.flattening:
        from_centre = position + pad_from_centre(site)
    else:
        from_centre = Vector(position.x, position.y, position.z + site.radius)
    return -(cross(spin, velocity) * 2.0) - cross(spin, cross(spin, from_centre))


def free_fall(site: Site, position: Vector, velocity: Vector) -> Vector:
    """Return the acceleration of a body on which no surface force acts [m/s2]."""
    pull = gravity(site, position)
    return pull + inertial_acceleration(site, position, velocity) if site.rotation else pull


@functools.cache
def resting_gravity(site: Site, height: float = 0.0) -> float:
    """Return the acceleration at which a body at rest above the pad begins to fall [m/s2], as a plain float."""
    with jax.ensure_compile_time_eval():
        still = Vector(*(jnp.zeros(()) for _ in range(3)))
        return float(-free_fall(site, still._replace(z=jnp.asarray(height, jnp.float32)), still).z)


def _oblate_gravity(site: Site, position: Vector) -> Vector:
    """Return the gravitation of a mass point and of J2 (Vallado, Fundamentals of Astrodynamics, section 8.7).

    a = -mu / r^3 ((1 + c (1 - 5 s^2)) r + 2 c s |r| k), c = 1.5 J2 (radius / r)^2, k the Earth's axis, s = k r / |r|.
    """
    pad, axis = pad_from_centre(site), polar_axis(site)
    begin = float(dot(pad, pad))
    excess = (2.0 * dot(pad, position) + dot(position, position)) / begin
    root = jnp.sqrt(1.0 + excess)
    there = position + pad
    sine = dot(there, axis) / (root * math.sqrt(begin))
    share = 1.5 * site.j2 * site.radius**2 / begin / (1.0 + excess)
    pull = -site.surface_gravity * (site.radius**2 / begin**1.5) / ((1.0 + excess) * root)
    along = pull * 2.0 * share * sine * (root * math.sqrt(begin))
    return there * (pull * (1.0 + share * (1.0 - 5.0 * sine * sine))) + Vector(*axis) * along


def _stretched(site: Site, there: Vector) -> Vector:
    """Return the gradient of the ellipsoid's equation at a point from the centre, times radius^2 / 2."""
    axis = polar_axis(site)
    return there + axis * (((1.0 - site.flattening) ** -2 - 1.0) * dot(there, axis))


def _normal(site: Site, there: Vector) -> Vector:
    """Return the unit normal of the ellipsoid through a point from the centre, similar to the Earth's."""
    gradient = _stretched(site, there)
    return gradient * (1.0 / jnp.sqrt(dot(gradient, gradient)))


def _altitude_above_ellipsoid(site: Site, position: Vector) -> Array:
    """Return the height above the ellipsoid [m]; right to 0.1 mm at 10 km and to 10 mm at 100 km.

    The point is on an ellipsoid that is 1 + e times as large, where 2 e + e^2 = (2 p G + p S p) / radius^2 for the
    position p relative to the pad, the matrix S of `_stretched` and the gradient G at the pad, which is vertical. The
    distance between both ellipsoids along the common normal n is e times the distance of the tangent plane from the
    centre, sqrt(radius^2 cos^2 + b^2 sin^2) of the latitude of n. Nothing of the size of the Earth cancels.
    """
    pad, axis = pad_from_centre(site), polar_axis(site)
    eccentricity = site.flattening * (2.0 - site.flattening)
    steepness = math.sqrt(dot(_stretched(site, pad), _stretched(site, pad)))
    excess = (2.0 * steepness * position.z + dot(position, _stretched(site, position))) / site.radius**2
    sine = dot(_normal(site, position + pad), axis)
    plane = site.radius * jnp.sqrt(1.0 - eccentricity * sine * sine)
    return plane * excess / (1.0 + jnp.sqrt(1.0 + excess))


def _up_from_ellipsoid(site: Site, position: Vector) -> Vector:
    """Return the normal of the ellipsoid below a point."""
    there = position + pad_from_centre(site)
    foot = there - _normal(site, there) * _altitude_above_ellipsoid(site, position)
    return _normal(site, foot)
