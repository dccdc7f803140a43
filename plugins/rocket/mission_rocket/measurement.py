"""The measurement of a vehicle: its sensor readings and the true loads on it, from one evaluation of the loads.

A phase measures once per control step and keeps the result in its state, where the observation and the guidance law read
it. Telemetry, outcome and reward read the same without the errors of navigation (`exact`). Neither the dispersions nor the
gusts are measured.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from mission_rocket.physics.channels import lateral
from mission_rocket.physics.constants import DEGREE
from mission_rocket.physics.dynamics import Loads, loads
from mission_rocket.physics.gravity import Site, altitude, up
from mission_rocket.physics.propulsion import Feed, rcs_wrench
from mission_rocket.physics.state import Command, Handover, Motion, Navigation, idle
from mission_rocket.physics.tables import at_x, lookup, lookup_all
from mission_rocket.physics.tracing import traced_once
from mission_rocket.physics.vector import Quaternion, Vector, body_axis, dot, multiply, norm, rotate, rotate_back
from mission_rocket.physics.vehicle import Body
from mission_rocket.physics.wind import gust_velocity

_SMALL_INCIDENCE = 4.0 * DEGREE  # at which the slope of the lift is evaluated


class Slopes(NamedTuple):
    """The slopes of the aerodynamic forces.

    `lift`: of the body per radian of incidence [N]; `trimmed`: the same, including the force of the fins that hold the
    incidence [N]; `stiffness`: moment per radian of incidence [N m]; `fin`: force of two fins per radian [N].
    """

    lift: Array
    trimmed: Array
    stiffness: Array
    fin: Array


class Measurement(NamedTuple):
    """A measured vehicle, SI; vectors are in the local frame.

    `motion` comes from navigation and gyros with their errors, and so do altitude, speeds, axis, vertical and flow;
    `specific_force` from accelerometers. `loads` are the true loads without
    the force of the RCS; guidance reads only the part that air data provide. `wind` is the steady wind at the vehicle
    and `gust` the turbulence on top of it, which only telemetry reads; `flow` is the direction of flight through the
    steady wind, `pressure` the dynamic pressure. `limit_share` is the largest share of a structural limit in use, RCS
    included: above 1 the vehicle is lost.
    """

    motion: Motion
    loads: Loads
    altitude: Array
    speed: Array
    climb: Array
    mass: Array
    pressure: Array
    mach: Array
    thrust: Array
    vertical: Vector
    axis: Vector
    wind: Vector
    gust: Vector
    flow: Vector
    specific_force: Vector
    slopes: Slopes
    limit_share: Array

    @property
    def off_flow(self) -> Vector:
        """Return the angle of the axis from the flow of a vehicle that flies engines first; small angles [rad]."""
        return self.axis + self.flow

    @property
    def angular_acceleration(self) -> Vector:
        """Return the angular acceleration from the acting moments, in body axes [rad/s2]."""
        moment, inertia = self.loads.wrench.moment, self.loads.mass.inertia
        return Vector(moment.x / inertia.x, moment.y / inertia.y, moment.z / inertia.z)

    def in_body(self, vector: Vector) -> Vector:
        """Turn a local vector into body axes."""
        return rotate_back(self.motion.attitude, vector)


@traced_once(3)
def measure(
    body: Body,
    site: Site,
    engine_first: bool,
    flight: Handover,
    command: Command | None = None,
    key: Array | None = None,
) -> Measurement:
    """Return the measurement of a flight.

    Args:
      body, site: the vehicle and its site.
      engine_first: whether the limit of dynamic pressure engines first applies, or that nose first.
      flight: the state of the vehicle and its dispersions.
      command: the present command; its RCS adds to the load on the structure. None: the RCS is off.
      key: draws the noise of navigation (consumed). None: its constant errors alone.
    """
    motion, wind = flight.state.motion, flight.dispersion.wind
    height = altitude(site, motion.position)
    gust = gust_velocity(wind, flight.state.gust, height)
    acting = loads(body, site, flight.dispersion, motion, idle(body), gust)
    through = motion.velocity - acting.wind
    slopes = _slopes(body, acting, jnp.asarray(dot(body_axis(motion.attitude), through) < 0.0))
    share = _limit_share(body, motion, acting, engine_first, command)
    return _measurement(site, _navigated(motion, flight.dispersion.navigation, key), acting, gust, slopes, share)


def exact(site: Site, measured: Measurement, motion: Motion) -> Measurement:
    """Return a measurement without the errors of navigation, for the true motion."""
    return _measurement(site, motion, measured.loads, measured.gust, measured.slopes, measured.limit_share)


def _measurement(site: Site, motion: Motion, acting: Loads, gust: Vector, slopes: Slopes, share: Array) -> Measurement:
    """Return the measurement of a motion; forces and air data are those of the true motion."""
    vertical, through = up(site, motion.position), motion.velocity - acting.wind
    return Measurement(
        motion=motion,
        loads=acting,
        altitude=altitude(site, motion.position),
        speed=norm(motion.velocity, 1e-6),
        climb=jnp.asarray(dot(motion.velocity, vertical)),
        mass=jnp.asarray(acting.mass.mass),
        pressure=acting.flow.dynamic_pressure,
        mach=acting.flow.mach,
        thrust=jnp.asarray(acting.thrust),
        vertical=vertical,
        axis=body_axis(motion.attitude),
        wind=acting.wind,
        gust=gust,
        flow=through * (1.0 / acting.flow.airspeed),
        specific_force=rotate(motion.attitude, acting.wrench.force * (1.0 / acting.mass.mass)),
        slopes=slopes,
        limit_share=share,
    )


def _navigated(motion: Motion, errors: Navigation, key: Array | None) -> Motion:
    """Return the motion as navigation and gyros report it."""
    off = [errors.position, errors.velocity, errors.attitude, errors.rates]
    if key is not None:
        noises = errors.position_noise, errors.velocity_noise, errors.attitude_noise, errors.rate_noise
        drawn = jax.random.normal(key, (4, 3))
        off = [bias + Vector(*draw) * noise for bias, noise, draw in zip(off, noises, drawn, strict=True)]
    position, velocity, turn, rates = off
    half = Quaternion(jnp.ones(()), 0.5 * turn.x, 0.5 * turn.y, 0.5 * turn.z)  # a turn of some degrees
    scale = 1.0 / jnp.sqrt(1.0 + half.x * half.x + half.y * half.y + half.z * half.z)
    return motion._replace(
        position=motion.position + position,
        velocity=motion.velocity + velocity,
        attitude=multiply(motion.attitude, Quaternion(*(part * scale for part in half))),
        rates=motion.rates + rates,
    )


def _slopes(body: Body, acting: Loads, engine_first: Array) -> Slopes:
    """Return the slopes of the aerodynamic forces at small incidence."""
    aero, pressure, mach = body.aerodynamics, acting.flow.dynamic_pressure, acting.flow.mach
    zero = jnp.zeros_like(mach)
    slopes = tuple(at_x(polar.lift, _SMALL_INCIDENCE) for polar in (aero.engine_first, aero.nose_first))
    lifts = lookup_all(slopes, mach)
    slope = jnp.where(engine_first, lifts[0], lifts[1]) / _SMALL_INCIDENCE
    lift = pressure * aero.area * slope
    centre = jnp.where(engine_first, aero.engine_first.centre_of_pressure, aero.nose_first.centre_of_pressure)
    arm = centre - acting.mass.centre
    trimmed, fin = lift, zero
    if body.fins is not None:
        trimmed = lift * (1.0 - arm / (body.fins.height - acting.mass.centre))
        fin = jnp.where(engine_first, 2.0 * pressure * body.fins.area * lookup(body.fins.normal, mach), 0.0)
    return Slopes(lift, trimmed, lift * jnp.abs(arm), fin)


def _limit_share(body: Body, motion: Motion, acting: Loads, engine_first: bool, command: Command | None) -> Array:
    """Return the largest share of a structural limit that is in use."""
    limits, force = body.limits, acting.wrench.force
    if command is not None:
        force = force + rcs_wrench(body, command, acting.mass, Feed.of(motion))[0].force
    specific_force = force * (1.0 / acting.mass.mass)
    pressure = acting.flow.dynamic_pressure
    highest = limits.dynamic_pressure_engine_first if engine_first else limits.dynamic_pressure_nose_first
    shares = (
        pressure / highest,
        pressure * acting.flow.incidence / limits.q_alpha,
        jnp.abs(specific_force.z) / limits.axial_load,
        lateral(specific_force) / limits.lateral_load,
        norm(motion.rates, 1e-12) / limits.body_rate,
    )
    return jnp.max(jnp.stack(shares))
