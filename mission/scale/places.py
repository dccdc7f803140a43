"""Where trainings run: in processes of this machine, or as tasks of a Ray cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator
from typing import Protocol

from mission.errors import InputError
from mission.scale.jobs import Task
from mission.scale.local import run_local, worker_count


class Trainings(Protocol):
    """Runs trainings, several at a time."""

    workers: int

    def run(
        self, tasks: Iterator[Task], stop: Callable[[], bool], tick: Callable[[], None]
    ) -> Iterator[tuple[Task, int]]:
        """Run tasks, taken one by one when a worker is free; yield each with the exit code of its process."""
        ...


class _Local:
    """Processes of this machine."""

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def run(
        self, tasks: Iterator[Task], stop: Callable[[], bool], tick: Callable[[], None]
    ) -> Iterator[tuple[Task, int]]:
        """Run tasks in processes."""
        return run_local(tasks, self.workers, stop, tick)


@contextlib.contextmanager
def open_trainings(on: str, workers: int | None, cores: int) -> Generator[Trainings]:
    """Yield the workers of a place.

    Args:
      on: "local", "ray" or "ray:ADDRESS".
      workers: trainings at a time; None: as many as there are cores for.
      cores: of each training.

    Raises:
      MissionError: the place is not known or cannot be reached, or has too few cores.
    """
    if cores < 1 or (workers is not None and workers < 1):
        raise InputError(
            "--workers, --cores", expected="at least 1", found=f"{workers}, {cores}", remedy="raise the number"
        )
    if on != "local":
        raise InputError("--on", expected="local", found=on, remedy="write --on local")
    yield _Local(worker_count(workers, cores))
