"""The first mission from zero, as its user meets it: train, then fly.

Claim: `mission train missions/vertical.yaml` followed by `mission fly --flights 1024`, with nothing
compiled before, lands nearly every booster close to the least propellant, within minutes.

Command: python benchmarks/vertical.py [--seeds N] [--json FILE]

Reading it: wall seconds of the two commands, each a process of its own, with an empty compile cache
and empty folders for every seed; boosters landed of 1,024 with the 95 % Wilson interval; and the
mean propellant of the landed ones over the optimum. The first seed is the mission file's own, the
others count up from it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import common

MISSION = Path(__file__).resolve().parent.parent / "missions" / "vertical.yaml"
CHANNEL = "propellant_over_optimum_percent"


def timed(arguments: list[str], environment: dict[str, str], quiet: bool) -> tuple[float, str]:
    """Seconds and standard output of one `mission` command."""
    command = [sys.executable, "-m", "mission", *arguments]
    began = time.perf_counter()
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE if quiet else None, text=True
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(
            f"mission {' '.join(arguments)}: exit code {done.returncode}\n{done.stdout}{done.stderr or ''}"
        )
    return seconds, done.stdout


def from_zero(seed: int | None, flights: int, overrides: list[str], quiet: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {
            "JAX_COMPILATION_CACHE_DIR": f"{folder}/cache",
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
        }
        common_options = [str(MISSION), "--checkpoints", f"{folder}/checkpoints"]
        common_options += ["--seed", str(seed)] if seed is not None else []
        common_options += [part for override in overrides for part in ("--set", override)]
        train_s, trained = timed(["train", *common_options, "--log-dir", f"{folder}/runs"], environment, quiet)
        fly_s, flown = timed(["fly", *common_options, "--flights", str(flights), "--json", "-"], environment, quiet)
    report = json.loads(flown)
    return {
        "seed": report["seed"],
        "train_s": train_s,
        "fly_s": fly_s,
        "success": report["success"],
        "propellant_over_optimum_percent": report["phases"][-1]["end"][CHANNEL],
        "training": trained.splitlines(),
        "phases": [
            {name: phase[name] for name in ("name", "entered", "succeeded", "causes")} for phase in report["phases"]
        ],
    }


def main() -> None:
    options = common.parser(__doc__, peer=False)
    options.add_argument("--seeds", type=int, default=1, help="trainings, each from zero (default: %(default)s)")
    options.add_argument("--flights", type=int, default=1024, help="flights at the end (default: %(default)s)")
    options.add_argument(
        "--set",
        dest="overrides",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="passed on to `mission`, e.g. for a short try",
    )
    options.add_argument("--quiet", action="store_true", help="hide the progress of `mission`")
    arguments = options.parse_args()
    runs: list[dict[str, Any]] = []
    for number in range(arguments.seeds):
        seed = runs[0]["seed"] + number if runs else None
        runs.append(from_zero(seed, arguments.flights, arguments.overrides, arguments.quiet))
    table = [("seed", "train s", "fly s", "landed", "95 % interval", "propellant over optimum, mean %")]
    for run in runs:
        landed, over = run["success"], run["propellant_over_optimum_percent"]["mean"]
        interval = f"{100 * landed['low']:.2f} to {100 * landed['high']:.2f} %"
        counted = f"{landed['count']} of {arguments.flights}"
        table.append(
            (
                str(run["seed"]),
                f"{run['train_s']:.0f}",
                f"{run['fly_s']:.1f}",
                counted,
                interval,
                "-" if over is None else f"{over:.2f}",
            )
        )
    common.print_table(table)
    for run in runs:
        print(f"seed {run['seed']}: " + "; ".join(run["training"]))
    common.write_json(arguments.json, {"runs": runs})


if __name__ == "__main__":
    main()
