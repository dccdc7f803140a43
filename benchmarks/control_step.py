"""Cost of a flown control step: by the stored network, and by the guide of the same phase.

Claim: a network flies a control step at least twice as fast as the guide that it has learned from.

Command: python benchmarks/control_step.py [--mission NAME] [--checkpoints DIR] [--flights N] [--rounds N] [--json FILE]

Reading it: processor microseconds per vehicle and control step, median and range over the rounds, from each phase's
own start; both programs are compiled before, and take turns. The ratio is that of the same round. A step holds the
physics, which is the same for both.
"""

from __future__ import annotations

import time
from typing import Any

import common

from mission.machine.devices import configure

configure()

import jax  # noqa: E402
import numpy as np  # noqa: E402

from mission.flight.batches import compile_flight, fly_rows  # noqa: E402
from mission.flight.chain import prepare_chain  # noqa: E402
from mission.missionfile.named import mission_path  # noqa: E402
from mission.missionfile.reading import load_mission  # noqa: E402


def main() -> None:
    options = common.parser(__doc__, peer=False, rounds=5)
    options.add_argument("--mission", default="return_to_launch_site")
    options.add_argument("--checkpoints")
    options.add_argument("--flights", type=int, default=2000)
    given = options.parse_args()
    chain = prepare_chain(load_mission(mission_path(given.mission)), checkpoints=given.checkpoints)
    table: list[list[str]] = [["phase", "network, us", "guide, us", "guide over network"]]
    numbers: dict[str, Any] = {}
    index, key = np.arange(given.flights), jax.random.key(0)
    for phase, policy in zip(chain.phases, chain.actors, strict=True):
        pilots = {"network": (phase, policy), "guide": (phase.guided(), None)}
        programs = {name: compile_flight(flown) for name, (flown, _) in pilots.items()}
        seen: dict[str, list[float]] = {name: [] for name in pilots}
        for number in range(given.rounds + 1):
            for name, (flown, params) in pilots.items():
                began = time.process_time()
                result = fly_rows(flown, programs[name], params, None, index, key)
                seconds = time.process_time() - began
                if number:
                    seen[name].append(1e6 * seconds / float(result.steps.sum()))
        over = common.ratios(seen["guide"], seen["network"])
        table.append([phase.name, *(common.spread(seen[name]) for name in pilots), common.spread(over)])
        numbers[phase.name] = seen | {"ratio": over}
    common.print_table(table)
    common.write_json(given.json, numbers)


if __name__ == "__main__":
    main()
