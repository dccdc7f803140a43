"""Landing burn: from 7 km, unlit, to touchdown; the agent chooses the time of ignition.

Actions (8): `throttle` (40 to 100 %), `time_to_ignition` (0 to 10 s, coded by its logarithm above 0.5 s; the engine
lights inside the step when the time is within the control period), `gimbal_yaw`, `gimbal_pitch`, `fin_yaw`,
`fin_pitch`, `fin_roll`, `rcs_roll` (shares of the limits of the actuators). By default (`residual: 0`) the vehicle receives the
action itself, and the observation holds nothing that the guidance law computes. With `residual` r > 0 the vehicle
receives guide + r x action, clipped (0.5 r for the throttle, 0.1 r for the time, 0.05 r for gimbal, fins and RCS). Once lit
the engine stays lit.

Success `landed`: at altitude 0 within `miss_m`, `vertical_speed_m_s`, `lateral_speed_m_s`, `tilt_deg`, `rate_deg_s`,
with propellant left. Failures, in order of precedence: `overstressed` (a limit exceeded), `out_of_propellant`,
`crashed` (too fast), `missed` (outside the circle), `toppled` (tilt, rate or lateral speed), `rose` (stopped above
the ground, where the least thrust exceeds the weight).

The reward and its reasons are in docs/phases/landing_burn.md, the guidance law in guides/landing.py.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from pydantic import Field, field_validator

from mission import Outcome, PhaseSpec, hookimpl
from mission_rocket import booster, observation
from mission_rocket.booster import GOAL, BoosterPhase, Box, box_cost, outside
from mission_rocket.causes import Causes
from mission_rocket.controls import Controls, throttle_of
from mission_rocket.guides.landing import Estimate, LandingGuide, LandingGuideParams
from mission_rocket.guides.prediction import Falling, carried_wind, predict_touchdown
from mission_rocket.measurement import Measurement, exact, measure
from mission_rocket.observation import (
    BODY,
    FORCE,
    LOCAL,
    NO_FRAME,
    POSITION,
    TURN,
    VELOCITY,
    Observation,
    across,
    linear,
    log,
    row,
    rows,
    tanh,
)
from mission_rocket.physics.constants import DEGREE
from mission_rocket.physics.state import Handover
from mission_rocket.physics.vector import Scalar, Vector, body_axis, norm
from mission_rocket.physics.wind import steady_wind

_HOVER_M, _LEAST_SINK_M_S = 2.0, 0.3  # below this height a lower sink rate is penalised, and less up to twice of it
_SHARPNESS = 12.0  # of that bound [s/m]: with a softer one the penalty made the policy touch down faster than it has to
CONTROLS = Controls(
    ("throttle", "time_to_ignition", "gimbal_yaw", "gimbal_pitch", "fin_yaw", "fin_pitch", "fin_roll", "rcs_roll"),
    longest_s=10.0,
    fine_s=0.5,
    shares={"throttle": 0.5, "time_to_ignition": 0.1}
    | dict.fromkeys(("gimbal_yaw", "gimbal_pitch", "fin_yaw", "fin_pitch", "fin_roll", "rcs_roll"), 0.05),
)


class LandingBox(booster.FlightParams):
    """The bounds of a landing."""

    miss_m: float = Field(10.0, gt=0.0)
    vertical_speed_m_s: float = Field(2.0, gt=0.0)
    lateral_speed_m_s: float = Field(1.0, gt=0.0)
    tilt_deg: float = Field(3.0, gt=0.0)
    rate_deg_s: float = Field(3.0, gt=0.0)


class Params(LandingBox, LandingGuideParams):
    """The landing box, the guidance law, and the ranges of the phase's own start."""

    residual: float = booster.residual_field(0.0)
    propellant_price_kg: float = Field(200.0, gt=0.0, description="Propellant that costs a reward of 1.")
    start_speed_m_s: float = Field(385.0, gt=0.0)
    start_propellant_kg: float = Field(10_000.0, gt=0.0)
    start_propellant_spread_kg: float = Field(3500.0, ge=0.0, description="To either side, uniform.")
    start_miss_m: float = Field(200.0, ge=0.0)

    @field_validator("engines", mode="before")
    @classmethod
    def _one_burn(cls, engines: Any) -> Any:
        if isinstance(engines, list | tuple):
            raise ValueError(
                "a landing burn uses one number of engines, 1 or 3. To brake on three engines from high above and "
                "land on one, write `plugin: brake_then_land` and leave `engines` out"
            )
        return engines


class State(NamedTuple):
    """A booster on its last kilometres; `begun_kg` is the propellant at the start."""

    flight: Handover
    time: Array
    arrived: Array
    measured: Measurement
    worst: Array
    plan: Any
    lit: Array
    estimate: Estimate
    begun_kg: Array


OBSERVATION = Observation(
    (
        *rows("position_x position_y", "horizontal position from the pad", BODY, log(10.0, "m"), across(POSITION)),
        *rows("far_x far_y", "horizontal position from the pad", BODY, log(100.0, "m"), across(POSITION)),
        row("height", "altitude", LOCAL, log(20.0, "m"), "measured.altitude"),
        row("height_far", "altitude", LOCAL, log(500.0, "m"), "measured.altitude"),
        *rows("velocity_x velocity_y", "horizontal velocity", BODY, linear(100.0, "m/s"), across(VELOCITY)),
        *rows("velocity_x_fine velocity_y_fine", "horizontal velocity", BODY, log(1.0, "m/s"), across(VELOCITY)),
        row("climb", "vertical speed", LOCAL, linear(200.0, "m/s"), "measured.climb"),
        row("climb_log", "vertical speed", LOCAL, log(5.0, "m/s"), "measured.climb"),
        row("climb_fine", "vertical speed", LOCAL, tanh(5.0, "m/s"), "measured.climb"),
        *rows("wind_x wind_y", "steady wind", BODY, linear(20.0, "m/s"), across("measured.wind")),
        *rows("force_x force_y", "horizontal specific force", BODY, linear(10.0, "m/s2"), across(FORCE)),
        row("force_up", "vertical specific force", LOCAL, linear(20.0, "m/s2"), f"{FORCE}.z"),
        *rows("tilt_x tilt_y", "horizontal part of the body's axis", BODY, linear(0.1, "-"), across("measured.axis")),
        *observation.rate_rows(0.1),
        *rows("turn_x turn_y turn_z", "angular acceleration", BODY, linear(0.1, "rad/s2"), TURN),
        *observation.GIMBAL[:2],
        *observation.FINS,
        observation.LEVEL,
        observation.flag("lit", "whether the engines are lit", "lit"),
        row("mass", "mass", NO_FRAME, linear(5e3, "kg", about=35e3), "measured.mass"),
        row("gas", "gas of the RCS", NO_FRAME, linear(200.0, "kg"), "measured.motion.rcs_propellant"),
        row("pressure", "dynamic pressure", NO_FRAME, linear(50e3, "Pa"), "measured.pressure"),
        row("pressure_low", "dynamic pressure", NO_FRAME, log(300.0, "Pa", per=4.0), "measured.pressure"),
        observation.LAG,
        row("drag", "estimated over nominal drag", NO_FRAME, linear(0.1, "-", about=1.0), "estimate.drag"),
        row("thrust", "estimated over nominal thrust", NO_FRAME, linear(0.02, "-", about=1.0), "estimate.thrust"),
    )
)


@dataclasses.dataclass(frozen=True, eq=False)
class LandingBurn(BoosterPhase[State]):
    """The landing burn; see the docstring of the module."""

    params: Params

    law_type = LandingGuide
    controls = CONTROLS
    observation = OBSERVATION
    causes = Causes(("landed", "overstressed", "out_of_propellant", "crashed", "missed", "toppled", "rose"))
    control_period_s = 0.2
    max_steps = 400
    limit_penalty_per_s = 5.0

    def burning_groups(self) -> int:
        return 1 if self.params.engines == 1 else 2

    def start(self, key: Array) -> Handover:
        """Draw a vehicle that falls engines first, aimed at the pad as an entry leaves it."""
        params, (dispersion, n, gust_key), zero = self.params, self.draw(key, 8), jnp.zeros(())
        speed = params.start_speed_m_s + 55.0 * n[0]
        velocity_x, velocity_y = -60.0 + 60.0 * n[1], 20.0 * n[2]
        velocity = Vector(velocity_x, velocity_y, -jnp.sqrt(speed**2 - velocity_x**2 - velocity_y**2))
        back = steady_wind(dispersion.wind, params.start_altitude_m, self.site.winds) - velocity
        axis = back * (1.0 / norm(back)) + Vector(0.03 * n[5], 0.03 * n[6], 0.0)
        propellant = params.start_propellant_kg + params.start_propellant_spread_kg * n[7]
        above = Vector(zero, zero, zero + params.start_altitude_m)
        ignitions = (1.0,) * len(self.body.engines)
        flight = self.place(dispersion, gust_key, above, velocity, axis, propellant, ignitions)
        m = exact(self.site, measure(self.body, self.site, self.engine_first, flight), flight.state.motion)
        wind = carried_wind(self.site, m.wind, m.altitude)
        falling = Falling(m.motion.position, m.motion.velocity, m.altitude, m.mass, wind)
        engines, throttle = float(params.engines), params.reference_throttle
        rest, _ = predict_touchdown(self.body, self.site, falling, 2700.0, throttle, engines)
        miss = params.start_miss_m
        position = Vector(miss * n[3] - rest.x, miss * n[4] - rest.y, above.z)
        return flight._replace(state=flight.state._replace(motion=m.motion._replace(position=position)))

    def enter(self, key: Array, handoff: Handover) -> State:
        shared, no, estimate = self.entered(handoff), jnp.bool_(False), self.law.nominal()
        plan = self.law.plan(shared["measured"], no, estimate) if self.planned else ()
        begun = jnp.asarray(handoff.state.motion.propellant)
        return State(**shared, plan=plan, lit=no, estimate=estimate, begun_kg=begun)

    def step(self, key: Array, state: State, action: Array) -> State:
        setting = self.received(state, action)
        to_ignition = setting.seconds["time_to_ignition"]
        lights = ~state.lit & (to_ignition <= self.control_period_s)
        lit = state.lit | lights
        switch = self.switch(state, state.lit, (lights, to_ignition))
        moved = self.fly(key, state, setting, (state.lit, lit), switch, stop_at=0.0)
        throttle = jnp.asarray(throttle_of(self.body.engines[0], setting.throttle))
        estimate = self.law.estimate(state.estimate, state.measured, moved.measured, throttle, state.lit, lit)
        plan = self.law.plan(moved.measured, lit, estimate) if self.planned else ()
        return moved._replace(lit=lit, estimate=estimate, plan=plan)

    def box(self, state: State) -> Box:
        """Return the sides of the landing box."""
        motion, params = state.flight.state.motion, self.params
        (position, velocity, *_), axis = motion, body_axis(motion.attitude)
        tilt = jnp.arctan2(jnp.sqrt(axis.x**2 + axis.y**2 + 1e-12), axis.z)
        return {
            "miss": horizontal(position) / params.miss_m,
            "vertical": jnp.abs(velocity.z) / params.vertical_speed_m_s,
            "lateral": horizontal(velocity) / params.lateral_speed_m_s,
            "tilt": tilt / (params.tilt_deg * DEGREE),
            "rate": norm(motion.rates, 1e-12) / (params.rate_deg_s * DEGREE),
        }

    def outcome(self, state: State) -> Outcome:
        box, grounded = self.box(state), state.arrived
        rose = state.lit & jnp.asarray(state.flight.state.motion.velocity.z > 0.0) & ~grounded
        return self.causes.judge(
            ended=grounded,
            at_once=self.failures(state) | {"rose": rose},
            at_end={
                "crashed": grounded & outside(box, "vertical"),
                "missed": grounded & outside(box, "miss"),
                "toppled": grounded & outside(box, "lateral", "tilt", "rate"),
            },
        )

    def reward(self, state: State, action: Array, after: State, outcome: Outcome) -> dict[str, Array]:
        before, here = state.flight.state.motion, after.flight.state.motion
        lost = outcome.terminated & ~after.arrived
        sink = jax.nn.softplus(_SHARPNESS * (_LEAST_SINK_M_S + here.velocity.z)) / _SHARPNESS
        return {
            "touchdown": jnp.where(after.arrived, -GOAL * box_cost(self.box(after)), 0.0),
            "landed": booster.with_success(outcome, GOAL),
            "lost": jnp.where(lost, -GOAL, 0.0),
            "hover": -0.3 * GOAL * sink * jnp.clip(2.0 - here.position.z / _HOVER_M, 0.0, 1.0),
            "propellant": jnp.asarray(here.propellant - before.propellant) / self.params.propellant_price_kg,
            "limits": self.limit_penalty(after.measured),
        }

    def own_telemetry(self, state: State) -> dict[str, Scalar]:
        motion = state.flight.state.motion
        return {
            "miss_m": horizontal(motion.position),
            "lateral_speed_m_s": horizontal(motion.velocity),
            "propellant_used_kg": state.begun_kg - motion.propellant,
        }


def horizontal(vector: Vector) -> Array:
    """Return the horizontal length of a local vector."""
    return jnp.sqrt(vector.x**2 + vector.y**2 + 1e-9)


@hookimpl
def mission_phase() -> PhaseSpec:
    """Return the record of the phase."""
    return booster.booster_spec(LandingBurn, Params, booster.flown_alone_sac(rounds=24, actor_horizon=170))
