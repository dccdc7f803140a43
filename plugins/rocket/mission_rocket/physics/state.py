"""The state of a vehicle, the command to its actuators, and the dispersions of a flight."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from mission_rocket.physics.vector import Quaternion, Scalar, Vector
from mission_rocket.physics.vehicle import Body
from mission_rocket.physics.wind import Gust, Wind, calm, start_gust


class Motion(NamedTuple):
    """The integrated state. Position [m] and velocity [m/s] are local, body rates [rad/s] inertial.

    `levels` are the actual throttles of the engine groups (0 is off), `gimbal` and `fins` the actual angles about
    the body's x, y and z axes (yaw, pitch, roll) [rad]; a positive angle turns the body positively.
    """

    position: Vector
    velocity: Vector
    attitude: Quaternion
    rates: Vector
    propellant: Scalar
    rcs_propellant: Scalar
    levels: tuple[Scalar, ...]
    gimbal: Vector
    fins: Vector


class Rounding(NamedTuple):
    """The accumulated rounding errors (Kahan); without this compensation 10,000 steps drift by tens of metres."""

    position: Vector
    velocity: Vector
    propellant: Scalar
    time: Scalar


class State(NamedTuple):
    """A vehicle in flight. `lit_for` [s] is the time since each engine group was commanded to light, 0 when off."""

    motion: Motion
    rounding: Rounding
    lit_for: tuple[Scalar, ...]
    ignitions_left: tuple[Scalar, ...]
    gust: Gust
    time: Array


class Command(NamedTuple):
    """The command to the actuators: `throttle` by engine group, 0 for off; angles [rad]; RCS in [-1, 1]."""

    throttle: tuple[Scalar, ...]
    gimbal: Vector
    fins: Vector
    rcs: Vector


class Navigation(NamedTuple):
    """Errors of navigation and gyros: constant over a flight, and standard deviations of those of each control step.

    Position [m] and velocity [m/s] are local; the attitude is wrong by a rotation vector in body axes [rad], as are the
    rates [rad/s]. Each `noise` holds for every component.
    """

    position: Vector
    velocity: Vector
    attitude: Vector
    rates: Vector
    position_noise: Scalar
    velocity_noise: Scalar
    attitude_noise: Scalar
    rate_noise: Scalar


class Dispersion(NamedTuple):
    """The dispersions of one flight, drawn once; factors are about 1.

    `centre_of_mass_x`, `_y` [m] are across the axis; `tilt_x`, `_y` are the initial attitude [rad];
    `ignition_delay` is in seconds; `engine_out` is the number of an engine that never lights, -1 for none.
    """

    thrust: Scalar
    specific_impulse: Scalar
    propellant: Scalar
    dry_mass: Scalar
    drag: Scalar
    lift: Scalar
    centre_of_mass_x: Scalar
    centre_of_mass_y: Scalar
    actuator_lag: Scalar
    tilt_x: Scalar
    tilt_y: Scalar
    ignition_delay: Scalar
    engine_out: Scalar
    wind: Wind
    navigation: Navigation


class Handover(NamedTuple):
    """A vehicle with the dispersions of its flight, handed from phase to phase so that a chain is one flight."""

    state: State
    dispersion: Dispersion


def nominal() -> Dispersion:
    """Return the dispersions of a nominal flight without wind."""
    one, zero = jnp.ones(()), jnp.zeros(())
    none = Vector(zero, zero, zero)
    return Dispersion(
        thrust=one,
        specific_impulse=one,
        propellant=one,
        dry_mass=one,
        drag=one,
        lift=one,
        centre_of_mass_x=zero,
        centre_of_mass_y=zero,
        actuator_lag=one,
        tilt_x=zero,
        tilt_y=zero,
        ignition_delay=zero,
        engine_out=-one,
        wind=calm(),
        navigation=Navigation(none, none, none, none, zero, zero, zero, zero),
    )


def idle(body: Body) -> Command:
    """Return the command that shuts down the engines and centres every actuator."""
    zero = jnp.zeros(())
    none = Vector(zero, zero, zero)
    return Command((zero,) * len(body.engines), none, none, none)


def start_state(
    body: Body, position: Vector, velocity: Vector, attitude: Quaternion, propellant: Scalar, key: Array | None = None
) -> State:
    """Return a state without rotation, with the engines off and a full RCS tank.

    The state of the turbulence is drawn with `key` (consumed); without a key it is zero.
    """
    zero = jnp.zeros(())
    none = Vector(zero, zero, zero)
    groups = len(body.engines)

    def arrays(parts: Vector | Quaternion) -> list[Array]:
        return [jnp.asarray(part, zero.dtype) for part in parts]

    motion = Motion(
        position=Vector(*arrays(position)),
        velocity=Vector(*arrays(velocity)),
        attitude=Quaternion(*arrays(attitude)),
        rates=none,
        propellant=jnp.asarray(propellant, zero.dtype),
        rcs_propellant=jnp.asarray(body.rcs.propellant if body.rcs else 0.0, zero.dtype),
        levels=(zero,) * groups,
        gimbal=none,
        fins=none,
    )
    return State(
        motion=motion,
        rounding=Rounding(none, none, zero, zero),
        lit_for=(zero,) * groups,
        ignitions_left=tuple(jnp.asarray(float(group.ignitions), zero.dtype) for group in body.engines),
        gust=Gust(zero, zero, zero, zero, zero) if key is None else start_gust(key),
        time=zero,
    )
