"""Fly one phase to its end: N vehicles in parallel, each frozen where it ended.

Shapes: N flights, O observation, A action, C telemetry channels. A phase is written for one vehicle; this file
vectorises it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from mission.flight.causes import marked_causes
from mission.flight.guard.decision import guide_promises_more
from mission.machine.trees import all_finite, drop_weak_types, where_rows
from mission.missionfile.phases import LibraryPhase, Phase, PolicyPhase
from mission.phase import Outcome

# (policy parameters, states [N, ...], observations [N, O]) -> actions [N, A]
Controller = Callable[[Any, Any, Array], Array]


class TakeOver(NamedTuple):
    """Two controllers of a phase: the second takes over when its condition is met, until the end of the phase."""

    first: Controller
    second: Controller
    wanted: Callable[[Any, Array, Array], Array]  # (parameters, observations [N, O], control step []) -> bool [N]


class PhaseFlight(NamedTuple):
    """N flights of one phase. The arrays are JAX's inside a compiled flight and numpy's on the host."""

    handoff: Any  # leaves [N, ...], what `leave` gives
    success: Any  # bool [N]
    cause: Any  # int32 [N], index into Phase.causes
    steps: Any  # int32 [N]
    returns: Any  # float32 [N], sum of rewards
    enter: Any  # float32 [N, C], telemetry on entering, in the order of Phase.channels
    telemetry: dict[str, Any]  # [N] at the end
    lowest: dict[str, Any]  # [N] by limited channel, over the whole phase
    highest: dict[str, Any]
    takeover: Any  # int32 [N], control step from which the guide flew a guarded phase; -1: it did not


class Flying(NamedTuple):
    """N flights in the middle of a phase; those that have ended stay as they were."""

    state: Any  # leaves [N, ...]
    ended: Array  # bool [N]
    success: Array  # bool [N]
    cause: Array  # int32 [N]
    steps: Array  # int32 [N]
    returns: Array  # float32 [N]
    lowest: dict[str, Array]  # [N] by limited channel
    highest: dict[str, Array]
    takeover: Array  # int32 [N]; -1: none
    t: Array  # int32 [], control steps since the first vehicle entered


def guide_controller(phase: Phase) -> Controller:
    """Return the phase's classical guidance law as a controller; zeros if the phase has none."""
    guide, actions = phase.environment.guide, len(phase.environment.action_names)

    def control(params: Any, state: Any, obs: Array) -> Array:
        if guide is None:
            return jnp.zeros((obs.shape[0], actions))
        return jax.vmap(guide)(state)

    return control


def policy_controller(phase: PolicyPhase) -> Controller:
    """Return the mean action of the phase's policy as a controller."""
    learner = phase.build_learner()
    return lambda params, state, obs: learner.mean_action(params, obs)


def controller_of(phase: Phase) -> Controller | TakeOver:
    """Return the controller of a phase: a library, a policy (without parameters), the guide, or a guarded policy.

    The parameters of a guarded phase are those of `mission.flight.guard.decision`.
    """
    if isinstance(phase, LibraryPhase):
        return library_controller(phase)
    if not isinstance(phase, PolicyPhase):
        return guide_controller(phase)
    return guarded_controller(phase, guide_promises_more) if phase.guarded else policy_controller(phase)


def guarded_controller(phase: PolicyPhase, wanted: Callable[[Any, Array, Array], Array]) -> TakeOver:
    """Return the policy of a phase, with parameters {"actor": ..., ...}, from which its guide may take over."""
    policy = policy_controller(phase)
    return TakeOver(lambda params, state, obs: policy(params["actor"], state, obs), guide_controller(phase), wanted)


def library_controller(phase: LibraryPhase) -> Controller:
    """Return the library of an exported policy as a controller; the compiled flight calls it on the host.

    docs/decisions/0019-policies-on-board.md explains why this cannot cause a deadlock.
    """
    actions = len(phase.environment.action_names)

    def control(params: Any, state: Any, obs: Array) -> Array:
        result = jax.ShapeDtypeStruct((obs.shape[0], actions), jnp.float32)
        return jax.pure_callback(lambda obs: phase.act(np.asarray(obs)), result, obs)

    return control


def flight_status(phase: Phase, state: Any, steps: Array) -> tuple[Array, Array, Array]:
    """Return (ended, success, cause) of N flights, each [N], from their states alone; wrong causes are marked."""
    env = phase.environment
    time_out, non_finite = phase.time_out, len(env.causes) + 1
    outcome: Outcome = jax.vmap(env.outcome)(state)
    broken = ~all_finite(state)
    late = (steps >= env.max_steps) & ~outcome.terminated
    success = (outcome.success | goes_on(phase, outcome)) & outcome.terminated & ~broken
    if env.time_out_cause is not None:
        success = success | (late & ~broken)
    cause = jnp.where(broken, non_finite, jnp.where(late, time_out, marked_causes(env, outcome)))
    return outcome.terminated | late | broken, success, cause.astype(jnp.int32)


def goes_on(phase: Phase, outcome: Outcome) -> Array:
    """Return whether N flights have failed by a tolerated cause, with which they continue, bool [N]."""
    causes = [phase.environment.causes.index(name) for name in phase.tolerated]
    return jnp.isin(outcome.cause, jnp.asarray(causes, jnp.int32)) if causes else jnp.zeros_like(outcome.success)


def channels_of(phase: Phase, state: Any) -> dict[str, Array]:
    """Return every telemetry channel of N vehicles, float32 [N] each."""
    return {
        name: jnp.asarray(value, jnp.float32) for name, value in jax.vmap(phase.environment.telemetry)(state).items()
    }


def telemetry_table(channels: dict[str, Array]) -> Array:
    """Return channels [N] each as one table [N, C]."""
    return jnp.stack(list(channels.values()), axis=-1)


def _limited(phase: Phase, channels: dict[str, Array]) -> dict[str, Array]:
    return {name: channels[name] for name in dict.fromkeys(limit.channel for limit in phase.limits)}


def enter_phase(phase: Phase, handoff: Any, keys: Array) -> Any:
    """Return the states [N, ...] of N flights as they enter a phase.

    Args:
      phase: the resolved phase.
      handoff: leaves [N, ...].
      keys: typed keys [N], one per flight; the same keys then go to `advance_flights`.
    """
    enter_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, 0)
    return drop_weak_types(jax.vmap(phase.environment.enter)(enter_keys, handoff))


def begin_flights(phase: Phase, handoff: Any, keys: Array, alive: Array) -> tuple[Flying, Array]:
    """Start N flights of a phase; also return their telemetry [N, C]. Those not alive (bool [N]) never move."""
    state = enter_phase(phase, handoff, keys)
    flights = alive.shape[0]
    steps = jnp.zeros(flights, jnp.int32)
    ended, success, cause = flight_status(phase, state, steps)
    channels = channels_of(phase, state)
    limited = _limited(phase, channels)
    begun = Flying(
        state=state,
        ended=ended | ~alive,
        success=success & alive,
        cause=cause,
        steps=steps,
        returns=jnp.zeros(flights),
        lowest=limited,
        highest=limited,
        takeover=jnp.full(flights, -1, jnp.int32),
        t=jnp.int32(0),
    )
    return drop_weak_types(begun), telemetry_table(channels)


def advance_flights(
    phase: Phase, control: Controller | TakeOver, params: Any, keys: Array, now: Flying
) -> tuple[Flying, dict[str, Array]]:
    """Advance N flights by one control step; also return their channels [N] after it."""
    env, ended = phase.environment, now.ended
    obs = jax.vmap(env.observe)(now.state)
    command, takeover = _command(control, params, now, obs)
    action = jnp.clip(command, -1.0, 1.0)
    step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, now.t + 1)
    moved = drop_weak_types(jax.vmap(env.step)(step_keys, now.state, action))
    returns = now.returns
    if phase.reward is not None:
        terms = jax.vmap(phase.reward)(now.state, action, moved, jax.vmap(env.outcome)(moved))
        returns = jnp.where(ended, returns, returns + sum(terms.values()))
    state = where_rows(ended, now.state, moved)
    steps = jnp.where(ended, now.steps, now.steps + 1)
    now_ended, success, cause = flight_status(phase, state, steps)
    every = channels_of(phase, state)
    channels = _limited(phase, every)
    after = Flying(
        state=state,
        ended=ended | now_ended,
        success=jnp.where(ended, now.success, success),
        cause=jnp.where(ended, now.cause, cause),
        steps=steps,
        returns=returns,
        lowest={name: jnp.where(ended, low, jnp.minimum(low, channels[name])) for name, low in now.lowest.items()},
        highest={name: jnp.where(ended, high, jnp.maximum(high, channels[name])) for name, high in now.highest.items()},
        takeover=takeover,
        t=now.t + 1,
    )
    return after, every


def _command(control: Controller | TakeOver, params: Any, now: Flying, obs: Array) -> tuple[Array, Array]:
    """Return the actions [N, A] of flights with observations [N, O], and the steps of their take-over so far, int32 [N]."""
    if not isinstance(control, TakeOver):
        return control(params, now.state, obs), now.takeover
    begins = control.wanted(params, obs, now.t) & (now.takeover < 0) & ~now.ended
    takeover = jnp.where(begins, now.t, now.takeover)
    first, second = (one(params, now.state, obs) for one in control[:2])
    return jnp.where((takeover >= 0)[:, None], second, first), takeover


def end_flights(phase: Phase, end: Flying, alive: Array, enter: Array) -> PhaseFlight:
    """Return the record of N flights that have all ended; `enter` is the telemetry [N, C] from `begin_flights`."""
    return PhaseFlight(
        handoff=jax.vmap(phase.environment.leave)(end.state),
        success=end.success & alive,
        cause=end.cause,
        steps=end.steps,
        returns=end.returns,
        enter=enter,
        telemetry=channels_of(phase, end.state),
        lowest=end.lowest,
        highest=end.highest,
        takeover=end.takeover,
    )


def fly_phase(
    phase: Phase, control: Controller | TakeOver, params: Any, handoff: Any, keys: Array, alive: Array
) -> PhaseFlight:
    """Fly N vehicles until each has ended; those not alive stay where they are and count as failed.

    Args:
      phase: the resolved phase.
      control, params: the controller and its parameters.
      handoff: leaves [N, ...].
      keys: typed keys [N], one per flight; consumed.
      alive: bool [N].
    """
    begun, enter = begin_flights(phase, handoff, keys, alive)
    end = lax.while_loop(
        lambda now: ~now.ended.all(), lambda now: advance_flights(phase, control, params, keys, now)[0], begun
    )
    return end_flights(phase, end, alive, enter)
