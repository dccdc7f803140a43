"""Entry burn: from 70 km, unlit, through a braking burn on three engines and the descent to 7 km, unlit.

Actions (11): `throttle` (40 to 100 %), `time_to_ignition` and `time_to_cut_off` (0 to 20 s; an event within the control
period happens inside the step, and after the cut-off the engines stay off), `gimbal_yaw`, `gimbal_pitch`, `fin_yaw`,
`fin_pitch`, `fin_roll`, `rcs_yaw`, `rcs_pitch`, `rcs_roll` (shares of the limits of the actuators). With `residual`
r > 0 the vehicle receives guide + r x action, clipped; with 0 it receives the action itself.

Success `delivered`: at `end_altitude_m` descending, unlit, the touchdown that braking alone would reach
(`predict_touchdown`, where the landing burn begins) within `miss_m` of the pad, speed in `speed_m_s`, `incidence_deg`,
`rate_deg_s`, at least `least_propellant_kg` left. Failures, in order of precedence: `overstressed` (at once, when a
structural limit is exceeded), `out_of_propellant`, `rose` (burnt until it ascended), and at the end altitude `missed`,
`off_speed`, `unsteady` (incidence or rate, or still lit), `short_of_propellant`.

The reward and its reasons are in docs/phases/entry_burn.md, the guidance law in guides/entry.py.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from pydantic import Field

from mission import Outcome, PhaseSpec, hookimpl
from mission_rocket import booster, observation
from mission_rocket.booster import BoosterPhase, Box, between, near_miss, off_centre, outside, with_success
from mission_rocket.causes import Causes
from mission_rocket.controls import Controls
from mission_rocket.guides.entry import EntryGuide, EntryGuideParams, Plan
from mission_rocket.measurement import Measurement
from mission_rocket.observation import LOCAL, NO_FRAME, Observation, linear, log, row, rows
from mission_rocket.physics.constants import DEGREE
from mission_rocket.physics.gravity import resting_gravity
from mission_rocket.physics.state import Handover
from mission_rocket.physics.vector import Scalar, Vector, norm
from mission_rocket.vehicles import Range

CONTROLS = Controls(
    (
        "throttle", "time_to_ignition", "time_to_cut_off", "gimbal_yaw", "gimbal_pitch", "fin_yaw", "fin_pitch",
        "fin_roll", "rcs_yaw", "rcs_pitch", "rcs_roll",
    )
)  # fmt: skip
_START_M = 70e3  # altitude for which the start speeds are given


class Params(EntryGuideParams):
    """The box that the landing accepts, the guidance law, and the ranges of the phase's own start."""

    residual: float = booster.residual_field(0.03)
    miss_m: float = Field(200.0, gt=0.0, description="Bound on the miss of the touchdown predicted at the end.")
    speed_m_s: Range = (330.0, 440.0)
    incidence_deg: float = Field(6.0, gt=0.0)
    rate_deg_s: float = Field(8.0, gt=0.0)
    start_altitude_m: float = Field(_START_M, gt=15e3, le=_START_M)
    start_propellant_kg: Range = (13_000.0, 20_000.0)
    start_offset_m: float = Field(-2800.0, description="x of the vacuum impact point, relative to the pad.")


class State(NamedTuple):
    """A descending booster; `begun_kg` is the propellant at the start, `lag` [s] the estimated lag of the fins."""

    flight: Handover
    time: Array
    arrived: Array
    measured: Measurement
    worst: Array
    plan: Plan
    lit: Array
    cut: Array
    begun_kg: Array
    lag: Array


OBSERVATION = Observation(
    (
        *rows("x y", "position over the pad", LOCAL, log(100.0, "m", per=4.0), "measured.motion.position"),
        row("altitude", "altitude", LOCAL, linear(15e3, "m", about=35e3), "measured.altitude"),
        *rows("velocity_x velocity_y", "velocity", LOCAL, linear(200.0, "m/s"), "measured.motion.velocity"),
        row("climb", "vertical speed", LOCAL, linear(300.0, "m/s", about=-700.0), "measured.climb"),
        *rows("off_flow_x off_flow_y", "axis off the flow", LOCAL, linear(0.1, "rad"), "measured.off_flow"),
        *observation.rate_rows(0.1),
        *rows("felt_x felt_y", "specific force", LOCAL, linear(10.0, "m/s2"), "measured.specific_force"),
        observation.LEVEL,
        observation.flag("lit", "whether the engines are lit", "lit"),
        observation.flag("cut", "whether the engines are cut off", "cut"),
        row("propellant", "propellant", NO_FRAME, linear(4e3, "kg", about=11e3), "measured.motion.propellant"),
        row("gas", "gas of the RCS", NO_FRAME, linear(200.0, "kg"), "measured.motion.rcs_propellant"),
        row("pressure", "dynamic pressure", NO_FRAME, linear(30e3, "Pa"), "measured.pressure"),
        row("pressure_log", "dynamic pressure", NO_FRAME, log(1e3, "Pa", per=4.0), "measured.pressure"),
        row("mach", "Mach number", NO_FRAME, linear(2.0, "-"), "measured.mach"),
        observation.flag("limit_share", "largest share of a structural limit", "measured.limit_share"),
        *observation.GIMBAL[:2],
        *observation.FINS[:2],
        *rows("wind_x wind_y", "wind at the vehicle", LOCAL, linear(50.0, "m/s"), "measured.wind"),
        *rows("miss_x miss_y", "predicted touchdown", LOCAL, log(50.0, "m", per=3.0), "plan.predicted.rest"),
        row(
            "peak_pressure",
            "predicted peak of pressure",
            NO_FRAME,
            linear(30e3, "Pa", about=60e3),
            "plan.predicted.peak",
        ),
        row(
            "end_speed",
            "predicted speed at the end",
            NO_FRAME,
            linear(50.0, "m/s", about=390.0),
            "plan.predicted.speed",
        ),
        row("burn", "time to the cut-off", NO_FRAME, linear(10.0, "s"), "plan.burn"),
        row("drag", "estimated over nominal drag", NO_FRAME, linear(0.1, "-", about=1.0), "plan.drag"),
        *observation.guide_rows(CONTROLS),
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
        plan = self.law.first_plan(shared["measured"])
        return State(**shared, plan=plan, lit=no, cut=no, begun_kg=begun, lag=self.law.nominal_lag())

    def step(self, key: Array, state: State, action: Array) -> State:
        setting, period = self.received(state, action), self.control_period_s
        to_ignition, to_cut = setting.seconds["time_to_ignition"], setting.seconds["time_to_cut_off"]
        lights = ~state.lit & ~state.cut & (to_ignition <= period)
        cuts = state.lit & (to_cut <= period)
        lit, cut = (state.lit | lights) & ~cuts, state.cut | cuts
        switch = self.switch(state, state.lit, (lights, to_ignition), (cuts, to_cut))
        moved = self.fly(key, state, setting, (state.lit, lit), switch, stop_at=self.params.end_altitude_m)
        lag = self.law.estimate_lag(state.lag, state.measured, moved.measured, setting.fin)
        burnt = jnp.where(lights, period - switch, period)
        plan = self.law.plan(moved.measured, state.plan, lit, cut, lag, burnt)
        return moved._replace(lit=lit, cut=cut, lag=lag, plan=plan)

    def box(self, state: State) -> Box:
        """Return the sides of the box at the end, where the predicted touchdown becomes that of the landing."""
        m, params, rest = state.measured, self.params, state.plan.predicted.rest
        return {
            "miss": jnp.sqrt(rest.x**2 + rest.y**2 + 1e-9) / params.miss_m,
            "speed": off_centre(m.speed, params.speed_m_s),
            "incidence": norm(m.off_flow, 1e-12) / (params.incidence_deg * DEGREE),
            "rate": norm(m.motion.rates, 1e-12) / (params.rate_deg_s * DEGREE),
        }

    def outcome(self, state: State) -> Outcome:
        box, motion, arrived = self.box(state), state.measured.motion, state.arrived
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
        before, here, rest = state.measured.motion, after.measured.motion, after.plan.predicted.rest
        left = here.propellant - self.params.least_propellant_kg
        miss = jnp.sqrt(rest.x**2 + rest.y**2 + 1.0)
        at_end = after.arrived & ~self.causes.among(outcome, "out_of_propellant", "overstressed")
        return {
            "delivered": with_success(outcome, 40.0),
            "arrival": jnp.where(at_end, near_miss(self.box(after), 2.0), 0.0),
            "aim": 0.1 * (after.time - state.time) / (1.0 + miss / 100.0),
            "reserve": with_success(outcome, jnp.clip(left / 500.0, 0.0, 12.0)),
            "gas": jnp.asarray(here.rcs_propellant - before.rcs_propellant) / 200.0,
            "limits": self.limit_penalty(after.measured),
        }

    def own_telemetry(self, state: State) -> dict[str, Scalar]:
        return {
            "predicted_miss_x_m": state.plan.predicted.rest.x,
            "predicted_miss_y_m": state.plan.predicted.rest.y,
            "predicted_peak_pa": state.plan.predicted.peak,
            "propellant_used_kg": state.begun_kg - state.measured.motion.propellant,
        }


@hookimpl
def mission_phase() -> PhaseSpec:
    """Return the record of the phase."""
    sac = booster.residual_sac(target_entropy=-22.0, gamma=0.998, actor_learning_rate=3e-5)
    return booster.booster_spec(EntryBurn, Params, sac)
