"""Ballistic arc: from the end of the boostback through apogee down to `end_altitude_m`, engines off.

Actions (6): `rcs_yaw`, `rcs_pitch`, `rcs_roll`, `fin_yaw`, `fin_pitch`, `fin_roll` (shares of the limits of the
actuators). By default (`residual: 0`) the vehicle receives the action itself, and the observation holds nothing that the
guidance law computes; with `residual` r > 0 it receives guide + r x action, clipped.

Success `oriented`: at `end_altitude_m` descending, engines first with at most `incidence_deg` to the flow and at most
`rate_deg_s`, with gas left. Failures, in order of precedence: `overstressed` (at once, when a structural limit is
exceeded), `out_of_gas` (at once), and at the end altitude `misaligned` (incidence, or nose first) and `turning` (rate).

The reward and its reasons are in docs/phases/ballistic_arc.md, the guidance law in guides/arc.py.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array
from pydantic import Field

from mission import Outcome, PhaseSpec, hookimpl
from mission_rocket import booster, observation
from mission_rocket.booster import GOAL, BoosterPhase, Box, between, box_cost, outside, with_success
from mission_rocket.causes import Causes
from mission_rocket.controls import Controls
from mission_rocket.guides.arc import ArcGuide, ArcGuideParams, wanted_axis
from mission_rocket.measurement import Measurement
from mission_rocket.observation import (
    BODY,
    LOCAL,
    NO_FRAME,
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
from mission_rocket.physics.constants import DEGREE
from mission_rocket.physics.state import Handover
from mission_rocket.physics.vector import Scalar, Vector, norm
from mission_rocket.vehicles import Range

CONTROLS = Controls(("rcs_yaw", "rcs_pitch", "rcs_roll", "fin_yaw", "fin_pitch", "fin_roll"))


class Params(ArcGuideParams):
    """The box that the entry accepts, and the ranges of the phase's own start."""

    residual: float = booster.residual_field(0.0)
    incidence_deg: float = Field(5.0, gt=0.0)
    rate_deg_s: float = Field(1.0, gt=0.0)
    target_offset_m: float = Field(-2800.0, description="Target x of the boostback's vacuum impact point.")
    start_altitude_m: Range = (114e3, 144e3)
    start_climb_m_s: Range = (200.0, 640.0)
    start_propellant_kg: Range = (13_000.0, 22_000.0)
    start_gas_kg: Range = (250.0, 400.0)


class State(NamedTuple):
    """A booster on its arc; `begun_kg` is the gas at the start."""

    flight: Handover
    time: Array
    arrived: Array
    measured: Measurement
    worst: Array
    plan: Any
    begun_kg: Array


def _angle(a: Vector, b: Vector) -> Array:
    """Return the angle between two unit vectors [rad]."""
    return 2.0 * jnp.arcsin(jnp.clip(0.5 * norm(a - b, 1e-12), 0.0, 1.0))


def _incidence(phase: Any, state: State) -> Array:
    """Return the angle of the nose off the flow, engines first [rad]."""
    m = phase.exact(state)
    return _angle(m.axis, -m.flow)


OBSERVATION = Observation(
    (
        row("altitude", "altitude", LOCAL, linear(40e3, "m", about=100e3), "measured.altitude"),
        row("climb", "vertical speed", LOCAL, linear(700.0, "m/s"), "measured.climb"),
        *rows("up_x up_y up_z", "vertical", BODY, SHARE, in_body("measured.vertical")),
        *rows("velocity_x velocity_y velocity_z", "velocity", BODY, linear(500.0, "m/s"), in_body(VELOCITY)),
        *rows("flow_x flow_y flow_z", "direction of flight through the air", BODY, SHARE, in_body("measured.flow")),
        *rows("flow_x_fine flow_y_fine", "direction of flight", BODY, tanh(0.1, "-"), in_body("measured.flow")),
        *rows("wind_x wind_y wind_z", "steady wind", BODY, linear(20.0, "m/s"), in_body("measured.wind")),
        *observation.rate_rows(0.05),
        *rows("rate_x_fine rate_y_fine rate_z_fine", "angular velocity", BODY, log(0.005, "rad/s"), observation.RATES),
        row("pressure_log", "dynamic pressure", NO_FRAME, log(100.0, "Pa", per=2.0), "measured.pressure"),
        row("gas", "gas of the RCS", NO_FRAME, linear(200.0, "kg", about=200.0), "measured.motion.rcs_propellant"),
        row("mass", "mass", NO_FRAME, linear(5e3, "kg", about=42e3), "measured.mass"),
        *observation.FINS,
    )
)


@dataclasses.dataclass(frozen=True, eq=False)
class BallisticArc(BoosterPhase[State]):
    """The ballistic arc; see the docstring of the module."""

    params: Params

    law_type = ArcGuide
    controls = CONTROLS
    observation = OBSERVATION
    causes = Causes(("oriented", "overstressed", "out_of_gas", "misaligned", "turning"))
    box_causes = ("misaligned", "turning")
    control_period_s = 1.0
    max_steps = 450

    def start(self, key: Array) -> Handover:
        """Draw a vehicle as the boostback leaves it: nose level and towards the pad, vacuum impact at the target."""
        params, (dispersion, n, gust_key) = self.params, self.draw(key, 12)
        velocity = Vector(-365.0 + 95.0 * n[1], 15.0 * n[2], between(params.start_climb_m_s, n[3]))
        height, target_x = between(params.start_altitude_m, n[0]), params.target_offset_m + 1000.0 * n[6]
        return self.place(
            dispersion,
            gust_key,
            position=self.aimed(velocity, height, target_x, 500.0 * n[7]),
            velocity=velocity,
            axis=Vector(jnp.full((), -1.0), 0.1 * n[4], 0.2 * n[5]),
            propellant=between(params.start_propellant_kg, n[8]),
            ignitions_left=(2.0,) * len(self.body.engines),
            rates=Vector(0.02 * n[9], 0.02 * n[10], 0.01 * n[11]),
            gas=between(params.start_gas_kg, n[4] * n[5]),
        )

    def enter(self, key: Array, handoff: Handover) -> State:
        shared, gas = self.entered(handoff), jnp.asarray(handoff.state.motion.rcs_propellant)
        return State(**shared, plan=self.law.plan(shared["measured"]) if self.planned else (), begun_kg=gas)

    def step(self, key: Array, state: State, action: Array) -> State:
        setting, no = self.received(state, action), jnp.bool_(False)
        end = self.params.end_altitude_m
        moved = self.fly(key, state, setting, (no, no), self.switch(state, no), steps_each=3, stop_at=end)
        return moved._replace(plan=self.law.plan(moved.measured) if self.planned else ())

    def box(self, state: State) -> Box:
        """Return the sides of the box at the end."""
        return {
            "incidence": _incidence(self, state) / (self.params.incidence_deg * DEGREE),
            "rate": norm(state.flight.state.motion.rates, 1e-12) / (self.params.rate_deg_s * DEGREE),
        }

    def outcome(self, state: State) -> Outcome:
        box, arrived = self.box(state), state.arrived
        empty = jnp.asarray(state.measured.motion.rcs_propellant <= 0.0)
        return self.causes.judge(
            ended=arrived,
            at_once={"overstressed": state.worst > 1.0, "out_of_gas": empty},
            at_end={"misaligned": arrived & outside(box, "incidence"), "turning": arrived & outside(box, "rate")},
        )

    def reward(self, state: State, action: Array, after: State, outcome: Outcome) -> dict[str, Array]:
        here = self.exact(after)
        wanted = wanted_axis(self.site, here, self.params.end_altitude_m)
        angle = _angle(here.axis, wanted)
        used = state.measured.motion.rcs_propellant - after.measured.motion.rcs_propellant
        return {
            "oriented": with_success(outcome, GOAL),
            "arrival": jnp.where(after.arrived, -GOAL * box_cost(self.box(after)), 0.0),
            "lost": jnp.where(outcome.terminated & ~after.arrived, -GOAL, 0.0),
            "pointing": 0.02 * (after.time - state.time) / (1.0 + angle / (10.0 * DEGREE)),
            "gas": jnp.asarray(-used / 5.0),
            "limits": self.limit_penalty(after.measured),
        }

    def own_telemetry(self, state: State) -> dict[str, Scalar]:
        return {"gas_used_kg": state.begun_kg - state.measured.motion.rcs_propellant}


@hookimpl
def mission_phase() -> PhaseSpec:
    """Return the record of the phase."""
    return booster.booster_spec(BallisticArc, Params, booster.flown_alone_sac(rounds=10, width=128))
