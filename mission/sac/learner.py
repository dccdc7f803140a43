"""Soft Actor-Critic as the engine's learner: replay, minibatches, updates and critic warm-up.

Shapes: E vehicles, C replay capacity, B minibatch, O observation, A action. Every device draws the same
minibatch and processes its own share of it (`device_share`).
"""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

from mission.learner import Labels, Learner, PhaseInterface, PolicyLayers, PolicyNetwork, Transition
from mission.machine.devices import AXIS, device_share
from mission.sac import memory as store
from mission.sac.config import SacConfig
from mission.sac.entropy import largest_entropy, target_entropy
from mission.sac.imitate import fit, standardised, with_all_statistics
from mission.sac.layers import policy_layers
from mission.sac.losses import (
    Agent,
    Minibatch,
    Through,
    all_mean,
    averages,
    create_agent,
    critic_loss,
    later_entropies,
    optimisers,
    td_target,
    update_agent,
    update_targets,
)
from mission.sac.memory import Memory
from mission.sac.networks import (
    LAYER_NORM_EPSILON,
    MOST_DEVIATIONS,
    make_networks,
    mean_action,
    sample_action,
)
from mission.sac.replay import row_width, unpack
from mission.sac.value_gradient import ValueGradient

_TD_BLOCK = 4096  # rows whose TD error is computed at once
_LOOKED_AT = 512  # priorities in a histogram
_LATER = 1  # folded into a minibatch's key for the noise of its windows' later steps
_MOST_LATER = 4  # steps of a window whose entropy is estimated
_ACTOR = 2  # the same for the rows that its actor sees
_THROUGH = 1  # folded into an update's key for the exact gradient
_STATISTICS = "statistics/standardise"
_STANDARDISED = (
    f"clip((observation - mean) / std, -{MOST_DEVIATIONS:g}, {MOST_DEVIATIONS:g}), of {_STATISTICS}/mean and /std"
)
_MEAN_ACTIONS = {"squashed": "tanh(output[:A])", "bounded": "tanh(output[:A])", "softplus": "output[:A]"}

# Weights of shape [B] against errors of shape [B, 1] would silently broadcast to [B, B]. The learner rejects that
# while it is traced; plugins may broadcast as they like.
_strict = jax.numpy_rank_promotion("raise")


class Sac(Learner):
    """Soft Actor-Critic with prioritised n-step replay (docs/sac.md)."""

    metrics: ClassVar[tuple[str, ...]] = (
        "Critic/Loss",
        "Actor/Loss",
        "Temperature/Loss",
        "Critic/Q",
        "Critic/TDError",
        "Actor/Entropy",
        "Actor/Std",
        "Temperature/Value",
    )
    shown: ClassVar[dict[str, str]] = {"temperature": "Temperature/Value"}
    warm_up_metric: ClassVar[str] = "CriticWarmUp/Loss"

    def __init__(self, config: SacConfig, interface: PhaseInterface) -> None:
        self.config, self.interface = config, interface
        self.observations, self.actions = observations, actions = interface.observations, interface.actions
        self.networks_of = make_networks(config, actions)
        self.warm_up_steps = config.warm_up.steps
        self.horizon = config.actor_horizon
        self.prepares = config.standardise and config.imitation is None
        self.discount = config.discount(interface.control_period_s)
        self.through = ValueGradient(config, self.networks_of, interface, self.discount)
        obs, action, zero = jnp.zeros(observations), jnp.zeros(actions), jnp.zeros(())
        self.example = Transition(obs=obs, action=action, reward=zero, next_obs=obs, terminated=zero, ended=zero)
        self.privileged = interface.privileged if config.privileged_critic else 0
        if self.privileged:
            seen = jnp.zeros(self.privileged)
            self.example = self.example._replace(privileged=seen, next_privileged=seen)

    def warnings(self) -> tuple[tuple[str, str], ...]:
        """Return the warning of a target entropy that the head cannot reach."""
        config, actions = self.config, self.actions
        target, largest = target_entropy(config, actions), largest_entropy(config, actions)
        if not config.temperature_learned or target < largest:
            return ()
        key = "target_entropy" if config.target_std_fraction is None else "target_std_fraction"
        text = (
            f"the {config.actor.head} head cannot reach the target entropy {target:.4g}: its entropy stays "
            f"below {largest:.4g} for A = {actions}, so that the temperature rises to temperature_max; lower the target"
        )
        return ((key, text),)

    def init(self, key: Array) -> Agent:
        """Return fresh networks, optimisers and temperature."""
        return create_agent(self.config, self.networks_of, key, self.observations, self.privileged)

    def empty_replay(self) -> Memory:
        """Return a memory of `buffer_size` rows, rounded down to whole iterations, and of the rows that are kept."""
        return store.create(self.config, row_width(self.example))

    def act(self, agent: Agent, obs: Array, key: Array) -> Array:
        """Sample actions from the policy."""
        normal = self.networks_of.normal(agent.actor, obs)
        noise = jax.random.normal(key, (obs.shape[0], self.actions))
        return sample_action(self.config.actor.head, normal, noise)[0]

    def explore(self, action: Array, key: Array) -> Array:
        """Add the exploration noise; clip where the policy's distribution is bounded too."""
        if self.config.exploration_noise > 0:
            action = action + self.config.exploration_noise * jax.random.normal(key, action.shape)
        return jnp.clip(action, -1.0, 1.0) if self.config.actor.head == "squashed" else action

    def remember(self, replay: Memory, transition: Transition) -> Memory:
        """Append E rows."""
        return store.append(replay, transition)

    @_strict
    def update(
        self, agent: Agent, replay: Memory, visited: Any, key: Array
    ) -> tuple[Agent, Memory, dict[str, Array], dict[str, Array]]:
        """Draw one minibatch and update critics, actor, temperature, targets and priorities."""
        config = self.config
        update_key = jax.random.fold_in(key, agent.updates)
        sample_key, noise_key = jax.random.split(update_key)
        batch, index = self.draw_minibatch(agent, replay, sample_key, config.batch_size, agent.updates)
        batch = self.with_actor_rows(batch, replay, index, sample_key)
        noise = device_share(jax.random.normal(noise_key, (2, config.batch_size, self.actions)), axis=1)
        through = self._through(visited, jax.random.fold_in(update_key, _THROUGH)) if config.actor_horizon else None
        agent, td, metrics = update_agent(config, self.networks_of, agent, batch, noise, AXIS, through)
        td = td[: config.batch_size]
        share = config.prior.share
        replay = store.update_priorities(replay, index, td, share, config.alpha, config.priority_epsilon)
        return agent, replay, metrics, {"Critic/TDError": td}

    def _through(self, visited: tuple[Any, Array], key: Array) -> Through:
        """Return the exact gradient along flights from states drawn among those that this device's vehicles visited."""
        states, valid = visited
        draw_key, fly_key = jax.random.split(jax.random.fold_in(key, lax.axis_index(AXIS)))
        size = min(valid.size, max(1, self.config.actor_batch // lax.axis_size(AXIS)))
        chosen = jnp.argsort(jnp.where(valid, 0.0, 2.0) + jax.random.uniform(draw_key, valid.shape))[:size]
        flown = jax.tree.map(lambda leaf: leaf[chosen], (states, valid))
        return lambda actor, critic, temperature: self.through(actor, critic, temperature, flown, fly_key)

    def imitate(self, agent: Agent, labels: Labels, first: Array, key: Array) -> tuple[Agent, Array]:
        """Fit the actor to the guide's actions; the first labels also standardise the observation."""
        settings = self.config.imitation
        if settings is None:
            raise ValueError("sac.imitation is not set")
        if self.config.standardise:
            agent = lax.cond(first == 0, standardised, lambda agent, *_: agent, agent, labels.obs, labels.size)
        environment = self.interface.environment
        names = () if environment is None else environment.action_names
        events = jnp.array([name in environment.event_actions for name in names], bool)
        return fit(self.config, settings, self.networks_of, events, agent, labels, first, key)

    @_strict
    def warm_up(self, agent: Agent, replay: Memory, key: Array) -> tuple[Agent, Memory, Array]:
        """Update only the critics, at their own rate and minibatch; then set the priority of every row."""
        config, settings = self.config, self.config.warm_up
        if self.prepares:
            first = store.parts(replay)[0]
            agent = standardised(agent, unpack(first.rows, self.example).obs, first.size)
        if not settings.steps:
            return agent, replay, jnp.zeros(0)
        size = settings.batch_size or config.batch_size
        rate = settings.learning_rate or config.critic_learning_rate
        optimiser = optimisers(config.model_copy(update={"critic_learning_rate": rate}))[1]

        def step(carry: tuple[Agent, Any], number: Array) -> tuple[tuple[Agent, Any], Array]:
            agent, optimiser_state = carry
            sample_key, noise_key = jax.random.split(jax.random.fold_in(key, number))
            batch, _ = self.draw_minibatch(agent, replay, sample_key, size, jnp.int32(0))
            noise = device_share(jax.random.normal(noise_key, (size, self.actions)))
            target = td_target(config, self.networks_of, agent, batch, noise)
            loss, grads = jax.value_and_grad(lambda p: critic_loss(self.networks_of, p, batch, target)[0])(agent.critic)
            grads, loss = all_mean((grads, loss), AXIS)
            changes, optimiser_state = optimiser.update(grads, optimiser_state)
            agent = update_targets(config, agent._replace(critic=optax.apply_updates(agent.critic, changes)))
            return (agent, optimiser_state), loss

        steps = jnp.arange(settings.steps)
        (agent, _), losses = lax.scan(step, (agent, optimiser.init(agent.critic)), steps)
        td = self._all_td_errors(agent, replay, jax.random.fold_in(key, settings.steps))
        return agent, store.rebuild_priorities(replay, td, config.alpha, config.priority_epsilon), losses

    def policy(self, agent: Agent) -> Any:
        """Return the parameters that fly: those of the actor, or their average."""
        return agent.average if averages(self.config) else agent.actor

    def imitator(self, agent: Agent) -> Any:
        """Return the parameters of the imitator."""
        return agent.imitator if self.config.imitation is not None else None

    def with_policy(self, agent: Agent, policy: Any) -> Agent:
        """Return the agent with the actor's parameters replaced."""
        copies = {name: policy for name in ("average", "imitator") if getattr(agent, name) != ()}
        agent = agent._replace(actor=policy, **copies)
        if self.config.standardise:
            agent = with_all_statistics(agent, **policy["statistics"]["standardise"])
        return agent

    def mean_action(self, policy: Any, obs: Array) -> Array:
        """Return the mean of the policy's distribution, squashed if the head is."""
        return mean_action(self.config.actor.head, self.networks_of.normal(policy, obs))

    def networks(self, agent: Agent) -> dict[str, Any]:
        """Return the parameters of actor and critics."""
        return {"Actor": agent.actor, "Critic": agent.critic}

    def replay_samples(self, replay: Memory, key: Array) -> dict[str, Array]:
        """Return a random sample of the priorities, those of the recent rows."""
        recent = store.parts(replay)[-1]
        if not recent.tree:
            return {}
        rows = jax.random.randint(key, (_LOOKED_AT,), 0, recent.size)
        return {"Replay/Priority": recent.tree[-1].reshape(-1)[rows]}

    def describe_policy(self) -> PolicyNetwork:
        """Return the actor's architecture and the meaning of its outputs."""
        actor, body = self.config.actor, "params/body"
        layers = [[f"{body}/Dense_{i}/kernel", f"{body}/Dense_{i}/bias"] for i in range(len(actor.sizes) + 1)]
        if actor.layer_norm:
            for i, layer in enumerate(layers[:-1]):
                layer += [f"{body}/LayerNorm_{i}/scale", f"{body}/LayerNorm_{i}/bias"]
        statistics = (f"{_STATISTICS}/mean", f"{_STATISTICS}/std") if self.config.standardise else ()
        normalised = (
            "scale * (y - mean(y)) / sqrt(variance(y) + layer_norm_epsilon) + bias" if actor.layer_norm else "y"
        )
        return PolicyNetwork(
            algorithm="sac",
            head=actor.head,
            hidden_sizes=actor.sizes,
            activation=actor.activation,
            layer_norm=actor.layer_norm,
            layer_norm_epsilon=LAYER_NORM_EPSILON,
            input=_STANDARDISED if self.config.standardise else "observation",
            tensors=(*statistics, *(name for layer in layers for name in layer)),
            hidden_layer=f"{actor.activation}({normalised}), y = x @ kernel + bias",
            output="x @ kernel + bias, 2 A values",
            mean_action=_MEAN_ACTIONS[actor.head] + ", clipped to [-1, 1] in flight",
            standard_deviation=self._standard_deviation(),
        )

    def policy_layers(self, policy: Any) -> PolicyLayers:
        """Return the layers that compute the mean action."""
        return policy_layers(self.config, self.actions, policy)

    def _standard_deviation(self) -> str:
        """Return the head's standard deviation, before any squashing, as a formula of the output."""
        actor = self.config.actor
        if actor.head == "squashed":
            low, high = actor.log_std_min, actor.log_std_max
            return f"exp({low!r} + {0.5 * (high - low)!r} * (tanh(output[A:]) + 1)), before the tanh"
        if actor.head == "bounded":
            return f"{self.config.max_std!r} * sigmoid(output[A:])"
        return "softplus(output[A:]) + 1e-8"

    def draw_minibatch(
        self, agent: Agent, replay: Memory, key: Array, size: int, updates: Array
    ) -> tuple[Minibatch, Array]:
        """Return this device's share of a minibatch of n-step transitions, and all indices [size] of the minibatch."""
        beta = 1.0 - (1.0 - self.config.beta) * self.config.beta_decay ** updates.astype(jnp.float32)
        index, weight = store.sample(replay, key, size, beta, self.config.prior.share)
        later = device_share(self._later(key, size))
        batch = self._minibatch(agent, replay, device_share(index), device_share(weight), later)
        return self._mirror_half(batch) if self.config.mirror else batch, index

    def _mirror_half(self, batch: Minibatch) -> Minibatch:
        """Return a minibatch in which every second transition is that of the mirrored flight."""
        obs_signs, action_signs = (np.array(signs, np.float32) for signs in self.interface.environment.mirror)
        second = (np.arange(batch.obs.shape[0]) % 2 == 1)[:, None]
        seen, flown = (jnp.where(second, signs[None], 1.0) for signs in (obs_signs, action_signs))
        return batch._replace(obs=batch.obs * seen, action=batch.action * flown, next_obs=batch.next_obs * seen)

    def with_actor_rows(self, batch: Minibatch, replay: Memory, index: Array, key: Array) -> Minibatch:
        """Return a minibatch whose actor sees other rows than the critics: a share of them is drawn uniformly.

        Strata follow the order of the rows, so the places that are replaced are spread evenly, from a random first one.
        """
        size = index.size
        share = round(self.config.actor_uniform_share * size)
        if share == 0 or not self.config.prioritised:
            return batch
        turn_key, row_key = jax.random.split(jax.random.fold_in(key, _ACTOR))
        replaced = jnp.roll((np.arange(size) * share) % size < share, jax.random.randint(turn_key, (), 0, size))
        rows = jnp.where(replaced, store.sample_uniform(replay, row_key, size, self.config.prior.share), index)
        seen = store.rows_at(replay, device_share(rows), self.example)
        return batch._replace(actor_obs=seen.obs, actor_privileged=seen.privileged)

    def _later(self, key: Array, size: int) -> tuple[Array, Array]:
        """Return the later steps of windows whose entropy is estimated, [size, M] from 0 to n-2, and noise [size, M, A].

        Of more than `_MOST_LATER` steps, one is drawn from each of as many equal strata: the actor would otherwise be
        evaluated n times for each row.
        """
        later = self.config.n_step - 1
        most = min(later, _MOST_LATER)
        step_key, noise_key = jax.random.split(jax.random.fold_in(key, _LATER))
        steps = jnp.broadcast_to(jnp.arange(most), (size, most))
        if later > most:
            drawn = (steps + jax.random.uniform(step_key, (size, most))) * (later / most)
            steps = jnp.minimum(drawn.astype(jnp.int32), later - 1)
        return steps, jax.random.normal(noise_key, (size, most, self.actions))

    def _minibatch(
        self, agent: Agent, replay: Memory, index: Array, weight: Array, later: tuple[Array, Array]
    ) -> Minibatch:
        """Return the n-step transitions that start at rows [B], with the entropies of M later steps (`_later`)."""
        config = self.config
        window = store.gather_n_step(replay, index, self.example, config.n_step, self.discount, config.vehicles)
        reward = window.reward
        if config.n_step > 1:
            steps, noise = later
            obs = jnp.take_along_axis(window.later.obs, steps[:, :, None], axis=1)
            of_step = jnp.take_along_axis(window.later_weight, steps, axis=1) * ((config.n_step - 1) / steps.shape[1])
            reward += later_entropies(config, self.networks_of, agent, obs, of_step, noise)
        return Minibatch(
            obs=window.first.obs,
            action=window.first.action,
            reward=reward,
            next_obs=window.last.next_obs,
            discount=window.discount * (1.0 - window.last.terminated),
            weight=weight,
            privileged=window.first.privileged,
            next_privileged=window.last.next_privileged,
        )

    def _all_td_errors(self, agent: Agent, replay: Memory, key: Array) -> Array:
        """Return |TD error| [C] of every row, in blocks."""
        capacity = store.capacity(replay)

        def block(number: Array) -> Array:
            index = jnp.minimum(number * _TD_BLOCK + jnp.arange(_TD_BLOCK), capacity - 1)
            block_key = jax.random.fold_in(key, number)
            batch = self._minibatch(agent, replay, index, jnp.ones(_TD_BLOCK), self._later(block_key, _TD_BLOCK))
            noise = jax.random.normal(block_key, (_TD_BLOCK, self.actions))
            target = td_target(self.config, self.networks_of, agent, batch, noise)
            return critic_loss(self.networks_of, agent.critic, batch, target)[1][0]

        return lax.map(block, jnp.arange(-(-capacity // _TD_BLOCK))).reshape(-1)[:capacity]
