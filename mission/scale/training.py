"""Run the training runs of a task in this process, and record their results."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Generator, Mapping
from pathlib import Path

from mission.errors import GateError, MachineError
from mission.machine.devices import describe
from mission.missionfile.failures import explained
from mission.missionfile.hooks import Event
from mission.missionfile.models import MissionFile
from mission.missionfile.reading import load_mission
from mission.scale.jobs import Status, Task, TrainingJob, TrainingRecord, phase_results, read_training, write_training
from mission.storage.lock import folder_lock
from mission.training.mission import train_mission

_ORPHAN_S = 120.0  # longest wait for a training whose parent was killed, and which is saving its state


Receive = Callable[[Event], None]


def run_task(task: Task) -> int:
    """Run the trainings of a task until one has no result; return the exit code of the last one.

    Errors of a training are recorded and printed, and not raised.
    """
    reporter = None
    if task.trial is not None:
        from mission.scale.reporting import Reporter

        reporter = Reporter(task.trial)
    code = 0
    for job in task.jobs:
        code = _train_job(job, {} if reporter is None else {"search": reporter.follow(Path(job.folder))})
        record = read_training(Path(job.folder))
        if record is None or not record.has_result or record.status == "stopped":
            break
    return code


def _train_job(job: TrainingJob, observers: Mapping[str, Receive]) -> int:
    """Train one job, or resume it, in its folder; return the exit code that `mission train` would have."""
    folder = Path(job.folder)
    with _sole_process(folder):
        before = read_training(folder)
        if before is not None and before.has_result:
            return before.exit_code or 0
        began = time.monotonic() - (before.seconds if before is not None else 0.0)
        mission = None
        try:
            mission = load_mission(job.mission_file, job.overrides)
            status, reason, code = _train(job, mission, folder, began, observers)
        except BaseException as error:
            shown = explained(error, f"seed {job.seed}")
            print(f"error: {shown}", file=sys.stderr, flush=True)
            if shown.exit_code == 130:
                return 130
            status = "gate missed" if isinstance(shown, GateError) else "failed"
            reason, code = f"{shown.where}: {shown.found}", shown.exit_code
        record = TrainingRecord(
            status=status,
            seconds=time.monotonic() - began,
            exit_code=code,
            reason=reason,
            phases=phase_results(mission, folder) if mission is not None else (),
            machine=describe(),
        )
        write_training(folder, record)
        return code


def _train(
    job: TrainingJob, mission: MissionFile, folder: Path, began: float, observers: Mapping[str, Receive]
) -> tuple[Status, str, int]:
    """Return status, reason and exit code of a training that ended without an error."""
    summaries = train_mission(
        mission,
        checkpoints=folder,
        only=job.phases,
        seed=job.seed,
        log_dir=folder / "runs",
        allow_local_plugins=job.allow_local_plugins,
        checkpoint_every_s=job.checkpoint_every_s,
        baseline_flights=0,
        observers={"clock": lambda event: _note_time(event, folder, began), **observers},
    )
    stopped = summaries[-1].status.startswith("stopped")
    return ("stopped", summaries[-1].status, 0) if stopped else ("passed", "", 0)


def _note_time(event: Event, folder: Path, began: float) -> None:
    """Record after each checkpoint how long the training has taken, in case that this process is killed."""
    if event.kind == "checkpoint":
        write_training(folder, TrainingRecord(status="unfinished", seconds=time.monotonic() - began))


@contextlib.contextmanager
def _sole_process(folder: Path) -> Generator[None]:
    """Hold the lock of a training's folder; wait for a process whose parent was killed and which is saving its state."""
    with contextlib.ExitStack() as held:
        deadline = time.monotonic() + _ORPHAN_S
        while True:
            try:
                held.enter_context(folder_lock(folder, "--output"))
                break
            except MachineError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)
        yield
