"""Vertical burn: the engine is lit; bring the booster to the ground and stop there.

Action (1): `throttle`, 40 % (a = -1) to 100 % (a = 1); the engine cannot be switched off. The step
is the closed form of a burn at constant throttle and stops at the ground, where the velocity
reaches zero above it, or where the propellant ends.

Observation (6): log of height, velocity (400 m/s), mass (5 t about 28 t), throttle needed to stop at
the ground under constant deceleration (about 0.9, five times magnified), the same for touching down
at 1 m/s, velocity compressed near zero.

Success `landed`: at the ground with at most `touchdown_speed_m_s` and propellant left. Failures:
`crashed` (too fast), `rose` (stopped above the ground: the least thrust exceeds the weight, so it
would never come down), `out_of_propellant`.

Reward: `profile` 0.1 / (1 + |needed throttle - 0.93| / 0.05) keeps a landing in reach, since the
needed throttle leaves [0.4, 1] where landing is impossible; `touchdown` pays 10 for landing and up
to 10 more for doing it slowly; `propellant` takes 0.5 for each percent above the optimum. Staying
in the air ends by itself: nothing else is paid.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from pydantic import BaseModel, ConfigDict, Field

from mission import ActorConfig, Environment, FillConfig, Limit, NetworkConfig, Outcome, PhaseSpec, SacConfig, hookimpl
from mission_rocket import vertical
from mission_rocket.report import sections
from mission_rocket.vertical import DRY_MASS_KG, MINIMUM_THROTTLE, Booster

LANDED, CRASHED, ROSE, EMPTY = 0, 1, 2, 3
_BISECTIONS = 24


class Params(BaseModel):
    """The landing box, and how far above the latest ignition a start of its own is lit."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    touchdown_speed_m_s: float = Field(2.0, gt=0.0, le=20.0)
    start_margin_min_percent: float = Field(0.3, ge=0.0, le=50.0)
    start_margin_max_percent: float = Field(4.0, gt=0.0, le=100.0)


class State(NamedTuple):
    """A burning booster; float32 scalars, flags bool."""

    booster: Booster
    time_s: Array
    grounded: Array
    stopped: Array
    empty: Array


@dataclasses.dataclass(frozen=True, eq=False)
class VerticalBurn(Environment[Booster, State]):
    """See the module's docstring."""

    params: Params

    observation_names = (
        "log_height",
        "velocity",
        "mass",
        "required_throttle",
        "required_throttle_touchdown",
        "velocity_near_zero",
    )
    action_names = ("throttle",)
    causes = ("landed", "crashed", "rose", "out_of_propellant")
    control_period_s = 0.1
    max_steps = 600

    def start(self, key: Array) -> Booster:
        draw, margin_key = jax.random.split(key)
        above = vertical.dispersed_start(draw)
        best = vertical.fuel_optimum(above.height_m, above.velocity_m_s, above.mass_kg)
        low, high = self.params.start_margin_min_percent, self.params.start_margin_max_percent
        margin = jax.random.uniform(margin_key, minval=low, maxval=high) / 100.0
        speed = -above.velocity_m_s + vertical.STANDARD_GRAVITY_M_S2 * best.coast_s
        seconds = jnp.maximum(best.coast_s - margin * best.ignition_height_m / speed, 0.0)
        height, velocity = vertical.coast(above.height_m, above.velocity_m_s, seconds)
        return above._replace(height_m=height, velocity_m_s=velocity)

    def enter(self, key: Array, handoff: Booster) -> State:
        no = jnp.bool_(False)
        return State(handoff, jnp.zeros(()), handoff.height_m <= 0.0, no, handoff.mass_kg <= DRY_MASS_KG)

    def step(self, key: Array, state: State, action: Array) -> State:
        throttle = MINIMUM_THROTTLE + (1.0 - MINIMUM_THROTTLE) * (action[0] + 1.0) / 2.0
        begin = state.booster

        def after(seconds: Array) -> tuple[Array, Array, Array]:
            return vertical.burn(begin.height_m, begin.velocity_m_s, begin.mass_kg, throttle, seconds)

        def ended(seconds: Array) -> Array:
            height, velocity, mass = after(seconds)
            return (height <= 0.0) | (velocity >= 0.0) | (mass <= DRY_MASS_KG)

        def halve(_: int, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = bounds
            middle = 0.5 * (low + high)
            before = ~ended(middle)
            return jnp.where(before, middle, low), jnp.where(before, high, middle)

        period = jnp.float32(self.control_period_s)
        event = ended(period)
        _, first = lax.fori_loop(0, _BISECTIONS, halve, (jnp.float32(0.0), period))
        seconds = jnp.where(event, first, period)
        height, velocity, mass = after(seconds)
        booster = begin._replace(
            height_m=jnp.maximum(height, 0.0), velocity_m_s=velocity, mass_kg=jnp.maximum(mass, DRY_MASS_KG)
        )
        return State(booster, state.time_s + seconds, height <= 0.0, velocity >= 0.0, mass <= DRY_MASS_KG)

    def observe(self, state: State) -> Array:
        height, velocity, mass = state.booster.height_m, state.booster.velocity_m_s, state.booster.mass_kg
        needed = vertical.required_throttle(height, velocity, mass)
        slow = jnp.sign(velocity) * jnp.sqrt(jnp.maximum(velocity**2 - 1.0, 0.0))
        touching = vertical.required_throttle(height, slow, mass)
        return jnp.stack(
            [
                jnp.log1p(jnp.maximum(height, 0.0)) / 4.0 - 1.0,
                velocity / 200.0 + 1.0,
                (mass - 28_000.0) / 5_000.0,
                jnp.clip(5.0 * (needed - 0.9), -3.0, 3.0),
                jnp.clip(5.0 * (touching - 0.9), -3.0, 3.0),
                jnp.tanh(velocity / 5.0),
            ]
        )

    def outcome(self, state: State) -> Outcome:
        soft = jnp.abs(state.booster.velocity_m_s) <= self.params.touchdown_speed_m_s
        landed = state.grounded & soft & ~state.empty
        cause = jnp.where(landed, LANDED, jnp.where(state.empty, EMPTY, jnp.where(state.grounded, CRASHED, ROSE)))
        return Outcome(state.grounded | state.stopped | state.empty, landed, cause.astype(jnp.int32))

    def leave(self, state: State) -> Booster:
        return state.booster

    def telemetry(self, state: State) -> dict[str, Array]:
        return vertical.telemetry(state.booster) | {"phase_time_s": state.time_s}

    def guide(self, state: State) -> Array:
        """Constant deceleration to 1 m/s at the ground."""
        speed = jnp.sqrt(jnp.maximum(state.booster.velocity_m_s**2 - 1.0, 0.0))
        throttle = vertical.required_throttle(state.booster.height_m, speed, state.booster.mass_kg)
        return jnp.clip(2.0 * (throttle - MINIMUM_THROTTLE) / (1.0 - MINIMUM_THROTTLE) - 1.0, -1.0, 1.0)[None]


def reward(params: Params):
    """Reward terms; see the module's docstring."""

    def terms(state: State, action: Array, after: State, outcome: Outcome) -> dict[str, Array]:
        booster = after.booster
        needed = vertical.required_throttle(booster.height_m, booster.velocity_m_s, booster.mass_kg)
        gentle = 10.0 / (1.0 + (booster.velocity_m_s / params.touchdown_speed_m_s) ** 2)
        over = vertical.propellant_over_optimum_percent(booster)
        return {
            "profile": jnp.where(outcome.terminated, 0.0, 0.1 / (1.0 + jnp.abs(needed - 0.93) / 0.05)),
            "touchdown": jnp.where(outcome.success, 10.0 + gentle, 0.0),
            "propellant": jnp.where(outcome.success, -0.5 * jnp.maximum(over, 0.0), 0.0),
        }

    return terms


@hookimpl
def mission_phase() -> PhaseSpec:
    """The phase's record."""
    return PhaseSpec(
        params=Params,
        environment=VerticalBurn,
        reward=reward,
        limits=lambda params: (Limit("propellant_kg", minimum=0.0),),
        report=sections,
        sac=SacConfig(
            actor=ActorConfig(width=64, layer_norm=True),
            critic=NetworkConfig(width=64, layer_norm=True),
            gamma=0.99,
            actor_learning_rate=1e-3,
            critic_learning_rate=1e-3,
            temperature_initial=0.05,
            target_entropy=-3.0,
            buffer_size=100_000,
            fill=FillConfig(env_steps=4096),
            updates_per_step=0.0625,
        ),
    )
