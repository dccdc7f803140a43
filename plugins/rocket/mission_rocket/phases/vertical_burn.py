"""Vertical burn: the engine is lit; bring the booster to the ground and stop there.

Action (1): `throttle`, 40 % (a = -1) to 100 % (a = 1); the engine cannot be switched off. The step
is the closed form of a burn at constant throttle and stops at the ground, where the velocity
reaches zero above it, or where the propellant ends.

Success `landed`: at the ground with at most `touchdown_speed_m_s` and propellant left. Failures:
`crashed` (too fast), `rose` (stopped above the ground: the least thrust exceeds the weight, so it
would never come down), `out_of_propellant`.

Reward: `profile` 0.1 / (1 + |needed throttle - 0.93| / 0.05) keeps a landing possible, since the
needed throttle leaves [0.4, 1] if landing is impossible; `touchdown` pays 10 for landing and up
to 10 more for a slow touchdown; `propellant` takes 0.5 for each percent above the optimum. Staying
in the air ends by itself: nothing else is paid.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from pydantic import Field

from mission import Limit, Outcome, PhaseSpec, hookimpl
from mission_rocket import vertical
from mission_rocket.causes import Causes
from mission_rocket.observation import LOCAL, NO_FRAME, Observation, ObservedPhase, Scale, linear, log, row, tanh
from mission_rocket.physics.constants import STANDARD_GRAVITY_M_S2
from mission_rocket.report import sections
from mission_rocket.vehicles import Strict
from mission_rocket.vertical import DRY_MASS_KG, MINIMUM_THROTTLE, Booster

_BISECTIONS = 24


class Params(Strict):
    """The landing box, and the height above the latest ignition at which the phase's own start is lit."""

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


def _needed(phase: Any, state: State) -> Array:
    """Return the throttle needed to stop at the ground."""
    return vertical.required_throttle(*state.booster[:3])


def _needed_touchdown(phase: Any, state: State) -> Array:
    """Return the throttle needed to touch down at 1 m/s."""
    height, velocity, mass, *_ = state.booster
    slow = jnp.sign(velocity) * jnp.sqrt(jnp.maximum(velocity**2 - 1.0, 0.0))
    return vertical.required_throttle(height, slow, mass)


NEAR_FULL = Scale("-", "0.2 about 0.9, within 3", lambda throttle: jnp.clip(5.0 * (throttle - 0.9), -3.0, 3.0))
OBSERVATION = Observation(
    (
        row("log_height", "height", LOCAL, log(1.0, "m", per=4.0, less=1.0), "booster.height_m"),
        row("velocity", "velocity", LOCAL, linear(200.0, "m/s", about=-200.0), "booster.velocity_m_s"),
        row("mass", "mass", NO_FRAME, linear(5_000.0, "kg", about=28_000.0), "booster.mass_kg"),
        row("required_throttle", "throttle to stop at the ground", NO_FRAME, NEAR_FULL, _needed),
        row("required_throttle_touchdown", "throttle to land at 1 m/s", NO_FRAME, NEAR_FULL, _needed_touchdown),
        row("velocity_near_zero", "velocity", LOCAL, tanh(5.0, "m/s"), "booster.velocity_m_s"),
    )
)


@dataclasses.dataclass(frozen=True, eq=False)
class VerticalBurn(ObservedPhase[Booster, State]):
    """See the docstring of the module."""

    params: Params

    observation = OBSERVATION
    action_names = ("throttle",)
    causes = Causes(("landed", "out_of_propellant", "crashed", "rose"))
    control_period_s = 0.1
    max_steps = 600

    observation_inputs = vertical.SEEN

    def observe_channels(self, channels: dict[str, Array]) -> Array:
        no = jnp.bool_(False)
        return self.observe(State(vertical.booster_in(channels), jnp.zeros(()), no, no, no))

    def start(self, key: Array) -> Booster:
        draw, margin_key = jax.random.split(key)
        above = vertical.dispersed_start(draw)
        best = vertical.fuel_optimum(above.height_m, above.velocity_m_s, above.mass_kg)
        low, high = self.params.start_margin_min_percent, self.params.start_margin_max_percent
        margin = jax.random.uniform(margin_key, minval=low, maxval=high) / 100.0
        speed = -above.velocity_m_s + STANDARD_GRAVITY_M_S2 * best.coast_s
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

    def outcome(self, state: State) -> Outcome:
        hard = ~(jnp.abs(state.booster.velocity_m_s) <= self.params.touchdown_speed_m_s)
        rose = state.stopped & ~state.grounded
        at_end = {"crashed": state.grounded & hard}
        return self.causes.judge(state.grounded, {"out_of_propellant": state.empty, "rose": rose}, at_end)

    def leave(self, state: State) -> Booster:
        return state.booster

    def telemetry(self, state: State) -> dict[str, Array]:
        return vertical.telemetry(state.booster) | {"phase_time_s": state.time_s}

    def guide(self, state: State) -> Array:
        """Brake at constant deceleration to 1 m/s at the ground."""
        speed = jnp.sqrt(jnp.maximum(state.booster.velocity_m_s**2 - 1.0, 0.0))
        throttle = vertical.required_throttle(state.booster.height_m, speed, state.booster.mass_kg)
        return jnp.clip(2.0 * (throttle - MINIMUM_THROTTLE) / (1.0 - MINIMUM_THROTTLE) - 1.0, -1.0, 1.0)[None]


def reward(params: Params):
    """Return the reward terms; see the docstring of the module."""

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
    """Return the record of the phase."""
    return PhaseSpec(
        params=Params,
        environment=VerticalBurn,
        reward=reward,
        limits=lambda params: (Limit("propellant_kg", minimum=0.0),),
        report=sections,
        sac=vertical.vertical_sac(gamma=0.99),
    )
