"""The command line: parsing only. Heavy imports happen inside the commands, so that `--help` answers at once."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Annotated, Any, TextIO

from mission.training.signals import STOPPED, finish_process, quiet_threads, started_as_program, watch_signals

_PROGRAM = started_as_program()  # else a test or a notebook has imported this file
if _PROGRAM:
    watch_signals()  # before anything else, so that Ctrl-C prints no traceback of an import

import typer  # noqa: E402
from typer.core import TyperCommand  # noqa: E402

from mission.errors import InputError, MachineError, machine_errors, printable  # noqa: E402

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


_streams: list[TextIO] = []  # of the results; the last is that of the command that runs


@contextlib.contextmanager
def _results_alone() -> Generator[None]:
    """Reserve standard output for results; what anything else prints there goes to standard error.

    So a plugin that prints, at its import or inside a compiled program, does not mix with JSON.
    """
    shown, results = sys.stdout, sys.stdout
    descriptor = None
    with contextlib.suppress(OSError, ValueError, AttributeError):  # a stream of a test or a notebook has no descriptor
        if shown.fileno() == 1 and sys.stderr.fileno() == 2:
            shown.flush()
            descriptor = os.dup(1)
            results = os.fdopen(os.dup(1), "w", encoding=shown.encoding, errors="backslashreplace")
            os.dup2(2, 1)
    sys.stdout = sys.stderr
    _streams.append(results)
    try:
        yield
        results.flush()
    finally:
        _streams.pop()
        if "jax" in sys.modules:
            sys.modules["jax"].effects_barrier()  # callbacks of compiled programs print late
        sys.stdout = shown
        if descriptor is not None:
            os.dup2(descriptor, 1)
            os.close(descriptor)


class _Command(TyperCommand):
    """A command that runs with standard output reserved for its results; its `--help` is printed before that."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        with _results_alone():
            return super().invoke(ctx)


def _say(*lines: str) -> None:
    """Print lines of a result."""
    typer.echo("\n".join(printable(line) for line in lines), file=_results())


def _results() -> TextIO:
    """Return the stream of the results of the command that runs."""
    return _streams[-1] if _streams else sys.stdout


@app.command(cls=_Command)
def plugins(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the installed phase plugins, observers and missions from their metadata; none is imported."""
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
        _write_json(json.dumps(rows, indent=2))
        return
    for row in rows:
        mark = '  DUPLICATE: write "distribution:name"' if row["duplicate"] else ""
        _say(f"{row['group']:18} {row['name']:24} {row['distribution']} {row['version']}  {row['target']}{mark}")


@app.command(cls=_Command)
def check(file: File, overrides: Set = None, local: Local = False) -> None:
    """Parse, resolve and link a mission, and print what would run; nothing is trained."""
    from mission.devices import configure
    from mission.missionfile.phases import TrainedPhase
    from mission.missionfile.reading import load_mission
    from mission.missionfile.resolve import digest, resolve_mission
    from mission.observers import Observers

    mission = load_mission(file, overrides or [])
    configure()
    phases = resolve_mission(mission, allow_local_plugins=local)
    Observers(mission, Path())  # loads each of them
    _say(
        f"{mission.name}: {len(phases)} phases, seed {mission.seed}, digest {digest([p.configuration() for p in phases])[:16]}"
    )
    for phase in phases:
        env, entry = phase.environment, phase.entry
        who = f"agent, {entry.budget.env_steps:,} vehicle steps" if isinstance(phase, TrainedPhase) else "guide"
        gate = "no gate"
        if entry.gate and isinstance(phase, TrainedPhase):
            gate = f"gate: {entry.gate}"
        _say(
            f"  {phase.name}: {phase.origin}",
            f"    {who}; {gate}; {len(env.observation_names)} observations, {len(env.action_names)} actions, {env.control_period_s} s steps",
        )


@app.command(cls=_Command)
def schema(
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Write here instead of printing."),
    ] = None,
) -> None:
    """Print the JSON Schema of mission files, for editors."""
    from mission.missionfile.schema import mission_schema

    _write(json.dumps(mission_schema(), indent=2) + "\n", output)


@app.command(cls=_Command)
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
    _apply_only(bool(mission.observers), "if the mission has observers, which write there", {"--log-dir": log_dir})
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
        returns = "" if record.returns is None else f", mean return {record.returns:.4g}"
        success = (
            "" if record.success is None else f", success {100 * record.success:.2f} %{returns} over its bank's flights"
        )
        gate = "" if record.gate is None else f"; gate: {record.gate.counted()}"
        _say(f"{record.name}: {record.status}, {record.env_steps:,} vehicle steps{success}{gate}")


@app.command(cls=_Command)
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
    _apply_only(policy == "agent", "with --policy agent; a guide needs no policy", {"--allow-stale": allow_stale})
    reads = policy == "agent" or report_dir is not None
    _apply_only(reads, "with --policy agent or --report; a guide needs no policy", {"--checkpoints": checkpoints})
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
        _write_json(summary.to_json())
        return
    from mission.report.terminal import print_summary

    print_summary(summary, _results())
    if output is not None:
        _write(summary.to_json() + "\n", output)
    if report_dir is not None:
        _say(f"report: {report_dir / 'index.html'}")


@app.command(cls=_Command)
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

    training = is_training(folder)
    drawn_by = {"--mission": mission_file, "--set": overrides, "--allow-local-plugins": local}
    _apply_only(not training, "for a report; the learning curves of a training run need no plugin", drawn_by)
    _apply_only(training, "for a training run; a report's page is index.html in its folder", {"--output": output})
    if training:
        _say(str(learning_page(folder, output)))
        return
    _apply_only_with_mission(mission_file, overrides, local)
    from mission.report.redraw import report_again

    mission = load_mission(mission_file, overrides or []) if mission_file is not None else None
    _say(str(report_again(folder, mission, allow_local_plugins=local)))


@app.command(cls=_Command)
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

    folders = [side.is_dir() for side in (first, second)]
    _apply_only(any(folders), "if a side is a folder of checkpoints", {"--mission": mission_file})
    _apply_only(not all(folders), "if a side is a mission file", {"--checkpoints": checkpoints})
    _apply_only_with_mission(mission_file, overrides)
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
        _write_json(result.model_dump_json(indent=2))
        return
    from mission.report.terminal import print_comparison

    print_comparison(result, _results())


@app.command(cls=_Command)
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

    _apply_only_with_mission(mission_file, overrides, local)
    mission = load_mission(mission_file, overrides or []) if mission_file is not None else None
    from mission.observers.progress import flight_bar
    from mission.training.recertify import recertify_mission, require_passed

    with flight_bar() as bar:
        result = recertify_mission(
            folder, mission=mission, equivalent=equivalent, allow_local_plugins=local, progress=bar
        )
    if as_json:
        _write_json(result.model_dump_json(indent=2))
    require_passed(result)
    if not as_json:
        outcomes = result.outcomes
        _say(f"{result.mission}: {outcomes.flights:,} flights, {result.verdict}; source hashes renewed")
        if outcomes.rounded:
            _say(f"{outcomes.rounded:,} of them end one control step apart, by rounding; the first:")
            _say(*(f"  {difference}" for difference in outcomes.differences))


@app.command(cls=_Command)
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
    _say(f"wrote {folder}", "next:", *(f"  {line}" for line in next_steps(folder)))


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


def _apply_only(applies: bool, when: str, options: Mapping[str, object]) -> None:
    """Reject options that were given although they have no effect: the one rule of all commands."""
    for name, value in options.items():
        if value and not applies:
            raise _input_error(name, f"{name} only {when}", "an option that would have no effect", f"remove {name}")


def _apply_only_with_mission(mission_file: Path | None, overrides: list[str] | None, local: bool = False) -> None:
    options = {"--set": overrides, "--allow-local-plugins": local}
    _apply_only(mission_file is not None, "together with --mission FILE, to which it applies", options)


def _input_error(where: str, expected: str, found: str, remedy: str) -> Exception:
    return InputError(where, expected=expected, found=found, remedy=remedy)


def _json_path(json_file: str | None) -> Path | None:
    """Return the file that --json names; None for standard output or no JSON at all."""
    if json_file in (None, "-"):
        return None
    output = Path(json_file)
    if output.is_dir() or not output.parent.is_dir():
        raise MachineError(
            f"--json {output}",
            expected="a file in a folder that exists",
            found="a folder" if output.is_dir() else f"no folder {output.parent}",
            remedy="choose another path",
        )
    return output


def _write_json(text: str) -> None:
    """Print JSON, with the characters that a terminal would obey as escapes."""
    typer.echo("".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text), file=_results())


def _write(text: str, output: Path | None) -> None:
    if output is None:
        typer.echo(text, nl=False, file=_results())
        return
    with machine_errors(output, "a file to write", "choose another path"):
        output.write_text(text, encoding="utf-8")


class _Printable(logging.Formatter):
    """Formats warnings, which quote names and exceptions of plugins and files."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the message as one printable line."""
        return printable(super().formatMessage(record))


def main() -> None:
    """Run the command line; print one paragraph and set an exit code for every error."""
    debug = "--debug" in sys.argv[1:]
    if debug:
        sys.argv = [sys.argv[0], "--debug", *[a for a in sys.argv[1:] if a != "--debug"]]
    handler = logging.StreamHandler()
    handler.setFormatter(_Printable("%(message)s"))
    logging.basicConfig(level=logging.DEBUG if debug else logging.WARNING, handlers=[handler])
    logging.raiseExceptions = debug  # else each message to a terminal that was closed prints a traceback
    for noisy in ("absl", "orbax", "jax"):
        logging.getLogger(noisy).setLevel(logging.NOTSET if debug else logging.CRITICAL)
    if _PROGRAM and not debug:
        quiet_threads()
    try:
        app()
    except SystemExit as end:
        code = _exit_code(end, debug)
    except BaseException as error:
        code = _report(error, debug)
    if _PROGRAM:
        finish_process(code)
    sys.exit(code)


def _exit_code(end: SystemExit, debug: bool) -> int:
    """Return the exit code after typer, or a plugin, ended a command."""
    import traceback

    frames = [frame for frame, _ in traceback.walk_tb(end.__traceback__)]
    if not str(frames[-1].f_globals.get("__name__")).startswith("typer"):
        return _report(end, debug)
    if end.code == 130:  # after a KeyboardInterrupt
        print(STOPPED, file=sys.stderr)
    # typer ends with 1 if standard output was closed, but here 1 means a negative result
    return 3 if end.code == 1 else int(end.code or 0)


def _report(error: BaseException, debug: bool) -> int:
    """Print the paragraph of an error, or its traceback, and return its exit code."""
    import traceback

    from mission.missionfile.failures import explained

    shown = explained(error, " ".join(["mission", *sys.argv[1:2]]))
    text = "".join(traceback.format_exception(error)) if debug else f"error: {shown}"
    with contextlib.suppress(OSError):  # the terminal was closed
        print(text, file=sys.stderr)
    return shown.exit_code


if __name__ == "__main__":
    main()
