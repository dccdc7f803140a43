"""The observer of a trial's training run: it records the objective of each evaluation and ends pruned runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from mission.missionfile.hooks import Event, StopTraining
from mission.scale.jobs import TrialReport, read_training
from mission.scale.study import Study
from mission.storage.stored import json_mapping

EVALUATIONS = "evaluations.jsonl"
_SCALARS = {"success": "Evaluation/Success", "return": "Evaluation/Return"}


class Reporter:
    """Follows the trainings of one trial, one after another; the value of a trial is the mean over its trainings."""

    def __init__(self, trial: TrialReport) -> None:
        self.trial = trial
        self.study = Study(Path(trial.journal), trial.direction, trial.pruner, trial.startup_trials)
        self.earlier: list[Path] = []

    def follow(self, folder: Path) -> Callable[[Event], None]:
        """Return the observer of the next training, which is in this folder."""
        before = [trained_value(one, self.trial.phase) for one in self.earlier]
        self.earlier.append(folder)
        return lambda event: self._receive(event, folder, [value for value in before if value is not None])

    def _receive(self, event: Event, folder: Path, before: list[float]) -> None:
        """Record an evaluation; the pruner compares trials at the same number of vehicle steps.

        Raises:
          StopTraining: the pruner ends this trial.
        """
        if event.kind != "evaluation" or event.phase != self.trial.phase:
            return
        value = objective_of(event, self.trial.objective)
        if value is None:
            return
        with (folder / EVALUATIONS).open("a") as stream:
            stream.write(json.dumps({"env_steps": event.env_steps, "value": value}) + "\n")
        mean = (sum(before) + value) / (len(before) + 1)
        if self.study.report(self.trial.trial, len(before) * self.trial.budget + event.env_steps, mean):
            raise StopTraining(f"{self.trial.objective} {mean:.4g} is worse than that of other trials")


def objective_of(event: Event, objective: str) -> float | None:
    """Return the objective of an evaluation: its success, its mean return, or the mean of a channel; None if undefined."""
    return event.scalars[_SCALARS[objective]] if objective in _SCALARS else event.data["channels"][objective]


def read_values(folder: Path) -> dict[int, float]:
    """Return vehicle steps -> objective of the evaluations of a training; a damaged line is left out."""
    path, values = folder / EVALUATIONS, {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        try:
            data = json_mapping(line)
            values[int(data["env_steps"])] = float(data["value"])
        except (ValueError, KeyError, TypeError):
            continue
    return values


def trained_value(folder: Path, phase: str) -> float | None:
    """Return the objective of a finished training: of the evaluation whose policy was stored; None if there is none."""
    record = read_training(folder)
    for one in record.phases if record is not None else ():
        if one.name == phase:
            return read_values(folder).get(one.best_env_steps)
    return None
