"""One control step of a phase as a function of one vector, so that all its derivatives can be taken at once.

Shapes: M control steps, D entries of the input (the float leaves of a state, then the action), K outputs, F flags.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mission.machine.trees import is_float, state_leaf_names
from mission.missionfile.phases import Phase


class StepValues(NamedTuple):
    """The result of one control step: K outputs, the magnitude of the numbers behind them, and its flags."""

    outputs: Array  # [K]
    magnitude: Array  # [K]
    flags: Array  # [F]


@dataclasses.dataclass(frozen=True)
class StepFunction:
    """One control step of a phase as a function of one vector: the float leaves of the state, then the action."""

    phase: Phase
    example: list[Any]  # leaves of one state
    flags: tuple[int, ...]

    @cached_property
    def floats(self) -> tuple[int, ...]:
        """The float leaves among all."""
        return tuple(i for i, leaf in enumerate(self.example) if is_float(leaf))

    @cached_property
    def tree(self) -> Any:
        """The structure of a state."""
        env = self.phase.environment
        return jax.tree.structure(jax.eval_shape(lambda key: env.enter(key, env.start(key)), jax.random.key(0)))

    @cached_property
    def parts(self) -> list[slice]:
        """The entries of each input: each float leaf, then each action."""
        sizes = [self.example[i].size for i in self.floats] + [1] * len(self.phase.environment.action_names)
        ends = np.cumsum(sizes)
        return [slice(int(end - size), int(end)) for size, end in zip(sizes, ends, strict=True)]

    @property
    def first_action(self) -> int:
        """The entry of the first action."""
        return self.parts[len(self.floats)].start

    @property
    def inputs(self) -> list[str]:
        """The names of the inputs."""
        return [*self.leaves, *(f'action "{name}"' for name in self.phase.environment.action_names)]

    @property
    def outputs(self) -> list[str]:
        """The names of the outputs: the change of each float leaf, the reward, the observation."""
        return [*self.leaves, "the reward", *(f'observation "{n}"' for n in self.phase.environment.observation_names)]

    @cached_property
    def leaves(self) -> list[str]:
        """The names of the float leaves."""
        return list(state_leaf_names(self.phase.environment)) if self.floats else []

    def is_flag(self, output: int) -> bool:
        """Return whether an output may be a flag: one of the observation."""
        return output > len(self.floats)

    def vector(self, leaves: list[Any], action: Any) -> np.ndarray:
        """Return the inputs of M control steps as one table [M, D]."""
        rows = len(action)
        parts = [*(np.reshape(leaves[i], (rows, -1)) for i in self.floats), action]
        return np.concatenate(parts, axis=1, dtype=np.float32)

    def __call__(self, entries: Array, leaves: list[Any], key: Array) -> StepValues:
        """Return the result of the step for D entries; `leaves` holds the leaves that are not floats."""
        env, reward, leaves = self.phase.environment, self.phase.reward, list(leaves)
        for i, part in zip(self.floats, self.parts, strict=False):
            like = self.example[i]
            leaves[i] = entries[part].reshape(like.shape).astype(like.dtype)
        action = entries[self.first_action :]
        state = jax.tree.unflatten(self.tree, leaves)
        after = env.step(key, state, action)
        outcome = env.outcome(after)
        terms = {} if reward is None else reward(state, action, after, outcome)
        values = [jnp.asarray(term, jnp.float32) for term in terms.values()]
        moved, seen = jax.tree.leaves(after), env.observe(state)
        changes = [self._weigh(moved[i] - leaves[i]) for i in self.floats]
        sizes = [self._weigh(moved[i], jnp.abs) for i in self.floats]
        flags = [jnp.ravel(moved[i]).astype(jnp.float32) for i in self.flags]
        return StepValues(
            jnp.stack([*changes, sum(values, jnp.zeros(())), *seen]),
            jnp.stack([*sizes, sum(map(jnp.abs, values), jnp.zeros(())), *jnp.abs(seen)]),
            jnp.concatenate([*flags, jnp.stack([jnp.asarray(flag, jnp.float32) for flag in outcome])]),
        )

    @staticmethod
    def _weigh(leaf: Any, of: Callable[[Any], Any] = lambda value: value) -> Array:
        """Return a fixed projection of a leaf, so that each leaf is one output."""
        weights = np.random.default_rng(leaf.size).uniform(0.5, 1.5, leaf.size).astype(np.float32)
        return (of(jnp.ravel(leaf).astype(jnp.float32)) * weights).sum()
