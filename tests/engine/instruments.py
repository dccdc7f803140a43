"""A phase whose observation is a function of its telemetry, and random policies for it."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from probes import Nothing, probe_sac

from mission import ActorConfig, Environment, Outcome, PhaseSpec
from mission.flight.onboard.subject import Subject
from mission.testing import make_phase


class Reading(NamedTuple):
    """What the instruments show, and the steps flown; float32 scalars."""

    height_m: Array
    speed_m_s: Array
    steps: Array


@dataclasses.dataclass(frozen=True, eq=False)
class Instruments(Environment[Reading, Reading]):
    """A vehicle without dynamics worth mentioning."""

    observation_names = ("height", "log_height", "speed", "fine_speed", "bounded", "energy", "sinking")
    action_names = ("left", "right", "brake")
    causes = ("done", "failed")
    control_period_s = 0.5
    max_steps = 8
    observation_inputs = ("speed_m_s", "height_m")

    def start(self, key: Array) -> Reading:
        height, speed = jax.random.uniform(key, (2,), minval=-1.0, maxval=1.0)
        return Reading(50.0 * (1.0 + height), 20.0 * speed, jnp.zeros(()))

    def enter(self, key: Array, handoff: Reading) -> Reading:
        return handoff._replace(steps=jnp.zeros(()))

    def step(self, key: Array, state: Reading, action: Array) -> Reading:
        return Reading(state.height_m + 0.5 * state.speed_m_s, state.speed_m_s + action.sum(), state.steps + 1.0)

    def observe(self, state: Reading) -> Array:
        return self.observe_channels({"height_m": state.height_m, "speed_m_s": state.speed_m_s})

    def observe_channels(self, channels: dict[str, Array]) -> Array:
        height, speed = channels["height_m"], channels["speed_m_s"]
        logged = jnp.sign(height) * jnp.log1p(jnp.abs(height) / 3.0)
        energy = jnp.sqrt(jnp.maximum(speed**2 + 2.0 * 9.81 * height, 0.0)) / 40.0
        bounded = jnp.clip(5.0 * (speed / 20.0 - 0.5), -1.5, 2.0)
        sinking = jnp.where((speed < 0.0) & (height > 1.0), jnp.exp(speed / 30.0), 0.0)
        values = [height / 50.0 - 1.0, logged, (speed - 3.0) / 20.0, jnp.tanh(speed / 2.0), bounded, energy, sinking]
        return jnp.stack([jnp.asarray(value, jnp.float32) for value in values])

    def outcome(self, state: Reading) -> Outcome:
        done = state.steps >= 6.0
        return Outcome(done, done & (state.height_m > 0.0), jnp.where(state.height_m > 0.0, 0, 1).astype(jnp.int32))

    def leave(self, state: Reading) -> Reading:
        return state

    def telemetry(self, state: Reading) -> dict[str, Array]:
        return {"height_m": state.height_m, "steps": state.steps, "speed_m_s": state.speed_m_s}


def instruments(environment: Environment | None = None, **sac: Any) -> PhaseSpec:
    """The record of the phase, whose agent has these settings."""

    def reward(params: Any) -> Any:
        return lambda state, action, after, outcome: {"high": after.speed_m_s * 0.01}

    chosen = Instruments() if environment is None else environment
    return PhaseSpec(Nothing, lambda params: chosen, reward, sac=probe_sac(**sac))


def random_subject(seed: int, rows: int = 500, environment: Environment | None = None, **sac: Any) -> Subject:
    """A policy with random numbers everywhere, and random states in which it acts."""
    phase: Any = make_phase(instruments(environment, **sac))
    learner, rng = phase.build_learner(), np.random.default_rng(seed)
    actor = jax.tree.map(np.asarray, learner.policy(learner.init(jax.random.key(seed))))
    actor = jax.tree.map(lambda leaf: leaf + 0.1 * rng.standard_normal(leaf.shape, np.float32), actor)
    if "statistics" in actor:
        stored = actor["statistics"]["standardise"]
        actor["statistics"]["standardise"] = {"mean": stored["mean"], "std": np.abs(stored["std"]) + 0.01}
    states = jax.vmap(phase.environment.start)(jax.random.split(jax.random.key(seed), rows))
    states = jax.vmap(phase.environment.enter)(jax.random.split(jax.random.key(seed), rows), states)
    observations = np.asarray(jax.vmap(phase.environment.observe)(states))
    stacked = np.concatenate([observations[:, :7], rng.standard_normal(observations[:, 7:].shape, np.float32)], axis=1)
    telemetry = jax.vmap(phase.environment.telemetry)(states)
    channels = np.stack([np.asarray(telemetry[name]) for name in phase.channels], axis=-1)
    return Subject("trial", phase, actor, learner.policy_layers(actor), stacked, channels)


def actor(**changes: Any) -> ActorConfig:
    """A small actor with these settings."""
    return ActorConfig(**({"width": 24, "depth": 2} | changes))
