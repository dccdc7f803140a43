"""A phase with the functional interface of gymnax 1.x: one vehicle, to be vectorised by `jax.vmap`.

It does not need gymnax, except for the spaces. Shapes: O observation, A action.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from jax import Array

from mission.adapters.extras import GYMNAX
from mission.adapters.vehicles import make_env
from mission.machine.extras import import_extra
from mission.missionfile.phases import Phase
from mission.training.bank import TerminalBank
from mission.training.step import EnvBatch


class Params(NamedTuple):
    """The `params` of a gymnax environment: the bank from which vehicles start, as arrays, or None."""

    bank: TerminalBank | None


class GymnaxEnv:
    """One vehicle of a phase as `reset(key, params)` and `step(key, state, action, params)`.

    Vehicles start, end and restart as in `mission.make_env`, from which it is made. For many vehicles, `make_env` itself is
    faster: `jax.vmap` over this one computes a start for all vehicles if one of them needs it.
    """

    def __init__(self, phase: Phase | str, *, params: Mapping[str, Any] | None = None, bank: Any = None) -> None:
        """Compile nothing; for arguments and errors see `mission.make_env`."""
        self._env = make_env(phase, params=params, bank=bank)

    @property
    def name(self) -> str:
        """The name of the phase's plugin."""
        return self._env.phase.origin.name

    @property
    def default_params(self) -> Params:
        """The bank that the constructor was given."""
        return Params(self._env.bank)

    @property
    def num_actions(self) -> int:
        """A."""
        return len(self._env.action_names)

    def reset(self, key: Array, params: Params | None = None) -> tuple[Array, EnvBatch]:
        """Start an episode; return its first observation, float32 [O], and the state. The key is consumed."""
        state, obs = self._with(params).init(key)
        return obs[0], state

    def step(
        self, key: Array, state: EnvBatch, action: Array, params: Params | None = None
    ) -> tuple[Array, EnvBatch, Array, Array, Array, dict[str, Any]]:
        """Advance one control period, and start the next episode where one ends.

        Args:
          key: consumed.
          state: from `reset` or `step`.
          action: float32 [A]; clipped to [-1, 1].
          params: `default_params` or others.

        Returns:
          Observation [O], after a restart that of the next episode; state; reward []; terminated and truncated, bool [];
          info with `final_observation` [O], before any restart, `success`, `cause`, and the `terms` of the reward.
        """
        state, result = self._with(params).step(key, state, action[None])
        result = jax.tree.map(lambda rows: rows[0], result._replace(finite=()))
        info = {
            "terminated": result.terminated,
            "truncated": result.truncated,
            "final_observation": result.next_obs,
            "success": result.success,
            "cause": result.cause,
            "terms": result.terms,
        }
        return result.obs, state, result.reward, result.terminated, result.truncated, info

    def observation_space(self, params: Params | None = None) -> Any:
        """Return gymnax's space of observations; needs gymnax."""
        return self._box(float("-inf"), float("inf"), len(self._env.observation_names))

    def action_space(self, params: Params | None = None) -> Any:
        """Return gymnax's space of actions; needs gymnax."""
        return self._box(-1.0, 1.0, self.num_actions)

    def _box(self, low: float, high: float, size: int) -> Any:
        spaces = import_extra("gymnax.environments.spaces", GYMNAX, "mission.adapters.gymnax")
        return spaces.Box(low, high, (size,))

    def _with(self, params: Params | None) -> Any:
        return self._env if params is None else self._env.started_from(params.bank)
