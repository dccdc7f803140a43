"""Entry burn: from 70 km, unlit, through a braking burn on three engines and the descent to 7 km, unlit.

Actions (11): `throttle` (40 to 100 %), `time_to_ignition` and `time_to_cut_off` (0 to 20 s; an event within the control
period happens inside the step, and after the cut-off the engines stay off; coded by the logarithm above 0.5 s),
`gimbal_yaw`, `gimbal_pitch`, `fin_yaw`, `fin_pitch`, `fin_roll`, `rcs_yaw`, `rcs_pitch`, `rcs_roll` (shares of the limits
of the actuators). By default (`residual: 0`) the vehicle receives the action itself, and the observation holds nothing
that the guidance law computes; with `residual` r > 0 it receives guide + r x action, clipped.

Success `delivered`: at `end_altitude_m` descending, unlit, the touchdown that braking alone would reach
(`predict_touchdown`, where the landing burn begins) within `miss_m` of the pad, speed in `speed_m_s`, `incidence_deg`,
`rate_deg_s`, at least `least_propellant_kg` left. Failures, in order of precedence: `overstressed` (at once, when a
structural limit is exceeded), `out_of_propellant`, `rose` (burnt until it ascended), and at the end altitude `missed`,
`off_speed`, `unsteady` (incidence or rate, or still lit), `short_of_propellant`.

The reward and its reasons are in docs/phases/entry_burn.md, the guidance law in guides/entry.py.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array
from pydantic import Field

from mission import Outcome, PhaseSpec, hookimpl
from mission_rocket import booster, observation
from mission_rocket.booster import GOAL, BoosterPhase, Box, between, box_cost, off_centre, outside, with_success
from mission_rocket.causes import Causes
from mission_rocket.controls import Controls
from mission_rocket.guides.entry import EntryGuide, EntryGuideParams, Estimate
from mission_rocket.measurement import Measurement, exact
from mission_rocket.observation import (
    BODY,
    FORCE,
    LOCAL,
    NO_FRAME,
    POSITION,
    RATES,
    SHARE,
    TURN,
    VELOCITY,
    Observation,
    across,
    in_body,
    linear,
    log,
    row,
    rows,
)
from mission_rocket.physics.channels import fall
from mission_rocket.physics.constants import DEGREE
from mission_rocket.physics.gravity import resting_gravity
from mission_rocket.physics.state import Handover
from mission_rocket.physics.vector import Scalar, Vector, norm
from mission_rocket.vehicles import Range

CONTROLS = Controls(
    (
        "throttle", "time_to_ignition", "time_to_cut_off", "gimbal_yaw", "gimbal_pitch", "fin_yaw", "fin_pitch",
        "fin_roll", "rcs_yaw", "rcs_pitch", "rcs_roll",
    ),
    fine_s=0.5,
)  # fmt: skip
_START_M = 70e3  # altitude for which the start speeds are given


class Params(EntryGuideParams):
    """The box that the landing accepts, the guidance law, and the ranges of the phase's own start."""

    residual: float = booster.residual_field(0.0)
    propellant_price_kg: float = Field(400.0, gt=0.0, description="Propellant that costs a reward of 1.")
    miss_m: float = Field(200.0, gt=0.0, description="Bound on the miss of the touchdown predicted at the end.")
    speed_m_s: Range = (330.0, 440.0)
    incidence_deg: float = Field(6.0, gt=0.0)
    rate_deg_s: float = Field(8.0, gt=0.0)
    start_altitude_m: float = Field(_START_M, gt=15e3, le=_START_M)
    start_propellant_kg: Range = (13_000.0, 20_000.0)
    start_offset_m: float = Field(-2800.0, description="x of the vacuum impact point, relative to the pad.")


class State(NamedTuple):
    """A descending booster; `begun_kg` is the propellant at the start, `rest` [m] the touchdown that braking would reach."""

    flight: Handover
    time: Array
    arrived: Array
    measured: Measurement
    worst: Array
    plan: Any
    lit: Array
    cut: Array
    begun_kg: Array
    estimate: Estimate
    rest: Vector


FLOW = in_body("measured.flow")


def _above(phase: Any, state: State) -> Array:
    """Return the altitude above the end of the phase [m]."""
    return state.measured.altitude - phase.params.end_altitude_m


def _impact(phase: Any, state: Any) -> Vector:
    """Return the vacuum impact point from the pad in body axes [m]."""
    motion = state.measured.motion
    impact, _ = fall(phase.site, motion.position, motion.velocity)
    return state.measured.in_body(Vector(impact.x, impact.y, jnp.zeros_like(impact.x)))


def _bending(phase: Any, state: Any) -> Vector:
    """Return dynamic pressure times the direction of the flow in body axes, over the limit of q-alpha."""
    m = state.measured
    return m.in_body(m.flow) * (m.pressure / phase.body.limits.q_alpha)


def _excess_lag(phase: Any, state: State) -> Scalar:
    """Return the estimated minus the nominal lag of the fins [s]."""
    return state.estimate.lag - (phase.body.fins.lag if phase.body.fins else 1.0)


OBSERVATION = Observation(
    (
        *rows("position_x position_y", "horizontal position from the pad", BODY, log(100.0, "m"), across(POSITION)),
        *rows("far_x far_y", "horizontal position from the pad", BODY, linear(10e3, "m"), across(POSITION)),
        *rows("impact_x impact_y", "vacuum impact point from the pad", BODY, log(100.0, "m"), _impact),
        row("altitude", "altitude", LOCAL, linear(15e3, "m", about=35e3), "measured.altitude"),
        row("altitude_log", "altitude above the end", LOCAL, log(1000.0, "m", per=3.0), _above),
        *rows("velocity_x velocity_y", "horizontal velocity", BODY, linear(200.0, "m/s"), across(VELOCITY)),
        *rows("velocity_x_fine velocity_y_fine", "horizontal velocity", BODY, log(10.0, "m/s"), across(VELOCITY)),
        row("climb", "vertical speed", LOCAL, linear(300.0, "m/s", about=-700.0), "measured.climb"),
        *rows("tilt_x tilt_y", "horizontal part of the body's axis", BODY, linear(0.3, "-"), across("measured.axis")),
        *rows("flow_x flow_y", "direction of flight through the air", BODY, linear(0.1, "-"), FLOW),
        *rows("flow_x_fine flow_y_fine", "direction of flight through the air", BODY, log(0.01, "-"), FLOW),
        *rows("bending_x bending_y", "dynamic pressure times that direction, over its limit", BODY, SHARE, _bending),
        *observation.rate_rows(0.1),
        *rows("rate_x_fine rate_y_fine rate_z_fine", "angular velocity", BODY, log(0.005, "rad/s"), RATES),
        *rows("turn_x turn_y turn_z", "angular acceleration", BODY, linear(0.1, "rad/s2"), TURN),
        *rows("felt_x felt_y", "specific force", BODY, linear(10.0, "m/s2"), in_body(FORCE)),
        row("felt_z", "specific force", BODY, linear(40.0, "m/s2"), in_body(FORCE))._replace(component=2),
        observation.LEVEL,
        observation.flag("lit", "whether the engines are lit", "lit"),
        observation.flag("cut", "whether the engines are cut off", "cut"),
        row("propellant", "propellant", NO_FRAME, linear(4e3, "kg", about=11e3), "measured.motion.propellant"),
        row("mass", "mass", NO_FRAME, linear(5e3, "kg", about=38e3), "measured.mass"),
        row("gas", "gas of the RCS", NO_FRAME, linear(200.0, "kg"), "measured.motion.rcs_propellant"),
        row("pressure", "dynamic pressure", NO_FRAME, linear(30e3, "Pa"), "measured.pressure"),
        row("pressure_log", "dynamic pressure", NO_FRAME, log(1e3, "Pa", per=4.0), "measured.pressure"),
        row("mach", "Mach number", NO_FRAME, linear(2.0, "-"), "measured.mach"),
        observation.flag("limit_share", "largest share of a structural limit", "measured.limit_share"),
        *observation.GIMBAL[:2],
        *observation.FINS,
        # in dense air a hundredth of the fins' range turns the slender vehicle about its axis by degrees per second
        observation.FINS[2]._replace(name="fin_z_fine", scale=log(0.01, "-")),
        *rows("wind_x wind_y", "steady wind", BODY, linear(50.0, "m/s"), across("measured.wind")),
        row("lag", "estimated less nominal lag of the fins", NO_FRAME, linear(0.1, "s"), _excess_lag),
        *observation.OFFSET,
        row("drag", "estimated over nominal drag", NO_FRAME, linear(0.1, "-", about=1.0), "estimate.drag"),
    )
)


@dataclasses.dataclass(frozen=True, eq=False)
class EntryBurn(BoosterPhase[State]):
    """The entry burn; see the docstring of the module."""

    params: Params
    control_period_s: float = 0.25

    law_type = EntryGuide
    controls = CONTROLS
    observation = OBSERVATION
    causes = Causes(
        (
            "delivered", "overstressed", "out_of_propellant", "rose", "missed", "off_speed", "unsteady",
            "short_of_propellant",
        )
    )  # fmt: skip
    box_causes = ("missed", "off_speed", "unsteady", "short_of_propellant")
    max_steps = 500
    limit_penalty_per_s = 4.0

    def burning_groups(self) -> int:
        return 2

    def start(self, key: Array) -> Handover:
        """Draw a vehicle as a boostback aimed at the offset leaves it, engines first, scattered."""
        params, (dispersion, n, gust_key) = self.params, self.draw(key, 10)
        # below 70 km the fall has made it faster
        pull = resting_gravity(self.site, 0.5 * (_START_M + params.start_altitude_m))
        fallen = (1025.0 - 125.0 * n[2]) ** 2 + 2.0 * pull * (_START_M - params.start_altitude_m)
        velocity = Vector(-360.0 + 90.0 * n[0], 20.0 * n[1], -jnp.sqrt(jnp.maximum(fallen, 1e4)))
        target_x, target_y = params.start_offset_m + 1500.0 * n[6], 500.0 * n[7]
        return self.place(
            dispersion,
            gust_key,
            position=self.aimed(velocity, params.start_altitude_m, target_x, target_y),
            velocity=velocity,
            axis=velocity * (-1.0 / norm(velocity)) + Vector(0.03 * n[3], 0.03 * n[4], 0.0),
            propellant=between(params.start_propellant_kg, n[5]),
            ignitions_left=(2.0,) * len(self.body.engines),
            rates=Vector(0.01 * n[8], 0.01 * n[9], 0.0),
            gas=0.6 * self.body.rcs.propellant if self.body.rcs else 0.0,
        )

    def enter(self, key: Array, handoff: Handover) -> State:
        shared, no, begun = self.entered(handoff), jnp.bool_(False), jnp.asarray(handoff.state.motion.propellant)
        measured, estimate = shared["measured"], self.law.nominal()
        true = exact(self.site, measured, handoff.state.motion)
        plan, rest = self.law.first_plan(measured, true) if self.planned else ((), self.law.rest(true, estimate.drag))
        return State(**shared, plan=plan, lit=no, cut=no, begun_kg=begun, estimate=estimate, rest=rest)

    def step(self, key: Array, state: State, action: Array) -> State:
        setting, period = self.received(state, action), self.control_period_s
        to_ignition, to_cut = setting.seconds["time_to_ignition"], setting.seconds["time_to_cut_off"]
        lights = ~state.lit & ~state.cut & (to_ignition <= period)
        cuts = state.lit & (to_cut <= period)
        lit, cut = (state.lit | lights) & ~cuts, state.cut | cuts
        switch = self.switch(state, state.lit, (lights, to_ignition), (cuts, to_cut))
        moved = self.fly(key, state, setting, (state.lit, lit), switch, stop_at=self.params.end_altitude_m)
        estimate = self.law.estimate(state.estimate, state.measured, moved.measured, setting.fin)
        true, burnt = self.exact(moved), jnp.where(lights, period - switch, period)
        if self.planned:
            plan, rest = self.law.plan(moved.measured, true, state.plan, lit, cut, estimate, burnt)
        else:
            plan, rest = (), self.law.rest(true, estimate.drag)
        return moved._replace(lit=lit, cut=cut, estimate=estimate, rest=rest, plan=plan)

    def box(self, state: State) -> Box:
        """Return the sides of the box at the end, where `rest` becomes that of the landing."""
        m, params, rest = self.exact(state), self.params, state.rest
        return {
            "miss": jnp.sqrt(rest.x**2 + rest.y**2 + 1e-9) / params.miss_m,
            "speed": off_centre(m.speed, params.speed_m_s),
            "incidence": norm(m.off_flow, 1e-12) / (params.incidence_deg * DEGREE),
            "rate": norm(m.motion.rates, 1e-12) / (params.rate_deg_s * DEGREE),
        }

    def outcome(self, state: State) -> Outcome:
        box, motion, arrived = self.box(state), state.flight.state.motion, state.arrived
        return self.causes.judge(
            ended=arrived,
            at_once=self.failures(state) | {"rose": state.lit & jnp.asarray(motion.velocity.z > 0.0)},
            at_end={
                "missed": arrived & outside(box, "miss"),
                "off_speed": arrived & outside(box, "speed"),
                "unsteady": arrived & (outside(box, "incidence", "rate") | state.lit),
                "short_of_propellant": arrived & (motion.propellant < self.params.least_propellant_kg),
            },
        )

    def reward(self, state: State, action: Array, after: State, outcome: Outcome) -> dict[str, Array]:
        before, here = state.measured.motion, after.measured.motion
        short = booster.shortage(here.propellant - self.params.least_propellant_kg, 50.0)
        return {
            "delivered": with_success(outcome, GOAL),
            "arrival": jnp.where(after.arrived, -GOAL * (box_cost(self.box(after)) + short), 0.0),
            "lost": jnp.where(outcome.terminated & ~after.arrived, -GOAL, 0.0),
            "propellant": jnp.asarray(here.propellant - before.propellant) / self.params.propellant_price_kg,
            "gas": jnp.asarray(here.rcs_propellant - before.rcs_propellant) / 200.0,
            "limits": self.limit_penalty(after.measured),
        }

    def own_telemetry(self, state: State) -> dict[str, Scalar]:
        return {
            "predicted_miss_x_m": state.rest.x,
            "predicted_miss_y_m": state.rest.y,
            "propellant_used_kg": state.begun_kg - state.measured.motion.propellant,
        }


@hookimpl
def mission_phase() -> PhaseSpec:
    """Return the record of the phase."""
    return booster.booster_spec(EntryBurn, Params, booster.flown_alone_sac(rounds=36))
