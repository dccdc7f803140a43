"""The terminal value of a phase: its reward for a hand-over from which the rest of the mission is likely to succeed.

The value of a hand-over is `weight` times P(mission succeeds | first observation of the next phase), the initiation
set of the next
skill of Lee et al. 2021, arXiv:2111.07999, as a probability. It is a function of the state, so that value gradients through
the phase reach it.
Shapes: one vehicle; O observation of the next phase.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mission.errors import InputError, run_plugin_code
from mission.flight.feasibility.network import Weights, probability
from mission.flight.fly import goes_on
from mission.machine.trees import floats, with_floats
from mission.missionfile.models import MissionFile, TerminalValue
from mission.missionfile.phases import Phase, RestOfMission, TrainedPhase
from mission.phase import Outcome

TERM = "rest"  # name of the reward term


def with_terminal_value(
    phase: TrainedPhase, following: Phase, network: Weights, settings: TerminalValue
) -> TrainedPhase:
    """Return a phase whose reward includes the terminal value in addition to its own terms, or instead of some of them.

    Args:
      phase: hands over to `following`.
      following: the next phase, as its pilot observes it.
      network: its feasibility, from `mission.flight.feasibility`.
      settings: weight, and the terms that it replaces.
    """
    digest = hashlib.sha256(b"".join(np.asarray(network[name], np.float32).tobytes() for name in sorted(network)))
    rest = RestOfMission(following, network, digest.hexdigest(), settings.weight, settings.replaces)
    own = phase.reward

    def reward(state: Any, action: Array, after: Any, outcome: Outcome) -> dict[str, Array]:
        terms = own(state, action, after, outcome)
        kept = {name: term for name, term in terms.items() if name not in rest.replaces}
        return kept | {TERM: _value(phase, rest, after, outcome)}

    return dataclasses.replace(phase, reward=reward, rest=rest)


def _value(phase: Phase, rest: RestOfMission, after: Any, outcome: Outcome) -> Array:
    """Return the value of the hand-over of a state; 0 before the hand-over, and for a flight that does not continue."""
    passed = outcome.terminated & (outcome.success | goes_on(phase, outcome))
    observed = first_observation(phase, rest.phase, after, passed)
    return jnp.where(passed, rest.weight * probability(rest.network, observed[None])[0], 0.0)


def first_observation(phase: Phase, following: Phase, state: Any, passed: Array) -> Array:
    """Return the first observation [O] of the next phase for the end state of a phase.

    If the flight does not continue, a nominal start takes its place, so that a meaningless state does not spoil a
    gradient. `enter` uses a single random key.
    """
    key = jax.random.key(0)
    nominal, handed = following.environment.start(key), phase.environment.leave(state)
    handed = jax.tree.map(lambda given, other: jnp.where(passed, given, other), handed, nominal)
    return following.environment.observe(following.environment.enter(key, handed))


def check_terminal(mission: MissionFile, phases: Sequence[Phase]) -> None:
    """Reject an impossible terminal value before anything is trained.

    Raises:
      InputError: no phase has a reward term that is to be replaced.
      PluginError: `enter` or `observe` of a phase, or `leave` of the one before, cannot be differentiated although value
        gradients are to go through them.
    """
    chain = mission.chain
    if chain is None or chain.terminal is None:
        return
    for number, name in enumerate(chain.terminal.replaces):
        known = sorted({term for phase in phases[:-1] for term in _reward_terms(phase)})
        if name not in known:
            raise InputError(
                mission.source.where(("chain", "terminal", "replaces", number)),
                expected=f"a reward term of a phase before the last one: {', '.join(known) or '(none)'}",
                found=name,
                remedy="name one of them",
            )
    for k, (phase, following) in enumerate(itertools.pairwise(phases)):
        if isinstance(phase, TrainedPhase) and phase.learner.needs_gradients:
            check_link_gradient(phase, following, mission.source.where(("phases", k + 1, "plugin")))


def check_link_gradient(phase: Phase, following: Phase, where: str) -> None:
    """Check that the first observation of the next phase is differentiable with respect to the end state of a phase.

    Nothing is compiled.

    Raises:
      PluginError: it cannot.
    """
    state = jax.eval_shape(lambda key: phase.environment.enter(key, phase.environment.start(key)), jax.random.key(0))

    def total(numbers: list[Array], state: Any) -> Array:
        return first_observation(phase, following, with_floats(state, numbers), jnp.bool_(True)).sum()

    expected = (
        f"{following.origin}: enter and observe that jax.grad can differentiate, for value gradients over the link"
    )
    remedy = "write their loops with lax.scan or fori_loop of fixed length, or do without: sac.actor_horizon: 0 before this phase, and no joint training"
    run_plugin_code(where, expected, lambda: jax.eval_shape(jax.grad(total), floats(state), state), remedy)


def _reward_terms(phase: Phase) -> tuple[str, ...]:
    """Return the names of a phase's reward terms; none without a reward."""
    env, reward = phase.environment, phase.reward
    if reward is None:
        return ()

    def terms(key: Array) -> dict[str, Array]:
        state = env.enter(key, env.start(key))
        after = env.step(key, state, jnp.zeros(len(env.action_names)))
        return reward(state, jnp.zeros(len(env.action_names)), after, env.outcome(after))

    return tuple(jax.eval_shape(terms, jax.random.key(0)))
