"""The subject of an export: the policy of a phase, and its observations and actions in flights of its mission.

Shapes: M observations, n O entries of an observation with its history, O without, A action, C telemetry channels.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mission.flight.batches import BLOCK
from mission.learner import PolicyLayers
from mission.missionfile.history import WithHistory
from mission.missionfile.phases import PolicyPhase
from mission.phase import Environment


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """A policy and the control steps of real flights on which its exports are compared with it.

    Attributes:
      mission: name of the mission.
      phase: the phase that the policy flies.
      actor: the parameters of the policy, as its learner stores them.
      layers: the same as plain layers.
      observations: float32 [M, n O], the newest observation first.
      channels: float32 [M, C], the telemetry in the same control steps.
    """

    mission: str
    phase: PolicyPhase
    actor: Any
    layers: PolicyLayers
    observations: np.ndarray
    channels: np.ndarray

    @property
    def environment(self) -> Environment:
        """The phase without its history."""
        env = self.phase.environment
        return env.inner if isinstance(env, WithHistory) else env

    @property
    def history(self) -> int:
        """Number of observations that the policy sees at once."""
        return self.phase.learner.history

    @property
    def inputs(self) -> int:
        """n O, the number of inputs of the network."""
        return self.observations.shape[1]

    @property
    def single(self) -> int:
        """O, the number of entries of one observation."""
        return self.inputs // self.history

    @property
    def actions(self) -> int:
        """A, the number of actions."""
        return len(self.phase.environment.action_names)

    @cached_property
    def exact(self) -> np.ndarray:
        """The actions [M, A] of the policy as JAX computes them in float64, so that nothing is lost by rounding."""
        learner = self.phase.build_learner()
        with jax.enable_x64(True):
            policy = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), self.actor)
            obs = jnp.asarray(self.observations, jnp.float64)
            return np.asarray(jnp.clip(learner.mean_action(policy, obs), -1.0, 1.0))

    @cached_property
    def flown(self) -> np.ndarray:
        """The actions [M, A] of the policy as it flies: in float32, in blocks of `BLOCK` flights."""
        learner = self.phase.build_learner()
        act = jax.jit(lambda obs: jnp.clip(learner.mean_action(self.actor, obs), -1.0, 1.0))
        rows = range(0, len(self.observations), BLOCK)
        return np.concatenate([np.asarray(act(self.observations[at : at + BLOCK])) for at in rows])

    @property
    def inputs_of_observation(self) -> tuple[str, ...]:
        """The channels of which the phase declares its observation to be a function; empty if it does not."""
        return self.environment.observation_inputs

    @property
    def input_channels(self) -> np.ndarray:
        """These channels, float32 [M, I]."""
        at = [self.phase.channels.index(name) for name in self.inputs_of_observation]
        return self.channels[:, at]

    @cached_property
    def exact_observations(self) -> np.ndarray:
        """The observation [M, O] as a function of these channels, computed by JAX in float64."""
        names = self.inputs_of_observation
        with jax.enable_x64(True):
            values = jnp.asarray(self.input_channels, jnp.float64)
            observe = jax.vmap(lambda row: self.environment.observe_channels(dict(zip(names, row, strict=True))))
            return np.asarray(observe(values), np.float64)
