"""The actor as plain layers, for programs that fly it without the engine.

Shapes: O observation, A action, I and J inputs and outputs of a layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mission.learner import Layer, PolicyLayers
from mission.sac.config import SacConfig
from mission.sac.networks import LAYER_NORM_EPSILON, MOST_DEVIATIONS


def policy_layers(config: SacConfig, actions: int, policy: Any) -> PolicyLayers:
    """Return what `mean_action` computes, layer by layer; what only the standard deviation needs is left out.

    Args:
      config: the settings of the learner.
      actions: A.
      policy: the parameters of the actor, as `Sac.policy` returns them.
    """
    body = policy["params"]["body"]
    hidden = len(config.actor.sizes)
    layers = tuple(_hidden(body, at, config) for at in range(hidden))
    last = _module(body, "Dense", hidden)
    # Of the 2 A outputs, the first A are the mean; the heads `squashed` and `bounded` squash it.
    squash = "identity" if config.actor.head == "softplus" else "tanh"
    layers += (Layer(_floats(last["kernel"])[:, :actions], _floats(last["bias"])[:actions], squash),)
    if not config.standardise:
        return PolicyLayers(layers, LAYER_NORM_EPSILON)
    statistics = policy["statistics"]["standardise"]
    return PolicyLayers(
        layers, LAYER_NORM_EPSILON, _floats(statistics["mean"]), _floats(statistics["std"]), MOST_DEVIATIONS
    )


def _hidden(body: Mapping[str, Any], at: int, config: SacConfig) -> Layer:
    dense = _module(body, "Dense", at)
    kernel, bias = _floats(dense["kernel"]), _floats(dense["bias"])
    if not config.actor.layer_norm:
        return Layer(kernel, bias, config.actor.activation)
    norm = _module(body, "LayerNorm", at)
    return Layer(kernel, bias, config.actor.activation, _floats(norm["scale"]), _floats(norm["bias"]))


def _module(body: Mapping[str, Any], kind: str, at: int) -> Any:
    """Return the parameters of one module; flax numbers the modules of each kind."""
    name = f"{kind}_{at}"
    return body[name]


def _floats(values: Any) -> np.ndarray:
    return np.ascontiguousarray(values, np.float32)
