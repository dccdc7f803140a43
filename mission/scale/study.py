"""The study of a search in Optuna's journal; the only file that uses Optuna, which the extra `tune` installs."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Literal, NamedTuple

from mission.errors import InputError
from mission.machine.extras import import_extra
from mission.scale.space import Dimension, Scalar, Space

JOURNAL = "journal.log"
PRUNERS = ("median", "halving", "none")
_STUDY, _REASON = "mission", "reason"
_STRIDE = 7919  # between the seeds of the sampler for neighbouring trials


def optuna() -> Any:
    """Return the package Optuna.

    Raises:
      MachineError: it is not installed.
    """
    package = import_extra("optuna", "mission-engine[tune]", "mission tune")
    package.logging.set_verbosity(package.logging.ERROR)
    return package


TrialState = Literal["running", "complete", "pruned", "failed"]


class Trial(NamedTuple):
    """One trial: its values by key, its state, its objective if it is complete, and why it failed."""

    number: int
    values: dict[str, Scalar]
    state: TrialState
    objective: float | None
    reason: str


class Study:
    """The trials of a search in a journal, which several processes may have open."""

    def __init__(self, journal: Path, direction: str, pruner: str, startup_trials: int) -> None:
        """Open the journal, or create it.

        Args:
          journal: the file.
          direction: "maximize" or "minimize".
          pruner: one of `PRUNERS`.
          startup_trials: trials that are drawn at random, and before whose end none is pruned.
        """
        self.startup_trials, self.package = startup_trials, optuna()
        pruners = {
            "median": lambda: self.package.pruners.MedianPruner(n_startup_trials=startup_trials),
            "halving": lambda: self.package.pruners.SuccessiveHalvingPruner(),
            "none": lambda: self.package.pruners.NopPruner(),
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what is experimental in Optuna
            backend = self.package.storages.journal.JournalFileBackend(str(journal))
            self.storage = self.package.storages.JournalStorage(backend)
            self.study = self.package.create_study(
                study_name=_STUDY,
                storage=self.storage,
                direction=direction,
                pruner=pruners[pruner](),
                load_if_exists=True,
            )

    def trials(self) -> list[Trial]:
        """Return all trials in the order of their numbers."""
        states = self.package.trial.TrialState
        names: dict[Any, TrialState] = {
            states.COMPLETE: "complete", states.PRUNED: "pruned", states.FAIL: "failed",
        }  # fmt: skip
        return [
            Trial(
                number=one.number,
                values=dict(one.params),
                state=names.get(one.state, "running"),
                objective=one.value if one.state == states.COMPLETE else None,
                reason=one.user_attrs.get(_REASON, ""),
            )
            for one in self.study.get_trials(deepcopy=False)
        ]

    def begin(self, space: Space, seed: int) -> Trial:
        """Return a new trial, with values that the sampler draws from the trials so far.

        The sampler is seeded by the number of the trial, so that a search that was interrupted draws the same values.
        """
        number = len(self.study.get_trials(deepcopy=False))
        seed = (seed + _STRIDE * number) % 2**32
        self.study.sampler = self.package.samplers.TPESampler(n_startup_trials=self.startup_trials, seed=seed)
        found = self.study.ask({key: self._distribution(one) for key, one in space.root.items()})
        return Trial(found.number, dict(found.params), "running", None, "")

    def _distribution(self, dimension: Dimension) -> Any:
        kinds, low, high = self.package.distributions, dimension.low, dimension.high
        if dimension.choices is not None:
            return kinds.CategoricalDistribution(dimension.choices)
        if dimension.whole:
            return kinds.IntDistribution(low, high, log=dimension.log, step=dimension.step or 1)
        return kinds.FloatDistribution(low, high, log=dimension.log, step=dimension.step)

    def report(self, number: int, step: int, value: float) -> bool:
        """Report an intermediate value of a running trial; return whether the pruner wants to end it."""
        study = self.storage.get_study_id_from_name(_STUDY)
        trial = self.package.trial.Trial(
            self.study, self.storage.get_trial_id_from_study_id_trial_number(study, number)
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about a value that is reported again after a resumption
            trial.report(value, step)
        return bool(trial.should_prune())

    def end(self, number: int, state: TrialState, objective: float | None = None, reason: str = "") -> None:
        """Record how a trial has ended."""
        states = self.package.trial.TrialState
        if reason:
            study = self.storage.get_study_id_from_name(_STUDY)
            trial = self.storage.get_trial_id_from_study_id_trial_number(study, number)
            self.storage.set_trial_user_attr(trial, _REASON, reason)
        ends = {"complete": states.COMPLETE, "pruned": states.PRUNED, "failed": states.FAIL}
        self.study.tell(number, objective, state=ends[state])


def check_pruner(pruner: str) -> None:
    """Reject an unknown pruner.

    Raises:
      InputError: names those that exist.
    """
    if pruner not in PRUNERS:
        remedy = "name one of them"
        raise InputError("--pruner", expected=f"one of {', '.join(PRUNERS)}", found=pruner, remedy=remedy)
