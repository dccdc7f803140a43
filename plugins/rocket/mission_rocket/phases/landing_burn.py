"""Landing burn: from 7 km, unlit, to touchdown; chooses the moment of ignition.

Actions (7): `throttle` (40 to 100 %), `time_to_ignition` (0 to 10 s; the engine lights inside the step
when it is within the control period), `gimbal_yaw`, `gimbal_pitch`, `fin_yaw`, `fin_pitch`, `fin_roll`
(shares of the actuators' limits). With `residual` r > 0 the vehicle receives guide + r x action, clipped (of the
time 0.1 r, of gimbal and fins 0.3 r); with 0 the action itself. Once lit the engine stays lit.

Observation (35): position across (log, 10 m) and up (log, 20 m), velocity across (100 m/s and log,
1 m/s) and up (200 m/s and tanh, 5 m/s), tilt (0.1), rates (0.1 rad/s), acceleration felt across
(10 m/s2) and up (20 m/s2), thrust level, whether lit, mass (30 t about 35 t), dynamic pressure (50 kPa), gimbal and fins
(their limits), height at which a burn at the reference throttle would stop (log, 20 m), time to
touchdown (20 s), the engine's lag as found (0.1 s about nominal), drag as found over nominal drag (0.1
about 1), and the guide's action.

Success `landed`: at altitude 0 within `miss_m`, `vertical_speed_m_s`, `lateral_speed_m_s`,
`tilt_deg`, `rate_deg_s`, propellant left. Failures: `crashed` (too fast), `missed` (outside the
circle), `toppled` (tilt, rate or sideways speed), `rose` (stopped above the ground: the least
thrust exceeds the weight), `out_of_propellant`, `overstressed` (a structural limit passed).

Reward: `touchdown` pays 4 / (1 + (x / limit)^2) for each of miss, vertical and lateral speed, tilt
and rate at the ground, and `landed` 40 for all of them: what counts, and graded so that a near miss
beats a far one. `approach` pays 0.1 / (1 + miss without effort / 20 m) a second while falling, at most 4
in all, so position always costs; `propellant` takes 1 for each 400 kg; `limits` takes the share of a
limit above 80 %. In the air nothing else is paid and any other end pays nothing: hovering, climbing
and diving stay below a crash on the pad, and that below a landing (tests/test_landing.py).

Guide: lights when a burn at `reference_throttle` would stop at the ground, then holds the throttle that does,
with a flare at a gentle deceleration over the last metres. Drag is found from what the fall feels, the
engine's lag from how its level follows. Sideways a linear-quadratic regulator commands gimbal and fins
together (mission_rocket/regulator.py); fins stop the roll.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from pydantic import Field

from mission import Environment, Outcome, PhaseSpec, hookimpl
from mission_rocket.flight import (
    Flight,
    FlightParams,
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
from mission_rocket.guidance import found_drag, found_lag
from mission_rocket.physics.channels import channels
from mission_rocket.physics.constants import DEGREE
from mission_rocket.physics.gravity import Site
from mission_rocket.physics.integrate import cross_altitude
from mission_rocket.physics.state import Command, idle, start_state
from mission_rocket.physics.vector import Vector, body_axis, dot, norm, quaternion_of_axis
from mission_rocket.physics.vehicle import Body
from mission_rocket.physics.wind import steady_wind
from mission_rocket.prediction import predict_touchdown, stop, stopping_throttle
from mission_rocket.regulator import Lateral, Regulator, Weights, descend, design, linearise, regulate, time_key
from mission_rocket.report import sections
from mission_rocket.vehicles import build_body

LANDED, CRASHED, MISSED, TOPPLED, ROSE, EMPTY, OVERSTRESSED = range(7)
_LONGEST_S = 10.0
_SHARES = (1.0, 0.1, 0.3, 0.3, 0.3, 0.3, 0.3)  # of the residual, by action
_LEAST_SLOPE = 0.02  # rad/s2 per rad: below it the fins do not steer in roll


class Gains(NamedTuple):
    """The guide's settings, found by evolutionary search (CMA-ES) over dispersed flights from the phase's own start."""

    final_m_s: float = 0.5  # aimed at, at the ground
    flare_m_s: float = 10.31  # below this speed or `flare_m` the deceleration is the flare's: the engine lags
    flare_m: float = 10.53
    ahead: float = 0.4046  # lags after which the throttle is reckoned to act
    follows: float = 5.462  # 1/s, of the speed to the flare's profile
    q_alpha: float = 4362  # Pa rad, that bounds the fins
    roll: float = 3.176  # rad/s, natural frequency
    roll_damping: float = 0.8
    lateral: Weights = Weights(
        position_m=1.688,
        velocity_m_s=0.33,
        tilt=0.01854,
        rate=0.009815,
        gimbal=0.09936,
        fins=0.1801,
        q_alpha=6534,
        felt_s=0.589,
        settle_s=1.059,
        settle=0.2956,
    )

    @property
    def flare_m_s2(self) -> float:
        """Deceleration of the flare."""
        return (self.flare_m_s**2 - self.final_m_s**2) / (2.0 * self.flare_m)


_GAINS = Gains()


class Params(FlightParams):
    """The landing box, the engines, and what a start of its own scatters about."""

    engines: Literal[1, 3] | Annotated[tuple[Literal[3], Literal[1]], Field(strict=False)] = Field(
        1, description="How many burn; [3, 1]: three brake from high above, one lands (see brake_then_land)."
    )
    residual: float = Field(0.1, ge=0.0, le=1.0, description="Authority of the agent over the guide; 0: no guide.")
    reference_throttle: float = Field(0.864, gt=0.4, lt=1.0, description="The guide's ignition aims at it.")
    miss_m: float = Field(10.0, gt=0.0)
    vertical_speed_m_s: float = Field(2.0, gt=0.0)
    lateral_speed_m_s: float = Field(1.0, gt=0.0)
    tilt_deg: float = Field(3.0, gt=0.0)
    rate_deg_s: float = Field(3.0, gt=0.0)
    start_altitude_m: float = Field(7000.0, gt=500.0)
    start_speed_m_s: float = Field(385.0, gt=0.0)
    start_propellant_kg: float = Field(10_000.0, gt=0.0)
    start_miss_m: float = Field(200.0, ge=0.0)

    @property
    def landing_engines(self) -> float:
        """How many burn at the end."""
        return float(self.engines[-1] if isinstance(self.engines, tuple) else self.engines)


class Plan(NamedTuple):
    """What the guide would do now, and what it expects: action [7], stop height [m], time to touchdown [s]."""

    action: Array
    stop_height: Array
    seconds: Array


class State(NamedTuple):
    """A booster on its last kilometres.

    `lag` [s] that the engines showed, `drag` found over nominal drag, `begun_kg` of propellant at the start.
    """

    flight: Flight
    time: Array
    lit: Array
    grounded: Array
    lag: Array
    drag: Array
    begun_kg: Array
    worst: Stress
    plan: Plan  # made once a step: it is both acted on and observed


@dataclasses.dataclass(frozen=True, eq=False)
class LandingBurn(Environment[Flight, State]):
    """See the module's docstring."""

    params: Params
    body: Body
    site: Site

    observation_names = (
        "x", "y", "height", "velocity_x", "velocity_y", "velocity_x_fine", "velocity_y_fine", "climb", "climb_fine",
        "tilt_x", "tilt_y", "rate_x", "rate_y", "rate_z", "felt_x", "felt_y", "felt_up", "level", "lit", "mass", "pressure",
        "gimbal_x", "gimbal_y", "fin_x", "fin_y", "stop_height", "time_to_touchdown", "lag", "drag",
        "guide_throttle", "guide_ignition", "guide_gimbal_yaw", "guide_gimbal_pitch", "guide_fin_yaw", "guide_fin_pitch",
    )  # fmt: skip
    action_names = (
        "throttle", "time_to_ignition", "gimbal_yaw", "gimbal_pitch", "fin_yaw", "fin_pitch", "fin_roll",
    )  # fmt: skip
    causes = ("landed", "crashed", "missed", "toppled", "rose", "out_of_propellant", "overstressed")
    control_period_s = 0.2
    max_steps = 400

    def start(self, key: Array) -> Flight:
        """Falling engines first, aimed at the pad as an entry leaves it, scattered."""
        day_key, draw_key, gust_key = jax.random.split(key, 3)
        day = draw_day(self.params, day_key)
        n = jax.random.uniform(draw_key, (8,), minval=-1.0, maxval=1.0)
        speed = self.params.start_speed_m_s + 55.0 * n[0]
        velocity_x, velocity_y = -60.0 + 60.0 * n[1], 20.0 * n[2]
        velocity = Vector(velocity_x, velocity_y, -jnp.sqrt(speed**2 - velocity_x**2 - velocity_y**2))
        height = self.params.start_altitude_m
        back = steady_wind(day.wind, height) - velocity
        back = back * (1.0 / norm(back))
        axis = Vector(back.x + 0.03 * n[5], back.y + 0.03 * n[6], back.z)
        attitude = quaternion_of_axis(axis * (1.0 / norm(axis)))
        propellant = self.params.start_propellant_kg + 3500.0 * n[7]
        zero = jnp.zeros(())
        above = Vector(zero, zero, zero + self.params.start_altitude_m)
        state = start_state(self.body, above, velocity, attitude, propellant, gust_key)
        left = tuple(jnp.full((), 1.0) for _ in self.body.engines)
        flight = Flight(state._replace(ignitions_left=left), day)
        rest, _ = predict_touchdown(
            self.body,
            self.site,
            view(self.body, self.site, flight),
            zero + 2700.0,
            self.params.reference_throttle,
            self.params.landing_engines,
        )
        spread = self.params.start_miss_m
        position = Vector(spread * n[3] - rest.x, spread * n[4] - rest.y, above.z)
        return Flight(flight.state._replace(motion=flight.state.motion._replace(position=position)), day)

    def enter(self, key: Array, handoff: Flight) -> State:
        zero, no = jnp.zeros(()), jnp.bool_(False)
        begun = jnp.asarray(handoff.state.motion.propellant)
        lag = jnp.full((), self.body.engines[0].lag)
        drag = jnp.ones(())
        return State(handoff, zero, no, no, lag, drag, begun, no_stress(), self._plan(handoff, no, lag, drag))

    @cached_property
    def regulator(self) -> Regulator:
        """The lateral gains; made once, as plain numbers."""
        params, period = self.params, self.control_period_s
        flare = (_GAINS.flare_m_s, _GAINS.flare_m_s2)
        with jax.ensure_compile_time_eval():
            path = descend(
                self.body,
                params.reference_throttle,
                params.landing_engines,
                period,
                1.3 * params.start_altitude_m,
                flare,
            )
            return design(linearise(self.body, self.site, path), path, _GAINS.lateral, period)

    def _plan(self, flight: Flight, lit: Array, lag: Array, drag: Array) -> Plan:
        """The guide; see the module's docstring."""
        body, params = self.body, self.params
        seen = view(body, self.site, flight)
        number, group = params.landing_engines, body.engines[0]
        speed, height = jnp.maximum(-seen.climb, 0.0), jnp.maximum(seen.altitude, 0.0)
        end = stop(body, seen.mass, height, speed, params.reference_throttle, number, _GAINS.final_m_s, drag)
        # unlit it falls until the stop would be at the ground; the mean delay and the lag come on top
        early = (0.2 + group.lag) * speed
        to_ignition = jnp.where(lit, 0.0, (end.height - early) / jnp.maximum(speed, 1.0))
        # leads the engine's lag, so that the real throttle arrives within the control period
        follow = 1.0 - jnp.exp(-self.control_period_s / lag)
        level = flight.state.motion.levels[0]
        wanted = jnp.clip(self._throttle(seen, lit, lag, drag, speed, height), group.throttle_min, 1.0)
        throttle = level + (wanted - level) / follow
        key = time_key(height, speed)
        gimbal, fins = self._steer(flight, seen, key)
        share = (throttle - group.throttle_min) / (1.0 - group.throttle_min)
        commands = (2.0 * share - 1.0, 2.0 * to_ignition / _LONGEST_S - 1.0)
        action = jnp.stack([*commands, gimbal.x, gimbal.y, *fins])
        return Plan(bounded(action, (1,)), end.height, key)

    def _throttle(self, seen: View, lit: Array, lag: Array, drag: Array, speed: Array, height: Array) -> Array:
        """Throttle that brakes to the flare and through it, from where it will be when the engine has followed."""
        group, number = self.body.engines[0], self.params.landing_engines
        ahead = _GAINS.ahead * lag
        braked = jnp.where(lit, dot(seen.felt, seen.vertical) - 9.8, 0.0)
        later = jnp.maximum(speed - braked * ahead, 0.0)
        below = jnp.maximum(height - 0.5 * (speed + later) * ahead, 0.0)
        wanted = stopping_throttle(
            self.body, seen.mass, below - _GAINS.flare_m, later, number, _GAINS.flare_m_s, group.throttle_min, drag
        )
        full = number * (group.thrust - group.exit_area * 101_325.0)
        profile = jnp.sqrt(_GAINS.final_m_s**2 + 2.0 * _GAINS.flare_m_s2 * below)
        gentle = 9.8 + _GAINS.flare_m_s2 + _GAINS.follows * (later - profile)
        low = (later < _GAINS.flare_m_s) | (below < _GAINS.flare_m)
        return jnp.where(low, seen.mass * gentle / full, wanted)

    def _steer(self, flight: Flight, seen: View, key: Array) -> tuple[Vector, Vector]:
        """(gimbal, fins), shares of their limits: the regulator in both directions, and roll by the fins."""
        body, motion, zero = self.body, flight.state.motion, jnp.zeros_like(key)

        def across(v: Vector) -> Vector:
            return body_components(flight, Vector(v.x, v.y, zero))

        here, going, wind, felt = (across(v) for v in (seen.position, seen.velocity, seen.wind, seen.felt))
        tilt, rates, gimbal, fins = across(seen.axis), motion.rates, motion.gimbal, motion.fins
        in_x = Lateral(here.x, going.x, tilt.x, rates.y, gimbal.y, fins.y, wind.x, felt.x, seen.turning.y)
        in_y = Lateral(here.y, going.y, tilt.y, -rates.x, -gimbal.x, -fins.x, wind.y, felt.y, -seen.turning.x)
        level = motion.levels[0]
        gimbal_x, fin_x = regulate(self.regulator, key, level, seen.pressure, in_x)
        gimbal_y, fin_y = regulate(self.regulator, key, level, seen.pressure, in_y)
        turn = Vector(-gimbal_y, gimbal_x, zero) * (1.0 / body.gimbal.limit)
        if body.fins is None:
            return turn, Vector(zero, zero, zero)
        largest = jnp.minimum(_GAINS.q_alpha / jnp.maximum(seen.pressure, 1.0), body.fins.limit)
        # roll'' = -2 d w roll' - w^2 roll, through the lag of the fins; gyros feel what disturbs it
        per = jnp.maximum(2.0 * seen.fin_slope * body.fins.radius / seen.inertia.z, _LEAST_SLOPE)
        change = 2.0 * _GAINS.roll_damping * _GAINS.roll * seen.turning.z + _GAINS.roll**2 * rates.z
        roll = fins.z - body.fins.lag * change / per
        held = Vector(-jnp.clip(fin_y, -largest, largest), jnp.clip(fin_x, -largest, largest), roll)
        return turn, held * (1.0 / body.fins.limit)

    def guide(self, state: State) -> Array:
        """The guide's action; zero where the action corrects it."""
        return uncorrected(state.plan.action, self.params.residual)

    def step(self, key: Array, state: State, action: Array) -> State:
        body, period = self.body, self.control_period_s
        told = corrected(state.plan.action, self.params.residual, action, _SHARES)
        group = body.engines[0]
        throttle = group.throttle_min + (1.0 - group.throttle_min) * 0.5 * (told[0] + 1.0)
        t_go = 0.5 * _LONGEST_S * (told[1] + 1.0)
        lights = ~state.lit & (t_go <= period)
        zero = jnp.zeros(())
        fins = body.fins.limit if body.fins else 0.0

        def command(on: Array) -> Command:
            each = jnp.where(on, throttle, 0.0)
            return Command(
                (each, each if self.params.landing_engines == 3.0 else zero, zero),
                Vector(told[2] * body.gimbal.limit, told[3] * body.gimbal.limit, zero),
                Vector(told[4] * fins, told[5] * fins, told[6] * fins),
                Vector(zero, zero, zero),
            )

        switch = jnp.where(lights, jnp.clip(t_go, 0.0, period), 0.5 * period)
        after = command(state.lit | lights)
        moved = move(body, self.site, key, state.flight, (command(state.lit), after), switch, period)
        grounded, there = cross_altitude(self.site, state.flight.state, moved.state, period, 0.0)
        flight = moved._replace(state=there)
        worst = jax.tree.map(jnp.maximum, state.worst, stress(body, self.site, flight, after))
        spent = jnp.where(grounded, (there.time - state.flight.state.time), period)
        lit = state.lit | lights
        lag = found_lag(state.lag, state.flight, moved, throttle, state.lit, period)
        # lit, the burn's jet and the thrust's own error are mixed with it
        drag = jnp.where(lit, state.drag, found_drag(body, view(body, self.site, moved), state.drag))
        plan = self._plan(flight, lit, lag, drag)
        return State(flight, state.time + spent, lit, grounded, lag, drag, state.begun_kg, worst, plan)

    def observe(self, state: State) -> Array:
        seen, plan = view(self.body, self.site, state.flight), state.plan
        motion = state.flight.state.motion
        fins = self.body.fins.limit if self.body.fins else 1.0
        return jnp.stack(
            [
                compress(seen.position.x, 10.0) / 4.0,
                compress(seen.position.y, 10.0) / 4.0,
                compress(seen.altitude, 20.0) / 3.0 - 1.0,
                seen.velocity.x / 100.0,
                seen.velocity.y / 100.0,
                compress(seen.velocity.x, 1.0) / 3.0,
                compress(seen.velocity.y, 1.0) / 3.0,
                seen.climb / 200.0 + 1.0,
                jnp.tanh(seen.climb / 5.0),
                seen.axis.x / 0.1,
                seen.axis.y / 0.1,
                seen.rates.x / 0.1,
                seen.rates.y / 0.1,
                seen.rates.z / 0.1,
                seen.felt.x / 10.0,
                seen.felt.y / 10.0,
                seen.felt.z / 20.0,
                motion.levels[0],
                state.lit.astype(jnp.float32),
                (seen.mass - 35e3) / 5e3,
                seen.pressure / 50e3,
                motion.gimbal.x / self.body.gimbal.limit,
                motion.gimbal.y / self.body.gimbal.limit,
                motion.fins.x / fins,
                motion.fins.y / fins,
                compress(plan.stop_height, 20.0) / 3.0,
                plan.seconds / 20.0 - 1.0,
                (state.lag - self.body.engines[0].lag) / 0.1,
                (state.drag - 1.0) / 0.1,
                *plan.action[:6],
            ]
        )

    def touchdown(self, state: State) -> dict[str, Array]:
        """What the landing box bounds, as shares of its sides."""
        motion, params = state.flight.state.motion, self.params
        axis = body_axis(motion.attitude)
        across = jnp.sqrt(motion.velocity.x**2 + motion.velocity.y**2 + 1e-9)
        return {
            "miss": jnp.sqrt(motion.position.x**2 + motion.position.y**2 + 1e-9) / params.miss_m,
            "vertical": jnp.abs(motion.velocity.z) / params.vertical_speed_m_s,
            "lateral": across / params.lateral_speed_m_s,
            "tilt": jnp.arctan2(jnp.sqrt(axis.x**2 + axis.y**2 + 1e-12), axis.z) / (params.tilt_deg * DEGREE),
            "rate": norm(motion.rates, 1e-12) / (params.rate_deg_s * DEGREE),
        }

    def outcome(self, state: State) -> Outcome:
        box = self.touchdown(state)
        motion = state.flight.state.motion
        empty = jnp.asarray(motion.propellant <= 0.0)
        rose = state.lit & jnp.asarray(motion.velocity.z > 0.0) & ~state.grounded
        over = stress_ratio(self.body, state.worst, True) > 1.0
        inside = jnp.stack(list(box.values())) <= 1.0
        landed = state.grounded & inside.all() & ~empty & ~over
        ground = jnp.where(box["vertical"] > 1.0, CRASHED, jnp.where(box["miss"] > 1.0, MISSED, TOPPLED))
        cause = jnp.where(over, OVERSTRESSED, jnp.where(empty, EMPTY, jnp.where(state.grounded, ground, ROSE)))
        cause = jnp.where(landed, LANDED, cause)
        return Outcome(state.grounded | rose | empty | over, landed, cause.astype(jnp.int32))

    def leave(self, state: State) -> Flight:
        return state.flight

    def telemetry(self, state: State) -> dict[str, Array]:
        measured = channels(self.body, self.site, state.flight.dispersion, state.flight.state)
        motion = state.flight.state.motion
        return measured | {
            "phase_time_s": state.time,
            "miss_m": jnp.sqrt(motion.position.x**2 + motion.position.y**2 + 1e-9),
            "lateral_speed_m_s": jnp.sqrt(motion.velocity.x**2 + motion.velocity.y**2 + 1e-9),
            "propellant_used_kg": state.begun_kg - motion.propellant,
        }


def environment(params: Params) -> Any:
    """The phase for its parameters: `LandingBurn`, or `BrakeThenLand` for `engines: [3, 1]`."""
    if isinstance(params.engines, tuple):
        from mission_rocket.phases import brake_then_land

        return brake_then_land.environment(params)
    return LandingBurn(params, build_body(params.vehicle, 0, carrying=False), params.site())


def reward(params: Params):
    """Reward terms; see the module's docstring."""
    if isinstance(params.engines, tuple):
        from mission_rocket.phases import brake_then_land

        return brake_then_land.reward(params)
    env = environment(params)

    def terms(state: State, action: Array, after: State, outcome: Outcome) -> dict[str, Array]:
        here = after.flight.state.motion
        t = 0.5 * jnp.maximum(2.0 * here.position.z / jnp.maximum(-here.velocity.z, 20.0), 0.0)
        miss = jnp.sqrt(
            (here.position.x + here.velocity.x * t) ** 2 + (here.position.y + here.velocity.y * t) ** 2 + 1.0
        )
        sides = jnp.stack(list(env.touchdown(after).values()))
        ground = after.grounded & (outcome.cause != EMPTY) & (outcome.cause != OVERSTRESSED)
        ratio = stress_ratio(env.body, stress(env.body, env.site, after.flight, idle(env.body)), True)
        used = state.flight.state.motion.propellant - here.propellant
        return {
            "touchdown": jnp.where(ground, (4.0 / (1.0 + sides**2)).sum(), 0.0),
            "landed": jnp.where(outcome.success, 40.0, 0.0),
            "approach": 0.1 * (after.time - state.time) / (1.0 + miss / 20.0),
            "propellant": -jnp.asarray(used) / 400.0,
            "limits": -jnp.clip(ratio - 0.8, 0.0, 1.0),
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
        sac=agent(target_entropy=-10.0, actor_learning_rate=3e-5, exploration_noise=0.3),
    )
