"""Predictions of guidance laws: where a fall, a braking burn and a landing end, by a few integration steps.

Falls and burns are along the flow, engines first, without incidence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from mission_rocket.physics.atmosphere import atmosphere
from mission_rocket.physics.constants import SEA_LEVEL_PRESSURE_PA
from mission_rocket.physics.gravity import Site, free_fall, resting_gravity
from mission_rocket.physics.tables import Table, at_x, lookup
from mission_rocket.physics.vector import Scalar, Vector, norm
from mission_rocket.physics.vehicle import Body
from mission_rocket.physics.wind import envelope_speed, profile_wind


class Falling(NamedTuple):
    """A vehicle on its way down: position [m] and velocity [m/s], altitude [m], mass [kg], wind at it [m/s]."""

    position: Vector
    velocity: Vector
    altitude: Array
    mass: Scalar
    wind: Vector


class Descent(NamedTuple):
    """The end of an unpowered fall; 1 m/s of lateral speed at its start gives `reach` m and leaves `kept` m/s."""

    position: Vector
    velocity: Vector
    peak: Array
    reach: Array
    kept: Array


def carried_wind(site: Site, wind: Vector, altitude: Array) -> Vector:
    """Return what a prediction keeps of the wind measured at an altitude, to find the wind elsewhere with `wind_at`.

    With the envelope, that is the measured wind over the speed of the envelope; with the profile of the site, it is the
    deviation from the profile.
    """
    if site.winds is None:
        return wind * (1.0 / envelope_speed(altitude))
    return wind - profile_wind(site.winds, altitude)


def wind_at(site: Site, carried: Vector, altitude: Scalar) -> Vector:
    """Return the wind that a prediction expects at an altitude [m/s]."""
    if site.winds is None:
        return carried * envelope_speed(altitude)
    return carried + profile_wind(site.winds, altitude)


def midpoint(stage: Callable[[Any, Scalar], Any], begin: Any) -> Any:
    """Apply `stage` at the beginning of a step and in its middle (0, then 1/2): one loop, so that it is compiled once."""
    return lax.scan(lambda carry, reach: (stage(carry, reach), None), begin, jnp.array([0.0, 0.5]))[0]


def along_flow(body: Body) -> Table:
    """Return the drag coefficient by Mach number of a vehicle that flies along the flow, engines first."""
    return at_x(body.aerodynamics.engine_first.drag, 0.0)


def resistance(body: Body, height: Array, through: Vector) -> tuple[Array, Array]:
    """Return (drag over airspeed [N s/m] engines first along the flow, dynamic pressure [Pa])."""
    air, speed = atmosphere(height), norm(through, 1.0)
    pressure = 0.5 * air.density * speed * speed
    mach = speed / air.sound_speed
    coefficient = lookup(along_flow(body), mach)
    return pressure * body.aerodynamics.area * coefficient / speed, pressure


def brake(body: Body, site: Site, begin: Falling, seconds: Array, load: float) -> Falling:
    """Predict a burn against the flow at an axial load [m/s2], in 3 midpoint steps.

    The wind of `begin` is that of `carried_wind`.
    """
    span, exhaust, wind = seconds / 3, body.engines[0].thrust / body.engines[0].flow, begin.wind

    def rate(at: Vector, v: Vector, height: Array) -> tuple[Vector, Array]:
        through = v - wind_at(site, wind, height)
        slowed, _ = resistance(body, height, through)
        speed = norm(through, 1.0)
        return free_fall(site, at, v) - through * (load / speed), slowed * speed

    def leg(carry: tuple[Vector, Vector, Array, Array], _: None) -> tuple[tuple[Vector, Vector, Array, Array], None]:
        at, v, height, mass = carry

        def stage(before: tuple[Vector, Vector, Array], reach: Scalar) -> tuple[Vector, Vector, Array]:
            there = reach * span
            half = v + before[0] * there
            pull, drag = rate(at + v * there, half, height + there * v.z)
            return pull, half, drag

        pull, half, drag = midpoint(stage, (v, v, jnp.zeros_like(height)))
        used = jnp.maximum(load * mass - drag, 0.0) / exhaust * span
        return (at + half * span, v + pull * span, height + half.z * span, mass - used), None

    top = (begin.position, begin.velocity, begin.altitude, jnp.asarray(begin.mass))
    return Falling(*lax.scan(leg, top, None, length=3)[0], wind)


def descend(body: Body, site: Site, begin: Falling, level: float) -> Descent:
    """Predict a fall along the flow to the altitude `level` [m].

    The wind of `begin` is that of `carried_wind`; the steps are midpoint steps in altitude.
    """
    steps, mass, wind = 12, begin.mass, begin.wind
    drop = jnp.maximum(begin.altitude - level, 0.0) / steps

    def rate(at: Vector, v: Vector, height: Array) -> tuple[Vector, Array, Array]:
        through = v - wind_at(site, wind, height)
        slowed, pressure = resistance(body, height, through)
        fading = slowed / mass
        return free_fall(site, at, v) - through * fading, fading, pressure

    zero = jnp.zeros_like(mass)

    def leg(carry: tuple[Descent, Array], _: None) -> tuple[tuple[Descent, Array], None]:
        (at, v, peak, shift, kept), height = carry

        def stage(before: tuple[Any, Vector, Array], reach: Scalar) -> tuple[Any, Vector, Array]:
            (pull, *_), _, span = before
            span = drop / jnp.maximum(-(v.z + reach * span * pull.z), 50.0)
            half = v + pull * (reach * span)
            return rate(at + v * (reach * span), half, height - reach * drop), half, span

        (pull, fading, pressure), half, span = midpoint(stage, ((v, zero, zero), v, zero))
        less = kept * jnp.exp(-fading * span)
        there = Descent(
            at + half * span, v + pull * span, jnp.maximum(peak, pressure), shift + 0.5 * (kept + less) * span, less
        )
        return (there, height - drop), None

    top = Descent(begin.position, begin.velocity, zero, zero, zero + 1.0)
    return lax.scan(leg, (top, begin.altitude), None, length=steps)[0][0]


def predict_touchdown(
    body: Body, site: Site, begin: Falling, ignition: Scalar, throttle: Scalar, engines: Scalar
) -> tuple[Vector, Array]:
    """Predict where the vehicle comes to rest if it only brakes against the flow, and how long that takes [s].

    Down to the altitude `ignition` [m] it falls (6 midpoint steps in height), then brakes at constant throttle to
    rest (12 steps in speed): against the flow at high speed, and at the end against the velocity over ground. The wind of
    `begin` is that of `carried_wind`.
    """
    engine, gravity = body.engines[0], resting_gravity(site)

    def push(h: Scalar, v: Vector, thrust: Scalar) -> Vector:
        fast = jnp.clip((-v.z - 54.1) / 50.0, 0.0, 1.0)
        through = v - wind_at(site, begin.wind, h) * fast
        slowed, _ = resistance(body, jnp.maximum(h, 0.0), through)
        return through * -(slowed / begin.mass + thrust / norm(through, 1.0))

    drop, zero = jnp.maximum(begin.altitude - ignition, 0.0) / 6, jnp.zeros_like(begin.altitude)

    def fall(carry: tuple[Vector, Vector, Array], _: None) -> tuple[tuple[Vector, Vector, Array], None]:
        at, v, seconds = carry
        down = Vector(0.0, 0.0, -gravity)

        def stage(before: tuple[Vector, Vector, Array], reach: Scalar) -> tuple[Vector, Vector, Array]:
            pull, _, span = before
            half = v + pull * (reach * span)
            return push(at.z - reach * drop, half, 0.0) + down, half, drop / jnp.maximum(-half.z, 30.0)

        pull, half, span = midpoint(stage, (v, v, zero))
        return (Vector(at.x + half.x * span, at.y + half.y * span, at.z - drop), v + pull * span, seconds + span), None

    top = Vector(begin.position.x, begin.position.y, begin.altitude)
    at, v, seconds = lax.scan(fall, (top, begin.velocity, zero), None, length=6)[0]
    slower = jnp.maximum(-v.z, 1.0) / 12
    thrust = engines * (throttle * engine.thrust - engine.exit_area * SEA_LEVEL_PRESSURE_PA) / begin.mass

    def brake(carry: tuple[Vector, Vector, Array], _: None) -> tuple[tuple[Vector, Vector, Array], None]:
        at, v, seconds = carry

        def stage(before: tuple[Vector, Vector, Array], reach: Scalar) -> tuple[Vector, Vector, Array]:
            pull, _, span = before
            half = Vector(v.x + reach * span * pull.x, v.y + reach * span * pull.y, v.z + reach * slower)
            pull = push(at.z + reach * span * v.z, half, thrust)
            return pull, half, slower / jnp.maximum(pull.z - gravity, 1.0)

        pull, half, span = midpoint(stage, (v, v, zero))
        after = Vector(v.x + span * pull.x, v.y + span * pull.y, v.z + slower)
        return (at + half * span, after, seconds + span), None

    rest, _, seconds = lax.scan(brake, (at, v, seconds), None, length=12)[0]
    return rest, seconds


class Stop(NamedTuple):
    """The height [m] at which a braking burn brings the vehicle to rest, its duration [s] and propellant [kg]."""

    height: Array
    seconds: Array
    propellant: Array


def stop(
    body: Body, site: Site, mass: Scalar, height: Array, speed: Array, throttle: Scalar, engines: Scalar, final: float
) -> Stop:
    """Predict a vertical burn at constant throttle from `speed` to `final` [m/s].

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
        drag = 0.5 * air.density * middle * middle * aero.area
        drag = drag * lookup(along_flow(body), middle / air.sound_speed)
        brake = jnp.maximum((thrust + drag) / m - resting_gravity(site), 0.5)
        span = drop / brake
        return (h - middle * span, v - drop, m - engines * throttle * engine.flow * span, seconds + span), None

    begin = (height, jnp.maximum(speed, final), jnp.asarray(mass), jnp.zeros_like(height))
    h, _, m, seconds = lax.scan(leg, begin, None, length=steps)[0]
    return Stop(h, seconds, jnp.asarray(mass - m))


def stopping_throttle(
    body: Body, site: Site, mass: Scalar, height: Array, speed: Array, engines: Scalar, final: float
) -> Array:
    """Return the constant throttle that stops at the ground; the inverse of the distance is nearly linear in it."""

    def inverse(throttle: Scalar) -> Array:
        end = stop(body, site, mass, height, speed, throttle, engines, final)
        return 1.0 / jnp.maximum(height - end.height, 0.05)

    middle = 0.5 * (body.engines[0].throttle_min + 1.0)
    first, second = jax.vmap(inverse)(jnp.array([middle, 1.0]))
    slope = (second - first) / (1.0 - middle)
    return middle + (1.0 / jnp.maximum(height, 0.05) - first) / jnp.maximum(slope, 1e-7)
