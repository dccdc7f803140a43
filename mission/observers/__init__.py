"""Observers of a run: `metrics.jsonl` always, the rest as the mission file chooses."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from mission.errors import machine_errors
from mission.hooks import Event
from mission.missionfile.models import MissionFile
from mission.missionfile.plugins import load_observer

log = logging.getLogger("mission")


class Observers:
    """Sends each event to every chosen observer; one that raises is reported once and dropped."""

    def __init__(self, mission: MissionFile, log_dir: Path) -> None:
        self.mission, self.log_dir = mission, log_dir
        self.hooks = {
            name: load_observer(name, mission.source.where(("observers", i)))
            for i, name in enumerate(mission.observers)
        }
        self.metrics: Path | None = None

    def __enter__(self) -> Observers:
        return self

    def __exit__(self, *error: Any) -> None:
        self.emit("mission_end") if error[0] is not None else None

    def emit(self, kind: str, phase: str = "", env_steps: int = 0, *, data: Any = None, **more: Any) -> None:
        """One event, to the metrics file and to every observer."""
        data = {"log_dir": str(self.log_dir), **(data or {})}
        event = Event(kind, self.mission.name, phase, env_steps, data=data, **more)
        self._write(event)
        for name, hook in list(self.hooks.items()):
            try:
                hook(event=event)
            except Exception as error:
                log.warning('observer "%s" raised and is dropped: %s: %s', name, type(error).__name__, error)
                del self.hooks[name]

    def _write(self, event: Event) -> None:
        """`metrics.jsonl` of the phase: one line for each chunk, evaluation, warm-up and gate."""
        if event.kind == "phase_start":
            self.metrics = Path(event.data["folder"]) / "metrics.jsonl"
        if self.metrics is None or event.kind not in ("chunk", "evaluation", "warm_up", "gate"):
            return
        line = {"kind": event.kind, "env_steps": event.env_steps, **event.scalars}
        if event.kind == "warm_up":
            line["CriticWarmUp/Loss"] = float(np.asarray(event.data["CriticWarmUp/Loss"])[-1])
        if "Replay/Priority" in event.histograms:  # enough of it for learning curves
            p50, p95 = np.percentile(event.histograms["Replay/Priority"], (50, 95))
            line |= {"Replay/PriorityP50": float(p50), "Replay/PriorityP95": float(p95)}
        if event.kind == "gate":
            line |= {k: event.data[k] for k in ("passed", "count", "flights", "low", "high", "failures")}
        with machine_errors(self.metrics, "to write metrics", "free disk space; the last checkpoint is kept"):
            self.metrics.parent.mkdir(parents=True, exist_ok=True)
            with self.metrics.open("a") as stream:
                stream.write(json.dumps(line, allow_nan=False) + "\n")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Lines of a metrics file; one that was cut off in the middle does not count."""
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and isinstance(line.get("env_steps"), int):
            lines.append(line)
    return lines
