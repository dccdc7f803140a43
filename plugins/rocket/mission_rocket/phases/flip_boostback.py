"""Flip and boostback: from separation after MECO to 6 s after the cut-off of three engines.

Actions (7): `throttle` (40 to 100 % of centre and pair; before the first ignition the engines stay off below an action
of -0.6), `time_to_cut_off` (0 to 20 s; the engines stop inside the step when the time is within the control period),
`gimbal_yaw`, `gimbal_pitch`, `rcs_yaw`, `rcs_pitch`, `rcs_roll` (shares of the limits). The time is coded by its
logarithm above 0.5 s. By default (`residual: 0`) the vehicle receives the action itself, and the observation holds
nothing that the guidance law computes; with `residual` r > 0 it receives guide + r x action, clipped (guide + 0.1 r x
action for the time, because the impact point moves by 5 km per second). Once lit the engines stay lit until the
cut-off, which is final and has no effect before they are lit.

The vacuum impact point that the observation holds is navigation: it follows from position and velocity alone, and range
safety computes it on board in any case (the instantaneous impact point).

Success `on_target`, 6 s after the cut-off: the vacuum impact point at altitude 0 within `miss_m` of (`target_x_m`,
`target_y_m`), which `target_lead_s` moves upwind, the rate at most `rate_deg_s`, propellant at least
`reserve_kg`. Failures, in order of precedence: `overstressed` (a limit exceeded), `out_of_propellant`, `too_low`
(below 50 km on the way down), `lost_control` (turning faster than 40 deg/s), `off_target` (ended outside the box).

The reward and its reasons are in docs/phases/flip_boostback.md, the guidance law in guides/boostback.py.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from pydantic import Field

from mission import Outcome, PhaseSpec, hookimpl
from mission_rocket import booster, observation
from mission_rocket.booster import GOAL, BoosterPhase, Box, between, box_cost, with_success
from mission_rocket.causes import Causes
from mission_rocket.controls import Controls, throttle_of
from mission_rocket.guides.boostback import Aim, BoostbackGuide, BoostbackGuideParams, Estimate, aim
from mission_rocket.measurement import Measurement
from mission_rocket.observation import (
    BODY,
    FORCE,
    LOCAL,
    NO_FRAME,
    RATES,
    SHARE,
    VELOCITY,
    Observation,
    in_body,
    linear,
    log,
    row,
    rows,
    tanh,
)
from mission_rocket.physics.channels import Impact
from mission_rocket.physics.constants import DEGREE
from mission_rocket.physics.state import Handover
from mission_rocket.physics.vector import Scalar, Vector, norm
from mission_rocket.vehicles import Range

CONTROLS = Controls(
    ("throttle", "time_to_cut_off", "gimbal_yaw", "gimbal_pitch", "rcs_yaw", "rcs_pitch", "rcs_roll"),
    fine_s=0.5,
    shares={"time_to_cut_off": 0.1},
)
_LIGHTS = 0.2  # share of the throttle's range above which the engines light
_SETTLE_S = 6.0
_LOWEST_M = 50e3


class Params(BoostbackGuideParams):
    """The target, the box, the guidance law, and the box at MECO from which the phase's own start is drawn."""

    residual: float = booster.residual_field(0.0)
    miss_m: float = Field(1000.0, gt=0.0)
    rate_deg_s: float = Field(2.0, gt=0.0)
    reserve_kg: float = Field(12e3, ge=0.0)
    start_altitude_m: Range = (61e3, 70e3)
    start_speed_m_s: Range = (1630.0, 1670.0)
    start_flight_path_angle_deg: Range = (42.0, 58.0)
    start_downrange_m: Range = (31e3, 43e3)
    start_propellant_kg: Range = (48e3, 62e3)


class State(NamedTuple):
    """A booster that turns back; `aim` as navigation reports it and `reached` as it is; `off_for` is the time since the cut-off [s], `begun_m` the miss at the start."""

    flight: Handover
    time: Array
    arrived: Array
    measured: Measurement
    worst: Array
    plan: Any
    aim: Aim
    reached: Aim
    lit: Array
    cut: Array
    off_for: Array
    estimate: Estimate
    begun_m: Array


def _gas(phase: Any, state: State) -> Scalar:
    """Return the remaining gas as a fraction of a full tank."""
    return state.measured.motion.rcs_propellant / (phase.body.rcs.propellant if phase.body.rcs else 1.0)


def _off_body(phase: Any, state: State) -> Vector:
    """Return the offset of the vacuum impact point from the target in body axes [m]."""
    return state.measured.in_body(state.aim.off)


OBSERVATION = Observation(
    (
        *rows("miss_x miss_y miss_z", "vacuum impact off the target", BODY, log(300.0, "m", per=3.0), _off_body),
        *rows("far_x far_y far_z", "vacuum impact off the target", BODY, linear(300e3, "m"), _off_body),
        row("miss", "distance of the vacuum impact from the target", NO_FRAME, log(300.0, "m", per=3.0), "aim.miss"),
        row("fall_time", "time of the fall in vacuum", NO_FRAME, linear(400.0, "s"), "aim.t_fall"),
        row("altitude", "altitude", LOCAL, linear(100e3, "m"), "measured.altitude"),
        row("climb", "vertical speed", LOCAL, linear(1000.0, "m/s"), "measured.climb"),
        *rows("up_x up_y up_z", "vertical", BODY, SHARE, in_body("measured.vertical")),
        *rows("velocity_x velocity_y velocity_z", "velocity", BODY, linear(1000.0, "m/s"), in_body(VELOCITY)),
        *observation.rate_rows(0.1),
        *rows("rate_x_fine rate_y_fine rate_z_fine", "angular velocity", BODY, tanh(DEGREE, "rad/s"), RATES),
        *rows("felt_x felt_y felt_z", "specific force", BODY, linear(40.0, "m/s2"), in_body(FORCE)),
        observation.LEVEL,
        observation.flag("lit", "whether the engines were lit", "lit"),
        observation.flag("cut", "whether the engines are cut off", "cut"),
        row("off_for", "time since the cut-off", NO_FRAME, linear(_SETTLE_S, "s"), "off_for"),
        row("mass", "mass", NO_FRAME, linear(20e3, "kg", about=60e3), "measured.mass"),
        observation.flag("gas", "gas of the RCS over what the tank holds", _gas),
        *observation.GIMBAL[:2],
        *rows("trim_x trim_y", "recent mean gimbal angle", BODY, linear(0.02, "rad"), "estimate.trim"),
        observation.LAG,
    )
)


@dataclasses.dataclass(frozen=True, eq=False)
class FlipBoostback(BoosterPhase[State]):
    """The flip and boostback; see the docstring of the module."""

    params: Params

    law_type = BoostbackGuide
    controls = CONTROLS
    observation = OBSERVATION
    causes = Causes(("on_target", "overstressed", "out_of_propellant", "too_low", "lost_control", "off_target"))
    box_causes = ("off_target",)
    control_period_s = 0.25
    max_steps = 560

    def burning_groups(self) -> int:
        return 2

    def start(self, key: Array) -> Handover:
        """Draw a vehicle after MECO as real flights leave it: engines off, nose along the velocity, scattered."""
        params, (dispersion, n, gust_key) = self.params, self.draw(key, 11)
        height, downrange = between(params.start_altitude_m, n[0]), between(params.start_downrange_m, n[1])
        speed = between(params.start_speed_m_s, n[2])
        # the local horizon has turned by downrange / radius
        angle = between(params.start_flight_path_angle_deg, n[3]) * DEGREE - downrange / self.site.radius
        position = Vector(downrange, 300.0 * n[4], height - downrange * downrange / (2.0 * self.site.radius))
        velocity = Vector(speed * jnp.cos(angle), 10.0 * n[5], speed * jnp.sin(angle))
        axis = velocity + Vector(0.05 * n[6], 0.05 * n[7], 0.0) * speed
        propellant, rates = between(params.start_propellant_kg, n[8]), Vector(0.01 * n[9], 0.01 * n[10], 0.0)
        ignitions = tuple(group.ignitions - 1.0 for group in self.body.engines)
        return self.place(dispersion, gust_key, position, velocity, axis, propellant, ignitions, rates)

    def enter(self, key: Array, handoff: Handover) -> State:
        zero, no, estimate = jnp.zeros(()), jnp.bool_(False), self.law.nominal()
        handoff = handoff._replace(state=handoff.state._replace(lit_for=(zero,) * len(self.body.engines)))
        shared = self.entered(handoff)
        to, reached = self.aims(shared["measured"], handoff)
        plan = self.law.plan(shared["measured"], to, no, no, estimate) if self.planned else ()
        return State(
            **shared,
            plan=plan,
            aim=to,
            reached=reached,
            lit=no,
            cut=no,
            off_for=zero,
            estimate=estimate,
            begun_m=reached.miss,
        )

    def step(self, key: Array, state: State, action: Array) -> State:
        setting, period = self.received(state, action), self.control_period_s
        t_go = setting.seconds["time_to_cut_off"]
        lit = state.lit | (setting.throttle >= _LIGHTS)
        cuts = state.lit & ~state.cut & (t_go <= period)
        cut, switch = state.cut | cuts, self.switch(state, lit & ~state.cut, (cuts, t_go))
        moved = self.fly(key, state, setting, (lit & ~state.cut, lit & ~cut), switch)
        off_for = jnp.where(state.cut, state.off_for + period, jnp.where(cuts, period - switch, 0.0))
        throttle = jnp.asarray(throttle_of(self.body.engines[0], setting.throttle))
        burnt, burns = state.lit & ~cut, lit & ~cut
        estimate = self.law.estimate(state.estimate, state.measured, moved.measured, throttle, burnt, burns)
        (to, reached), arrived = self.aims(moved.measured, moved.flight), off_for >= _SETTLE_S
        plan = self.law.plan(moved.measured, to, lit, cut, estimate) if self.planned else ()
        return moved._replace(
            lit=lit, cut=cut, off_for=off_for, arrived=arrived, estimate=estimate, aim=to, reached=reached, plan=plan
        )

    def aims(self, measured: Measurement, flight: Handover) -> tuple[Aim, Aim]:
        """Return the vacuum impact point and its offset as navigation reports them, and as they are."""
        motion = flight.state.motion
        seen, true = ((one.position, one.velocity, measured.wind) for one in (measured.motion, motion))
        both = jax.vmap(partial(aim, self.params, self.site))(*jax.tree.map(lambda a, b: jnp.stack([a, b]), seen, true))
        first, second = (jax.tree.map(lambda leaf, at=at: leaf[at], both) for at in (0, 1))
        return first, second

    def box(self, state: State) -> Box:
        """Return the sides of the box at the end."""
        rate = norm(state.flight.state.motion.rates) / DEGREE
        return {"miss": state.reached.miss / self.params.miss_m, "rate": rate / self.params.rate_deg_s}

    def outcome(self, state: State) -> Outcome:
        m = self.exact(state)
        lost = {
            "lost_control": norm(m.motion.rates) / DEGREE > 40.0,
            "too_low": (m.altitude < _LOWEST_M) & (m.climb < 0.0),
        }
        missed = booster.outside(self.box(state)) | (m.motion.propellant < self.params.reserve_kg)
        at_end = {"off_target": state.arrived & missed}
        return self.causes.judge(state.arrived, self.failures(state) | lost, at_end)

    def reward(self, state: State, action: Array, after: State, outcome: Outcome) -> dict[str, Array]:
        here, seconds = self.exact(after), self.control_period_s
        left = here.motion.propellant - self.params.reserve_kg
        cost = box_cost(self.box(after)) + booster.shortage(left, 100.0)
        (off_x, off_y, _), miss = after.reached.off, after.reached.miss
        astray = jnp.where(after.cut, 0.0, 0.5 + 0.5 * (here.axis.x * off_x + here.axis.y * off_y) / miss)
        return {
            "on_target": with_success(outcome, GOAL),
            "arrival": jnp.where(after.arrived, -GOAL * cost, 0.0),
            "lost": jnp.where(outcome.terminated & ~after.arrived, -GOAL, 0.0),
            "closing": 10.0 * (state.reached.miss - miss) / jnp.maximum(after.begun_m, 1e4),
            "pointing": -0.05 * seconds * astray,
            "rate": -0.05 * seconds * jnp.minimum(norm(here.motion.rates) / DEGREE / 20.0, 1.0),
            "reserve": jnp.where(after.arrived, jnp.minimum(left, 16e3) / 400.0, 0.0),
            "limits": self.limit_penalty(here),
        }

    def impact(self, state: State) -> Impact:
        return state.reached.impact, state.reached.t_fall

    def own_telemetry(self, state: State) -> dict[str, Scalar]:
        return {"impact_miss_m": state.reached.miss}


@hookimpl
def mission_phase() -> PhaseSpec:
    """Return the record of the phase."""
    return booster.booster_spec(FlipBoostback, Params, booster.flown_alone_sac(rounds=16))
