"""Classical guidance and control that several phases' guides share.

Angles and moments are about the body's x, y and z axes. `Turn` is what the actuators are asked for.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from mission_rocket.flight import Flight, View, body_components
from mission_rocket.physics.atmosphere import atmosphere
from mission_rocket.physics.gravity import Site
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


def predict_touchdown(
    body: Body, site: Site, seen: View, ignition: Array, throttle: Scalar, engines: Scalar, resistance: Scalar = 1.0
) -> tuple[Vector, Array]:
    """(where the vehicle comes to rest if it only brakes against the flow, how long that takes [s]).

    Down to the altitude `ignition` [m] it falls with `resistance` times the nominal drag (6 midpoint steps in
    height), then brakes at constant throttle to rest (12 in speed): against the flow while that is fast, in the end
    against its motion over ground. The wind is today's, linear in altitude as the envelope below 10 km.
    """
    engine = body.engines[0]
    aero = body.aerodynamics

    def push(h: Scalar, v: Vector, thrust: Scalar) -> Vector:
        share = (h + 1500.0) / (seen.altitude + 1500.0) * jnp.clip((-v.z - 54.1) / 50.0, 0.0, 1.0)
        through = v - seen.wind * share
        speed = norm(through, 1.0)
        air = atmosphere(jnp.maximum(h, 0.0))
        mach = speed / air.sound_speed
        drag = 0.5 * air.density * speed * speed * aero.area * lookup_grid(aero.engine_first.drag, 0.0 * mach, mach)
        return through * (-(resistance * drag / seen.mass + thrust) / speed)

    drop = jnp.maximum(seen.altitude - ignition, 0.0) / 6

    def fall(carry: tuple[Vector, Vector, Array], _: None) -> tuple[tuple[Vector, Vector, Array], None]:
        at, v, seconds = carry
        down = Vector(0.0, 0.0, -9.8)
        span = drop / jnp.maximum(-v.z, 30.0)
        half = v + (push(at.z, v, 0.0) + down) * (0.5 * span)
        span = drop / jnp.maximum(-half.z, 30.0)
        pull = push(at.z - 0.5 * drop, half, 0.0) + down
        return (Vector(at.x + half.x * span, at.y + half.y * span, at.z - drop), v + pull * span, seconds + span), None

    begin = (Vector(seen.position.x, seen.position.y, seen.altitude), seen.velocity, jnp.zeros_like(seen.altitude))
    at, v, seconds = lax.scan(fall, begin, None, length=6)[0]
    slower = jnp.maximum(-v.z, 1.0) / 12
    thrust = engines * (throttle * engine.thrust - engine.exit_area * 1e5) / seen.mass

    def brake(carry: tuple[Vector, Vector, Array], _: None) -> tuple[tuple[Vector, Vector, Array], None]:
        at, v, seconds = carry
        pull = push(at.z, v, thrust)
        span = slower / jnp.maximum(pull.z - 9.8, 1.0)
        half = Vector(v.x + 0.5 * span * pull.x, v.y + 0.5 * span * pull.y, v.z + 0.5 * slower)
        pull = push(at.z + 0.5 * span * v.z, half, thrust)
        span = slower / jnp.maximum(pull.z - 9.8, 1.0)
        after = Vector(v.x + span * pull.x, v.y + span * pull.y, v.z + slower)
        return (at + half * span, after, seconds + span), None

    rest, _, seconds = lax.scan(brake, (at, v, seconds), None, length=12)[0]
    return rest, seconds


class Stop(NamedTuple):
    """Where and when a braking burn brings the vehicle to rest."""

    height: Array
    seconds: Array
    propellant: Array


def stop(
    body: Body,
    mass: Scalar,
    height: Array,
    speed: Array,
    throttle: Scalar,
    engines: Scalar,
    final: float,
    resistance: Scalar = 1.0,
) -> Stop:
    """Brake straight down at constant throttle from `speed` to `final` [m/s], `resistance` times nominal drag.

    The independent variable is speed, dh = -v dv / a: 12 midpoint steps. `height` may end below the ground.
    """
    engine, aero = body.engines[0], body.aerodynamics
    steps = 12
    drop = jnp.maximum(speed - final, 0.0) / steps

    def leg(carry: tuple[Array, Array, Array, Array], _: None) -> tuple[tuple[Array, Array, Array, Array], None]:
        h, v, m, seconds = carry
        middle = v - 0.5 * drop
        air = atmosphere(jnp.maximum(h, 0.0))
        thrust = engines * (throttle * engine.thrust - engine.exit_area * air.pressure)
        drag = resistance * 0.5 * air.density * middle * middle * aero.area
        drag = drag * lookup_grid(aero.engine_first.drag, 0.0 * middle, middle / air.sound_speed)
        brake = jnp.maximum((thrust + drag) / m - 9.81, 0.5)
        span = drop / brake
        return (h - middle * span, v - drop, m - engines * throttle * engine.flow * span, seconds + span), None

    begin = (height, jnp.maximum(speed, final), jnp.asarray(mass), jnp.zeros_like(height))
    h, _, m, seconds = lax.scan(leg, begin, None, length=steps)[0]
    return Stop(h, seconds, jnp.asarray(mass - m))


def stopping_throttle(
    body: Body,
    mass: Scalar,
    height: Array,
    speed: Array,
    engines: Scalar,
    final: float,
    low: float,
    resistance: Scalar = 1.0,
) -> Array:
    """The constant throttle that stops at the ground; the inverse of the distance is near linear in it."""

    def inverse(throttle: float) -> Array:
        end = stop(body, mass, height, speed, throttle, engines, final, resistance)
        return 1.0 / jnp.maximum(height - end.height, 0.05)

    middle = 0.5 * (low + 1.0)
    first, second = inverse(middle), inverse(1.0)
    slope = (second - first) / (1.0 - middle)
    return middle + (1.0 / jnp.maximum(height, 0.05) - first) / jnp.maximum(slope, 1e-7)


def found_lag(before: Array, was: Flight, now: Flight, throttle: Scalar, lit: Array, period: float) -> Array:
    """The engines' lag [s], from how far their level came in a period of what was asked for; else as before.

    Args:
      before: the lag found so far.
      was, now: the flight before and after the period.
      throttle: that was asked for throughout it.
      lit: whether the engines burnt throughout it.
    """
    level = was.state.motion.levels[0]
    gap, left = level - throttle, now.state.motion.levels[0] - throttle
    # not while they start: the ignition delay is unknown
    known = lit & (level > 0.02) & (jnp.abs(gap) > 0.05)
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
