"""Fit the actor to the actions of a guidance law: one round of `mission.training.imitation`.

Shapes: B minibatch, O observation, A action.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from mission.learner import ImitationConfig, Labels
from mission.machine.devices import AXIS, device_share
from mission.sac.config import SacConfig
from mission.sac.losses import Agent, actor_optimiser, all_mean, cosine
from mission.sac.networks import Networks, averaged, mean_action, with_statistics

_LEAST_STD = 1e-3  # of an entry of the observation


def fit(
    config: SacConfig,
    settings: ImitationConfig,
    networks: Networks,
    events: Array,
    agent: Agent,
    labels: Labels,
    first: Array,
    key: Array,
) -> tuple[Agent, Array]:
    """Make the updates of one round with a Huber loss; the average of the actor is the imitator.

    Args:
      config, settings, networks: of the agent.
      events: bool [A], the actions that are times to an event; empty if they are not known.
      agent: with the statistics of the observation set.
      labels: the guide's actions.
      first: int32 [], updates of the rounds before.
      key: consumed.

    Returns:
      agent: after the last round its actor is the imitator, with a fresh optimiser.
      losses: [updates].
    """
    total = settings.rounds * settings.updates

    def loss(params: Any, obs: Array, action: Array) -> Array:
        error = mean_action(config.actor.head, networks.normal(params, obs)) - action
        sizes = optax.huber_loss(error, delta=settings.huber)
        if settings.event_weight > 1.0:
            near = jnp.clip(1.0 - 2.0 * (action + 1.0), 0.0, 1.0)
            sizes = sizes * (1.0 + (settings.event_weight - 1.0) * jnp.where(events, near, 0.0))
        return sizes.sum(axis=-1).mean() / settings.huber

    def step(carry: tuple[Any, Any, Any], number: Array) -> tuple[tuple[Any, Any, Any], Array]:
        actor, average, state = carry
        drawn = jax.random.randint(jax.random.fold_in(key, number), (settings.batch_size,), 0, labels.size)
        index = device_share(drawn)
        value, grads = jax.value_and_grad(loss)(actor, labels.obs[index], labels.action[index])
        grads, value = all_mean((grads, value), AXIS)
        rate = cosine(settings.learning_rate, settings.final_rate, total, first + number)
        changes, state = actor_optimiser(config, rate).update(grads, state)
        actor = optax.apply_updates(actor, changes)
        share = jnp.maximum(
            settings.average, 10.0 / (first + number + 10.0)
        )  # early on, of the latest tenth of the updates
        return (actor, averaged(actor, average, share), state), value

    begun = agent.actor, agent.average, agent.actor_optimiser
    (actor, average, state), losses = lax.scan(step, begun, jnp.arange(settings.updates))
    fresh = actor_optimiser(config, config.actor_learning_rate).init(actor)
    last = first + settings.updates >= total
    actor, state = jax.tree.map(lambda a, b: jnp.where(last, a, b), (average, fresh), (actor, state))
    return agent._replace(actor=actor, average=average, imitator=average, actor_optimiser=state), losses


def standardised(agent: Agent, obs: Array, size: Array) -> Agent:
    """Return the agent with the mean and deviation of the first `size` of observations [C, O].

    An agent that has statistics keeps them: an initial policy brings its own.
    """
    own = agent.actor["statistics"]["standardise"]
    new = (own["mean"] == 0.0).all() & (own["std"] == 1.0).all()
    weight = (jnp.arange(obs.shape[0]) < size).astype(jnp.float32) / size
    mean = weight @ obs
    std = jnp.sqrt(weight @ (obs - mean[None, :]) ** 2) + _LEAST_STD
    return with_all_statistics(agent, jnp.where(new, mean, own["mean"]), jnp.where(new, std, own["std"]))


def with_all_statistics(agent: Agent, mean: Array, std: Array) -> Agent:
    """Return the agent with these statistics of the observation, [O] each, in all of its networks."""
    networks = agent._asdict()
    names = [name for name in ("actor", "critic", "target_critic", "average", "imitator") if networks[name] != ()]

    def changed(params: Any) -> Any:
        # critics may also see privileged values, which are of order one as they are
        more = params["statistics"]["standardise"]["mean"].size - mean.size
        return with_statistics(params, jnp.pad(mean, (0, more)), jnp.pad(std, (0, more), constant_values=1.0))

    return agent._replace(**{name: changed(networks[name]) for name in names})
