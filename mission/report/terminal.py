"""A mission report as tables on a terminal."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from mission.report.summary import MissionReport


def print_report(report: MissionReport) -> None:
    """Success by phase with intervals, losses by cause, worst values of limits."""
    console = Console(width=None if Console().is_terminal else 120)
    table = Table(
        box=SIMPLE_HEAD, title=f"{report.mission}: {report.flights:,} flights by {report.policy}, seed {report.seed}"
    )
    for column in ("phase", "entered", "succeeded", "rate given alive", "95 % interval", "lost to", "duration p50"):
        table.add_column(column, justify="left" if column in ("phase", "lost to") else "right")
    for phase in report.phases:
        lost = ", ".join(f"{cause} {n}" for cause, n in phase.causes.items() if n) or "-"
        rate = "-" if phase.rate is None else f"{100 * phase.rate:.2f} %"
        seconds = phase.duration_s["p50"]
        table.add_row(
            phase.name, str(phase.entered), str(phase.succeeded), rate, f"{100 * phase.low:.2f} to {100 * phase.high:.2f} %", lost,
            "-" if seconds is None else f"{seconds:.2f} s",
        )  # fmt: skip
    console.print(table)
    for phase in report.phases:
        for name, limit in phase.limits.items():
            bounds = " and ".join(
                f"{side} {limit[key]:g}"
                for side, key in (("at least", "minimum"), ("at most", "maximum"))
                if limit[key] is not None
            )
            worst = "-" if limit["worst"] is None else f"{limit['worst']:.4g}"
            console.print(
                f"{phase.name}: {name} {bounds}; worst {worst}; {limit['violated']} flights beyond", highlight=False
            )
    success = report.success
    rates = tuple(100 * (success[key] or 0.0) for key in ("rate", "low", "high"))
    console.print(
        "success {} of {}: {:.2f} % ({:.2f} to {:.2f} %)".format(success["count"], report.flights, *rates),
        style="bold",
        highlight=False,
    )


def print_comparison(result: dict[str, Any]) -> None:
    """Two sets of flights, paired: by mission and phase, then causes that differ."""
    console = Console(width=None if Console().is_terminal else 120)
    names = [f"{result[side]['name']}" for side in ("first", "second")]
    title = f"{names[1]} against {names[0]}: {result['flights']:,} flights each, seed {result['seed']}"
    table = Table(box=SIMPLE_HEAD, title=title)
    for column in ("", "flights", "both", "only first", "only second", "second - first", "95 % interval", "p"):
        table.add_column(column, justify="right" if column else "left")
    for name, pair in [("mission", result["success"]), *((p["name"], p["success"]) for p in result["phases"])]:
        counts = [str(pair[key]) for key in ("flights", "both", "only_first", "only_second")]
        change = "-" if pair["difference"] is None else f"{100 * pair['difference']:+.2f} %"
        interval = f"{100 * pair['low']:+.2f} to {100 * pair['high']:+.2f} %"
        table.add_row(name, *counts, change, interval, f"{pair['p_value']:.2g}")
    console.print(table)
    for phase in result["phases"]:
        for cause, n in phase["causes"].items():
            if n["first"] or n["second"]:
                console.print(
                    f"{phase['name']}: lost to {cause}: first {n['first']}, second {n['second']}", highlight=False
                )
    phases: list[dict[str, Any]] = result["phases"]
    for name, channel, seen in [(p["name"], *pair) for p in phases[-1:] for pair in p["end"].items()]:
        if seen["low"] is not None and not seen["low"] <= 0.0 <= seen["high"]:
            console.print(
                f"{name}: {channel} at the end {seen['mean']:+.4g} ({seen['low']:+.4g} to {seen['high']:+.4g})",
                highlight=False,
            )
