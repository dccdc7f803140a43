"""The target entropy of an agent, and the largest entropy that its head can have; numpy only, so that a check is quick.

SAC: Haarnoja et al. 2018, arXiv:1812.05905.
"""

from __future__ import annotations

import math

import numpy as np

from mission.sac.config import SacConfig

_GRID = 400  # standard deviations that are tried
_NOISE = np.linspace(-8.0, 8.0, 2001)  # standard normal, as a grid


def gaussian_entropy(std: float) -> float:
    """Return the entropy of a Gaussian with this standard deviation."""
    return math.log(std) + 0.5 * math.log(2 * math.pi * math.e)


def target_entropy(config: SacConfig, actions: int) -> float:
    """Return the target entropy: -A (1812.05905, section 5), that of a Gaussian, or a number."""
    if config.target_std_fraction is not None:
        return actions * gaussian_entropy(config.target_std_fraction * config.max_std)
    if config.target_entropy == "action_dim":
        return -float(actions)
    if config.target_entropy == "max_std":
        return actions * gaussian_entropy(config.max_std)
    return float(config.target_entropy)


def largest_entropy(config: SacConfig, actions: int) -> float:
    """Return the supremum of the entropy of the actor's head: that of max_std, of a tanh-Gaussian, or infinity."""
    head = config.actor.head
    if head == "softplus":
        return math.inf
    if head == "bounded":
        return actions * gaussian_entropy(config.max_std)
    return actions * _largest_of_tanh(config.actor.log_std_min, config.actor.log_std_max)


def _largest_of_tanh(log_std_min: float, log_std_max: float) -> float:
    """Return the largest entropy of tanh(N(0, std)), over the std between two bounds.

    It is the Gaussian's plus E[log(1 - tanh(u)^2)], which is concave and even in the mean, so that the mean 0 is best.
    At std 0.87 it has its maximum, a little below log 2, the entropy of uniform actions.
    """
    std = np.exp(np.linspace(log_std_min, log_std_max, _GRID))
    size = np.abs(std[:, None] * _NOISE)
    log_slope = 2.0 * (math.log(2.0) - size - np.log1p(np.exp(-2.0 * size)))
    weight = np.exp(-0.5 * _NOISE**2)
    entropy = np.log(std) + 0.5 * math.log(2 * math.pi * math.e) + log_slope @ (weight / weight.sum())
    return float(entropy.max())
