"""`mission.sweep`: one training for each combination of values and seed, and statistics over them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import JsonValue

from mission.errors import Interrupted, MissionError
from mission.machine.devices import configure
from mission.missionfile.arguments import optional_path
from mission.missionfile.models import MissionFile
from mission.missionfile.named import mission_path
from mission.missionfile.phases import Phase
from mission.missionfile.reading import load_mission
from mission.missionfile.resolve import resolve_mission
from mission.scale.combinations import Combination, check_seeds, check_values, combinations, refuse_too_many
from mission.scale.identity import Identity, common_identity, refuse_another, stored_identity, write_identity
from mission.scale.jobs import Task, TrainingJob, TrainingRecord, ended_record, read_training
from mission.scale.page import sweep_page
from mission.scale.places import Trainings, open_trainings
from mission.scale.progress import Progress, Tracker
from mission.scale.summary import SweepSummary, combination_summary, training_row
from mission.storage.lock import folder_lock
from mission.training.signals import interruptible

log = logging.getLogger("mission")
SWEEP, PAGE = "sweep.json", "index.html"


class SweepIdentity(Identity):
    """The settings that determine the results of a sweep."""

    kind: str = "sweep"
    values: dict[str, tuple[JsonValue, ...]]


class _Plan(NamedTuple):
    """All trainings of a sweep: the missions by number of the combination, and the errors of those that have none."""

    folder: Path
    identity: SweepIdentity
    combinations: tuple[Combination, ...]
    missions: dict[int, MissionFile]
    errors: dict[int, MissionError]
    jobs: dict[tuple[int, int], TrainingJob]


def sweep(
    file: str | Path,
    *,
    seeds: Sequence[int] | None = None,
    values: Mapping[str, Sequence[JsonValue]] | None = None,
    output: str | Path | None = None,
    on: str = "local",
    workers: int | None = None,
    cores: int = 1,
    allow_local_plugins: bool = False,
    checkpoint_every_s: float = 30.0,
    progress: Progress | None = None,
) -> SweepSummary:
    """Train a mission once for each combination of seed and values, each in its own process and folder.

    The same call resumes an interrupted sweep: training runs with a result are not repeated, and others resume. The
    call may add seeds (docs/sweeps.md).

    Args:
      file: mission file, or the name of an installed mission.
      seeds: seeds of the training runs; None: only that of the mission file.
      values: key, as for `--set`, -> the values to try.
      output: folder of the sweep; default: `sweeps/<mission>`.
      on: "local", or "ray" or "ray:ADDRESS" for a cluster whose nodes see the same files.
      workers: number of parallel training runs, which does not affect the results; None: as many as the cores allow.
      cores: cores per training run, and so its number of devices (at most two), which affects the last bits of the
        results.
      allow_local_plugins: permit `plugin: ./file.py`.
      checkpoint_every_s: seconds between training checkpoints.
      progress: receives the state of the training runs several times per second.

    Raises:
      MissionError: wrong input or the folder of another sweep (2), not writable (3). A training run that fails is a
        row of the summary.
      Interrupted: Ctrl-C; the same call resumes.
    """
    seeds, values = None if seeds is None else check_seeds(seeds), check_values(values or {})
    plan = _plan(mission_path(file), seeds, values, output, cores, allow_local_plugins, checkpoint_every_s)
    with (
        open_trainings(on, workers, cores, plan.folder) as trainings,
        folder_lock(plan.folder, "--output"),
        interruptible() as stop,
    ):
        write_identity(plan.folder, SWEEP, plan.identity)
        summary = _summarise(plan, _train_all(plan, trainings, stop, progress))
        sweep_page(plan.folder / PAGE, summary, plan.missions)
    return summary


def _plan(
    path: Path,
    seeds: tuple[int, ...] | None,
    values: dict[str, tuple[JsonValue, ...]],
    output: str | Path | None,
    cores: int,
    allow_local_plugins: bool,
    checkpoint_every_s: float,
) -> _Plan:
    """Check a sweep and its folder; nothing is written.

    Raises:
      MissionError: all combinations are wrong, or the folder is that of something else.
    """
    chosen = combinations(values)
    refuse_too_many(len(chosen) * len(seeds or (0,)))
    configure()
    missions, errors, phases = _load(path, chosen, allow_local_plugins)
    first = missions[min(missions)]
    seeds = seeds or (first.seed,)
    folder = optional_path(output, "--output") or Path("sweeps") / first.name
    identity = SweepIdentity(values=values, **common_identity(first, phases, cores, seeds))
    stored = stored_identity(folder, SWEEP, SweepIdentity)
    if stored is not None:
        refuse_another(folder, stored, identity, {"seeds"} if set(stored.seeds) <= set(seeds) else set())
    jobs = {
        (one.number, seed): TrainingJob(
            mission_file=str(path.resolve()),
            overrides=one.overrides(),
            seed=seed,
            folder=str((folder / f"combination-{one.number}" / f"seed-{seed}").resolve()),
            allow_local_plugins=allow_local_plugins,
            checkpoint_every_s=checkpoint_every_s,
        )
        for seed in seeds
        for one in chosen
    }
    return _Plan(folder, identity, chosen, missions, errors, jobs)


def _load(
    path: Path, chosen: Sequence[Combination], allow_local_plugins: bool
) -> tuple[dict[int, MissionFile], dict[int, MissionError], Sequence[Phase]]:
    """Check each combination; an error that all of them have is raised, others make a row each.

    Returns:
      the missions and the errors, by number, and the phases of the first mission without an error.
    """
    missions: dict[int, MissionFile] = {}
    errors: dict[int, MissionError] = {}
    phases: Sequence[Phase] = ()
    for one in chosen:
        try:
            mission = load_mission(path, one.overrides())
            resolved = resolve_mission(mission, allow_local_plugins=allow_local_plugins)
        except MissionError as error:
            errors[one.number] = error
            continue
        missions[one.number], phases = mission, phases or resolved
    if not missions:
        raise next(iter(errors.values()))
    for number, error in errors.items():
        label = chosen[number - 1].label
        log.warning("combination %d (%s) cannot be trained: %s: %s", number, label, error.where, error.found)
    return missions, errors, phases


def _train_all(
    plan: _Plan, trainings: Trainings, stop: Callable[[], bool], progress: Progress | None
) -> dict[tuple[int, int], TrainingRecord]:
    """Run all training runs without a result; return the record of each by combination and seed."""
    records: dict[tuple[int, int], TrainingRecord] = {}
    waiting: dict[str, tuple[int, int]] = {}
    for key, job in plan.jobs.items():
        record = read_training(Path(job.folder))
        if key[0] in plan.errors:
            error = plan.errors[key[0]]
            records[key] = TrainingRecord(
                status="failed", seconds=0.0, exit_code=error.exit_code, reason=f"{error.where}: {error.found}"
            )
        elif record is not None and record.has_result:
            records[key] = record
        else:
            waiting[job.folder] = key
    jobs = [job for job in plan.jobs.values() if job.folder in waiting]
    tracker = Tracker(jobs, plan.missions[min(plan.missions)], done=len(records), show=progress)

    def tasks() -> Iterator[Task]:
        for job in jobs:
            tracker.begin(job)
            yield Task(jobs=(job,), cores=plan.identity.cores)

    for task, code in trainings.run(tasks(), stop, tracker.tick):
        job = task.jobs[0]
        records[waiting[job.folder]] = ended_record(job, code)
        if code != 130:
            tracker.end(job)
    if stop():
        finished = sum(record.has_result for record in records.values())
        raise Interrupted(
            str(plan.folder),
            expected=f"{len(plan.jobs)} trainings",
            found=f"a signal; {finished} of them have ended",
            remedy="the same command resumes",
        )
    return records


def _summarise(plan: _Plan, records: Mapping[tuple[int, int], TrainingRecord]) -> SweepSummary:
    """Return the rows of all trainings, in the order of combinations and seeds, and their statistics."""
    mission = plan.missions[min(plan.missions)]
    last = mission.phases[-1].name
    rows = [
        training_row(number, seed, f"combination-{number}/seed-{seed}", records[number, seed], last)
        for number, seed in sorted(records)
    ]
    return SweepSummary(
        mission=mission.name,
        output=str(plan.folder),
        seeds=plan.identity.seeds,
        values=plan.identity.values,
        cores=plan.identity.cores,
        combinations=tuple(
            combination_summary(one, [row for row in rows if row.combination == one.number])
            for one in plan.combinations
        ),
        trainings=tuple(rows),
    )
