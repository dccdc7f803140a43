"""Vectors and unit quaternions of scalars, so that a batch of them is contiguous by component.

`Quaternion` turns body axes into local ones: `rotate(q, v_body) = v_local`.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

Scalar = Array | float


class Vector(NamedTuple):
    """Three components; arithmetic is componentwise, not that of a tuple."""

    x: Scalar
    y: Scalar
    z: Scalar

    def __add__(self, other: Vector) -> Vector:  # ty: ignore[incompatible-method-override]
        return Vector(self.x + other.x, self.y + other.y, self.z + other.z)

    def __sub__(self, other: Vector) -> Vector:
        return Vector(self.x - other.x, self.y - other.y, self.z - other.z)

    def __mul__(self, factor: Scalar) -> Vector:  # ty: ignore[incompatible-method-override]
        return Vector(self.x * factor, self.y * factor, self.z * factor)

    def __neg__(self) -> Vector:
        return Vector(-self.x, -self.y, -self.z)


class Quaternion(NamedTuple):
    """Unit quaternion, scalar first; body to local."""

    w: Scalar
    x: Scalar
    y: Scalar
    z: Scalar


def dot(a: Vector, b: Vector) -> Scalar:
    """Return the scalar product."""
    return a.x * b.x + a.y * b.y + a.z * b.z


def cross(a: Vector, b: Vector) -> Vector:
    """Return the vector product."""
    return Vector(a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x)


def norm(a: Vector, floor: float = 1e-12) -> Array:
    """Return the length; `floor` (of its square) keeps the gradient at zero finite."""
    return jnp.sqrt(dot(a, a) + floor)


def rotate(q: Quaternion, v: Vector) -> Vector:
    """Turn body components into local ones: v + 2 w (u x v) + 2 u x (u x v), u the vector part."""
    u = Vector(q.x, q.y, q.z)
    t = cross(u, v) * 2.0
    return v + t * q.w + cross(u, t)


def rotate_back(q: Quaternion, v: Vector) -> Vector:
    """Turn local components into body ones."""
    return rotate(Quaternion(q.w, -q.x, -q.y, -q.z), v)


def body_axis(q: Quaternion) -> Vector:
    """Return the body's z axis (towards the nose) in local components."""
    return Vector(2.0 * (q.x * q.z + q.w * q.y), 2.0 * (q.y * q.z - q.w * q.x), 1.0 - 2.0 * (q.x * q.x + q.y * q.y))


def quaternion_rate(q: Quaternion, rates: Vector) -> Quaternion:
    """Return dq/dt = q (0, rates) / 2 for body rates [rad/s] relative to the local frame."""
    r = rates * 0.5
    return Quaternion(
        -q.x * r.x - q.y * r.y - q.z * r.z,
        q.w * r.x + q.y * r.z - q.z * r.y,
        q.w * r.y + q.z * r.x - q.x * r.z,
        q.w * r.z + q.x * r.y - q.y * r.x,
    )


def normalise(q: Quaternion) -> Quaternion:
    """Scale to unit length."""
    scale = 1.0 / jnp.sqrt(q.w * q.w + q.x * q.x + q.y * q.y + q.z * q.z)
    return Quaternion(q.w * scale, q.x * scale, q.y * scale, q.z * scale)


def multiply(a: Quaternion, b: Quaternion) -> Quaternion:
    """Return the Hamilton product: first b, then a."""
    return Quaternion(
        a.w * b.w - a.x * b.x - a.y * b.y - a.z * b.z,
        a.w * b.x + a.x * b.w + a.y * b.z - a.z * b.y,
        a.w * b.y - a.x * b.z + a.y * b.w + a.z * b.x,
        a.w * b.z + a.x * b.y - a.y * b.x + a.z * b.w,
    )


def quaternion_of_axis(axis: Vector) -> Quaternion:
    """Return the attitude without roll whose body z axis is `axis` (unit, local); the shortest turn from upright."""
    w = jnp.sqrt(jnp.maximum(0.5 * (1.0 + axis.z), 1e-12))
    return normalise(Quaternion(w, -0.5 * axis.y / w, 0.5 * axis.x / w, jnp.zeros_like(w)))
