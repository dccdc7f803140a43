"""The feasibility networks of a mission, `feasibility.npz` beside its policies, and whether they are still valid."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from mission.errors import StaleError
from mission.flight.chain import Chain
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
from mission.flight.feasibility.scores import Scores
from mission.storage.arrays import read_arrays

FEASIBILITY = "feasibility.npz"


class FeasibilityPhase(PhaseConditions):
    """A phase of a mission when its feasibility was fitted.

    `scores` are those of its network on flights that were not used to fit it, None if no such flight entered the phase.
    """

    scores: Scores | None


class FeasibilityRecord(FittedRecord):
    """The record of the feasibility networks of a mission."""

    phases: tuple[FeasibilityPhase, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Feasibility:
    """The networks of a mission, one per phase in the order of flight; the first is for the phase's own start."""

    record: FeasibilityRecord
    weights: tuple[Weights, ...]


def write_feasibility(folder: Path, feasibility: Feasibility) -> None:
    """Write `feasibility.npz` into a mission's folder, atomically.

    Raises:
      MachineError: disk full or no permission; the previous file is kept.
    """
    phases = zip(feasibility.record.phases, feasibility.weights, strict=True)
    networks = {phase.name: weights for phase, weights in phases}
    write_networks(folder / FEASIBILITY, "feasibility", feasibility.record, networks)


def read_feasibility(folder: Path) -> Feasibility | None:
    """Return the feasibility networks in a mission's folder; None if there are none.

    Raises:
      FormatError: they have a format that this version does not read.
      MachineError: they are damaged.
    """
    path, remedy = folder / FEASIBILITY, "restore the file, or run `mission feasibility FILE` again"
    found = read_arrays(path, "feasibility", FeasibilityRecord, remedy)
    if found is None:
        return None
    record, arrays = found
    try:
        weights = tuple(network_in(arrays, phase.name, len(phase.observation_names)) for phase in record.phases)
    except ValueError as error:
        raise damaged(path, "feasibility", str(error), remedy) from None
    return Feasibility(record, weights)


def chain_feasibility(chain: Chain) -> Feasibility | None:
    """Return the feasibility networks that are stored for a chain; None if there are none.

    Raises:
      StaleError: a phase on which they depend, or the criterion for hand-overs, has changed since.
      FormatError, MachineError: see `read_feasibility`.
    """
    found = read_feasibility(chain.home)
    if found is not None:
        change = feasibility_change(found.record, chain)
        if change:
            raise StaleError(
                str(chain.home / FEASIBILITY),
                expected="feasibility that was fitted to these phases and policies",
                found=change,
                remedy="fit it again: `mission feasibility FILE`, with the same pilots",
            )
    return found


def feasibility_change(record: FeasibilityRecord, chain: Chain) -> str:
    """Return the first difference between a chain and the one that feasibility was fitted to; empty if none."""
    current = conditions_of(chain.phases, chain.policy_hashes())
    return conditions_change((record.judge, chain.mission.judge), record.phases, current)
