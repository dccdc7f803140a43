"""When the guide takes over a guarded phase: once it promises more than the agent, by a margin.

The parameters of a guarded phase are {"actor": those of its policy, "stay", "take": networks as `feasibility.network` fits
them, "margin": float32 []}, or the first alone if its guard is off. Shapes: N flights, O observation.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array

from mission.flight.feasibility.network import Weights, probability


def advantage(stay: Weights, take: Weights, obs: Array) -> Array:
    """Return by how much a take-over now raises the probability that the mission succeeds [N], for observations [N, O]."""
    return probability(take, obs) - probability(stay, obs)


def guide_promises_more(params: Any, obs: Array, step: Array) -> Array:
    """Return whether the guide of a guarded phase is to take over from observations [N, O], bool [N]."""
    if "margin" not in params:
        return jnp.zeros(obs.shape[0], bool)
    return advantage(params["stay"], params["take"], obs) > params["margin"]
