"""The options that several commands share, and the rules that apply to options."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mission.cli.completing import (
    complete_file,
    complete_folder,
    complete_init,
    complete_phase,
    complete_policy,
    complete_set,
)
from mission.errors import InputError, MachineError

if TYPE_CHECKING:
    from mission.missionfile.models import MissionFile

File = Annotated[
    Path,
    typer.Argument(
        metavar="FILE", help="Mission file (YAML), or the name of an installed mission.", autocompletion=complete_file
    ),
]
Checkpoints = Annotated[
    Path | None,
    typer.Option(
        "--checkpoints",
        metavar="DIR",
        help="Folder that holds MISSION/PHASE/. [default: checkpoints]",
        autocompletion=complete_folder,
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a value, e.g. phases.burn.sac.gamma=0.99. Repeatable.",
        autocompletion=complete_set,
    ),
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

Devices = Annotated[
    int | None,
    typer.Option("--devices", metavar="N", min=1, help="Fly on at most N cores or accelerators. [default: all]"),
]
FirstFlight = Annotated[
    int,
    typer.Option(
        "--first-flight",
        metavar="N",
        min=0,
        help="Number of the first vehicle, a multiple of 1,000; `mission merge` joins such reports.",
    ),
]
On = Annotated[
    str,
    typer.Option(
        "--on",
        metavar="local|ray[:ADDRESS]",
        help="ray: fly on Ray workers, either of a local Ray that starts and ends with this command, or of the "
        "cluster at ADDRESS.",
    ),
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
        help="Stop before N when half the width of the success interval is at most this value (0.01 is 1 %); "
        "checked every 1,000 flights.",
    ),
]
Policy = Annotated[
    list[str] | None,
    typer.Option(
        "--policy",
        metavar="guide|guarded|DIR|NAME=PILOT",
        autocompletion=complete_policy,
        help="guide: fly every phase by its guidance law. DIR: the networks of another mission's folder fly the phases of "
        "the same name. NAME=agent|imitator|guide|guarded|DIR|onnx:FILE: the pilot of one phase; DIR is the "
        "folder of a trained phase, FILE an ONNX model of another framework. "
        "guarded or guarded:DIR: the agents or the networks in DIR, but the guide takes over when the mission is "
        "then more likely to succeed (needs `mission guard`). Repeatable. [default: agent, as the mission file says]",
    ),
]
PolicyFrom = Annotated[
    Path | None,
    typer.Option(
        "--policy-from",
        metavar="DIR",
        help="Fly a phase with the compiled library in DIR, which `mission export` wrote with --format c99; DIR "
        "names the phase.",
    ),
]
Sensitivity = Annotated[
    bool, typer.Option("--sensitivity", help="Analyse on which dispersions the losses and the end states depend.")
]
Only = Annotated[
    str | None,
    typer.Option(
        "--only",
        metavar="NUMBERS",
        help="Fly only these flights of the campaign again, bit-identically: 4711, or 0,3,8-10. Without "
        "--flights, any number is valid.",
    ),
]
Trajectory = Annotated[
    Path | None,
    typer.Option(
        "--trajectory", metavar="DIR", help="With --only: write every control step of these flights to files."
    ),
]
Format = Annotated[
    list[str] | None,
    typer.Option(
        "--format",
        metavar="NAME",
        help="Format of the files: csv, parquet, or the format of a plugin, e.g. czml. Repeatable. [default: csv]",
    ),
]
FormatSet = Annotated[
    list[str] | None,
    typer.Option(
        "--format-set", metavar="KEY=VALUE", help="Option of the formats, e.g. longitude_deg=-80.5. Repeatable."
    ),
]
StartsFile = Annotated[
    Path | None,
    typer.Option(
        "--starts",
        metavar="TABLE",
        help="Fly from the rows of a table of starts (CSV or Parquet); `mission starts` writes such a table to edit.",
    ),
]
Init = Annotated[
    list[str] | None,
    typer.Option(
        "--init",
        metavar="NAME=DIR",
        help="Initialise the actor of phase NAME with the policy in the folder DIR of a trained phase. Repeatable.",
        autocompletion=complete_init,
    ),
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Discard the stored results of the phases and restart them.")]
LogDir = Annotated[
    Path | None,
    typer.Option(
        "--log-dir",
        metavar="DIR",
        help="Folder for the files of observers; each checkpoint folder gets a subfolder in it. [default: runs]",
    ),
]
OnlyPhase = Annotated[
    list[str] | None,
    typer.Option("--phase", metavar="NAME", help="Train only this phase. Repeatable.", autocompletion=complete_phase),
]
SweepsOption = Annotated[
    int | None,
    typer.Option(
        "--sweeps",
        metavar="N",
        help="Train the chain again N times, backwards and then forwards. [default: chain.sweeps of the mission file]",
    ),
]
Joint = Annotated[bool, typer.Option("--joint", help="After the sweeps, train all agents together on whole flights.")]
Splitting = Annotated[
    bool,
    typer.Option(
        "--splitting",
        help="Estimate rare losses by importance splitting: copy the flights with an uncertain outcome and "
        "weight them (needs `mission feasibility`).",
    ),
]
JudgeOption = Annotated[
    Literal["box", "mission"] | None,
    typer.Option(
        "--judge",
        help="Criterion that fails a flight at a hand-over. box: the box of each phase. mission: only limits, "
        "the ground and the box of the last phase. [default: as the mission file says]",
    ),
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
        autocompletion=complete_folder,
        help="Write summary.json, flights.npz and index.html; an interrupted run is resumed.",
    ),
]


_FOR_ALL = ("agent", "guide", "guarded")  # pilots that every phase can have


def pilots(values: list[str]) -> tuple[str, dict[str, str | Path]]:
    """Return the pilot of all phases (agent, guide, guarded, or a mission's folder) and phase -> pilot, from --policy."""
    every, named = [text for text in values if "=" not in text], [text for text in values if "=" in text]
    for text in every:
        if text not in _FOR_ALL and not os.path.isdir(text.removeprefix("guarded:") or "?"):
            remedy = f"name one of them; for one phase write --policy NAME={text or 'guide'}"
            expected = "agent, guide or guarded for all phases, the folder of a mission, or NAME=PILOT"
            raise input_error(f"--policy {text}", expected, text, remedy)
    if len(set(every)) > 1:
        raise input_error("--policy", "one pilot for all phases", " and ".join(every), "remove one")
    return (every or ["agent"])[0], _by_phase("--policy", "NAME=PILOT", named, "landing=guide")


def mission_and_pilots(
    file: Path, overrides: list[str] | None, policies: list[str] | None, allow_stale: bool
) -> tuple[MissionFile, str, dict[str, str | Path]]:
    """Return the mission, the pilot of all phases (agent, guide or guarded), and phase -> pilot for exceptions."""
    from mission.missionfile.reading import load_mission

    policy, by_phase = pilots(policies or [])
    apply_only(policy != "guide", "with --policy agent; a guide needs no policy", {"--allow-stale": allow_stale})
    mission = load_mission(file, overrides or [])
    if policy not in _FOR_ALL:
        from mission.missionfile.pilots import guarded, unguarded
        from mission.storage.borrowed import pilots_of

        folder, names = unguarded(policy), [phase.name for phase in mission.phases]
        found = pilots_of(Path(folder), names)
        if folder != policy:
            found = {name: guarded(str(path)) for name, path in found.items()}
        policy, by_phase = "agent", found | by_phase
    return mission, policy, by_phase


def with_export(by_phase: dict[str, str | Path], policy: str, folder: Path | None) -> dict[str, str | Path]:
    """Return phase -> pilot with the exported policy of --policy-from as the pilot of its phase."""
    if folder is None:
        return by_phase
    apply_only(policy != "guide", "without --policy guide, which flies every phase", {"--policy-from": folder})
    from mission.flight.onboard.flying import exported_phase

    name = exported_phase(folder)
    if str(by_phase.get(name, folder)) != str(folder):
        found = f"{name} is flown by {by_phase[name]}, too"
        raise input_error(f"--policy-from {folder}", f"one pilot for {name}", found, "remove one of the two options")
    return by_phase | {name: folder}


def phase_folders(init: list[str]) -> dict[str, str | Path]:
    """Return phase -> folder for the values of --init."""
    return _by_phase("--init", "NAME=DIR", init, "burn=checkpoints/vertical/burn")


def _by_phase(option: str, form: str, values: list[str], example: str) -> dict[str, str | Path]:
    """Return phase -> value for the values of an option, each of the form NAME=..., as in the example."""
    by_phase: dict[str, str | Path] = {}
    for text in values:
        name, separator, value = text.partition("=")
        if not separator or not name or not value:
            raise input_error(f"{option} {text}", form, text, f"write {option} {example}")
        if name in by_phase:
            raise input_error(f"{option} {text}", "a phase once", f"{name} twice", "remove one")
        by_phase[name] = value
    return by_phase


def apply_only(applies: bool, when: str, options: Mapping[str, object]) -> None:
    """Reject options that were given although they have no effect: the one rule of all commands."""
    for name, value in options.items():
        if value and not applies:
            raise input_error(name, f"{name} only {when}", "an option that would have no effect", f"remove {name}")


def apply_only_with_mission(mission_file: Path | None, overrides: list[str] | None, local: bool = False) -> None:
    """Reject options that concern a mission file where none is given."""
    options = {"--set": overrides, "--allow-local-plugins": local}
    apply_only(mission_file is not None, "together with --mission FILE, to which it applies", options)


def input_error(where: str, expected: str, found: str, remedy: str) -> Exception:
    """Return the error for a wrong argument or option."""
    return InputError(where, expected=expected, found=found, remedy=remedy)


def json_path(json_file: str | None) -> Path | None:
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
