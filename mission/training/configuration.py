"""The resolved configuration of a training run, as observers receive it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mission import __version__
from mission.missionfile.models import MissionFile
from mission.missionfile.phases import Phase, TrainedPhase, json_of
from mission.missionfile.resolve import digest


def run_configuration(mission: MissionFile, phases: Sequence[Phase], seed: int) -> dict[str, Any]:
    """Return all settings that determine a training run as plain JSON data, including defaults.

    Args:
      mission: with the changes of the command line.
      phases: what it was resolved to.
      seed: of this run.
    """
    configuration = [phase.configuration() for phase in phases]
    return {
        "mission": mission.name,
        "seed": seed,
        "engine": __version__,
        "digest": digest(configuration),
        "chain": None if mission.chain is None else json_of(mission.chain),
        "phases": {phase.name: _phase(phase) for phase in phases},
    }


def _phase(phase: Phase) -> dict[str, Any]:
    """Return the configuration of one phase, including pilot, budget and gate, which are not part of its digest."""
    entry = phase.entry
    decided = json_of(phase.configuration())
    decided.pop("name")
    return {
        **decided,
        "plugin_origin": str(phase.origin),
        "policy": phase.pilot,
        "trained": isinstance(phase, TrainedPhase),
        "budget": json_of(entry.budget),
        "gate": None if entry.gate is None else json_of(entry.gate),
    }
