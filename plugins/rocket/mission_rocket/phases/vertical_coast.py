"""Vertical coast: fall in vacuum and decide when to light the engine.

Action (1): `time_to_ignition`, t_go = 20 s (a + 1) / 2, commanded every 0.1 s. The engine lights at
t_go inside the step when t_go is at most the control period.

Observation (7), none of which uses the optimum: height (10 km about 5 km), velocity (300 m/s about
-350), mass (1.65 t about 33 t), throttle needed to stop at the ground (about 1, as it is and ten
times magnified about 1.08), time to impact in free fall (20 s), and its inverse in units of 0.1/s.

Success `lit`: ignition at a height between `margin_min_percent` and `margin_max_percent` above the
latest possible ignition. Failures: `lit_too_early`, `too_late` (fell below the latest ignition, or
lit with less than the least margin).

Reward: `timing` 1 / (1 + |commanded - ideal t_go| / scale), scale 0.1 s + 5 % of the ideal, pays
each step for saying the right time; `ignition` pays 20 for a valid ignition, less a third of it
towards either edge of the window: more than the timing that waiting could still earn.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from pydantic import BaseModel, ConfigDict, Field, model_validator

from mission import ActorConfig, Environment, FillConfig, Limit, NetworkConfig, Outcome, PhaseSpec, SacConfig, hookimpl
from mission_rocket import vertical
from mission_rocket.report import sections
from mission_rocket.vertical import Booster

LONGEST_COMMAND_S = 20.0
LIT, TOO_EARLY, TOO_LATE = 0, 1, 2


class Params(BaseModel):
    """Window of ignition heights above the latest possible ignition."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

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


@dataclasses.dataclass(frozen=True, eq=False)
class VerticalCoast(Environment[Booster, State]):
    """See the module's docstring."""

    params: Params

    observation_names = (
        "height", "velocity", "mass", "required_throttle", "required_throttle_fine", "time_to_impact", "inverse_time_to_impact",
    )  # fmt: skip
    action_names = ("time_to_ignition",)
    causes = ("lit", "lit_too_early", "too_late")
    control_period_s = 0.1
    max_steps = 400

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

    def observe(self, state: State) -> Array:
        height, velocity, mass = state.booster.height_m, state.booster.velocity_m_s, state.booster.mass_kg
        needed = vertical.required_throttle(height, velocity, mass)
        g = vertical.STANDARD_GRAVITY_M_S2
        impact_s = (velocity + jnp.sqrt(velocity**2 + 2.0 * g * jnp.maximum(height, 0.0))) / g
        return jnp.stack(
            [
                height / 5000.0 - 1.0,
                (velocity + 350.0) / 100.0,
                (mass - vertical.NOMINAL_MASS_KG) / 1650.0,
                jnp.clip(needed, 0.0, 3.0),
                jnp.clip(10.0 * (needed - 1.08), -3.0, 3.0),
                impact_s / 20.0,
                1.0 / (0.5 + 0.1 * impact_s),
            ]
        )

    def margin_percent(self, state: State) -> Array:
        """Height above the latest ignition height, in percent of it."""
        return 100.0 * (state.booster.height_m / jnp.maximum(state.latest_height_m, 1.0) - 1.0)

    def outcome(self, state: State) -> Outcome:
        margin = self.margin_percent(state)
        late = (state.time_s > state.latest_s) | (state.lit & (margin < self.params.margin_min_percent))
        early = state.lit & (margin > self.params.margin_max_percent)
        cause = jnp.where(late, TOO_LATE, jnp.where(early, TOO_EARLY, LIT)).astype(jnp.int32)
        return Outcome(state.lit | late, state.lit & ~late & ~early, cause)

    def leave(self, state: State) -> Booster:
        return state.booster

    def telemetry(self, state: State) -> dict[str, Array]:
        return vertical.telemetry(state.booster) | {
            "phase_time_s": state.time_s,
            "ignition_margin_percent": self.margin_percent(state),
            "time_to_latest_ignition_s": state.latest_s - state.time_s,
        }

    def guide(self, state: State) -> Array:
        """Light where the margin will be in the middle of the window, by the closed form."""
        return (2.0 * ideal_time_s(self.params, state) / LONGEST_COMMAND_S - 1.0)[None]


def commanded_time_s(action: Array) -> Array:
    """t_go of an action [1] in [-1, 1]."""
    return LONGEST_COMMAND_S * (action[0] + 1.0) / 2.0


def ideal_time_s(params: Params, state: State) -> Array:
    """Time until the height is one middle margin above the latest ignition, at least 0."""
    middle = 0.5 * (params.margin_min_percent + params.margin_max_percent) / 100.0
    speed = jnp.maximum(
        -state.booster.velocity_m_s + vertical.STANDARD_GRAVITY_M_S2 * (state.latest_s - state.time_s), 1.0
    )
    return jnp.maximum(state.latest_s - middle * state.latest_height_m / speed - state.time_s, 0.0)


def reward(params: Params):
    """Reward terms; see the module's docstring."""
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
    """The phase's record."""
    return PhaseSpec(
        params=Params,
        environment=VerticalCoast,
        reward=reward,
        limits=lambda params: (Limit("time_to_latest_ignition_s", minimum=0.0),),
        report=sections,
        sac=SacConfig(
            actor=ActorConfig(width=64, layer_norm=True),
            critic=NetworkConfig(width=64, layer_norm=True),
            gamma=0.9,
            actor_learning_rate=1e-3,
            critic_learning_rate=1e-3,
            temperature_initial=0.05,
            target_entropy=-3.0,
            buffer_size=100_000,
            fill=FillConfig(env_steps=4096),
            updates_per_step=0.0625,
        ),
    )
