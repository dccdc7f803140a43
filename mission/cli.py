"""The command line: parsing only. Heavy imports happen inside the commands, so that `--help` answers at once."""

from __future__ import annotations

import logging
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="mission",
    help="Train and fly chains of flight phases, one Soft Actor-Critic agent per phase.\n\n"
    "Begin with: mission train missions/vertical.yaml, then mission fly missions/vertical.yaml",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

File = Annotated[Path, typer.Argument(help="Mission file (YAML), or the name of an installed mission.")]
Checkpoints = Annotated[
    Path | None,
    typer.Option(
        "--checkpoints",
        metavar="DIR",
        help="Folder that holds MISSION/PHASE/. [default: checkpoints]",
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a value, e.g. phases.burn.sac.gamma=0.99. Repeatable."),
]
Local = Annotated[
    bool,
    typer.Option("--allow-local-plugins", help="Permit `plugin: ./file.py` in the mission file; it runs that code."),
]
Stale = Annotated[bool, typer.Option("--allow-stale", help="Fly policies that were made under another configuration.")]
Seed = Annotated[
    int | None,
    typer.Option("--seed", metavar="N", min=0, max=2**32 - 1, help="Replace the mission file's seed."),
]

Baseline = Annotated[
    int | None,
    typer.Option(
        "--baseline",
        metavar="N",
        min=0,
        help="Flights to record as the baseline of `mission recertify`; 0: none. [default: 10000]",
    ),
]
Until = Annotated[
    float | None,
    typer.Option(
        "--until",
        metavar="HALF_WIDTH",
        help="Stop before N, checked every 1,000 flights, once the success interval is within +- this: 0.01 is 1 %.",
    ),
]
Policy = Annotated[
    str, typer.Option("--policy", metavar="agent|guide", help="guide: fly every phase by its guidance law.")
]
JsonFile = Annotated[
    str | None,
    typer.Option("--json", metavar="FILE|-", help="Write the summary as JSON; - prints it instead of the table."),
]
ReportDir = Annotated[
    Path | None,
    typer.Option(
        "--report",
        metavar="DIR",
        help="Write summary.json, flights.npz and index.html; an interrupted run is resumed.",
    ),
]


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


@app.command()
def plugins(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the installed phase plugins, observers and missions from their metadata; none is imported."""
    import json

    from mission.hooks import MISSION_GROUP, OBSERVER_GROUP, PHASE_GROUP
    from mission.missionfile.named import list_missions
    from mission.missionfile.plugins import list_plugins

    rows = [
        {"group": group} | {key: value for key, value in vars(row).items() if key != "entry_point"}
        for group in (PHASE_GROUP, OBSERVER_GROUP)
        for row in list_plugins(group)
    ]
    missions = list_missions()
    names = [one.name for one in missions]
    for one in missions:
        row = {"target": str(one.path), "duplicate": names.count(one.name) > 1}
        rows.append({"group": MISSION_GROUP} | vars(one) | row)
        del rows[-1]["path"]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        mark = '  DUPLICATE: write "distribution:name"' if row["duplicate"] else ""
        typer.echo(f"{row['group']:18} {row['name']:24} {row['distribution']} {row['version']}  {row['target']}{mark}")


@app.command()
def check(file: File, overrides: Set = None, local: Local = False) -> None:
    """Parse, resolve and link a mission, and print what would run; nothing is trained."""
    from mission.missionfile.phases import TrainedPhase
    from mission.missionfile.reading import load_mission
    from mission.missionfile.resolve import digest, resolve_mission
    from mission.observers import Observers

    mission = load_mission(file, overrides or [])
    phases = resolve_mission(mission, allow_local_plugins=local)
    Observers(mission, Path())  # loads each of them
    typer.echo(
        f"{mission.name}: {len(phases)} phases, seed {mission.seed}, digest {digest([p.configuration() for p in phases])[:16]}"
    )
    for phase in phases:
        env, entry = phase.environment, phase.entry
        who = f"agent, {entry.budget.env_steps:,} vehicle steps" if isinstance(phase, TrainedPhase) else "guide"
        gate = "no gate"
        if entry.gate and isinstance(phase, TrainedPhase):
            gate = f"gate: success >= {entry.gate.success_low} in {entry.gate.flights} flights"
        typer.echo(f"  {phase.name}: {phase.origin}")
        typer.echo(
            f"    {who}; {gate}; {len(env.observation_names)} observations, {len(env.action_names)} actions, {env.control_period_s} s steps"
        )


@app.command()
def schema(
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Write here instead of printing."),
    ] = None,
) -> None:
    """Print the JSON Schema of mission files, for editors."""
    import json

    from mission.missionfile.schema import mission_schema

    _write(json.dumps(mission_schema(), indent=2) + "\n", output)


@app.command()
def train(
    file: File,
    checkpoints: Checkpoints = None,
    phase: Annotated[
        list[str] | None, typer.Option("--phase", metavar="NAME", help="Train only this phase. Repeatable.")
    ] = None,
    init: Annotated[
        list[str] | None,
        typer.Option(
            "--init", metavar="NAME=DIR", help="Start a phase's actor from the policy in a phase's folder. Repeatable."
        ),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Discard the stored results of the phases and restart them.")
    ] = False,
    seed: Seed = None,
    overrides: Set = None,
    log_dir: Annotated[
        Path | None,
        typer.Option(
            "--log-dir",
            metavar="DIR",
            help="Folder in which each folder of checkpoints gets one for observers that write. [default: runs]",
        ),
    ] = None,
    local: Local = False,
    checkpoint_every: Annotated[
        float,
        typer.Option("--checkpoint-every", metavar="SECONDS", min=0, help="Seconds between training checkpoints."),
    ] = 30.0,
    baseline: Baseline = None,
) -> None:
    """Train every phase in order; an interrupted run resumes, and its result is bit-identical."""
    from mission.missionfile.reading import load_mission

    mission = load_mission(file, overrides or [])
    from mission.storage.policies import DEFAULT_CHECKPOINTS
    from mission.training.mission import train_mission

    records = train_mission(
        mission,
        checkpoints=checkpoints or DEFAULT_CHECKPOINTS,
        only=phase or (),
        init=_phase_folders(init or []),
        fresh=fresh,
        seed=seed,
        log_dir=log_dir,
        allow_local_plugins=local,
        checkpoint_every_s=checkpoint_every,
        baseline_flights=baseline,
    )
    for record in records:
        success = "" if record.success is None else f", success {100 * record.success:.2f} % over its bank's flights"
        typer.echo(f"{record.name}: {record.status}, {record.env_steps:,} vehicle steps{success}")


@app.command()
def fly(
    file: File,
    checkpoints: Checkpoints = None,
    flights: Annotated[int, typer.Option("--flights", metavar="N", min=1, help="Largest number of vehicles.")] = 1000,
    until: Until = None,
    seed: Seed = None,
    policy: Policy = "agent",
    allow_stale: Stale = False,
    json_file: JsonFile = None,
    report_dir: ReportDir = None,
    overrides: Set = None,
    local: Local = False,
) -> None:
    """Fly N vehicles through the whole chain and report success with 95 % Wilson intervals."""
    from mission.missionfile.reading import load_mission
    from mission.observers.progress import flight_bar

    if policy not in ("agent", "guide"):
        raise _input_error("--policy", "agent or guide", policy, "name one of the two")
    mission = load_mission(file, overrides or [])
    output = _json_path(json_file)
    from mission.report.fly import fly_mission

    with flight_bar(flights) as bar:
        summary = fly_mission(
            mission,
            checkpoints=checkpoints,
            flights=flights,
            until=until,
            seed=seed,
            policy=policy,
            report=report_dir,
            allow_stale=allow_stale,
            allow_local_plugins=local,
            progress=bar,
        )
    if json_file == "-":
        typer.echo(summary.to_json())
        return
    from mission.report.terminal import print_summary

    print_summary(summary)
    if output is not None:
        _write(summary.to_json() + "\n", output)
    if report_dir is not None:
        typer.echo(f"report: {report_dir / 'index.html'}")


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="A report folder, or checkpoints/MISSION of a training run.")],
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
    """Redraw a report's page from its records, or draw the learning curves of a training run."""
    from mission.missionfile.reading import load_mission
    from mission.report.curves import is_training, learning_page

    if is_training(folder):
        typer.echo(learning_page(folder, output))
        return
    from mission.report.redraw import report_again

    mission = load_mission(mission_file, overrides or []) if mission_file is not None else None
    typer.echo(report_again(folder, mission, allow_local_plugins=local))


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="Mission file or name, or folder of checkpoints.")],
    second: Annotated[Path, typer.Argument(help="The other one.")],
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
    """Fly two sets of policies, or two missions, on the same seeds, and pair their flights (McNemar)."""
    from mission.missionfile.reading import load_mission

    mission = load_mission(mission_file, overrides or []) if mission_file is not None else None
    from mission.observers.progress import flight_bar
    from mission.report.compare import compare_missions

    with flight_bar(flights) as bar:
        result = compare_missions(
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
        typer.echo(result.model_dump_json(indent=2))
        return
    from mission.report.terminal import print_comparison

    print_comparison(result)


@app.command()
def recertify(
    folder: Annotated[Path, typer.Argument(help="checkpoints/MISSION, with policies and baseline.npz.")],
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

    mission = load_mission(mission_file, overrides or []) if mission_file is not None else None
    from mission.observers.progress import flight_bar
    from mission.training.recertify import recertify_mission, require_passed

    with flight_bar() as bar:
        result = recertify_mission(
            folder, mission=mission, equivalent=equivalent, allow_local_plugins=local, progress=bar
        )
    if as_json:
        typer.echo(result.model_dump_json(indent=2))
    require_passed(result)
    if not as_json:
        outcomes = result.outcomes
        typer.echo(f"{result.mission}: {outcomes.flights:,} flights, {result.verdict}; source hashes renewed")
        if outcomes.rounded:
            typer.echo(f"{outcomes.rounded:,} of them end one control step apart, by rounding; the first:")
            typer.echo("\n".join(f"  {difference}" for difference in outcomes.differences))


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Name of the mission and its phase, e.g. parachute_descent.")],
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
    typer.echo("\n  ".join((f"wrote {folder}\nnext:", *next_steps(folder))))


def _phase_folders(init: list[str]) -> dict[str, str | Path]:
    """Return phase -> folder for the values of --init."""
    folders: dict[str, str | Path] = {}
    for text in init:
        name, separator, folder = text.partition("=")
        if not separator or not name or not folder:
            raise _input_error(f"--init {text}", "NAME=DIR", text, "write --init burn=checkpoints/vertical/burn")
        if name in folders:
            raise _input_error(f"--init {text}", "a phase once", f"{name} twice", "remove one")
        folders[name] = folder
    return folders


def _input_error(where: str, expected: str, found: str, remedy: str) -> Exception:
    from mission.errors import InputError

    return InputError(where, expected=expected, found=found, remedy=remedy)


def _json_path(json_file: str | None) -> Path | None:
    """Return the file that --json names; None for standard output or no JSON at all."""
    if json_file in (None, "-"):
        return None
    from mission.errors import MachineError

    output = Path(json_file)
    if output.is_dir() or not output.parent.is_dir():
        raise MachineError(
            f"--json {output}",
            expected="a file in a folder that exists",
            found="a folder" if output.is_dir() else f"no folder {output.parent}",
            remedy="choose another path",
        )
    return output


def _write(text: str, output: Path | None) -> None:
    from mission.errors import machine_errors

    if output is None:
        typer.echo(text, nl=False)
        return
    with machine_errors(output, "a file to write", "choose another path"):
        output.write_text(text, encoding="utf-8")


def main() -> None:
    """Run the command line; print one paragraph and set an exit code for every error that a user can cause."""
    from mission.errors import MissionError

    debug = "--debug" in sys.argv[1:]
    if debug:
        sys.argv = [sys.argv[0], "--debug", *[a for a in sys.argv[1:] if a != "--debug"]]
    logging.basicConfig(level=logging.DEBUG if debug else logging.WARNING, format="%(message)s")
    for noisy in ("absl", "orbax", "jax"):
        logging.getLogger(noisy).setLevel(logging.NOTSET if debug else logging.CRITICAL)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # before training has its own handler
    try:
        app()
    except SystemExit as end:
        if end.code == 130:  # typer's own, for a KeyboardInterrupt
            print("stopped; what was saved before is kept", file=sys.stderr)
        raise
    except MissionError as error:
        if debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except (OSError, MemoryError, RuntimeError) as error:
        # JAX has no separate exception class for a device that is out of memory
        if debug or (isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" not in str(error)):
            raise
        print(f"error: the system could not do it: {str(error) or 'no memory left'}", file=sys.stderr)
        sys.exit(3)


if __name__ == "__main__":
    main()
