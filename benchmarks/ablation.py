"""What each option of the learner does: the landing trained with one change at a time, three seeds each.

Claim: the ablation table of docs/sac.md.

Command: python benchmarks/ablation.py [--only NAME ...] [--seeds N ...] [--flights N] [--folder DIR] [--json FILE]

Every training is `landing_only` with a short budget (8 rounds of imitation, 40 updates) on one core, two at a time; the
same command continues. Every result is flown on the same starts: the phase's own, and wide days (the mission's
`training_params`). Reading it: landed flights in percent, mean and range over the seeds; the difference to the first row is
that of the same seed and the same flights.
"""

from __future__ import annotations

import concurrent.futures
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import common

ROOT = Path(__file__).resolve().parents[1]
MISSION = ROOT / "missions" / "landing_only.yaml"
SHORT = {"sac.imitation.rounds": 8, "sac.actor_rate_updates": 40, "budget.env_steps": 229_376}
SAC = {"sac.actor_horizon": 0, "sac.updates_per_step": 0.0625, "sac.n_step": 5, "sac.warm_up.steps": 10_000}
# name -> settings of the phase that differ from the first row
VARIANTS: dict[str, dict[str, Any]] = {
    "as shipped": {},
    "value gradients over 60 steps": {"sac.actor_horizon": 60},
    "gain of one flight at most 3 per unit of action": {"sac.actor_flight_grad_max": 3.0},
    "gain of one flight at most 30 per unit of action": {"sac.actor_flight_grad_max": 30.0},
    "plain SAC from the imitator": SAC,
    "the same, privileged critics": SAC | {"sac.privileged_critic": True},
    "the same, target of the entropy, learned temperature": SAC
    | {"sac.temperature_learned": True, "sac.target_std_fraction": 0.5, "sac.max_std": 0.05},
    "privileged critics": {"sac.privileged_critic": True},
    "no distance from the imitator": {"sac.imitation.weight": 0.0},
    "event times weigh as other actions": {"sac.imitation.event_weight": 1.0},
    "no average of the actor": {"sac.actor_average": 0.0},
    "constant rate": {"sac.actor_rate_updates": 0},
    "observations not standardised": {"sac.standardise": False},
    "two observations at once": {"sac.history": 2},
    "own starts only": {"training_share": 0.0},
    "discount of 40 s": {"sac.discount_time_s": 40.0},
    "half of the starts near the end": {"restart.visited": 0.5},
    "noise of event times per episode": {"sac.episode_noise": True},
}


def train(name: str, seed: int, folder: Path) -> str:
    """Train one variant in a process of its own; return its last line."""
    settings = [f"phases.landing.{key}={json.dumps(value)}" for key, value in (SHORT | VARIANTS[name]).items()]
    command = [sys.executable, "-m", "mission", "train", str(MISSION), "--seed", str(seed), "--baseline", "0"]
    command += ["--checkpoints", str(place(name, seed, folder))]
    command += [word for setting in settings for word in ("--set", setting)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"MISSION_CORES": "1"})
    return (done.stdout or done.stderr).strip().splitlines()[-1]


def place(name: str, seed: int, folder: Path) -> Path:
    """Return the folder of the policies of one training."""
    return folder / name.replace(" ", "_").replace(",", "") / str(seed)


def fly(name: str, seed: int, folder: Path, flights: int) -> dict[str, list[bool]]:
    """Fly a trained variant: days -> success of each flight."""
    from mission import load_mission
    from mission.flight.batches import fly_batches
    from mission.flight.chain import prepare_chain

    settings = [f"phases.landing.{key}={json.dumps(value)}" for key, value in (SHORT | VARIANTS[name]).items()]
    wide = load_mission(MISSION).phases[0].training_params["dispersions"]
    found = {}
    for days, more in (("own", []), ("wide", [f"phases.landing.params.dispersions={json.dumps(wide)}"])):
        mission = load_mission(MISSION, [*settings, *more])
        chain = prepare_chain(mission, checkpoints=place(name, seed, folder), seed=4242, allow_stale=True)
        (result,) = fly_batches(flights, None, chain.fly)
        found[days] = result.success.tolist()
    return found


def main() -> None:
    parser = common.parser(__doc__, peer=False)
    parser.add_argument("--only", nargs="*", default=list(VARIANTS), choices=list(VARIANTS), metavar="NAME")
    parser.add_argument("--seeds", type=int, nargs="*", default=[11, 12, 13])
    parser.add_argument("--flights", type=int, default=4000)
    parser.add_argument("--folder", type=Path, default=ROOT / "ablation")
    options = parser.parse_args()
    names = [name for name in VARIANTS if name in options.only or name == "as shipped"]
    jobs = [(name, seed) for name in names for seed in options.seeds]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        waiting = {pool.submit(train, name, seed, options.folder): (name, seed) for name, seed in jobs}
        for number, one in enumerate(concurrent.futures.as_completed(waiting), 1):
            print(f"{number} of {len(jobs)}: {waiting[one]}: {one.result()}", file=sys.stderr, flush=True)
    flown = {job: fly(*job, options.folder, options.flights) for job in jobs}
    table, numbers = [["setting", "own starts, %", "wide days, %", "wide, to the first row"]], []
    for name in names:
        rates = {
            days: [100.0 * sum(flown[name, seed][days]) / options.flights for seed in options.seeds]
            for days in ("own", "wide")
        }
        first = [100.0 * sum(flown["as shipped", seed]["wide"]) / options.flights for seed in options.seeds]
        gained = [a - b for a, b in zip(rates["wide"], first, strict=True)]
        table.append([name, *(common.spread(rates[days]) for days in rates), common.spread(gained)])
        numbers.append({"name": name, **rates, "gained": gained})
    common.print_table(table)
    common.write_json(options.json, {"rows": numbers})


if __name__ == "__main__":
    main()
