"""Run a number of training runs in parallel processes of this machine; each gets its share of the cores."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from mission.errors import InputError, MachineError, machine_errors
from mission.machine.devices import CORES_VARIABLE, visible_cores
from mission.scale.jobs import LOG, Task

_POLL_S = 0.1


@dataclasses.dataclass
class _Running:
    """A task that runs in a process; closing its standard input would end it."""

    task: Task
    process: subprocess.Popen[str]
    log: IO[bytes]


def worker_count(workers: int | None, cores: int) -> int:
    """Return how many trainings run at a time: as many as were asked for, or as the cores of this machine allow.

    Raises:
      InputError: there are fewer cores than one training is to have.
    """
    if cores > visible_cores():
        raise InputError(
            "--cores",
            expected=f"at most {visible_cores()}, the cores that this process may use",
            found=str(cores),
            remedy="lower it; it decides the bits of a training, so choose it for the smallest machine",
        )
    return workers if workers is not None else max(1, visible_cores() // cores)


def run_local(
    tasks: Iterator[Task], workers: int, stop: Callable[[], bool], tick: Callable[[], None]
) -> Iterator[tuple[Task, int]]:
    """Run tasks, `workers` at a time, and yield each with the exit code of its process, in the order of their ends.

    Args:
      tasks: taken one by one, when a worker is free.
      workers: processes at a time.
      stop: once it returns True, no task is begun, and those that run save and end.
      tick: called several times per second.
    """
    running: dict[int, _Running] = {}
    stopping = False
    try:
        while True:
            for slot in range(workers):
                task = next(tasks, None) if slot not in running and not stop() else None
                if task is not None:
                    running[slot] = _start(task.model_copy(update={"affinity": _share(slot, workers, task.cores)}))
            if not running:
                return
            time.sleep(_POLL_S)
            tick()
            if stop() and not stopping:
                stopping = True
                for one in running.values():
                    one.process.terminate()
            ended = {slot: one for slot, one in running.items() if one.process.poll() is not None}
            for slot, one in ended.items():
                del running[slot]
                yield one.task, _close(one)
    finally:
        for one in running.values():  # after an error in the caller: they save and end
            one.process.terminate()
        for one in running.values():
            _close(one)


def run_here(stop_file: str, task: Task) -> int:
    """Run a task in a process of this machine, for a worker of a cluster; return its exit code.

    Args:
      stop_file: once it exists, the task is not begun, or saves and ends.
      task: whose files this machine sees.
    """
    if os.path.exists(stop_file):
        return 130
    running = run_local(iter([task]), 1, lambda: os.path.exists(stop_file), lambda: None)
    return next((code for _, code in running), 130)


def _start(task: Task) -> _Running:
    """Start the process of a task; what it prints goes to a file in the folder of its first training."""
    folder = Path(task.jobs[0].folder)
    with machine_errors(folder, "a folder to train in", "free disk space or choose another --output"):
        folder.mkdir(parents=True, exist_ok=True)
        log = (folder / LOG).open("ab")
    paths = [os.path.abspath(entry) for entry in sys.path]
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "mission.scale.process"],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)), CORES_VARIABLE: str(task.cores)},
        start_new_session=True,  # Ctrl-C reaches the parent only, which then ends its children in order
    )
    if process.stdin is None:
        raise MachineError(str(folder), expected="a pipe to the training", found="none", remedy="report it as a bug")
    with contextlib.suppress(BrokenPipeError):  # it has ended already; its exit code says why
        process.stdin.write(task.model_dump_json() + "\n")
        process.stdin.flush()
    return _Running(task, process, log)


def _close(one: _Running) -> int:
    """Wait for a process, release what belongs to it, and return its exit code; minus N if signal N killed it."""
    code = one.process.wait()
    one.log.close()
    if one.process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            one.process.stdin.close()
    return code


def _share(slot: int, workers: int, least: int) -> tuple[int, ...]:
    """Return the cores of a worker: the machine's, divided among the workers; workers share some if there are too few.

    A training has never less than `least` of them, because XLA gets as many devices: that decides the bits of its result.
    """
    if not hasattr(os, "sched_getaffinity"):
        return ()
    cores = sorted(os.sched_getaffinity(0))
    size = max(len(cores) // workers, least)
    return tuple(sorted({cores[(slot * size + i) % len(cores)] for i in range(size)}))
