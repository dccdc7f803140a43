"""Forces and moments of the air on the body and its grid fins.

Incidence is the angle between the axis and the flow: from the nose when it leads, from the engines
when they lead; between the two the tables blend over the cosine from -0.5 to 0.5. Lift acts towards
the side to which the leading end tilts: a booster falling engines first is pushed to the side to which
its engines tilt. The normal force has a potential part, which acts at the low-incidence centre of pressure,
and a cross-flow drag, which acts at the centroid of the side view (Allen and Perkins,
NACA TR 1048; Jorgensen, NASA TN D-6996); the centre of pressure moves with their shares.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from mission_rocket.physics.atmosphere import Air
from mission_rocket.physics.propulsion import Wrench
from mission_rocket.physics.state import Dispersion, Motion
from mission_rocket.physics.tables import lookup, lookup_grids
from mission_rocket.physics.vector import Vector, norm
from mission_rocket.physics.vehicle import Body, MassProperties

# Cross-flow drag over potential slope, 1.2 length diameter / (area dC_N / d incidence), of a slender body.
_CROSS_FLOW = 2.0


class Flow(NamedTuple):
    """Velocity relative to the air in body axes [m/s], airspeed, Mach, dynamic pressure [Pa], cosine from the nose.

    `incidence` [rad] is measured from the leading end; `across` is its sine.
    """

    velocity: Vector
    airspeed: Array
    mach: Array
    dynamic_pressure: Array
    cosine: Array
    across: Array
    incidence: Array


def flow(air: Air, velocity: Vector) -> Flow:
    """Return the flow past a body that moves at `velocity` (body axes) through air [m/s]."""
    airspeed = norm(velocity, 1e-6)
    across = jnp.sqrt(velocity.x * velocity.x + velocity.y * velocity.y + 1e-12) / airspeed
    cosine = velocity.z / airspeed
    return Flow(
        velocity=velocity,
        airspeed=airspeed,
        mach=airspeed / air.sound_speed,
        dynamic_pressure=0.5 * air.density * airspeed * airspeed,
        cosine=cosine,
        across=across,
        incidence=jnp.arctan2(across, jnp.abs(cosine)),
    )


def body_wrench(body: Body, dispersion: Dispersion, flow: Flow, rates: Vector, mass: MassProperties) -> Wrench:
    """Return lift, drag, pitching moment and damping of the body about the centre of mass."""
    aero = body.aerodynamics
    nose, engine = aero.nose_first, aero.engine_first
    by_nose = jnp.clip(0.5 + flow.cosine, 0.0, 1.0)
    by_engine = 1.0 - by_nose
    grids = (nose.lift, engine.lift, nose.drag, engine.drag)
    nose_lift, engine_lift, nose_drag, engine_drag = lookup_grids(grids, flow.incidence, flow.mach)
    lift = by_nose * nose_lift - by_engine * engine_lift
    drag = by_nose * nose_drag + by_engine * engine_drag
    pressed = flow.dynamic_pressure * aero.area
    # lift along (axis - cosine flow) / sine; drag against the flow
    lifting = pressed * dispersion.lift * lift / flow.across
    against = -(pressed * dispersion.drag * drag + lifting * flow.cosine) / flow.airspeed
    force = Vector(flow.velocity.x * against, flow.velocity.y * against, flow.velocity.z * against + lifting)

    crossing = _CROSS_FLOW * flow.across
    crossing = crossing / (jnp.abs(flow.cosine) + crossing)
    arm = by_nose * (nose.centre_of_pressure + crossing * (nose.centre_across - nose.centre_of_pressure))
    arm = arm + by_engine * (engine.centre_of_pressure + crossing * (engine.centre_across - engine.centre_of_pressure))
    arm = arm - mass.centre
    offset_x, offset_y = -dispersion.centre_of_mass_x, -dispersion.centre_of_mass_y
    moment = Vector(
        offset_y * force.z - arm * force.y,
        arm * force.x - offset_x * force.z,
        offset_x * force.y - offset_y * force.x,
    )
    if aero.moment_slope:  # turns the axis within the plane of incidence, about z x flow
        slope = pressed * aero.length * aero.moment_slope * flow.incidence / (flow.across * flow.airspeed)
        in_yaw = slope if aero.yaw_length is None else slope * (aero.yaw_length / aero.length)
        moment = moment + Vector(flow.velocity.y * in_yaw, -flow.velocity.x * slope, jnp.zeros_like(slope))
    damping = -pressed * aero.length**2 * aero.damping * 0.5 / jnp.maximum(flow.airspeed, 1.0)
    in_yaw = damping if aero.yaw_length is None else damping * (aero.yaw_length / aero.length) ** 2
    axial = jnp.zeros_like(damping)
    if aero.axial_damping:
        rolling = -pressed * aero.axial_length**2 * aero.axial_damping
        axial = rates.z * rolling * 0.5 / jnp.maximum(flow.airspeed, 1.0)
    return Wrench(force, moment + Vector(rates.x * in_yaw, rates.y * damping, axial))


def fin_wrench(body: Body, motion: Motion, flow: Flow, mass: MassProperties) -> Wrench:
    """Return the wrench of four grid fins about the centre of mass, from deflection and body rates.

    The force of the fins due to incidence is included in the body's tables and its centre of pressure engines first.
    """
    zero = jnp.zeros_like(flow.mach)
    if body.fins is None:
        return Wrench(Vector(zero, zero, zero), Vector(zero, zero, zero))
    fins, arm = body.fins, body.fins.height - mass.centre
    yaw, pitch, roll = motion.fins
    along = jnp.maximum(jnp.abs(flow.velocity.z), 0.3 * flow.airspeed)
    angle_x = motion.rates.y * arm / along
    angle_y = -motion.rates.x * arm / along
    slope = flow.dynamic_pressure * fins.area * lookup(fins.normal, flow.mach)
    stall = 1.5 * fins.limit
    side_x = 2.0 * slope * jnp.clip(pitch - angle_x, -stall, stall)
    side_y = -2.0 * slope * jnp.clip(yaw + angle_y, -stall, stall)
    axial = -4.0 * flow.dynamic_pressure * fins.area * lookup(fins.axial, flow.mach) * flow.cosine
    spin = motion.rates.z * fins.radius / along
    return Wrench(
        Vector(side_x, side_y, axial),
        Vector(-arm * side_y, arm * side_x, 4.0 * slope * fins.radius * jnp.clip(roll - spin, -stall, stall)),
    )
