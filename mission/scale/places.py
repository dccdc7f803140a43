"""The places of training runs: processes of this machine, or a Ray cluster whose nodes see the same files."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, Protocol

from mission.errors import InputError, machine_errors
from mission.scale.cluster import Cluster, cluster, place_of
from mission.scale.jobs import Task
from mission.scale.local import run_here, run_local, worker_count

_STOP = ".stop"  # a file in the output folder that tells trainings on other machines to save and end
_POLL_S = 0.2


class Trainings(Protocol):
    """Runs trainings, several at a time."""

    def run(
        self, tasks: Iterator[Task], stop: Callable[[], bool], tick: Callable[[], None]
    ) -> Iterator[tuple[Task, int]]:
        """Run tasks, taken one by one when a worker is free; yield each with the exit code of its process."""
        ...


@contextlib.contextmanager
def open_trainings(on: str, workers: int | None, cores: int, output: Path) -> Generator[Trainings]:
    """Yield the workers of a place.

    Args:
      on: "local", "ray" or "ray:ADDRESS".
      workers: trainings at a time; None: as many as there are cores for.
      cores: of each training.
      output: folder of the sweep or search.

    Raises:
      MissionError: the place is not known or cannot be reached, or has too few cores.
    """
    for option, value in (("--workers", workers), ("--cores", cores)):
        if value is not None and value < 1:
            raise InputError(option, expected="at least 1", found=str(value), remedy="raise the number")
    if not place_of(on).ray:
        yield _Local(worker_count(workers, cores))
        return
    with cluster(on, cores, workers) as found:
        yield _OnCluster(found, output)


class _Local:
    """Processes of this machine."""

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def run(
        self, tasks: Iterator[Task], stop: Callable[[], bool], tick: Callable[[], None]
    ) -> Iterator[tuple[Task, int]]:
        """Run tasks in processes."""
        return run_local(tasks, self.workers, stop, tick)


class _OnCluster:
    """Tasks of a cluster, each of which starts a process for its trainings."""

    def __init__(self, workers: Cluster, output: Path) -> None:
        self.workers, self.stop_file = workers, output.resolve() / _STOP

    def run(
        self, tasks: Iterator[Task], stop: Callable[[], bool], tick: Callable[[], None]
    ) -> Iterator[tuple[Task, int]]:
        """Run tasks on the cluster; once `stop` returns True, a file tells those that run to save and end."""
        self.stop_file.unlink(missing_ok=True)
        taken: list[Task] = []
        ended: queue.Queue[tuple[int, Any] | BaseException | None] = queue.Queue()

        def items() -> Iterator[Task]:
            while not stop() and (task := next(tasks, None)) is not None:
                taken.append(task)
                yield task

        def work() -> None:  # the cluster waits for its workers, and signals must be noticed meanwhile
            try:
                shared = self.workers.put(str(self.stop_file))
                for one in self.workers.run(run_here, items(), shared, name=lambda task: task.jobs[0].folder):
                    ended.put(one)
                ended.put(None)
            except BaseException as error:
                ended.put(error)

        threading.Thread(target=work, name="cluster", daemon=True).start()
        finished = False
        try:
            while True:
                if stop():
                    self._tell_to_stop()
                tick()
                with contextlib.suppress(queue.Empty):
                    match ended.get(timeout=_POLL_S):
                        case None:
                            finished = True
                            return
                        case BaseException() as error:
                            raise error
                        case index, code:
                            yield taken[index], code
        finally:
            if not finished:
                self._tell_to_stop()

    def _tell_to_stop(self) -> None:
        if not self.stop_file.exists():
            with machine_errors(self.stop_file, "a file to be written", "free disk space"):
                self.stop_file.touch()
