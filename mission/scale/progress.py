"""The progress of the training runs of a sweep or a search, and an estimate of the remaining time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from mission.errors import printable
from mission.missionfile.models import MissionFile
from mission.scale.jobs import TrainingJob, share_done

_LOOK_EVERY_S = 2.0
_PLAIN_EVERY_S = 30.0


class TrainingsState(NamedTuple):
    """Numbers of trainings; `left_s` is about the time that the others take, None if it is not known yet."""

    ended: int
    running: int
    total: int
    left_s: float | None


Progress = Callable[[TrainingsState], None]


class Tracker:
    """Follows trainings by the vehicle steps in their folders."""

    def __init__(self, jobs: Sequence[TrainingJob], mission: MissionFile, done: int, show: Progress | None) -> None:
        """Begin to follow.

        Args:
          jobs: trainings to run.
          mission: whose phases and budgets the trainings have.
          done: trainings that have a result already.
          show: receives the state.
        """
        self.mission, self.show, self.done, self.total = mission, show, done, done + len(jobs)
        self.running: dict[str, TrainingJob] = {}
        self.began = self.looked = time.monotonic()
        self.waiting = sum(1.0 - share_done(mission, Path(job.folder)) for job in jobs) if show is not None else 0.0
        self.ended = 0.0  # shares of the trainings that ended in this process
        self.first: dict[str, float] = {}

    def begin(self, job: TrainingJob) -> None:
        """Note that a training begins or resumes."""
        self.running[job.folder] = job
        self.first[job.folder] = share_done(self.mission, Path(job.folder)) if self.show is not None else 0.0

    def end(self, job: TrainingJob) -> None:
        """Note that a training has ended."""
        del self.running[job.folder]
        self.ended += 1.0 - self.first[job.folder]
        self.done += 1
        self._tell()

    def tick(self) -> None:
        """Look at the trainings, every few seconds."""
        if time.monotonic() - self.looked >= _LOOK_EVERY_S:
            self._tell()

    def _tell(self) -> None:
        if self.show is None:
            return
        self.looked = time.monotonic()
        shares = {folder: share_done(self.mission, Path(folder)) for folder in list(self.running)}
        gained = self.ended + sum(max(0.0, share - self.first[folder]) for folder, share in shares.items())
        left = (self.looked - self.began) * max(0.0, self.waiting - gained) / gained if gained > 0.0 else None
        self.show(TrainingsState(self.done, len(shares), self.total, left))


@contextlib.contextmanager
def trainings_bar(what: str = "trainings") -> Generator[Progress]:
    """Yield a display of trainings on standard error: a live line on a terminal, plain lines elsewhere."""
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[text]}")
    printed, shown = time.monotonic(), -1
    with Bar(*columns, TimeElapsedColumn(), console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None, text="starting")

        def show(state: TrainingsState) -> None:
            nonlocal printed, shown
            left = "" if state.left_s is None else f", about {_duration(state.left_s)} left"
            text = f"{state.ended} of {state.total} {what} have ended, {state.running} run{left}"
            bar.update(task, completed=state.ended, total=state.total, text=text)
            due = state.ended != shown or time.monotonic() - printed >= _PLAIN_EVERY_S
            if bar.disable and due:
                printed, shown = time.monotonic(), state.ended
                console.print(printable(text), highlight=False, markup=False, soft_wrap=True)

        yield show


def _duration(seconds: float) -> str:
    """Return a duration for display: 40 s, 12 min, 3.5 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
