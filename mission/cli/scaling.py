"""The commands that train a mission many times: sweeps, and the search for settings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mission.cli.commands import app
from mission.cli.completing import complete_phase, complete_set
from mission.cli.following import say_next
from mission.cli.options import File, JsonFile, Local, json_path
from mission.cli.output import Command, results, say, write_json, write_text

if TYPE_CHECKING:
    from mission.scale.summary import SweepSummary, TrainingRow

On = Annotated[
    str,
    typer.Option("--on", metavar="local|ray[:ADDRESS]", help="Where to train: on this machine, or on a Ray cluster."),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers", metavar="N", min=1, help="Number of parallel processes. [default: as many as the cores allow]"
    ),
]
Cores = Annotated[
    int,
    typer.Option(
        "--cores", metavar="N", min=1, help="Cores per training run; the number affects the last bits of the results."
    ),
]
Every = Annotated[
    float, typer.Option("--checkpoint-every", metavar="SECONDS", min=0, help="Seconds between training checkpoints.")
]
Seeds = Annotated[
    str | None,
    typer.Option(
        "--seeds", metavar="LIST", help="Seeds of the training runs: 0-19 or 0,3,8-10. [default: the seed of the file]"
    ),
]
Values = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE,VALUE",
        help="Values to try, e.g. phases.burn.sac.gamma=0.99,0.995; [a, b] is one value. Repeatable.",
        autocompletion=complete_set,
    ),
]
Sweeps = Annotated[
    Path | None, typer.Option("--output", metavar="DIR", help="Folder of the sweep. [default: sweeps/MISSION]")
]
Searches = Annotated[
    Path | None, typer.Option("--output", metavar="DIR", help="Folder of the search. [default: searches/MISSION]")
]
Space = Annotated[
    Path, typer.Option("--space", metavar="FILE", help="YAML: key -> {low, high, log, step} or {choices}.")
]
Trials = Annotated[
    int, typer.Option("--trials", metavar="N", min=1, help="Total number of trials, including those of earlier runs.")
]
Objective = Annotated[
    str,
    typer.Option(
        "--objective", metavar="success|return|CHANNEL", help="Objective of the search, measured in the evaluations."
    ),
]
Direction = Annotated[
    str | None,
    typer.Option(
        "--direction", metavar="maximize|minimize", help="Direction of the objective; required if it is a channel."
    ),
]
PhaseName = Annotated[
    str | None,
    typer.Option(
        "--phase",
        metavar="NAME",
        help="Phase whose evaluations give the objective. [default: the last]",
        autocompletion=complete_phase,
    ),
]
Pruner = Annotated[str, typer.Option("--pruner", metavar="median|halving|none", help="Rule that ends trials early.")]
Startup = Annotated[
    int,
    typer.Option(
        "--startup-trials",
        metavar="N",
        min=0,
        help="Number of trials that are drawn at random and complete before any trial is ended early.",
    ),
]
Fresh = Annotated[
    int,
    typer.Option(
        "--flights", metavar="N", min=0, help="Number of new flights of the best policies at the end; 0: none."
    ),
]


@app.command(cls=Command)
def sweep(
    file: File,
    seeds: Seeds = None,
    values: Values = None,
    output: Sweeps = None,
    on: On = "local",
    workers: Workers = None,
    cores: Cores = 1,
    checkpoint_every: Every = 30.0,
    json_file: JsonFile = None,
    local: Local = False,
) -> None:
    """Train once for each combination of seed and values, and compare the results; the same command resumes.

    The exit code is 1 if a training run did not finish; a missed gate counts as a result.
    """
    from mission.scale.combinations import parse_seeds, parse_values

    chosen, choices, target = _given(seeds, parse_seeds), parse_values(values or []), json_path(json_file)
    from mission.scale.progress import trainings_bar
    from mission.scale.summary import require_finished
    from mission.scale.sweep import sweep as run_sweep
    from mission.scale.tables import print_sweep

    with trainings_bar("trainings") as bar:
        summary = run_sweep(
            file,
            seeds=chosen,
            values=choices,
            output=output,
            on=on,
            workers=workers,
            cores=cores,
            allow_local_plugins=local,
            checkpoint_every_s=checkpoint_every,
            progress=bar,
        )
    if json_file != "-":
        print_sweep(summary, results())
        say(f"page: {summary.output}/index.html")
        best = max(summary.trainings, key=lambda one: (one.success is not None, one.success or 0.0), default=None)
        if best is not None and best.success is not None:
            options = [word for key, value in _values(summary, best).items() for word in ("--set", f"{key}={value}")]
            folder = Path(summary.output) / best.folder
            why = "the best policies, on a seed that did not choose them"
            say_next("fly", file, "--checkpoints", folder, *options, "--seed", best.seed + 1000, why=why)
    _write(summary.to_json(), json_file, target)
    require_finished(summary)


@app.command(cls=Command)
def tune(
    file: File,
    space: Space,
    trials: Trials,
    objective: Objective = "success",
    direction: Direction = None,
    phase: PhaseName = None,
    seeds: Seeds = None,
    output: Searches = None,
    on: On = "local",
    workers: Workers = None,
    cores: Cores = 1,
    pruner: Pruner = "median",
    startup_trials: Startup = 5,
    flights: Fresh = 1000,
    checkpoint_every: Every = 30.0,
    json_file: JsonFile = None,
    local: Local = False,
) -> None:
    """Search for the settings that give the best policy, with Optuna (extra `tune`); the same command resumes.

    The best configuration is written as a mission file. The exit code is 1 if no trial is complete.
    """
    from mission.scale.combinations import parse_seeds

    chosen, target = _given(seeds, parse_seeds), json_path(json_file)
    from mission.scale.progress import trainings_bar
    from mission.scale.tables import print_tuning
    from mission.scale.tune import require_best
    from mission.scale.tune import tune as run_search

    with trainings_bar("trials") as bar:
        summary = run_search(
            file,
            space=space,
            trials=trials,
            objective=objective,
            direction=direction,
            phase=phase,
            seeds=chosen,
            output=output,
            on=on,
            workers=workers,
            cores=cores,
            pruner=pruner,
            startup_trials=startup_trials,
            flights=flights,
            allow_local_plugins=local,
            checkpoint_every_s=checkpoint_every,
            progress=bar,
        )
    if json_file != "-":
        print_tuning(summary, results())
        if summary.mission_file is not None:
            say_next("train", summary.mission_file, why="the best configuration, on another seed with --seed")
    _write(summary.to_json(), json_file, target)
    require_best(summary)


def _values(summary: SweepSummary, row: TrainingRow) -> dict[str, object]:
    """Return the values with which one training of a sweep was made."""
    found = next(one for one in summary.combinations if one.number == row.combination)
    return {key: json.dumps(value) if not isinstance(value, str) else value for key, value in found.values.items()}


def _given(seeds: str | None, parse: Callable[[str], tuple[int, ...]]) -> tuple[int, ...] | None:
    """Return the seeds of the option; None if it was not given."""
    return None if seeds is None else parse(seeds)


def _write(text: str, json_file: str | None, target: Path | None) -> None:
    """Write JSON where --json says; nowhere without it."""
    if json_file == "-":
        write_json(text)
    elif target is not None:
        write_text(text + "\n", target)
