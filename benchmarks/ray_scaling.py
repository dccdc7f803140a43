"""Flights per second of two one-core workers of a local Ray over those of one.

Both fly the same batches of 1,000 flights, after each worker has prepared the mission; they take turns, and the ratio is the
median over rounds. The flights must be the same to the last bit. Target: at least 1.9 on two quiet cores. The exit code is 1
if the flights differ.

    python benchmarks/ray_scaling.py                                # the five-phase mission by its shipped policies
    python benchmarks/ray_scaling.py --mission missions/vertical.yaml --batches 16 --rounds 3
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from pathlib import Path

import numpy as np

from mission import load_mission
from mission.flight.batches import BATCH
from mission.flight.chain import Chain, prepare_chain
from mission.flight.fly import PhaseFlight
from mission.scale.cluster import cluster
from mission.scale.flying import Fleet

ROOT = Path(__file__).resolve().parents[1]


def digest(flown: list[PhaseFlight]) -> str:
    """Return a hash of what the flights of one batch did."""
    found = hashlib.sha256()
    for phase in flown:
        for values in (phase.success, phase.cause, phase.steps, phase.returns, *phase.telemetry.values()):
            found.update(np.ascontiguousarray(values).tobytes())
    return found.hexdigest()


def flights_per_second(chain: Chain, workers: int, batches: int) -> tuple[float, float, list[str]]:
    """Return the rate of a number of workers, the share of the time that they were at work, and the batches' hashes."""
    with cluster("ray", workers=workers) as started:
        fleet = Fleet(started, chain)
        # more batches than are handed out at once, so that each worker prepares the mission
        warm = 2 * workers + 1
        with fleet.flying(warm * BATCH, batches * BATCH) as fly:
            for n in range(batches, batches + warm):
                fly(np.arange(n * BATCH, (n + 1) * BATCH))
        begun, before = time.perf_counter(), started.core_seconds
        with fleet.flying(batches * BATCH, 0) as fly:
            hashes = [digest(fly(np.arange(n * BATCH, (n + 1) * BATCH))) for n in range(batches)]
        seconds = time.perf_counter() - begun
        return batches * BATCH / seconds, (started.core_seconds - before) / (workers * seconds), hashes


def main() -> None:
    """Measure, and print one line per round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mission", type=Path, default=ROOT / "missions" / "return_to_launch_site.yaml")
    parser.add_argument("--checkpoints", type=Path, default=ROOT / "checkpoints" / "shipped")
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    chain = prepare_chain(load_mission(options.mission), checkpoints=options.checkpoints)
    rows, same = [], True
    for n in range(options.rounds):
        (one, _, first), (two, busy, second) = (
            flights_per_second(chain, workers, options.batches) for workers in (1, 2)
        )
        same &= first == second
        rows.append({"one": one, "two": two, "ratio": two / one, "busy": busy})
        bits = "same bits" if first == second else "OTHER BITS"
        print(f"round {n + 1}: 1 worker {one:,.0f}, 2 workers {two:,.0f} flights per second: {two / one:.2f} x, {bits}")
        print(f"  the two were at work {100 * busy:.0f} % of the time")
        sys.stdout.flush()
    print(f"median {np.median([row['ratio'] for row in rows]):.2f} x (target 1.9)")
    if options.json is not None:
        options.json.write_text(json.dumps({"rounds": rows, "same_bits": same}, indent=1) + "\n")
    sys.exit(not same)


if __name__ == "__main__":
    main()
