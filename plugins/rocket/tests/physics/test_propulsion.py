"""Engines by group, engine out, actuators' lags, ignition, RCS and fins."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bodies import G0, at, engine, fly, last, plain
from mission_rocket.physics.aerodynamics import body_wrench, fin_wrench, flow
from mission_rocket.physics.atmosphere import Air, atmosphere
from mission_rocket.physics.dynamics import limited
from mission_rocket.physics.gravity import Site
from mission_rocket.physics.propulsion import Feed, engine_wrench, rcs_wrench
from mission_rocket.physics.state import Dispersion, Motion, State, idle, nominal
from mission_rocket.physics.vector import Vector
from mission_rocket.physics.vehicle import Rcs, mass_properties
from mission_rocket.vehicles import build_body, load_vehicle

SPACE = Site(surface_gravity=0.0, rotation=0.0)
BOOSTER = build_body(load_vehicle("falcon9_class"), carrying=False)
FULL = (1.0, 1.0, 1.0)


def motion(
    levels: tuple[float, ...] = FULL, gimbal: tuple[float, ...] = (0.0, 0.0, 0.0), propellant: float = 3e4
) -> Motion:
    return at(BOOSTER, propellant=propellant, levels=levels, gimbal=Vector(*gimbal)).motion


def thrust(there: Motion, errors: Dispersion | None = None, pressure: float = 0.0):
    """(force, moment, propellant flow) of the engines."""
    mass = mass_properties(BOOSTER, 1.0, there.propellant)
    wrench, spent = engine_wrench(BOOSTER, errors or nominal(), there, mass, jnp.float32(pressure), Feed.of(there))
    return np.array(wrench.force), np.array(wrench.moment), float(spent)


def test_published_engine(within) -> None:
    force, _, spent = thrust(motion((1.0, 0.0, 0.0)))
    within("vacuum thrust N", force[2] - 914_100.0, 1.0)
    within("flow kg/s", spent - 299.7, 0.05)
    force, _, _ = thrust(motion((1.0, 0.0, 0.0)), pressure=101_325.0)
    within("sea-level thrust kN", force[2] / 1e3 - 845.2, 0.05)
    within("sea-level impulse s", force[2] / spent / G0 - 287.6, 0.1)
    force, _, spent = thrust(motion(FULL))
    within("nine engines, relative", force[2] / (9 * 914_100.0) - 1.0, 1e-6)
    assert thrust(motion(FULL, propellant=0.0))[2] == 0.0
    assert not thrust(motion(FULL, propellant=0.0))[0].any()


@pytest.mark.parametrize("out", [-1, 0, 2, 4])
def test_engines_add_up_one_by_one(within, out: int) -> None:
    """Differential effects: the groups' closed form against the sum over engines, some weaker, one out."""
    levels, yaw, pitch = (0.9, 0.6, 0.4), 0.05, -0.03
    errors = nominal()._replace(
        engine_out=jnp.float32(out), centre_of_mass_x=jnp.float32(0.2), centre_of_mass_y=jnp.float32(-0.1)
    )
    there = motion(levels, (yaw, pitch, 0.0))
    force, moment, spent = thrust(there, errors)
    centre = np.array([0.2, -0.1, float(mass_properties(BOOSTER, 1.0, there.propellant).centre)])
    direction = np.array([-math.sin(pitch) * math.cos(yaw), math.sin(yaw), math.cos(pitch) * math.cos(yaw)])
    each = [
        (np.array([x, y, BOOSTER.gimbal.height]), level * group.thrust * direction, level * group.flow)
        for group, level in zip(BOOSTER.engines, levels, strict=True)
        for x, y in group.positions
    ]
    each = [part for number, part in enumerate(each) if number != out]
    total = sum(push for _, push, _ in each)
    turning = sum(np.cross(place - centre, push) for place, push, _ in each)
    within("force, relative", (force - total) / np.linalg.norm(total), 1e-6)
    within("moment, relative", (moment - turning) / np.linalg.norm(turning), 2e-6)
    within("flow, relative", spent / sum(flow for *_, flow in each) - 1.0, 1e-6)


def test_engine_out_turns_towards_the_dead_engine() -> None:
    """Engine 3 stands at +y: without it the thrust's centre moves to -y, a moment about -x and no other axis."""
    _, moment, _ = thrust(motion(), nominal()._replace(engine_out=jnp.float32(3.0)))
    assert moment[0] == pytest.approx(-1.2 * 914_100.0, rel=1e-5)
    assert abs(moment[1]) < 1.0


def test_positive_commands_turn_positively() -> None:
    for axis in range(3):
        told = [0.0, 0.0, 0.0]
        told[axis] = 0.05
        assert thrust(motion(gimbal=tuple(told)))[1][axis] > 1e4
        jets = idle(BOOSTER)._replace(rcs=Vector(*(jnp.float32(10.0 * part) for part in told)))
        mass = mass_properties(BOOSTER, 1.0, jnp.float32(3e4))
        wrench, gas = rcs_wrench(BOOSTER, jets, mass, Feed.of(motion()))
        assert np.array(wrench.moment)[axis] > 1e3
        assert float(gas) == pytest.approx(0.5 * 3000.0 / (70.0 * G0), rel=1e-5)
        there = motion()._replace(fins=Vector(*(jnp.float32(part) for part in told)))
        falling = flow(atmosphere(jnp.float32(8e3)), Vector(*(jnp.float32(part) for part in (0.0, 0.0, -400.0))))
        assert np.array(fin_wrench(BOOSTER, there, falling, mass).moment)[axis] > 1e4


def air_of(pressure: float, speed: float) -> Air:
    """Air in which `speed` gives a dynamic pressure, at Mach 2 [m/s, Pa]."""
    parts = (250.0, 1e4, 2.0 * pressure / speed**2, 0.5 * speed)
    return Air(*(jnp.float32(part) for part in parts))


@pytest.mark.parametrize("engine_first", [True, False])
def test_body_lift_and_stability(engine_first: bool) -> None:
    """Lift towards the leading end's side; the centre of pressure behind the centre of mass turns it back."""
    sign = -1.0 if engine_first else 1.0
    tilt = 0.1  # of the nose towards +x, so a flow across from it, to -x
    met = flow(
        air_of(4e4, 600.0),
        Vector(jnp.float32(-600.0 * math.sin(tilt)), jnp.float32(0.0), jnp.float32(sign * 600.0 * math.cos(tilt))),
    )
    mass = mass_properties(BOOSTER, 1.0, jnp.float32(1e4))
    wrench = body_wrench(BOOSTER, nominal(), met, Vector(*(jnp.float32(0.0),) * 3), mass)
    assert float(met.incidence) == pytest.approx(tilt, rel=1e-4)
    assert float(wrench.force.x) > 0.0  # against the flow across, either way
    assert float(wrench.force.z) * sign < 0.0  # drag
    assert float(wrench.moment.y) * sign < 0.0  # turns the leading end back into the flow


@pytest.mark.parametrize("engine_first", [True, False])
def test_the_centre_of_pressure_moves_to_the_side_views_centroid(engine_first: bool) -> None:
    """From the low-incidence one to that of the cross-flow, the further the faster it blows across."""
    mass = mass_properties(BOOSTER, 1.0, jnp.float32(1e4))
    aero = BOOSTER.aerodynamics
    polar = aero.engine_first if engine_first else aero.nose_first
    acts = []
    for degrees in (0.5, 10.0, 30.0, 60.0):
        angle = math.radians(degrees)
        along = (-1.0 if engine_first else 1.0) * math.cos(angle)
        met = flow(
            air_of(1e3, 300.0),
            Vector(jnp.float32(-300.0 * math.sin(angle)), jnp.float32(0.0), jnp.float32(300.0 * along)),
        )
        wrench = body_wrench(BOOSTER, nominal(), met, Vector(*(jnp.float32(0.0),) * 3), mass)
        acts.append(float(mass.centre) + float(wrench.moment.y) / float(wrench.force.x))
    assert acts[0] == pytest.approx(polar.centre_of_pressure, abs=0.25)
    apart = np.abs(np.array(acts) - polar.centre_across)
    assert (np.diff(apart) < 0.0).all()
    assert apart[-1] < 0.35 * apart[0]


def test_steering_reverses_at_high_dynamic_pressure() -> None:
    """Engines first and 3 degrees off: thrust pushes to one side, body lift to the other, and lift wins when q is high."""
    tilt = math.radians(3.0)
    mass = mass_properties(BOOSTER, 1.0, jnp.float32(1e4))

    def sideways(pressure: float) -> float:
        """Force across the velocity, positive away from the nose's side, to which thrust pushes [N]."""
        speed = 600.0
        velocity = Vector(jnp.float32(-speed * math.sin(tilt)), jnp.float32(0.0), jnp.float32(-speed * math.cos(tilt)))
        met = flow(air_of(pressure, speed), velocity)
        force = body_wrench(BOOSTER, nominal(), met, Vector(*(jnp.float32(0.0),) * 3), mass).force
        push = 914_100.0 + float(force.z)
        return float(force.x) * math.cos(tilt) - push * math.sin(tilt)

    assert sideways(1e3) < 0.0 < sideways(4e4)


def after(seconds: float, step_s: float = 0.05, **told) -> State:
    body = BOOSTER
    command = idle(body)._replace(**told)
    return last(
        fly(
            body,
            SPACE,
            at(body, propellant=3e4, position=Vector(0.0, 0.0, 3e5)),
            seconds,
            step_s,
            step_s * 2,
            command=command,
        )
    )


def test_actuators_lag_at_first_order(within) -> None:
    angle = jnp.float32(0.05)
    flown = after(
        0.4,
        gimbal=Vector(angle, -angle, angle),
        fins=Vector(angle, angle, angle),
        throttle=(jnp.float32(0.8),) + (jnp.float32(0.0),) * 2,
    ).motion
    within("gimbal rad", np.abs(np.array(flown.gimbal)) - 0.05 * (1.0 - math.exp(-0.4 / 0.25)), 1e-6)
    within("fins rad", np.array(flown.fins) - 0.05 * (1.0 - math.exp(-0.4 / 0.5)), 1e-6)
    within("throttle", flown.levels[0] - 0.8 * (1.0 - math.exp(-0.4 / 0.3)), 1e-5)


@pytest.mark.parametrize("lag", [0.001, 0.05, 0.3, 5.0])
@pytest.mark.parametrize("step_s", [0.05, 0.25, 1.0])
def test_lags_are_exact_for_any_step(within, lag: float, step_s: float) -> None:
    """Also where the step is many lags long, which would be unstable for a method that integrates the lag."""
    body = plain(mass=1e6, engines=(engine(1e5, 1e6)._replace(lag=lag),), propellant=10.0)
    body = body._replace(gimbal=body.gimbal._replace(lag=lag))
    still, state, left = idle(body), at(body)._replace(lit_for=(jnp.ones(()),)), math.exp(-2.0 / lag)
    pushed = still._replace(throttle=(jnp.ones(()),))
    end = last(fly(body, SPACE, state, 2.0, step_s, 2.0, command=pushed)).motion
    within("throttle", float(end.levels[0]) - (1.0 - left), 2e-5)
    within("seconds of thrust", 10.0 * float(end.velocity.z) - (2.0 - lag * (1.0 - left)), 1e-3)
    turned = still._replace(gimbal=Vector(*(jnp.float32(0.01),) * 3))
    end = last(fly(body, SPACE, state, 2.0, step_s, 2.0, command=turned)).motion
    within("gimbal, relative", float(end.gimbal.x) / 0.01 - (1.0 - left), 2e-5)


def test_commands_are_limited() -> None:
    wild = jax.tree.map(lambda part: part + 9.0, idle(BOOSTER))
    told = limited(BOOSTER, wild._replace(throttle=(jnp.float32(0.1), jnp.float32(0.0), jnp.float32(2.0))))
    assert [round(float(part), 6) for part in told.throttle] == [0.4, 0.0, 1.0]
    assert np.allclose(np.array(told.gimbal), BOOSTER.gimbal.limit)
    # each fin turns by pitch or yaw plus roll: together within the limit
    assert np.allclose(np.array(told.fins), [math.radians(20.0)] * 2 + [0.0])
    assert np.array_equal(np.array(told.rcs), (1.0, 1.0, 1.0))


@pytest.mark.parametrize("delay_s", [0.0, 0.03, 0.1, 0.38])
@pytest.mark.parametrize("step_s", [0.05, 0.1])
def test_ignition_delay_costs_its_impulse(within, delay_s: float, step_s: float) -> None:
    """However the delay falls between steps, the impulse is that of a later start: T (t - delay - lag)."""
    body = plain(mass=1e6, engines=(engine(1e5, 1e6),), propellant=10.0)
    errors = nominal()._replace(ignition_delay=jnp.float32(delay_s))
    told = idle(body)._replace(throttle=(jnp.ones(()),))
    seconds = 6.0
    end = last(fly(body, SPACE, at(body), seconds, step_s, seconds, errors, told)).motion
    within("seconds of thrust", 10.0 * float(end.velocity.z) - (seconds - delay_s - 0.3), 2e-4)


def test_ignitions_run_out() -> None:
    body = plain(engines=(engine(ignitions=1),), propellant=500.0)
    on = idle(body)._replace(throttle=(jnp.ones(()),))
    lit = last(fly(body, SPACE, at(body), 1.0, command=on))
    assert (float(lit.ignitions_left[0]), float(lit.motion.levels[0]) > 0.9) == (0.0, True)
    off = last(fly(body, SPACE, lit, 3.0, command=idle(body)))
    assert (float(off.lit_for[0]), float(off.motion.levels[0]) < 1e-3) == (0.0, True)
    again = last(fly(body, SPACE, off, 1.0, command=on))
    assert float(again.motion.levels[0]) < 1e-3


def test_rcs_stops_when_empty() -> None:
    body = plain(rcs=Rcs(1000.0, 9.0, 0.5, 700.0, 2.0))
    told = idle(body)._replace(rcs=Vector(jnp.ones(()), jnp.zeros(()), jnp.zeros(())))
    flown = fly(body, SPACE, at(body), 5.0, command=told).motion
    assert flown.rcs_propellant[-1] == 0.0
    assert flown.rates.x[-1] == flown.rates.x[-2] > 1.0


@pytest.mark.parametrize("share", [0.02, 0.25, 0.5, 0.75, 0.98, 1.0, 1.02])
def test_a_burn_ends_where_the_tank_runs_dry(within, share: float) -> None:
    """Velocity and displacement of one step are those of a thrust that lasts the share of it that the tank feeds."""
    step_s, group, burnt = 0.1, engine(thrust=1e4), min(share, 1.0)
    body = plain(mass=1e3, engines=(group,), propellant=share * step_s * group.flow)
    state = at(body, levels=(1.0,))._replace(lit_for=(jnp.float32(10.0),))
    command = idle(body)._replace(throttle=(jnp.float32(1.0),))
    moved = last(fly(body, SPACE, state, step_s, step_s, step_s, command=command)).motion
    acceleration = 1e4 / (1e3 + 0.5 * burnt * step_s * group.flow)
    within("velocity over a full step's", float(moved.velocity.z) / (step_s * acceleration) - burnt, 0.001)
    travelled = float(moved.position.z) / (0.5 * step_s**2 * acceleration)
    within("displacement over a full step's", travelled - burnt * (2.0 - burnt), 0.001)
    assert (float(moved.propellant) == 0.0) == (share <= 1.0)


def test_the_gas_of_the_rcs_ends_where_its_tank_runs_dry(within) -> None:
    body = plain(rcs=Rcs(1000.0, 9.0, 0.5, 700.0, 2.0))
    told = idle(body)._replace(rcs=Vector(jnp.ones(()), jnp.zeros(()), jnp.zeros(())))
    coarse, fine = (fly(body, SPACE, at(body), 2.0, step_s, 2.0, command=told).motion for step_s in (0.5, 0.01))
    within("rad/s, relative", float(coarse.rates.x[-1]) / float(fine.rates.x[-1]) - 1.0, 1e-3)
