"""The losses of Soft Actor-Critic, each with its equation, and one update of an agent.

Papers: [1] Haarnoja et al. 2018, arXiv:1801.01290; [2] Haarnoja et al. 2018, arXiv:1812.05905.
Shapes: B minibatch (of this device), O observation, A action. Strict rank promotion is on: weights, errors and
log-densities are all [B].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax
from jax.flatten_util import ravel_pytree

from mission.sac.config import SacConfig
from mission.sac.entropy import target_entropy
from mission.sac.networks import Networks, averaged, mean_action, sample_action

# On the CPU, one all-reduce of more floats than this is several times slower than two of half the size.
_REDUCE_FLOATS = 60_000


# (actor, critic, temperature) -> the gradient of the actor's loss, the loss, mean log pi and mean std
Through = Callable[[Any, Any, Array], tuple[Any, Array, Array, Array]]


class Agent(NamedTuple):
    """The networks, optimisers and counters of one learner."""

    actor: Any
    critic: Any
    target_critic: Any
    log_temperature: Array  # float32 []
    actor_optimiser: Any
    critic_optimiser: Any
    temperature_optimiser: Any
    updates: Array  # int32 [], joint updates so far
    average: Any = ()  # of the actor over its updates, if it flies
    imitator: Any = ()  # the actor at the end of the imitation, if there was one


class Minibatch(NamedTuple):
    """n-step transitions as the losses need them."""

    obs: Array  # [B, O]
    action: Array  # [B, A]
    reward: Array  # [B], discounted sum over the window, with the entropies of its later steps
    next_obs: Array  # [B, O], after the window
    discount: Array  # [B], gamma^steps, 0 where the window ended in a terminal state
    weight: Array  # [B], importance weights
    privileged: Array | None = None  # [B, P], what only the critics see; None without privileged_critic
    next_privileged: Array | None = None  # [B, P], after the window
    actor_obs: Array | None = None  # [B, O] of the rows that the actor trains on; None: those above
    actor_privileged: Array | None = None  # [B, P] of the same rows

    @property
    def of_actor(self) -> tuple[Array, Array | None]:
        """The observations on which the actor trains, and their privileged values."""
        return (self.obs, self.privileged) if self.actor_obs is None else (self.actor_obs, self.actor_privileged)


def _optimiser(learning_rate: float | Array, max_norm: float | None) -> optax.GradientTransformation:
    clip = optax.clip_by_global_norm(max_norm) if max_norm is not None else optax.identity()
    return optax.chain(clip, optax.adam(learning_rate))


def optimisers(config: SacConfig) -> tuple[optax.GradientTransformation, ...]:
    """Return the optimisers of actor, critic and temperature, each with its own clip."""
    return (
        _optimiser(config.actor_learning_rate, config.actor_grad_max_norm),
        _optimiser(config.critic_learning_rate, config.critic_grad_max_norm),
        _optimiser(config.temperature_learning_rate, config.temperature_grad_max_norm),
    )


def actor_optimiser(config: SacConfig, learning_rate: float | Array) -> optax.GradientTransformation:
    """Return the optimiser of the actor at a learning rate; its state is the same at every rate."""
    return _optimiser(learning_rate, config.actor_grad_max_norm)


def cosine(rate: float, final: float, updates: int, done: Array) -> Array:
    """Return a learning rate that falls along a cosine to the fraction `final` over so many updates."""
    share = jnp.minimum(done.astype(jnp.float32) / updates, 1.0)
    return rate * (final + (1.0 - final) * 0.5 * (1.0 + jnp.cos(jnp.pi * share)))


def create_agent(config: SacConfig, networks: Networks, key: Array, observations: int, privileged: int = 0) -> Agent:
    """Return fresh parameters; the targets are copies of the critics, which see P privileged values. Key consumed."""
    actor_key, critic_key = jax.random.split(key)
    obs, action = jnp.zeros((1, observations)), jnp.zeros((1, networks.actor.actions))
    actor = networks.actor.init(actor_key, obs)
    critic = networks.critic.init(critic_key, jnp.zeros((1, observations + privileged)), action)
    log_temperature = jnp.log(jnp.float32(config.temperature_initial))
    of_actor, of_critic, of_temperature = optimisers(config)
    return Agent(
        actor,
        critic,
        jax.tree.map(jnp.copy, critic),
        log_temperature,
        of_actor.init(actor),
        of_critic.init(critic),
        of_temperature.init(log_temperature),
        jnp.int32(0),
        jax.tree.map(jnp.copy, actor) if averages(config) else (),
        jax.tree.map(jnp.copy, actor) if config.imitation is not None else (),
    )


def averages(config: SacConfig) -> bool:
    """Return whether the average of the actor flies instead of the actor itself."""
    return config.actor_average > 0.0 or config.imitation is not None


def critic_view(obs: Array, privileged: Array | None) -> Array:
    """Return the critics' input [B, O + P], which includes the privileged values (Pinto et al. 2017, arXiv:1710.06542)."""
    return obs if privileged is None else jnp.concatenate([obs, privileged], axis=-1)


def td_target(config: SacConfig, networks: Networks, agent: Agent, batch: Minibatch, noise: Array) -> Array:
    """Return y = r + gamma^n (min_i Q'_i(s', a') - alpha log pi(a' | s')), [B] ([2], eq. 5 and 6)."""
    action, log_density = sample_action(config.actor.head, networks.normal(agent.actor, batch.next_obs), noise)
    view = critic_view(batch.next_obs, batch.next_privileged)
    q = networks.q(agent.target_critic, view, action).min(axis=0)
    value = q - jnp.exp(agent.log_temperature) * log_density
    return lax.stop_gradient(batch.reward + batch.discount * value)


def later_entropies(
    config: SacConfig, networks: Networks, agent: Agent, obs: Array, weight: Array, noise: Array
) -> Array:
    """Return sum_{k=1}^{n-1} gamma^k alpha H(pi(. | s_k)) of n-step windows, [B].

    The soft return of n steps holds these terms (Schulman et al. 2017, arXiv:1704.06440); the entropy of
    the first step is not part of Q. Each entropy is estimated as -log pi(a | s_k), with an action of the current policy
    instead of the stored one: a stored action that the current policy would not choose has an unbounded -log pi.

    Args:
      config, networks, agent: of the policy.
      obs: [B, M, O], at steps 1 to n-1, or at M that stand for them.
      weight: [B, M], gamma^k, or 0 after the window's end; times (n-1) / M.
      noise: standard normal [B, M, A].
    """
    normal = networks.normal(agent.actor, obs.reshape(-1, obs.shape[-1]))
    log_density = sample_action(config.actor.head, normal, noise.reshape(-1, noise.shape[-1]))[1]
    return -jnp.exp(agent.log_temperature) * (weight * log_density.reshape(weight.shape)).sum(axis=1)


def critic_loss(networks: Networks, params: Any, batch: Minibatch, target: Array) -> tuple[Array, tuple[Array, Array]]:
    """Return J_Q = mean of w 1/2 sum_i (Q_i(s, a) - y)^2 ([2], eq. 5), |td| [B] (mean of both critics) and mean Q."""
    q = networks.q(params, critic_view(batch.obs, batch.privileged), batch.action)
    error = q - target[None, :]
    loss = (batch.weight * 0.5 * (error**2).sum(axis=0)).mean()
    return loss, (jnp.abs(error).mean(axis=0), q.mean())


def actor_loss(
    config: SacConfig,
    networks: Networks,
    params: Any,
    critic: Any,
    log_temperature: Array,
    obs: Array,
    noise: Array,
    privileged: Array | None = None,
) -> tuple[Array, tuple[Array, Array]]:
    """Return J_pi = mean of alpha log pi(a | s) - min_i Q_i(s, a) ([2], eq. 9), mean log pi and mean std.

    The privileged values [B, P] enter Q alone.
    """
    normal = networks.normal(params, obs)
    action, log_density = sample_action(config.actor.head, normal, noise)
    q = networks.q(critic, critic_view(obs, privileged), action).min(axis=0)
    loss = (jnp.exp(lax.stop_gradient(log_temperature)) * log_density - q).mean()
    return loss, (log_density.mean(), jnp.exp(normal.log_std).mean())


def temperature_loss(log_temperature: Array, mean_log_density: Array, entropy: float) -> Array:
    """Return J(alpha) = -log alpha (mean log pi + target entropy) ([2], eq. 18, in log space)."""
    return -log_temperature * lax.stop_gradient(mean_log_density + entropy)


def all_mean(tree: Any, axis: str) -> Any:
    """Return the mean over devices of a pytree, in a few large all-reduces instead of one per leaf."""
    flat, unravel = ravel_pytree(tree)
    pieces = [lax.pmean(flat[at : at + _REDUCE_FLOATS], axis) for at in range(0, flat.size, _REDUCE_FLOATS)]
    return unravel(jnp.concatenate(pieces))


def update_critic(
    config: SacConfig,
    networks: Networks,
    agent: Agent,
    batch: Minibatch,
    noise: Array,
    axis: str,
    optimiser: optax.GradientTransformation,
) -> tuple[Agent, Array, Array, Array]:
    """Make one step of both critics; return the agent, the loss, the local |td| [B] and mean Q."""
    target = td_target(config, networks, agent, batch, noise)
    (loss, (td, q)), grads = jax.value_and_grad(lambda p: critic_loss(networks, p, batch, target), has_aux=True)(
        agent.critic
    )
    grads, loss, q = all_mean((grads, loss, q), axis)
    changes, state = optimiser.update(grads, agent.critic_optimiser)
    return agent._replace(critic=optax.apply_updates(agent.critic, changes), critic_optimiser=state), loss, td, q


def update_targets(config: SacConfig, agent: Agent) -> Agent:
    """Move the target critics: Q' <- tau Q + (1 - tau) Q' ([1], algorithm 1)."""
    return agent._replace(target_critic=optax.incremental_update(agent.critic, agent.target_critic, config.tau))


def actor_gradient(
    config: SacConfig, networks: Networks, agent: Agent, batch: Minibatch, noise: Array, through: Through | None
) -> tuple[Any, Array, Array, Array]:
    """Return the gradient of the actor's loss, the loss, mean log pi and mean std, of this device's share.

    Without `through` the gradient is that of the critics ([2], eq. 9), else the exact one.
    """
    obs, privileged = batch.of_actor
    if through is not None:
        grads, loss, log_density, std = through(agent.actor, agent.critic, jnp.exp(agent.log_temperature))
    else:
        (loss, (log_density, std)), grads = jax.value_and_grad(
            lambda p: actor_loss(config, networks, p, agent.critic, agent.log_temperature, obs, noise, privileged),
            has_aux=True,
        )(agent.actor)
    weight = config.imitation.weight if config.imitation is not None else 0.0
    if weight > 0.0:
        near = jax.grad(lambda p: imitation_distance(config, networks, p, agent.imitator, obs))(agent.actor)
        grads = jax.tree.map(lambda a, b: a + weight * b, grads, near)
    return grads, loss, log_density, std


def imitation_distance(config: SacConfig, networks: Networks, params: Any, imitator: Any, obs: Array) -> Array:
    """Return the mean squared distance of the mean actions from the imitator's, summed over the actions."""
    action, other = (mean_action(config.actor.head, networks.normal(p, obs)) for p in (params, imitator))
    return ((action - lax.stop_gradient(other)) ** 2).sum(axis=-1).mean()


def update_temperature(
    config: SacConfig, agent: Agent, log_density: Array, actions: int, optimiser: optax.GradientTransformation
) -> tuple[Agent, Array]:
    """Make one step of the temperature, if it is learned and not delayed; return the agent and the loss."""
    entropy = target_entropy(config, actions)
    loss, grad = jax.value_and_grad(temperature_loss)(agent.log_temperature, log_density, entropy)
    change, state = optimiser.update(grad, agent.temperature_optimiser)
    moved = jnp.clip(
        jnp.add(agent.log_temperature, cast(Array, change)),
        math.log(config.temperature_min),
        math.log(config.temperature_max),
    )
    learn = jnp.bool_(config.temperature_learned) & (agent.updates >= config.temperature_delay_updates)
    return agent._replace(
        log_temperature=jnp.where(learn, moved, agent.log_temperature),
        temperature_optimiser=jax.tree.map(
            lambda new, old: jnp.where(learn, new, old), state, agent.temperature_optimiser
        ),
    ), loss


def update_agent(
    config: SacConfig,
    networks: Networks,
    agent: Agent,
    batch: Minibatch,
    noise: Array,
    axis: str,
    through: Through | None = None,
) -> tuple[Agent, Array, dict[str, Array]]:
    """Update critics, actor, temperature and targets, in this order ([2], algorithm 1).

    Args:
      config, networks: of the agent.
      agent: Agent.
      batch: Minibatch, leaves [B, ...]: this device's share of the minibatch.
      noise: standard normal [2, B, A], for next and current actions.
      axis: mesh axis over which gradients are averaged.
      through: computes the exact gradient of the actor's loss; None: it follows the critics.

    Returns:
      agent: Agent after one update, equal on every device.
      td: |TD error| [B * devices] of the whole batch, for its priorities.
      metrics: scalars by their names in docs/sac.md.
    """
    of_actor, of_critic, of_temperature = optimisers(config)
    if config.actor_rate_updates > 0:
        rate = (config.actor_learning_rate, config.actor_rate_final, config.actor_rate_updates)
        of_actor = actor_optimiser(config, cosine(*rate, agent.updates))
    agent, loss_q, td, q = update_critic(config, networks, agent, batch, noise[0], axis, of_critic)

    grads, loss_pi, log_density, std = actor_gradient(config, networks, agent, batch, noise[1], through)
    # The TD errors share the all-reduce of the actor's gradient, because a separate one would cost as much again.
    devices = lax.axis_size(axis)
    slots = jnp.zeros((devices, td.size)).at[lax.axis_index(axis)].set(td * devices)
    grads, loss_pi, log_density, std, slots = all_mean((grads, loss_pi, log_density, std, slots), axis)
    changes, actor_state = of_actor.update(grads, agent.actor_optimiser)
    agent = agent._replace(actor=optax.apply_updates(agent.actor, changes), actor_optimiser=actor_state)
    if averages(config):
        share = config.actor_average or 1.0
        agent = agent._replace(average=averaged(agent.actor, agent.average, share))

    agent, loss_alpha = update_temperature(config, agent, log_density, networks.actor.actions, of_temperature)
    agent = agent._replace(updates=agent.updates + 1)
    metrics = {
        "Critic/Loss": loss_q,
        "Critic/Q": q,
        "Critic/TDError": slots.mean(),
        "Actor/Loss": loss_pi,
        "Actor/Entropy": -log_density,
        "Actor/Std": std,
        "Temperature/Loss": loss_alpha,
        "Temperature/Value": jnp.exp(agent.log_temperature),
    }
    return update_targets(config, agent), slots.reshape(-1), metrics
