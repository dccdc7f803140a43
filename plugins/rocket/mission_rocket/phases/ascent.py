"""Ascent: from the release of the hold-downs through Mach 1, max q and the gravity turn to MECO.

Actions (5): `throttle` (of all nine engines, 40 to 100 %), `time_to_meco` (0 to 20 s; the engines stop inside the step
when the time is within the control period), `gimbal_yaw`, `gimbal_pitch`, `gimbal_roll` (shares of the limit). The
parameter `fins` adds `fin_yaw`, `fin_pitch`, `fin_roll`; by default the fins are folded during the ascent, and the
guide leaves them centred. With `residual` r > 0 the vehicle receives guide + r x action, clipped; with 0 it receives
the action itself. The flight begins with the engines at full thrust, since the hold-downs release only then; MECO is
final, and the phase ends 1 to 1.5 s later, when the thrust has gone.

Success `meco`, judged at the end: altitude, speed and flight-path angle inside their ranges, the rate within
`rate_deg_s`, propellant above the reserve. Failures, in order of precedence: `overstressed` (a limit exceeded),
`out_of_propellant`, `too_low` (back on the ground), `lost_control` (tilted past the horizon, or turning faster than
30 deg/s), `off_target` (ended outside the box).

The reward and its reasons are in docs/phases/ascent.md, the guidance law in guides/ascent.py.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from pydantic import Field

from mission import Outcome, PhaseSpec, hookimpl
from mission_rocket import booster, observation
from mission_rocket.booster import BoosterPhase, Box, near_miss, off_centre, with_success
from mission_rocket.causes import Causes
from mission_rocket.controls import Controls
from mission_rocket.guides.ascent import TAIL_S, AscentGuide, AscentGuideParams, Plan, path_error
from mission_rocket.measurement import Measurement
from mission_rocket.observation import BODY, LOCAL, NO_FRAME, Observation, linear, log, row, rows
from mission_rocket.physics.constants import DEGREE
from mission_rocket.physics.state import Handover, start_state
from mission_rocket.physics.vector import Scalar, Vector, dot, norm, quaternion_of_axis
from mission_rocket.vehicles import Range

CONTROLS = Controls(("throttle", "time_to_meco", "gimbal_yaw", "gimbal_pitch", "gimbal_roll"))
WITH_FINS = Controls((*CONTROLS.names, "fin_yaw", "fin_pitch", "fin_roll"))


class Params(AscentGuideParams):
    """The box at MECO and the guidance law."""

    residual: float = booster.residual_field(0.1)
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
    plan: Plan
    cut: Array
    off_for: Array


OBSERVATION = Observation(
    (
        row("altitude", "altitude", LOCAL, linear(65e3, "m"), "measured.altitude"),
        row("speed", "speed", LOCAL, linear(1650.0, "m/s"), "measured.speed"),
        row("climb", "vertical speed", LOCAL, linear(1200.0, "m/s"), "measured.climb"),
        row("downrange", "position downrange", LOCAL, linear(40e3, "m"), "measured.motion.position.x"),
        row("across", "position across", LOCAL, log(100.0, "m"), "measured.motion.position.y"),
        row("velocity_across", "velocity across", LOCAL, linear(20.0, "m/s"), "measured.motion.velocity.y"),
        row(
            "path_error",
            "flight-path angle above the reference",
            LOCAL,
            linear(5.0 * DEGREE, "rad"),
            lambda phase, state: path_error(state.measured),
        ),
        row("nose_x", "axis of the body", LOCAL, linear(1.0, "-"), "measured.axis.x"),
        row("nose_y", "axis of the body", LOCAL, linear(0.1, "-"), "measured.axis.y"),
        *rows(
            "off_flow_x off_flow_y",
            "direction of the flow, above 500 Pa",
            BODY,
            linear(0.1, "-"),
            lambda phase, state: state.measured.in_body(state.measured.flow) * (state.measured.pressure > 500.0),
        ),
        *observation.rate_rows(0.05),
        row("felt_along", "specific force", BODY, linear(35.0, "m/s2"), observation.body_force)._replace(component=2),
        *rows("felt_x felt_y", "specific force", BODY, linear(2.0, "m/s2"), observation.body_force),
        observation.LEVEL,
        row("mass", "mass", NO_FRAME, linear(200e3, "kg", about=350e3), "measured.mass"),
        row("propellant", "propellant above the reserve", NO_FRAME, linear(200e3, "kg"), observation.reserve),
        row("pressure", "dynamic pressure", NO_FRAME, linear(25e3, "Pa"), "measured.pressure"),
        row("mach", "Mach number", NO_FRAME, linear(3.0, "-"), "measured.mach"),
        *observation.GIMBAL,
        row("time_to_meco", "time to the cut-off", NO_FRAME, linear(20.0, "s", most=5.0), "plan.t_go"),
        row(
            "meco_altitude",
            "predicted altitude at MECO above the aim",
            LOCAL,
            log(1000.0, "m", per=3.0),
            lambda phase, state: state.plan.final_altitude - phase.params.aim_altitude_m,
        ),
        observation.flag("cut", "whether the engines are cut off", "cut"),
        *observation.guide_rows(CONTROLS),
    )
)


@dataclasses.dataclass(frozen=True, eq=False)
class Ascent(BoosterPhase[State]):
    """The ascent; see the docstring of the module."""

    params: Params

    law_type = AscentGuide
    observation = OBSERVATION
    causes = Causes(("meco", "overstressed", "out_of_propellant", "too_low", "lost_control", "off_target"))
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
        dispersion = self.params.dispersions.draw(dispersion_key)
        zero, one, (x, y) = jnp.zeros(()), jnp.ones(()), (dispersion.tilt_x, dispersion.tilt_y)
        rest, attitude = Vector(zero, zero, zero), quaternion_of_axis(Vector(x, y, jnp.sqrt(1.0 - x**2 - y**2)))
        state = start_state(self.body, rest, rest, attitude, self.body.propellant * dispersion.propellant, gust_key)
        engines, left = self.body.engines, tuple(number - 1.0 for number in state.ignitions_left)
        motion = state.motion._replace(levels=(one,) * len(engines))
        return Handover(
            state._replace(motion=motion, lit_for=(one * 3.0,) * len(engines), ignitions_left=left), dispersion
        )

    def enter(self, key: Array, handoff: Handover) -> State:
        shared, no = self.entered(handoff), jnp.bool_(False)
        return State(**shared, plan=self.law.plan(shared["measured"], no), cut=no, off_for=jnp.zeros(()))

    def step(self, key: Array, state: State, action: Array) -> State:
        setting, period = self.received(state, action), self.control_period_s
        t_go = setting.seconds["time_to_meco"]
        cuts = ~state.cut & (t_go <= period)
        cut, switch = state.cut | cuts, self.switch(state, ~state.cut, (cuts, t_go))
        moved = self.fly(key, state, setting, (~state.cut, ~cut), switch, steps_each=2)
        off_for = jnp.where(state.cut, state.off_for + period, jnp.where(cuts, period - switch, 0.0))
        plan = self.law.plan(moved.measured, cut)
        return moved._replace(cut=cut, off_for=off_for, arrived=off_for >= TAIL_S, plan=plan)

    def box(self, state: State) -> Box:
        """Return the sides of the box at MECO."""
        m, params = state.measured, self.params
        angle = jnp.arcsin(jnp.clip(m.climb / m.speed, -1.0, 1.0)) / DEGREE
        return {
            "altitude": off_centre(m.altitude, params.altitude_m),
            "speed": off_centre(m.speed, params.speed_m_s),
            "angle": off_centre(angle, params.flight_path_angle_deg),
            "rate": norm(m.motion.rates) / DEGREE / params.rate_deg_s,
        }

    def outcome(self, state: State) -> Outcome:
        m = state.measured
        missed = booster.outside(self.box(state)) | (m.motion.propellant < self.params.reserve_kg)
        tumbles = norm(m.motion.rates) / DEGREE > 30.0
        lost = {"lost_control": (dot(m.axis, m.vertical) < 0.0) | tumbles, "too_low": m.altitude < -5.0}
        at_end = {"off_target": state.arrived & missed}
        return self.causes.judge(state.arrived, self.failures(state) | lost, at_end)

    def reward(self, state: State, action: Array, after: State, outcome: Outcome) -> dict[str, Array]:
        params, here, period = self.params, after.measured, self.control_period_s
        angle = jnp.arcsin(jnp.clip(here.climb / here.speed, -1.0, 1.0)) / DEGREE
        aim = {
            "altitude": off_centre(here.altitude, params.altitude_m, params.aim_altitude_m),
            "speed": off_centre(here.speed, params.speed_m_s, params.aim_speed_m_s),
            "angle": off_centre(angle, params.flight_path_angle_deg, params.aim_flight_path_angle_deg),
            "lateral": off_centre(here.motion.velocity.y, (-20.0, 20.0)),
        }
        ended = outcome.terminated & self.causes.among(outcome, "meco", "off_target")
        left = here.motion.propellant - params.reserve_kg
        gained = jnp.minimum(here.speed, 1650.0) - jnp.minimum(state.measured.speed, 1650.0)
        off = jnp.minimum(jnp.abs(path_error(here)) / (10.0 * DEGREE), 1.0)
        return {
            "meco": with_success(outcome, 40.0),
            "aim": jnp.where(ended, near_miss(aim, 3.0), 0.0),
            "reserve": with_success(outcome, jnp.clip(left / 2e3, 0.0, 10.0)),
            "progress": 4.0 * gained / 1650.0,
            "path": -0.02 * period * off,
            "limits": self.limit_penalty(here),
        }

    def own_telemetry(self, state: State) -> dict[str, Scalar]:
        return {"reference_error_deg": path_error(state.measured) / DEGREE}


@hookimpl
def mission_phase() -> PhaseSpec:
    """Return the record of the phase."""
    return booster.booster_spec(Ascent, Params, booster.residual_sac(target_entropy=-10.0))
