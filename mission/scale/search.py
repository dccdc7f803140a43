"""The plan of a search, which is checked before its first trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import JsonValue

from mission.errors import InputError
from mission.machine.devices import configure
from mission.missionfile.arguments import optional_path
from mission.missionfile.models import MissionFile
from mission.missionfile.named import mission_path
from mission.missionfile.phases import Phase, TrainedPhase
from mission.missionfile.pilots import pilot_in_words
from mission.missionfile.reading import load_mission, unknown_key
from mission.missionfile.resolve import resolve_mission
from mission.scale.combinations import check_seeds, override
from mission.scale.identity import Identity, common_identity
from mission.scale.jobs import Task, TrainingJob, TrialReport
from mission.scale.space import Space, check_space, load_space
from mission.scale.study import JOURNAL, Trial, check_pruner, optuna

_ENGINE_OBJECTIVES = ("success", "return")
_DIRECTIONS = ("maximize", "minimize")


class SearchIdentity(Identity):
    """The settings that determine the results of a search."""

    kind: str = "search"
    space: dict[str, JsonValue]
    objective: str
    direction: str
    phase: str
    pruner: str
    startup_trials: int


class Goal(NamedTuple):
    """The objective of a search, and its method."""

    objective: str
    direction: str | None
    phase: str | None
    pruner: str
    startup_trials: int


class Places(NamedTuple):
    """The mission file of a search, its folder, and how its trainings run."""

    file: str | Path
    output: str | Path | None
    seeds: Sequence[int] | None
    cores: int
    allow_local_plugins: bool
    checkpoint_every_s: float


class Plan(NamedTuple):
    """A checked search."""

    path: Path
    mission: MissionFile
    names: tuple[str, ...]  # of the phases up to that of the objective
    folder: Path
    identity: SearchIdentity
    space: Space
    trials: int
    allow_local_plugins: bool
    flights: int
    checkpoint_every_s: float

    def folders(self, trial: int) -> list[Path]:
        """Return the folders of a trial's trainings."""
        return [(self.folder / f"trial-{trial}" / f"seed-{seed}").resolve() for seed in self.identity.seeds]

    def task(self, trial: Trial) -> Task:
        """Return the trainings of a trial."""
        identity = self.identity
        jobs = [
            TrainingJob(
                mission_file=str(self.path.resolve()),
                overrides=tuple(override(key, value) for key, value in trial.values.items()),
                seed=seed,
                folder=str(folder),
                phases=self.names,
                allow_local_plugins=self.allow_local_plugins,
                checkpoint_every_s=self.checkpoint_every_s,
            )
            for seed, folder in zip(identity.seeds, self.folders(trial.number), strict=True)
        ]
        report = TrialReport(
            journal=str((self.folder / JOURNAL).resolve()),
            trial=trial.number,
            direction="minimize" if identity.direction == "minimize" else "maximize",
            pruner=identity.pruner,
            startup_trials=identity.startup_trials,
            objective=identity.objective,
            phase=identity.phase,
            budget=self.mission.phases[len(self.names) - 1].budget.env_steps,
        )
        return Task(jobs=tuple(jobs), cores=identity.cores, trial=report)


def plan_search(places: Places, space: str | Path | Mapping[str, Any], goal: Goal, trials: int, flights: int) -> Plan:
    """Return a search whose mission file, space and goal are checked.

    Raises:
      MissionError: one of them is wrong, or Optuna is not installed.
    """
    optuna()
    check_pruner(goal.pruner)
    for option, value, least in (
        ("--trials", trials, 1),
        ("--flights", flights, 0),
        ("--startup-trials", goal.startup_trials, 0),
    ):
        if value < least:
            raise InputError(option, expected=f"at least {least}", found=str(value), remedy="raise the number")
    path, local = mission_path(places.file), places.allow_local_plugins
    configure()
    mission = load_mission(path)
    phases = resolve_mission(mission, allow_local_plugins=local)
    chosen = _objective_phase(phases, goal.phase)
    direction = _direction(chosen, goal.objective, goal.direction)

    def accepts(text: str) -> None:
        resolve_mission(load_mission(path, [text]), allow_local_plugins=local)

    checked = check_space(*load_space(space), accepts)
    seeds = check_seeds([mission.seed] if places.seeds is None else places.seeds)
    identity = SearchIdentity(
        space=checked.model_dump(mode="json"),
        objective=goal.objective,
        direction=direction,
        phase=chosen.name,
        pruner=goal.pruner,
        startup_trials=goal.startup_trials,
        **common_identity(mission, phases, places.cores, seeds),
    )
    names = tuple(one.name for one in phases)
    return Plan(
        path=path,
        mission=mission,
        names=names[: names.index(chosen.name) + 1],
        folder=optional_path(places.output, "--output") or Path("searches") / mission.name,
        identity=identity,
        space=checked,
        trials=trials,
        allow_local_plugins=local,
        flights=flights,
        checkpoint_every_s=places.checkpoint_every_s,
    )


def _objective_phase(phases: Sequence[Phase], name: str | None) -> TrainedPhase:
    names = [phase.name for phase in phases]
    if name is not None and name not in names:
        raise unknown_key(f"--phase {name}", name, names)
    chosen = phases[-1] if name is None else phases[names.index(name)]
    if not isinstance(chosen, TrainedPhase):
        agents = [phase.name for phase in phases if isinstance(phase, TrainedPhase)]
        raise InputError(
            f"--phase {chosen.name}",
            expected=f"a phase that an agent is trained for: {', '.join(agents) or '(none)'}",
            found=f'"{chosen.name}" is flown by {pilot_in_words(chosen.pilot)}',
            remedy="name one of them with --phase",
        )
    return chosen


def _direction(phase: TrainedPhase, objective: str, direction: str | None) -> str:
    """Return "maximize" or "minimize", after checking objective and direction."""
    if objective in _ENGINE_OBJECTIVES:
        if direction not in (None, "maximize"):
            found, remedy = f"{direction} {objective}", "remove --direction"
            raise InputError("--direction", expected=f"{objective} is maximised", found=found, remedy=remedy)
        return "maximize"
    if objective not in phase.channels:
        raise unknown_key(f"--objective {objective}", objective, [*_ENGINE_OBJECTIVES, *phase.channels])
    if direction not in _DIRECTIONS:
        expected = f"maximize or minimize for the channel {objective}"
        remedy = "add --direction minimize, or maximize"
        raise InputError("--direction", expected=expected, found=direction or "none", remedy=remedy)
    return direction
