"""The metrics file of a phase: `metrics.jsonl`, one line for each round of imitation, chunk, evaluation, warm-up and gate.

Each line holds its number in the file and a seal of its content, so that a line that was altered or is missing is
noticed.
"""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mission.errors import InputError, machine_errors, printable
from mission.missionfile.arguments import given_path
from mission.missionfile.hooks import Event
from mission.storage.stored import json_mapping, seal
from mission.storage.tables import Library, Table

log = logging.getLogger("mission")
METRICS = "metrics.jsonl"
KINDS = ("imitation", "chunk", "evaluation", "warm_up", "gate")
_GATE = ("passed", "count", "flights", "low", "high", "failures", "starts", "looks")
_SEAL = "sha256"


class MetricsLine(BaseModel):
    """One line: its kind, its time, the verdict of a gate if it has one, and scalars by their names in docs/sac.md.

    `line` is its number in the file, counted from 1, and `sha256` the seal of everything else
    (`mission.storage.stored.seal`); lines of older files have neither.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, float] = Field(init=False)  # ty: ignore[incompatible-mutable-override]

    kind: str
    env_steps: int
    line: int | None = None
    passed: bool | None = None
    count: int | None = None
    flights: int | None = None
    low: float | None = None
    high: float | None = None
    failures: tuple[str, ...] | None = None
    starts: int | None = None
    looks: int | None = None
    sha256: str | None = None

    def scalar(self, name: str) -> float | None:
        """Return a scalar by its name; None if the line has none."""
        return self.__pydantic_extra__.get(name)


class MetricsFile:
    """A metrics file that is written: `number` is that of its last line."""

    def __init__(self, path: Path) -> None:
        """Continue a file; it need not exist. Lines of older files have no number, so they are counted."""
        lines = read_metrics(path) if path.is_file() else []
        self.path, self.number = path, (lines[-1].line or len(lines)) if lines else 0

    def append(self, event: Event) -> None:
        """Append the line of an event.

        Raises:
          MachineError: the file cannot be written.
        """
        data = metrics_line(event, self.number + 1).model_dump(mode="json", exclude_none=True)
        text = json.dumps(data | {_SEAL: seal(data)}, separators=(",", ":"))
        with machine_errors(self.path, "to write metrics", "free disk space; the last checkpoint is kept"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a") as stream:
                stream.write(text + "\n")
        self.number += 1


def metrics_line(event: Event, number: int) -> MetricsLine:
    """Return the line that the metrics file stores for an event, without its seal; it has finite scalars only."""
    scalars = dict(event.scalars)
    for name, values in event.series.items():
        scalars[name] = float(np.asarray(values)[-1])
    for name, values in event.histograms.items():
        if name.startswith("Replay/"):  # the quantiles suffice for learning curves
            p50, p95 = np.percentile(values, (50, 95))
            scalars |= {f"{name}P50": float(p50), f"{name}P95": float(p95)}
    scalars = {name: value for name, value in scalars.items() if math.isfinite(value)}
    verdict = {name: event.data.get(name) for name in _GATE} if event.kind == "gate" else {}
    return MetricsLine(kind=event.kind, env_steps=event.env_steps, line=number, **verdict, **scalars)


class Metrics(list[MetricsLine]):
    """The lines of a metrics file in their order; `to_frame` and `table` give one row per line."""

    def table(self) -> Table:
        """Return one row per line: `kind`, `env_steps`, the verdict of gates, and every scalar by its name in docs/sac.md.

        Values that a line does not have are missing.
        """
        rows = [line.model_dump(exclude={"line", "sha256", "failures"}, exclude_none=True) for line in self]
        names = dict.fromkeys(name for row in rows for name in row)
        return Table({name: [row.get(name) for row in rows] for name in names})

    def to_frame(self, library: Library = "pandas") -> Any:
        """Return `table` as a frame (extra `data`).

        Args:
          library: "pandas" or "polars".

        Raises:
          MachineError: the library is not installed.
        """
        return self.table().to_frame(library)

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


def read_metrics(path: str | Path) -> Metrics:
    """Return the lines of a metrics file; altered lines are left out, with one warning.

    Args:
      path: the folder of a phase, such as `checkpoints/MISSION/PHASE`, or its `metrics.jsonl`.

    Raises:
      InputError: there is no such file.
      MachineError: the file cannot be read.
    """
    path = given_path(path, "read_metrics")
    path = path / METRICS if path.is_dir() else path
    if not path.is_file():
        expected, remedy = "the folder of a phase, or its metrics.jsonl", "pass checkpoints/MISSION/PHASE"
        raise InputError(str(path), expected=expected, found="no such file", remedy=remedy)
    return Metrics(line for line, _ in _read_file(path))


def cut_metrics(path: Path, env_steps: int) -> None:
    """Remove the lines that a resumed run will write again, and those that are not as they were written.

    Raises:
      MachineError: the file cannot be read or written.
    """
    if path.is_file():
        kept = [text for line, text in _read_file(path) if line.env_steps <= env_steps]
        temporary = path.with_name(f".tmp-{path.name}")
        with machine_errors(path, "to write metrics", "free disk space; the last checkpoint is kept"):
            temporary.write_text("".join(f"{text}\n" for text in kept))
            temporary.replace(path)


def _read_file(path: Path) -> list[tuple[MetricsLine, str]]:
    """Return the lines that are as they were written, and their texts; one warning names the others."""
    with machine_errors(path, "metrics that can be read", "check the permissions"):
        texts = path.read_text(encoding="utf-8", errors="replace").splitlines()
    kept: list[tuple[MetricsLine, str]] = []
    wrong, number, damaged = [], 0, 0  # `number`: of the last kept line, `damaged`: lines since then
    for place, text in enumerate(texts, 1):
        try:
            line = _read_line(text, sealed=bool(kept and kept[-1][0].sha256))
            if line.line is not None and line.line <= number:
                raise ValueError("it is a copy, or lines were exchanged")
        except ValueError as error:
            wrong.append(f"line {place} is left out ({error})")
            damaged += 1
            continue
        if line.line is not None and line.line > number + damaged + 1:
            wrong.append(f"lines are missing before line {place}")
        number, damaged = line.line or number + 1, 0
        kept.append((line, text))
    if wrong:
        log.warning("%s was altered or damaged: %s", path, printable("; ".join(wrong), 300))
    return kept


def _read_line(text: str, sealed: bool) -> MetricsLine:
    """Return one line.

    Args:
      text: the line.
      sealed: the line before it has a seal, so that this one needs one too.

    Raises:
      ValueError: it is damaged, or not as it was written.
    """
    data = json_mapping(text)
    try:
        line = MetricsLine.model_validate_json(text)
    except ValidationError as error:
        raise ValueError(error.errors()[0]["msg"]) from None
    stored = data.pop(_SEAL, None)
    if stored is None and (sealed or line.line is not None):
        raise ValueError("it has no hash")
    if stored is not None and stored != seal(data):
        raise ValueError("its hash does not fit")
    return line
