"""The observers of a run: always the metrics file, and those that the mission file lists."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from mission.errors import exception_text
from mission.hooks import Event
from mission.missionfile.models import MissionFile
from mission.missionfile.plugins import load_observer
from mission.observers.metrics import KINDS, append_metrics

log = logging.getLogger("mission")


class Observers:
    """Dispatcher of events to every chosen observer; an observer that raises is reported once and dropped."""

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
        if error[0] is not None:
            self.emit("mission_end")

    def emit(self, kind: str, phase: str = "", env_steps: int = 0, *, data: Any = None, **more: Any) -> None:
        """Send one event to the metrics file and to every observer."""
        data = {"log_dir": str(self.log_dir), **(data or {})}
        event = Event(kind, self.mission.name, phase, env_steps, data=data, **more)
        if kind == "phase_start":
            self.metrics = Path(event.data["folder"]) / "metrics.jsonl"
        if self.metrics is not None and kind in KINDS:
            append_metrics(self.metrics, event)
        for name, hook in list(self.hooks.items()):
            try:
                hook(event=event)
            except Exception as error:
                log.warning('observer "%s" raised and is dropped: %s', name, exception_text(error))
                del self.hooks[name]
