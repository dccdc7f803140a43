"""Classical guidance and control that several phases' guides share.

Angles and moments are about the body's x, y and z axes. `Turn` is what the actuators are asked for.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from mission_rocket.flight import Flight, View, body_components
from mission_rocket.physics.atmosphere import atmosphere
from mission_rocket.physics.tables import lookup_grid
from mission_rocket.physics.vector import Scalar, Vector, cross, dot, norm
from mission_rocket.physics.vehicle import Body

_GIMBAL_WEIGHT = 0.1  # found by search over dispersed flights


class Turn(NamedTuple):
    """Actuator settings as shares of their limits, each in [-1, 1]; yaw about x, pitch about y, roll about z."""

    gimbal: Vector
    fins: Vector
    rcs: Vector


def point(
    body: Body,
    flight: Flight,
    seen: View,
    wanted: Vector,
    stiffness_gain: Scalar,
    damping_gain: Scalar,
    rate_limit: float = 0.3,
    hold: Scalar = 1.0,
    gimballed: Array | float = 1.0,
) -> Turn:
    """Turn the body's axis to the unit vector `wanted` (local), and stop any roll.

    A proportional-derivative law on the angle, feed-forward of the aerodynamic moment at the wanted
    incidence (`hold` of it), and one allocation over all actuators that have an effect.

    Args:
      body, flight, seen: the vehicle and its view.
      wanted: where the nose should point.
      stiffness_gain: angular acceleration per angle [1/s2].
      damping_gain: angular deceleration per rate [1/s].
      rate_limit: largest rate that the angle asks for [rad/s].
      hold: share of the aerodynamic moment that is fed forward.
      gimballed: whether the engines may turn the vehicle.
    """
    target = body_components(flight, wanted)
    behind = jnp.where(target.z < 0.0, 1.0, 0.0)
    across = jnp.sqrt(target.x * target.x + target.y * target.y + 1e-8)
    angle = jnp.arctan2(across, target.z)
    # straight behind there is no plane to turn in: take the pitch plane
    turn_x = jnp.where(across > 1e-3, -target.y / across, 0.0) * angle
    turn_y = jnp.where(across > 1e-3, target.x / across, behind) * angle
    bound = rate_limit * damping_gain

    def pd(turn: Array, rate: Scalar) -> Array:
        return jnp.clip(stiffness_gain * turn, -bound, bound) - damping_gain * rate

    leading = jnp.where(dot(seen.axis, seen.velocity) < 0.0, -1.0, 1.0)
    off_flow = body_components(flight, cross(seen.toward * leading, wanted))
    hold_moment = hold * seen.stiffness
    moment = Vector(
        seen.inertia.x * pd(turn_x, seen.rates.x) + hold_moment * off_flow.x,
        seen.inertia.y * pd(turn_y, seen.rates.y) + hold_moment * off_flow.y,
        -seen.inertia.z * damping_gain * seen.rates.z,
    )
    return allocate(body, seen, moment, gimballed)


def allocate(body: Body, seen: View, moment: Vector, gimballed: Array | float = 1.0) -> Turn:
    """Share a moment [N m]: the fins first, the more the stronger they are, then the gimbal, the RCS the rest.

    Fins at the top push to the side to which the nose turns, engines at the base to the other side:
    so the gimbal's share counts little while the fins are strong.
    """
    gimbal = seen.thrust * (seen.centre - body.gimbal.height) * body.gimbal.limit * gimballed
    fins = roll_fins = jnp.zeros_like(gimbal)
    if body.fins is not None:
        fins = seen.fin_slope * (body.fins.height - seen.centre) * body.fins.limit
        roll_fins = 2.0 * seen.fin_slope * body.fins.radius * body.fins.limit

    def share(part: Scalar, effect: Scalar, total: Scalar) -> Array:
        return jnp.clip(part * effect / (total + 1e6), -1.0, 1.0)

    both = _GIMBAL_WEIGHT * gimbal * gimbal + fins * fins
    fins_x, fins_y = share(moment.x, fins, both), share(moment.y, fins, both)
    fins_z = share(moment.z, roll_fins, roll_fins * roll_fins)
    left_x, left_y = moment.x - fins_x * fins, moment.y - fins_y * fins
    gimbal_x, gimbal_y = share(left_x, gimbal, gimbal * gimbal), share(left_y, gimbal, gimbal * gimbal)
    zero = jnp.zeros_like(gimbal)
    rcs = Vector(zero, zero, zero)
    if body.rcs is not None:
        arm = body.rcs.thrust * jnp.maximum(body.rcs.height - seen.centre, 1.0)
        rcs = Vector(
            jnp.clip((left_x - gimbal_x * gimbal) / arm, -1.0, 1.0),
            jnp.clip((left_y - gimbal_y * gimbal) / arm, -1.0, 1.0),
            jnp.clip((moment.z - fins_z * roll_fins) / (body.rcs.thrust * body.rcs.radius), -1.0, 1.0),
        )
    return Turn(Vector(gimbal_x, gimbal_y, zero), Vector(fins_x, fins_y, fins_z), rcs)


def accelerate_across(seen: View, extra: Vector, thrust: Scalar, floor: float, largest: Array | float) -> Vector:
    """The attitude that gives a horizontal acceleration on top of drag and thrust against the flow.

    Tilting the nose by an angle pushes with the thrust's side component and, the other way, with the
    lift that the fins do not cancel: above some dynamic pressure the useful direction reverses.

    Args:
      seen: the view.
      extra: horizontal acceleration [m/s2], z ignored.
      thrust: [N], of the engines lit.
      floor: regularisation where both effects cancel [N/rad].
      largest: incidence that is not exceeded [rad].

    Returns:
      a unit vector for the body's axis.
    """
    effect = thrust - seen.trimmed_slope
    per = seen.mass * effect / (effect * effect + floor * floor)
    back = -seen.toward
    tilt_x, tilt_y = per * extra.x, per * extra.y
    size = jnp.sqrt(tilt_x * tilt_x + tilt_y * tilt_y + 1e-12)
    # where it reverses a tilt does nothing: pass through it upright, not from one bound to the other
    bound = largest * effect * effect / (effect * effect + floor * floor)
    scale = jnp.minimum(1.0, bound / size)
    axis = Vector(back.x + tilt_x * scale, back.y + tilt_y * scale, back.z)
    return axis * (1.0 / norm(axis))


def within(axis: Vector, vertical: Vector, largest: Array) -> Vector:
    """A unit vector brought to at most `largest` [rad] from the vertical."""
    along = dot(axis, vertical)
    across = axis - vertical * along
    size = norm(across, 1e-12)
    kept = jnp.minimum(size, jnp.sin(largest))
    return vertical * jnp.sqrt(1.0 - kept * kept) + across * (kept / size)


def found_lag(before: Array, was: Scalar, now: Scalar, told: Scalar, known: Array, period: float) -> Array:
    """An actuator's lag [s], from how far it came in a period towards what it was told; else as before.

    Args:
      before: the lag found so far.
      was, now: where the actuator was before and after the period, as a share of its range.
      told: where it was told to go throughout it.
      known: whether it was free to follow.
    """
    gap, left = was - told, now - told
    known = known & (jnp.abs(gap) > 0.05)
    ratio = jnp.clip(left / jnp.where(known, gap, 1.0), 0.05, 0.95)
    return jnp.where(known, -period / jnp.log(ratio), before)


def found_drag(body: Body, seen: View, before: Array) -> Array:
    """Drag over nominal drag, from the accelerometers; kept, and slowly followed where there is enough of it."""
    incidence = norm(seen.axis + seen.toward, 1e-8)
    nominal = lookup_grid(body.aerodynamics.engine_first.drag, incidence, seen.mach)
    nominal = jnp.maximum(seen.pressure * body.aerodynamics.area * nominal, 1.0)
    braking = seen.mass * -dot(seen.felt, seen.toward) + seen.thrust * dot(seen.axis, seen.toward)
    enough = jnp.where(seen.thrust > 1e3, 3000.0, 100.0)  # Pa; the thrust's direction is known less well
    trust = 0.2 * jnp.clip((seen.pressure - enough) / enough, 0.0, 1.0)
    return before + trust * (jnp.clip(braking / nominal, 0.7, 1.3) - before)


def found_thrust(body: Body, engines: Scalar, seen: View, flight: Flight, before: Array) -> Array:
    """Thrust over nominal thrust of `engines` engines like the first, from what they give; kept while they start."""
    engine, level = body.engines[0], flight.state.motion.levels[0]
    against = engine.exit_area * atmosphere(seen.altitude).pressure
    # back-pressure fades below the least throttle: there thrust says little
    known = level > engine.throttle_min
    nominal = engines * engine.thrust * jnp.maximum(level, engine.throttle_min)
    return jnp.where(known, jnp.clip((seen.thrust + engines * against) / nominal, 0.5, 1.2), before)


def with_thrust(body: Body, factor: Array) -> Body:
    """The vehicle with `factor` times its engines' nominal thrust and flow."""
    engines = (group._replace(thrust=group.thrust * factor, flow=group.flow * factor) for group in body.engines)
    return body._replace(engines=tuple(engines))
