"""Entry burn: from 70 km, unlit, through a braking burn on three engines and the descent to 7 km, unlit.

Actions (11): `throttle` (40 to 100 %), `time_to_ignition` and `time_to_cut_off` (0 to 20 s; what falls
within the control period happens inside the step, and after the cut-off the engines stay off),
`gimbal_yaw`, `gimbal_pitch`, `fin_yaw`, `fin_pitch`, `fin_roll`, `rcs_yaw`, `rcs_pitch`, `rcs_roll` (shares of
the actuators' limits). With `residual` r > 0 the vehicle receives guide + r x action, clipped; with 0 the
action itself.

Observation (45): position across (log, 100 m) and altitude (15 km about 35 km), velocity across (200 m/s)
and up (300 m/s about -700 m/s), the axis off the flow (0.1), rates (0.1 rad/s), acceleration felt across
(10 m/s2), thrust level, whether lit, whether cut off, propellant (4 t about 11 t), gas (200 kg), dynamic
pressure (30 kPa, and log, 1 kPa), Mach (2), share of the worst structural limit, gimbal and fins (their
limits), wind here (50 m/s); predicted: miss of the touchdown (log, 50 m), largest dynamic pressure (30 kPa about
60 kPa), speed at the end (50 m/s about 390 m/s), burn that is left (10 s), drag found over nominal drag (0.1
about 1); and the guide's action.

Success `delivered`: at `end_altitude_m` descending, unlit, the touchdown that braking alone would reach
(`predict_touchdown`, where the landing burn begins) within `miss_m` of the pad, speed in `speed_m_s`,
`incidence_deg`, `rate_deg_s`, at least `least_propellant_kg` left, no structural limit passed. Failures, the
first that holds: `overstressed` (at once, when a structural limit is passed), `out_of_propellant`, `rose` (burnt
until it climbed), and at the end altitude `missed`, `off_speed`, `unsteady` (incidence or rate),
`short_of_propellant`.

Limits: dynamic pressure engines first, q-alpha, axial and lateral load, turning rate of the vehicle file,
reported as margins; the largest share of any is carried in the state.

Reward: `delivered` 40 for the whole box: what counts. `arrival` pays 2 / (1 + (x / limit)^2) at the end for each
of miss, distance from the middle of the speeds, incidence and rate, so that a near miss beats a far one.
`aim` pays 0.1 / (1 + predicted miss / 100 m) a second, some 7 in all, so position always costs.
`reserve`, with success, pays 1 for each 500 kg above `least_propellant_kg`, at most 12, and `gas` takes 1 for each
200 kg: small, so that saving never outweighs arriving.
`limits` takes the share of a limit above 80 %, each step. Every end in the air pays nothing.

Guide: each step it predicts coast, burn against the flow at constant axial load, descent and landing, with
the day's wind in the envelope's shape and the drag found so far. It lights at `ignition_altitude_m` and cuts
off when the predicted speed at the end and peak of dynamic pressure are what the propellant affords; while
lit it tilts the thrust, after that the body, to take the predicted miss out in a few seconds, within
`guide_q_alpha_share`. What a push across now moves at the ground follows from the same descent: v' = -(D / m v) v.
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
    View,
    agent,
    bounded,
    compress,
    corrected,
    draw_day,
    move,
    stress,
    stress_ratio,
    structural_limits,
    uncorrected,
    view,
)
from mission_rocket.guidance import accelerate_across, found_drag, found_lag, point
from mission_rocket.physics.channels import channels, fall
from mission_rocket.physics.constants import DEGREE
from mission_rocket.physics.gravity import Site, free_fall
from mission_rocket.physics.integrate import cross_altitude
from mission_rocket.physics.state import Command, start_state
from mission_rocket.physics.tables import lookup, lookup_grid
from mission_rocket.physics.vector import Scalar, Vector, norm, quaternion_of_axis
from mission_rocket.physics.vehicle import Body
from mission_rocket.prediction import WIND_SHAPE, Descent, brake, descend, predict_touchdown
from mission_rocket.report import sections
from mission_rocket.vehicles import build_body

DELIVERED, MISSED, OFF_SPEED, UNSTEADY, SHORT, ROSE, EMPTY, OVERSTRESSED = range(8)
_LONGEST_S, _OVERDUE_S = 20.0, 2.0
_REST = (2700.0, 0.85, 1.0)  # ignition altitude, throttle and engines of the landing that is predicted
_ENGINES = 3.0
_SPEED = (388.0, 430.0)  # m/s at the end, and
_PEAK = (66e3, 74e3)  # Pa, that the guide cuts off for: with plenty of propellant, and with the least
_PLENTY_KG = 2500.0  # above the least propellant
_BURN_TILT, _COAST_TILT = 18.0 * DEGREE, 8.0 * DEGREE
_SPREAD_X_M, _SPREAD_Y_M = 1500.0, 500.0


class Params(FlightParams):
    """What the landing accepts, the guide's ignition, and what a start of its own scatters about."""

    residual: float = Field(0.03, ge=0.0, le=1.0, description="Authority of the agent over the guide; 0: no guide.")
    ignition_altitude_m: float = Field(47e3, gt=20e3, description="The guide lights here, or above.")
    guide_load_m_s2: float = Field(46.0, gt=10.0, description="Axial, of the guide's burn; real ones 45 to 47.")
    guide_q_alpha_share: float = Field(0.67, gt=0.0, le=1.0, description="Of the vehicle's limit.")
    end_altitude_m: float = Field(7000.0, gt=3000.0)
    miss_m: float = Field(200.0, gt=0.0, description="Of the touchdown that is predicted at the end.")
    speed_m_s: Range = (330.0, 440.0)
    incidence_deg: float = Field(6.0, gt=0.0)
    rate_deg_s: float = Field(8.0, gt=0.0)
    least_propellant_kg: float = Field(6500.0, ge=0.0)
    start_altitude_m: float = Field(70e3, gt=15e3, le=70e3)
    start_propellant_kg: Range = (13_000.0, 20_000.0)
    start_offset_m: float = Field(-2800.0, description="Where along x a fall without air would end; beyond the pad.")


class Plan(NamedTuple):
    """What the guide predicts and does; made once a step.

    `action` [11]; `rest` where it would come to rest [m]; `peak` largest dynamic pressure [Pa] and `speed`
    at the end of the phase [m/s]; `burn` seconds until the cut-off; `drag` found over nominal drag.
    """

    action: Array
    rest: Vector
    peak: Array
    speed: Array
    burn: Array
    drag: Array


class State(NamedTuple):
    """A booster on its way down. `share` of the worst structural limit now, `worst` so far; `lag` [s] that the fins showed."""

    flight: Flight
    time: Array
    lit: Array
    cut: Array
    arrived: Array
    begun_kg: Array
    share: Array
    worst: Array
    lag: Array
    plan: Plan


@dataclasses.dataclass(frozen=True, eq=False)
class EntryBurn(Environment[Flight, State]):
    """See the module's docstring."""

    params: Params
    body: Body
    site: Site

    observation_names = (
        "x", "y", "altitude", "velocity_x", "velocity_y", "climb", "off_flow_x", "off_flow_y", "rate_x", "rate_y",
        "rate_z", "felt_x", "felt_y", "level", "lit", "cut", "propellant", "gas", "pressure", "pressure_log", "mach",
        "limit_share", "gimbal_x", "gimbal_y", "fin_x", "fin_y", "wind_x", "wind_y", "miss_x", "miss_y",
        "peak_pressure", "end_speed", "burn", "drag",
        "guide_throttle", "guide_ignition", "guide_cut_off", "guide_gimbal_yaw", "guide_gimbal_pitch", "guide_fin_yaw",
        "guide_fin_pitch", "guide_fin_roll", "guide_rcs_yaw", "guide_rcs_pitch", "guide_rcs_roll",
    )  # fmt: skip
    action_names = (
        "throttle", "time_to_ignition", "time_to_cut_off", "gimbal_yaw", "gimbal_pitch", "fin_yaw", "fin_pitch",
        "fin_roll", "rcs_yaw", "rcs_pitch", "rcs_roll",
    )  # fmt: skip
    causes = (
        "delivered", "missed", "off_speed", "unsteady", "short_of_propellant", "rose", "out_of_propellant",
        "overstressed",
    )  # fmt: skip
    control_period_s = 0.25
    max_steps = 500

    def start(self, key: Array) -> Flight:
        """As a boostback aimed at the offset leaves it, engines first, scattered."""
        day_key, draw_key, gust_key = jax.random.split(key, 3)
        day = draw_day(self.params, day_key)
        n = jax.random.uniform(draw_key, (10,), minval=-1.0, maxval=1.0)
        # at 70 km; faster below, by the fall
        fallen = (1025.0 - 125.0 * n[2]) ** 2 + 2.0 * 9.6 * (70e3 - self.params.start_altitude_m)
        velocity = Vector(-360.0 + 90.0 * n[0], 20.0 * n[1], -jnp.sqrt(jnp.maximum(fallen, 1e4)))
        low, high = self.params.start_propellant_kg
        back = -velocity * (1.0 / norm(velocity))
        axis = Vector(back.x + 0.03 * n[3], back.y + 0.03 * n[4], back.z)
        attitude = quaternion_of_axis(axis * (1.0 / norm(axis)))
        propellant = 0.5 * (low + high + (high - low) * n[5])
        zero = jnp.zeros(())
        position = Vector(zero, zero, zero + self.params.start_altitude_m)
        for _ in range(2):  # the Earth is round: the second pass corrects the altitude's share
            impact, _ = fall(self.site, position, velocity)
            x = position.x + self.params.start_offset_m + _SPREAD_X_M * n[6] - impact.x
            y = position.y + _SPREAD_Y_M * n[7] - impact.y
            position = Vector(x, y, self.params.start_altitude_m - (x * x + y * y) / (2.0 * self.site.radius))
        state = start_state(self.body, position, velocity, attitude, propellant, gust_key)
        rates = Vector(0.01 * n[8], 0.01 * n[9], zero)
        gas = 0.6 * self.body.rcs.propellant if self.body.rcs else 0.0
        left = tuple(jnp.full((), 2.0) for _ in self.body.engines)
        motion = state.motion._replace(rates=rates, rcs_propellant=jnp.asarray(gas, zero.dtype))
        return Flight(state._replace(motion=motion, ignitions_left=left), day)

    def enter(self, key: Array, handoff: Flight) -> State:
        zero, no = jnp.zeros(()), jnp.bool_(False)
        nowhere = Vector(zero, zero, zero)
        plan = Plan(jnp.zeros(len(self.action_names)), nowhere, zero, zero, zero + 14.0, zero + 1.0)
        lag = jnp.full((), self.body.fins.lag if self.body.fins else 1.0)
        begun = jnp.asarray(handoff.state.motion.propellant)
        state = State(handoff, zero, no, no, no, begun, zero, zero, lag, plan)
        for _ in range(3):  # the length of the burn is found by iteration
            state = state._replace(plan=self._plan(state, 0.0))
        return state

    def _ignition(self, plan: Plan) -> Array:
        """Altitude where the guide lights: higher where there is much to correct."""
        miss = jnp.sqrt(plan.rest.x**2 + plan.rest.y**2 + 1.0)
        return self.params.ignition_altitude_m + jnp.clip(2.5 * (miss - 1500.0), 0.0, 11e3)

    def _predict(self, state: State, seen: View, burn: Array, drag: Array) -> tuple[Descent, Vector, Array, Array]:
        """(descent to the end altitude, place of rest, metres there per m/s across now, propellant at cut-off)."""
        pull = free_fall(self.site, seen.position, seen.velocity)
        drop = jnp.where(state.lit | state.cut, 0.0, jnp.maximum(seen.altitude - self._ignition(state.plan), 0.0))
        root = jnp.sqrt(seen.climb * seen.climb - 2.0 * pull.z * drop)
        coast = 2.0 * drop / (root - seen.climb + 1.0)
        at = seen.position + (seen.velocity + pull * (0.5 * coast)) * coast
        v = seen.velocity + pull * coast
        high = seen.altitude - drop
        wind = seen.wind * (1.0 / lookup(WIND_SHAPE, seen.altitude))
        level = state.flight.state.motion.levels[0]
        thrust = jnp.maximum(level, 0.01) * _ENGINES * self.body.engines[0].thrust
        # what the engines still give while they follow: as a longer burn
        burn = (
            jnp.where(state.cut, 0.0, burn)
            + self.body.engines[0].lag * thrust / seen.mass / self.params.guide_load_m_s2
        )
        at, v, high, mass = brake(
            self.body,
            self.site,
            at,
            v,
            jnp.asarray(high),
            jnp.asarray(seen.mass),
            wind,
            burn,
            self.params.guide_load_m_s2,
        )
        end = descend(self.body, self.site, at, v, high, mass, wind, drag, self.params.end_altitude_m)
        there = seen._replace(
            altitude=jnp.minimum(seen.altitude, self.params.end_altitude_m),
            position=end.position,
            velocity=end.velocity,
            wind=wind * lookup(WIND_SHAPE, self.params.end_altitude_m),
            mass=mass,
        )
        ignition, throttle, engines = _REST
        rest, seconds = predict_touchdown(self.body, self.site, there, jnp.asarray(ignition), throttle, engines, drag)
        reach = end.reach + end.kept * 0.5 * seconds
        return end, rest, reach, state.flight.state.motion.propellant - (seen.mass - mass)

    def _plan(self, state: State, elapsed: Scalar) -> Plan:
        """Predict with the burn planned before, correct it, steer."""
        body, params, before = self.body, self.params, state.plan
        seen = view(body, self.site, state.flight)
        back = -seen.toward
        drag = found_drag(body, seen, before.drag)
        burn = jnp.where(state.lit, jnp.maximum(before.burn - elapsed, -_OVERDUE_S), before.burn)
        end, rest, reach, left = self._predict(state, seen, burn, drag)

        # cut-off: both fall with the length of the burn; what they may be rises as the tanks drain
        poor = jnp.clip(1.0 - (left - params.least_propellant_kg - 300.0) / _PLENTY_KG, 0.0, 1.0)
        too_fast = (norm(end.velocity) - _SPEED[0] - (_SPEED[1] - _SPEED[0]) * poor) / 15.0
        too_dense = (end.peak - _PEAK[0] - (_PEAK[1] - _PEAK[0]) * poor) / 7e3
        change = jnp.maximum(too_fast, too_dense)
        # the least propellant ends the burn, unless the structure would fail
        spare = (left - params.least_propellant_kg - 150.0) / 600.0
        change = jnp.maximum(jnp.minimum(change, spare), (end.peak - 77e3) / 7e3)
        burn = jnp.where(state.cut, 0.0, jnp.clip(burn + change, -_OVERDUE_S, 30.0))
        # drag alone brakes enough where, with it, even the least throttle is too much for the structure
        least = body.engines[0].throttle_min * _ENGINES * body.engines[0].thrust
        coefficient = drag * lookup_grid(body.aerodynamics.engine_first.drag, 0.0 * seen.mach, seen.mach)
        by_drag = seen.pressure * body.aerodynamics.area * coefficient
        load = (least + by_drag) / seen.mass
        burn = jnp.where(state.lit & (load > 0.95 * body.limits.axial_load), -_OVERDUE_S, burn)
        level = params.guide_load_m_s2 * seen.mass - by_drag
        throttle = jnp.clip(level / (_ENGINES * body.engines[0].thrust), body.engines[0].throttle_min, 1.0)
        wait = (seen.altitude - self._ignition(before)) / jnp.maximum(-seen.climb, 1.0)

        # steering: a push for `tau` seconds that takes the miss out
        burning = state.lit | (seen.thrust > 1e5)
        tau = jnp.where(burning, jnp.clip(0.5 * burn, 2.5, 6.0), 5.0)
        active = jnp.where(state.lit | state.cut, 1.0, 0.0)
        ask = -active / (jnp.maximum(reach, 3.0) * tau)
        bound = params.guide_q_alpha_share * body.limits.q_alpha
        largest = jnp.minimum(jnp.where(burning, _BURN_TILT, _COAST_TILT), bound / jnp.maximum(seen.pressure, 1.0))
        extra = Vector(ask * rest.x, ask * rest.y, jnp.zeros_like(reach))
        axis = accelerate_across(seen, extra, seen.thrust, 150e3, largest)
        axis = jax.tree.map(lambda a, b: jnp.where(active > 0.0, a, b), axis, back)
        thin = ~burning & (seen.pressure < 1500.0)
        stiffness = jnp.where(thin, 0.04, jnp.where(burning, 2.0, 1.0))
        damping = jnp.where(thin, 0.3, jnp.where(burning, 2.4, 1.8))
        turn = point(body, state.flight, seen, axis, stiffness, damping, gimballed=state.lit)
        # the fins lag: ask for more than is wanted of them; the little inertia in roll takes a larger gain
        lead = 1.0 / (1.0 - jnp.exp(-self.control_period_s / state.lag))
        now = state.flight.state.motion.fins * (1.0 / (body.fins.limit if body.fins else 1.0))
        fins = now + (Vector(turn.fins.x, turn.fins.y, 3.0 * turn.fins.z) - now) * lead
        share = (throttle - body.engines[0].throttle_min) / (1.0 - body.engines[0].throttle_min)
        action = jnp.stack(
            [
                2.0 * share - 1.0,
                2.0 * wait / _LONGEST_S - 1.0,
                2.0 * burn / _LONGEST_S - 1.0,
                turn.gimbal.x,
                turn.gimbal.y,
                fins.x,
                fins.y,
                fins.z,
                jnp.where(thin, turn.rcs.x, 0.0),
                jnp.where(thin, turn.rcs.y, 0.0),
                jnp.where(seen.pressure < 1500.0, turn.rcs.z, 0.0),
            ]
        )
        return Plan(bounded(action, (1, 2)), rest, end.peak, norm(end.velocity), burn, drag)

    def guide(self, state: State) -> Array:
        """The guide's action; zero where the action corrects it."""
        return uncorrected(state.plan.action, self.params.residual)

    def step(self, key: Array, state: State, action: Array) -> State:
        body, period = self.body, self.control_period_s
        told = corrected(state.plan.action, self.params.residual, action)
        group = body.engines[0]
        throttle = group.throttle_min + (1.0 - group.throttle_min) * 0.5 * (told[0] + 1.0)
        to_ignition, to_cut = 0.5 * _LONGEST_S * (told[1] + 1.0), 0.5 * _LONGEST_S * (told[2] + 1.0)
        lights = ~state.lit & ~state.cut & (to_ignition <= period)
        cuts = state.lit & (to_cut <= period)
        zero = jnp.zeros(())
        fins = body.fins.limit if body.fins else 0.0

        def command(on: Array) -> Command:
            each = jnp.where(on, throttle, 0.0)
            return Command(
                (each, each, zero),
                Vector(told[3] * body.gimbal.limit, told[4] * body.gimbal.limit, zero),
                Vector(told[5] * fins, told[6] * fins, told[7] * fins),
                Vector(told[8], told[9], told[10]),
            )

        switch = jnp.where(lights, to_ignition, jnp.where(cuts, to_cut, 0.5 * period))
        lit = (state.lit | lights) & ~cuts
        after = command(lit)
        moved = move(body, self.site, key, state.flight, (command(state.lit), after), switch, period)
        arrived, there = cross_altitude(self.site, state.flight.state, moved.state, period, self.params.end_altitude_m)
        flight = moved._replace(state=there)
        share = stress_ratio(body, stress(body, self.site, flight, after), True)
        lag, was, now = state.lag, state.flight.state.motion.fins, moved.state.motion.fins
        for at in (0, 1):
            if body.fins is not None:
                known = jnp.bool_(True)
                lag = found_lag(lag, was[at] / fins, now[at] / fins, told[5 + at], known, period)
        new = state._replace(
            lag=lag,
            flight=flight,
            time=state.time + jnp.where(arrived, there.time - state.flight.state.time, period),
            lit=lit,
            cut=state.cut | cuts,
            arrived=arrived,
            share=share,
            worst=jnp.maximum(state.worst, share),
        )
        burnt = jnp.where(lights, period - switch, period)
        return new._replace(plan=self._plan(new, burnt))

    def observe(self, state: State) -> Array:
        seen, plan, motion = view(self.body, self.site, state.flight), state.plan, state.flight.state.motion
        fins = self.body.fins.limit if self.body.fins else 1.0
        across = seen.axis + seen.toward
        return jnp.stack(
            [
                compress(seen.position.x, 100.0) / 4.0,
                compress(seen.position.y, 100.0) / 4.0,
                (seen.altitude - 35e3) / 15e3,
                seen.velocity.x / 200.0,
                seen.velocity.y / 200.0,
                (seen.climb + 700.0) / 300.0,
                across.x / 0.1,
                across.y / 0.1,
                seen.rates.x / 0.1,
                seen.rates.y / 0.1,
                seen.rates.z / 0.1,
                seen.felt.x / 10.0,
                seen.felt.y / 10.0,
                motion.levels[0],
                state.lit.astype(jnp.float32),
                state.cut.astype(jnp.float32),
                (motion.propellant - 11e3) / 4e3,
                motion.rcs_propellant / 200.0,
                seen.pressure / 30e3,
                compress(seen.pressure, 1e3) / 4.0,
                seen.mach / 2.0,
                state.share,
                motion.gimbal.x / self.body.gimbal.limit,
                motion.gimbal.y / self.body.gimbal.limit,
                motion.fins.x / fins,
                motion.fins.y / fins,
                seen.wind.x / 50.0,
                seen.wind.y / 50.0,
                compress(plan.rest.x, 50.0) / 3.0,
                compress(plan.rest.y, 50.0) / 3.0,
                (plan.peak - 60e3) / 30e3,
                (plan.speed - 390.0) / 50.0,
                plan.burn / 10.0,
                (plan.drag - 1.0) / 0.1,
                *plan.action,
            ]
        )

    def arrival(self, state: State) -> dict[str, Array]:
        """What the box at the end bounds, as shares of its sides; at the end the plan's `rest` is the landing's."""
        params, rest = self.params, state.plan.rest
        seen = view(self.body, self.site, state.flight)
        low, high = params.speed_m_s
        across = seen.axis + seen.toward
        return {
            "miss": jnp.sqrt(rest.x**2 + rest.y**2 + 1e-9) / params.miss_m,
            "speed": jnp.abs(seen.speed - 0.5 * (low + high)) / (0.5 * (high - low)),
            "incidence": norm(across, 1e-12) / (params.incidence_deg * DEGREE),
            "rate": norm(seen.rates, 1e-12) / (params.rate_deg_s * DEGREE),
        }

    def outcome(self, state: State) -> Outcome:
        box, motion = self.arrival(state), state.flight.state.motion
        empty = motion.propellant <= 0.0
        over = state.worst > 1.0
        rose = state.lit & (motion.velocity.z > 0.0)
        short = motion.propellant < self.params.least_propellant_kg
        box_cause = jnp.where(
            box["miss"] > 1.0,
            MISSED,
            jnp.where(
                box["speed"] > 1.0,
                OFF_SPEED,
                jnp.where(
                    (box["incidence"] > 1.0) | (box["rate"] > 1.0) | state.lit,
                    UNSTEADY,
                    jnp.where(short, SHORT, DELIVERED),
                ),
            ),
        )
        cause = jnp.where(over, OVERSTRESSED, jnp.where(empty, EMPTY, jnp.where(rose, ROSE, box_cause)))
        ended = state.arrived | rose | empty | over
        return Outcome(ended, ended & (cause == DELIVERED), cause.astype(jnp.int32))

    def leave(self, state: State) -> Flight:
        return state.flight

    def telemetry(self, state: State) -> dict[str, Array]:
        motion = state.flight.state.motion
        return channels(self.body, self.site, state.flight.dispersion, state.flight.state) | {
            "phase_time_s": state.time,
            "predicted_miss_x_m": jnp.asarray(state.plan.rest.x),
            "predicted_miss_y_m": jnp.asarray(state.plan.rest.y),
            "predicted_peak_pa": state.plan.peak,
            "propellant_used_kg": jnp.asarray(state.begun_kg - motion.propellant),
        }


def environment(params: Params) -> EntryBurn:
    """The phase for its parameters."""
    return EntryBurn(params, build_body(params.vehicle, 0, carrying=False), params.site())


def reward(params: Params):
    """Reward terms; see the module's docstring."""
    env = environment(params)

    def terms(state: State, action: Array, after: State, outcome: Outcome) -> dict[str, Array]:
        before, here = state.flight.state.motion, after.flight.state.motion
        left = here.propellant - params.least_propellant_kg
        miss = jnp.sqrt(after.plan.rest.x**2 + after.plan.rest.y**2 + 1.0)
        sides = jnp.stack(list(env.arrival(after).values()))
        at_end = after.arrived & (outcome.cause != EMPTY) & (outcome.cause != OVERSTRESSED)
        return {
            "delivered": jnp.where(outcome.success, 40.0, 0.0),
            "arrival": jnp.where(at_end, (2.0 / (1.0 + sides**2)).sum(), 0.0),
            "aim": 0.1 * (after.time - state.time) / (1.0 + miss / 100.0),
            "reserve": jnp.where(outcome.success, jnp.clip(left / 500.0, 0.0, 12.0), 0.0),
            "gas": jnp.asarray(here.rcs_propellant - before.rcs_propellant) / 200.0,
            "limits": -jnp.clip(after.share - 0.8, 0.0, 1.0),
        }

    return terms


@hookimpl
def mission_phase() -> PhaseSpec:
    """The phase's record."""
    return PhaseSpec(
        params=Params,
        environment=environment,
        reward=reward,
        limits=lambda params: structural_limits(params, True),
        report=sections,
        sac=agent(target_entropy=-22.0, gamma=0.998, actor_learning_rate=3e-5),
    )
