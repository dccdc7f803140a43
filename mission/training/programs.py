"""The compiled programs of one phase in training: each is one `shard_map` and is traced once.

Shapes: E vehicles, U updates per cycle, O observation, A action, L float leaves of a state. Everything is replicated on
the devices; a learner splits its minibatches itself. Keys are folded from counters in the state, so chunk
boundaries do not affect the result.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from mission.flight.batches import FlightProgram, compile_flight
from mission.flight.fly import guide_controller
from mission.learner import Learner
from mission.machine.devices import REPLICATED, mesh
from mission.missionfile.phases import TrainedPhase
from mission.training.step import EnvBatch, start_envs, step_envs


class TrainState(NamedTuple):
    """Everything on the device that a training run carries; `agent` and `replay` are the learner's."""

    agent: Any
    replay: Any
    envs: EnvBatch
    iteration: Array  # int32 [], steps of every vehicle so far


@dataclasses.dataclass(frozen=True, eq=False)
class Programs:
    """The compiled functions of one phase, and the learner that they were made for."""

    learner: Learner
    init: Callable[[Array, Any], TrainState]
    fill: Callable[[TrainState, Any, Array], tuple[TrainState, Any]]
    warm_up: Callable[[TrainState, Array], tuple[TrainState, Array]]
    chunk: Callable[[TrainState, Any, Array], tuple[TrainState, Any]]
    flight: FlightProgram


def compile_programs(phase: TrainedPhase) -> Programs:
    """Return all programs of a phase."""
    build = _Builder(phase, phase.build_learner())
    return Programs(
        learner=build.learner,
        init=_replicated(build.init, 2, False),
        fill=_replicated(build.fill, 3, True),
        warm_up=_replicated(build.warm_up, 2, True),
        chunk=_replicated(build.chunk, 3, True),
        flight=compile_flight(phase),
    )


def _replicated(function: Callable[..., Any], arguments: int, donate: bool) -> Callable[..., Any]:
    mapped = jax.shard_map(
        function, mesh=mesh(), in_specs=(REPLICATED,) * arguments, out_specs=REPLICATED, check_vma=False
    )
    return jax.jit(mapped, donate_argnums=0 if donate else ())


@dataclasses.dataclass(frozen=True, eq=False)
class _Builder:
    """The functions to compile, as methods that share the phase and its learner."""

    phase: TrainedPhase
    learner: Learner

    def init(self, key: Array, bank: Any) -> TrainState:
        """Return the state before the first step."""
        agent_key, env_key = jax.random.split(key)
        envs = start_envs(self.phase, bank, env_key, self.phase.learner.vehicles)
        return TrainState(self.learner.init(agent_key), self.learner.empty_replay(), envs, jnp.int32(0))

    def fill(self, state: TrainState, bank: Any, key: Array) -> tuple[TrainState, Any]:
        """Collect the first transitions; also return which values were finite, bool [iterations, L + 2], and the least
        and the largest cause, int32 [iterations, 2]."""
        collect = partial(self._collect, bank, key, self._first_action)
        state, (stats, _, _) = lax.scan(lambda s, _: collect(s), state, None, length=self.phase.learner.fill_iterations)
        return state, (stats["finite"], stats["cause"])

    def warm_up(self, state: TrainState, key: Array) -> tuple[TrainState, Array]:
        """Run the learner's warm-up; also return its losses."""
        agent, replay, losses = self.learner.warm_up(state.agent, state.replay, key)
        return state._replace(agent=agent, replay=replay), losses

    def chunk(self, state: TrainState, bank: Any, key: Array) -> tuple[TrainState, Any]:
        """Run update cycles; also return episode statistics, metrics and samples for histograms."""
        collect_key, update_key, sample_key = jax.random.split(key, 3)
        config = self.phase.learner
        iterations, updates = config.update_cycle

        def update(state: TrainState, _: None) -> tuple[TrainState, Any]:
            agent, replay, metrics, samples = self.learner.update(state.agent, state.replay, update_key)
            return state._replace(agent=agent, replay=replay), (metrics, samples)

        def cycle(state: TrainState, _: None) -> tuple[TrainState, Any]:
            state, (stats, action, reward) = lax.scan(
                lambda s, _: self._collect(bank, collect_key, partial(self._policy_action, s.agent), s),
                state,
                None,
                length=iterations,
            )
            state, (metrics, samples) = lax.scan(update, state, None, length=updates)
            last = {"Action": action[-1], "Reward": reward[-1]} | {name: rows[-1] for name, rows in samples.items()}
            return state, (stats, metrics, last)

        state, (stats, metrics, samples) = lax.scan(cycle, state, None, length=config.chunk_cycles)
        samples = {name: rows[-1].ravel() for name, rows in samples.items()}
        samples |= self.learner.replay_samples(state.replay, jax.random.fold_in(sample_key, state.iteration))
        return state, (stats, metrics, samples)

    def _collect(
        self, bank: Any, key: Array, act: Callable[[Any, Array, Array], Array], state: TrainState
    ) -> tuple[TrainState, Any]:
        """Advance every vehicle by one control step and remember it."""
        act_key, noise_key, step_key = jax.random.split(jax.random.fold_in(key, state.iteration), 3)
        obs = jax.vmap(self.phase.environment.observe)(state.envs.state)
        action = self.learner.explore(act(state.envs.state, obs, act_key), noise_key)
        envs, transition, end, terms, finite = step_envs(self.phase, bank, state.envs, obs, action, step_key)
        stats = {
            "ended": end.ended.sum(),
            "success": end.success.sum(),
            "return": jnp.where(end.ended, end.returns, 0.0).sum(),
            "length": jnp.where(end.ended, end.steps, 0).sum(),
            "terms": {name: jnp.asarray(term, jnp.float32).mean() for name, term in terms.items()},
            "finite": finite,
            "cause": jnp.stack([end.cause.min(), end.cause.max()]),
        }
        replay = self.learner.remember(state.replay, transition)
        return TrainState(state.agent, replay, envs, state.iteration + 1), (stats, action, transition.reward)

    def _policy_action(self, agent: Any, states: Any, obs: Array, key: Array) -> Array:
        return self.learner.act(agent, obs, key)

    def _first_action(self, states: Any, obs: Array, key: Array) -> Array:
        if self.phase.learner.fill.policy == "guide":
            return guide_controller(self.phase)(None, states, obs)
        actions = len(self.phase.environment.action_names)
        return jax.random.uniform(key, (obs.shape[0], actions), minval=-1.0, maxval=1.0)
