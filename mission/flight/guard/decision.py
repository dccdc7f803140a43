"""Decide when the guide takes over a guarded phase: when its predicted success exceeds that of the agent by a margin.

The parameters of a guarded phase are {"actor": those of its policy, "stay", "saves", "keeps": networks, "margin": float32 []}, or
the first alone if its guard is off. A network is M of those that `feasibility.network` fits, stacked: a take-over
happens where the predicted advantage is largest over a flight, and there the error of a single network is largest (the
mean of several varies less). `stay` is the probability that the
mission succeeds if the agent continues; `saves` and `keeps` are those with which it succeeds after a take-over now, in flights
that the agent loses and in flights that it does not. Losses are rare, so a single network for take-overs would contain
hardly any data on those that matter. Shapes: N flights, O observation, M members of a network.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from mission.flight.feasibility.network import Weights, probability

NETWORKS = ("stay", "saves", "keeps")


def foreseen(networks: Mapping[str, Weights], obs: Array) -> tuple[Array, Array]:
    """Return the probabilities that the mission succeeds if the agent continues, and if the guide takes over now.

    Args:
      networks: the three networks of a phase; other entries are ignored.
      obs: [N, O].

    Returns:
      [N] each.
    """
    each = jax.vmap(probability, (0, None))
    stay, saves, keeps = (each(networks[name], obs).mean(axis=0) for name in NETWORKS)
    return stay, (1.0 - stay) * saves + stay * keeps


def advantage(networks: Mapping[str, Weights], obs: Array) -> Array:
    """Return the gain in the probability of success from a take-over now [N], for observations [N, O]."""
    stay, take = foreseen(networks, obs)
    return take - stay


def guide_promises_more(params: Any, obs: Array, step: Array) -> Array:
    """Return whether the guide of a guarded phase should take over at observations [N, O], bool [N]."""
    if "margin" not in params:
        return jnp.zeros(obs.shape[0], bool)
    return advantage(params, obs) > params["margin"]
