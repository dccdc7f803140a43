"""Ascent: from the release of the hold-downs through Mach 1, max q and the gravity turn to MECO.

Actions (5): `throttle` (of all nine engines, 40 to 100 %), `time_to_meco` (0 to 20 s; the engines stop inside the step
when the time is within the control period), `gimbal_yaw`, `gimbal_pitch`, `gimbal_roll` (shares of the limit). The
parameter `fins` adds `fin_yaw`, `fin_pitch`, `fin_roll`; by default the fins are folded during the ascent, and the
guide leaves them centred. The time is coded by its logarithm above 0.5 s. By default (`residual: 0`) the vehicle
receives the action itself, and the observation holds nothing that the guidance law computes; with `residual` r > 0 it
receives guide + r x action, clipped. The flight begins with the engines at full thrust, since the hold-downs release only then; MECO is
final, and the phase ends 1 to 1.5 s later, when the thrust has gone.

Success `meco`, judged at the end: altitude, speed and flight-path angle inside their ranges, the rate within
`rate_deg_s`, propellant above the reserve. Failures, in order of precedence: `overstressed` (a limit exceeded),
`out_of_propellant`, `too_low` (back on the ground), `lost_control` (tilted past the horizon, or turning faster than
30 deg/s), `off_target` (ended outside the box).

The reward and its reasons are in docs/phases/ascent.md, the guidance law in guides/ascent.py.
"""

from __future__ import annotations

import dataclasses
import functools
from operator import attrgetter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from pydantic import Field

from mission import Outcome, PhaseSpec, hookimpl
from mission_rocket import booster, observation
from mission_rocket.booster import GOAL, BoosterPhase, Box, box_cost, near_miss, off_centre, with_success
from mission_rocket.causes import Causes
from mission_rocket.controls import Controls
from mission_rocket.guides.ascent import TAIL_S, AscentGuide, AscentGuideParams, Estimate, path_error
from mission_rocket.measurement import Measurement
from mission_rocket.observation import (
    BODY,
    FORCE,
    LOCAL,
    NO_FRAME,
    POSITION,
    SHARE,
    VELOCITY,
    Observation,
    Value,
    in_body,
    linear,
    log,
    row,
    rows,
    tanh,
)
from mission_rocket.physics.constants import DEGREE
from mission_rocket.physics.state import Handover, start_state
from mission_rocket.physics.vector import Scalar, Vector, dot, norm, quaternion_of_axis
from mission_rocket.vehicles import Range

CONTROLS = Controls(("throttle", "time_to_meco", "gimbal_yaw", "gimbal_pitch", "gimbal_roll"), fine_s=0.5)
WITH_FINS = Controls((*CONTROLS.names, "fin_yaw", "fin_pitch", "fin_roll"), fine_s=0.5)


class Params(AscentGuideParams):
    """The box at MECO and the guidance law."""

    residual: float = booster.residual_field(0.0)
    fins: bool = Field(False, description="Whether the fins are unfolded and commanded.")
    altitude_m: Range = (61e3, 74e3)
    flight_path_angle_deg: Range = (42.0, 58.0)
    rate_deg_s: float = Field(2.0, gt=0.0)


class State(NamedTuple):
    """A vehicle on its way up; `off_for` [s] since MECO."""

    flight: Handover
    time: Array
    arrived: Array
    measured: Measurement
    worst: Array
    plan: Any
    cut: Array
    off_for: Array
    estimate: Estimate


@functools.cache
def _sideways(path: str) -> Value:
    """Return a function that computes the part of a local vector across the plane of flight in body axes."""

    def components(phase: Any, state: Any) -> Vector:
        vector = attrgetter(path)(state)
        return state.measured.in_body(Vector(0.0 * vector.x, vector.y, 0.0 * vector.z))

    return components


def _downrange(phase: Any, state: Any) -> Vector:
    """Return the downrange direction in body axes."""
    one = jnp.ones(())
    return state.measured.in_body(Vector(one, 0.0 * one, 0.0 * one))


def _flow(phase: Any, state: Any) -> Vector:
    """Return the direction of flight through the air in body axes; zero below 500 Pa, where it says nothing."""
    return state.measured.in_body(state.measured.flow) * (state.measured.pressure > 500.0)


def _path(phase: Any, state: Any) -> Array:
    """Return the sine of the flight-path angle."""
    return state.measured.climb / jnp.maximum(state.measured.speed, 30.0)


def _speed_left(phase: Any, state: Any) -> Array:
    """Return the speed at which the ascent is to end, less that of the vehicle [m/s]."""
    return phase.params.aim_speed_m_s - state.measured.speed


OBSERVATION = Observation(
    (
        row("altitude", "altitude", LOCAL, linear(65e3, "m"), "measured.altitude"),
        row("altitude_log", "altitude", LOCAL, log(300.0, "m", per=4.0), "measured.altitude"),
        row("speed", "speed", LOCAL, linear(1650.0, "m/s"), "measured.speed"),
        row("speed_log", "speed", LOCAL, log(30.0, "m/s", per=3.0), "measured.speed"),
        row("speed_left", "speed to gain until the cut-off", LOCAL, log(10.0, "m/s", per=4.0), _speed_left),
        row("climb", "vertical speed", LOCAL, linear(1200.0, "m/s"), "measured.climb"),
        row("path", "sine of the flight-path angle, from 30 m/s", LOCAL, SHARE, _path),
        row("position", "position downrange", LOCAL, linear(40e3, "m"), "measured.motion.position.x"),
        *rows("up_x up_y up_z", "vertical", BODY, SHARE, in_body("measured.vertical")),
        *rows("up_x_fine up_y_fine", "vertical", BODY, tanh(0.05, "-"), in_body("measured.vertical")),
        *rows("ahead_x ahead_y ahead_z", "downrange direction", BODY, SHARE, _downrange),
        *rows("across_x across_y", "position across", BODY, log(100.0, "m"), _sideways(POSITION)),
        *rows("drift_x drift_y", "velocity across", BODY, linear(20.0, "m/s"), _sideways(VELOCITY)),
        *rows("flow_x flow_y", "direction of flight through the air, above 500 Pa", BODY, linear(0.1, "-"), _flow),
        *rows("wind_x wind_y", "steady wind", BODY, linear(50.0, "m/s"), in_body("measured.wind")),
        *observation.rate_rows(0.05),
        *rows("felt_x felt_y", "specific force", BODY, linear(2.0, "m/s2"), in_body(FORCE)),
        row("felt_z", "specific force", BODY, linear(35.0, "m/s2"), in_body(FORCE))._replace(component=2),
        observation.LEVEL,
        row("mass", "mass", NO_FRAME, linear(200e3, "kg", about=350e3), "measured.mass"),
        row("propellant", "propellant above the reserve", NO_FRAME, linear(200e3, "kg"), observation.reserve),
        row("reserve", "propellant above the reserve", NO_FRAME, log(500.0, "kg", per=4.0), observation.reserve),
        row("pressure", "dynamic pressure", NO_FRAME, linear(25e3, "Pa"), "measured.pressure"),
        row("mach", "Mach number", NO_FRAME, linear(3.0, "-"), "measured.mach"),
        *observation.GIMBAL,
        *observation.OFFSET,
        observation.flag("cut", "whether the engines are cut off", "cut"),
    )
)


@dataclasses.dataclass(frozen=True, eq=False)
class Ascent(BoosterPhase[State]):
    """The ascent; see the docstring of the module."""

    params: Params

    law_type = AscentGuide
    observation = OBSERVATION
    causes = Causes(("meco", "overstressed", "out_of_propellant", "too_low", "lost_control", "off_target"))
    box_causes = ("off_target",)
    control_period_s = 0.5
    max_steps = 400
    engine_first = False
    carries_stages = True

    @property
    def controls(self) -> Controls:  # ty: ignore[incompatible-property-override]
        """Return the actions, including those of the fins if they are unfolded."""
        return WITH_FINS if self.params.fins else CONTROLS

    def start(self, key: Array) -> Handover:
        """Draw a vehicle on the pad when the hold-downs release: at rest, all engines at full thrust."""
        dispersion_key, gust_key = jax.random.split(key)
        dispersion = self.day(dispersion_key)
        zero, one, (x, y) = jnp.zeros(()), jnp.ones(()), (dispersion.tilt_x, dispersion.tilt_y)
        rest, attitude = Vector(zero, zero, zero), quaternion_of_axis(Vector(x, y, jnp.sqrt(1.0 - x**2 - y**2)))
        state = start_state(self.body, rest, rest, attitude, self.body.propellant * dispersion.propellant, gust_key)
        engines, left = self.body.engines, tuple(number - 1.0 for number in state.ignitions_left)
        motion = state.motion._replace(levels=(one,) * len(engines))
        return Handover(
            state._replace(motion=motion, lit_for=(one * 3.0,) * len(engines), ignitions_left=left), dispersion
        )

    def enter(self, key: Array, handoff: Handover) -> State:
        shared, no, estimate = self.entered(handoff), jnp.bool_(False), self.law.nominal()
        plan = self.law.plan(shared["measured"], no, estimate) if self.planned else ()
        return State(**shared, plan=plan, cut=no, off_for=jnp.zeros(()), estimate=estimate)

    def step(self, key: Array, state: State, action: Array) -> State:
        setting, period = self.received(state, action), self.control_period_s
        t_go = setting.seconds["time_to_meco"]
        cuts = ~state.cut & (t_go <= period)
        cut, switch = state.cut | cuts, self.switch(state, ~state.cut, (cuts, t_go))
        moved = self.fly(key, state, setting, (~state.cut, ~cut), switch, steps_each=2)
        off_for = jnp.where(state.cut, state.off_for + period, jnp.where(cuts, period - switch, 0.0))
        estimate = self.law.estimate(state.estimate, moved.measured)
        plan = self.law.plan(moved.measured, cut, estimate) if self.planned else ()
        return moved._replace(cut=cut, off_for=off_for, arrived=off_for >= TAIL_S, estimate=estimate, plan=plan)

    def box(self, state: State) -> Box:
        """Return the sides of the box at MECO."""
        m, params = self.exact(state), self.params
        angle = jnp.arcsin(jnp.clip(m.climb / m.speed, -1.0, 1.0)) / DEGREE
        return {
            "altitude": off_centre(m.altitude, params.altitude_m),
            "speed": off_centre(m.speed, params.speed_m_s),
            "angle": off_centre(angle, params.flight_path_angle_deg),
            "rate": norm(m.motion.rates) / DEGREE / params.rate_deg_s,
        }

    def outcome(self, state: State) -> Outcome:
        m = self.exact(state)
        missed = booster.outside(self.box(state)) | (m.motion.propellant < self.params.reserve_kg)
        tumbles = norm(m.motion.rates) / DEGREE > 30.0
        lost = {"lost_control": (dot(m.axis, m.vertical) < 0.0) | tumbles, "too_low": m.altitude < -5.0}
        at_end = {"off_target": state.arrived & missed}
        return self.causes.judge(state.arrived, self.failures(state) | lost, at_end)

    def reward(self, state: State, action: Array, after: State, outcome: Outcome) -> dict[str, Array]:
        params, here = self.params, self.exact(after)
        angle = jnp.arcsin(jnp.clip(here.climb / here.speed, -1.0, 1.0)) / DEGREE
        aim = {
            "altitude": off_centre(here.altitude, params.altitude_m, params.aim_altitude_m),
            "speed": off_centre(here.speed, params.speed_m_s, params.aim_speed_m_s),
            "angle": off_centre(angle, params.flight_path_angle_deg, params.aim_flight_path_angle_deg),
            "lateral": off_centre(here.motion.velocity.y, (-20.0, 20.0)),
        }
        left = here.motion.propellant - params.reserve_kg
        cost = box_cost(self.box(after)) + booster.shortage(left, 100.0)
        return {
            "meco": with_success(outcome, GOAL),
            "arrival": jnp.where(after.arrived, -GOAL * cost, 0.0),
            "lost": jnp.where(outcome.terminated & ~after.arrived, -GOAL, 0.0),
            "aim": jnp.where(after.arrived, near_miss(aim, 3.0), 0.0),
            "reserve": jnp.where(after.arrived, jnp.minimum(left, 20e3) / 2e3, 0.0),
            "limits": self.limit_penalty(here),
        }

    def own_telemetry(self, state: State) -> dict[str, Scalar]:
        return {"reference_error_deg": path_error(self.exact(state)) / DEGREE}


@hookimpl
def mission_phase() -> PhaseSpec:
    """Return the record of the phase."""
    return booster.booster_spec(Ascent, Params, booster.flown_alone_sac(rounds=26))
