"""Whether a run that is killed at random moments ends as an uninterrupted one does.

Claim: after any number of kill -9, a training run of the five-phase mission ends with the same policies, banks and
metrics, bit for bit.

Command: python benchmarks/kills.py [--kills N] [--seed N] [--json FILE]

Reading it: every second kill strikes after a chunk that the process has finished, the others at any moment from its start
on, so that reading, compiling, training, saving and the flights of banks are all hit. A run that reaches its end is
compared with the uninterrupted one, and the next kills strike a new run. Budgets are small (4,096 vehicle steps for each
phase). 200 kills take two to three hours on two cores. In the first phase a kill after a chunk costs 13 to 20 s of processor time,
most of it for tracing, because compiled programs are kept; the whole phase costs 75 s. `--phases 2` shortens runs, not kills.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import common

ROOT = Path(__file__).resolve().parents[1]
MISSION = ROOT / "missions" / "return_to_launch_site.yaml"
PHASES = ("ascent", "boostback", "arc", "entry", "landing")
SMALL = (
    "budget={env_steps: 4096}",
    "evaluation={every_env_steps: 4096, flights: 50}",
    "bank={flights: 100, minimum: 2}",
    "gate=null",
    "sac.buffer_size=20000",
    "sac.batch_size=64",
    "sac.chunk_env_steps=1024",
    "sac.fill.env_steps=1024",
    "sac.warm_up={steps: 20}",
)


def small_budgets(phases: tuple[str, ...]) -> list[str]:
    options = ["--baseline", "0", "--set", "observers=[]"]
    return options + [part for name in phases for text in SMALL for part in ("--set", f"phases.{name}.{text}")]


def differences(reference: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Phases whose policy, bank or metrics differ."""
    return [name for name in reference if found.get(name) != reference[name]]


def main() -> None:
    options = common.parser(__doc__, peer=False)
    options.add_argument("--kills", type=int, default=200, help="kills in all (default: %(default)s)")
    options.add_argument("--seed", type=int, default=0, help="seed of the moments (default: %(default)s)")
    options.add_argument("--phases", type=int, default=len(PHASES), help="only the first N phases")
    arguments = options.parse_args()
    sys.path.insert(0, str(ROOT / "tests" / "engine"))
    import killing

    draw, hits, runs, different = random.Random(arguments.seed), 0, 0, []
    chosen = PHASES[: arguments.phases]
    more = small_budgets(chosen) + [part for name in chosen for part in ("--phase", name)]
    with tempfile.TemporaryDirectory() as folder:
        command = killing.train_command(MISSION, Path(folder) / "whole", *more)
        began = time.monotonic()
        killing.finish(command, timeout_s=7200.0)
        whole_s = time.monotonic() - began
        reference = killing.results(Path(folder) / "whole" / "return_to_launch_site")
        print(f"uninterrupted: {whole_s:.0f} s, phases {', '.join(reference)}", flush=True)
        while hits < arguments.kills:
            runs += 1
            checkpoints, of_run, ended = Path(folder) / f"run{runs}", hits, False
            command = killing.train_command(MISSION, checkpoints, *more)
            while hits < arguments.kills and not ended:
                after_chunk = hits % 2 == 0
                moment = draw.uniform(0.0, 3.0 if after_chunk else 1.5 * whole_s / len(chosen))
                hit = killing.kill_once(command, checkpoints, moment, after_chunk)
                hits, ended = hits + hit, not hit
            if not ended:
                killing.finish(command, timeout_s=7200.0)
            wrong = differences(reference, killing.results(checkpoints / "return_to_launch_site"))
            different += [f"run {runs}: {name}" for name in wrong]
            print(f"run {runs}: {hits - of_run} kills, {len(wrong)} phases differ", flush=True)
    common.print_table([("kills", "runs", "differences"), (str(hits), str(runs), ", ".join(different) or "0")])
    common.write_json(arguments.json, {"kills": hits, "runs": runs, "differences": different})
    if different:
        raise SystemExit("a killed run ended differently")


if __name__ == "__main__":
    main()
