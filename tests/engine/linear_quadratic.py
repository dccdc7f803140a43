"""A linear-quadratic problem whose optimal policy is known in closed form, with that policy as its guide."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from probes import Nothing, probe_sac

from mission import Environment, Outcome, PhaseSpec

A, B, Q, R, GAMMA = 1.0, 0.5, 1.0, 0.5, 0.95


class Ball(NamedTuple):
    x: Array
    cost: Array
    key: Array  # a state may hold a key


@dataclasses.dataclass(frozen=True, eq=False)
class Regulator(Environment[Ball, Ball]):
    """x' = A x + B u, at the cost Q x^2 + R u^2; it ends where |x| exceeds `wall`."""

    wall: float = 100.0
    max_steps: int = 20

    observation_names = ("x",)
    action_names = ("push",)
    causes = ("never", "out")
    control_period_s = 1.0

    def start(self, key: Array) -> Ball:
        return Ball(jax.random.uniform(key, minval=-1.0, maxval=1.0), jnp.zeros(()), key)

    def enter(self, key: Array, handoff: Ball) -> Ball:
        return handoff

    def step(self, key: Array, state: Ball, action: Array) -> Ball:
        return Ball(A * state.x + B * action[0], Q * state.x**2 + R * action[0] ** 2, state.key)

    def observe(self, state: Ball) -> Array:
        return state.x[None]

    def outcome(self, state: Ball) -> Outcome:
        return Outcome(jnp.abs(state.x) > self.wall, jnp.bool_(False), jnp.int32(1))

    def guide(self, state: Ball) -> Array:
        return jnp.clip(-best_gain() * state.x, -1.0, 1.0)[None]

    def leave(self, state: Ball) -> Ball:
        return state

    def telemetry(self, state: Ball) -> dict[str, Array]:
        return {"x_m": state.x}


def regulator(wall: float = 100.0, **sac: object) -> PhaseSpec:
    return PhaseSpec(
        Nothing,
        lambda params: Regulator(wall),
        lambda params: lambda state, action, after, outcome: {"cost": -after.cost},
        sac=probe_sac(gamma=GAMMA, **sac),
    )


def best_gain() -> float:
    """Return k of the optimal u = -k x, by the discounted Riccati recursion."""
    p = Q
    for _ in range(1000):
        p = Q + GAMMA * A * A * p - (GAMMA * A * B * p) ** 2 / (R + GAMMA * B * B * p)
    return GAMMA * A * B * p / (R + GAMMA * B * B * p)
