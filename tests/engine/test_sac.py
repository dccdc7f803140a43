"""Losses and updates against float64 numpy with numerical gradients; temperature, clips, preset, warm-up."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import probes
import pytest
from jax import Array
from jax.flatten_util import ravel_pytree
from jax.sharding import PartitionSpec

from mission import ActorConfig, NetworkConfig, SacConfig
from mission.learner import PhaseInterface, Transition
from mission.machine.devices import AXIS, REPLICATED, SPLIT, mesh
from mission.sac import replay as store
from mission.sac.config import PRESETS
from mission.sac.entropy import target_entropy
from mission.sac.learner import Sac
from mission.sac.losses import (
    Agent,
    Minibatch,
    actor_loss,
    create_agent,
    critic_loss,
    optimisers,
    td_target,
    temperature_loss,
    update_agent,
    update_targets,
)
from mission.sac.networks import make_networks
from mission.testing import make_phase
from mission.training.loop import begin, fill_and_warm_up, run_chunk, train_chunk

OBS, ACT, SIZE = 3, 2, 8
TINY: dict[str, Any] = {"width": 3, "depth": 1, "activation": "tanh"}
Tree = dict[str, Any]


def config(**changes: Any) -> SacConfig:
    settings: dict[str, Any] = {
        "actor": ActorConfig(**TINY),
        "critic": NetworkConfig(**TINY),
        "tau": 0.1,
        "actor_learning_rate": 1e-2,
        "critic_learning_rate": 2e-2,
        "temperature_learning_rate": 3e-2,
        "batch_size": SIZE,
    }
    return SacConfig(**(settings | changes))


def make_batch(seed: int) -> tuple[Minibatch, Array]:
    rng = np.random.default_rng(seed)
    obs, next_obs = rng.normal(size=(2, SIZE, OBS))
    action = rng.uniform(-1.0, 1.0, (SIZE, ACT))
    reward, discount, weight = rng.normal(size=SIZE), 0.9 * (rng.random(SIZE) > 0.3), rng.uniform(0.2, 1.0, SIZE)
    batch = Minibatch(*(jnp.asarray(leaf, jnp.float32) for leaf in (obs, action, reward, next_obs, discount, weight)))
    return batch, jnp.asarray(rng.normal(size=(2, SIZE, ACT)), jnp.float32)


# The reference: float64 numpy throughout.


def perceptron(params: Tree, x: np.ndarray) -> np.ndarray:
    first, second = params["Dense_0"], params["Dense_1"]
    return np.tanh(x @ first["kernel"] + first["bias"]) @ second["kernel"] + second["bias"]


def q_values(params: Tree, obs: np.ndarray, action: np.ndarray) -> np.ndarray:
    x = np.concatenate([obs, action], axis=1)
    return np.stack([perceptron(params["params"][name], x)[:, 0] for name in ("q1", "q2")])


def act(
    head: str, params: Tree, obs: np.ndarray, noise: np.ndarray, max_std: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    out = perceptron(params["params"]["body"], obs)
    mean, raw = out[:, :ACT], out[:, ACT:]
    if head == "squashed":
        std = np.exp(-5.0 + 3.5 * (np.tanh(raw) + 1.0))
        u = mean + std * noise
        action, jacobian = np.tanh(u), np.log(1.0 - np.tanh(u) ** 2)
    else:
        std = max_std / (1.0 + np.exp(-raw)) if head == "bounded" else np.log1p(np.exp(raw))
        action, jacobian = (np.tanh(mean) if head == "bounded" else mean) + std * noise, 0.0
    normal = np.exp(-0.5 * noise**2) / (std * math.sqrt(2 * math.pi))
    return action, (np.log(normal) - jacobian).sum(axis=1)


def slope(loss: Callable[[Tree], float], params: Tree) -> np.ndarray:
    """Central differences over every parameter, in the order of ravel_pytree."""
    leaves, tree = jax.tree.flatten(params)
    grads = []
    for k, leaf in enumerate(leaves):
        for at in np.ndindex(leaf.shape):
            ends = []
            for step in (1e-5, -1e-5):
                moved = leaf.copy()
                moved[at] += step
                ends.append(loss(jax.tree.unflatten(tree, [*leaves[:k], moved, *leaves[k + 1 :]])))
            grads.append((ends[0] - ends[1]) / 2e-5)
    return np.array(grads)


def precise(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def put(params: Tree, flat: np.ndarray) -> Tree:
    leaves, tree = jax.tree.flatten(params)
    parts = np.split(flat, np.cumsum([leaf.size for leaf in leaves])[:-1])
    return jax.tree.unflatten(tree, [part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)])


def flat_of(params: Tree) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params)])


class Adam:
    """Adam (Kingma and Ba 2015) behind a clip of the global norm."""

    def __init__(self, rate: float, max_norm: float | None) -> None:
        self.rate, self.max_norm, self.m, self.v, self.t = rate, max_norm, 0.0, 0.0, 0

    def step(self, grad: np.ndarray) -> np.ndarray:
        norm = np.linalg.norm(grad)
        if self.max_norm is not None and norm > self.max_norm:
            grad = grad * self.max_norm / norm
        self.t += 1
        self.m, self.v = 0.9 * self.m + 0.1 * grad, 0.999 * self.v + 0.001 * grad**2
        return -self.rate * (self.m / (1 - 0.9**self.t)) / (np.sqrt(self.v / (1 - 0.999**self.t)) + 1e-8)


def reference_losses(
    settings: SacConfig, agent: Tree, batch: Minibatch, noise: np.ndarray
) -> tuple[Callable, Callable, np.ndarray]:
    """Critic loss of critics, actor loss of (actor, critics), and the target."""
    head, temperature = settings.actor.head, math.exp(agent["log_temperature"])
    action, log_density = act(head, agent["actor"], batch.next_obs, noise[0], settings.max_std)
    value = q_values(agent["target"], batch.next_obs, action).min(axis=0) - temperature * log_density
    target = batch.reward + batch.discount * value

    def of_critic(critic: Tree) -> float:
        q = q_values(critic, batch.obs, batch.action)
        return (batch.weight * 0.5 * ((q[0] - target) ** 2 + (q[1] - target) ** 2)).mean()

    def of_actor(actor: Tree, critic: Tree) -> float:
        action, log_density = act(head, actor, batch.obs, noise[1], settings.max_std)
        return (temperature * log_density - q_values(critic, batch.obs, action).min(axis=0)).mean()

    return of_critic, of_actor, target


@pytest.mark.parametrize("head", ["squashed", "bounded", "softplus"])
def test_losses_and_their_gradients(head: str) -> None:
    settings = config(actor=ActorConfig(head=head, **TINY), max_std=0.5)
    networks = make_networks(settings, ACT)
    agent = create_agent(settings, networks, jax.random.key(1), OBS)
    agent = agent._replace(target_critic=create_agent(settings, networks, jax.random.key(2), OBS).critic)
    batch, noise = make_batch(0)
    plain = precise({"actor": agent.actor, "target": agent.target_critic, "log_temperature": agent.log_temperature})
    of_critic, of_actor, expected = reference_losses(settings, plain, precise(batch), precise(noise))

    target = td_target(settings, networks, agent, batch, noise[0])
    np.testing.assert_allclose(target, expected, rtol=1e-4, atol=1e-5)
    (loss, (td, q)), grads = jax.value_and_grad(lambda p: critic_loss(networks, p, batch, target), has_aux=True)(
        agent.critic
    )
    values = q_values(precise(agent.critic), batch.obs, batch.action)
    np.testing.assert_allclose(loss, of_critic(precise(agent.critic)), rtol=1e-4)
    np.testing.assert_allclose(td, np.abs(values - expected).mean(axis=0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(q, values.mean(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(ravel_pytree(grads)[0], slope(of_critic, precise(agent.critic)), rtol=1e-3, atol=1e-5)

    def actors_loss(p: Any) -> Any:
        return actor_loss(settings, networks, p, agent.critic, agent.log_temperature, batch.obs, noise[1])

    (loss, (log_density, std)), grads = jax.value_and_grad(actors_loss, has_aux=True)(agent.actor)
    critic = precise(agent.critic)
    np.testing.assert_allclose(loss, of_actor(plain["actor"], critic), rtol=1e-4)
    np.testing.assert_allclose(
        ravel_pytree(grads)[0], slope(lambda p: of_actor(p, critic), plain["actor"]), rtol=1e-3, atol=1e-5
    )
    np.testing.assert_allclose(
        log_density, act(head, plain["actor"], precise(batch.obs), precise(noise[1]), 0.5)[1].mean(), rtol=1e-4
    )
    assert std > 0


def test_temperature_loss() -> None:
    loss, grad = jax.value_and_grad(temperature_loss)(jnp.float32(-2.0), jnp.float32(1.5), -4.0)
    np.testing.assert_allclose([loss, grad], [2.0 * (1.5 - 4.0), -(1.5 - 4.0)])


def updater(settings: SacConfig) -> Callable[[Agent, Minibatch, Array], tuple[Agent, Array, dict[str, Array]]]:
    """`update_agent` on the devices, the batch split between them."""
    networks = make_networks(settings, ACT)

    def update(agent: Agent, batch: Minibatch, noise: Array) -> Any:
        return update_agent(settings, networks, agent, batch, noise, AXIS)

    specs = (REPLICATED, SPLIT, PartitionSpec(None, AXIS))
    return jax.jit(jax.shard_map(update, mesh=mesh(), in_specs=specs, out_specs=REPLICATED, check_vma=False))


@pytest.mark.parametrize("clip", [None, 0.05])
def test_updates_against_numpy(clip: float | None) -> None:
    """Four whole updates, split over the devices, against one big batch; the temperature waits for the third."""
    norms = dict.fromkeys(("actor_grad_max_norm", "critic_grad_max_norm", "temperature_grad_max_norm"), clip)
    settings = config(temperature_delay_updates=2, **norms)
    update, networks = updater(settings), make_networks(settings, ACT)
    agent = create_agent(settings, networks, jax.random.key(1), OBS)
    np.testing.assert_array_equal(ravel_pytree(agent.critic)[0], ravel_pytree(agent.target_critic)[0])
    np.testing.assert_allclose(np.exp(agent.log_temperature), settings.temperature_initial, rtol=1e-6)
    ref = precise(
        {
            "actor": agent.actor,
            "critic": agent.critic,
            "target": agent.target_critic,
            "log_temperature": agent.log_temperature,
        }
    )
    adams = Adam(1e-2, clip), Adam(2e-2, clip), Adam(3e-2, clip)
    for number in range(4):
        batch, noise = make_batch(10 + number)
        agent, td, metrics = update(agent, batch, noise)
        exact, draws = precise(batch), precise(noise)
        of_critic, of_actor, target = reference_losses(settings, ref, exact, draws)
        expected_td = np.abs(q_values(ref["critic"], exact.obs, exact.action) - target).mean(axis=0)
        expected = {"Critic/Loss": of_critic(ref["critic"]), "Critic/TDError": expected_td.mean()}
        ref["critic"] = put(ref["critic"], flat_of(ref["critic"]) + adams[1].step(slope(of_critic, ref["critic"])))
        expected["Actor/Loss"] = of_actor(ref["actor"], ref["critic"])
        log_density = act("squashed", ref["actor"], exact.obs, draws[1])[1].mean()
        expected["Actor/Entropy"] = -log_density
        ref["actor"] = put(
            ref["actor"],
            flat_of(ref["actor"]) + adams[0].step(slope(lambda p: of_actor(p, ref["critic"]), ref["actor"])),
        )
        if number >= 2:
            ref["log_temperature"] = ref["log_temperature"] + adams[2].step(np.array(-(log_density - ACT)))
        expected["Temperature/Value"] = math.exp(ref["log_temperature"])
        ref["target"] = jax.tree.map(lambda new, old: 0.1 * new + 0.9 * old, ref["critic"], ref["target"])
        np.testing.assert_allclose(td, expected_td, rtol=2e-3, atol=1e-4)
        for name, value in expected.items():
            np.testing.assert_allclose(metrics[name], value, rtol=2e-3, atol=1e-4, err_msg=name)
    for found, wanted in ((agent.actor, "actor"), (agent.critic, "critic"), (agent.target_critic, "target")):
        np.testing.assert_allclose(ravel_pytree(found)[0], flat_of(ref[wanted]), atol=2e-4, err_msg=wanted)
    np.testing.assert_allclose(agent.log_temperature, ref["log_temperature"], atol=1e-5)
    assert int(agent.updates) == 4
    assert ref["log_temperature"] != math.log(settings.temperature_initial)


def test_target_entropy() -> None:
    assert target_entropy(config(), 3) == -3.0
    normal = 0.5 * math.log(2 * math.pi * math.e * 0.2**2)
    assert target_entropy(config(target_entropy="max_std", max_std=0.2), 3) == pytest.approx(3 * normal)
    assert target_entropy(config(target_entropy=-1.25), 3) == -1.25


@pytest.mark.parametrize(("start", "entropy", "bound"), [(0.11, 50.0, 0.2), (0.19, -50.0, 0.1)])
def test_temperature_stays_within_its_clips(start: float, entropy: float, bound: float) -> None:
    settings = config(
        temperature_initial=start,
        temperature_min=0.1,
        temperature_max=0.2,
        temperature_learning_rate=0.5,
        target_entropy=entropy,
        temperature_delay_updates=0,
    )
    update = updater(settings)
    agent = create_agent(settings, make_networks(settings, ACT), jax.random.key(1), OBS)
    for number in range(3):
        agent, _, metrics = update(agent, *make_batch(number))
        assert 0.1 - 1e-6 <= float(metrics["Temperature/Value"]) <= 0.2 + 1e-6
    np.testing.assert_allclose(np.exp(agent.log_temperature), bound, rtol=1e-5)


def test_temperature_that_is_not_learned() -> None:
    settings = config(temperature_learned=False, temperature_delay_updates=0)
    agent = create_agent(settings, make_networks(settings, ACT), jax.random.key(1), OBS)
    after, _, _ = updater(settings)(agent, *make_batch(0))
    assert float(after.log_temperature) == float(agent.log_temperature)
    jax.tree.map(np.testing.assert_array_equal, after.temperature_optimiser, agent.temperature_optimiser)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_gradient_clips(which: int) -> None:
    """Each optimiser has its own clip; Adam's first moment shows what came through."""
    names = ("actor_grad_max_norm", "critic_grad_max_norm", "temperature_grad_max_norm")
    settings = config(**dict.fromkeys(names, 100.0) | {names[which]: 0.25})
    for number, optimiser in enumerate(optimisers(settings)):
        grad = {"a": jnp.array([3.0, 0.0]), "b": jnp.array([[4.0]])}
        _, state = optimiser.update(grad, optimiser.init(grad))
        moment = next(
            part.mu for part in jax.tree.leaves(state, is_leaf=lambda part: hasattr(part, "mu")) if hasattr(part, "mu")
        )
        norm = 0.25 if number == which else 5.0
        np.testing.assert_allclose(10.0 * ravel_pytree(moment)[0], np.array([3.0, 0.0, 4.0]) * norm / 5.0, rtol=1e-5)


def test_soft_update() -> None:
    settings = config(tau=0.3)
    agent = create_agent(settings, make_networks(settings, ACT), jax.random.key(1), OBS)
    agent = agent._replace(target_critic=jax.tree.map(lambda leaf: leaf + 1.0, agent.target_critic))
    after = update_targets(settings, agent)
    np.testing.assert_allclose(
        ravel_pytree(after.target_critic)[0], ravel_pytree(agent.critic)[0] + 0.7, rtol=1e-5, atol=1e-6
    )
    np.testing.assert_array_equal(ravel_pytree(after.critic)[0], ravel_pytree(agent.critic)[0])


def test_seed_preset_trains() -> None:
    """Learning hyper-parameters as printed; only the amounts are cut."""
    seed = SacConfig.model_validate(PRESETS["seed"])
    assert (seed.actor.sizes, seed.critic.sizes, seed.n_step, seed.batch_size) == ((50,) * 15, (50,) * 19, 200, 2048)
    quick = {
        "buffer_size": 4096,
        "fill": {"env_steps": 2048},
        "vehicles": 16,
        "updates_per_step": 6.25,
        "chunk_env_steps": 32,
    }
    settings = SacConfig.model_validate(
        PRESETS["seed"] | quick | {"warm_up": PRESETS["seed"]["warm_up"] | {"steps": 20}}
    )
    run = begin(make_phase(probes.drift(settings)), None, jax.random.key(0))
    seen: dict[str, Any] = {}
    warm: list[np.ndarray] = []

    def emit(kind: str, **parts: Any) -> None:
        if kind == "warm_up":
            warm.append(parts["series"]["CriticWarmUp/Loss"])

    fill_and_warm_up(run, emit)
    assert len(warm[0]) == 20
    assert np.isfinite(warm[0]).all()
    train_chunk(run, lambda kind, **parts: seen.update(parts["scalars"]))  # raises at the first loss that is not finite
    assert int(run.state.agent.updates) == 200
    assert all(
        np.isfinite(value) for name, value in seen.items() if name.startswith(("Critic/", "Actor/", "Temperature/"))
    )
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(run.state.agent))


@pytest.mark.parametrize(("updates", "beta"), [(0, 0.4), (693, 0.7), (100_000, 1.0)])
def test_beta_is_annealed_to_one(updates: int, beta: float) -> None:
    """1 - beta shrinks by beta_decay an update: half of it is gone after ln 2 / 0.001 of them."""
    sac = Sac(config(beta=0.4, beta_decay=0.999, vehicles=1, buffer_size=64), PhaseInterface(OBS, ACT))
    example = Transition(*(jnp.zeros(n) if n else jnp.zeros(()) for n in (OBS, ACT, 0, OBS, 0, 0)))
    rows = jax.tree.map(lambda leaf: jnp.zeros((64, *leaf.shape)), example)
    replay = store.append(store.create(64, store.row_width(example)), rows)
    errors = jnp.linspace(0.1, 4.0, 64)
    replay = store.rebuild_priorities(replay, errors, 1.0, 1e-3)
    agent = sac.init(jax.random.key(1))

    def draw(key: Array) -> tuple[Array, Array]:
        batch, index = sac.draw_minibatch(agent, replay, key, 32, jnp.int32(updates))
        return batch.weight, index[None]

    mapped = jax.shard_map(draw, mesh=mesh(), in_specs=REPLICATED, out_specs=SPLIT, check_vma=False)
    weight, index = jax.jit(mapped)(jax.random.key(0))
    probability = np.asarray(errors + 1e-3)[np.asarray(index[0])]
    expected = probability**-beta
    np.testing.assert_allclose(weight, expected / expected.max(), rtol=2e-3)


def test_warm_up_trains_critics_only_and_sets_every_priority() -> None:
    """Each episode is one step long, so the target is the reward and every TD error is known."""
    spec = probes.observed(warm_up={"steps": 40, "batch_size": 32, "learning_rate": 1e-2})
    run = begin(make_phase(spec), None, jax.random.key(0))
    run_chunk(run, "fill", run.phase.learner.fill_cycles, True)
    before = jax.tree.map(np.array, run.state._replace(replay=run.state.replay._asdict()))
    state, losses = run.programs.warm_up(run.state, jax.random.key(2))
    assert losses[-1] < 0.2 * losses[0]
    for part in ("actor", "actor_optimiser", "critic_optimiser", "temperature_optimiser", "log_temperature", "updates"):
        jax.tree.map(np.testing.assert_array_equal, getattr(before.agent, part), getattr(state.agent, part))
    assert np.abs(ravel_pytree(before.agent.critic)[0] - ravel_pytree(state.agent.critic)[0]).max() > 1e-3
    assert np.abs(ravel_pytree(before.agent.target_critic)[0] - ravel_pytree(state.agent.target_critic)[0]).max() > 1e-3
    jax.tree.map(np.testing.assert_array_equal, before.envs, state.envs)
    np.testing.assert_array_equal(before.replay["rows"], state.replay.rows)

    settings, size = run.phase.learner, int(state.replay.size)
    assert settings is not None
    assert size == 512
    obs, action, reward = np.split(np.asarray(state.replay.rows[:size, :4]), [2, 3], axis=1)
    q = make_networks(settings, 1).q(state.agent.critic, jnp.asarray(obs), jnp.asarray(action))
    expected = (np.abs(np.asarray(q) - reward[:, 0]).mean(axis=0) + settings.priority_epsilon) ** settings.alpha
    leaves = np.asarray(state.replay.tree[-1]).reshape(-1)
    np.testing.assert_allclose(leaves[:size], expected, rtol=1e-3, atol=1e-5)
    assert not leaves[size:].any()
    np.testing.assert_allclose(state.replay.tree[0].sum(), expected.sum(), rtol=1e-4)
    index, _ = store.sample(state.replay, jax.random.key(0), 512, 0.4)
    assert int(index.max()) < size
