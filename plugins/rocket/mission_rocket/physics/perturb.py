"""A vehicle moved by noise that is still a vehicle: a unit quaternion, levels, tanks and angles in their ranges."""

from __future__ import annotations

import jax.numpy as jnp

from mission_rocket.physics.state import Motion, State
from mission_rocket.physics.vector import Quaternion, Scalar, Vector, multiply, norm, normalise
from mission_rocket.physics.vehicle import Body


def perturb(body: Body, state: State, noise: State) -> State:
    """Return a state moved by noise.

    Numbers without bounds get the noise added. Counters, the time since an engine was lit and rounding errors stay.

    Args:
      body: the vehicle.
      state: of the vehicle.
      noise: a tree like it, of zero mean.
    """
    return state._replace(
        motion=_moved(body, state.motion, noise.motion),
        gust=type(state.gust)(*(a + b for a, b in zip(state.gust, noise.gust, strict=True))),
        time=jnp.maximum(state.time + noise.time, 0.0),
    )


def _moved(body: Body, motion: Motion, noise: Motion) -> Motion:
    fins = body.fins.limit if body.fins else 0.0
    return Motion(
        position=motion.position + noise.position,
        velocity=motion.velocity + noise.velocity,
        attitude=turned(motion.attitude, noise.attitude),
        rates=motion.rates + noise.rates,
        propellant=jnp.maximum(motion.propellant + noise.propellant, 0.0),
        rcs_propellant=jnp.maximum(motion.rcs_propellant + noise.rcs_propellant, 0.0),
        levels=tuple(jnp.clip(a + b, 0.0, 1.0) for a, b in zip(motion.levels, noise.levels, strict=True)),
        gimbal=_within(motion.gimbal + noise.gimbal, body.gimbal.limit),
        fins=_within(motion.fins + noise.fins, fins),
    )


def _within(angles: Vector, limit: Scalar) -> Vector:
    return Vector(*(jnp.clip(angle, -limit, limit) for angle in angles))


def turned(attitude: Quaternion, noise: Quaternion) -> Quaternion:
    """Return an attitude turned by the part of a noise that is tangent to the unit sphere, as a rotation vector.

    The noise is a difference of quaternions. To first order a turn by v in body axes moves q by q (0, v) / 2, so that the
    tangent part of n is the turn v = 2 Im(q* n). The radial part, which would change the norm, is left out.
    """
    q = normalise(attitude)
    part = multiply(Quaternion(q.w, -q.x, -q.y, -q.z), noise)
    half = Vector(part.x, part.y, part.z)
    angle = norm(half)  # half of the angle of the turn
    axis = half * (jnp.sin(angle) / angle)
    return normalise(multiply(q, Quaternion(jnp.cos(angle), axis.x, axis.y, axis.z)))
