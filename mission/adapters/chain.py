"""A chain of phases as one phase, for learners that fly a whole mission with one agent.

A vehicle flies the first phase. If the phase ends with a success, the vehicle enters the next phase in the same
control step. Observations and actions are padded to the largest size of the phases, and the observation ends with a
one-hot code of the phase.

Shapes: K phases, O and A the largest numbers of observations and actions of a phase.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from mission.errors import InputError
from mission.flight.fly import flight_status
from mission.learner import LearnerConfig
from mission.machine.trees import drop_weak_types
from mission.missionfile.contract import check_links
from mission.missionfile.models import PhaseEntry
from mission.missionfile.phases import Phase, TrainedPhase
from mission.phase import Environment, Outcome, PluginOrigin


class Leg(NamedTuple):
    """A vehicle in one of the phases of a chain."""

    at: Array  # int32 [], index of the phase that it flies
    steps: Array  # int32 [], control steps in that phase
    states: tuple[Any, ...]  # K, of each phase: the last one for those behind, zeros for those ahead


@dataclasses.dataclass(frozen=True, eq=False)
class Chain(Environment[Any, Leg]):
    """K phases, one after the other. All phases are computed for each vehicle, although it flies one."""

    phases: tuple[Phase, ...]

    @property
    def observation_names(self) -> tuple[str, ...]:
        """O padded names and K names of phases, of which one is 1 and the others are 0."""
        width = max(len(phase.environment.observation_names) for phase in self.phases)
        return (*(f"observation_{i}" for i in range(width)), *(f"in {phase.name}" for phase in self.phases))

    @property
    def action_names(self) -> tuple[str, ...]:
        """A padded names; a phase takes the first ones."""
        return tuple(f"action_{i}" for i in range(max(len(phase.environment.action_names) for phase in self.phases)))

    @property
    def causes(self) -> tuple[str, ...]:
        """`flown`, then `PHASE: CAUSE` for each failure of each phase, its time-out and numbers that are not finite."""
        return ("flown", *(f"{phase.name}: {cause}" for phase in self.phases for cause in phase.causes))

    @property
    def control_period_s(self) -> float:
        """The shortest control period of the phases, each of which has its own."""
        return min(phase.environment.control_period_s for phase in self.phases)

    @property
    def max_steps(self) -> int:
        """The sum of the phases' time limits, so that a phase's own limit always comes first."""
        return sum(phase.environment.max_steps for phase in self.phases)

    @property
    def guide(self) -> Callable[[Leg], Array] | None:
        """The guidance law of the phase that a vehicle flies; None if one of the phases has actions and no guide."""
        named = [phase for phase in self.phases if phase.environment.action_names]
        return None if any(phase.environment.guide is None for phase in named) else self._guided

    def _guided(self, leg: Leg) -> Array:
        width, actions = len(self.action_names), []
        for phase, state in zip(self.phases, leg.states, strict=True):
            guide = phase.environment.guide
            actions.append(jnp.zeros(width) if guide is None else _padded(guide(state), width))
        return _of(leg.at, actions)

    def start(self, key: Array) -> Any:
        """Return a nominal entry state of the first phase."""
        return self.phases[0].environment.start(key)

    def enter(self, key: Array, handoff: Any) -> Leg:
        """Enter the first phase."""
        begin, further = jax.random.split(key)
        states = [_zeros(phase) for phase in self.phases]
        states[0] = drop_weak_types(self.phases[0].environment.enter(begin, handoff))
        return self._handed_over(further, Leg(jnp.int32(0), jnp.int32(0), tuple(states)))

    def step(self, key: Array, state: Leg, action: Array) -> Leg:
        """Advance the phase that the vehicle flies; if it ends with a success, enter the next phase."""
        move, further = jax.random.split(key)
        states = []
        for k, phase in enumerate(self.phases):
            env, before = phase.environment, state.states[k]
            after = drop_weak_types(env.step(jax.random.fold_in(move, k), before, action[: len(env.action_names)]))
            states.append(_where(state.at == k, after, before))
        return self._handed_over(further, Leg(state.at, state.steps + 1, tuple(states)))

    def _handed_over(self, key: Array, leg: Leg) -> Leg:
        """Return the vehicle in the next phase if its phase ended with a success, repeatedly if necessary."""
        states, at, steps = list(leg.states), leg.at, leg.steps
        for k, (before, after) in enumerate(zip(self.phases, self.phases[1:], strict=False)):
            ended, success, _ = _status(before, states[k], steps)
            goes = (at == k) & ended & success
            handoff = before.environment.leave(states[k])
            entered = drop_weak_types(after.environment.enter(jax.random.fold_in(key, k), handoff))
            states[k + 1] = _where(goes, entered, states[k + 1])
            at, steps = jnp.where(goes, jnp.int32(k + 1), at), jnp.where(goes, jnp.int32(0), steps)
        return Leg(at, steps, tuple(states))

    def observe(self, state: Leg) -> Array:
        """Return the padded observation of the phase that the vehicle flies, with the one-hot code of the phase."""
        width = len(self.observation_names) - len(self.phases)
        seen = [_padded(p.environment.observe(s), width) for p, s in zip(self.phases, state.states, strict=True)]
        return jnp.concatenate([_of(state.at, seen), jnp.float32(jnp.arange(len(self.phases)) == state.at)])

    def outcome(self, state: Leg) -> Outcome:
        """Return whether the mission is flown, or has failed in a phase; a time-out of a phase is such a failure."""
        ends, first = [], 1
        for phase, own in zip(self.phases, state.states, strict=True):
            ended, success, cause = _status(phase, own, state.steps)
            ends.append((ended, success, first + cause))
            first += len(phase.causes)
        ended, success, cause = (_of(state.at, list(values)) for values in zip(*ends, strict=True))
        return Outcome(ended, success & ended, jnp.where(success & ended, 0, cause).astype(jnp.int32))

    def leave(self, state: Leg) -> Any:
        """Return the hand-over of the last phase."""
        return self.phases[-1].environment.leave(state.states[-1])

    def telemetry(self, state: Leg) -> dict[str, Array]:
        """Return the index of the phase."""
        return {"phase_1": state.at}

    def reward(self, state: Leg, action: Array, after: Leg, outcome: Outcome) -> dict[str, Array]:
        """Return the terms of every phase, `PHASE: TERM`; those of the phases that were not flown are zero."""
        terms = {}
        for k, phase in enumerate(self.phases):
            if phase.reward is None:
                continue
            env = phase.environment
            moved = after.states[k]
            own = phase.reward(state.states[k], action[: len(env.action_names)], moved, env.outcome(moved))
            terms |= {f"{phase.name}: {n}": jnp.where(state.at == k, jnp.float32(v), 0.0) for n, v in own.items()}
        return terms


def chain_phase(phases: Sequence[Phase]) -> TrainedPhase:
    """Return the phases of a mission as one phase that an agent flies from the first start to the end of the last one.

    Args:
      phases: from `resolve_mission`, all or consecutive ones; at least two.

    Raises:
      InputError: no phase has a reward.
      LinkError: the hand-over of a phase is not the one that the next phase accepts.
    """
    check_links(phases)
    if all(phase.reward is None for phase in phases):
        names = ", ".join(phase.name for phase in phases)
        raise InputError(names, expected="a phase with a reward", found="none", remedy="choose other phases")
    flown = [phase if phase.learner is None else phase.flown_by("agent") for phase in phases]
    guided = [dataclasses.replace(phase, environment=phase.guide_environment) for phase in flown]
    chain, first = Chain(tuple(flown)), phases[0]
    return TrainedPhase(
        name=" ".join(phase.name for phase in phases),
        origin=PluginOrigin("chain", first.origin.distribution, first.origin.version, ""),
        params=first.params,
        environment=chain,
        guide_environment=Chain(tuple(guided)),
        reward=chain.reward,
        limits=(),
        learner=LearnerConfig(),
        entry=PhaseEntry(name="chain", plugin="chain", restart=first.entry.restart),
        report=None,
        channels=("phase_1",),
        accepts=first.accepts,
        leaves=phases[-1].leaves,
    )


def _status(phase: Phase, state: Any, steps: Array) -> tuple[Array, Array, Array]:
    """Return (ended, success, cause) of one vehicle in a phase, as a flight decides it."""
    ended, success, cause = flight_status(phase, jax.tree.map(lambda leaf: leaf[None], state), steps[None])
    return ended[0], success[0], cause[0]


def _zeros(phase: Phase) -> Any:
    """Return zeros like a state of a phase."""
    env = phase.environment
    shapes = jax.eval_shape(lambda key: env.enter(key, env.start(key)), jax.random.key(0))
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


def _where(condition: Array, chosen: Any, other: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), chosen, other)


def _of(index: Array, values: list[Array]) -> Array:
    """Return the value of the phase with this index."""
    return jnp.stack(values)[index]


def _padded(values: Array, width: int) -> Array:
    return jnp.concatenate([jnp.float32(values), jnp.zeros(width - values.shape[0])])
