"""The phases of a chain as they train in a sweep: from the previous policy, without gates, with their own settings."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import jax

from mission.errors import InputError
from mission.missionfile.models import MissionFile, SweepEntry
from mission.missionfile.phases import Phase, TrainedPhase, flown_environment
from mission.missionfile.resolve import merged_settings
from mission.storage.policies import policy_shapes
from mission.training.sweeps.terminal import check_link_gradient, check_terminal


def sweep_phases(mission: MissionFile, phases: Sequence[Phase]) -> tuple[Phase, ...]:
    """Return the phases of a mission as they train in its sweeps, without terminal values.

    Raises:
      InputError: settings of a sweep are invalid, or they change the network, so that training cannot continue.
      PluginError: value gradients must cross a link that is not differentiable.
    """
    changed = tuple(_sweep_phase(mission, k, phase) for k, phase in enumerate(phases))
    check_terminal(mission, changed)
    if mission.chain is not None and mission.chain.joint is not None:
        for k, (phase, following) in enumerate(itertools.pairwise(phases)):
            check_link_gradient(phase, following, mission.source.where(("phases", k + 1, "plugin")))
    return changed


def _sweep_phase(mission: MissionFile, index: int, phase: Phase) -> Phase:
    entry, at = phase.entry, ("phases", index, "sweep", "sac")
    where = mission.source.where(at)
    if not isinstance(phase, TrainedPhase):
        if entry.sweep != SweepEntry():
            raise InputError(
                mission.source.where(("phases", index, "sweep")),
                expected="a phase that an agent is trained for",
                found=f"policy: {phase.pilot}",
                remedy="remove sweep:, or set policy: agent",
            )
        return phase
    defaults = {"imitation": None, "fill": {"policy": "agent"}}
    learner = merged_settings(mission, phase.learner, [defaults, entry.sweep.sac], at)
    budget = entry.budget if entry.sweep.budget is None else entry.sweep.budget
    changed = dataclasses.replace(
        phase,
        learner=learner,
        environment=flown_environment(type(phase), phase.guide_environment, learner, phase.pilot),
        entry=entry.model_copy(update={"budget": budget, "gate": None}),
    )
    if jax.tree.map(_shape, policy_shapes(changed)) != jax.tree.map(_shape, policy_shapes(phase)):
        raise InputError(
            where,
            expected="settings that keep the policy's network, since a sweep continues the policy before it",
            found="another network (actor, history or standardise)",
            remedy="set them in the phase's own sac:",
        )
    return changed


def _shape(leaf: jax.ShapeDtypeStruct) -> tuple[tuple[int, ...], str]:
    return tuple(leaf.shape), str(leaf.dtype)
