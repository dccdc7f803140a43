"""The baseline of a mission: the outcome of each flight of its stored policies at the end of training.

`baseline.npz` holds a record as JSON and, for each phase, success (packed bits), cause and control steps; and the
SHA-256 of all of them, which files of mission 0.1 lack.
Shapes: N flights.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mission.errors import MachineError, exception_text
from mission.missionfile.models import Name
from mission.storage.arrays import read_arrays, write_arrays
from mission.storage.records import Record
from mission.strict import Count, Seed, StrictModel

BASELINE = "baseline.npz"


class PhaseOutcomes(NamedTuple):
    """How N flights ended one phase; flights that did not enter it count as failed, with cause and steps 0."""

    causes: tuple[str, ...]
    success: np.ndarray  # bool [N]
    cause: np.ndarray  # int [N], index into causes
    steps: np.ndarray  # int [N]


class BaselinePhase(StrictModel):
    """A phase of a baseline: the content hash of its policy, and the names of its causes."""

    name: str
    content_sha256: str
    causes: tuple[str, ...]


class BaselineRecord(Record):
    """The record of a baseline: flights 0 to `flights` - 1 of the seed, flown by these policies."""

    mission: Name
    seed: Seed
    flights: Count
    engine: str
    phases: tuple[BaselinePhase, ...]

    def policies(self) -> dict[str, str]:
        """Return the content hash of each phase's policy."""
        return {phase.name: phase.content_sha256 for phase in self.phases}


@dataclasses.dataclass(frozen=True, eq=False)
class Baseline:
    """A baseline in memory; `outcomes` in the order of the record's phases."""

    record: BaselineRecord
    outcomes: tuple[PhaseOutcomes, ...]


def write_baseline(folder: Path, baseline: Baseline) -> None:
    """Write `baseline.npz` into a mission's folder, atomically.

    Raises:
      MachineError: disk full or no permission; the previous file is kept.
    """
    arrays: dict[str, np.ndarray] = {}
    for phase, outcomes in zip(baseline.record.phases, baseline.outcomes, strict=True):
        width = np.uint16 if outcomes.steps.max(initial=0) < 1 << 16 else np.uint32
        arrays[f"{phase.name}.success"] = np.packbits(outcomes.success)
        arrays[f"{phase.name}.cause"] = outcomes.cause.astype(np.uint8)
        arrays[f"{phase.name}.steps"] = outcomes.steps.astype(width)
    write_arrays(folder / BASELINE, "a baseline", baseline.record, arrays)


def read_baseline(folder: Path) -> Baseline | None:
    """Return the baseline of a mission's folder; None if there is none.

    Raises:
      FormatError: it has a format that this version does not read.
      MachineError: it is damaged.
    """
    path = folder / BASELINE
    remedy = "restore the file; or remove it, and `mission train` records it again with the code of today"
    found = read_arrays(path, "baseline", BaselineRecord, remedy)
    if found is None:
        return None
    record, arrays = found
    try:
        outcomes = tuple(_phase_outcomes(arrays, phase, record.flights) for phase in record.phases)
    except Exception as error:
        raise MachineError(
            str(path), expected="a readable baseline", found=exception_text(error), remedy=remedy
        ) from None
    return Baseline(record, outcomes)


def _phase_outcomes(arrays: Mapping[str, np.ndarray], phase: BaselinePhase, flights: int) -> PhaseOutcomes:
    success = np.unpackbits(arrays[f"{phase.name}.success"])[:flights].astype(bool)
    cause, steps = arrays[f"{phase.name}.cause"], arrays[f"{phase.name}.steps"]
    if not success.shape == cause.shape == steps.shape == (flights,) or cause.max(initial=0) >= len(phase.causes):
        raise ValueError(f"the arrays of {phase.name} do not fit {flights} flights")
    return PhaseOutcomes(phase.causes, success, cause.astype(np.int64), steps.astype(np.int64))
