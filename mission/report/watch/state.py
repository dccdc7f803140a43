"""The state of a training run, as its folder shows it: which phases are done, how far the others are, and their curves."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from mission.errors import InputError, MissionError
from mission.observers.metrics import MetricsLine, read_metrics
from mission.report.curves import curves, training_files
from mission.storage.lock import LOCK
from mission.storage.markup import escape
from mission.storage.policies import phase_record
from mission.storage.records import PolicyRecord
from mission.storage.steps import PhaseFolder
from mission.strict import StrictModel

log = logging.getLogger("mission")
State = Literal["done", "training", "begun"]


class PhaseState(StrictModel):
    """One phase; `success` is that of the newest evaluation, or of the bank's flights once the phase is done."""

    name: str
    state: State
    env_steps: int
    success: float | None
    returns: float | None
    updates_per_s: float | None
    gate: str


class RunState(StrictModel):
    """A run; `version` changes when anything that the page shows has changed."""

    mission: str
    running: bool
    version: str
    phases: tuple[PhaseState, ...]


def mission_folder(folder: Path) -> Path:
    """Return the folder `checkpoints/<mission>` that a command line names by itself or by the folder that holds only it.

    Raises:
      InputError: it is neither, or holds several missions.
    """
    if training_files(folder) or (folder / LOCK).is_file():
        return folder
    inside = [
        one for one in sorted(folder.glob("*")) if one.is_dir() and (training_files(one) or (one / LOCK).is_file())
    ]
    if len(inside) == 1:
        return inside[0]
    names = ", ".join(one.name for one in inside)
    raise InputError(
        str(folder),
        expected="checkpoints/MISSION of a training run, begun or done",
        found=f"several missions: {names}"
        if inside
        else "no phase with metrics.jsonl"
        if folder.is_dir()
        else "a file"
        if folder.exists()
        else "no such folder",
        remedy=f"name one of them: {inside[0]}" if inside else "begin with `mission train FILE`",
    )


def is_running(folder: Path) -> bool:
    """Return whether the process that locked the folder is alive; the lock itself is left alone, so that no run meets it."""
    with contextlib.suppress(OSError, ValueError):
        number = int((folder / LOCK).read_text(encoding="utf-8").strip())
        try:
            os.kill(number, 0)
        except PermissionError:
            return True  # of another user
        return _holds(number, folder / LOCK)
    return False


def _holds(number: int, lock: Path) -> bool:
    """Return whether a process has a file open, where the system tells; elsewhere a living process counts."""
    descriptors = Path(f"/proc/{number}/fd")
    if not descriptors.is_dir():
        return True
    try:
        return any(os.path.realpath(one) == os.path.realpath(lock) for one in descriptors.iterdir())
    except OSError:
        return True


def run_state(folder: Path) -> RunState:
    """Return the state of the run in `checkpoints/<mission>`."""
    files, running = training_files(folder), is_running(folder)
    phases = tuple(_phase_state(path, running and path == _newest(files)) for path in files)
    marks = [f"{path}:{_stamp(path)}" for path in files] + [f"{one.name}:{one.state}" for one in phases]
    return RunState(mission=folder.resolve().name, running=running, version=str(hash((running, *marks))), phases=phases)


def training_html(folder: Path) -> str:
    """Return the curves of every phase as sections, the newest phase first, so that it is seen without scrolling."""
    parts = []
    for at, path in reversed(list(enumerate(training_files(folder)))):
        name, html = escape(path.parent.name), curves(path)
        parts.append(f'<section aria-labelledby="p{at}"><h2 id="p{at}">{name}</h2>{html or _WAITS}</section>')
    return "".join(parts) or _WAITS


_WAITS = '<p class="soft">Nothing is measured yet: programs are compiled, or the guide is imitated.</p>'


def _newest(files: Sequence[Path]) -> Path | None:
    return max(files, key=_stamp, default=None)


def _stamp(path: Path) -> float:
    with contextlib.suppress(OSError):
        return path.stat().st_mtime
    return 0.0


def _phase_state(path: Path, writing: bool) -> PhaseState:
    folder, lines = PhaseFolder(path.parent), _lines(path)
    record = phase_record(folder)
    done = folder.done and isinstance(record, PolicyRecord)
    gates = [line for line in lines if line.kind == "gate"]
    return PhaseState(
        name=path.parent.name,
        state="done" if done else "training" if writing else "begun",
        env_steps=max((line.env_steps for line in lines), default=0),
        success=record.success if done and isinstance(record, PolicyRecord) else _last(lines, "Evaluation/Success"),
        returns=_last(lines, "Evaluation/Return"),
        updates_per_s=_last(lines, "Speed/UpdatesPerSecond"),
        gate="" if not gates else "passed" if gates[-1].passed else "missed",
    )


def _lines(path: Path) -> list[MetricsLine]:
    """Return the lines of a file that another process may be writing."""
    try:
        return read_metrics(path)
    except MissionError as error:
        log.debug("%s cannot be read now: %s", path, error.found)
        return []


def _last(lines: Sequence[MetricsLine], name: str) -> float | None:
    return next((value for line in reversed(lines) if (value := line.scalar(name)) is not None), None)
