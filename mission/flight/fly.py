"""Vectorised stepping and restarting while training, and flying a phase to its end.

Shapes: E training vehicles, N flights, O observation, A action. One vehicle's functions come from
the phase; this file vectorises them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from mission.phase import Outcome, Phase
from mission.training.bank import TerminalBank, draw_start

# (network parameters, states [N, ...], observations [N, O]) -> actions [N, A]
Controller = Callable[[Any, Any, Array], Array]


class EnvBatch(NamedTuple):
    """E vehicles in the middle of their episodes."""

    state: Any
    steps: Array  # int32 [E]
    returns: Array  # float32 [E]


class Transition(NamedTuple):
    """One step of E vehicles, as replay stores it."""

    obs: Array  # [E, O]
    action: Array  # [E, A] as sampled, before the vehicle's clip
    reward: Array  # [E]
    next_obs: Array  # [E, O] before any restart
    terminated: Array  # float32 [E], time-outs excluded
    ended: Array  # float32 [E], terminated or timed out: an n-step window stops here


class EpisodeEnd(NamedTuple):
    """What finished on this step."""

    ended: Array  # bool [E]
    success: Array  # bool [E]
    returns: Array  # float32 [E]
    steps: Array  # int32 [E]


class PhaseFlight(NamedTuple):
    """N flights of one phase, frozen where each ended."""

    # Arrays of JAX in a compiled flight, of numpy once on the host.
    handoff: Any  # leaves [N, ...], what `leave` gives
    success: Any  # bool [N]
    cause: Any  # int32 [N], index into Phase.causes
    steps: Any  # int32 [N]
    returns: Any  # float32 [N], sum of rewards
    enter: Any  # float32 [N, C], telemetry on entering, in the order of Phase.channels
    telemetry: dict[str, Any]  # [N] at the end
    lowest: dict[str, Any]  # [N] by limited channel, over the whole phase
    highest: dict[str, Any]


def strong(tree: Any) -> Any:
    """Strip weak types, so that loops carry what they were given."""
    return jax.tree.map(
        lambda leaf: lax.convert_element_type(leaf, jnp.asarray(leaf).dtype) if not is_key(leaf) else leaf, tree
    )


def is_key(leaf: Any) -> bool:
    """Whether a leaf holds typed keys."""
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def state_leaf_names(phase: Phase) -> tuple[str, ...]:
    """Names of the float leaves of a phase's state, in the order of `finite_leaves`."""
    env = phase.environment
    state = jax.eval_shape(lambda key: env.enter(key, env.start(key)), jax.random.key(0))
    names = tuple(
        "state" + jax.tree_util.keystr(path)
        for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]
        if jnp.issubdtype(leaf.dtype, jnp.floating)
    )
    return names or ("state",)


def finite_leaves(state: Any, batch_axes: int) -> Array:
    """bool [..., L]: which float leaves of a state are finite; `batch_axes` leading axes are kept."""
    flags = [
        jnp.isfinite(leaf).all(axis=tuple(range(batch_axes, leaf.ndim)))
        for leaf in jax.tree.leaves(state)
        if jnp.issubdtype(leaf.dtype, jnp.floating)
    ]
    if not flags:
        return jnp.ones((*jax.tree.leaves(state)[0].shape[:batch_axes], 1), bool)
    return jnp.stack(flags, axis=-1)


def start_envs(phase: Phase, bank: TerminalBank | None, key: Array, vehicles: int) -> EnvBatch:
    """E fresh vehicles. Key consumed."""
    return EnvBatch(_fresh_states(phase, bank, key, vehicles), jnp.zeros(vehicles, jnp.int32), jnp.zeros(vehicles))


def _fresh_states(phase: Phase, bank: TerminalBank | None, key: Array, vehicles: int) -> Any:
    def fresh(key: Array) -> Any:
        draw, enter = jax.random.split(key)
        return strong(phase.environment.enter(enter, draw_start(phase, bank, draw)))

    return jax.vmap(fresh)(jax.random.split(key, vehicles))


def step_envs(
    phase: Phase, bank: TerminalBank | None, envs: EnvBatch, obs: Array, action: Array, key: Array
) -> tuple[EnvBatch, Transition, EpisodeEnd, dict[str, Array], Array]:
    """Advance E vehicles by one control step and replace those whose episode ended.

    Args:
      phase: the resolved phase, with a reward.
      bank: terminal states of the previous phase, or None for the first phase.
      envs: EnvBatch, leaves [E, ...].
      obs: [E, O], what the action was chosen on.
      action: [E, A]; the vehicle receives it clipped to [-1, 1].
      key: consumed.

    Returns:
      envs: EnvBatch [E]; finished vehicles already restarted from the bank.
      transition: Transition [E]; `next_obs` is taken before the restart, `terminated` excludes time-outs.
      end: EpisodeEnd [E]; flags and return of episodes that finished on this step.
      terms: reward terms, each [E].
      finite: bool [L + 2]: state leaves, observation, reward.
    """
    env, vehicles = phase.environment, action.shape[0]
    step_key, restart_key = jax.random.split(key)
    clipped = jnp.clip(action, -1.0, 1.0)
    state = strong(jax.vmap(env.step)(jax.random.split(step_key, vehicles), envs.state, clipped))
    outcome = jax.vmap(env.outcome)(state)
    next_obs = jax.vmap(env.observe)(state)
    assert phase.reward is not None
    terms = jax.vmap(phase.reward)(envs.state, clipped, state, outcome)
    reward = jnp.stack([jnp.asarray(term, jnp.float32) for term in terms.values()]).sum(axis=0)
    steps, returns = envs.steps + 1, envs.returns + reward
    ended = outcome.terminated | (steps >= env.max_steps)
    finite = jnp.concatenate(
        [finite_leaves(state, 1).all(axis=0), jnp.isfinite(next_obs).all()[None], jnp.isfinite(reward).all()[None]]
    )
    fresh = _fresh_states(phase, bank, restart_key, vehicles)
    after = EnvBatch(
        jax.tree.map(lambda new, old: jnp.where(ended.reshape((-1,) + (1,) * (old.ndim - 1)), new, old), fresh, state),
        jnp.where(ended, 0, steps),
        jnp.where(ended, 0.0, returns),
    )
    transition = Transition(
        obs, action, reward, next_obs, outcome.terminated.astype(jnp.float32), ended.astype(jnp.float32)
    )
    return after, transition, EpisodeEnd(ended, ended & outcome.success, returns, steps), terms, finite


def guide_controller(phase: Phase) -> Controller:
    """The phase's classical controller; zeros where the action is empty."""
    guide, actions = phase.environment.guide, len(phase.environment.action_names)

    def control(params: Any, state: Any, obs: Array) -> Array:
        if guide is None:
            return jnp.zeros((obs.shape[0], actions))
        return jax.vmap(guide)(state)

    return control


class Flying(NamedTuple):
    """N flights in the middle of a phase; what has ended stays as it was."""

    state: Any  # leaves [N, ...]
    ended: Array  # bool [N]
    success: Array  # bool [N]
    cause: Array  # int32 [N]
    steps: Array  # int32 [N]
    returns: Array  # float32 [N]
    lowest: dict[str, Array]  # [N] by limited channel
    highest: dict[str, Array]
    t: Array  # int32 [], control steps since the first vehicle entered


def judge(phase: Phase, state: Any, steps: Array) -> tuple[Array, Array, Array]:
    """(ended, success, cause) of N flights, each [N], from the states alone."""
    env = phase.environment
    time_out, non_finite = len(env.causes), len(env.causes) + 1
    outcome: Outcome = jax.vmap(env.outcome)(state)
    lost = ~finite_leaves(state, 1).all(axis=-1)
    late = (steps >= env.max_steps) & ~outcome.terminated
    success = outcome.success & outcome.terminated & ~lost
    cause = jnp.where(lost, non_finite, jnp.where(late, time_out, jnp.where(success, 0, outcome.cause)))
    return outcome.terminated | late | lost, success, cause.astype(jnp.int32)


def channels_of(phase: Phase, state: Any) -> dict[str, Array]:
    """Every telemetry channel of N vehicles, float32 [N] each."""
    return {
        name: jnp.asarray(value, jnp.float32) for name, value in jax.vmap(phase.environment.telemetry)(state).items()
    }


def telemetry_table(channels: dict[str, Array]) -> Array:
    """Channels [N] each as one table [N, C]."""
    return jnp.stack(list(channels.values()), axis=-1)


def _limited(phase: Phase, channels: dict[str, Array]) -> dict[str, Array]:
    return {name: channels[name] for name in dict.fromkeys(limit.channel for limit in phase.limits)}


def enter_phase(phase: Phase, handoff: Any, keys: Array) -> Any:
    """States [N, ...] of N flights as they enter a phase.

    Args:
      phase: the resolved phase.
      handoff: leaves [N, ...].
      keys: typed keys [N], one a flight; the same ones then go to `advance_flights`.
    """
    enter_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, 0)
    return strong(jax.vmap(phase.environment.enter)(enter_keys, handoff))


def begin_flights(phase: Phase, handoff: Any, keys: Array, alive: Array) -> tuple[Flying, Array]:
    """N flights at the start of a phase, and their telemetry [N, C]; those not alive (bool [N]) never move."""
    state = enter_phase(phase, handoff, keys)
    flights = alive.shape[0]
    steps = jnp.zeros(flights, jnp.int32)
    ended, success, cause = judge(phase, state, steps)
    channels = channels_of(phase, state)
    limited, returns = _limited(phase, channels), jnp.zeros(flights)
    begun = Flying(
        state, ended | ~alive, success & alive, cause, steps, returns, limited, limited, jnp.int32(0)
    )  # fmt: skip
    return strong(begun), telemetry_table(channels)


def advance_flights(
    phase: Phase, control: Controller, params: Any, keys: Array, now: Flying
) -> tuple[Flying, dict[str, Array]]:
    """One control step of N flights, and their channels [N] after it."""
    env = phase.environment
    state, ended, success, cause, steps, returns, lowest, highest, t = now
    obs = jax.vmap(env.observe)(state)
    action = jnp.clip(control(params, state, obs), -1.0, 1.0)
    step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, t + 1)
    moved = strong(jax.vmap(env.step)(step_keys, state, action))
    if phase.reward is not None:
        terms = jax.vmap(phase.reward)(state, action, moved, jax.vmap(env.outcome)(moved))
        returns = jnp.where(ended, returns, returns + sum(terms.values()))
    state = jax.tree.map(
        lambda old, new: jnp.where(ended.reshape((-1,) + (1,) * (old.ndim - 1)), old, new), state, moved
    )
    steps = jnp.where(ended, steps, steps + 1)
    now_ended, now_success, now_cause = judge(phase, state, steps)
    every = channels_of(phase, state)
    channels = _limited(phase, every)
    after = Flying(
        state,
        ended | now_ended,
        jnp.where(ended, success, now_success),
        jnp.where(ended, cause, now_cause),
        steps,
        returns,
        {name: jnp.where(ended, lowest[name], jnp.minimum(lowest[name], channels[name])) for name in channels},
        {name: jnp.where(ended, highest[name], jnp.maximum(highest[name], channels[name])) for name in channels},
        t + 1,
    )
    return after, every


def end_flights(phase: Phase, end: Flying, alive: Array, enter: Array) -> PhaseFlight:
    """The record of N flights that have all ended; `enter` as `begin_flights` gave it."""
    return PhaseFlight(
        jax.vmap(phase.environment.leave)(end.state),
        end.success & alive,
        end.cause,
        end.steps,
        end.returns,
        enter,
        channels_of(phase, end.state),
        end.lowest,
        end.highest,
    )


def fly_phase(phase: Phase, control: Controller, params: Any, handoff: Any, keys: Array, alive: Array) -> PhaseFlight:
    """Fly N vehicles until each has ended; those not alive stay where they are and count as lost.

    Args:
      phase: the resolved phase.
      control, params: who flies.
      handoff: leaves [N, ...].
      keys: typed keys [N], one a flight; consumed.
      alive: bool [N].
    """
    begun, enter = begin_flights(phase, handoff, keys, alive)
    end = lax.while_loop(
        lambda now: ~now.ended.all(), lambda now: advance_flights(phase, control, params, keys, now)[0], begun
    )
    return end_flights(phase, end, alive, enter)
