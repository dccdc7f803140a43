"""The commands: parsing only. Heavy imports happen inside them, so that `--help` answers at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from mission.cli.completing import complete_folder, complete_side
from mission.cli.following import given_words, local_words, repeated_words, say_next, stale_words
from mission.cli.options import (
    Baseline,
    Checkpoints,
    Devices,
    File,
    FirstFlight,
    Format,
    FormatSet,
    Fresh,
    Init,
    Joint,
    JsonFile,
    JudgeOption,
    Local,
    LogDir,
    On,
    Only,
    OnlyPhase,
    Policy,
    PolicyFrom,
    ReportDir,
    Seed,
    Sensitivity,
    Set,
    Splitting,
    Stale,
    StartsFile,
    SweepsOption,
    Trajectory,
    Until,
    apply_only,
    apply_only_with_mission,
    mission_and_pilots,
    phase_folders,
    pilots,
    with_export,
)
from mission.cli.output import Command, results, say, write_json, write_text

app = typer.Typer(
    name="mission",
    help="Train and fly chains of flight phases, one Soft Actor-Critic agent per phase.\n\n"
    "Begin with: mission plugins, which lists the installed missions, then mission fly NAME; "
    "or mission new NAME, for a phase of your own",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(value: bool) -> None:
    if value:
        from mission import __version__

        typer.echo(f"mission {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks; write it before the command.")] = False,
) -> None:
    """Parse the options of every command."""


@app.command(cls=Command)
def plugins(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List installed phase plugins, observers, trajectory formats and missions without importing them."""
    from mission.missionfile.hooks import MISSION_GROUP, OBSERVER_GROUP, PHASE_GROUP, TRAJECTORY_GROUP
    from mission.missionfile.named import list_missions
    from mission.missionfile.plugins import list_plugins

    rows = [
        {"group": group} | {key: value for key, value in vars(row).items() if key != "entry_point"}
        for group in (PHASE_GROUP, OBSERVER_GROUP, TRAJECTORY_GROUP)
        for row in list_plugins(group)
    ]
    missions = list_missions()
    names = [one.name for one in missions]
    for one in missions:
        row = {"target": str(one.path), "duplicate": names.count(one.name) > 1}
        rows.append({"group": MISSION_GROUP} | vars(one) | row)
        del rows[-1]["path"]
    if as_json:
        write_json(json.dumps(rows, indent=2))
        return
    for row in rows:
        mark = '  DUPLICATE: write "distribution:name"' if row["duplicate"] else ""
        say(f"{row['group']:20} {row['name']:24} {row['distribution']} {row['version']}  {row['target']}{mark}")
    say_next("check", names[0] if names else "FILE", why="what a mission would run")


@app.command(cls=Command)
def check(file: File, overrides: Set = None, local: Local = False) -> None:
    """Parse, resolve and link a mission, and print its phases and settings; nothing is trained.

    If neither the mission nor anything that it depends on has changed, the result of the last check is printed.
    """
    from mission.missionfile.reading import load_mission
    from mission.report import checking

    say(*checking.check(load_mission(file, overrides or []), allow_local_plugins=local).lines)
    say_next(
        "train",
        file,
        *repeated_words("--set", overrides),
        *local_words(local),
        why="train it; an interrupted run resumes",
    )


@app.command(cls=Command)
def schema(
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Write here instead of printing."),
    ] = None,
) -> None:
    """Print the JSON Schema of mission files, for editors."""
    from mission.missionfile.schema import mission_schema

    write_text(json.dumps(mission_schema(), indent=2) + "\n", output)
    if output is not None:
        say(f"next: begin mission files with `# yaml-language-server: $schema={output}`")


@app.command(cls=Command)
def train(
    file: File,
    checkpoints: Checkpoints = None,
    phase: OnlyPhase = None,
    init: Init = None,
    fresh: Fresh = False,
    seed: Seed = None,
    overrides: Set = None,
    log_dir: LogDir = None,
    local: Local = False,
    checkpoint_every: Annotated[
        float,
        typer.Option("--checkpoint-every", metavar="SECONDS", min=0, help="Seconds between training checkpoints."),
    ] = 30.0,
    baseline: Baseline = None,
    sweeps: SweepsOption = None,
    joint: Joint = False,
) -> None:
    """Train every phase in order; an interrupted run resumes, and its result is bit-identical."""
    from mission.missionfile.reading import load_mission

    mission = load_mission(file, overrides or [])
    apply_only(bool(mission.observers), "if the mission has observers, which write there", {"--log-dir": log_dir})
    from mission.storage.policies import DEFAULT_CHECKPOINTS
    from mission.training.mission import train_mission

    records = train_mission(
        mission,
        checkpoints=checkpoints or DEFAULT_CHECKPOINTS,
        only=phase or (),
        init=phase_folders(init or []),
        fresh=fresh,
        seed=seed,
        log_dir=log_dir,
        allow_local_plugins=local,
        checkpoint_every_s=checkpoint_every,
        baseline_flights=baseline,
        sweeps=sweeps,
        joint=joint,
    )
    for record in records:
        returns = "" if record.returns is None else f", mean return {record.returns:.4g}"
        success = (
            "" if record.success is None else f", success {100 * record.success:.2f} %{returns} over its bank's flights"
        )
        gate = "" if record.gate is None else f"; gate: {record.gate.counted()}"
        say(f"{record.name}: {record.status}, {record.env_steps:,} vehicle steps{success}{gate}")
    flown = [*repeated_words("--set", overrides), *given_words("--checkpoints", checkpoints), *local_words(local)]
    if phase or any(record.success is None for record in records):
        again = [*given_words("--seed", seed), *flown]
        say_next("train", file, *again, why="the phases that are left; those that are done are kept")
        return
    say_next("fly", file, *flown, "--report", f"reports/{mission.name}", why="1,000 flights and their report")


@app.command(cls=Command)
def fly(
    file: File,
    checkpoints: Checkpoints = None,
    flights: Annotated[
        int | None, typer.Option("--flights", metavar="N", min=1, help="Largest number of vehicles. [default: 1000]")
    ] = None,
    until: Until = None,
    seed: Seed = None,
    policies: Policy = None,
    policy_from: PolicyFrom = None,
    allow_stale: Stale = False,
    json_file: JsonFile = None,
    report_dir: ReportDir = None,
    devices: Devices = None,
    first_flight: FirstFlight = 0,
    on: On = "local",
    sensitivity: Sensitivity = False,
    splitting: Splitting = False,
    judge: JudgeOption = None,
    only: Only = None,
    trajectory: Trajectory = None,
    formats: Format = None,
    settings: FormatSet = None,
    starts: StartsFile = None,
    overrides: Set = None,
    local: Local = False,
) -> None:
    """Fly N vehicles through the whole chain and report success with 95 % Wilson intervals."""
    from mission.cli.flying import Again, fly_campaign, fly_only, split

    apply_only(only is not None, "with --only NUMBERS", {"--trajectory": trajectory})
    apply_only(trajectory is not None, "with --trajectory DIR", {"--format": formats, "--format-set": settings})
    reads = pilots(policies or [])[0] != "guide" or report_dir is not None or splitting
    apply_only(reads, "with --policy agent or --report; a guide needs no policy", {"--checkpoints": checkpoints})
    whole = {"--until": until, "--report": report_dir, "--first-flight": first_flight, "--sensitivity": sensitivity}
    apply_only(
        not splitting, "without --splitting", whole | {"--on": on != "local", "--only": only, "--starts": starts}
    )
    mission, policy, by_phase = mission_and_pilots(file, overrides, policies, allow_stale)
    by_phase = with_export(by_phase, policy, policy_from)
    common: dict[str, Any] = {"checkpoints": checkpoints, "seed": seed, "judge": judge}
    common |= {"policy": policy, "policies": by_phase, "allow_stale": allow_stale}
    common |= {"allow_local_plugins": local, "devices": devices}
    more = {"until": until, "report": report_dir, "on": on, "sensitivity": sensitivity, "starts": starts}
    if splitting:
        split(mission, common | {"flights": flights or 1000}, json_file)
        return
    plugins_of = [*repeated_words("--set", overrides), *local_words(local)]
    same = [*given_words("--checkpoints", checkpoints), *repeated_words("--policy", policies)]
    same += [*given_words("--seed", seed), *given_words("--judge", judge), *stale_words(allow_stale), *plugins_of]
    flown = [*given_words("--policy-from", policy_from), *given_words("--starts", starts)]
    flown += [*given_words("--flights", flights), *given_words("--first-flight", first_flight or None)]
    again = Again(file, same, flown, plugins_of, policy == "guide")
    if only is not None:
        written = (trajectory, formats or ["csv"], settings or [])
        fly_only(mission, (only, flights, first_flight), written, common | more, json_file, again)
    else:
        fly_campaign(mission, common | more | {"first_flight": first_flight, "flights": flights}, json_file, again)


@app.command(cls=Command)
def merge(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="FOLDERS", help="Report folders, in any order.", autocompletion=complete_folder),
    ],
    report_dir: Annotated[Path, typer.Option("--report", metavar="DIR", help="Folder of the joined report.")],
) -> None:
    """Join reports of one mission with consecutive flight numbers (`--first-flight` of `mission fly`)."""
    from mission.report.merging import merge_reports
    from mission.report.terminal import print_summary

    print_summary(merge_reports(folders, report_dir), results())
    say(f"report: {report_dir / 'index.html'}")
    say_next("report", report_dir, why="draws the page again, with the plugins of that time")


@app.command(cls=Command)
def report(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            help="A report folder, or checkpoints/MISSION of a training run.",
            autocompletion=complete_folder,
        ),
    ],
    mission_file: Annotated[
        Path | None,
        typer.Option("--mission", metavar="FILE", help="Mission file whose plugins draw; checked against the records."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Page of the learning curves; only for a training run. [default: learning.html in FOLDER]",
        ),
    ] = None,
    overrides: Set = None,
    local: Local = False,
) -> None:
    """Redraw the page of a report from its records, or draw the learning curves of a training run."""
    from mission.missionfile.reading import load_mission
    from mission.report.curves import is_training

    training = is_training(folder)
    drawn_by = {"--mission": mission_file, "--set": overrides, "--allow-local-plugins": local}
    apply_only(not training, "for a report; the learning curves of a training run need no plugin", drawn_by)
    apply_only(training, "for a training run; a report's page is index.html in its folder", {"--output": output})
    if not training:
        apply_only_with_mission(mission_file, overrides, local)
    from mission.report.redraw import draw_report

    mission = load_mission(mission_file, overrides or []) if mission_file is not None else None
    say(str(draw_report(folder, mission, output=output, allow_local_plugins=local)))
    if training:
        say_next("watch", folder, why="the same curves while they grow, and the latest flight")
    else:
        say("next: open the page in a browser; it needs no network")


@app.command(cls=Command)
def compare(
    first: Annotated[
        Path,
        typer.Argument(
            metavar="FIRST", help="Mission file or name, or folder of checkpoints.", autocompletion=complete_side
        ),
    ],
    second: Annotated[Path, typer.Argument(metavar="SECOND", help="The other one.", autocompletion=complete_side)],
    mission_file: Annotated[
        Path | None,
        typer.Option("--mission", metavar="FILE", help="Mission file of the policies in the folders."),
    ] = None,
    checkpoints: Checkpoints = None,
    flights: Annotated[int, typer.Option("--flights", metavar="N", min=1, help="Vehicles to fly with each.")] = 1000,
    seed: Seed = None,
    allow_stale: Stale = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    overrides: Set = None,
    local: Local = False,
) -> None:
    """Fly two sets of policies, or two missions, on the same seeds and compare them flight by flight (McNemar)."""
    from mission.missionfile.reading import load_mission

    folders = [side.is_dir() for side in (first, second)]
    apply_only(any(folders), "if a side is a folder of checkpoints", {"--mission": mission_file})
    apply_only(not all(folders), "if a side is a mission file", {"--checkpoints": checkpoints})
    apply_only_with_mission(mission_file, overrides)
    mission = load_mission(mission_file, overrides or []) if mission_file is not None else None
    from mission.observers.progress import flight_bar
    from mission.report import compare as comparing

    with flight_bar(flights) as bar:
        result = comparing.compare(
            first,
            second,
            mission=mission,
            checkpoints=checkpoints,
            flights=flights,
            seed=seed,
            allow_stale=allow_stale,
            allow_local_plugins=local,
            progress=bar,
        )
    if as_json:
        write_json(result.model_dump_json(indent=2))
        return
    from mission.report.terminal import print_comparison

    print_comparison(result, results())
    file = mission_file or next((side for side, one in zip((first, second), folders, strict=True) if not one), None)
    if file is not None:
        say_next("fly", file, "--report", f"reports/{Path(file).stem}", why="the flights of one side in full")


@app.command(cls=Command)
def recertify(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            help="checkpoints/MISSION, with policies and baseline.npz.",
            autocompletion=complete_folder,
        ),
    ],
    mission_file: Annotated[
        Path | None,
        typer.Option("--mission", metavar="FILE", help="Mission file that was trained. [default: from the records]"),
    ] = None,
    equivalent: Annotated[
        bool,
        typer.Option("--equivalent", help="After a deliberate change: require success rates within 0.2 points."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    overrides: Set = None,
    local: Local = False,
) -> None:
    """Fly stored policies with the current code; if every flight ends as in the baseline, renew the source hashes."""
    from mission.missionfile.reading import load_mission

    apply_only_with_mission(mission_file, overrides, local)
    mission = load_mission(mission_file, overrides or []) if mission_file is not None else None
    from mission.observers.progress import flight_bar
    from mission.training.recertify import recertify_mission, require_passed

    with flight_bar() as bar:
        result = recertify_mission(
            folder, mission=mission, equivalent=equivalent, allow_local_plugins=local, progress=bar
        )
    if as_json:
        write_json(result.model_dump_json(indent=2))
    require_passed(result)
    if not as_json:
        outcomes = result.outcomes
        say(f"{result.mission}: {outcomes.flights:,} flights, {result.verdict}; source hashes renewed")
        if outcomes.rounded:
            why = "" if equivalent else ", by rounding"
            say(f"{outcomes.rounded:,} of them end one control step apart{why}; the first:")
            say(*(f"  {difference}" for difference in outcomes.differences))
        say_next("fly", mission_file or result.mission, "--checkpoints", folder.parent, why="the policies, as renewed")


@app.command(cls=Command)
def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Remove all stored programs.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show or remove the stored compiled programs, which let a mission start without compilation.

    The programs are stored in ~/.cache/mission, or in $XDG_CACHE_HOME/mission, up to 2 GiB; the least recently used programs
    are removed first.
    """
    from mission.machine.kept import cache_contents, clear_cache

    removed = clear_cache() if clear else 0
    contents = cache_contents()
    if as_json:
        write_json(json.dumps(contents | {"removed": removed}, indent=2))
        return
    if clear:
        say(f"removed {removed:,} entries")
    say(f"{contents['folder']}: {contents['entries']:,} entries, {contents['bytes'] / 1e6:,.1f} MB")
    if contents["entries"]:
        say_next("cache", "--clear", why="removes them; the next run compiles anew")


@app.command(cls=Command)
def new(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the mission and its phase, e.g. parachute_descent.")
    ],
    directory: Annotated[
        Path | None,
        typer.Option("--directory", metavar="DIR", help="Folder to write. [default: ./NAME]"),
    ] = None,
    phases: Annotated[
        str | None,
        typer.Option("--phases", metavar="FIRST,SECOND", help="Write a chain of two phases with a staging between."),
    ] = None,
) -> None:
    """Write a complete, installable plugin distribution with one phase or two, a test and a mission file."""
    from mission.missionfile.skeleton import next_steps, write_skeleton

    folder = write_skeleton(name, directory, tuple(phases.split(",")) if phases is not None else ())
    say(f"wrote {folder}", "next:", *(f"  {line}" for line in next_steps(folder)))
