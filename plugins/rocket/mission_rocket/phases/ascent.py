"""Ascent: from the release of the hold-downs through Mach 1, max q and the gravity turn to MECO.

Actions (5): `throttle` (of all nine engines, 40 to 100 %), `time_to_meco` (0 to 20 s; the engines stop
inside the step when it is within the control period), `gimbal_yaw`, `gimbal_pitch`, `gimbal_roll`
(shares of the limit). With the parameter `fins` also `fin_yaw`, `fin_pitch`, `fin_roll`; off by default,
as they are folded on the way up. With `residual` r > 0 the vehicle receives guide + r x action, clipped;
with 0 the action itself. The flight begins with the engines at full thrust, since the hold-downs
release only then; MECO is final, and the phase ends 1 to 1.5 s later, when the thrust has gone.

Observation (33): altitude (65 km), speed (1650 m/s), climb (1200 m/s), downrange (40 km), across (log,
100 m), velocity across (20 m/s), error of the flight-path angle (5 deg), nose downrange and across,
nose off the flow (0.1), body rates (0.05 rad/s), acceleration felt along (35 m/s2) and across (2 m/s2),
thrust level, mass (200 t about 350 t), propellant above the reserve (20 t), dynamic pressure (25 kPa),
Mach (3), gimbals (their limit), time to MECO (20 s), altitude at MECO if nothing is done (log, 1 km off
the aim), whether cut, and the guide's action.

Success `meco`, judged at the end: altitude, speed and flight-path angle inside their ranges, rates
small, propellant above the reserve, no structural limit passed. Failures: `off_target` (ended outside
the box), `overstressed` (dynamic pressure, its product with incidence, a load or the rate above the
vehicle's limit), `out_of_propellant`, `lost_control` (tilted past the horizon, or turning faster than 30 deg/s),
`too_low` (back on the ground).

Reward: `meco` 40 for the box as a whole, because only that can be flown on from; `aim` at the end 3 / (1 +
(error / half width of its range)^2) for altitude, speed, flight-path angle and sideways speed (20 m/s),
so that a near miss beats a far one; `reserve`, with success, 1 for each 2 t above the reserve, at most 10: a tonne
here is a tonne at landing; `progress` 4 for the whole speed, as it is gained, so that early training has a
slope to climb; `path` takes up to 0.02 a second for being 10 deg off the reference flight-path angle;
`limits` takes the share of a limit above 80 %, each second. Without success a flight earns less
than 16, with it more than 40.

Guide: a gravity turn, flight-path angle by speed, from a point-mass flight of the default vehicle (kick
0.82 deg at 70 m/s, slightly pressed down above 700 m/s so that it reaches 65 km at 50 deg). The velocity is
turned towards it and into the plane of flight; incidence is kept below a share of the vehicle's
q-alpha, so in strong wind the vehicle drifts and comes back above it. Throttle follows dynamic
pressure around max q and the axial load in the end. Where the reserve would be short, as with an engine out, it aims at
a lower speed inside the box.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from pydantic import Field

from mission import Environment, Outcome, PhaseSpec, hookimpl
from mission_rocket.flight import (
    Flight,
    FlightParams,
    Range,
    Stress,
    View,
    agent,
    body_components,
    bounded,
    compress,
    corrected,
    draw_day,
    move,
    no_stress,
    stress,
    stress_ratio,
    structural_limits,
    uncorrected,
    view,
)
from mission_rocket.guidance import point, within
from mission_rocket.physics.channels import channels
from mission_rocket.physics.constants import DEGREE
from mission_rocket.physics.gravity import Site
from mission_rocket.physics.state import Command, idle, start_state
from mission_rocket.physics.tables import Table, lookup
from mission_rocket.physics.vector import Scalar, Vector, dot, norm, quaternion_of_axis
from mission_rocket.physics.vehicle import Body
from mission_rocket.report import sections
from mission_rocket.vehicles import build_body

MECO, OFF_TARGET, OVERSTRESSED, EMPTY, LOST, LOW = range(6)
_LONGEST_S = 20.0
_TAIL_S = 1.0  # flown on after MECO, at least: three lags of the engines and more
_GRAVITY = 9.7  # m/s2, low on the way up
_SPEED_MARGIN_M_S, _RESERVE_MARGIN_KG = 10.0, 500.0  # kept from the least speed and reserve of the box
# flight-path angle [deg] by speed [m/s]
_REFERENCE = Table(
    (70.0, 100.0, 150.0, 200.0, 250.0, 300.0, 350.0, 400.0, 500.0, 600.0, 700.0, 800.0, 900.0, 1000.0, 1200.0, 1400.0, 1650.0),
    (90.0, 88.5, 87.0, 85.6, 82.5, 78.5, 75.1, 72.8, 69.4, 66.9, 64.7, 62.7, 60.6, 58.6, 55.3, 52.6, 50.1),
)  # fmt: skip


class Params(FlightParams):
    """The MECO box and the guide's aims."""

    residual: float = Field(0.1, ge=0.0, le=1.0, description="Authority of the agent over the guide; 0: no guide.")
    fins: bool = Field(False, description="Whether the fins are unfolded and commanded.")
    altitude_m: Range = (61e3, 74e3)
    speed_m_s: Range = (1600.0, 1700.0)
    flight_path_angle_deg: Range = (42.0, 58.0)
    rate_deg_s: float = Field(2.0, gt=0.0)
    reserve_kg: float = Field(45e3, ge=0.0)
    aim_altitude_m: float = Field(65e3, gt=0.0)
    aim_speed_m_s: float = Field(1650.0, gt=0.0)
    aim_flight_path_angle_deg: float = Field(50.0, gt=0.0, lt=90.0)
    guide_pressure_pa: float = Field(25e3, gt=0.0, description="Above it the guide throttles to the least.")
    guide_load_m_s2: float = Field(35.0, gt=10.0)
    guide_q_alpha_share: float = Field(0.75, gt=0.0, le=1.0, description="Of the vehicle's limit.")


class Plan(NamedTuple):
    """What the guide would do now: action, time to MECO [s], altitude then [m]."""

    action: Array
    t_go: Array
    final_altitude: Array


class State(NamedTuple):
    """A vehicle on its way up; `off_for` [s] since MECO."""

    flight: Flight
    time: Array
    cut: Array
    off_for: Array
    worst: Stress
    plan: Plan  # made once a step: it is both acted on and observed


@dataclasses.dataclass(frozen=True, eq=False)
class Ascent(Environment[Flight, State]):
    """See the module's docstring."""

    params: Params
    body: Body
    site: Site

    observation_names = (
        "altitude", "speed", "climb", "downrange", "across", "velocity_across", "path_error", "nose_x", "nose_y",
        "off_flow_x", "off_flow_y", "rate_x", "rate_y", "rate_z", "felt_along", "felt_x", "felt_y", "level", "mass",
        "propellant", "pressure", "mach", "gimbal_x", "gimbal_y", "gimbal_z", "time_to_meco", "meco_altitude", "cut",
        "guide_throttle", "guide_meco", "guide_gimbal_yaw", "guide_gimbal_pitch", "guide_gimbal_roll",
    )  # fmt: skip
    action_names = ("throttle", "time_to_meco", "gimbal_yaw", "gimbal_pitch", "gimbal_roll")
    causes = ("meco", "off_target", "overstressed", "out_of_propellant", "lost_control", "too_low")
    control_period_s = 0.5
    max_steps = 400

    def start(self, key: Array) -> Flight:
        """On the pad, the moment the hold-downs release: at rest, all engines at full thrust."""
        day_key, gust_key = jax.random.split(key)
        day = draw_day(self.params, day_key)
        zero, one = jnp.zeros(()), jnp.ones(())
        none = Vector(zero, zero, zero)
        attitude = quaternion_of_axis(Vector(day.tilt_x, day.tilt_y, jnp.sqrt(1.0 - day.tilt_x**2 - day.tilt_y**2)))
        state = start_state(self.body, none, none, attitude, self.body.propellant * day.propellant, gust_key)
        return Flight(
            state._replace(
                motion=state.motion._replace(levels=tuple(one for _ in self.body.engines)),
                lit_for=tuple(one * 3.0 for _ in self.body.engines),
                ignitions_left=tuple(left - 1.0 for left in state.ignitions_left),
            ),
            day,
        )

    def enter(self, key: Array, handoff: Flight) -> State:
        zero = jnp.zeros(())
        no = jnp.bool_(False)
        return State(handoff, zero, no, zero, no_stress(), self._plan(handoff, no))

    def _seen(self, state: State) -> View:
        return view(self.body, self.site, state.flight)

    def path_error(self, seen: View) -> Array:
        """Flight-path angle above the reference [rad]; upright below 30 m/s."""
        angle = jnp.arcsin(jnp.clip(seen.climb / seen.speed, -1.0, 1.0))
        return jnp.where(seen.speed > 30.0, angle - lookup(_REFERENCE, seen.speed) * DEGREE, 0.0)

    def _plan(self, flight: Flight, cut: Array) -> Plan:
        """The guide; see the module's docstring."""
        body, params = self.body, self.params
        seen = view(body, self.site, flight)
        engines = sum(len(group.positions) for group in body.engines)
        group, level = body.engines[0], flight.state.motion.levels[0]
        full = engines * group.thrust
        # throttle: down to the least across a band of dynamic pressure, and a cap on the axial load
        band = 0.3 * params.guide_pressure_pa
        by_pressure = 1.0 - (1.0 - group.throttle_min) * (seen.pressure - params.guide_pressure_pa + band) / band
        felt = jnp.maximum(dot(seen.felt, seen.axis), 1.0)
        by_load = params.guide_load_m_s2 * jnp.where(level > 0.3, level / felt, seen.mass / full)
        throttle = jnp.minimum(by_pressure, by_load)
        # cut-off: the speed gained while the thrust tails off, less what gravity takes until the end
        motion_along = seen.velocity * (1.0 / seen.speed)
        sine = seen.climb / seen.speed
        push = dot(seen.felt, motion_along)
        tail = push * group.lag - _GRAVITY * sine * (_TAIL_S + 0.5 * self.control_period_s)
        gain = jnp.maximum(push - _GRAVITY * sine, 2.0)
        # slower where the reserve would be short, as with an engine out
        flow = jnp.maximum(seen.thrust, 1e5) * group.flow / group.thrust
        burn = (params.aim_speed_m_s - tail - seen.speed) / gain + group.lag
        left = flight.state.motion.propellant - flow * burn
        least = params.speed_m_s[0] + _SPEED_MARGIN_M_S
        short = jnp.maximum(params.reserve_kg + _RESERVE_MARGIN_KG - left, 0.0)
        aim_speed = jnp.maximum(params.aim_speed_m_s - short * gain / flow, least)
        t_go = (aim_speed - tail - seen.speed) / gain
        final_climb = aim_speed * jnp.sin(params.aim_flight_path_angle_deg * DEGREE)
        final_altitude = seen.altitude + 0.5 * jnp.maximum(t_go, 0.0) * (seen.climb + final_climb)
        # direction of flight: the reference, and back to the plane y = 0
        angle = lookup(_REFERENCE, seen.speed) * DEGREE
        back = jnp.clip(-0.02 * seen.position.y, -10.0, 10.0) / jnp.maximum(seen.speed, 100.0)
        aim = Vector(
            jnp.cos(angle) * seen.vertical.z + jnp.sin(angle) * seen.vertical.x,
            jnp.sin(angle) * seen.vertical.y + back,
            jnp.sin(angle) * seen.vertical.z - jnp.cos(angle) * seen.vertical.x,
        )
        moving = jnp.clip((seen.speed - 20.0) / 30.0, 0.0, 1.0)
        heading = seen.vertical * (1.0 - moving) + motion_along * moving
        turn = (aim - heading) * (0.25 * seen.speed * seen.mass * moving)
        # thrust acts along the nose, lift along its angle from the flow
        lift = jnp.where(seen.speed > 50.0, seen.lift_slope, 0.0)
        axis = heading * (jnp.maximum(seen.thrust, 1e5)) + seen.toward * lift + turn
        axis = axis * (1.0 / norm(axis))
        largest = params.guide_q_alpha_share * body.limits.q_alpha / jnp.maximum(seen.pressure, 2e3)
        relieved = within(axis, seen.toward, jnp.minimum(largest, 30.0 * DEGREE))
        axis = Vector(*(jnp.where(seen.pressure > 2e3, a, b) for a, b in zip(relieved, axis, strict=True)))
        told = point(body, flight, seen, axis, 0.5, 1.1, rate_limit=0.1, gimballed=jnp.where(cut, 0.0, 1.0))
        arm = sum((x * x + y * y) ** 0.5 for one in body.engines for x, y in one.positions) / engines
        roll = -seen.inertia.z * seen.rates.z / ((seen.thrust + 1e5) * arm * body.gimbal.limit)
        roll = jnp.where(cut, 0.0, roll)
        share = (throttle - group.throttle_min) / (1.0 - group.throttle_min)
        action = jnp.stack([2.0 * share - 1.0, 2.0 * t_go / _LONGEST_S - 1.0, told.gimbal.x, told.gimbal.y, roll])
        unused = jnp.zeros(len(self.action_names) - len(action))  # the fins, if any, stay centred
        return Plan(jnp.concatenate([bounded(action, (1,)), unused]), t_go, jnp.asarray(final_altitude))

    def guide(self, state: State) -> Array:
        """The guide's action; zero where the action corrects it."""
        return uncorrected(state.plan.action, self.params.residual)

    def step(self, key: Array, state: State, action: Array) -> State:
        body, period = self.body, self.control_period_s
        told = corrected(state.plan.action, self.params.residual, action)
        t_go = 0.5 * _LONGEST_S * (told[1] + 1.0)
        cuts = ~state.cut & (t_go <= period)
        zero = jnp.zeros(())
        none = Vector(zero, zero, zero)
        fins = none
        if self.params.fins and body.fins is not None:
            fins = Vector(told[5], told[6], told[7]) * body.fins.limit

        def command(off: Array) -> Command:
            throttle = tuple(
                jnp.where(off, 0.0, group.throttle_min + (1.0 - group.throttle_min) * 0.5 * (told[0] + 1.0))
                for group in body.engines
            )
            return Command(throttle, Vector(told[2], told[3], told[4]) * body.gimbal.limit, fins, none)

        switch = jnp.where(cuts, jnp.clip(t_go, 0.0, period), 0.5 * period)
        cut = state.cut | cuts
        flight = move(body, self.site, key, state.flight, (command(state.cut), command(cut)), switch, period, 2)
        worst = jax.tree.map(jnp.maximum, state.worst, stress(body, self.site, flight, command(cut)))
        off_for = jnp.where(state.cut, state.off_for + period, jnp.where(cuts, period - switch, 0.0))
        return State(flight, state.time + period, cut, off_for, worst, self._plan(flight, cut))

    def observe(self, state: State) -> Array:
        seen, plan = self._seen(state), state.plan
        motion = state.flight.state.motion
        off_flow = body_components(state.flight, seen.toward)
        felt = body_components(state.flight, seen.felt)
        aimed = plan.final_altitude - self.params.aim_altitude_m
        gimbal = motion.gimbal * (1.0 / self.body.gimbal.limit)
        return jnp.stack(
            [
                seen.altitude / 65e3,
                seen.speed / 1650.0,
                seen.climb / 1200.0,
                seen.position.x / 40e3,
                compress(seen.position.y, 100.0),
                seen.velocity.y / 20.0,
                self.path_error(seen) / (5.0 * DEGREE),
                seen.axis.x,
                seen.axis.y / 0.1,
                jnp.where(seen.pressure > 500.0, off_flow.x, 0.0) / 0.1,
                jnp.where(seen.pressure > 500.0, off_flow.y, 0.0) / 0.1,
                seen.rates.x / 0.05,
                seen.rates.y / 0.05,
                seen.rates.z / 0.05,
                felt.z / 35.0,
                felt.x / 2.0,
                felt.y / 2.0,
                motion.levels[0],
                (seen.mass - 350e3) / 200e3,
                (motion.propellant - self.params.reserve_kg) / 200e3,
                seen.pressure / 25e3,
                seen.mach / 3.0,
                gimbal.x,
                gimbal.y,
                gimbal.z,
                jnp.minimum(plan.t_go / _LONGEST_S, 5.0),
                compress(aimed, 1000.0) / 3.0,
                state.cut.astype(jnp.float32),
                *plan.action[:5],
            ]
        )

    def box(self, state: State) -> dict[str, Array]:
        """Altitude [m], speed [m/s], flight-path angle [deg] and rate [deg/s], as the end is judged."""
        seen = self._seen(state)
        return {
            "altitude": jnp.asarray(seen.altitude),
            "speed": jnp.asarray(seen.speed),
            "angle": jnp.arcsin(jnp.clip(seen.climb / seen.speed, -1.0, 1.0)) / DEGREE,
            "rate": norm(seen.rates) / DEGREE,
        }

    def outcome(self, state: State) -> Outcome:
        params, motion = self.params, state.flight.state.motion
        seen, box = self._seen(state), self.box(state)

        def inside(value: Array, bounds: tuple[float, float]) -> Array:
            return (value >= bounds[0]) & (value <= bounds[1])

        over = stress_ratio(self.body, state.worst, False) > 1.0
        empty = motion.propellant <= 0.0
        lost = (dot(seen.axis, seen.vertical) < 0.0) | (box["rate"] > 30.0)
        low = seen.altitude < -5.0
        ended = state.off_for >= _TAIL_S
        good = inside(box["altitude"], params.altitude_m) & inside(box["speed"], params.speed_m_s)
        good = good & inside(box["angle"], params.flight_path_angle_deg) & (box["rate"] <= params.rate_deg_s)
        good = good & (motion.propellant >= params.reserve_kg)
        success = ended & good & ~(over | empty | lost | low)
        cause = jnp.where(lost, LOST, OFF_TARGET)
        cause = jnp.where(low, LOW, cause)
        cause = jnp.where(empty, EMPTY, cause)
        cause = jnp.where(over, OVERSTRESSED, cause)
        cause = jnp.where(success, MECO, cause)
        return Outcome(ended | over | empty | lost | low, success, cause.astype(jnp.int32))

    def leave(self, state: State) -> Flight:
        return state.flight

    def telemetry(self, state: State) -> dict[str, Array]:
        measured = channels(self.body, self.site, state.flight.dispersion, state.flight.state)
        return measured | {
            "phase_time_s": state.time,
            "reference_error_deg": self.path_error(self._seen(state)) / DEGREE,
        }


class AscentWithFins(Ascent):
    """The same with the fins unfolded; the guide leaves them centred."""

    action_names = (*Ascent.action_names, "fin_yaw", "fin_pitch", "fin_roll")


def environment(params: Params) -> Ascent:
    """The phase for its parameters."""
    kind = AscentWithFins if params.fins else Ascent
    return kind(params, build_body(params.vehicle, 0, carrying=True), params.site())


def reward(params: Params):
    """Reward terms; see the module's docstring."""
    env = environment(params)
    silent = idle(env.body)

    def terms(state: State, action: Array, after: State, outcome: Outcome) -> dict[str, Array]:
        before, seen, box = env._seen(state), env._seen(after), env.box(after)
        seconds = after.time - state.time

        def near(error: Scalar, bounds: tuple[float, float]) -> Array:
            return 3.0 / (1.0 + (2.0 * jnp.asarray(error) / (bounds[1] - bounds[0])) ** 2)

        aim = near(box["altitude"] - params.aim_altitude_m, params.altitude_m)
        aim = aim + near(box["speed"] - params.aim_speed_m_s, params.speed_m_s)
        aim = aim + near(box["angle"] - params.aim_flight_path_angle_deg, params.flight_path_angle_deg)
        aim = aim + near(seen.velocity.y, (-20.0, 20.0))
        ended = (outcome.cause == MECO) | (outcome.cause == OFF_TARGET)
        left = after.flight.state.motion.propellant - params.reserve_kg
        ratio = stress_ratio(env.body, stress(env.body, env.site, after.flight, silent), False)
        off = jnp.minimum(jnp.abs(env.path_error(seen)) / (10.0 * DEGREE), 1.0)
        return {
            "meco": jnp.where(outcome.success, 40.0, 0.0),
            "aim": jnp.where(outcome.terminated & ended, aim, 0.0),
            "reserve": jnp.where(outcome.success, jnp.clip(left / 2e3, 0.0, 10.0), 0.0),
            "progress": 4.0 * (jnp.minimum(seen.speed, 1650.0) - jnp.minimum(before.speed, 1650.0)) / 1650.0,
            "path": -0.02 * seconds * off,
            "limits": -seconds * jnp.clip(ratio - 0.8, 0.0, 1.0),
        }

    return terms


@hookimpl
def mission_phase() -> PhaseSpec:
    """The phase's record."""
    return PhaseSpec(
        params=Params,
        environment=environment,
        reward=reward,
        limits=lambda params: structural_limits(params, False),
        report=sections,
        sac=agent(target_entropy=-10.0),
    )
