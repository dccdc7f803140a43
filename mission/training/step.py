"""Start waiting training vehicles, and advance all of them by one control period.

Shapes: E training vehicles, O observation, A action, L float leaves of a state.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from mission.flight.causes import marked_causes
from mission.flight.fly import goes_on
from mission.learner import Transition
from mission.machine.trees import drop_weak_types, finite_leaves, where_rows
from mission.missionfile.phases import TrainedPhase
from mission.training.bank import TerminalBank
from mission.training.restart import fresh_state

WAITING = -1  # instead of the number of steps: the vehicle's episode has ended, and the next one has not begun
_AT_ONCE = 16
_REVISITED = 7  # folded into a vehicle's key of the start


class Snapshots(NamedTuple):
    """For each of E vehicles a state of its episode so far, and one of the last episode that ended.

    A state is kept with a probability of 2 / horizon per step, so its age at the end of the episode is geometric with a mean
    of half the horizon. One that is older than the horizon is not used.
    """

    kept: Any  # leaves [E, ...]
    age: Array  # int32 [E], control steps since `kept`
    visited: Any  # leaves [E, ...]
    valid: Array  # bool [E], whether there is a `visited`


class EnvBatch(NamedTuple):
    """E vehicles in the middle of their episodes; `snapshots` is empty where no states are needed."""

    state: Any
    steps: Array  # int32 [E] of the episode so far, or WAITING
    returns: Array  # float32 [E]
    snapshots: Any = ()


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


def waiting_envs(phase: TrainedPhase, vehicles: int, horizon: int = 0) -> EnvBatch:
    """Return E vehicles that wait for their start; with a horizon, they keep snapshots."""
    state = jax.eval_shape(lambda key: fresh_state(phase, None, key), jax.random.key(0))
    zeros = jax.tree.map(lambda leaf: jnp.zeros((vehicles, *leaf.shape), leaf.dtype), state)
    nothing = Snapshots(zeros, jnp.zeros(vehicles, jnp.int32), zeros, jnp.zeros(vehicles, bool)) if horizon else ()
    return EnvBatch(zeros, jnp.full(vehicles, WAITING, jnp.int32), jnp.zeros(vehicles), nothing)


def keep_snapshots(snapshots: Snapshots, before: EnvBatch, ended: Array, horizon: int, key: Array) -> Snapshots:
    """Return the snapshots after a control step.

    Args:
      snapshots: those before the step.
      before: the vehicles before the step.
      ended: bool [E], episodes that ended on the step.
      horizon: the greatest age, in control steps.
      key: consumed.
    """
    keeps = (jax.random.uniform(key, ended.shape) < 2.0 / horizon) | (before.steps == 0)
    kept = where_rows(keeps, before.state, snapshots.kept)
    age = jnp.where(keeps, 1, snapshots.age + 1)
    done = ended & (age <= horizon)
    return Snapshots(kept, age, where_rows(done, kept, snapshots.visited), snapshots.valid | done)


def start_waiting(
    phase: TrainedPhase, bank: TerminalBank | None, envs: EnvBatch, keys: Array, wide: Array | None = None
) -> EnvBatch:
    """Start the vehicles that wait.

    Args:
      phase: the resolved phase.
      bank: end states of the previous phase, or None for the first phase.
      envs: leaves [E, ...].
      keys: [E], one per vehicle; consumed.
      wide: bool [E], which vehicles start with the phase's wide dispersions; None: none of them.
    """
    if wide is None:
        return _start(phase, partial(fresh_state, phase, bank), envs, keys, None)
    flown = _start(phase, partial(fresh_state, phase, bank), envs, keys, ~wide)
    return _start(phase, partial(fresh_state, phase, bank, wide=True), flown, keys, wide)


def revisited(snapshots: Snapshots, states: Any, keys: Array, share: float, among: Array | None) -> Any:
    """Replace a share of N fresh states by visited ones, as far as there are any.

    Args:
      snapshots: of the E vehicles.
      states: leaves [N, ...].
      keys: [N], from which the states were drawn.
      share: of the states to replace.
      among: bool [E], the vehicles whose snapshots count; None: all.
    """
    valid = snapshots.valid if among is None else snapshots.valid & among

    def choose(key: Array) -> tuple[Array, Array]:
        decide, pick = jax.random.split(jax.random.fold_in(key, _REVISITED))
        score = jax.random.uniform(pick, valid.shape)
        return jax.random.uniform(decide) < share, jnp.argmax(jnp.where(valid, score, -1.0))

    chosen, index = jax.vmap(choose)(keys)
    return where_rows(chosen & valid.any(), jax.tree.map(lambda leaf: leaf[index], snapshots.visited), states)


def _start(
    phase: TrainedPhase, fresh: Callable[[Array], Any], envs: EnvBatch, keys: Array, among: Array | None
) -> EnvBatch:
    """Start those that wait among some vehicles, bool [E] or None for all, at most `_AT_ONCE` in each round of a loop: a
    phase's `enter` can cost as much as a step, and few vehicles end in one step.
    """
    size, share = min(_AT_ONCE, keys.shape[0]), phase.entry.restart.visited

    def waiting(envs: EnvBatch) -> Array:
        waits = envs.steps == WAITING
        return waits if among is None else waits & among

    def some(envs: EnvBatch) -> EnvBatch:
        waits = waiting(envs)
        place = jnp.cumsum(waits) - 1  # of each waiting vehicle among them
        index = jnp.nonzero(waits, size=size, fill_value=0)[0]
        states = jax.vmap(fresh)(keys[index])
        if share > 0.0 and envs.snapshots:
            states = revisited(envs.snapshots, states, keys[index], share, among)
        starts = waits & (place < size)
        spread = jax.tree.map(lambda leaf: leaf[jnp.where(starts, place, 0)], states)
        return envs._replace(
            state=where_rows(starts, spread, envs.state),
            steps=jnp.where(starts, 0, envs.steps),
            returns=jnp.where(starts, 0.0, envs.returns),
        )

    return lax.while_loop(lambda envs: waiting(envs).any(), some, envs)


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
    succeeded = outcome.success | goes_on(phase, outcome)
    if env.time_out_cause is not None:
        succeeded = succeeded | ~outcome.terminated
    finite = jnp.concatenate(
        [finite_leaves(state, 1).all(axis=0), jnp.isfinite(next_obs).all()[None], jnp.isfinite(reward).all()[None]]
    )
    after = envs._replace(state=state, steps=jnp.where(ended, WAITING, steps), returns=returns)
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
