"""The landing from its own starts: own box, strict box and wide days, by the network and by the guide on the same flights.

Claim: the table "The landing from its own start" in docs/results.md.

Command: python benchmarks/landing_days.py [--checkpoints DIR] [--flights N] [--seed N] [--json FILE]

Rows: the box of the phase; the strict box (5 m, 1 m/s lateral, -1 to 0 m/s vertical); wide days, which are the
`training_params` of the mission. Difference: network less guide in points, paired, 95 % interval; propellant: mean of what
is left where both landed.
"""

from __future__ import annotations

import json
from pathlib import Path

import common
import numpy as np

from mission import load_mission
from mission.flight.batches import fly_batches
from mission.flight.chain import prepare_chain
from mission.missionfile.statistics import paired_difference, wilson

MISSION = Path(__file__).resolve().parents[1] / "missions" / "landing_only.yaml"
STRICT = ["params.miss_m=5", "params.vertical_speed_m_s=1", "params.lateral_speed_m_s=1"]


def main() -> None:
    parser = common.parser(__doc__, peer=False)
    parser.add_argument("--checkpoints", type=Path)
    parser.add_argument("--flights", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=777_000)
    options = parser.parse_args()
    wide = load_mission(MISSION).phases[0].training_params["dispersions"]
    days = {"own box": [], "strict box": STRICT, "wide days": [f"params.dispersions={json.dumps(wide)}"]}
    table, numbers = [["", "network", "guide", "difference, points", "propellant, kg"]], {}
    for name, settings in days.items():
        mission = load_mission(MISSION, [f"phases.landing.{setting}" for setting in settings])
        flown = {}
        for pilot in ("agent", "guide"):
            chain = prepare_chain(
                mission, checkpoints=options.checkpoints, seed=options.seed, policy=pilot, allow_stale=True
            )
            (flown[pilot],) = fly_batches(options.flights, None, chain.fly)
        agent, guide = flown["agent"], flown["guide"]
        paired = paired_difference(guide.success, agent.success)
        both = agent.success & guide.success
        left = [float(one.telemetry["propellant_kg"][both].astype(np.float64).mean()) for one in (agent, guide)]
        numbers[name] = {"landed": [int(one.success.sum()) for one in (agent, guide)], "propellant_kg": left}
        numbers[name]["difference"] = paired.model_dump()
        cells = [
            f"{100 * one.success.mean():.2f} % ({100 * low:.2f} to {100 * high:.2f})"
            for one in (agent, guide)
            for low, high in [wilson(int(one.success.sum()), options.flights)]
        ]
        difference = f"{100 * (paired.difference or 0.0):+.2f} ({100 * paired.low:.2f} to {100 * paired.high:.2f})"
        table.append([name, *cells, difference, f"{left[0]:.0f}, {left[1]:.0f}"])
    common.print_table(table)
    common.write_json(options.json, numbers)


if __name__ == "__main__":
    main()
