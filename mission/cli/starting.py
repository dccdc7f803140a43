"""The command that writes a table of starts, to edit it and to fly it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mission.cli.following import local_words, repeated_words, say_next
from mission.cli.options import File, Local, Seed, Set
from mission.cli.output import Command, say
from mission.cli.watching import app


@app.command(cls=Command)
def starts(
    file: File,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="TABLE", help="File to write, .csv or .parquet.")],
    flights: Annotated[int, typer.Option("--flights", metavar="N", min=1, help="Number of rows.")] = 10,
    seed: Seed = None,
    overrides: Set = None,
    local: Local = False,
) -> None:
    """Write the starts of flights 0 to N - 1 as a table, one column for each number; edit it and fly it with --starts."""
    from mission.missionfile.reading import load_mission
    from mission.report.trajectories.starting import write_starts

    columns = write_starts(load_mission(file, overrides or []), output, flights, seed=seed, allow_local_plugins=local)
    say(f"wrote {output}: {flights:,} rows, {columns:,} columns")
    say_next("fly", file, "--starts", output, *repeated_words("--set", overrides), *local_words(local), why="its rows")
