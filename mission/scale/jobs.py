"""One training run of a sweep or a search, and the files in its folder: `training.json` and `log.txt`."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from mission.errors import machine_errors, printable
from mission.machine.devices import Machine
from mission.missionfile.models import MissionFile
from mission.observers.metrics import read_metrics
from mission.report.folder import write_file
from mission.storage.policies import phase_record
from mission.storage.records import PolicyRecord, StepRecord
from mission.storage.steps import PhaseFolder
from mission.storage.stored import check_format, read_stored
from mission.strict import Count, Fraction01, Natural, Seed, StrictModel

RECORD, LOG = "training.json", "log.txt"
HAS_RESULT = (0, 1)  # exit codes after which a training is not repeated: it ran, and its result may be negative
Status = Literal["unfinished", "passed", "gate missed", "stopped", "failed"]


class TrainingJob(StrictModel):
    """One training run of a mission file with overrides, in a folder."""

    mission_file: str
    overrides: tuple[str, ...]
    seed: Seed
    folder: str
    phases: tuple[str, ...] = ()
    allow_local_plugins: bool = False
    checkpoint_every_s: Annotated[float, Field(ge=0)] = 30.0


class TrialReport(StrictModel):
    """Where the trainings of a trial report their evaluations, so that the search can end them early."""

    journal: str
    trial: Natural
    direction: Literal["maximize", "minimize"]
    pruner: str
    startup_trials: Natural
    objective: str
    phase: str
    budget: Count  # vehicle steps of that phase


class Task(StrictModel):
    """Trainings that one process runs one after another; another process that sees the same files can run it, too.

    `cores` determines the number of XLA devices and so the last bits of the results; `affinity` lists the cores of
    this machine that the process may use, and does not affect the results.
    """

    jobs: tuple[TrainingJob, ...]
    cores: Count = 1
    affinity: tuple[int, ...] = ()
    trial: TrialReport | None = None


class PhaseResult(StrictModel):
    """What a training has reached in one phase; `success` and `returns` are those of its bank's flights."""

    name: str
    env_steps: Natural
    best_env_steps: Natural
    success: Fraction01 | None = None
    returns: float | None = None


class TrainingRecord(StrictModel):
    """The state of a training; `seconds` counts all its processes. `exit_code` is None before it has ended by itself."""

    format: Literal[1] = 1
    status: Status
    seconds: float
    exit_code: int | None = None
    reason: str = ""
    phases: tuple[PhaseResult, ...] = ()
    machine: Machine | None = None

    @property
    def has_result(self) -> bool:
        """True if the training need not be repeated."""
        return self.exit_code in HAS_RESULT


def read_training(folder: Path) -> TrainingRecord | None:
    """Return the record in the folder of a training; None if there is none, or if it is damaged.

    Raises:
      FormatError: this version does not read it.
    """
    path = folder / RECORD
    with contextlib.suppress(OSError, ValueError):
        return read_stored(TrainingRecord, path.read_text(encoding="utf-8"), str(path), _upgrade)
    return None


def _upgrade(data: dict[str, Any], where: str) -> dict[str, Any]:
    check_format(data, where, 1, 1, data.get("engine"), "choose another --output")
    return data


def ended_record(job: TrainingJob, code: int) -> TrainingRecord:
    """Return the record of a training whose process has ended; one that says why if it has written none.

    Args:
      job: the training.
      code: exit code of the process; minus N if signal N killed it.
    """
    folder = Path(job.folder)
    record = read_training(folder)
    if record is not None and record.exit_code is not None and (record.has_result or record.exit_code == code):
        return record
    reason = "stopped by a signal" if code == 130 else f"its process ended with exit code {code}"
    if code < 0:
        name = next((one.name for one in signal.Signals if one == -code), str(-code))
        reason = f"killed by {name}"
    status = "unfinished" if code == 130 else "failed"
    if status == "failed" and (last := _last_line(folder / LOG)):
        reason += f"; the last line of {LOG}: {last}"
    seconds = record.seconds if record is not None else 0.0
    code = 3 if code in HAS_RESULT else code  # there is no result
    return TrainingRecord(status=status, seconds=seconds, exit_code=code, reason=printable(reason, 300))


def _last_line(path: Path) -> str:
    """Return the last line of a text file, from its last 4 KiB; empty if there is none."""
    with contextlib.suppress(OSError), path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - 4096))
        lines = stream.read().decode(errors="replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "")
    return ""


def write_training(folder: Path, record: TrainingRecord) -> None:
    """Replace the record in the folder of a training.

    Raises:
      MachineError: disk full or no permission.
    """
    with machine_errors(folder, "the record of a training to be written", "free disk space; the same command resumes"):
        write_file(folder / RECORD, record.model_dump_json(indent=1).encode())


def phase_results(mission: MissionFile, folder: Path) -> tuple[PhaseResult, ...]:
    """Return what a training has stored for the phases that it reached.

    Args:
      mission: that was trained.
      folder: of the training; it holds `<mission>/<phase>/`.
    """
    found = []
    for phase in mission.phases:
        record = phase_record(PhaseFolder(folder / mission.name / phase.name))
        if isinstance(record, PolicyRecord):
            values = record.model_dump(include=set(PhaseResult.model_fields))
            found.append(PhaseResult(name=phase.name, **values))
        elif isinstance(record, StepRecord):
            steps = record.progress.model_dump(include={"env_steps", "best_env_steps"})
            found.append(PhaseResult(name=phase.name, **steps))
    return tuple(found)


def share_done(mission: MissionFile, folder: Path) -> float:
    """Return about how much of a training is done, by its vehicle steps, between 0 and 1."""
    record = read_training(folder)
    if record is not None and record.has_result:
        return 1.0
    done = 0
    for phase in mission.phases:
        files = PhaseFolder(folder / mission.name / phase.name)
        if files.done:
            done += phase.budget.env_steps
        elif files.metrics.is_file():
            lines = read_metrics(files.metrics)
            done += min(lines[-1].env_steps if lines else 0, phase.budget.env_steps)
    return done / sum(phase.budget.env_steps for phase in mission.phases)
