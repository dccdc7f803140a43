"""Start the training vehicles that wait for it, and step all of them by one control period.

Shapes: E training vehicles, O observation, A action, L float leaves of a state.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from mission.flight.causes import marked_causes
from mission.flight.trees import drop_weak_types, finite_leaves, where_rows
from mission.learner import Transition
from mission.missionfile.phases import TrainedPhase
from mission.training.bank import TerminalBank
from mission.training.restart import draw_start

WAITING = -1  # instead of the number of steps: the vehicle's episode has ended, and the next one has not begun
_AT_ONCE = 16


class EnvBatch(NamedTuple):
    """E vehicles in the middle of their episodes."""

    state: Any
    steps: Array  # int32 [E] of the episode so far, or WAITING
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

    `envs`: the vehicles after it; those whose episode ended wait.
    `transition`: leaves [E, ...]; `terminated` excludes time-outs.
    `end`: flags and returns of the episodes that ended on this step.
    `terms`: reward terms, each [E].
    `finite`: bool [L + 2], whether the state's leaves, the observation and the reward are finite.
    """

    envs: EnvBatch
    transition: Transition
    end: EpisodeEnd
    terms: dict[str, Array]
    finite: Array


def waiting_envs(phase: TrainedPhase, vehicles: int) -> EnvBatch:
    """Return E vehicles that wait for their start."""
    state = jax.eval_shape(lambda key: _fresh_state(phase, None, key), jax.random.key(0))
    zeros = jax.tree.map(lambda leaf: jnp.zeros((vehicles, *leaf.shape), leaf.dtype), state)
    return EnvBatch(zeros, jnp.full(vehicles, WAITING, jnp.int32), jnp.zeros(vehicles))


def _fresh_state(phase: TrainedPhase, bank: TerminalBank | None, key: Array) -> Any:
    draw, enter = jax.random.split(key)
    return drop_weak_types(phase.environment.enter(enter, draw_start(phase, bank, draw)))


def start_waiting(phase: TrainedPhase, bank: TerminalBank | None, envs: EnvBatch, keys: Array) -> EnvBatch:
    """Start the vehicles that wait, at most `_AT_ONCE` in each round of a loop: a phase's `enter` can cost as much as a
    step, and few vehicles end in one step.

    Args:
      phase: the resolved phase.
      bank: end states of the previous phase, or None for the first phase.
      envs: leaves [E, ...].
      keys: [E], one per vehicle; consumed.
    """
    size = min(_AT_ONCE, keys.shape[0])

    def some(envs: EnvBatch) -> EnvBatch:
        waits = envs.steps == WAITING
        place = jnp.cumsum(waits) - 1  # of each waiting vehicle among them
        index = jnp.nonzero(waits, size=size, fill_value=0)[0]
        fresh = jax.vmap(lambda key: _fresh_state(phase, bank, key))(keys[index])
        starts = waits & (place < size)
        spread = jax.tree.map(lambda leaf: leaf[jnp.where(starts, place, 0)], fresh)
        return EnvBatch(
            where_rows(starts, spread, envs.state),
            jnp.where(starts, 0, envs.steps),
            jnp.where(starts, 0.0, envs.returns),
        )

    return lax.while_loop(lambda envs: (envs.steps == WAITING).any(), some, envs)


def step_envs(phase: TrainedPhase, envs: EnvBatch, obs: Array, action: Array, keys: Array) -> Step:
    """Advance E vehicles by one control step; those whose episode ended wait for their next start.

    Args:
      phase: the resolved phase.
      envs: EnvBatch, leaves [E, ...]; none of them waits.
      obs: [E, O], the observation from which the action was computed.
      action: [E, A]; the vehicle receives it clipped to [-1, 1].
      keys: [E], one per vehicle; consumed.
    """
    env = phase.environment
    clipped = jnp.clip(action, -1.0, 1.0)
    state = drop_weak_types(jax.vmap(env.step)(keys, envs.state, clipped))
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
    after = EnvBatch(state, jnp.where(ended, WAITING, steps), returns)
    transition = Transition(
        obs=obs,
        action=action,
        reward=reward,
        next_obs=next_obs,
        terminated=outcome.terminated.astype(jnp.float32),
        ended=ended.astype(jnp.float32),
    )
    if phase.learner.sees_privileged:
        privileged = jax.vmap(env.privileged)
        transition = transition._replace(privileged=privileged(envs.state), next_privileged=privileged(state))
    cause = jnp.where(outcome.terminated, marked_causes(env, outcome), 0)
    return Step(after, transition, EpisodeEnd(ended, ended & succeeded, returns, steps, cause), terms, finite)
