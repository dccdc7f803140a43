"""Time that a report takes beyond flying, and the size of its page.

Claim: a report of 10,000 flights takes at most 20 s beyond flying; its page has at most 8 MB, and its replay is drawn
within 2 s in a headless Chromium, if one is installed.

Command: python benchmarks/report.py [MISSION] [--policy agent|guide] [--flights N] [--json FILE]

Reading it: flying without and with `--report` take turns, each after a first run that compiles. If an agent flies, the
time of the guide's flights on the same seeds is subtracted too. The rest is the cost of recording telemetry, and of
bands, hand-overs, arrays and page.
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
    """Return the seconds until the replay is drawn, three times; an empty list without a Chromium."""
    from browser import CHROMIUM, READY, chromium

    if CHROMIUM is None:
        return []
    with chromium() as tab:
        tab.look(1280)
        times = []
        for _ in range(3):
            tab.open(page)
            times.append(tab.run(READY) / 1000.0)
    return times


def main() -> None:
    options = common.parser(__doc__, peer=False, rounds=3)
    options.add_argument("mission", nargs="?", default="missions/vertical.yaml")
    options.add_argument("--policy", default="guide")
    options.add_argument("--flights", type=int, default=10_000)
    arguments = options.parse_args()
    from mission import fly_mission, load_mission

    mission = load_mission(arguments.mission)
    policies = ["agent", "guide"] if arguments.policy == "agent" else ["guide"]
    timings: common.Rounds = {"flying": [], "with report": [], "beyond flying": []}
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
            with_report = seconds(
                lambda out=out: fly_mission(mission, flights=arguments.flights, policy=arguments.policy, report=out)
            )
            for name, value in (
                ("flying", flying),
                ("with report", with_report),
                ("beyond flying", with_report - flying),
            ):
                timings[name].append(value)
        timings["page ready"] = ready_s(out / "index.html")
        megabytes = {path.name: path.stat().st_size / 1e6 for path in sorted(out.iterdir())}
    table = [("part", "seconds, median (least to most)")]
    table += [(name, common.spread(values, 1)) for name, values in timings.items() if values]
    common.print_table(table)
    common.print_table([("file", "MB"), *((name, f"{size:.2f}") for name, size in megabytes.items())])
    common.write_json(arguments.json, {"seconds": timings, "megabytes": megabytes})
    late = timings["page ready"] and min(timings["page ready"]) > MOST_READY_S
    if late or min(timings["beyond flying"]) > MOST_S or megabytes["index.html"] > MOST_MB:
        raise SystemExit("the report exceeds its limits")


if __name__ == "__main__":
    main()
