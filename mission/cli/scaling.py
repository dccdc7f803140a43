"""The commands that train a mission many times: sweeps, and the search for settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mission.cli.commands import app
from mission.cli.options import File, JsonFile, Local, json_path
from mission.cli.output import Command, results, say, write_json, write_text

On = Annotated[
    str,
    typer.Option("--on", metavar="local|ray[:ADDRESS]", help="Where to train: on this machine, or on a Ray cluster."),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers", metavar="N", min=1, help="Trainings at a time. [default: as many as there are cores for]"
    ),
]
Cores = Annotated[
    int,
    typer.Option("--cores", metavar="N", min=1, help="Cores of each training; the number decides the last bits."),
]
Every = Annotated[
    float, typer.Option("--checkpoint-every", metavar="SECONDS", min=0, help="Seconds between training checkpoints.")
]


@app.command(cls=Command)
def sweep(
    file: File,
    seeds: Annotated[
        str | None,
        typer.Option("--seeds", metavar="LIST", help="Seeds of the trainings: 0-19 or 0,3,8-10. [default: the file's]"),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE,VALUE",
            help="Values to try, e.g. phases.burn.sac.gamma=0.99,0.995; [a, b] is one value. Repeatable.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="DIR", help="Folder of the sweep. [default: sweeps/MISSION]"),
    ] = None,
    on: On = "local",
    workers: Workers = None,
    cores: Cores = 1,
    checkpoint_every: Every = 30.0,
    json_file: JsonFile = None,
    local: Local = False,
) -> None:
    """Train once for each combination of seed and values, and compare the combinations; the same command resumes.

    The exit code is 1 if a training did not run to its end; a missed gate is a result.
    """
    from mission.scale.combinations import parse_seeds, parse_values

    chosen = None if seeds is None else parse_seeds(seeds)
    values = parse_values(settings or [])
    target = json_path(json_file)
    from mission.scale.progress import trainings_bar
    from mission.scale.summary import require_finished
    from mission.scale.sweep import sweep as run_sweep

    with trainings_bar() as bar:
        summary = run_sweep(
            file,
            seeds=chosen,
            values=values,
            output=output,
            on=on,
            workers=workers,
            cores=cores,
            allow_local_plugins=local,
            checkpoint_every_s=checkpoint_every,
            progress=bar,
        )
    if json_file == "-":
        write_json(summary.to_json())
    else:
        from mission.scale.tables import print_sweep

        print_sweep(summary, results())
        if target is not None:
            write_text(summary.to_json() + "\n", target)
        say(f"page: {summary.output}/index.html")
    require_finished(summary)
