"""Common functions of observers that keep a run in a service: its identity, its settings and its numbers.

A name of a number begins with its phase: `landing/Evaluation/Success`.
"""

from __future__ import annotations

import math
import uuid
from pathlib import Path
from typing import Any

import numpy as np

from mission.missionfile.hooks import Event

Setting = bool | int | float | str
RESULTS = ("success", "returns", "seconds")  # of the summary of a phase


def continued_run(event: Event, library: str) -> str | None:
    """Return the identity of the run that this training continues; None if it is a new one.

    Args:
      event: mission_start.
      library: which keeps the run.
    """
    file = _file(event, library)
    known = file.read_text(encoding="utf-8").strip() if file.is_file() else ""
    return None if event.data["fresh"] else known or None


def keep_run(event: Event, library: str, run: str) -> None:
    """Store the identity of a run beside the checkpoints, so that a resumed training continues it."""
    _file(event, library).write_text(f"{run}\n", encoding="utf-8")


def new_identity() -> str:
    """Return an identity that no other run has."""
    return uuid.uuid4().hex[:12]


def _file(event: Event, library: str) -> Path:
    return Path(event.data["checkpoints"]) / f"{library}.run"


def flat_settings(configuration: dict[str, Any], prefix: str = "") -> dict[str, Setting]:
    """Return nested settings by their paths: `phases/landing/sac/gamma`; lists as text, nothing for None."""
    flat: dict[str, Setting] = {}
    for key, value in configuration.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            flat |= flat_settings(value, f"{name}/")
        elif isinstance(value, bool | int | float | str):
            flat[name] = value
        elif value is not None:
            flat[name] = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return flat


def numbers_of(event: Event) -> dict[str, float]:
    """Return the finite numbers of an event by name; of a series the last one."""
    values = dict(event.scalars)
    for name, series in event.series.items():
        values[name] = float(np.asarray(series)[-1])
    data = event.data
    if event.kind == "gate":
        values |= {"gate_passed": float(data["passed"]), "gate_success": _share(data["count"], data["flights"])}
    if event.kind == "sweep":
        values["sweep/success"] = _share(data["succeeded"], data["flights"])
    if event.kind == "joint":
        values["joint/success"] = data["success"]
    prefix = f"{event.phase}/" if event.phase else ""
    return {f"{prefix}{name}": float(value) for name, value in values.items() if math.isfinite(value)}


def step_of(event: Event) -> int:
    """Return the step of an event's numbers: vehicle steps of a phase, sweeps of a chain, updates of joint training."""
    return {"sweep": event.data.get("sweep", 0), "joint": event.data.get("update", 0)}.get(event.kind, event.env_steps)


def results_of(record: dict[str, Any], phase: str) -> dict[str, float]:
    """Return the last numbers of a phase by name, from its training summary: `landing/success`, `landing/gate_passed`."""
    found = {name: record.get(name) for name in RESULTS}
    if record.get("gate"):
        found["gate_passed"] = record["gate"]["passed"]
    return {f"{phase}/{name}": float(value) for name, value in found.items() if value is not None}


def _share(count: int, flights: int) -> float:
    return count / flights if flights else math.nan
