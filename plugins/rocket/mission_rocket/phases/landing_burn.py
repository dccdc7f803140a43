"""Landing burn: from 7 km, unlit, to touchdown; chooses the moment of ignition.

Actions (7): `throttle` (40 to 100 %), `time_to_ignition` (0 to 10 s; the engine lights inside the step
when it is within the control period), `gimbal_yaw`, `gimbal_pitch`, `fin_yaw`, `fin_pitch`, `fin_roll`
(shares of the actuators' limits). With `residual` r > 0 the vehicle receives guide + r x action, clipped (of the
throttle 0.5 r, of the time 0.1 r, of gimbal and fins 0.05 r); with 0 the action itself. Once lit the engine stays lit.

Observation (36): position across (log, 10 m) and up (log, 20 m), velocity across (100 m/s and log,
1 m/s) and up (200 m/s and tanh, 5 m/s), tilt (0.1), rates (0.1 rad/s), acceleration felt across
(10 m/s2) and up (20 m/s2), thrust level, whether lit, mass (30 t about 35 t), dynamic pressure (50 kPa), gimbal and fins
(their limits), height at which a burn at the reference throttle would stop (log, 20 m), time to
touchdown (20 s), the engine's lag as found (0.1 s about nominal), drag and thrust as found over
nominal ones (0.1 and 0.02 about 1), and the guide's action.

Success `landed`: at altitude 0 within `miss_m`, `vertical_speed_m_s`, `lateral_speed_m_s`,
`tilt_deg`, `rate_deg_s`, propellant left. Failures: `crashed` (too fast), `missed` (outside the
circle), `toppled` (tilt, rate or sideways speed), `rose` (stopped above the ground: the least
thrust exceeds the weight), `out_of_propellant`, `overstressed` (a structural limit passed).

Reward: `touchdown` pays 4 / (1 + (x / limit)^2) for each of miss, vertical and lateral speed, tilt
and rate at the ground, and `landed` 40 for all of them: what counts, and graded so that a near miss
beats a far one. `approach` pays 0.1 / (1 + miss without effort / 20 m) a second while falling, at most 4
in all, so position always costs; `propellant` takes 1 for each 200 kg; `limits` takes the share of a
limit above 80 %. In the air nothing else is paid and any other end pays nothing: hovering, climbing
and diving stay below a crash on the pad, and that below a landing (tests/test_landing.py).

Guide: mission_rocket/phases/landing_guide.py.
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
    agent,
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
from mission_rocket.phases.landing_guide import LONGEST_S, Found, LandingGuide, Plan
from mission_rocket.physics.channels import channels
from mission_rocket.physics.constants import DEGREE
from mission_rocket.physics.gravity import Site
from mission_rocket.physics.integrate import cross_altitude
from mission_rocket.physics.state import Command, idle, start_state
from mission_rocket.physics.vector import Vector, body_axis, norm, quaternion_of_axis
from mission_rocket.physics.vehicle import Body
from mission_rocket.physics.wind import steady_wind
from mission_rocket.prediction import predict_touchdown
from mission_rocket.report import sections
from mission_rocket.vehicles import build_body

LANDED, CRASHED, MISSED, TOPPLED, ROSE, EMPTY, OVERSTRESSED = range(7)
_PRICE_KG = 200.0  # of propellant, for a reward of 1
_SHARES = (0.5, 0.1, 0.05, 0.05, 0.05, 0.05, 0.05)  # of the residual, by action


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


class State(NamedTuple):
    """A booster on its last kilometres; `begun_kg` of propellant at the start."""

    flight: Flight
    time: Array
    lit: Array
    grounded: Array
    found: Found
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
        "gimbal_x", "gimbal_y", "fin_x", "fin_y", "stop_height", "time_to_touchdown", "lag", "drag", "thrust",
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
        begun, found = jnp.asarray(handoff.state.motion.propellant), self.law.nothing_found()
        plan = self.law.plan(handoff, no, found)
        return State(handoff, zero, no, no, found, begun, no_stress(), plan)

    @cached_property
    def law(self) -> LandingGuide:
        """The guide."""
        params = self.params
        highest = 1.3 * params.start_altitude_m
        return LandingGuide(
            self.body, self.site, params.landing_engines, params.reference_throttle, highest, self.control_period_s
        )

    def guide(self, state: State) -> Array:
        """The guide's action; zero where the action corrects it."""
        return uncorrected(state.plan.action, self.params.residual)

    def step(self, key: Array, state: State, action: Array) -> State:
        body, period = self.body, self.control_period_s
        told = corrected(state.plan.action, self.params.residual, action, _SHARES)
        group = body.engines[0]
        throttle = group.throttle_min + (1.0 - group.throttle_min) * 0.5 * (told[0] + 1.0)
        t_go = 0.5 * LONGEST_S * (told[1] + 1.0)
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
        found = self.law.find(state.found, state.flight, moved, throttle, state.lit, lit)
        plan = self.law.plan(flight, lit, found)
        return State(flight, state.time + spent, lit, grounded, found, state.begun_kg, worst, plan)

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
                (state.found.lag - self.body.engines[0].lag) / 0.1,
                (state.found.drag - 1.0) / 0.1,
                (state.found.thrust - 1.0) / 0.02,
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
            "propellant": -jnp.asarray(used) / _PRICE_KG,
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
