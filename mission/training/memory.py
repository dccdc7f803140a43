"""Memory of a training run: check its largest part before anything is allocated."""

from __future__ import annotations

import math

import jax

from mission.errors import MachineError
from mission.machine.devices import free_memory, mesh
from mission.missionfile.models import MissionFile
from mission.missionfile.phases import TrainedPhase


def check_memory(mission: MissionFile, index: int, phase: TrainedPhase) -> None:
    """Check that the replay buffer of phase `index` fits into memory; each device of the mesh holds a copy.

    Raises:
      MachineError: it does not fit; names the setting and both sizes.
    """
    learner, free = phase.build_learner(), free_memory()
    leaves = jax.tree.leaves(jax.eval_shape(learner.empty_replay))
    needed = mesh().size * sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)
    if free is None or needed <= free:
        return
    name = learner.replay_setting
    value = getattr(phase.learner, name, "its default")
    raise MachineError(
        mission.source.where(("phases", index, "sac", name)),
        expected=f"a replay buffer that fits into the free memory, {free / 1e9:.1f} GB",
        found=f"sac.{name}: {value}, which takes {needed / 1e9:.1f} GB",
        remedy=f"lower sac.{name}, or end other programs",
    )
