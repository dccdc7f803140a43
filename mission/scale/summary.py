"""The summary of a sweep: one row per training run, and statistics for each combination of values."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import JsonValue

from mission.errors import UnfinishedError
from mission.missionfile.statistics import Rate, median_interval, rate
from mission.scale.combinations import Combination
from mission.scale.jobs import HAS_RESULT, TrainingRecord
from mission.storage.tables import Library, Table
from mission.strict import StrictModel


class TrainingRow(StrictModel):
    """One training; `success` and `returns` are those of the last phase's bank flights, None if it was not reached.

    `status` is passed, gate missed, stopped, failed, or unfinished; `exit_code` is that of `mission train`, minus N if
    signal N killed the process.
    """

    combination: int
    seed: int
    folder: str
    status: str
    exit_code: int | None
    reason: str
    seconds: float | None
    env_steps: int
    success: float | None
    returns: float | None

    @property
    def has_result(self) -> bool:
        """True if the training ran to its end, whatever its result is."""
        return self.exit_code in HAS_RESULT


class Spread(StrictModel):
    """A sample of one value per training: median with its 95 % bootstrap interval, least and largest value."""

    count: int
    median: float | None = None
    low: float | None = None
    high: float | None = None
    min: float | None = None
    max: float | None = None


class CombinationSummary(StrictModel):
    """All trainings of one combination; `best` is the seed of the training with the most success, then return.

    `passed` counts the trainings in which every phase passed its gate; `failures` are all others.
    """

    number: int
    label: str
    values: dict[str, JsonValue]
    trainings: int
    passed: Rate
    failures: int
    success: Spread
    returns: Spread
    seconds: Spread
    best: int | None


class SweepSummary(StrictModel):
    """A sweep; the fields are those of `mission sweep --json`."""

    mission: str
    output: str
    seeds: tuple[int, ...]
    values: dict[str, tuple[JsonValue, ...]]
    cores: int
    combinations: tuple[CombinationSummary, ...]
    trainings: tuple[TrainingRow, ...]

    def to_json(self) -> str:
        """Return JSON without NaN."""
        return self.model_dump_json(indent=2)

    def to_frame(self, library: Library = "pandas") -> Any:
        """Return a frame with one row per training run (extra `data`).

        Its columns are `combination`, one per varied setting under its key, `seed`, `folder`, `status`, `exit_code`, `reason`,
        `seconds`, `env_steps`, `success` and `returns`.

        Args:
          library: "pandas" or "polars".

        Raises:
          MachineError: the library is not installed.
        """
        names = ("seed", "folder", "status", "exit_code", "reason", "seconds", "env_steps", "success", "returns")
        values, rows = {one.number: one.values for one in self.combinations}, self.trainings
        columns: dict[str, list[Any]] = {"combination": [row.combination for row in rows]}
        columns |= setting_columns([values[row.combination] for row in rows])
        return Table(columns | {name: [getattr(row, name) for row in rows] for name in names}).to_frame(library)


def setting_columns(rows: Sequence[Mapping[str, JsonValue]]) -> dict[str, list[Any]]:
    """Return a column for each setting; JSON texts where its values are of different types, or lists or mappings."""
    columns = {key: [row.get(key) for row in rows] for key in dict.fromkeys(key for row in rows for key in row)}
    for key, values in columns.items():
        kinds = {_kind(value) for value in values if value is not None}
        if len(kinds) > 1 or None in kinds:
            columns[key] = [None if value is None else json.dumps(value, ensure_ascii=False) for value in values]
    return columns


def _kind(value: JsonValue) -> type | None:
    """Return the type of a column that can hold a value; None for lists and mappings."""
    if isinstance(value, str | bool):
        return type(value)
    return float if isinstance(value, int | float) else None


def training_row(combination: int, seed: int, folder: str, record: TrainingRecord, last_phase: str) -> TrainingRow:
    """Return the row of a training from its record."""
    last = next((phase for phase in record.phases if phase.name == last_phase), None)
    return TrainingRow(
        combination=combination,
        seed=seed,
        folder=folder,
        status=record.status,
        exit_code=record.exit_code,
        reason=record.reason,
        seconds=record.seconds,
        env_steps=sum(phase.env_steps for phase in record.phases),
        success=last.success if last is not None else None,
        returns=last.returns if last is not None else None,
    )


def combination_summary(combination: Combination, rows: Sequence[TrainingRow]) -> CombinationSummary:
    """Return the statistics of the trainings of one combination."""
    passed = [row for row in rows if row.status == "passed"]
    ranked = sorted(passed, key=lambda row: (-(row.success or 0.0), -(row.returns or 0.0), row.seed))
    return CombinationSummary(
        number=combination.number,
        label=combination.label,
        values=combination.values,
        trainings=len(rows),
        passed=rate(len(passed), len(rows)),
        failures=len(rows) - len(passed),
        success=spread([row.success for row in rows]),
        returns=spread([row.returns for row in rows]),
        seconds=spread([row.seconds for row in rows if row.has_result]),
        best=ranked[0].seed if ranked else None,
    )


def spread(values: Sequence[float | None]) -> Spread:
    """Summarise the values that are not None."""
    known = np.array([value for value in values if value is not None], np.float64)
    if not known.size:
        return Spread(count=0)
    low, high = median_interval(known) or (None, None)
    return Spread(
        count=len(known),
        median=float(np.median(known)),
        low=low,
        high=high,
        min=float(known.min()),
        max=float(known.max()),
    )


def require_finished(summary: SweepSummary) -> None:
    """Check that every training ran to its end; a missed gate is a result.

    Raises:
      UnfinishedError: names the first one that did not.
    """
    missing = [row for row in summary.trainings if not row.has_result]
    if missing:
        first = missing[0]
        raise UnfinishedError(
            summary.output,
            expected=f"{len(summary.trainings)} trainings that run to their end",
            found=f"{len(missing)} that did not; the first is {first.folder}: {first.reason}",
            remedy="correct the cause; the same command tries those again and keeps the others",
        )
