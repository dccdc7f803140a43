"""A phase as a Brax environment, for its wrappers and trainers; one vehicle, like all Brax environments.

Shapes: O observation, A action.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from mission.adapters.vehicles import make_env
from mission.machine.extras import import_extra
from mission.machine.trees import drop_weak_types
from mission.missionfile.phases import Phase
from mission.training.restart import fresh_state

base = import_extra("brax.envs.base", "mission-engine[brax]", "mission.adapters.brax")


class Vehicle(NamedTuple):
    """Brax's state of the physics: the state of the phase, and the random key of the next step."""

    state: Any
    key: Array  # uint32 [2], because Brax's wrappers do not take typed keys


class BraxEnv(base.Env):
    """One vehicle of a phase as a Brax environment: `reset(rng)` and `step(state, action)`.

    `done` is the end by physics or at the goal. The time limit is left to Brax: wrap the environment with
    `EpisodeWrapper(env, env.episode_length, 1)`, which sets `truncation`. Brax's `AutoResetWrapper` restarts a vehicle
    from its first start; `mission.make_env` draws a new start. The reward is the sum of the phase's terms, which are
    also in `metrics`, together with `success`.
    """

    def __init__(self, phase: Phase | str, *, params: Mapping[str, Any] | None = None, bank: Any = None) -> None:
        """Compile nothing; for arguments and errors see `mission.make_env`."""
        self.vehicle = make_env(phase, params=params, bank=bank)

    @property
    def episode_length(self) -> int:
        """The time limit in control steps."""
        return self.vehicle.phase.environment.max_steps

    @property
    def observation_size(self) -> int:
        """O."""
        return len(self.vehicle.observation_names)

    @property
    def action_size(self) -> int:
        """A."""
        return len(self.vehicle.action_names)

    @property
    def backend(self) -> str:
        """The physics are the phase's own."""
        return "mission"

    @property
    def dt(self) -> float:
        """Seconds between two actions."""
        return self.vehicle.phase.environment.control_period_s

    def reset(self, rng: Array) -> Any:
        """Start an episode; `rng` is a key of either kind and is consumed. Returns Brax's `State`."""
        key = jax.random.wrap_key_data(rng) if not jnp.issubdtype(rng.dtype, jax.dtypes.prng_key) else rng
        start, steps = jax.random.split(key)
        state = fresh_state(self.vehicle.phase, self.vehicle.bank, start)
        zero = jnp.zeros(())
        metrics = dict.fromkeys([*self._terms(state), "success"], zero)
        obs = self.vehicle.phase.environment.observe(state)
        return base.State(Vehicle(state, jax.random.key_data(steps)), obs, zero, zero, metrics)

    def step(self, state: Any, action: Array) -> Any:
        """Advance one control period under an action [A], clipped to [-1, 1]. Returns Brax's `State`."""
        phase, before = self.vehicle.phase, state.pipeline_state
        env = phase.environment
        key, move = jax.random.split(jax.random.wrap_key_data(before.key))
        clipped = jnp.clip(action, -1.0, 1.0)
        after = drop_weak_types(env.step(move, before.state, clipped))
        outcome = env.outcome(after)
        terms = {n: jnp.float32(v) for n, v in phase.reward(before.state, clipped, after, outcome).items()}
        return state.replace(
            pipeline_state=Vehicle(after, jax.random.key_data(key)),
            obs=env.observe(after),
            reward=jnp.stack(list(terms.values())).sum(),
            done=outcome.terminated.astype(jnp.float32),
            metrics=state.metrics | terms | {"success": outcome.success.astype(jnp.float32)},
        )

    def _terms(self, state: Any) -> dict[str, Any]:
        """Return the names of the reward's terms."""
        phase = self.vehicle.phase
        action = jnp.zeros(self.action_size)
        return jax.eval_shape(lambda s: phase.reward(s, action, s, phase.environment.outcome(s)), state)
