"""Flip and boostback: from separation after MECO to 6 s after the cut-off of three engines.

Actions (7): `throttle` (40 to 100 % of centre and pair; before the first ignition, below -0.6 they stay
off), `time_to_cut_off` (0 to 20 s; the engines stop inside the step when it is within the control
period), `gimbal_yaw`, `gimbal_pitch`, `rcs_yaw`, `rcs_pitch`, `rcs_roll` (shares of the limits). With
`residual` r > 0 the vehicle receives guide + r x action, clipped (the time guide + 0.1 r x action: the impact moves by
5 km a second); with 0 the action itself. Once lit the
engines stay lit until the cut-off, which is final and without effect before they are lit.

Observation (42): predicted impact off the target (log, 300 m; and 300 km downrange, 10 km across), rate of
the impact (10 km/s), time to cut-off at it (20 s) and to the impact (400 s), altitude (100 km), downrange
(60 km), across (log, 100 m), velocity downrange (1000 m/s), across (log, 3 m/s) and up (1000 m/s), nose (unit
vector, local), nose wanted (unit vector, body), body rates (0.1 rad/s; about x and y also tanh, 1 deg/s),
acceleration felt (40 m/s2), thrust level, whether lit and cut, time since the cut-off (6 s), mass (20 t
about 60 t), propellant above the reserve (20 t), RCS gas (what the tank holds), gimbals (their limit), lag
that the engines showed (0.1 s about the nominal), and the guide's action.

Success `on_target`, 6 s after the cut-off: impact without air at altitude 0 within `miss_m` of (`target_x_m`,
`target_y_m`), moved against the wind by `target_lead_s`, rate at most `rate_deg_s`, propellant at least `reserve_kg`, no structural limit passed.
Failures: `off_target` (ended outside that), `overstressed`, `out_of_propellant`, `lost_control` (turning
faster than 40 deg/s), `too_low` (below 50 km on the way down).

Reward: `on_target` 30 for the box as a whole; `closing` 10 for the whole distance of the impact from the
target, as it shrinks, so that position always counts; `accuracy` at the end 20 / (1 + 4 miss / `miss_m`) and
2 / (1 + (rate / limit)^2), so that a near miss beats a far one; `pointing` takes up to 0.05 a second for the
angle between nose and wanted direction before the cut-off and `rate` as much for fast turning, since
closing says nothing until the nose has come round; `reserve`, with success, 1 for each 400 kg above
the reserve, at most 40: what the landing has left; `limits` takes the share of a limit above 80 %, each
second. A flight that ends otherwise keeps at most the 10 of closing and 22 of accuracy, less than any success.

Guide: turns by rate-limited proportional-derivative control, on the RCS until the nose is within an
angle of the burn's direction, then on the gimbal, whose mean angle of late is fed forward and so trims
the offset of the centre of mass; thrust against the impact error at a constant elevation (below the
horizon, which brings the apogee to where real flights have it); the load is capped; the last seconds are
flown at the least throttle. The cut-off is timed to the closest approach of the impact, early by the
engines' lag, which is read from how they followed the change of throttle before: the impact moves by up
to 10 km a second, and the lag is 0.06 s uncertain.
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
from mission_rocket.guidance import found_lag, point
from mission_rocket.physics.channels import channels, fall
from mission_rocket.physics.constants import DEGREE
from mission_rocket.physics.gravity import Site, altitude
from mission_rocket.physics.state import Command, idle, start_state
from mission_rocket.physics.vector import Scalar, Vector, dot, norm, quaternion_of_axis
from mission_rocket.physics.vehicle import Body
from mission_rocket.physics.wind import steady_wind
from mission_rocket.report import sections
from mission_rocket.vehicles import build_body

ON_TARGET, OFF_TARGET, OVERSTRESSED, EMPTY, LOST, LOW = range(6)
_LONGEST_S = 20.0
_SETTLE_S = 6.0
_ENGINES = 3.0
_LOWEST_M = 50e3
_TRIM_S = 3.0
_SHARES = (1.0, 0.1, 1.0, 1.0, 1.0, 1.0, 1.0)  # of the residual, by action


class Params(FlightParams):
    """The target, the box, the guide's aims, and the MECO box that a start of its own is drawn from."""

    residual: float = Field(0.1, ge=0.0, le=1.0, description="Authority of the agent over the guide; 0: no guide.")
    target_x_m: float = Field(0.0, description="Where a fall without air would end; downrange of the pad.")
    target_y_m: float = 0.0
    target_lead_s: float = Field(
        0.0, ge=0.0, le=100.0, description="Moves the target against the wind here: by its drift in so many seconds."
    )
    miss_m: float = Field(1000.0, gt=0.0)
    rate_deg_s: float = Field(2.0, gt=0.0)
    reserve_kg: float = Field(12e3, ge=0.0)
    elevation_deg: float = Field(-12.0, ge=-45.0, le=60.0, description="Of the guide's thrust.")
    ignition_angle_deg: float = Field(60.0, gt=0.0, le=180.0, description="The guide lights within it.")
    guide_load_m_s2: float = Field(45.0, gt=10.0)
    slow_s: float = Field(3.0, ge=0.0, description="The guide's last seconds at the least throttle.")
    start_altitude_m: Range = (61e3, 70e3)
    start_speed_m_s: Range = (1630.0, 1670.0)
    start_flight_path_angle_deg: Range = (42.0, 58.0)
    start_downrange_m: Range = (31e3, 43e3)
    start_propellant_kg: Range = (48e3, 62e3)


class Plan(NamedTuple):
    """What the guide works with and does: impact off the target [m], its rate [m/s], times [s], unit vector, action."""

    miss_x: Scalar
    miss_y: Scalar
    miss: Array
    rate: Array
    t_go: Array
    t_fall: Array
    wanted: Vector
    action: Array


class State(NamedTuple):
    """A booster turning back; `off_for` [s] since the cut-off, `lag` [s] that the engines showed.

    `trim` is the mean gimbal angle of late [rad]: what balances the centre of mass off the axis.
    """

    flight: Flight
    time: Array
    lit: Array
    cut: Array
    off_for: Array
    lag: Array
    trim: Vector
    begun_m: Array
    worst: Stress
    plan: Plan  # made once a step: it is both acted on and observed


@dataclasses.dataclass(frozen=True, eq=False)
class FlipBoostback(Environment[Flight, State]):
    """See the module's docstring."""

    params: Params
    body: Body
    site: Site

    observation_names = (
        "miss_x", "miss_y", "miss_x_far", "miss_y_far", "impact_rate", "time_to_cut_off", "fall_time", "altitude",
        "downrange", "across", "velocity_x", "velocity_y", "climb", "nose_x", "nose_y", "nose_z", "wanted_x", "wanted_y",
        "wanted_z", "rate_x", "rate_y", "rate_z", "rate_x_fine", "rate_y_fine", "felt", "level", "lit", "cut", "off_for",
        "mass", "propellant", "gas", "gimbal_x", "gimbal_y", "lag", "guide_throttle", "guide_cut_off", "guide_gimbal_yaw",
        "guide_gimbal_pitch", "guide_rcs_yaw", "guide_rcs_pitch", "guide_rcs_roll",
    )  # fmt: skip
    action_names = (
        "throttle", "time_to_cut_off", "gimbal_yaw", "gimbal_pitch", "rcs_yaw", "rcs_pitch", "rcs_roll",
    )  # fmt: skip
    causes = ("on_target", "off_target", "overstressed", "out_of_propellant", "lost_control", "too_low")
    control_period_s = 0.25
    max_steps = 560

    def start(self, key: Array) -> Flight:
        """After MECO as the real flights leave it: engines off, nose along the velocity, scattered."""
        params = self.params
        day_key, draw_key, gust_key = jax.random.split(key, 3)
        day = draw_day(params, day_key)
        n = jax.random.uniform(draw_key, (11,), minval=-1.0, maxval=1.0)

        def between(bounds: tuple[float, float], share: Array) -> Array:
            return bounds[0] + (bounds[1] - bounds[0]) * 0.5 * (share + 1.0)

        height, downrange = between(params.start_altitude_m, n[0]), between(params.start_downrange_m, n[1])
        speed = between(params.start_speed_m_s, n[2])
        angle = between(params.start_flight_path_angle_deg, n[3]) * DEGREE
        # the local horizon has turned by downrange / radius
        angle = angle - downrange / self.site.radius
        position = Vector(downrange, 300.0 * n[4], height - downrange * downrange / (2.0 * self.site.radius))
        velocity = Vector(speed * jnp.cos(angle), 10.0 * n[5], speed * jnp.sin(angle))
        axis = velocity + Vector(0.05 * n[6], 0.05 * n[7], 0.0) * speed
        attitude = quaternion_of_axis(axis * (1.0 / norm(axis)))
        propellant = between(params.start_propellant_kg, n[8])
        state = start_state(self.body, position, velocity, attitude, propellant, gust_key)
        rates = Vector(0.01 * n[9], 0.01 * n[10], jnp.zeros(()))
        left = tuple(one - 1.0 for one in state.ignitions_left)
        return Flight(state._replace(motion=state.motion._replace(rates=rates), ignitions_left=left), day)

    def enter(self, key: Array, handoff: Flight) -> State:
        zero, no = jnp.zeros(()), jnp.bool_(False)
        off = tuple(jnp.zeros(()) for _ in self.body.engines)
        flight = Flight(handoff.state._replace(lit_for=off), handoff.dispersion)
        lag = jnp.full((), self.body.engines[0].lag)
        none = Vector(zero, zero, zero)
        plan = Plan(zero, zero, zero, zero, zero, zero, none, jnp.zeros(len(self.action_names)))
        state = State(flight, zero, no, no, zero, lag, none, zero, no_stress(), plan)
        plan = self._plan(state)
        return state._replace(begun_m=plan.miss, plan=plan)

    def _impact(self, flight: Flight) -> tuple[Vector, Array]:
        """(impact off the target [m], time until then [s])."""
        motion = flight.state.motion
        there, seconds = fall(self.site, motion.position, motion.velocity)
        target = self._target(flight)
        return Vector(there.x - target.x, there.y - target.y, there.z), seconds

    def _target(self, flight: Flight) -> Vector:
        """Where a fall without air should end."""
        params, motion = self.params, flight.state.motion
        drift = steady_wind(flight.dispersion.wind, altitude(self.site, motion.position)) * params.target_lead_s
        return Vector(params.target_x_m - drift.x, params.target_y_m - drift.y, jnp.zeros_like(drift.x))

    def _seen(self, state: State) -> View:
        return view(self.body, self.site, state.flight)

    def _plan(self, state: State) -> Plan:
        """Where it would come down, how fast that moves, where to point, and the guide's action for it."""
        params, group = self.params, self.body.engines[0]
        seen = self._seen(state)
        there, t_fall = self._impact(state.flight)
        miss = jnp.sqrt(there.x * there.x + there.y * there.y + 1.0)
        towards = Vector(-there.x / miss, -there.y / miss, jnp.zeros_like(miss))
        elevation = params.elevation_deg * DEGREE
        wanted = towards * jnp.cos(elevation) + seen.vertical * jnp.sin(elevation)
        wanted = wanted * (1.0 / norm(wanted))
        # with 8 m/s left to do the direction would turn with every error: keep it
        settled = state.cut | (state.lit & (miss < 8.0 * t_fall))
        wanted = Vector(*(jnp.where(settled, a, b) for a, b in zip(seen.axis, wanted, strict=True)))
        # how fast the impact moves: now if lit, at the least throttle if not
        push = jnp.where(state.lit, norm(seen.felt), _ENGINES * group.throttle_min * group.thrust / seen.mass)
        along = Vector(*(jnp.where(state.lit, a, b * push) for a, b in zip(seen.felt, wanted, strict=True)))
        motion = state.flight.state.motion
        ahead = 0.1
        moved, _ = fall(self.site, motion.position, motion.velocity + along * ahead)
        target = self._target(state.flight)
        moved = Vector(moved.x - target.x - there.x, moved.y - target.y - there.y, 0.0)
        # until the closest approach of the impact, less what the tail-off adds
        rate = jnp.maximum(norm(moved, 1.0) / ahead, 100.0)
        t_go = -(moved.x * there.x + moved.y * there.y) / (ahead * rate * rate) - state.lag
        away = (miss > 20e3) & (dot(moved, towards) < 0.3 * ahead * rate)  # not yet turned round
        t_go = jnp.where(away, miss / rate, t_go)
        action = self._act(state, seen, wanted, t_go)
        return Plan(there.x, there.y, miss, rate, t_go, t_fall, wanted, action)

    def _act(self, state: State, seen: View, wanted: Vector, until_cut: Array) -> Array:
        """Action [7] in [-1, 1]."""
        body, params, group = self.body, self.params, self.body.engines[0]
        level = state.flight.state.motion.levels[0]
        full = _ENGINES * group.thrust
        facing = dot(seen.axis, wanted)
        lights = state.lit | (facing > jnp.cos(params.ignition_angle_deg * DEGREE))
        # throttle: full, as the load allows; the least over the last seconds
        felt = jnp.maximum(norm(seen.felt), 1.0)
        by_load = params.guide_load_m_s2 * jnp.where(level > 0.3, level / felt, seen.mass / full)
        slow = until_cut * level / group.throttle_min < params.slow_s
        share = (jnp.minimum(by_load, 1.0) - group.throttle_min) / (1.0 - group.throttle_min)
        share = jnp.where(state.lit & slow & (level > 0.3), 0.0, share)
        throttle = jnp.where(lights, 2.0 * jnp.clip(share, 0.0, 1.0) - 1.0, -1.0)
        throttle = jnp.where(lights & ~state.lit, jnp.maximum(throttle, 0.0), throttle)
        t_go = jnp.where(state.lit & (level > 0.3), until_cut, _LONGEST_S)
        burning = state.lit & ~state.cut
        stiffness, damping = jnp.where(burning, 1.2, 0.04), jnp.where(burning, 1.8, 0.4)
        turn = point(body, state.flight, seen, wanted, stiffness, damping, 0.12, gimballed=jnp.where(burning, 1.0, 0.0))
        action = jnp.stack(
            [
                throttle,
                2.0 * t_go / _LONGEST_S - 1.0,
                turn.gimbal.x + jnp.where(burning, state.trim.x / body.gimbal.limit, 0.0),
                turn.gimbal.y + jnp.where(burning, state.trim.y / body.gimbal.limit, 0.0),
                turn.rcs.x,
                turn.rcs.y,
                turn.rcs.z,
            ]
        )
        return bounded(action, (1,))

    def guide(self, state: State) -> Array:
        """The guide's action; zero where the action corrects it."""
        return uncorrected(state.plan.action, self.params.residual)

    def step(self, key: Array, state: State, action: Array) -> State:
        body, period = self.body, self.control_period_s
        told = corrected(state.plan.action, self.params.residual, action, _SHARES)
        group = body.engines[0]
        throttle = group.throttle_min + (1.0 - group.throttle_min) * 0.5 * (told[0] + 1.0)
        lit = state.lit | (told[0] >= -0.6)
        t_go = 0.5 * _LONGEST_S * (told[1] + 1.0)
        cuts = state.lit & ~state.cut & (t_go <= period)
        zero = jnp.zeros(())
        none = Vector(zero, zero, zero)

        def command(on: Array) -> Command:
            each = jnp.where(on, throttle, 0.0)
            gimbal = Vector(told[2], told[3], zero) * body.gimbal.limit
            return Command((each, each, zero), gimbal, none, Vector(told[4], told[5], told[6]))

        switch = jnp.where(cuts, jnp.clip(t_go, 0.0, period), 0.5 * period)
        cut = state.cut | cuts
        after = command(lit & ~cut)
        flight = move(body, self.site, key, state.flight, (command(lit & ~state.cut), after), switch, period)
        worst = jax.tree.map(jnp.maximum, state.worst, stress(body, self.site, flight, after))
        off_for = jnp.where(state.cut, state.off_for + period, jnp.where(cuts, period - switch, 0.0))
        was, now = state.flight.state.motion.levels[0], flight.state.motion.levels[0]
        # not while they start: the ignition delay is unknown
        lag = found_lag(state.lag, was, now, throttle, state.lit & ~cut & (was > 0.02), period)
        kept = jnp.where(lit & ~cut, period / _TRIM_S, 0.0)
        trim = state.trim + (flight.state.motion.gimbal - state.trim) * kept
        new = State(flight, state.time + period, lit, cut, off_for, lag, trim, state.begun_m, worst, state.plan)
        return new._replace(plan=self._plan(new))

    def observe(self, state: State) -> Array:
        seen, plan = self._seen(state), state.plan
        motion = state.flight.state.motion
        wanted = body_components(state.flight, plan.wanted)
        gas = self.body.rcs.propellant if self.body.rcs else 1.0
        return jnp.stack(
            [
                compress(plan.miss_x, 300.0) / 3.0,
                compress(plan.miss_y, 300.0) / 3.0,
                plan.miss_x / 300e3,
                plan.miss_y / 10e3,
                plan.rate / 10e3,
                jnp.minimum(plan.t_go / _LONGEST_S, 3.0),
                plan.t_fall / 400.0,
                seen.altitude / 100e3,
                seen.position.x / 60e3,
                compress(seen.position.y, 100.0) / 2.0,
                seen.velocity.x / 1000.0,
                compress(seen.velocity.y, 3.0) / 2.0,
                seen.climb / 1000.0,
                *seen.axis,
                *wanted,
                seen.rates.x / 0.1,
                seen.rates.y / 0.1,
                seen.rates.z / 0.1,
                jnp.tanh(seen.rates.x / DEGREE),
                jnp.tanh(seen.rates.y / DEGREE),
                norm(seen.felt) / 40.0,
                motion.levels[0],
                state.lit.astype(jnp.float32),
                state.cut.astype(jnp.float32),
                state.off_for / _SETTLE_S,
                (seen.mass - 60e3) / 20e3,
                (motion.propellant - self.params.reserve_kg) / 20e3,
                motion.rcs_propellant / gas,
                motion.gimbal.x / self.body.gimbal.limit,
                motion.gimbal.y / self.body.gimbal.limit,
                (state.lag - self.body.engines[0].lag) / 0.1,
                *plan.action,
            ]
        )

    def outcome(self, state: State) -> Outcome:
        params, motion = self.params, state.flight.state.motion
        seen = self._seen(state)
        rate = norm(motion.rates) / DEGREE
        over = stress_ratio(self.body, state.worst, True) > 1.0
        empty = motion.propellant <= 0.0
        lost = rate > 40.0
        low = (seen.altitude < _LOWEST_M) & (seen.climb < 0.0)
        ended = state.off_for >= _SETTLE_S
        good = (state.plan.miss <= params.miss_m) & (rate <= params.rate_deg_s)
        good = good & (motion.propellant >= params.reserve_kg)
        success = ended & good & ~(over | empty | lost | low)
        cause = jnp.where(lost, LOST, OFF_TARGET)
        cause = jnp.where(low, LOW, cause)
        cause = jnp.where(empty, EMPTY, cause)
        cause = jnp.where(over, OVERSTRESSED, cause)
        cause = jnp.where(success, ON_TARGET, cause)
        return Outcome(ended | over | empty | lost | low, success, cause.astype(jnp.int32))

    def leave(self, state: State) -> Flight:
        return state.flight

    def telemetry(self, state: State) -> dict[str, Array]:
        measured = channels(self.body, self.site, state.flight.dispersion, state.flight.state)
        return measured | {
            "phase_time_s": state.time,
            "impact_miss_m": state.plan.miss,
        }


def environment(params: Params) -> FlipBoostback:
    """The phase for its parameters."""
    return FlipBoostback(params, build_body(params.vehicle, 0, carrying=False), params.site())


def reward(params: Params):
    """Reward terms; see the module's docstring."""
    env = environment(params)
    silent = idle(env.body)

    def terms(state: State, action: Array, after: State, outcome: Outcome) -> dict[str, Array]:
        seen, plan = env._seen(after), after.plan
        seconds = after.time - state.time
        here, before = plan.miss, state.plan.miss
        rate = norm(seen.rates) / DEGREE
        ended = outcome.terminated & ((outcome.cause == ON_TARGET) | (outcome.cause == OFF_TARGET))
        accuracy = 20.0 / (1.0 + 4.0 * here / params.miss_m) + 2.0 / (1.0 + (rate / params.rate_deg_s) ** 2)
        left = after.flight.state.motion.propellant - params.reserve_kg
        ratio = stress_ratio(env.body, stress(env.body, env.site, after.flight, silent), True)
        astray = jnp.where(after.cut, 0.0, 0.5 - 0.5 * dot(seen.axis, plan.wanted))
        return {
            "on_target": jnp.where(outcome.success, 30.0, 0.0),
            "closing": 10.0 * (before - here) / jnp.maximum(after.begun_m, 1e4),
            "accuracy": jnp.where(ended, accuracy, 0.0),
            "pointing": -0.05 * seconds * astray,
            "rate": -0.05 * seconds * jnp.minimum(rate / 20.0, 1.0),
            "reserve": jnp.where(outcome.success, jnp.clip(left / 400.0, 0.0, 40.0), 0.0),
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
        limits=lambda params: structural_limits(params, True),
        report=sections,
        sac=agent(target_entropy=-14.0, gamma=0.998),
    )
