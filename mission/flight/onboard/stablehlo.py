"""A policy as StableHLO: the function that flies, serialised by `jax.export` in float32, for any batch.

With a history it takes the observations of the control steps before, and returns those for the next one.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, export

from mission.flight.onboard.subject import Subject
from mission.machine.extras import import_extra

PLATFORMS = ("cpu", "cuda")


def stablehlo_blob(subject: Subject) -> bytes:
    """Return the serialised function: observation [B, O] (and earlier) -> action [B, A] (and earlier).

    Raises:
      MachineError: flatbuffers, which JAX needs to serialise, is not installed.
    """
    import_extra("flatbuffers", "mission-engine[stablehlo]", "mission export")
    learner, actor = subject.phase.build_learner(), subject.actor
    kept = subject.inputs - subject.single

    def act(observation: Array) -> Array:
        return jnp.clip(learner.mean_action(actor, observation), -1.0, 1.0)

    def act_with_history(observation: Array, earlier: Array) -> tuple[Array, Array]:
        stacked = jnp.concatenate([observation, earlier], axis=1)
        return act(stacked), stacked[:, :kept]

    (batch,) = export.symbolic_shape("batch")
    widths = (subject.single,) + ((kept,) if kept else ())
    inputs = [jax.ShapeDtypeStruct((batch, width), jnp.float32) for width in widths]
    function = jax.jit(act_with_history if kept else act)
    return bytes(export.export(function, platforms=PLATFORMS)(*inputs).serialize())


def stablehlo_function(blob: bytes) -> Any:
    """Return the function that a blob holds."""
    import_extra("flatbuffers", "mission-engine[stablehlo]", "mission export")
    return jax.jit(export.deserialize(bytearray(blob)).call)
