"""TensorBoard scalars and histograms, under `<log-dir>/<mission>/<phase>`.

Names are those of `docs/sac.md`; `CriticWarmUp/Loss` is the seed's. A resumed phase purges what it
will write again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mission.hooks import Event, hookimpl

_writer: Any = None


@hookimpl
def mission_event(event: Event) -> None:
    """Write what the event carries."""
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
    if event.kind == "warm_up":
        for step, loss in enumerate(event.data["CriticWarmUp/Loss"]):
            _writer.add_scalar("CriticWarmUp/Loss", float(loss), step)
    if event.kind in ("phase_end", "mission_end"):
        _writer.close()
        _writer = None
