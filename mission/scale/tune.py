"""`mission.tune`: search for settings with Optuna, one trial after another or several at a time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mission.errors import Interrupted, UnfinishedError
from mission.missionfile.reading import load_mission
from mission.missionfile.statistics import Rate, rate
from mission.scale.best_file import write_mission_file
from mission.scale.combinations import override
from mission.scale.fly import fly_mission
from mission.scale.identity import refuse_another, stored_identity, write_identity
from mission.scale.jobs import HAS_RESULT, Task, ended_record, read_training
from mission.scale.places import Trainings, open_trainings
from mission.scale.progress import Progress, TrainingsState
from mission.scale.reporting import trained_value
from mission.scale.search import Goal, Places, Plan, SearchIdentity, plan_search
from mission.scale.space import Scalar
from mission.scale.study import JOURNAL, Study, Trial, TrialState
from mission.scale.summary import setting_columns
from mission.storage.lock import folder_lock
from mission.storage.tables import Library, Table
from mission.strict import StrictModel
from mission.training.signals import interruptible

SEARCH, BEST = "search.json", "best.yaml"


class TrialRow(StrictModel):
    """One trial: its values, its state (complete, pruned, failed), its objective, and why it failed."""

    number: int
    values: dict[str, Scalar]
    state: str
    objective: float | None
    seconds: float
    env_steps: int
    reason: str


class FreshFlights(StrictModel):
    """The policies of the best trial on flights that the search did not use, for all its seeds together."""

    seed: int
    flights: int
    success: Rate
    objective: float | None


class TuneSummary(StrictModel):
    """A search; the fields are those of `mission tune --json`. `best` is the number of a trial; None if none is complete.

    `mission_file` has the values of the best trial.
    """

    mission: str
    output: str
    phase: str
    objective: str
    direction: str
    seeds: tuple[int, ...]
    cores: int
    trials: tuple[TrialRow, ...]
    best: int | None
    mission_file: str | None
    fresh: FreshFlights | None

    def to_json(self) -> str:
        """Return JSON without NaN."""
        return self.model_dump_json(indent=2)

    def to_frame(self, library: Library = "pandas") -> Any:
        """Return a frame with one row per trial (extra `data`).

        Its columns are `trial`, one per setting of the space under its key, `state`, `objective`, `seconds`, `env_steps` and
        `reason`.

        Args:
          library: "pandas" or "polars".

        Raises:
          MachineError: the library is not installed.
        """
        names, rows = ("state", "objective", "seconds", "env_steps", "reason"), self.trials
        columns: dict[str, list[Any]] = {"trial": [row.number for row in rows]}
        columns |= setting_columns([row.values for row in rows])
        return Table(columns | {name: [getattr(row, name) for row in rows] for name in names}).to_frame(library)


def tune(
    file: str | Path,
    *,
    space: str | Path | Mapping[str, Any],
    trials: int,
    objective: str = "success",
    direction: str | None = None,
    phase: str | None = None,
    seeds: Sequence[int] | None = None,
    output: str | Path | None = None,
    on: str = "local",
    workers: int | None = None,
    cores: int = 1,
    pruner: str = "median",
    startup_trials: int = 5,
    flights: int = 1000,
    allow_local_plugins: bool = False,
    checkpoint_every_s: float = 30.0,
    progress: Progress | None = None,
) -> TuneSummary:
    """Search for the settings that give the best policy; needs the extra `tune` (Optuna).

    A trial trains the mission up to the phase of the objective, with each of the seeds. The same call resumes an
    interrupted search, and a larger number of trials adds trials (docs/sweeps.md).

    Args:
      file: mission file, or the name of an installed mission.
      space: a YAML file, or the same as a mapping: key, as for `--set`, -> low, high, log, step; or choices.
      trials: total number of trials, including those of earlier calls.
      objective: "success", "return", or a telemetry channel: its mean at the end of the successful flights.
      direction: "maximize" or "minimize"; required if the objective is a channel.
      phase: the phase whose evaluations give the objective; None: the last one.
      seeds: seeds of the training runs of each trial; None: only that of the mission file.
      output: folder of the search; default: `searches/<mission>`.
      pruner: "median", "halving" or "none": the rule that ends a trial early, based on its intermediate evaluations.
      startup_trials: number of trials that are drawn at random; "median" ends no trial before they are complete.
      flights: number of flights of the best policies at the end, with a seed that no training run used; 0: none.
      on, workers, cores, allow_local_plugins, checkpoint_every_s, progress: as in `sweep`.

    Raises:
      MissionError: wrong input or the folder of another search (2), Optuna is missing or not writable (3). A trial
        that fails is a row of the summary.
      Interrupted: Ctrl-C; the same call resumes.
    """
    goal = Goal(objective, direction, phase, pruner, startup_trials)
    places = Places(file, output, seeds, cores, allow_local_plugins, checkpoint_every_s)
    plan = plan_search(places, space, goal, trials, flights)
    with open_trainings(on, workers, cores, plan.folder) as trainings:
        return _search(plan, trainings, progress)


def _search(plan: Plan, trainings: Trainings, progress: Progress | None) -> TuneSummary:
    """Run the trials that are missing, and summarise all of them."""
    stored, identity = stored_identity(plan.folder, SEARCH, SearchIdentity), plan.identity
    if stored is not None:
        refuse_another(plan.folder, stored, identity, set())
    with folder_lock(plan.folder, "--output"), interruptible() as stop:
        write_identity(plan.folder, SEARCH, identity)
        study = Study(plan.folder / JOURNAL, identity.direction, identity.pruner, identity.startup_trials)
        _run_trials(plan, study, trainings, stop, progress)
        return _finish(plan, study)


def _run_trials(
    plan: Plan, study: Study, trainings: Trainings, stop: Callable[[], bool], progress: Progress | None
) -> None:
    """Continue the trials that were interrupted, then draw new ones until there are enough."""
    interrupted = deque(trial for trial in study.trials() if trial.state == "running")
    begun: set[int] = set()
    ended_before, started = sum(trial.state != "running" for trial in study.trials()), time.monotonic()

    def tasks() -> Iterator[Task]:
        while interrupted or len(study.trials()) < plan.trials:
            trial = interrupted.popleft() if interrupted else study.begin(plan.space, plan.mission.seed)
            begun.add(trial.number)
            yield plan.task(trial)

    def tell() -> None:
        if progress is not None:
            ended = sum(trial.state != "running" for trial in study.trials())
            total, now = max(plan.trials, ended), ended - ended_before
            left = (time.monotonic() - started) * (total - ended) / now if now else None
            progress(TrainingsState(ended, len(begun), total, left))

    for task, code in trainings.run(tasks(), stop, lambda: None):
        if task.trial is None:
            continue
        number = task.trial.trial
        begun.discard(number)
        if code != 130:
            state, objective, reason = _outcome(plan, task, number, code)
            study.end(number, state, objective, reason)
        tell()
    if stop():
        ended = sum(trial.state != "running" for trial in study.trials())
        raise Interrupted(
            str(plan.folder),
            expected=f"{plan.trials} trials",
            found=f"a signal; {ended} of them have ended",
            remedy="the same command resumes",
        )


def _outcome(plan: Plan, task: Task, number: int, code: int) -> tuple[TrialState, float | None, str]:
    """Return state, objective and reason of a trial whose process has ended."""
    values = []
    for job, folder in zip(task.jobs, plan.folders(number), strict=True):
        record = ended_record(job, code)
        if record.status == "stopped":
            return "pruned", None, record.reason
        if record.exit_code not in HAS_RESULT:
            return "failed", None, record.reason
        value = trained_value(folder, plan.identity.phase)
        if value is None:
            reason = record.reason or "it has no value in the evaluation whose policy was stored"
            return "failed", None, f"seed {job.seed}: {reason}"
        values.append(value)
    return "complete", sum(values) / len(values), ""


def _finish(plan: Plan, study: Study) -> TuneSummary:
    """Write the mission file of the best trial, fly its policies, and return the summary."""
    rows = [_row(plan, trial) for trial in study.trials()]
    sign = 1.0 if plan.identity.direction == "maximize" else -1.0
    complete = [trial for trial in study.trials() if trial.objective is not None]
    best = max(complete, key=lambda trial: (sign * (trial.objective or 0.0), -trial.number), default=None)
    target = plan.folder / BEST
    if best is not None:
        overrides = [override(key, value) for key, value in best.values.items()]
        heading = f"Trial {best.number} of {len(rows)}: {plan.identity.objective} of {plan.identity.phase} {best.objective:.6g}"
        write_mission_file(target, plan.path, overrides, heading, plan.allow_local_plugins)
    return TuneSummary(
        mission=plan.mission.name,
        output=str(plan.folder),
        phase=plan.identity.phase,
        objective=plan.identity.objective,
        direction=plan.identity.direction,
        seeds=plan.identity.seeds,
        cores=plan.identity.cores,
        trials=tuple(rows),
        best=None if best is None else best.number,
        mission_file=None if best is None else str(target),
        fresh=None if best is None or not plan.flights else _fly_best(plan, best),
    )


def _row(plan: Plan, trial: Trial) -> TrialRow:
    records = [record for folder in plan.folders(trial.number) if (record := read_training(folder)) is not None]
    return TrialRow(
        number=trial.number,
        values=trial.values,
        state=trial.state,
        objective=trial.objective,
        seconds=sum(record.seconds for record in records),
        env_steps=sum(phase.env_steps for record in records for phase in record.phases),
        reason=trial.reason,
    )


def _fly_best(plan: Plan, best: Trial) -> FreshFlights:
    """Fly the policies of the best trial through the phases that were trained, with a seed that no training had."""
    seed = next(number for number in range(len(plan.identity.seeds) + 1) if number not in plan.identity.seeds)
    whole = load_mission(plan.path, [override(key, value) for key, value in best.values.items()])
    mission = whole.model_copy(update={"phases": whole.phases[: len(plan.names)]})
    local = plan.allow_local_plugins
    flown = [
        fly_mission(mission, checkpoints=folder, flights=plan.flights, seed=seed, allow_local_plugins=local)
        for folder in plan.folders(best.number)
    ]
    last = [summary.phases[-1] for summary in flown]
    name = plan.identity.objective
    success = rate(sum(one.succeeded for one in last), sum(one.entered for one in last))
    means = [one.returns.mean if name == "return" else one.end[name].mean for one in last if name != "success"]
    known = [mean for mean in means if mean is not None]
    value = success.rate if name == "success" else sum(known) / len(known) if known else None
    return FreshFlights(seed=seed, flights=plan.flights * len(flown), success=success, objective=value)


def require_best(summary: TuneSummary) -> None:
    """Check that a trial of a search is complete.

    Raises:
      UnfinishedError: none is; names the reason of the first.
    """
    if summary.best is None:
        first = next((f"; trial {row.number}: {row.reason}" for row in summary.trials if row.reason), "")
        raise UnfinishedError(
            summary.output,
            expected="a trial that is complete",
            found=f"none of {len(summary.trials)}{first}",
            remedy="correct the cause or the space, and raise --trials",
        )
