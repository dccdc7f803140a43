"""Step the training vehicles by one control period, and restart those whose episode has ended.

Shapes: E training vehicles, O observation, A action, L float leaves of a state.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from mission.flight.causes import marked_causes
from mission.flight.trees import drop_weak_types, finite_leaves, where_rows
from mission.learner import Transition
from mission.missionfile.phases import TrainedPhase
from mission.training.bank import TerminalBank
from mission.training.restart import draw_start


class EnvBatch(NamedTuple):
    """E vehicles in the middle of their episodes."""

    state: Any
    steps: Array  # int32 [E]
    returns: Array  # float32 [E]


class EpisodeEnd(NamedTuple):
    """The episodes that ended on this step."""

    ended: Array  # bool [E]
    success: Array  # bool [E]
    returns: Array  # float32 [E]
    steps: Array  # int32 [E]
    cause: Array  # int32 [E], 0 unless the plugin ended the episode; a wrong one is marked


class Step(NamedTuple):
    """The result of one control step of E vehicles.

    `envs`: the vehicles after it; those whose episode ended have restarted.
    `transition`: leaves [E, ...]; `next_obs` is taken before the restart, `terminated` excludes time-outs.
    `end`: flags and returns of the episodes that ended on this step.
    `terms`: reward terms, each [E].
    `finite`: bool [L + 2], whether the state's leaves, the observation and the reward are finite.
    """

    envs: EnvBatch
    transition: Transition
    end: EpisodeEnd
    terms: dict[str, Array]
    finite: Array


def start_envs(phase: TrainedPhase, bank: TerminalBank | None, key: Array, vehicles: int) -> EnvBatch:
    """Return E vehicles at their starts. Key consumed."""
    return EnvBatch(_fresh_states(phase, bank, key, vehicles), jnp.zeros(vehicles, jnp.int32), jnp.zeros(vehicles))


def _fresh_states(phase: TrainedPhase, bank: TerminalBank | None, key: Array, vehicles: int) -> Any:
    def fresh(key: Array) -> Any:
        draw, enter = jax.random.split(key)
        return drop_weak_types(phase.environment.enter(enter, draw_start(phase, bank, draw)))

    return jax.vmap(fresh)(jax.random.split(key, vehicles))


def step_envs(
    phase: TrainedPhase, bank: TerminalBank | None, envs: EnvBatch, obs: Array, action: Array, key: Array
) -> Step:
    """Advance E vehicles by one control step and restart those whose episode ended.

    Args:
      phase: the resolved phase.
      bank: end states of the previous phase, or None for the first phase.
      envs: EnvBatch, leaves [E, ...].
      obs: [E, O], the observation from which the action was computed.
      action: [E, A]; the vehicle receives it clipped to [-1, 1].
      key: consumed.
    """
    env, vehicles = phase.environment, action.shape[0]
    step_key, restart_key = jax.random.split(key)
    clipped = jnp.clip(action, -1.0, 1.0)
    state = drop_weak_types(jax.vmap(env.step)(jax.random.split(step_key, vehicles), envs.state, clipped))
    outcome = jax.vmap(env.outcome)(state)
    next_obs = jax.vmap(env.observe)(state)
    terms = jax.vmap(phase.reward)(envs.state, clipped, state, outcome)
    reward = jnp.stack([jnp.asarray(term, jnp.float32) for term in terms.values()]).sum(axis=0)
    steps, returns = envs.steps + 1, envs.returns + reward
    ended = outcome.terminated | (steps >= env.max_steps)
    succeeded = outcome.success if env.time_out_cause is None else outcome.success | ~outcome.terminated
    finite = jnp.concatenate(
        [finite_leaves(state, 1).all(axis=0), jnp.isfinite(next_obs).all()[None], jnp.isfinite(reward).all()[None]]
    )
    fresh = _fresh_states(phase, bank, restart_key, vehicles)
    after = EnvBatch(where_rows(ended, fresh, state), jnp.where(ended, 0, steps), jnp.where(ended, 0.0, returns))
    transition = Transition(
        obs=obs,
        action=action,
        reward=reward,
        next_obs=next_obs,
        terminated=outcome.terminated.astype(jnp.float32),
        ended=ended.astype(jnp.float32),
    )
    cause = jnp.where(outcome.terminated, marked_causes(env, outcome), 0)
    return Step(after, transition, EpisodeEnd(ended, ended & succeeded, returns, steps, cause), terms, finite)
