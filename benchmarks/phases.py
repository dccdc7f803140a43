"""Each phase's agent beside its guide, on the same flights from the same states.

Claim: where an agent differs from its guide, it is in propellant or miss, not in luck with the phases before.

Command: python benchmarks/phases.py [FILE] [--checkpoints DIR] [--flights N] [--seed N] [--json FILE]

The agents fly the mission; wherever a flight enters a phase, the guide flies that phase too, from the same state, with
the same key. Read the paired difference in success, and in each channel over the flights that succeeded with both
(agent less guide, 95 % interval of the mean).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from mission.flight.batches import fly_batch, fly_batches
from mission.flight.chain import Chain, prepare_chain
from mission.flight.fly import PhaseFlight
from mission.missionfile.reading import load_mission
from mission.missionfile.statistics import paired_difference

MISSION = Path(__file__).resolve().parent.parent / "missions" / "return_to_launch_site.yaml"
SHOWN = ("propellant_kg", "gas_used_kg", "impact_miss_m", "miss_m", "predicted_miss_x_m", "predicted_miss_y_m")


def compare(agent: PhaseFlight, guide: PhaseFlight, entered: np.ndarray) -> dict[str, Any]:
    """One phase over the flights [N] that entered it."""
    both = entered & agent.success & guide.success
    channels = {}
    for name in SHOWN:
        if name in agent.telemetry:
            ours, theirs = (np.abs(side.telemetry[name][both].astype(float)) for side in (agent, guide))
            difference = ours - theirs
            half = 1.96 * difference.std(ddof=1) / np.sqrt(len(difference))
            channels[name] = {
                "agent": float(ours.mean()),
                "guide": float(theirs.mean()),
                "difference": float(difference.mean()),
                "half_width": float(half),
            }
    return {
        "entered": int(entered.sum()),
        "agent": int(agent.success[entered].sum()),
        "guide": int(guide.success[entered].sum()),
        "difference": paired_difference(guide.success[entered], agent.success[entered]).model_dump(),
        "channels": channels,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("file", nargs="?", type=Path, default=MISSION)
    parser.add_argument("--checkpoints", type=Path)
    parser.add_argument("--flights", type=int, default=10_000)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    mission = load_mission(options.file)
    agents = prepare_chain(mission, checkpoints=options.checkpoints, seed=options.seed)
    guides = prepare_chain(mission, policy="guide", seed=options.seed)

    def fly(numbers: np.ndarray) -> list[PhaseFlight]:
        beside: list[PhaseFlight] = []

        def both(index: int, handoff: Any, keys: Any, alive: np.ndarray) -> PhaseFlight:
            def one(chain: Chain, at: int) -> PhaseFlight:
                return fly_batch(chain.flights[at], chain.actors[at], handoff, keys, alive)

            beside.append(one(guides, index)._replace(handoff=()))
            return one(agents, index)

        return agents.fly(numbers, both) + beside

    def progress(done: int, total: int) -> None:
        print(f"\r{done} of {total} flights", end="", file=sys.stderr, flush=True)

    flown = fly_batches(options.flights, None, fly, progress)
    print(file=sys.stderr)
    count, alive, report = len(agents.phases), np.ones(options.flights, bool), {}
    for phase, agent, guide in zip(agents.phases, flown[:count], flown[count:], strict=True):
        found = report[phase.name] = compare(agent, guide, alive)
        alive = alive & agent.success
        gap = found["difference"]
        print(
            f"{phase.name}: agent {found['agent']}, guide {found['guide']} of {found['entered']}; "
            f"difference {100 * gap['difference']:+.2f} % ({100 * gap['low']:+.2f} to {100 * gap['high']:+.2f})"
        )
        for name, value in found["channels"].items():
            print(
                f"    {name:20} agent {value['agent']:10.1f}  guide {value['guide']:10.1f}  "
                f"difference {value['difference']:+.2f} +- {value['half_width']:.2f}"
            )
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
