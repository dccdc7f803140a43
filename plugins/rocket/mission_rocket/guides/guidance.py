"""Classical guidance and control that several guidance laws share.

Angles and moments are about the body's x, y and z axes.
"""

from __future__ import annotations

import dataclasses
from typing import Generic, NamedTuple, TypeVar

import jax.numpy as jnp
from jax import Array

from mission_rocket.controls import Controls
from mission_rocket.measurement import Measurement
from mission_rocket.physics.atmosphere import atmosphere
from mission_rocket.physics.gravity import Site
from mission_rocket.physics.tables import lookup_grid
from mission_rocket.physics.vector import Scalar, Vector, cross, dot, norm
from mission_rocket.physics.vehicle import Body

_OFFSET_S = 3.0
_GIMBAL_WEIGHT = 0.1  # from a search over dispersed flights


P = TypeVar("P")


@dataclasses.dataclass(frozen=True, eq=False)
class GuidanceLaw(Generic[P]):
    """The classical controller of a phase, with the parameters of the phase and its vehicle."""

    params: P
    body: Body
    site: Site
    controls: Controls
    period_s: float


class Turn(NamedTuple):
    """Actuator settings as shares of their limits, each in [-1, 1]; yaw about x, pitch about y, roll about z."""

    gimbal: Vector
    fins: Vector
    rcs: Vector


def point(
    body: Body,
    measured: Measurement,
    target: Vector,
    stiffness_gain: Scalar,
    damping_gain: Scalar,
    rate_limit: float = 0.3,
    hold: Scalar = 1.0,
    gimballed: Array | float = 1.0,
    finned: Array | float = 1.0,
    offset: Vector | None = None,
    roll_gain: float = 1.0,
) -> Turn:
    """Turn the body's axis to a unit vector (local), and stop any roll.

    A proportional-derivative law on the angle, feed-forward of the aerodynamic moment at the target
    incidence (`hold` of it) and of an offset of the centre of mass, and one allocation over all actuators that have an
    effect.

    Args:
      body, measured: the vehicle.
      target: required direction of the nose.
      stiffness_gain: angular acceleration per angle [1/s2].
      damping_gain: angular deceleration per rate [1/s].
      rate_limit: largest rate that the angle demands [rad/s].
      hold: share of the aerodynamic moment that is fed forward.
      gimballed: whether the engines may turn the vehicle.
      finned: whether the fins may.
      offset: of the forces, as `estimate_offset` finds it; None: none.
      roll_gain: damping of the roll over `damping_gain`.
    """
    there = measured.in_body(target)
    behind = jnp.where(there.z < 0.0, 1.0, 0.0)
    across = jnp.sqrt(there.x * there.x + there.y * there.y + 1e-8)
    angle = jnp.arctan2(across, there.z)
    # with the target straight behind, the plane of the turn is undefined: use the pitch plane
    turn_x = jnp.where(across > 1e-3, -there.y / across, 0.0) * angle
    turn_y = jnp.where(across > 1e-3, there.x / across, behind) * angle
    bound = rate_limit * damping_gain

    def pd(turn: Array, rate: Scalar) -> Array:
        return jnp.clip(stiffness_gain * turn, -bound, bound) - damping_gain * rate

    leading = jnp.where(dot(measured.axis, measured.motion.velocity) < 0.0, -1.0, 1.0)
    off_flow = measured.in_body(cross(measured.flow * leading, target))
    hold_moment = hold * measured.slopes.stiffness
    inertia, rates = measured.loads.mass.inertia, measured.motion.rates
    moment = Vector(
        inertia.x * pd(turn_x, rates.x) + hold_moment * off_flow.x,
        inertia.y * pd(turn_y, rates.y) + hold_moment * off_flow.y,
        -inertia.z * roll_gain * damping_gain * rates.z,
    )
    if offset is not None:
        moment = moment - cross(offset, _force_without_fins(measured))
    return allocate(body, measured, moment, gimballed, finned)


def allocate(
    body: Body,
    measured: Measurement,
    moment: Vector,
    gimballed: Array | float = 1.0,
    finned: Array | float = 1.0,
) -> Turn:
    """Allocate a moment [N m] to the fins first, in proportion to their strength, then the gimbal, then the RCS.

    Fins at the top push to the side to which the nose turns, engines at the base to the opposite side.
    Therefore the gimbal gets a small share while the fins are strong.
    """
    centre, slope = measured.loads.mass.centre, measured.slopes.fin
    gimbal = measured.thrust * (centre - body.gimbal.height) * body.gimbal.limit * gimballed
    fins = roll_fins = jnp.zeros_like(gimbal)
    if body.fins is not None:
        fins = slope * (body.fins.height - centre) * body.fins.limit * finned
        roll_fins = 2.0 * slope * body.fins.radius * body.fins.limit * finned

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
        arm = body.rcs.thrust * jnp.maximum(body.rcs.height - centre, 1.0)
        rcs = Vector(
            jnp.clip((left_x - gimbal_x * gimbal) / arm, -1.0, 1.0),
            jnp.clip((left_y - gimbal_y * gimbal) / arm, -1.0, 1.0),
            jnp.clip((moment.z - fins_z * roll_fins) / (body.rcs.thrust * body.rcs.radius), -1.0, 1.0),
        )
    return Turn(Vector(gimbal_x, gimbal_y, zero), Vector(fins_x, fins_y, fins_z), rcs)


def accelerate_across(
    measured: Measurement, extra: Vector, thrust: Scalar, floor: float, largest: Array | float
) -> Vector:
    """Return the attitude that adds a horizontal acceleration to drag and thrust against the flow.

    Tilting the nose by an angle pushes with the thrust's side component and, the other way, with the
    lift that the fins do not cancel: above some dynamic pressure the useful direction reverses.

    Args:
      measured: the vehicle.
      extra: horizontal acceleration [m/s2], z ignored.
      thrust: [N], of the engines lit.
      floor: regularisation where both effects cancel [N/rad].
      largest: incidence that is not exceeded [rad].

    Returns:
      a unit vector for the body's axis.
    """
    effect = thrust - measured.slopes.trimmed
    per = measured.mass * effect / (effect * effect + floor * floor)
    back = -measured.flow
    tilt_x, tilt_y = per * extra.x, per * extra.y
    size = jnp.sqrt(tilt_x * tilt_x + tilt_y * tilt_y + 1e-12)
    # a tilt has no effect where the direction reverses: pass that point upright instead of jumping between the bounds
    bound = largest * effect * effect / (effect * effect + floor * floor)
    scale = jnp.minimum(1.0, bound / size)
    axis = Vector(back.x + tilt_x * scale, back.y + tilt_y * scale, back.z)
    return axis * (1.0 / norm(axis))


def within(axis: Vector, vertical: Vector, largest: Array) -> Vector:
    """Limit the angle between a unit vector and the vertical to `largest` [rad]."""
    along = dot(axis, vertical)
    across = axis - vertical * along
    size = norm(across, 1e-12)
    kept = jnp.minimum(size, jnp.sin(largest))
    return vertical * jnp.sqrt(1.0 - kept * kept) + across * (kept / size)


def estimate_lag(before: Array, was: Scalar, now: Scalar, command: Scalar, known: Array, period: float) -> Array:
    """Estimate the lag of an actuator [s] from how far it followed its command in a period.

    Args:
      before: the previous estimate, which is kept if the period gives no information.
      was, now: the actuator before and after the period, as a share of its range.
      command: the command throughout the period, as a share of the range.
      known: whether the actuator was free to follow.
    """
    gap, left = was - command, now - command
    known = known & (jnp.abs(gap) > 0.05)
    ratio = jnp.clip(left / jnp.where(known, gap, 1.0), 0.05, 0.95)
    return jnp.where(known, -period / jnp.log(ratio), before)


def estimate_drag(body: Body, measured: Measurement, before: Array) -> Array:
    """Estimate drag over nominal drag from the accelerometers; the estimate changes slowly, and only in dense air."""
    incidence = norm(measured.off_flow, 1e-8)
    nominal = lookup_grid(body.aerodynamics.engine_first.drag, incidence, measured.mach)
    nominal = jnp.maximum(measured.pressure * body.aerodynamics.area * nominal, 1.0)
    thrust_along = measured.thrust * dot(measured.axis, measured.flow)
    braking = measured.mass * -dot(measured.specific_force, measured.flow) + thrust_along
    # Pa; higher with thrust, whose direction is less certain, and rising with it, so that the estimate does not jump
    enough = 100.0 + 2900.0 * jnp.clip(measured.thrust / 1e5, 0.0, 1.0)
    trust = 0.2 * jnp.clip((measured.pressure - enough) / enough, 0.0, 1.0)
    return before + trust * (jnp.clip(braking / nominal, 0.7, 1.3) - before)


def estimate_thrust(body: Body, engines: Scalar, measured: Measurement, before: Array) -> Array:
    """Estimate actual over nominal thrust of `engines` engines like the first; it is kept while they start."""
    engine, level = body.engines[0], measured.motion.levels[0]
    against = engine.exit_area * atmosphere(measured.altitude).pressure
    # below the least throttle the back-pressure fades, so the thrust carries little information
    known = level > engine.throttle_min
    nominal = engines * engine.thrust * jnp.maximum(level, engine.throttle_min)
    return jnp.where(known, jnp.clip((measured.thrust + engines * against) / nominal, 0.5, 1.2), before)


def _force_without_fins(measured: Measurement) -> Vector:
    """Return the force that accelerometers measure, less the side force of the fins [N], body axes."""
    force, fin, fins = (
        measured.in_body(measured.specific_force) * measured.mass,
        measured.slopes.fin,
        measured.motion.fins,
    )
    return Vector(force.x - fin * fins.y, force.y + fin * fins.x, force.z)


def estimate_offset(body: Body, measured: Measurement, before: Vector, period: float) -> Vector:
    """Estimate the lateral offset of the axial force from the centre of mass [m], body axes, through a lag of 3 s.

    Accelerometers measure the body's side force, with gusts and errors of the lift: all of it but those of gimbal and fins.
    The moment that gyros measure beyond that of this force, gimbal and fins is the axial force times the offset. It is
    opposite to the offset of the centre of mass; an engine that is out shows in it too.
    """
    motion, mass, turning = measured.motion, measured.loads.mass, measured.angular_acceleration
    force, lift, fin = _force_without_fins(measured), body.aerodynamics, measured.slopes.fin
    to_fins = body.fins.height - mass.centre if body.fins is not None else 0.0
    first = dot(measured.axis, measured.flow) < 0.0
    arm = jnp.where(first, lift.engine_first.centre_of_pressure, lift.nose_first.centre_of_pressure) - mass.centre
    to_gimbal = mass.centre - body.gimbal.height
    side_x = force.x + measured.thrust * motion.gimbal.y
    side_y = force.y - measured.thrust * motion.gimbal.x
    steering_x = measured.thrust * to_gimbal * motion.gimbal.x + fin * to_fins * motion.fins.x
    steering_y = measured.thrust * to_gimbal * motion.gimbal.y + fin * to_fins * motion.fins.y
    rest_x = mass.inertia.x * turning.x - steering_x + arm * side_y
    rest_y = mass.inertia.y * turning.y - steering_y - arm * side_x
    load = jnp.abs(force.z) / measured.mass
    trust = jnp.clip((load - 2.0) / 4.0, 0.0, 1.0) * (period / _OFFSET_S)
    axial = jnp.where(load > 1.0, force.z, 1e6)
    x, y = jnp.clip(-rest_y / axial, -1.0, 1.0), jnp.clip(rest_x / axial, -1.0, 1.0)
    return Vector(before.x + (x - before.x) * trust, before.y + (y - before.y) * trust, jnp.zeros_like(x))


def with_drag(body: Body, factor: Array) -> Body:
    """Return the vehicle with `factor` times the nominal drag, for predictions without lift: the area is scaled."""
    return body._replace(aerodynamics=body.aerodynamics._replace(area=body.aerodynamics.area * factor))


def with_thrust(body: Body, factor: Array) -> Body:
    """Return the vehicle with `factor` times the nominal thrust and flow of its engines."""
    engines = (group._replace(thrust=group.thrust * factor, flow=group.flow * factor) for group in body.engines)
    return body._replace(engines=tuple(engines))
