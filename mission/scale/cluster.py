"""Tasks on worker processes: in this process, on a local Ray, or on a Ray cluster that the user runs.

Each task runs on a fixed number of cores, on CPU devices, so its results are those of any other machine with the same
sources and libraries. A worker with other sources or libraries is rejected.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import re
import sys
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple, Protocol

from mission.errors import InputError, MachineError, exception_text
from mission.machine.devices import visible_cores
from mission.scale.connecting import connected, import_ray, started
from mission.scale.worker import Function, perform, version_of, worker_environment, worker_versions
from mission.training.early import started_as_program

log = logging.getLogger("mission")
_TRIES = 4  # of one item, if its worker dies
_AHEAD = 2  # tasks per worker that are handed out, so that no worker waits for the driver
_ADDRESS = re.compile(r"auto|(ray://)?(?P<host>[^\s/:\[\]]+|\[[0-9a-fA-F:]+\]):(?P<port>\d{1,5})")


class Place(NamedTuple):
    """Where work runs: in this process, or on Ray; without an address on a local Ray, which ends with the command."""

    ray: bool
    address: str | None = None


def place_of(on: str) -> Place:
    """Return the place that `--on` names.

    Raises:
      InputError: it is none of local, ray, and ray:ADDRESS.
    """
    kind, separator, address = on.partition(":")
    if kind in ("local", "ray") and not separator:
        return Place(kind == "ray")
    match = _ADDRESS.fullmatch(address)
    if kind == "ray" and match is not None and int(match["port"] or 1) in range(1, 1 << 16):
        return Place(True, address)
    raise InputError(
        "--on",
        expected="local, ray, or ray:ADDRESS with the address of a cluster: auto, HOST:PORT or ray://HOST:PORT",
        found=on or "nothing",
        remedy="write --on ray for the cores of this machine",
    )


class Cluster(Protocol):
    """Worker processes that run tasks."""

    core_seconds: float  # that finished tasks have taken

    @property
    def workers(self) -> int:
        """Return the number of tasks that run at once."""
        ...

    def put(self, value: Any) -> Any:
        """Send a value to the workers once; return the reference that `run` takes."""
        ...

    def run(
        self, function: Function, items: Iterable[Any], shared: Any, name: Callable[[Any], str] = str
    ) -> Generator[tuple[int, Any]]:
        """Call `function(shared value, item)` for each item; yield (index of the item, result) as they complete.

        Items are taken as workers become free. If the iterator is closed, tasks that run are cancelled.

        Args:
          function: of a module that the workers can import.
          items: what the tasks work on; small.
          shared: from `put`.
          name: gives the name of an item for messages.

        Raises:
          MissionError: as a task raised it, or an item's workers died again and again (MachineError).
        """
        ...


@contextlib.contextmanager
def cluster(on: str, cores_per_task: int = 1, workers: int | None = None) -> Generator[Cluster]:
    """Start a local Ray or connect to a cluster, and end or leave it afterwards; `local` runs tasks in this process.

    Args:
      on: as for `place_of`.
      cores_per_task: cores of each task, which are its CPU devices and its threads.
      workers: the most tasks at once; None: as many as there are cores for.

    Raises:
      MissionError: Ray is not installed, cannot be started or reached, or has too few cores.
    """
    place = place_of(on)
    if not place.ray:
        yield _ThisProcess()
        return
    ray = import_ray()
    if place.address is None:
        count = workers or max(1, visible_cores() // cores_per_task)
        with started(ray, count * cores_per_task) as folder:
            yield _OnRay(ray, count, _AHEAD * count, cores_per_task, {"TMPDIR": folder})
        return
    with connected(ray, place.address):
        nodes = [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]
        count = min(sum(int(cores // cores_per_task) for cores in nodes), workers or sys.maxsize)
        if count < 1:
            found = f"nodes with {', '.join(f'{cores:g}' for cores in nodes) or 'no'} cores"
            expected, remedy = f"a node with {cores_per_task} cores for a task", "add nodes to the cluster"
            raise MachineError(f"--on {on}", expected=expected, found=found, remedy=remedy)
        yield _OnRay(ray, count, count if workers else _AHEAD * count, cores_per_task)


class _ThisProcess:
    """One task after another, in this process."""

    def __init__(self) -> None:
        self.workers, self.core_seconds = 1, 0.0

    def put(self, value: Any) -> Any:
        return value

    def run(
        self, function: Function, items: Iterable[Any], shared: Any, name: Callable[[Any], str] = str
    ) -> Generator[tuple[int, Any]]:
        for index, item in enumerate(items):
            begun = time.monotonic()
            result = function(shared, item)
            self.core_seconds += (time.monotonic() - begun) * visible_cores()
            yield index, result


class _Task(NamedTuple):
    index: int
    item: Any
    tries: int = 1


class _OnRay:
    """Tasks on the workers of Ray, with `cores` cores for each; `ahead` tasks are handed out."""

    def __init__(
        self, ray: Any, workers: int, ahead: int, cores: int, variables: Mapping[str, str] | None = None
    ) -> None:
        self.workers, self.core_seconds = workers, 0.0
        self._ray, self._ahead, self._cores = ray, ahead, cores
        self._variables = worker_environment(cores) | dict(variables or {})

    def put(self, value: Any) -> Any:
        return self._ray.put(value)

    def run(
        self, function: Function, items: Iterable[Any], shared: Any, name: Callable[[Any], str] = str
    ) -> Generator[tuple[int, Any]]:
        options = {
            "num_cpus": self._cores,
            "max_retries": 0,
            "runtime_env": {"env_vars": self._variables},
        }
        remote = self._ray.remote(perform).options(**options)
        start = partial(remote.remote, function, _command(), worker_versions(), shared)
        waiting, running = enumerate(items), {}
        try:
            while True:
                while len(running) < self._ahead and (entry := next(waiting, None)) is not None:
                    running[start(entry[1])] = _Task(*entry)
                if not running:
                    return
                (done,), _ = self._ray.wait(list(running), num_returns=1)
                task = running.pop(done)
                try:
                    yield task.index, self._result(done)
                except _WorkerDied as died:
                    again = _again(task, name(task.item), died)
                    running[start(again.item)] = again
        finally:
            for one in running:
                self._ray.cancel(one)

    def _result(self, done: Any) -> Any:
        exceptions = importlib.import_module("ray.exceptions")
        try:
            value, error, seconds = self._ray.get(done)
        except exceptions.RayTaskError as failed:  # `perform` catches what a task raises: the engine itself is missing
            raise MachineError(
                "a Ray worker",
                expected=f"mission-engine {version_of('mission-engine')} to be installed there, with its libraries",
                found=exception_text(failed.cause if failed.cause is not None else failed),
                remedy="install the same distributions on every node of the cluster",
            ) from None
        except exceptions.RayError as lost:
            raise _WorkerDied(exception_text(lost)) from None
        self.core_seconds += seconds * self._cores
        if error is not None:
            raise error
        return value


class _WorkerDied(Exception):
    """The process or the node of a task is gone."""


def _again(task: _Task, name: str, died: _WorkerDied) -> _Task:
    """Return the task to run once more, with a warning."""
    if task.tries == _TRIES:
        raise MachineError(
            "a Ray worker",
            expected=f"{name} to be completed",
            found=f"{_TRIES} workers died at it, the last one by {died}",
            remedy="check the memory of the machines; a worker that the system ends for lack of it dies like this",
        )
    log.warning("a Ray worker died at %s (%s): it is repeated (%d of %d)", name, died, task.tries, _TRIES - 1)
    return task._replace(tries=task.tries + 1)


def _command() -> str:
    """Return what an error of a task is attributed to if nothing closer explains it."""
    return " ".join(["mission", *sys.argv[1:2]]) if started_as_program() else "a task on Ray"
