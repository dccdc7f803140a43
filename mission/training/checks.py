"""Checks in training: gradients before it begins, then finite values and causes of the contract.

The first violation stops the phase with its name.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from mission.errors import NonFiniteError
from mission.flight.batches import program_identity
from mission.flight.causes import cause_error
from mission.flight.fly import PhaseFlight
from mission.flight.gradients import check_step_gradients
from mission.learner import Learner
from mission.machine.kept import remembered
from mission.machine.stages import tell
from mission.machine.trees import finite_leaves, state_leaf_names
from mission.missionfile.phases import TrainedPhase

_REMEDY_NETWORK = "lower its learning rate, or clip its gradient (*_grad_max_norm); the last checkpoint is kept"

_VEHICLES = 16  # whose steps are differentiated before a training run


def check_gradients(phase: TrainedPhase, where: str) -> None:
    """Check the gradients of the control step if the learner needs them, unless the same phase passed before.

    Args:
      phase: the phase to be trained.
      where: its place in the mission file, for the message.

    Raises:
      PluginError: a gradient is missing, wrong or not finite.
    """
    if not phase.learner.needs_gradients:
        return

    def check() -> bool:
        tell(phase.name, "checking its gradients")
        check_step_gradients(phase, where, _VEHICLES, backward=False)
        return True

    remembered(program_identity(phase, "gradients"), check, bool)


def check_states(phase: TrainedPhase, finite: np.ndarray, env_steps: int) -> None:
    """Check collected steps: `finite` bool [iterations, L + 2], beginning after vehicle step `env_steps`."""
    if finite.all():
        return
    row, leaf = np.argwhere(~finite)[0]
    names = [*state_leaf_names(phase.environment), "observation", "reward"]
    raise NonFiniteError(
        f'phase "{phase.name}"',
        expected="finite states, observations and rewards",
        found=f"{names[leaf]} not finite at vehicle step {env_steps + (row + 1) * phase.learner.vehicles}",
        remedy="fix the plugin's physics, scales or reward; the last checkpoint is kept",
    )


def check_causes(phase: TrainedPhase, causes: np.ndarray, env_steps: int) -> None:
    """Check the least and the largest cause of collected steps, int [iterations, 2], after vehicle step `env_steps`."""
    wrong = (causes < 0) | (causes >= len(phase.environment.causes))
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        when = f"in training, at vehicle step {env_steps + (row + 1) * phase.learner.vehicles}"
        raise cause_error(phase, int(causes[row, column]), when)


def check_flights(phase: TrainedPhase, result: PhaseFlight, env_steps: int) -> None:
    """Check evaluation flights: a non-finite state is an error rather than one more failure, as its return is NaN."""
    broken = (result.cause == len(phase.causes) - 1) | ~np.isfinite(result.returns)
    if not broken.any():
        return
    leaves = jax.tree_util.tree_flatten_with_path(result.handoff)[0]
    names = [jax.tree_util.keystr(path) for path, leaf in leaves if not finite_leaves({"": leaf}, 0).all()]
    raise NonFiniteError(
        f'phase "{phase.name}"',
        expected="finite states and rewards in its evaluation flights",
        found=f"{int(broken.sum())} of {len(broken)} not finite after vehicle step {env_steps}"
        + (f"; of what they hand over: {', '.join(names)}" if names else ""),
        remedy="fix the plugin's physics or reward; the last checkpoint is kept",
    )


def check_metrics(phase: TrainedPhase, learner: Learner, metrics: dict[str, np.ndarray], env_steps: int) -> None:
    """Check metrics of updates; report the earliest update, and of that update the metric that is computed first."""
    first = {
        name: int(np.isfinite(values.reshape(-1)).argmin())
        for name, values in metrics.items()
        if not np.isfinite(values).all()
    }
    if not first:
        return
    order = learner.metrics
    name = min(first, key=lambda name: (first[name], order.index(name) if name in order else len(order)))
    raise NonFiniteError(
        f'phase "{phase.name}"',
        expected="finite losses",
        found=f"{name.split('/')[0]} network: {name} not finite at update {first[name]} after vehicle step {env_steps}",
        remedy=_REMEDY_NETWORK,
    )


def check_networks(phase: TrainedPhase, learner: Learner, agent: Any, env_steps: int) -> None:
    """Check the networks after the last update of a chunk, whose losses were those of the networks before it."""
    for name, network in learner.networks(agent).items():
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(network)):
            raise NonFiniteError(
                f'phase "{phase.name}"',
                expected="finite networks",
                found=f"{name} network: parameters not finite at the end of the chunk after vehicle step {env_steps}",
                remedy=_REMEDY_NETWORK,
            )
