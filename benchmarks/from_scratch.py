"""Phases learned from zero by value gradients alone: no imitation, no guide anywhere.

Claim: the table "From scratch" of docs/results.md.

Command: python benchmarks/from_scratch.py [--phase NAME ...] [--seeds N ...] [--flights N] [--folder DIR] [--json FILE]

Each phase is trained from its own starts with the dispersions of `return_to_launch_site`, without `sac.imitation`; the same
command continues. Reading it: flights from own starts with a seed that no training used, and the wall time of the training.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import common

from mission import load_mission
from mission.flight.batches import fly_batches
from mission.flight.chain import prepare_chain
from mission.missionfile.models import MissionFile
from mission.statistics import wilson

ROOT = Path(__file__).resolve().parents[1]
MISSION = ROOT / "missions" / "return_to_launch_site.yaml"
ALONE = {"sac.imitation": None, "sac.warm_up.steps": 0, "sac.fill.env_steps": 65_536}
# phase -> settings that differ from the plugin's
SETTINGS: dict[str, dict[str, Any]] = {
    "arc": ALONE
    | {
        "sac.actor_horizon": 60,
        "sac.actor_batch": 128,
        "sac.actor_learning_rate": 1e-3,
        "sac.actor_rate_updates": 400,
        "sac.actor_flight_grad_max": 10.0,
        "sac.updates_per_step": 1 / 512,
        "budget.env_steps": 270_336,
        "evaluation.every_env_steps": 40_960,
    },
}


def mission_of(phase: str, folder: Path) -> MissionFile:
    """Return the mission of one phase alone, written as a file into a folder."""
    whole = load_mission(MISSION)
    (entry,) = [one for one in whole.phases if one.name == phase]
    shared = json.dumps(whole.params)
    lines = [f"name: {phase}_from_scratch", "seed: 1", f"params: {shared}", "phases:", f"  - name: {phase}"]
    lines += [f"    plugin: {entry.plugin}", f"    params: {json.dumps(entry.params)}"]
    lines += ["    budget: {env_steps: 1000}", "    evaluation: {flights: 2000}"]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{phase}_from_scratch.yaml"
    path.write_text("\n".join(lines) + "\n")
    return load_mission(path, [f"phases.{phase}.{key}={json.dumps(value)}" for key, value in SETTINGS[phase].items()])


def train(phase: str, seed: int, folder: Path) -> float:
    """Train a phase in a process of its own; return the seconds that it took."""
    path = mission_of(phase, folder).source.path
    command = [sys.executable, "-m", "mission", "train", str(path), "--seed", str(seed), "--baseline", "0"]
    command += ["--checkpoints", str(folder / str(seed))]
    command += [
        word for key, value in SETTINGS[phase].items() for word in ("--set", f"phases.{phase}.{key}={json.dumps(value)}")
    ]
    began = time.monotonic()
    subprocess.run(command, check=False)
    return time.monotonic() - began


def main() -> None:
    parser = common.parser(__doc__, peer=False)
    parser.add_argument("--phase", nargs="*", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2, 3])
    parser.add_argument("--flights", type=int, default=4000)
    parser.add_argument("--folder", type=Path, default=ROOT / "from_scratch")
    options = parser.parse_args()
    table, numbers = [["phase", "seed", "success", "seconds"]], []
    for phase in options.phase:
        for seed in options.seeds:
            seconds = train(phase, seed, options.folder)
            mission = mission_of(phase, options.folder)
            chain = prepare_chain(mission, checkpoints=options.folder / str(seed), seed=777_000)
            (result,) = fly_batches(options.flights, None, chain.fly)
            landed = int(result.success.sum())
            low, high = wilson(landed, options.flights)
            rate = f"{100 * landed / options.flights:.2f} % ({100 * low:.2f} to {100 * high:.2f})"
            table.append([phase, str(seed), rate, f"{seconds:.0f}"])
            numbers.append({"phase": phase, "seed": seed, "success": landed, "flights": options.flights, "s": seconds})
    common.print_table(table)
    common.write_json(options.json, numbers)


if __name__ == "__main__":
    main()
