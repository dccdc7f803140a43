"""Imitation of a phase's guidance law before the fill: DAgger, Ross et al. 2011, arXiv:1011.0686.

In each round the guide flies a share of the training vehicles and the policy the others; the guide's action in every state
that they visit is a label. Then the learner fits its policy to all labels.

Shapes: E training vehicles, V those of this device, O observation, A action, C stored labels.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from mission.flight.fly import guide_controller
from mission.learner import ImitationConfig, Labels, Learner
from mission.machine.devices import AXIS, device_share, gather_rows
from mission.missionfile.phases import TrainedPhase
from mission.training.restart import wide_vehicles
from mission.training.step import EnvBatch, start_waiting, step_envs, waiting_envs

_GOLDEN = 0.6180339887  # its multiples, modulo 1, are evenly spread


class Work(NamedTuple):
    """The state of the imitation between rounds, besides the agent."""

    envs: EnvBatch
    labels: Labels
    iteration: Array  # int32 [], steps of every vehicle so far


@dataclasses.dataclass(frozen=True, eq=False)
class Imitator:
    """The functions to compile."""

    phase: TrainedPhase
    learner: Learner
    settings: ImitationConfig

    @property
    def guided(self) -> TrainedPhase:
        """Return the phase with everything that its guidance law needs."""
        return dataclasses.replace(self.phase, environment=self.phase.guide_environment)

    @property
    def iterations(self) -> int:
        """Number of control steps of one round."""
        return -(-self.settings.env_steps // self.phase.learner.vehicles)

    def begin(self) -> Work:
        """Return the work before the first round: every vehicle waits for its start, and there are no labels."""
        env, vehicles = self.phase.environment, self.phase.learner.vehicles
        rows = max(1, self.settings.rows // vehicles) * vehicles
        obs, action = (jnp.zeros((rows, len(names))) for names in (env.observation_names, env.action_names))
        labels = Labels(obs, action, jnp.int32(0), jnp.int32(0))
        return Work(device_share(waiting_envs(self.guided, vehicles)), labels, jnp.int32(0))

    def round(
        self, agent: Any, work: Work, bank: Any, key: Array, share: Array, number: Array
    ) -> tuple[Any, Work, Array, dict[str, Array]]:
        """Fly one round and fit the policy.

        Args:
          agent: of the learner.
          work: of the rounds before.
          bank: end states of the phase before, or None.
          key: the same in every round.
          share: float32 [], of the vehicles that the guide flies.
          number: int32 [], of the round, from 0.

        Returns:
          agent, work: after the round.
          losses: [updates].
          flown: number of episodes that the policy flew to their end (`ended`) and of its successes (`success`), float32
            []; `finite`, bool [iterations, L + 2].
        """
        vehicles = self.phase.learner.vehicles
        # spread evenly over the vehicles, of which the first are those with wide dispersions
        guided = device_share(jnp.arange(vehicles) * _GOLDEN % 1.0) < share
        policy, guide, wide = self.learner.policy(agent), guide_controller(self.guided), wide_vehicles(self.guided)

        def fly(work: Work, _: None) -> tuple[Work, tuple[Array, Array]]:
            keys = jax.random.split(jax.random.fold_in(key, work.iteration), (2, vehicles))
            start, step = device_share(keys, axis=1)
            envs = start_waiting(self.guided, bank, work.envs, start, None if wide is None else device_share(wide))
            obs = jax.vmap(self.guided.environment.observe)(envs.state)
            label = jnp.clip(guide(None, envs.state, obs), -1.0, 1.0)
            action = jnp.where(guided[:, None], label, self.learner.mean_action(policy, obs))
            after = step_envs(self.guided, envs, obs, action, step)
            labels = _store(work.labels, *gather_rows((obs, label), vehicles))
            counts = jnp.stack([(end & ~guided).sum() for end in (after.end.ended, after.end.success)])
            return Work(after.envs, labels, work.iteration + 1), (counts, after.finite)

        work, (counts, finite) = lax.scan(fly, work, None, length=self.iterations)
        counts = counts.sum(axis=0)
        if guided.size < vehicles:
            counts = lax.psum(counts, AXIS)
            finite = lax.pmin(finite.astype(jnp.int32), AXIS) > 0
        updates = self.settings.updates
        fit_key = jax.random.fold_in(jax.random.fold_in(key, number), 1)
        agent, losses = self.learner.imitate(agent, work.labels, number * updates, fit_key)
        return agent, work, losses, {"ended": counts[0], "success": counts[1], "finite": finite}


def _store(labels: Labels, obs: Array, action: Array) -> Labels:
    """Write E labels over the oldest; those that are not finite are replaced by the observation and action of vehicle 0."""
    good = jnp.isfinite(obs).all(axis=1) & jnp.isfinite(action).all(axis=1)
    index = jnp.where(good, jnp.arange(good.size), jnp.argmax(good))
    capacity, rows = labels.obs.shape[0], obs.shape[0]
    return Labels(
        lax.dynamic_update_slice(labels.obs, obs[index], (labels.cursor, 0)),
        lax.dynamic_update_slice(labels.action, action[index], (labels.cursor, 0)),
        (labels.cursor + rows) % capacity,
        jnp.minimum(labels.size + rows, capacity),
    )
