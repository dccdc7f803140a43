"""How fast the command line answers.

Claim: `mission --help` and `mission plugins` answer at once, because they import neither JAX nor any
plugin.

Command: python benchmarks/startup.py [--json FILE]

Reading it: wall time of the whole process, median of the runs, which take turns; and whether jax,
flax, optax or orbax appear in `python -X importtime`. The script fails when one of them does.
"""

from __future__ import annotations

import subprocess
import sys
import time

import common

COMMANDS = (("--help",), ("plugins",))
HEAVY = ("jax", "jaxlib", "flax", "optax", "orbax")


def wall_seconds(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def heavy_imports(arguments: list[str]) -> list[str]:
    """Heavy packages that a command imports."""
    command = [sys.executable, "-X", "importtime", "-m", "mission", *arguments]
    log = subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True).stderr
    modules = {
        line.rsplit("|", 1)[-1].strip().split(".")[0] for line in log.splitlines() if line.startswith("import time:")
    }
    return sorted(modules.intersection(HEAVY))


def main() -> None:
    options = common.parser(__doc__, peer=False, rounds=10)
    arguments = options.parse_args()
    seen: common.Rounds = {"python -c pass": []}
    for number in range(arguments.rounds + 1):
        for name, command in (
            ("python -c pass", [sys.executable, "-c", "pass"]),
            *(("mission " + " ".join(words), [sys.executable, "-m", "mission", *words]) for words in COMMANDS),
        ):
            seconds = wall_seconds(command)
            if number:
                seen.setdefault(name, []).append(seconds)
    heavy = {"mission " + " ".join(words): heavy_imports(list(words)) for words in COMMANDS}
    table = [("command", "seconds, median (least to most)", "heavy imports")]
    table += [
        (name, common.spread(values, 3), ", ".join(heavy.get(name, [])) or "none") for name, values in seen.items()
    ]
    common.print_table(table)
    common.write_json(arguments.json, {"seconds": seen, "heavy_imports": heavy})
    if any(heavy.values()):
        raise SystemExit("a heavy package is imported")


if __name__ == "__main__":
    main()
