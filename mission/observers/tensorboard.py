"""TensorBoard scalars and histograms, in `<log_dir of the event>/<mission>/<phase>`, named as in docs/sac.md.

The resolved configuration is in `<log_dir>/<mission>`, as hyperparameters (`mission.observers.hparams`). A resumed phase purges the events that it will write again. `SummaryWriter` is not used: it writes in a thread of its
own, and if that thread ends, because the disk is full, its queue blocks the caller indefinitely.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import numpy as np

from mission.missionfile.hooks import Event, hookimpl
from mission.observers.hparams import session_end, session_start
from mission.observers.runs import flat_settings

_FLUSH_EVERY_S = 5.0
_SESSION = "session"  # the files of the settings begin with it
_POSITIVE = 1e-12 * 1.1 ** np.arange(774)  # up to 1e20, the edges of TensorFlow's own histograms
_EDGES = np.concatenate([-_POSITIVE[::-1], [0.0], _POSITIVE])


class _EventFile:
    """One event file of TensorBoard; an error of the disk is raised to the caller."""

    def __init__(self, folder: Path, name: str = "events") -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event as Record  # ty: ignore[missing-module-member]

        folder.mkdir(parents=True, exist_ok=True)
        self.record, self.writer, self.flushed = Record, EventsWriter(str(folder / name)), time.monotonic()

    def add(self, step: int, **content: Any) -> None:
        """Append one record."""
        self.writer.write_event(self.record(wall_time=time.time(), step=step, **content))

    def purge(self, step: int) -> None:
        """Hide what earlier files hold from this step on."""
        from tensorboardX.proto.event_pb2 import SessionLog  # ty: ignore[missing-module-member]

        self.add(step, file_version="brain.Event:2")
        self.add(step, session_log=SessionLog(status=SessionLog.START))

    def flush(self, now: bool = False) -> None:
        """Write what is buffered, every few seconds or now."""
        if now or time.monotonic() - self.flushed >= _FLUSH_EVERY_S:
            self.writer.flush()
            self.flushed = time.monotonic()


_file: _EventFile | None = None


@hookimpl
def mission_event(event: Event) -> None:
    """Write the scalars, histograms and series of an event."""
    global _file
    folder = Path(event.data["log_dir"]) / event.mission
    if event.kind == "mission_start":
        _begin_session(folder, event.data)
    if event.kind == "mission_end":
        _write_session(folder, session_end(event.data["status"] in ("finished", "stopped")), "2-end")
    if event.kind == "phase_start":
        _file = _EventFile(folder / event.phase)
        _file.purge(event.env_steps + 1 if event.env_steps else 0)
    if _file is None:
        return
    ending = event.kind in ("phase_end", "mission_end")
    try:
        _write(_file, event)
        _file.flush(now=ending)
    except OSError:
        with contextlib.suppress(OSError):  # what is buffered cannot be written either
            _file.writer.close()
        _file = None
        raise
    if ending:
        _file.writer.close()
        _file = None


def _begin_session(folder: Path, data: dict[str, Any]) -> None:
    """Write the settings of a training; those of an earlier call of the same training are replaced."""
    for earlier in folder.glob(f"{_SESSION}*") if folder.is_dir() else ():
        earlier.unlink()
    name = f"seed {data['seed']}, {data['configuration']['digest'][:8]}"
    _write_session(folder, session_start(name, flat_settings(data["configuration"]), data["phases"]), "1-start")


def _write_session(folder: Path, summaries: list[Any], part: str) -> None:
    """Write a file of its own; TensorBoard reads the files of a folder in the order of their names."""
    file = _EventFile(folder, f"{_SESSION}-{part}")
    file.add(0, file_version="brain.Event:2")
    for summary in summaries:
        file.add(0, summary=summary)
    file.writer.close()


def _write(file: _EventFile, event: Event) -> None:
    from tensorboardX.summary import histogram, scalar

    for name, value in event.scalars.items():
        file.add(event.env_steps, summary=scalar(name, value))
    for name, values in event.histograms.items():
        file.add(event.env_steps, summary=histogram(name, np.asarray(values), _EDGES))
    for name, values in event.series.items():
        for step, value in enumerate(values):
            file.add(step, summary=scalar(name, float(value)))
