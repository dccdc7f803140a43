"""Vertical coast: fall in vacuum and decide when to ignite the engine.

Action (1): `time_to_ignition`, t_go = 20 s (a + 1) / 2, commanded every 0.1 s. The engine lights at
t_go inside the step when t_go is at most the control period.

No observation uses the propellant optimum.

Success `lit`: ignition at a height between `margin_min_percent` and `margin_max_percent` above the
latest possible ignition. Failures: `lit_too_early`, `too_late` (fell below the latest ignition, or
lit with less than the least margin).

Reward: `timing` 1 / (1 + |commanded - ideal t_go| / scale), scale 0.1 s + 5 % of the ideal, pays
in each step for the right time; `ignition` pays 20 for a valid ignition, up to a third less towards
the edges of the window, and more than waiting could still earn from `timing`.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array
from pydantic import Field, model_validator

from mission import Limit, Outcome, PhaseSpec, hookimpl
from mission_rocket import vertical
from mission_rocket.causes import Causes
from mission_rocket.observation import LOCAL, NO_FRAME, Observation, ObservedPhase, Scale, linear, row
from mission_rocket.physics.constants import STANDARD_GRAVITY_M_S2 as GRAVITY
from mission_rocket.report import sections
from mission_rocket.vehicles import Strict
from mission_rocket.vertical import Booster

LONGEST_COMMAND_S = 20.0


class Params(Strict):
    """Window of ignition heights above the latest possible ignition."""

    margin_min_percent: float = Field(0.3, ge=0.0, le=50.0)
    margin_max_percent: float = Field(4.0, gt=0.0, le=100.0)

    @model_validator(mode="after")
    def _ordered(self) -> Params:
        if self.margin_min_percent >= self.margin_max_percent:
            raise ValueError("margin_min_percent must be below margin_max_percent")
        return self


class State(NamedTuple):
    """A falling booster; float32 scalars, `lit` bool."""

    booster: Booster
    time_s: Array  # since the phase began
    latest_s: Array  # latest ignition, since the phase began
    latest_height_m: Array
    lit: Array


def _needed(phase: Any, state: State) -> Array:
    """Return the throttle needed to stop at the ground."""
    return vertical.required_throttle(*state.booster[:3])


def _impact_s(phase: Any, state: State) -> Array:
    """Return the time to impact in free fall."""
    height, velocity, *_ = state.booster
    return (velocity + jnp.sqrt(velocity**2 + 2.0 * GRAVITY * jnp.maximum(height, 0.0))) / GRAVITY


RAW = Scale("-", "1, within 0 to 3", lambda throttle: jnp.clip(throttle, 0.0, 3.0))
FINE = Scale("-", "0.1 about 1.08, within 3", lambda throttle: jnp.clip(10.0 * (throttle - 1.08), -3.0, 3.0))
INVERSE = Scale("s", "1 / (0.5 + 0.1 x)", lambda seconds: 1.0 / (0.5 + 0.1 * seconds))
OBSERVATION = Observation(
    (
        row("height", "height", LOCAL, linear(5000.0, "m", about=5000.0), "booster.height_m"),
        row("velocity", "velocity", LOCAL, linear(100.0, "m/s", about=-350.0), "booster.velocity_m_s"),
        row("mass", "mass", NO_FRAME, linear(1650.0, "kg", about=vertical.NOMINAL_MASS_KG), "booster.mass_kg"),
        row("required_throttle", "throttle to stop at the ground", NO_FRAME, RAW, _needed),
        row("required_throttle_fine", "throttle to stop at the ground", NO_FRAME, FINE, _needed),
        row("time_to_impact", "time to impact in free fall", NO_FRAME, linear(20.0, "s"), _impact_s),
        row("inverse_time_to_impact", "time to impact in free fall", NO_FRAME, INVERSE, _impact_s),
    )
)


@dataclasses.dataclass(frozen=True, eq=False)
class VerticalCoast(ObservedPhase[Booster, State]):
    """See the docstring of the module."""

    params: Params

    observation = OBSERVATION
    action_names = ("time_to_ignition",)
    causes = Causes(("lit", "too_late", "lit_too_early"))
    control_period_s = 0.1
    max_steps = 400

    observation_inputs = vertical.SEEN

    def observe_channels(self, channels: dict[str, Array]) -> Array:
        zero = jnp.zeros(())
        return self.observe(State(vertical.booster_in(channels), zero, zero, zero, jnp.bool_(False)))

    def start(self, key: Array) -> Booster:
        return vertical.dispersed_start(key)

    def enter(self, key: Array, handoff: Booster) -> State:
        best = vertical.fuel_optimum(handoff.height_m, handoff.velocity_m_s, handoff.mass_kg)
        booster = handoff._replace(start_mass_kg=handoff.mass_kg, optimal_propellant_kg=best.propellant_kg)
        return State(booster, jnp.zeros(()), best.coast_s, best.ignition_height_m, jnp.bool_(False))

    def step(self, key: Array, state: State, action: Array) -> State:
        t_go = commanded_time_s(action)
        lit = t_go <= self.control_period_s
        seconds = jnp.where(lit, t_go, self.control_period_s)
        height, velocity = vertical.coast(state.booster.height_m, state.booster.velocity_m_s, seconds)
        booster = state.booster._replace(height_m=height, velocity_m_s=velocity)
        return state._replace(booster=booster, time_s=state.time_s + seconds, lit=lit)

    def margin_percent(self, state: State) -> Array:
        """Return the height above the latest ignition height, in percent of it."""
        return 100.0 * (state.booster.height_m / jnp.maximum(state.latest_height_m, 1.0) - 1.0)

    def outcome(self, state: State) -> Outcome:
        margin = self.margin_percent(state)
        late = (state.time_s > state.latest_s) | (state.lit & (margin < self.params.margin_min_percent))
        early = state.lit & (margin > self.params.margin_max_percent)
        return self.causes.judge(state.lit, {"too_late": late}, {"lit_too_early": early})

    def leave(self, state: State) -> Booster:
        return state.booster

    def telemetry(self, state: State) -> dict[str, Array]:
        return vertical.telemetry(state.booster) | {
            "phase_time_s": state.time_s,
            "ignition_margin_percent": self.margin_percent(state),
            "time_to_latest_ignition_s": state.latest_s - state.time_s,
        }

    def guide(self, state: State) -> Array:
        """Ignite where the margin will be in the middle of the window, by the closed form."""
        return (2.0 * ideal_time_s(self.params, state) / LONGEST_COMMAND_S - 1.0)[None]


def commanded_time_s(action: Array) -> Array:
    """Return the time to ignition of an action [1] in [-1, 1]."""
    return LONGEST_COMMAND_S * (action[0] + 1.0) / 2.0


def ideal_time_s(params: Params, state: State) -> Array:
    """Return the time until the height is one middle margin above the latest ignition, at least 0."""
    middle = 0.5 * (params.margin_min_percent + params.margin_max_percent) / 100.0
    speed = jnp.maximum(-state.booster.velocity_m_s + GRAVITY * (state.latest_s - state.time_s), 1.0)
    return jnp.maximum(state.latest_s - middle * state.latest_height_m / speed - state.time_s, 0.0)


def reward(params: Params):
    """Return the reward terms; see the docstring of the module."""
    environment = VerticalCoast(params)
    half = 0.5 * (params.margin_max_percent - params.margin_min_percent)

    def terms(state: State, action: Array, after: State, outcome: Outcome) -> dict[str, Array]:
        ideal = ideal_time_s(params, state)
        error = jnp.abs(commanded_time_s(action) - ideal)
        off_centre = jnp.abs(environment.margin_percent(after) - params.margin_min_percent - half) / half
        return {
            "timing": 1.0 / (1.0 + error / (0.1 + 0.05 * ideal)),
            "ignition": jnp.where(outcome.success, 20.0 * (1.0 - off_centre / 3.0), 0.0),
        }

    return terms


@hookimpl
def mission_phase() -> PhaseSpec:
    """Return the record of the phase."""
    return PhaseSpec(
        params=Params,
        environment=VerticalCoast,
        reward=reward,
        limits=lambda params: (Limit("time_to_latest_ignition_s", minimum=0.0),),
        report=sections,
        sac=vertical.vertical_sac(gamma=0.9),
    )
