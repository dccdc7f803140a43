"""From command to landing: wall time with empty caches, and again.

Claim: a second run neither traces nor compiles, so that it takes a fraction of the first.

Command: python benchmarks/first_landing.py [MISSION] [--flights N] [--again N] [--json FILE]

`mission check` and `mission fly` run in processes of their own with an empty cache folder (kept programs and JAX's cache); then
they run again with other seeds, since only programs are kept, never results. Reading it: seconds of wall and of processor time.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import common

MISSION = Path(__file__).resolve().parent.parent / "missions" / "return_to_launch_site.yaml"


def timed(words: list[str], cache: str) -> tuple[float, float]:
    """Return the seconds of wall and of processor time of a command of `mission`."""
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    environment["XDG_CACHE_HOME"] = cache
    before, began = os.times(), time.perf_counter()
    command = [sys.executable, "-m", "mission", *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    after = os.times()
    return time.perf_counter() - began, sum(after[2:4]) - sum(before[2:4])


def main() -> None:
    parser = common.parser(__doc__, peer=False)
    parser.add_argument("mission", nargs="?", default=str(MISSION))
    parser.add_argument("--flights", type=int, default=1000)
    parser.add_argument("--again", type=int, default=2)
    options = parser.parse_args()
    rows, numbers = [("command", "run", "wall s", "processor s")], {}
    with tempfile.TemporaryDirectory() as cache:
        for name, words in (("check", ["check"]), ("fly", ["fly", "--flights", str(options.flights)])):
            runs = []
            for run in range(1 + options.again):
                seed = ["--seed", str(100 + run)] if name == "fly" else []
                runs.append(timed([*words, options.mission, *seed], cache))
                rows.append((name, "again" if run else "first", *(f"{seconds:.1f}" for seconds in runs[-1])))
                print(*rows[-1], flush=True)
            numbers[name] = runs
    common.print_table(rows)
    common.write_json(options.json, numbers)


if __name__ == "__main__":
    main()
