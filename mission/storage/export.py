"""Policies that can be read without the engine: `actor.safetensors` and `policy.json` beside Orbax's files."""

from __future__ import annotations

from typing import Any, Literal

import jax
import numpy as np
from safetensors.numpy import save

from mission.learner import PolicyNetwork
from mission.missionfile.phases import TrainedPhase

TENSORS, DESCRIPTION = "actor.safetensors", "policy.json"
INTERFACE = "interface.json"  # of a policy that `mission export` wrote


class PolicyDescription(PolicyNetwork):
    """The content of `policy.json`: names of inputs and outputs, and how the tensors map one to the other."""

    format: Literal[1] = 1
    phase: str
    plugin: str
    observation_names: tuple[str, ...]
    action_names: tuple[str, ...]


def policy_files(phase: TrainedPhase, actor: Any) -> dict[str, bytes]:
    """Return both files of a trained policy, name -> content; none if its learner does not describe its policies."""
    network = phase.build_learner().describe_policy()
    if network is None:
        return {}
    description = PolicyDescription(
        phase=phase.name,
        plugin=str(phase.origin.name),
        observation_names=phase.environment.observation_names,
        action_names=phase.environment.action_names,
        **network.model_dump(),
    )
    tensors = {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.ascontiguousarray(leaf)
        for path, leaf in jax.tree_util.tree_flatten_with_path(actor)[0]
    }
    return {
        TENSORS: save(tensors, metadata={"format": "np"}),
        DESCRIPTION: (description.model_dump_json(indent=1) + "\n").encode(),
    }
