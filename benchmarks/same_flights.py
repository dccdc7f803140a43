"""Compare flights of the shipped missions with those of version 0.1: success, cause and steps of every flight.

`benchmarks/flights_0.1/` holds 10,000 flights of every mission, by agents and by guides, as mission 0.1.0 flew them with
the missions' own seeds and the shipped policies (commit c57b45a). The exit code is 1 if more than 5 of 10,000 flights
differ in any of them.

    python benchmarks/same_flights.py                          # every mission, 10,000 flights: about 15 minutes
    python benchmarks/same_flights.py --flights 1000 vertical:agent landing_only:guide

`benchmarks/flights_guides/` holds those of the guides that the networks of the booster's phases are measured against:
the guides of commit c91158f, before any phase was flown by a network alone.

    python benchmarks/same_flights.py --folder benchmarks/flights_guides
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from mission import load_mission
from mission.flight.batches import fly_batches
from mission.flight.chain import Chain, prepare_chain
from mission.flight.fly import PhaseFlight

ROOT = Path(__file__).resolve().parents[1]
STORED = ROOT / "benchmarks" / "flights_0.1"
LISTED = 8  # differences that are printed


def fly(job: str, flights: int) -> tuple[Chain, list[PhaseFlight]]:
    """Fly one mission by agents or guides."""
    name, _, policy = job.partition(":")
    checkpoints = ROOT / "checkpoints" / "shipped" if policy == "agent" else None
    mission = load_mission(ROOT / "missions" / f"{name}.yaml")
    chain = prepare_chain(mission, checkpoints=checkpoints, policy=policy)
    return chain, fly_batches(flights, None, chain.fly)


def store(job: str, flights: int, folder: Path) -> None:
    """Fly one mission and store success, cause and steps of each flight."""
    chain, flown = fly(job, flights)
    rows = {}
    for phase, result in zip(chain.phases, flown, strict=True):
        rows[f"{phase.name}.success"] = np.packbits(result.success)
        rows[f"{phase.name}.cause"] = result.cause.astype(np.uint8)
        rows[f"{phase.name}.steps"] = result.steps.astype(np.uint16)
        rows[f"{phase.name}.causes"] = np.array(phase.causes)
    folder.mkdir(exist_ok=True)
    np.savez_compressed(folder / f"{job.replace(':', '.')}.npz", **rows)


def compare(job: str, flights: int, folder: Path) -> tuple[int, int]:
    """Fly one mission again; return (flights with another success or cause, flights with other steps)."""
    chain, flown = fly(job, flights)
    stored = np.load(folder / f"{job.replace(':', '.')}.npz")
    other, steps = np.zeros(flights, bool), np.zeros(flights, bool)
    alive = np.ones(flights, bool)
    for phase, result in zip(chain.phases, flown, strict=True):
        before = np.unpackbits(stored[f"{phase.name}.success"])[:flights].astype(bool)
        causes = stored[f"{phase.name}.causes"][stored[f"{phase.name}.cause"][:flights]]
        now = np.array(phase.causes)[result.cause]
        differs = alive & ((before != result.success) | (causes != now))
        longer = alive & (stored[f"{phase.name}.steps"][:flights] != result.steps)
        for n in np.flatnonzero(differs | longer)[:LISTED]:
            was, is_now = (causes[n], int(stored[f"{phase.name}.steps"][n])), (now[n], int(result.steps[n]))
            print(f"  {phase.name}, flight {n}: was {was[0]} after {was[1]} steps, is {is_now[0]} after {is_now[1]}")
        other, steps = other | differs, steps | longer
        alive = alive & before & result.success
    return int(other.sum()), int(steps.sum())


def main() -> None:
    """Compare the missions that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", nargs="*", metavar="MISSION:agent|guide", help="default: all that the folder holds")
    parser.add_argument("--flights", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, default=STORED, help="of the stored flights")
    parser.add_argument("--store", action="store_true", help="store the flights of the missions that are named instead")
    options = parser.parse_args()
    jobs = options.jobs or sorted(path.stem.replace(".", ":") for path in options.folder.glob("*.npz"))
    worst = 0
    for job in jobs:
        if options.store:
            store(job, options.flights, options.folder)
            continue
        began = time.perf_counter()
        other, steps = compare(job, options.flights, options.folder)
        seconds = time.perf_counter() - began
        print(
            f"{job}: {options.flights:,} flights, {other} differ in success or cause, {steps} in steps; {seconds:.0f} s"
        )
        sys.stdout.flush()
        worst = max(worst, other, steps)
    sys.exit(worst * 10_000 > 5 * options.flights)


if __name__ == "__main__":
    main()
