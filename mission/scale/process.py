"""The process of a task: `python -m mission.scale.process` reads a task from standard input and runs its trainings.

Standard input stays open as long as the parent lives; at its end the training saves and stops, as after a signal.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading

from mission.training.signals import finish_process, quiet_threads, watch_signals


def main() -> None:
    """Run the task on standard input and end the process with its exit code."""
    watch_signals()
    quiet_threads()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    for noisy in ("absl", "orbax", "jax"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    from mission.scale.jobs import Task

    task = Task.model_validate_json(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    if task.affinity and hasattr(os, "sched_setaffinity"):
        with contextlib.suppress(OSError):  # a core that is not there any more
            os.sched_setaffinity(0, task.affinity)
    from mission.scale.training import run_task

    finish_process(run_task(task))


def _end_with_parent() -> None:
    while sys.stdin.read(1 << 16):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
