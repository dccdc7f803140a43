"""The same passive rocket in RocketPy: a stable solid-fuelled one of 20 kg, to its apogee."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bodies import G0, at, engine, fly, last, plain
from mission_rocket.physics.gravity import Site
from mission_rocket.physics.state import idle
from mission_rocket.physics.tables import Grid, Table
from mission_rocket.physics.vector import Quaternion, Vector
from mission_rocket.physics.vehicle import Aerodynamics, MassTable, Polar

RADIUS_M, LENGTH_M, BURN_S, THRUST_N, PROPELLANT_KG = 0.0635, 2.4, 3.0, 1800.0, 3.0
FLAT = Site(surface_gravity=G0, rotation=0.0, constant_gravity=True)


def reference():
    """RocketPy's flight: constant drag, Barrowman lift of a nose and four fins, no wind."""
    rocketpy = pytest.importorskip("rocketpy", reason="rocketpy is not installed (dependency group ref)")
    environment = rocketpy.Environment(gravity=G0)
    motor = rocketpy.GenericMotor(
        thrust_source=lambda t: THRUST_N if t <= BURN_S else 0.0,
        burn_time=BURN_S,
        chamber_radius=0.05,
        chamber_height=0.5,
        chamber_position=0.3,
        propellant_initial_mass=PROPELLANT_KG,
        nozzle_radius=0.03,
        dry_mass=1.5,
        center_of_dry_mass_position=0.3,
        dry_inertia=(0.1, 0.1, 0.002),
    )
    rocket = rocketpy.Rocket(
        radius=RADIUS_M,
        mass=15.0,
        inertia=(6.0, 6.0, 0.035),
        power_off_drag=0.45,
        power_on_drag=0.45,
        center_of_mass_without_motor=1.25,
    )
    rocket.add_motor(motor, position=0.0)
    rocket.add_nose(length=0.55, kind="ogive", position=LENGTH_M)
    rocket.add_trapezoidal_fins(n=4, root_chord=0.12, tip_chord=0.06, span=0.12, position=0.15)
    return rocketpy.Flight(
        rocket, environment, rail_length=5.0, inclination=84.0, heading=90.0, terminate_on_apogee=True
    )


def test_apogee_of_a_passive_rocket(within) -> None:
    flight = reference()
    rocket = flight.rocket
    area = math.pi * RADIUS_M**2
    machs = (0.0, 0.3, 0.6, 0.8, 0.9)
    angles = (0.0, math.radians(20.0), math.pi / 2.0)
    slopes = [float(rocket.total_lift_coeff_der(mach)) for mach in machs]
    lift = Grid(angles, machs, tuple(tuple(slope * min(angle, angles[1]) for slope in slopes) for angle in angles))
    drag = Grid(angles, (0.0, 10.0), ((0.45, 0.45),) * 3)
    polar = Polar(lift, drag, *(float(rocket.cp_position(0.3)),) * 2)
    times = np.linspace(BURN_S, 0.0, 13)
    left = tuple((PROPELLANT_KG * (1.0 - times / BURN_S)).tolist())
    body = plain(
        mass=16.5,
        engines=(engine(THRUST_N, THRUST_N * BURN_S / PROPELLANT_KG / G0, throttle_min=1.0),),
        propellant=PROPELLANT_KG,
        length=LENGTH_M,
        aerodynamics=Aerodynamics(area, 2.0 * RADIUS_M, polar, polar, 0.0, 0.0),
        mass_table=MassTable(
            Table(left, tuple(float(rocket.center_of_mass(t)) for t in times)),
            Table(left, tuple(float(rocket.I_11(t)) for t in times)),
            Table(left, tuple(float(rocket.I_33(t)) for t in times)),
        ),
    )
    begin = flight.out_of_rail_time
    place = Vector(*(float(part(begin)) for part in (flight.x, flight.y, flight.z)))
    speed = Vector(*(float(part(begin)) for part in (flight.vx, flight.vy, flight.vz)))
    turn = Quaternion(*(float(part(begin)) for part in (flight.e0, flight.e1, flight.e2, flight.e3)))
    state = at(body, place, speed, attitude=turn, propellant=PROPELLANT_KG * (1.0 - begin / BURN_S), levels=(1.0,))
    state = state._replace(lit_for=(jnp.ones(()),))
    on = idle(body)._replace(throttle=(jnp.ones(()),))
    burning = BURN_S - begin
    steps = math.ceil(burning / 0.02)
    burnt = last(fly(body, FLAT, state, burning, burning / steps, burning, command=on))
    within("mass at burn-out kg", float(burnt.motion.propellant), 1e-3)
    off = jax.tree.map(jnp.asarray, burnt)
    off = off._replace(motion=off.motion._replace(levels=(jnp.zeros(()),)))
    climb = fly(body, FLAT, off, 30.0, 0.02, 0.1).motion.position
    top = climb.z.argmax()
    apogee = float(flight.apogee - flight.env.elevation)
    assert 1000.0 < apogee < 4000.0
    within("apogee, relative", climb.z[top] / apogee - 1.0, 0.01)
    within("downrange at the apogee, relative", climb.x[top] / float(flight.apogee_x) - 1.0, 0.05)
