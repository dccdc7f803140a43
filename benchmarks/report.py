"""What a report costs beyond flying, and how large its page is.

Claim: a report of 10,000 flights is made in at most 20 s beyond flying; its page has at most 8 MB, and its replay is drawn
within 2 s in a headless Chromium (where there is one).

Command: python benchmarks/report.py [MISSION] [--policy agent|guide] [--flights N] [--json FILE]

Reading it: flying alone and flying with `--report` take turns, each after a first time that compiles;
where an agent flies, the guide's flights beside it are flying too and are taken off as well. What is
left is keeping telemetry while the agents fly, bands, hand-overs, arrays and page.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common

MOST_S, MOST_MB, MOST_READY_S = 20.0, 8.0, 2.0
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "engine"))


def seconds(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def ready_s(page: Path) -> list[float]:
    """Seconds until the replay is drawn, three times; none without a Chromium."""
    from browser import CHROMIUM, READY, chromium

    if CHROMIUM is None:
        return []
    with chromium() as tab:
        tab.look(1280)
        found = []
        for _ in range(3):
            tab.open(page)
            found.append(tab.run(READY) / 1000.0)
    return found


def main() -> None:
    options = common.parser(__doc__, peer=False, rounds=3)
    options.add_argument("mission", nargs="?", default="missions/vertical.yaml")
    options.add_argument("--policy", default="guide")
    options.add_argument("--flights", type=int, default=10_000)
    arguments = options.parse_args()
    from mission import fly_mission, load_mission

    mission = load_mission(arguments.mission)
    policies = ["agent", "guide"] if arguments.policy == "agent" else ["guide"]
    seen: common.Rounds = {"flying": [], "with report": [], "beyond flying": []}
    with tempfile.TemporaryDirectory() as folder:
        for policy in policies:
            fly_mission(mission, flights=1000, policy=policy)
        fly_mission(mission, flights=1000, policy=arguments.policy, report=Path(folder) / "first")
        for number in range(arguments.rounds):
            out = Path(folder) / str(number)
            flying = sum(
                seconds(lambda policy=policy: fly_mission(mission, flights=arguments.flights, policy=policy))
                for policy in policies
            )
            whole = seconds(
                lambda out=out: fly_mission(mission, flights=arguments.flights, policy=arguments.policy, report=out)
            )
            for name, value in (("flying", flying), ("with report", whole), ("beyond flying", whole - flying)):
                seen[name].append(value)
        seen["page ready"] = ready_s(out / "index.html")
        megabytes = {path.name: path.stat().st_size / 1e6 for path in sorted(out.iterdir())}
    table = [("part", "seconds, median (least to most)")]
    table += [(name, common.spread(values, 1)) for name, values in seen.items() if values]
    common.print_table(table)
    common.print_table([("file", "MB"), *((name, f"{size:.2f}") for name, size in megabytes.items())])
    common.write_json(arguments.json, {"seconds": seen, "megabytes": megabytes})
    late = seen["page ready"] and min(seen["page ready"]) > MOST_READY_S
    if late or min(seen["beyond flying"]) > MOST_S or megabytes["index.html"] > MOST_MB:
        raise SystemExit("the report costs more than it may")


if __name__ == "__main__":
    main()
