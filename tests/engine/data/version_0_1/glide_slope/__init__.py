"""glide_slope: a cart on a rail comes to rest at the origin. Replace it, piece by piece, by your phase.

Action: `acceleration`, -1 to 1 m/s2. Observation: position (10 m), velocity (5 m/s).
Success `stopped`: within `tolerance_m` of the origin, slower than `tolerance_m_s`. Failure:
`off_the_rail`. Reward: `closeness` pays up to 0.1 a step, `arrival` 10 at the end, so stopping pays
more than staying near for the rest of the time.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from pydantic import BaseModel, ConfigDict, Field

from mission import ActorConfig, Environment, FillConfig, Limit, NetworkConfig, Outcome, PhaseSpec, SacConfig, hookimpl


class Params(BaseModel):
    """What the mission file may set under `params:`; units are in the names."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    tolerance_m: float = Field(0.2, gt=0)
    tolerance_m_s: float = Field(0.2, gt=0)
    rail_m: float = Field(20.0, gt=0)


class Cart(NamedTuple):
    """State and handoff alike; float32 scalars."""

    position_m: jax.Array
    velocity_m_s: jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class Phase(Environment[Cart, Cart]):
    """One vehicle; the engine vectorises."""

    params: Params

    observation_names = ("position", "velocity")
    action_names = ("acceleration",)
    causes = ("stopped", "off_the_rail")
    control_period_s = 0.1
    max_steps = 200

    def start(self, key):
        position, velocity = jax.random.uniform(key, (2,), minval=-1.0, maxval=1.0)
        return Cart(10.0 * position, 2.0 * velocity)

    def enter(self, key, handoff):
        return handoff

    def step(self, key, state, action):
        velocity = state.velocity_m_s + self.control_period_s * action[0]
        return Cart(state.position_m + self.control_period_s * velocity, velocity)

    def observe(self, state):
        return jnp.stack([state.position_m / 10.0, state.velocity_m_s / 5.0])

    def outcome(self, state):
        near = jnp.abs(state.position_m) <= self.params.tolerance_m
        slow = jnp.abs(state.velocity_m_s) <= self.params.tolerance_m_s
        off = jnp.abs(state.position_m) > self.params.rail_m
        return Outcome((near & slow) | off, near & slow, jnp.where(off, 1, 0).astype(jnp.int32))

    def leave(self, state):
        return state

    def telemetry(self, state):
        return {"position_m": state.position_m, "velocity_m_s": state.velocity_m_s}

    def guide(self, state):
        return jnp.clip(-0.5 * state.position_m - 1.2 * state.velocity_m_s, -1.0, 1.0)[None]


def reward(params):
    """Named terms; the engine sums them and logs each."""

    def terms(state, action, after, outcome):
        distance = jnp.abs(after.position_m) + jnp.abs(after.velocity_m_s)
        return {
            "closeness": 0.1 / (1.0 + distance),
            "arrival": jnp.where(outcome.success, 10.0, 0.0),
        }

    return terms


@hookimpl
def mission_phase():
    """What the engine asks this module for."""
    return PhaseSpec(
        params=Params,
        environment=Phase,
        reward=reward,
        limits=lambda params: (Limit("position_m", minimum=-params.rail_m, maximum=params.rail_m),),
        sac=SacConfig(
            actor=ActorConfig(width=64),
            critic=NetworkConfig(width=64, layer_norm=True),
            actor_learning_rate=1e-3,
            critic_learning_rate=1e-3,
            fill=FillConfig(env_steps=4096),
        ),
    )
