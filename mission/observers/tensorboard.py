"""TensorBoard scalars and histograms, in `<log_dir of the event>/<mission>/<phase>`, named as in docs/sac.md.

A resumed phase purges the events that it will write again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mission.hooks import Event, hookimpl

_writer: Any = None


@hookimpl
def mission_event(event: Event) -> None:
    """Write the scalars, histograms and series of an event."""
    global _writer
    if event.kind == "phase_start":
        from tensorboardX import SummaryWriter

        folder = Path(event.data["log_dir"]) / event.mission / event.phase
        _writer = SummaryWriter(str(folder), purge_step=event.env_steps + 1 if event.env_steps else 0)
    if _writer is None:
        return
    for name, value in event.scalars.items():
        _writer.add_scalar(name, value, event.env_steps)
    for name, values in event.histograms.items():
        _writer.add_histogram(name, np.asarray(values), event.env_steps)
    for name, values in event.series.items():
        for step, value in enumerate(values):
            _writer.add_scalar(name, float(value), step)
    if event.kind in ("phase_end", "mission_end"):
        _writer.close()
        _writer = None
