"""Single flights: flown again at every control step, and tables of starts to edit and to fly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mission.cli.onboard import app
from mission.cli.options import File, Local, Seed, Set, json_path
from mission.cli.output import Command, results, say, write_json, write_text

if TYPE_CHECKING:
    from mission.missionfile.models import MissionFile


def fly_only(
    mission: MissionFile,
    chosen: tuple[str, int | None, int],
    written: tuple[Path | None, Sequence[str], Sequence[str]],
    options: dict[str, Any],
    json_file: str | None,
) -> None:
    """Fly single flights of a campaign again, and write their trajectories.

    Args:
      mission: from the mission file.
      chosen: --only, --flights and --first-flight, which describe the campaign.
      written: --trajectory, --format and --format-set.
      options: of `fly_mission`.
      json_file: --json.
    """
    from mission.flight.again import check_again, parse_flights
    from mission.observers.progress import flight_bar
    from mission.report.trajectories.formats import Writer, parse_options
    from mission.report.trajectories.summary import print_trajectories, trajectories_json
    from mission.scale.fly import fly_mission

    only, flights, first = chosen
    folder, formats, settings = written
    output, numbers = json_path(json_file), check_again(parse_flights(only), flights, first)
    writer = Writer(formats, parse_options(settings)) if folder is not None else None
    with flight_bar(len(numbers)) as bar:
        trajectories = fly_mission(mission, flights=numbers, progress=bar, **options)
    files = writer.write(trajectories, folder) if writer is not None and folder is not None else ()
    text = trajectories_json(trajectories)
    if json_file == "-":
        write_json(text)
        return
    print_trajectories(trajectories, results())
    if output is not None:
        write_text(text + "\n", output)
    say(*(f"wrote {path}" for path in files))


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
