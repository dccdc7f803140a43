"""Exported policies: each format is within 1e-6 of its policy on 10,000 observations from flights, C takes at most 50 us per
control step with -O2 and 20 us with -O3 (2 x 256), and the exported library lands the same flights as the network.

`python benchmarks/export.py` exports the landing of return_to_launch_site in all four formats and flies 1,000 flights of each
mission with the library and with the network; exit code 1 if a figure is missed. Needs gcc and the extras c, onnx, stablehlo.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mission import load_mission
from mission.flight.chain import prepare_chain
from mission.flight.onboard.exporting import BOUND, check_target, compare, export_flown
from mission.flight.onboard.formats import TARGETS
from mission.flight.onboard.observations import flown_observations
from mission.flight.onboard.subject import Subject

ROOT = Path(__file__).resolve().parents[1]
MISSIONS = {"vertical": "burn", "landing_only": "landing", "return_to_launch_site": "landing"}
MOST_US = {"gcc -O2": 50.0, "gcc -O3": 20.0}


def path_of(name: str) -> Path:
    return ROOT / "missions" / f"{name}.yaml"


def formats(name: str, phase: str, observations: int) -> bool:
    """Print parity and latency of all formats; return whether they meet their bounds."""
    chain = prepare_chain(load_mission(path_of(name)))
    index = [one.name for one in chain.phases].index(phase)
    flown, actor = chain.phases[index], chain.actors[index]
    seen = flown_observations(chain, index, observations)
    subject = Subject(name, flown, actor, flown.build_learner().policy_layers(actor), *seen)
    kept = True
    print(f"{name}, {phase}: {len(subject.observations):,} observations from flights")
    for target in TARGETS.values():
        with tempfile.TemporaryDirectory() as folder:
            target.check()
            target.write(subject, Path(folder), range(64), "")
            parity = compare(subject, target, Path(folder))
        print(
            f"  {target.name}: {parity.largest_difference:.2g} from {parity.compared_with}; {parity.from_flown:.2g} from the "
            f"policy as it flies, which rounds by {parity.rounding_of_flown:.2g}"
        )
        for one in parity.latency:
            most = MOST_US.get(one.build, np.inf)
            print(
                f"    {one.build}: median {one.median_us:.1f} us, worst input {one.undisturbed_us:.1f} us, worst call "
                f"{one.worst_us:.0f} us" + (f" (at most {most:g} us)" if most < np.inf else "")
            )
            kept &= one.undisturbed_us <= most
        if parity.stack_bytes is not None:
            print(f"    stack {parity.stack_bytes:,} bytes; calls {', '.join(parity.undefined_symbols or ())}")
        kept &= parity.largest_difference <= BOUND
    return kept


def flights(name: str, phase: str, count: int, policies: Mapping[str, Path]) -> bool:
    """Fly a mission with the network and with its exported library; return whether every flight ends alike."""
    mission = load_mission(path_of(name))
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "export"
        network_chain = prepare_chain(mission, policies=policies)
        export_flown(network_chain, phase, check_target("c99", folder), folder, observations=1000)
        chains = [network_chain, prepare_chain(mission, policies={**policies, phase: folder})]
        index = [one.name for one in chains[0].phases].index(phase)
        network, library = (
            [np.concatenate([getattr(part[index], field) for part in parts]) for field in ("success", "cause", "steps")]
            for parts in (
                [chain.fly(np.arange(at, min(at + 1000, count))) for at in range(0, count, 1000)] for chain in chains
            )
        )
    outcome = int((network[0] != library[0]).sum() + (network[1] != library[1])[network[0] == library[0]].sum())
    steps = int((network[2] != library[2]).sum())
    print(
        f"{name}, {phase}: {network[0].sum():,} of {count:,} succeed by the network, {library[0].sum():,} by the library; "
        f"{outcome} end otherwise, {steps} after another number of control steps"
    )
    return outcome == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--observations", type=int, default=10_000)
    parser.add_argument("--flights", type=int, default=1000, help="0: none")
    parser.add_argument(
        "--hard-day", action="store_true", help="fly the landing of hard_day instead, which loses flights"
    )
    options = parser.parse_args()
    if options.hard_day:
        shipped = ROOT / "checkpoints" / "shipped" / "return_to_launch_site"
        folders = {entry.name: shipped / entry.name for entry in load_mission(path_of("hard_day")).phases}
        sys.exit(not flights("hard_day", "landing", options.flights, folders))
    kept = formats("return_to_launch_site", "landing", options.observations)
    for name, phase in MISSIONS.items() if options.flights else ():
        kept &= flights(name, phase, options.flights, {})
    sys.exit(not kept)


if __name__ == "__main__":
    main()
