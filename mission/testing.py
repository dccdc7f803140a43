"""Conformance check for authors of phases: `check_phase(mission_phase())` in a test is enough."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mission.errors import PluginError
from mission.flight.trees import finite_leaves, state_leaf_names
from mission.missionfile.contract import first_difference
from mission.missionfile.models import PhaseEntry
from mission.missionfile.phases import Phase
from mission.missionfile.resolve import build_phase, check_record
from mission.phase import PhaseSpec, PluginOrigin

VEHICLES = 64


def make_phase(spec: PhaseSpec, params: Any = None, name: str = "phase") -> Phase:
    """A phase from a record, without a plugin or a mission file.

    Args:
      spec: what `mission_phase()` returns.
      params: an instance of `spec.params`; None takes its defaults.
      name: of the phase.
    """
    origin, where = PluginOrigin(name, "(this test)", "0", "0"), f'phase "{name}"'
    check_record(origin, spec, where)
    entry = PhaseEntry(name=name, plugin=name)
    return build_phase(entry, origin, spec, spec.params() if params is None else params, spec.sac, where, where)


def check_phase(
    spec: PhaseSpec, params: Any = None, *, steps: int = 200, largest_reward: float = 1e3, seed: int = 0
) -> None:
    """Check a phase against the contract; returns nothing, or raises with the reason.

    Shapes, dtypes and names; finiteness of state, observation, reward and telemetry under random
    actions until each vehicle has ended; success implies termination; causes in range; rewards
    within `largest_reward`; the same keys give the same flight; `step` is traced once; what it
    leaves can be entered again where the trees agree; the guide's actions lie in [-1, 1].

    Args:
      spec: what `mission_phase()` returns.
      params: an instance of `spec.params`; None takes its defaults.
      steps: control steps to fly.
      largest_reward: bound on the sum of reward terms of a step.
      seed: of keys and actions.

    Raises:
      PluginError: names what broke the contract.
    """
    phase = make_phase(spec, params)
    env = phase.environment
    traces = 0

    def refuse(expected: str, found: object) -> PluginError:
        return PluginError(
            f"check_phase({type(env).__name__})", expected=expected, found=str(found), remedy="mend the phase"
        )

    @jax.jit
    def advance(carry: Any, key: Any) -> tuple[Any, Any]:
        nonlocal traces
        traces += 1
        state, ended = carry
        act_key, step_key = jax.random.split(key)
        action = jax.random.uniform(act_key, (VEHICLES, len(env.action_names)), minval=-1.0, maxval=1.0)
        after = jax.vmap(env.step)(jax.random.split(step_key, VEHICLES), state, action)
        outcome = jax.vmap(env.outcome)(after)
        reward = jnp.zeros(VEHICLES)
        if phase.reward is not None:
            reward = sum(jax.vmap(phase.reward)(state, action, after, outcome).values())
        guided = jax.vmap(env.guide)(after) if env.guide is not None else action
        telemetry = jnp.stack(list(jax.vmap(env.telemetry)(after).values()))
        seen = (finite_leaves(after, 1), jax.vmap(env.observe)(after), outcome, reward, telemetry, guided)
        hold = partial(jax.tree.map, lambda new, old: jnp.where(ended.reshape((-1,) + (1,) * (new.ndim - 1)), old, new))
        return (hold(after, state), ended | outcome.terminated), (seen, ended)

    def fly() -> tuple[list[Any], Any, Any]:
        start_key, enter_key, key = jax.random.split(jax.random.key(seed), 3)
        handoff = jax.vmap(env.start)(jax.random.split(start_key, VEHICLES))
        state = jax.vmap(env.enter)(jax.random.split(enter_key, VEHICLES), handoff)
        carry: Any = (jax.tree.map(jnp.asarray, state), jnp.zeros(VEHICLES, bool))
        frames = []
        for step in range(min(steps, env.max_steps)):
            carry, frame = advance(carry, jax.random.fold_in(key, step))
            frames.append(frame)
            if carry[1].all():
                break
        return frames, handoff, carry[0]

    frames, handoff, final = fly()
    if traces != 1:
        raise refuse("step to be traced once", f"{traces} traces: a shape, dtype or weak type changes after a step")
    names = [*state_leaf_names(phase.environment), "state"]
    for number, ((finite, obs, outcome, reward, telemetry, guided), ended) in enumerate(frames):
        live = ~np.asarray(ended)
        when = f"step {number + 1} under random actions"
        for leaf in np.flatnonzero(~np.asarray(finite)[live].all(axis=0)):
            raise refuse("a finite state", f"{names[leaf]} at {when}")
        for part, values in (("observation", obs), ("reward", reward), ("guide", guided), ("telemetry", telemetry.T)):
            if not np.isfinite(np.asarray(values)[live]).all():
                raise refuse(f"a finite {part}", f"a non-finite one at {when}")
        if (np.asarray(outcome.success) & ~np.asarray(outcome.terminated))[live].any():
            raise refuse("success only where terminated", f"success of a flight that goes on, at {when}")
        causes = np.asarray(outcome.cause)[live & np.asarray(outcome.terminated)]
        if causes.size and not (causes.min() >= 0 and causes.max() < len(env.causes)):
            raise refuse(f"causes from 0 to {len(env.causes) - 1}", f"{causes.min()} to {causes.max()} at {when}")
        if ((np.asarray(outcome.cause) == 0) & np.asarray(outcome.terminated) & ~np.asarray(outcome.success))[
            live
        ].any():
            raise refuse("cause 0 for successes only", f"a failure of cause 0 at {when}")
        if np.abs(np.asarray(reward)[live]).max(initial=0.0) > largest_reward:
            raise refuse(
                f"rewards within {largest_reward:g} a step", f"{np.abs(np.asarray(reward)[live]).max():g} at {when}"
            )
        if env.guide is not None and np.abs(np.asarray(guided)[live]).max(initial=0.0) > 1.0 + 1e-6:
            raise refuse("a guide within [-1, 1]", f"{np.abs(np.asarray(guided)[live]).max():g} at {when}")
    if not first_difference(jax.eval_shape(jax.vmap(env.leave), final), handoff):
        again = jax.vmap(env.enter)(jax.random.split(jax.random.key(seed), VEHICLES), jax.vmap(env.leave)(final))
        if not bool(finite_leaves(again, 1).all()):
            raise refuse("enter to accept what leave gives", "a non-finite state")
    for first, second in zip(jax.tree.leaves(frames[-1]), jax.tree.leaves(fly()[0][-1]), strict=True):
        if not np.array_equal(np.asarray(first), np.asarray(second), equal_nan=True):
            raise refuse("the same flight from the same keys", "another one: is there hidden state?")
