"""The commands that analyse a mission as a chain: feasibility, envelopes, and the guard."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mission.cli.completing import complete_phase
from mission.cli.options import (
    Checkpoints,
    Devices,
    File,
    JsonFile,
    JudgeOption,
    Local,
    Policy,
    Seed,
    Set,
    Stale,
    json_path,
    mission_and_pilots,
)
from mission.cli.output import Command, results, say, write_json, write_text
from mission.cli.scaling import app

Flights = Annotated[int, typer.Option("--flights", metavar="N", min=1, help="Number of vehicles.")]
Phases = Annotated[
    list[str] | None,
    typer.Option(
        "--phase",
        metavar="NAME",
        help="Only the hand-over to this phase. Repeatable.",
        autocompletion=complete_phase,
    ),
]
Channels = Annotated[
    str | None,
    typer.Option(
        "--channels",
        metavar="A,B",
        help="Channels of maps and boxes. [default: those that explain most of the feasibility]",
    ),
]
Probability = Annotated[
    float, typer.Option("--probability", metavar="P", help="Smallest probability of success from inside a box.")
]
Confidence = Annotated[
    float, typer.Option("--confidence", metavar="C", help="One-sided confidence level of --probability.")
]
Page = Annotated[
    Path | None,
    typer.Option("-o", "--output", metavar="FILE", help="Write a page with maps and reliability diagrams (HTML)."),
]


@app.command(cls=Command)
def feasibility(
    file: File,
    checkpoints: Checkpoints = None,
    flights: Flights = 10_000,
    seed: Seed = None,
    policies: Policy = None,
    judge: JudgeOption = None,
    allow_stale: Stale = False,
    json_file: JsonFile = None,
    devices: Devices = None,
    overrides: Set = None,
    local: Local = False,
) -> None:
    """Fit the probability that the rest of a mission succeeds from the state in which a flight enters each phase.

    The networks are stored in CHECKPOINTS/MISSION; `mission envelope` reads them. They become stale when a policy, a plugin or
    a setting of the mission changes.
    """
    from mission.flight.chain import prepare_chain
    from mission.flight.feasibility.fitting import fit_feasibility
    from mission.flight.feasibility.network import FeasibilitySettings
    from mission.observers.progress import flight_bar

    output = json_path(json_file)
    mission, policy, by_phase = mission_and_pilots(file, overrides, policies, allow_stale)
    pilots: dict[str, Any] = {
        "checkpoints": checkpoints,
        "policy": policy,
        "policies": by_phase,
        "allow_stale": allow_stale,
    }
    chain = prepare_chain(mission, seed=seed, judge=judge, devices=devices, allow_local_plugins=local, **pilots)
    with flight_bar(flights) as bar:
        record = fit_feasibility(chain, FeasibilitySettings(flights=flights), bar)
    if json_file == "-":
        write_json(record.model_dump_json(indent=2))
        return
    from mission.report.terminal import print_feasibility

    print_feasibility(record, results())
    if output is not None:
        write_text(record.model_dump_json(indent=2) + "\n", output)
    say("next: mission envelope, with the same options, for the states from which the rest succeeds")


@app.command(cls=Command)
def envelope(
    file: File,
    checkpoints: Checkpoints = None,
    flights: Flights = 10_000,
    phase: Phases = None,
    channels: Channels = None,
    probability: Probability = 0.99,
    confidence: Confidence = 0.95,
    page: Page = None,
    seed: Seed = None,
    policies: Policy = None,
    judge: JudgeOption = None,
    allow_stale: Stale = False,
    json_file: JsonFile = None,
    devices: Devices = None,
    overrides: Set = None,
    local: Local = False,
) -> None:
    """Find the entry states of each phase from which the rest of the mission succeeds, and the channels that limit them.

    The command flies new flights of a mission with a fitted feasibility (`mission feasibility`).
    """
    from mission.flight.chain import prepare_chain
    from mission.observers.progress import flight_bar
    from mission.report.envelope import mission_envelope

    output = json_path(json_file)
    mission, policy, by_phase = mission_and_pilots(file, overrides, policies, allow_stale)
    pilots: dict[str, Any] = {
        "checkpoints": checkpoints,
        "policy": policy,
        "policies": by_phase,
        "allow_stale": allow_stale,
    }
    chain = prepare_chain(mission, seed=seed, judge=judge, devices=devices, allow_local_plugins=local, **pilots)
    wanted: dict[str, Any] = {"only": phase or (), "channels": [name for name in (channels or "").split(",") if name]}
    with flight_bar(flights) as bar:
        found = mission_envelope(chain, flights, probability=probability, confidence=confidence, progress=bar, **wanted)
    if page is not None:
        write_text(found.to_html(), page)
    if json_file == "-":
        write_json(found.model_dump_json(indent=2))
        return
    from mission.report.terminal import print_envelope

    print_envelope(found, results())
    if output is not None:
        write_text(found.model_dump_json(indent=2) + "\n", output)
    if page is not None:
        say(f"page: {page}")
    say("next: mission guard, with the same options, for a guide that takes over where it promises more")


@app.command(cls=Command)
def guard(
    file: File,
    checkpoints: Checkpoints = None,
    flights: Annotated[
        int,
        typer.Option(
            "--flights", metavar="N", min=1, help="Number of flights in each of the three sets (fit, choose, compare)."
        ),
    ] = 20_000,
    phase: Annotated[
        list[str] | None,
        typer.Option(
            "--phase",
            metavar="NAME",
            help="Guard only this phase. Repeatable.",
            autocompletion=complete_phase,
        ),
    ] = None,
    seed: Seed = None,
    policies: Policy = None,
    judge: JudgeOption = None,
    allow_stale: Stale = False,
    json_file: JsonFile = None,
    devices: Devices = None,
    overrides: Set = None,
    local: Local = False,
) -> None:
    """Determine when the guide of a phase should take over from its agent, and the benefit; then fly with --policy guarded.

    The guard is stored in CHECKPOINTS/MISSION. It becomes stale when a policy, a plugin or a setting of the mission changes.
    """
    from mission.flight.chain import prepare_chain
    from mission.flight.guard.fitting import GuardSettings, fit_guard
    from mission.observers.progress import flight_bar

    output = json_path(json_file)
    mission, policy, by_phase = mission_and_pilots(file, overrides, policies, allow_stale)
    pilots: dict[str, Any] = {"policy": policy, "policies": by_phase, "allow_stale": allow_stale, "guard": False}
    pilots |= {"checkpoints": checkpoints, "allow_local_plugins": local}
    chain = prepare_chain(mission, seed=seed, judge=judge, devices=devices, **pilots)
    with flight_bar(flights) as bar:
        record = fit_guard(chain, GuardSettings(flights=flights), only=phase or (), progress=bar)
    if json_file == "-":
        write_json(record.model_dump_json(indent=2))
        return
    from mission.report.terminal import print_guard

    print_guard(record, results())
    if output is not None:
        write_text(record.model_dump_json(indent=2) + "\n", output)
    say("next: mission fly with the same options, and --policy guarded, or guarded:DIR instead of DIR")
