"""The command that exports policies to other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mission.cli.chains import app
from mission.cli.completing import complete_phase
from mission.cli.following import given_words, local_words, repeated_words, say_next
from mission.cli.options import (
    Checkpoints,
    Devices,
    File,
    JsonFile,
    Local,
    Policy,
    Seed,
    Set,
    Stale,
    json_path,
    mission_and_pilots,
)
from mission.cli.output import Command, results, say, write_json, write_text

PhaseName = Annotated[
    str,
    typer.Option("--phase", metavar="NAME", help="The phase whose policy is exported.", autocompletion=complete_phase),
]
Format = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="c99|onnx|stablehlo|npz",
        autocompletion=lambda: ["c99", "onnx", "stablehlo", "npz"],
        help="c99: scalar code without allocation, checked with gcc (extra: c). onnx: checked with onnxruntime (extra: onnx). "
        "stablehlo: the function of JAX (extra: stablehlo). npz: arrays, and a forward pass in numpy.",
    ),
]
Output = Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Output folder; it must be new or empty.")]
Observations = Annotated[
    int,
    typer.Option(
        "--observations",
        metavar="N",
        min=100,
        help="Number of control steps, drawn from flights, on which the export is compared with the policy.",
    ),
]


@app.command(cls=Command)
def export(
    file: File,
    phase: PhaseName,
    target: Format,
    output: Output,
    checkpoints: Checkpoints = None,
    observations: Observations = 10_000,
    seed: Seed = None,
    policies: Policy = None,
    allow_stale: Stale = False,
    json_file: JsonFile = None,
    devices: Devices = None,
    overrides: Set = None,
    local: Local = False,
) -> None:
    """Export the policy of a phase for a flight computer or another program, and compare the export with the policy.

    The folder contains the policy with its standardisation, history and squashing, golden vectors, interface.json (names,
    units, ranges, rates), parity.json and a licence note. If the export differs from its policy by more than 1e-6 on any
    observation, nothing is written and the exit code is 1. For example:

    mission export missions/vertical.yaml --phase burn --format c99 -o burn_c99, then mission fly missions/vertical.yaml
    --policy-from burn_c99
    """
    from mission.flight.onboard.exporting import check_phase_name, check_target

    check_target(target, output)
    json_output = json_path(json_file)
    mission, policy, by_phase = mission_and_pilots(file, overrides, policies, allow_stale)
    check_phase_name([entry.name for entry in mission.phases], phase)  # before the display
    from mission.flight.onboard.exporting import export_policy
    from mission.observers.progress import flight_bar

    with flight_bar(observations) as bar:
        summary = export_policy(
            mission,
            phase,
            target,
            output,
            checkpoints=checkpoints,
            observations=observations,
            seed=seed,
            policy=policy,
            policies=by_phase,
            allow_stale=allow_stale,
            allow_local_plugins=local,
            devices=devices,
            progress=bar,
        )
    from mission.report.onboard import print_export

    text = summary.parity.model_dump_json(indent=2)
    if json_file == "-":
        return write_json(text)
    print_export(summary, results())
    if json_output is not None:
        write_text(text + "\n", json_output)
    same = given_words("--checkpoints", checkpoints) + repeated_words("--policy", policies)
    same += repeated_words("--set", overrides) + local_words(local)
    _say_next_steps(target, output, file, same)


def _say_next_steps(target: str, output: Path, file: Path, same: list[str]) -> None:
    if target == "c99":
        say_next("fly", file, "--policy-from", output, *same, why="the same landings, by the compiled library")
        say(f"      make -C {output} test latency")
    else:
        say(f"next: {output}/interface.json says what goes in and out; --format c99 can be flown by `mission fly`")
