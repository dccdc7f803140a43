"""The metrics file of a phase: `metrics.jsonl`, one line for each chunk, evaluation, warm-up and gate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mission.errors import machine_errors
from mission.missionfile.hooks import Event

KINDS = ("chunk", "evaluation", "warm_up", "gate")
_GATE = ("passed", "count", "flights", "low", "high", "failures", "starts", "looks")


class MetricsLine(BaseModel):
    """One line: its kind, its time, the verdict of a gate if it has one, and scalars by their names in docs/sac.md."""

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, float] = Field(init=False)  # ty: ignore[incompatible-mutable-override]

    kind: str
    env_steps: int
    passed: bool | None = None
    count: int | None = None
    flights: int | None = None
    low: float | None = None
    high: float | None = None
    failures: tuple[str, ...] | None = None
    starts: int | None = None
    looks: int | None = None

    def scalar(self, name: str) -> float | None:
        """Return a scalar by its name; None if the line has none."""
        return self.__pydantic_extra__.get(name)


def metrics_line(event: Event) -> MetricsLine:
    """Return the line that the metrics file stores for an event."""
    scalars = dict(event.scalars)
    for name, values in event.series.items():
        scalars[name] = float(np.asarray(values)[-1])
    for name, values in event.histograms.items():
        if name.startswith("Replay/"):  # the quantiles suffice for learning curves
            p50, p95 = np.percentile(values, (50, 95))
            scalars |= {f"{name}P50": float(p50), f"{name}P95": float(p95)}
    verdict = {name: event.data.get(name) for name in _GATE} if event.kind == "gate" else {}
    return MetricsLine(kind=event.kind, env_steps=event.env_steps, **verdict, **scalars)


def append_metrics(path: Path, event: Event) -> None:
    """Append the line of an event.

    Raises:
      MachineError: the file cannot be written.
    """
    text = metrics_line(event).model_dump_json(exclude_none=True)
    with machine_errors(path, "to write metrics", "free disk space; the last checkpoint is kept"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as stream:
            stream.write(text + "\n")


def read_metrics(path: Path) -> list[MetricsLine]:
    """Return the lines of a metrics file; a damaged or truncated line is left out."""
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            lines.append(MetricsLine.model_validate_json(text))
        except ValidationError:
            continue
    return lines


def cut_metrics(path: Path, env_steps: int) -> None:
    """Remove the lines that a resumed run will write again."""
    if path.is_file():
        kept = [line for line in read_metrics(path) if line.env_steps <= env_steps]
        temporary = path.with_name(f".tmp-{path.name}")
        temporary.write_text("".join(line.model_dump_json(exclude_none=True) + "\n" for line in kept))
        temporary.replace(path)
