"""Actor and twin critics in flax.linen, and the actor's three distributions.

Shapes: B minibatch, O observation, A action. The sampler and the density of a head are one distribution: every sample
is mean + std * noise, and its log-density is computed from the same noise.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from mission.sac.config import ActorConfig, NetworkConfig, SacConfig

HALF_LOG_2_PI = 0.5 * math.log(2 * math.pi)
LAYER_NORM_EPSILON = 1e-6
MOST_DEVIATIONS = 8.0  # from the mean, to which a standardised observation is clipped
_ACTIVATIONS = {"relu": nn.relu, "tanh": jnp.tanh, "elu": nn.elu, "silu": nn.silu}


@jax.custom_vjp
def layer_norm(x: Array, scale: Array, bias: Array) -> Array:
    """Apply LayerNorm over the last axis of [B, W] (Ba et al. 2016), with a hand-written gradient.

    The automatic derivative makes five passes over [B, W] on a CPU; this one makes two (`benchmarks/updates.py`
    measures the ratio).
    """
    return _layer_norm_forward(x, scale, bias)[0]


def _layer_norm_forward(x: Array, scale: Array, bias: Array) -> tuple[Array, tuple[Array, Array, Array]]:
    mean = x.mean(axis=-1, keepdims=True)
    variance = jnp.maximum((x * x).mean(axis=-1, keepdims=True) - mean * mean, 0.0)
    inverse_std = lax.rsqrt(variance + LAYER_NORM_EPSILON)
    normal = (x - mean) * inverse_std
    return normal * scale[None, :] + bias[None, :], (normal, inverse_std, scale)


def _layer_norm_backward(saved: tuple[Array, Array, Array], grad: Array) -> tuple[Array, Array, Array]:
    normal, inverse_std, scale = saved
    # Row means are products with a column vector: that is a fast library call, while a reduction is a slow loop.
    weight = (scale / scale.shape[0])[:, None]
    through_mean, through_std = grad @ weight, (grad * normal) @ weight
    dx = inverse_std * (grad * scale[None, :] - through_mean - normal * through_std)
    return dx, (grad * normal).sum(axis=0), grad.sum(axis=0)


layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)


class LayerNorm(nn.Module):
    """`layer_norm` with its parameters."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Normalise [B, W] -> [B, W]."""
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        return layer_norm(x, scale, bias)


class Standardise(nn.Module):
    """(x - mean) / std, clipped; both are variables that no optimiser changes."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Standardise [B, O]."""
        mean = self.variable("statistics", "mean", jnp.zeros, (x.shape[-1],)).value
        std = self.variable("statistics", "std", jnp.ones, (x.shape[-1],)).value
        mean, std = lax.stop_gradient((mean, std))
        return jnp.clip((x - mean[None, :]) / std[None, :], -MOST_DEVIATIONS, MOST_DEVIATIONS)


def with_statistics(params: Any, mean: Array, std: Array) -> Any:
    """Return the parameters of an actor or a critic with other statistics of the observation, [O] each."""
    return {**params, "statistics": {"standardise": {"mean": mean, "std": std}}}


def averaged(params: Any, average: Any, share: Array | float) -> Any:
    """Return the average of weights after an update; the statistics of the observation have none."""
    weights = optax.incremental_update(params["params"], average["params"], share)
    return {**params, "params": weights}


class Perceptron(nn.Module):
    """Hidden layers and a linear output; Xavier-uniform throughout."""

    config: NetworkConfig
    outputs: int
    output_scale: float = 1.0

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Evaluate [B, inputs] -> [B, outputs]."""
        xavier = nn.initializers.xavier_uniform()

        def last(*arguments: Any) -> Array:
            return self.output_scale * xavier(*arguments)

        for width in self.config.sizes:
            x = nn.Dense(width, kernel_init=xavier)(x)
            if self.config.layer_norm:
                x = LayerNorm()(x)
            x = _ACTIVATIONS[self.config.activation](x)
        return nn.Dense(self.outputs, kernel_init=last)(x)


class Normal(NamedTuple):
    """A diagonal Gaussian before any squashing, both [B, A]."""

    mean: Array
    log_std: Array


class Actor(nn.Module):
    """Observation [B, O] -> Normal [B, A], by the configured head."""

    config: ActorConfig
    actions: int
    max_std: float
    standardise: bool = False

    @nn.compact
    def __call__(self, obs: Array) -> Normal:
        """Evaluate [B, O] -> Normal [B, A]."""
        obs = Standardise(name="standardise")(obs) if self.standardise else obs
        out = Perceptron(self.config, 2 * self.actions, self.config.output_scale, name="body")(obs)
        mean, raw = out[:, : self.actions], out[:, self.actions :]
        if self.config.head == "squashed":
            low, high = self.config.log_std_min, self.config.log_std_max
            return Normal(mean, low + 0.5 * (high - low) * (jnp.tanh(raw) + 1.0))
        if self.config.head == "bounded":
            return Normal(jnp.tanh(mean), math.log(self.max_std) + jax.nn.log_sigmoid(raw))
        return Normal(mean, jnp.log(jax.nn.softplus(raw) + 1e-8))


class TwinCritic(nn.Module):
    """Two Q networks with separate parameters: ([B, O], [B, A]) -> [2, B]."""

    config: NetworkConfig
    standardise: bool = False

    @nn.compact
    def __call__(self, obs: Array, action: Array) -> Array:
        """Evaluate [B, O], [B, A] -> [2, B]."""
        obs = Standardise(name="standardise")(obs) if self.standardise else obs
        x = jnp.concatenate([obs, action], axis=-1)
        return jnp.stack([Perceptron(self.config, 1, name=name)(x)[:, 0] for name in ("q1", "q2")])


class Networks(NamedTuple):
    """The modules of one agent, without their parameters."""

    actor: Actor
    critic: TwinCritic

    def normal(self, params: Any, obs: Array) -> Normal:
        """Return the actor's distribution at [B, O]."""
        return cast(Normal, self.actor.apply(params, obs))

    def q(self, params: Any, obs: Array, action: Array) -> Array:
        """Return both critics' values [2, B] at [B, O], [B, A]."""
        return cast(Array, self.critic.apply(params, obs, action))


def make_networks(config: SacConfig, actions: int) -> Networks:
    """Return the modules for A actions under a configuration."""
    standardise = config.standardise
    return Networks(Actor(config.actor, actions, config.max_std, standardise), TwinCritic(config.critic, standardise))


def sample_action(head: str, normal: Normal, noise: Array) -> tuple[Array, Array]:
    """Return a reparameterised sample [B, A] and its log-density [B], for standard normal noise [B, A].

    squashed: a = tanh(u), log pi = log N(u) - sum log(1 - tanh(u)^2) (1812.05905, appendix C); the last term has the
    form 2 (log 2 - u - softplus(-2 u)), which does not underflow.
    """
    u = normal.mean + jnp.exp(normal.log_std) * noise
    log_density = (-0.5 * noise**2 - normal.log_std - HALF_LOG_2_PI).sum(axis=-1)
    if head != "squashed":
        return u, log_density
    return jnp.tanh(u), log_density - (2.0 * (math.log(2.0) - u - jax.nn.softplus(-2.0 * u))).sum(axis=-1)


def mean_action(head: str, normal: Normal) -> Array:
    """Return the action [B, A] that the trained policy flies."""
    return jnp.tanh(normal.mean) if head == "squashed" else normal.mean
