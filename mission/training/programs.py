"""The compiled programs of one phase in training: each is one `shard_map`, traced once.

Shapes: E vehicles, U updates a cycle, B batch, O observation, A action, L state leaves.
Everything is replicated on the devices but the batches, of which each takes its share. Keys are
folded from counters in the state, so where a chunk begins and ends changes nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from mission.devices import AXIS, REPLICATED, mesh
from mission.flight.batches import Flight, compile_flight
from mission.flight.fly import EnvBatch, Transition, guide_controller, start_envs, step_envs
from mission.phase import Phase
from mission.sac import replay as store
from mission.sac.config import SacConfig
from mission.sac.losses import (
    Agent,
    Batch,
    all_mean,
    create_agent,
    critic_loss,
    optimisers,
    td_target,
    update_agent,
    update_targets,
)
from mission.sac.networks import Networks, make_networks, sample_action
from mission.sac.replay import Replay

_TD_BLOCK = 4096


class TrainState(NamedTuple):
    """Everything on the device that a training run carries."""

    agent: Agent
    replay: Replay
    envs: EnvBatch
    iteration: Array  # int32 [], steps of every vehicle so far


@dataclasses.dataclass(frozen=True, eq=False)
class Programs:
    """The compiled functions of one phase; each is traced once."""

    init: Callable[[Array, Any], TrainState]
    fill: Callable[[TrainState, Any, Array], tuple[TrainState, Any]]
    warm_up: Callable[[TrainState, Array], tuple[TrainState, Array]]
    chunk: Callable[[TrainState, Any, Array], tuple[TrainState, Any]]
    flight: Flight


def _example(phase: Phase) -> Transition:
    obs, action = jnp.zeros(len(phase.environment.observation_names)), jnp.zeros(len(phase.environment.action_names))
    return Transition(obs, action, jnp.zeros(()), obs, jnp.zeros(()), jnp.zeros(()))


def sample_batch(
    config: SacConfig, example: Transition, replay: Replay, key: Array, size: int, updates: Array
) -> tuple[Batch, Array]:
    """This device's share of a batch of n-step transitions, and the indices [size] of the whole batch."""
    beta = 1.0 - (1.0 - config.beta) * config.beta_decay ** updates.astype(jnp.float32)
    index, weight = store.sample(replay, key, size, beta)
    return _batch(config, example, replay, share(index), share(weight)), index


def _batch(config: SacConfig, example: Transition, replay: Replay, index: Array, weight: Array) -> Batch:
    """The n-step transitions that begin at rows [B]."""
    window = store.gather_n_step(replay, index, example, config.n_step, config.gamma, config.vehicles)
    discount = window.discount * (1.0 - window.last.terminated)
    return Batch(window.first.obs, window.first.action, window.reward, window.last.next_obs, discount, weight)


def share(batch: Array, axis: int = 0) -> Array:
    """This device's part of a batch; the whole of it where it does not divide evenly."""
    devices = lax.axis_size(AXIS)
    if batch.shape[axis] % devices:
        return batch
    size = batch.shape[axis] // devices
    return lax.dynamic_slice_in_dim(batch, lax.axis_index(AXIS) * size, size, axis)


# Weights of shape [B] against errors of shape [B, 1] would broadcast to [B, B] in silence. The
# learner's code refuses that while it is traced; what plugins do in theirs is their own affair.
strict = jax.numpy_rank_promotion("raise")


def compile_programs(phase: Phase) -> Programs:
    """All programs of a phase: one `shard_map` each, everything replicated but the batches."""
    config, env = phase.sac, phase.environment
    assert config is not None
    actions, example = len(env.action_names), _example(phase)
    networks = make_networks(config, actions)
    capacity = config.buffer_size // config.vehicles * config.vehicles
    guide = guide_controller(phase)

    def collect(
        state: TrainState, bank: Any, key: Array, act: Callable[[Any, Array, Array], Array]
    ) -> tuple[TrainState, Any]:
        act_key, noise_key, step_key = jax.random.split(jax.random.fold_in(key, state.iteration), 3)
        obs = jax.vmap(env.observe)(state.envs.state)
        action = act(state.envs.state, obs, act_key)
        if config.exploration_noise > 0:
            action = action + config.exploration_noise * jax.random.normal(noise_key, action.shape)
        if config.actor.head == "squashed":
            action = jnp.clip(action, -1.0, 1.0)
        envs, transition, end, terms, finite = step_envs(phase, bank, state.envs, obs, action, step_key)
        report = {
            "ended": end.ended.sum(),
            "success": end.success.sum(),
            "return": jnp.where(end.ended, end.returns, 0.0).sum(),
            "length": jnp.where(end.ended, end.steps, 0).sum(),
            "terms": {name: jnp.asarray(term, jnp.float32).mean() for name, term in terms.items()},
            "finite": finite,
        }
        after = TrainState(state.agent, store.append(state.replay, transition), envs, state.iteration + 1)
        return after, (report, action, transition.reward)

    def policy(agent: Agent) -> Callable[[Any, Array, Array], Array]:
        def act(states: Any, obs: Array, key: Array) -> Array:
            normal = networks.normal(agent.actor, obs)
            return sample_action(config.actor.head, normal, jax.random.normal(key, (obs.shape[0], actions)))[0]

        return act

    def first_action(states: Any, obs: Array, key: Array) -> Array:
        if config.fill.policy == "guide":
            return guide(None, states, obs)
        return jax.random.uniform(key, (obs.shape[0], actions), minval=-1.0, maxval=1.0)

    def init(key: Array, bank: Any) -> TrainState:
        agent_key, env_key = jax.random.split(key)
        agent = create_agent(config, networks, agent_key, len(env.observation_names))
        replay = store.create(capacity, store.row_width(example), config.prioritised)
        return TrainState(agent, replay, start_envs(phase, bank, env_key, config.vehicles), jnp.int32(0))

    def fill(state: TrainState, bank: Any, key: Array) -> tuple[TrainState, Any]:
        state, (report, _, _) = lax.scan(
            lambda s, _: collect(s, bank, key, first_action), state, None, length=config.fill_iterations
        )
        return state, report["finite"]

    @strict
    def warm_up(state: TrainState, key: Array) -> tuple[TrainState, Array]:
        return _warm_up(config, networks, example, state, key)

    @strict
    def update(state: TrainState, key: Array) -> tuple[TrainState, Any]:
        sample_key, noise_key = jax.random.split(jax.random.fold_in(key, state.agent.updates))
        batch, index = sample_batch(config, example, state.replay, sample_key, config.batch_size, state.agent.updates)
        noise = share(jax.random.normal(noise_key, (2, config.batch_size, actions)), axis=1)
        agent, td, metrics = update_agent(config, networks, state.agent, batch, noise, AXIS)
        td = td[: config.batch_size]
        replay = store.update_priorities(state.replay, index, td, config.alpha, config.priority_epsilon)
        return state._replace(agent=agent, replay=replay), (metrics, td)

    def chunk(state: TrainState, bank: Any, key: Array) -> tuple[TrainState, Any]:
        collect_key, update_key, look_key = jax.random.split(key, 3)
        iterations, updates = config.update_cycle

        def cycle(state: TrainState, _: None) -> tuple[TrainState, Any]:
            state, (report, action, reward) = lax.scan(
                lambda s, _: collect(s, bank, collect_key, policy(s.agent)), state, None, length=iterations
            )
            state, (metrics, td) = lax.scan(lambda s, _: update(s, update_key), state, None, length=updates)
            return state, (report, metrics, action[-1], reward[-1], td[-1])

        state, (report, metrics, action, reward, td) = lax.scan(cycle, state, None, length=config.chunk_cycles)
        samples = {"Action": action[-1].ravel(), "Reward": reward[-1], "Critic/TDError": td[-1]}
        if state.replay.tree:
            looked = jax.random.randint(jax.random.fold_in(look_key, state.iteration), (512,), 0, state.replay.size)
            samples["Replay/Priority"] = state.replay.tree[-1].reshape(-1)[looked]
        return state, (report, metrics, samples)

    def replicated(function: Callable[..., Any], arguments: int, donate: bool) -> Callable[..., Any]:
        mapped = jax.shard_map(
            function, mesh=mesh(), in_specs=(REPLICATED,) * arguments, out_specs=REPLICATED, check_vma=False
        )
        return jax.jit(mapped, donate_argnums=0 if donate else ())

    return Programs(
        replicated(init, 2, False),
        replicated(fill, 3, True),
        replicated(warm_up, 2, True),
        replicated(chunk, 3, True),
        compile_flight(phase, agent=True),
    )


def _warm_up(
    config: SacConfig, networks: Networks, example: Transition, state: TrainState, key: Array
) -> tuple[TrainState, Array]:
    """Critic-only updates with their own rate and batch, then real priorities for every row."""
    settings, actions = config.warm_up, networks.actor.actions
    size = settings.batch_size or config.batch_size
    optimiser = optimisers(
        config.model_copy(update={"critic_learning_rate": settings.learning_rate or config.critic_learning_rate})
    )[1]

    def step(carry: tuple[Agent, Any], number: Array) -> tuple[tuple[Agent, Any], Array]:
        agent, optimiser_state = carry
        sample_key, noise_key = jax.random.split(jax.random.fold_in(key, number))
        batch, _ = sample_batch(config, example, state.replay, sample_key, size, jnp.int32(0))
        target = td_target(config, networks, agent, batch, share(jax.random.normal(noise_key, (size, actions))))
        loss, grads = jax.value_and_grad(lambda p: critic_loss(networks, p, batch, target)[0])(agent.critic)
        grads, loss = all_mean((grads, loss), AXIS)
        changes, optimiser_state = optimiser.update(grads, optimiser_state)
        agent = update_targets(config, agent._replace(critic=optax.apply_updates(agent.critic, changes)))
        return (agent, optimiser_state), loss

    (agent, _), losses = lax.scan(step, (state.agent, optimiser.init(state.agent.critic)), jnp.arange(settings.steps))
    td = _all_td_errors(config, networks, example, agent, state.replay, jax.random.fold_in(key, settings.steps))
    replay = store.rebuild_priorities(state.replay, td, config.alpha, config.priority_epsilon)
    return state._replace(agent=agent, replay=replay), losses


def _all_td_errors(
    config: SacConfig, networks: Networks, example: Transition, agent: Agent, replay: Replay, key: Array
) -> Array:
    """|TD error| [C] of every row, in blocks."""
    capacity = replay.rows.shape[0]

    def block(number: Array) -> Array:
        index = jnp.minimum(number * _TD_BLOCK + jnp.arange(_TD_BLOCK), capacity - 1)
        batch = _batch(config, example, replay, index, jnp.ones(_TD_BLOCK))
        noise = jax.random.normal(jax.random.fold_in(key, number), (_TD_BLOCK, networks.actor.actions))
        return critic_loss(networks, agent.critic, batch, td_target(config, networks, agent, batch, noise))[1][0]

    return lax.map(block, jnp.arange(-(-capacity // _TD_BLOCK))).reshape(-1)[:capacity]
