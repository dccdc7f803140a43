"""Networks: the three heads as densities, twin critics, sizes, LayerNorm's gradient, initial weights."""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mission import ActorConfig, NetworkConfig, SacConfig
from mission.sac.networks import (
    Actor,
    LayerNorm,
    Normal,
    Perceptron,
    layer_norm,
    make_networks,
    mean_action,
    sample_action,
)

HEADS = ("squashed", "bounded", "softplus")
NORMALS = ((0.0, 0.0), (0.7, -1.0), (-1.5, 0.5), (0.3, -4.0))
sample = jax.jit(sample_action, static_argnums=0)


def draw(head: str, mean: float, log_std: float, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Actions [N] and log-densities [N] of one-dimensional actions, float64."""
    column = jnp.asarray(noise, jnp.float32)[:, None]
    action, log_density = sample(head, Normal(jnp.full_like(column, mean), jnp.full_like(column, log_std)), column)
    return np.asarray(action, np.float64)[:, 0], np.asarray(log_density, np.float64)


def density(head: str, mean: float, std: float, action: np.ndarray) -> np.ndarray:
    """The density of an action by the change of variables, from the action alone."""
    u = np.arctanh(action) if head == "squashed" else action
    normal = np.exp(-0.5 * ((u - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi))
    return normal / (1.0 - action**2) if head == "squashed" else normal


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(("mean", "log_std"), NORMALS)
def test_density_integrates_to_one(head: str, mean: float, log_std: float) -> None:
    """Over the action: along a grid of noise the action is monotone, so the trapezia need no inverse."""
    action, log_density = draw(head, mean, log_std, np.linspace(-6.0, 6.0, 20_001))
    assert (np.diff(action) > -1e-6).all()
    assert np.abs(np.trapezoid(np.exp(log_density), action) - 1.0) < 2e-3
    if head == "squashed":
        assert np.abs(action).max() <= 1.0


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(("mean", "log_std"), NORMALS)
def test_density_against_numpy(head: str, mean: float, log_std: float) -> None:
    action, log_density = draw(head, mean, log_std, np.linspace(-2.0, 2.0, 401))
    inside = np.abs(action) < 0.99 if head == "squashed" else np.ones(401, bool)
    assert inside.sum() > 50
    expected = np.log(density(head, mean, math.exp(log_std), action[inside]))
    np.testing.assert_allclose(log_density[inside], expected, atol=2e-3)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(("mean", "log_std"), NORMALS)
def test_samples_follow_the_density(head: str, mean: float, log_std: float) -> None:
    """Share of samples in each bin against the integral of the numpy density over it."""
    count = 100_000
    action, _ = draw(head, mean, log_std, np.random.default_rng(0).normal(size=count))
    edges = np.quantile(action, np.linspace(0.02, 0.98, 21))
    fine = np.linspace(edges[:-1], edges[1:], 201)
    mass = np.trapezoid(density(head, mean, math.exp(log_std), fine), fine, axis=0)
    share = np.histogram(action, edges)[0] / count
    assert np.abs(share - mass).max() < 4.5 * math.sqrt(0.05 / count) * 1.5


def test_log_density_sums_over_actions() -> None:
    rng = np.random.default_rng(0)
    mean, log_std, noise = rng.normal(size=(3, 5, 3)).astype(np.float32) * 0.4
    for head in HEADS:
        action, log_density = sample(head, Normal(jnp.asarray(mean), jnp.asarray(log_std)), jnp.asarray(noise))
        expected = np.log(density(head, mean.astype(np.float64), np.exp(log_std), np.asarray(action, np.float64))).sum(
            axis=1
        )
        assert log_density.shape == (5,)
        np.testing.assert_allclose(log_density, expected, rtol=1e-4, atol=1e-4)


@settings(max_examples=300, deadline=None)
@given(st.floats(-1e4, 1e4, width=32), st.floats(-5.0, 2.0, width=32), st.floats(-6.0, 6.0, width=32))
def test_squashed_density_is_finite_far_out(mean: float, log_std: float, noise: float) -> None:
    """log(1 - tanh(u)^2) against its float64 form 2 (log 2 - |u| - log1p(exp(-2 |u|)))."""
    action, log_density = draw("squashed", mean, log_std, np.array([noise]))
    assert np.isfinite(log_density).all()
    assert abs(action[0]) <= 1.0
    u = abs(float(np.float32(mean) + np.exp(np.float32(log_std)) * np.float32(noise)))
    expected = (
        -0.5 * noise**2
        - log_std
        - 0.5 * math.log(2 * math.pi)
        - 2.0 * (math.log(2.0) - u - math.log1p(math.exp(-2.0 * u)))
    )
    np.testing.assert_allclose(log_density[0], expected, rtol=1e-4, atol=1e-3)


def test_squashed_gradient_is_finite_far_out() -> None:
    def log_density(mean: jax.Array) -> jax.Array:
        return sample_action("squashed", Normal(mean, jnp.zeros_like(mean)), jnp.zeros_like(mean))[1].sum()

    slope = np.asarray(jax.grad(log_density)(jnp.array([[-200.0], [-20.0], [0.0], [20.0], [200.0]])))[:, 0]
    np.testing.assert_allclose(slope, [-2.0, -2.0, 0.0, 2.0, 2.0], atol=1e-6)


RAW = np.array([-30.0, -1.3, 0.0, 0.4, 25.0])


@pytest.mark.parametrize("head", HEADS)
def test_head_of_an_actor(head: str) -> None:
    """Zero weights leave the output's bias, so mean and std are known functions of it."""
    config = ActorConfig(width=4, depth=1, head=head, log_std_min=-3.0, log_std_max=1.0)
    actor = Actor(config, 5, 0.2)
    params = jax.tree.map(jnp.zeros_like, actor.init(jax.random.key(0), jnp.zeros((1, 2))))
    mean = np.linspace(-2.0, 2.0, 5)
    params["params"]["body"]["Dense_1"]["bias"] = jnp.asarray(np.concatenate([mean, RAW]), jnp.float32)
    normal = actor.apply(params, jnp.ones((3, 2)))
    means = {"squashed": mean, "bounded": np.tanh(mean), "softplus": mean}
    stds = {
        "squashed": np.exp(-3.0 + 2.0 * (np.tanh(RAW) + 1.0)),
        "bounded": 0.2 / (1.0 + np.exp(-RAW)),
        "softplus": np.logaddexp(0.0, RAW) + 1e-8,
    }
    np.testing.assert_allclose(normal.mean, np.tile(means[head], (3, 1)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.exp(normal.log_std), np.tile(stds[head], (3, 1)), rtol=1e-4)
    np.testing.assert_allclose(
        mean_action(head, normal)[0], np.tanh(mean) if head != "softplus" else mean, rtol=1e-5, atol=1e-6
    )


def test_twin_critics_share_nothing() -> None:
    networks = make_networks(SacConfig(critic=NetworkConfig(width=8, layer_norm=True)), 2)
    obs, action = jax.random.normal(jax.random.key(0), (6, 3)), jax.random.normal(jax.random.key(1), (6, 2))
    params = networks.critic.init(jax.random.key(2), obs, action)
    q = networks.q(params, obs, action)
    assert q.shape == (2, 6)
    assert np.abs(q[0] - q[1]).max() > 1e-3
    for twin, other in ((0, "q2"), (1, "q1")):
        grads = jax.grad(lambda params, twin=twin: networks.q(params, obs, action)[twin].sum())(params)["params"]
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(grads[other]))
        mine = grads["q1" if other == "q2" else "q2"]
        assert all(
            np.any(leaf) for name, layer in mine.items() for leaf in jax.tree.leaves(layer) if name.startswith("Dense")
        )


@pytest.mark.parametrize(
    ("config", "sizes"),
    [
        (NetworkConfig(width=5, depth=1), [5]),
        (NetworkConfig(width=7, depth=3, layer_norm=True), [7, 7, 7]),
        (NetworkConfig(width=99, depth=9, layers=(4, 6), activation="elu"), [4, 6]),
    ],
)
def test_layers_and_their_initial_weights(config: NetworkConfig, sizes: list[int]) -> None:
    params = Perceptron(config, 2).init(jax.random.key(0), jnp.zeros((1, 3)))["params"]
    assert len([name for name in params if name.startswith("LayerNorm")]) == (len(sizes) if config.layer_norm else 0)
    for layer, (fan_in, fan_out) in enumerate(zip([3, *sizes], [*sizes, 2], strict=True)):
        dense = params[f"Dense_{layer}"]
        assert dense["kernel"].shape == (fan_in, fan_out)
        assert np.abs(dense["kernel"]).max() <= math.sqrt(6.0 / (fan_in + fan_out))
        assert not np.any(dense["bias"])
    assert f"Dense_{len(sizes) + 1}" not in params


def test_weights_are_xavier_uniform() -> None:
    kernel = np.asarray(
        Perceptron(NetworkConfig(width=300, depth=1), 200).init(jax.random.key(0), jnp.zeros((1, 100)))["params"][
            "Dense_1"
        ]["kernel"]
    )
    bound = math.sqrt(6.0 / 500)
    assert 0.999 * bound < np.abs(kernel).max() <= bound
    np.testing.assert_allclose(kernel.std(), bound / math.sqrt(3.0), rtol=0.01)
    np.testing.assert_allclose(kernel.mean(), 0.0, atol=4 * bound / math.sqrt(3.0 * kernel.size))


@pytest.mark.parametrize("name", ["relu", "tanh", "elu", "silu"])
def test_forward_pass_against_numpy(name: str) -> None:
    functions = {
        "relu": lambda x: np.maximum(x, 0.0),
        "tanh": np.tanh,
        "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0.0))),
        "silu": lambda x: x / (1.0 + np.exp(-x)),
    }
    network = Perceptron(NetworkConfig(layers=(6, 5), activation=name, layer_norm=True), 2)
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    params = network.init(jax.random.key(1), x)
    hidden = x.astype(np.float64)
    for layer in range(3):
        dense = params["params"][f"Dense_{layer}"]
        hidden = hidden @ np.asarray(dense["kernel"], np.float64) + np.asarray(dense["bias"])
        if layer < 2:
            hidden = (hidden - hidden.mean(axis=1, keepdims=True)) / np.sqrt(hidden.var(axis=1, keepdims=True) + 1e-6)
            hidden = functions[name](hidden)
    np.testing.assert_allclose(network.apply(params, x), hidden, rtol=1e-4, atol=1e-5)


def plain_layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    mean = x.mean(axis=-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(axis=-1, keepdims=True)
    return (x - mean) / jnp.sqrt(variance + 1e-6) * scale[None, :] + bias[None, :]


@pytest.mark.parametrize(("rows", "width", "offset"), [(1, 4, 0.0), (7, 64, 0.0), (32, 15, 3.0)])
def test_layer_norm_and_its_gradient(rows: int, width: int, offset: float) -> None:
    rng = np.random.default_rng(width)
    x = jnp.asarray(rng.normal(size=(rows, width)) * 2.0 + offset, jnp.float32)
    scale, bias = (jnp.asarray(rng.normal(size=width), jnp.float32) for _ in range(2))
    weight = jnp.asarray(rng.normal(size=(rows, width)), jnp.float32)
    linen = nn.LayerNorm(epsilon=1e-6)

    def by_linen(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
        return linen.apply({"params": {"scale": scale, "bias": bias}}, x)

    def loss(function):
        return lambda *arguments: (function(*arguments) * weight).sum()

    ours = jax.grad(loss(layer_norm), argnums=(0, 1, 2))(x, scale, bias)
    for other in (plain_layer_norm, by_linen):
        np.testing.assert_allclose(layer_norm(x, scale, bias), other(x, scale, bias), rtol=1e-4, atol=1e-5)
        for mine, theirs in zip(ours, jax.grad(loss(other), argnums=(0, 1, 2))(x, scale, bias), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-4)


def test_layer_norm_module_starts_as_the_plain_one() -> None:
    x = jax.random.normal(jax.random.key(0), (5, 8))
    module = LayerNorm()
    params = module.init(jax.random.key(1), x)
    np.testing.assert_allclose(
        module.apply(params, x), nn.LayerNorm().apply({"params": params["params"]}, x), atol=1e-5
    )
    constant = module.apply(params, jnp.full((2, 8), 3.0))
    np.testing.assert_allclose(constant, 0.0, atol=1e-3)


@pytest.mark.parametrize("head", HEADS)
def test_without_output_scale_a_policy_begins_at_the_middle(head: str) -> None:
    """What a correction of a guide needs: mean 0 whatever is observed; and the std is still the head's."""
    obs = jnp.asarray(np.random.default_rng(0).normal(size=(64, 5)), jnp.float32)

    def begin(scale: float) -> Normal:
        actor = Actor(ActorConfig(width=16, head=head, output_scale=scale), 3, 1.0)
        return actor.apply(actor.init(jax.random.key(0), obs), obs)

    assert np.abs(np.asarray(mean_action(head, begin(0.0)))).max() == 0.0
    assert np.ptp(np.asarray(begin(0.0).log_std)) == 0.0
    whole, half = (np.asarray(begin(scale).mean) for scale in (1.0, 0.5))
    assert np.abs(whole).max() > 0.1
    if head != "bounded":
        np.testing.assert_allclose(half, 0.5 * whole, atol=1e-6)
