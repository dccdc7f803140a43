"""A sweep on several workers against the same sweep on one.

Claim: 8 trainings on 2 workers take at least 1.7 times less wall time than one after another, with the same policies.

Command: python benchmarks/sweep_scaling.py [--trainings N] [--workers N] [--env-steps N] [--rounds N] [--json FILE]

Each training has one core, whatever the number of workers is. Before the rounds, one training compiles what JAX's cache keeps. The
gates are removed, so that every training has the same length. The policies of both sweeps must have the same hashes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import common

MISSION = Path(__file__).resolve().parent.parent / "missions" / "vertical.yaml"


def swept(folder: Path, trainings: int, workers: int, env_steps: int) -> tuple[float, list[str]]:
    """Return the seconds of a sweep, and the hashes of its policies."""
    settings = [
        f"phases.{phase}.{key}" for phase in ("coast", "burn") for key in ("gate=null", f"budget.env_steps={env_steps}")
    ]
    command = [
        sys.executable,
        "-m",
        "mission",
        "sweep",
        str(MISSION),
        "--seeds",
        f"0-{trainings - 1}",
        "--output",
        str(folder),
    ]
    command += ["--workers", str(workers), *(word for setting in settings for word in ("--set", setting))]
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds = time.perf_counter() - began
    records = sorted(folder.glob("combination-1/*/*/*/policy/meta.json"))
    return seconds, [json.loads(path.read_text(encoding="utf-8"))["content_sha256"] for path in records]


def main() -> None:
    parser = common.parser(__doc__, peer=False, rounds=2)
    parser.add_argument("--trainings", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--env-steps", type=int, default=300_000, help="of each of the two phases (default: %(default)s)"
    )
    options = parser.parse_args()
    seconds: dict[int, list[float]] = {1: [], options.workers: []}
    hashes = set()
    with tempfile.TemporaryDirectory() as base:
        swept(Path(base) / "first", 1, 1, options.env_steps)
        for number in range(options.rounds):
            for workers, found in seconds.items():
                taken, policies = swept(
                    Path(base) / f"{number}-{workers}", options.trainings, workers, options.env_steps
                )
                found.append(taken)
                hashes.add(tuple(policies))
                print(f"{workers} workers: {taken:.1f} s", flush=True)
    if len(hashes) != 1:
        raise SystemExit("the policies depend on the number of workers")
    faster = common.ratios(seconds[1], seconds[options.workers])
    rows = [("workers", "seconds"), *((str(workers), common.spread(found, 1)) for workers, found in seconds.items())]
    common.print_table([*rows, ("speed-up", common.spread(faster))])
    common.write_json(options.json, {"seconds": seconds, "faster": faster})


if __name__ == "__main__":
    main()
