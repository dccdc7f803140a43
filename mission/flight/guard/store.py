"""The guard of a mission, `guard.npz` beside its policies, and whether it is still valid."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mission.errors import InputError, StaleError
from mission.flight.feasibility.conditions import (
    FittedRecord,
    PhaseConditions,
    conditions_change,
    conditions_of,
    damaged,
    network_in,
    write_networks,
)
from mission.flight.feasibility.network import Weights
from mission.flight.guard.counts import GuardComparison, PhaseGuard
from mission.flight.guard.decision import NETWORKS
from mission.missionfile.models import MissionFile
from mission.missionfile.phases import Phase
from mission.storage.arrays import read_arrays
from mission.storage.steps import content_hash

log = logging.getLogger("mission")
GUARD = "guard.npz"


class GuardRecord(FittedRecord):
    """The record of the guard of a mission.

    `phases` are all phases of the mission, `guards` describes those that have an agent and a guide, and `comparison`
    compares the same flights with and without guard; none of these was used to fit a network or to choose a margin.
    """

    phases: tuple[PhaseConditions, ...]
    guards: tuple[PhaseGuard, ...]
    comparison: GuardComparison


@dataclasses.dataclass(frozen=True, eq=False)
class Guard:
    """The networks of a mission's guard: phase -> name -> network, for the phases in which it is on."""

    record: GuardRecord
    networks: dict[str, dict[str, Weights]]


def write_guard(folder: Path, guard: Guard) -> None:
    """Write `guard.npz` into a mission's folder, atomically.

    Raises:
      MachineError: disk full or no permission; the previous file is kept.
    """
    networks = {f"{name}.{part}": one for name, pair in guard.networks.items() for part, one in pair.items()}
    write_networks(folder / GUARD, "guard", guard.record, networks)


def read_guard(folder: Path) -> Guard | None:
    """Return the guard in a mission's folder; None if there is none.

    Raises:
      FormatError: it has a format that this version does not read.
      MachineError: it is damaged.
    """
    path, remedy = folder / GUARD, "restore the file, or run `mission guard FILE` again"
    found = read_arrays(path, "guard", GuardRecord, remedy)
    if found is None:
        return None
    record, arrays = found
    sizes = {phase.name: len(phase.observation_names) for phase in record.phases}
    on = [guard.phase for guard in record.guards if guard.margin is not None]
    try:
        networks = {
            name: {part: network_in(arrays, f"{name}.{part}", sizes[name], stacked=True) for part in NETWORKS}
            for name in on
        }
    except (KeyError, ValueError) as error:
        raise damaged(path, "guard", str(error), remedy) from None
    return Guard(record, networks)


def guarded_policies(
    home: Path, mission: MissionFile, phases: Sequence[Phase], actors: Sequence[Any]
) -> tuple[tuple[Any, ...], GuardComparison | None]:
    """Return the flight parameters of phases with the networks of guards, and the comparison of the guard, if any.

    Args:
      home: the folder of the mission that holds `guard.npz`.
      mission, phases: the mission, and the phases that it was resolved to.
      actors: the parameters of the policy of each phase; None for a guide.

    Raises:
      InputError: a phase is guarded, and there is no guard of it.
      StaleError: a phase, its policy or the criterion for hand-overs has changed since.
      FormatError, MachineError: see `read_guard`.
    """
    if not any(phase.guarded for phase in phases):
        return tuple(actors), None
    guard = read_guard(home)
    asked = [k for k, phase in enumerate(phases) if phase.guarded]
    if guard is None:
        raise _missing(mission, asked[0], f"the guard of this mission in {home / GUARD}", "none")
    hashes = [None if actor is None else content_hash(actor) for actor in actors]
    judges = guard.record.judge, mission.judge
    change = conditions_change(judges, guard.record.phases, conditions_of(phases, hashes))
    if change:
        raise StaleError(
            str(home / GUARD),
            expected="a guard that was fitted to these phases and policies",
            found=change,
            remedy=f"fit it again: {mission.source.command('guard')}, with the same pilots",
        )
    known = {one.phase: one for one in guard.record.guards}
    for k in asked:
        if phases[k].name not in known:
            raise _missing(mission, k, f"a guard of this phase in {home / GUARD}", f"those of {', '.join(known)}")
        if known[phases[k].name].margin is None:
            log.warning('the guard of phase "%s" is off: %s', phases[k].name, known[phases[k].name].reason)
    params = tuple(
        guarded_parameters(actor, guard.networks.get(phase.name), known[phase.name].margin) if phase.guarded else actor
        for phase, actor in zip(phases, actors, strict=True)
    )
    return params, guard.record.comparison


def guarded_parameters(
    actor: Any, networks: Mapping[str, Weights] | None = None, margin: float | None = None
) -> dict[str, Any]:
    """Return the parameters of the flight of a guarded phase.

    Without networks, the guide never takes over. Without a margin it does not either, but the program includes the
    networks.
    """
    if networks is None:
        return {"actor": actor}
    return {"actor": actor, **networks, "margin": np.float32(np.inf if margin is None else margin)}


def _missing(mission: MissionFile, index: int, expected: str, found: str) -> InputError:
    return InputError(
        mission.source.where(("phases", index, "policy")),
        expected=expected,
        found=found,
        remedy=f"run {mission.source.command('guard')}, with the same pilots",
    )
