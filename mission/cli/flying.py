"""Run `mission fly` after its options are parsed: a campaign, splitting, or single flights again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mission.cli.following import say_next
from mission.cli.options import json_path
from mission.cli.output import results, say, write_json, write_text

if TYPE_CHECKING:
    from mission.missionfile.models import MissionFile


class Again(NamedTuple):
    """What the next command needs of this one.

    Attributes:
      file: the mission file.
      options: those that every command has which flies.
      flights: those that only `mission fly` has.
      plugins: the part of `options` that every command has which reads the mission.
      guides: whether guides fly every phase.
    """

    file: Path
    options: list[str]
    flights: list[str]
    plugins: list[str]
    guides: bool


def fly_campaign(mission: MissionFile, options: dict[str, Any], json_file: str | None, again: Again) -> None:
    """Fly a campaign and print its summary; `options` are arguments of `fly_mission`."""
    from mission.observers.progress import flight_bar
    from mission.report.terminal import print_summary
    from mission.scale.fly import FLIGHTS, fly_mission

    output, report = json_path(json_file), options["report"]
    with flight_bar(None if options["starts"] is not None else options["flights"] or FLIGHTS) as bar:
        summary = fly_mission(mission, progress=bar, **options)
    if json_file == "-":
        write_json(summary.to_json())
        return
    print_summary(summary, results())
    if output is not None:
        write_text(summary.to_json() + "\n", output)
    if report is None:
        say_next(
            "fly",
            again.file,
            *again.options,
            *again.flights,
            "--report",
            f"reports/{mission.name}",
            why="the page with replay and charts",
        )
        return
    say(f"report: {report / 'index.html'}")
    if again.guides:
        say_next("train", again.file, *again.plugins, why="agents, to compare with the guides")
    else:
        say_next("feasibility", again.file, *again.options, why="from which states the rest of the mission succeeds")


def split(mission: MissionFile, common: dict[str, Any], json_file: str | None) -> None:
    """Fly with multilevel splitting; `common` holds the number of flights and the arguments of `prepare_chain`."""
    from mission.flight.chain import check_flights, prepare_chain
    from mission.flight.feasibility.store import chain_feasibility
    from mission.flight.splitting import check_splitting, split_flights
    from mission.observers.progress import flight_bar
    from mission.report.terminal import print_splitting

    output, flights = json_path(json_file), common.pop("flights")
    check_flights(flights, None)
    chain = prepare_chain(mission, **common)
    feasibility = check_splitting(chain, chain_feasibility(chain), flights)
    with flight_bar(flights) as bar:
        found = split_flights(chain, feasibility, flights, bar)
    text = found.model_dump_json(indent=2)
    if json_file == "-":
        write_json(text)
        return
    print_splitting(found, results())
    say_next("envelope", mission.source.path, why="which states on entering each phase lose the flight")
    if output is not None:
        write_text(text + "\n", output)


def fly_only(
    mission: MissionFile,
    chosen: tuple[str, int | None, int],
    written: tuple[Path | None, Sequence[str], Sequence[str]],
    options: dict[str, Any],
    json_file: str | None,
    again: Again,
) -> None:
    """Fly single flights of a campaign again, and write their trajectories.

    Args:
      mission: from the mission file.
      chosen: --only, --flights and --first-flight, which describe the campaign.
      written: --trajectory, --format and --format-set.
      options: of `fly_mission`.
      json_file: --json.
      again: of this command, for the next one.
    """
    from mission.flight.again import check_again, parse_flights
    from mission.missionfile.resolve import resolve_mission
    from mission.observers.progress import flight_bar
    from mission.report.trajectories.formats import Writer, parse_options
    from mission.report.trajectories.summary import print_trajectories, trajectories_json
    from mission.scale.fly import fly_mission

    only, flights, first = chosen
    folder, formats, settings = written
    output, numbers = json_path(json_file), check_again(parse_flights(only), flights, first)
    writer = Writer(formats, parse_options(settings)) if folder is not None else None
    if writer is not None and writer.needs_channels:
        phases = resolve_mission(mission, allow_local_plugins=options["allow_local_plugins"])
        writer.check({phase.name: phase.channels for phase in phases})
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
    same = ["fly", again.file, *again.options, *again.flights]
    if folder is None:
        more = ["--only", only, "--trajectory", f"flights/{mission.name}"]
        say_next(*same, *more, why="the same as files, in the --format of another program")
    else:
        say_next(
            *same, "--report", f"reports/{mission.name}", why="all flights of the campaign, with replay and charts"
        )
