"""Tables on the terminal: the summary of a flown mission, and the comparison of two sides."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from mission.report.compare import Comparison
from mission.report.summary import MissionSummary


def print_summary(report: MissionSummary) -> None:
    """Print success by phase with intervals, failures by cause, and the worst value of each limit."""
    console = Console(width=None if Console().is_terminal else 120)
    table = Table(
        box=SIMPLE_HEAD, title=f"{report.mission}: {report.flights:,} flights by {report.policy}, seed {report.seed}"
    )
    for column in ("phase", "entered", "succeeded", "rate given alive", "95 % interval", "failed by", "duration p50"):
        table.add_column(column, justify="left" if column in ("phase", "failed by") else "right")
    for phase in report.phases:
        failures = ", ".join(f"{cause} {n}" for cause, n in phase.causes.items() if n) or "-"
        rate = "-" if phase.rate is None else f"{100 * phase.rate:.2f} %"
        seconds = phase.duration_s.p50
        table.add_row(
            phase.name,
            str(phase.entered),
            str(phase.succeeded),
            rate,
            f"{100 * phase.low:.2f} to {100 * phase.high:.2f} %",
            failures,
            "-" if seconds is None else f"{seconds:.2f} s",
        )
    console.print(table)
    for phase in report.phases:
        for name, limit in phase.limits.items():
            bounds = " and ".join(
                f"{side} {bound:g}"
                for side, bound in (("at least", limit.minimum), ("at most", limit.maximum))
                if bound is not None
            )
            worst = "-" if limit.worst is None else f"{limit.worst:.4g}"
            console.print(
                f"{phase.name}: {name} {bounds}; worst {worst}; {limit.violated} flights beyond", highlight=False
            )
    success = report.success
    rates = tuple(100 * (value or 0.0) for value in (success.rate, success.low, success.high))
    console.print(
        "success {} of {}: {:.2f} % ({:.2f} to {:.2f} %)".format(success.count, report.flights, *rates),
        style="bold",
        highlight=False,
    )


def print_comparison(result: Comparison) -> None:
    """Print the paired success of the mission and of each phase, failures by cause, and the end of the last phase."""
    console = Console(width=None if Console().is_terminal else 120)
    title = (
        f"{result.second.name} compared with {result.first.name}: {result.flights:,} flights each, seed {result.seed}"
    )
    table = Table(box=SIMPLE_HEAD, title=title)
    for column in ("", "flights", "both", "only first", "only second", "second - first", "95 % interval", "p"):
        table.add_column(column, justify="right" if column else "left")
    for name, pair in [("mission", result.success), *((phase.name, phase.success) for phase in result.phases)]:
        counts = [str(count) for count in (pair.flights, pair.both, pair.only_first, pair.only_second)]
        change = "-" if pair.difference is None else f"{100 * pair.difference:+.2f} %"
        interval = f"{100 * pair.low:+.2f} to {100 * pair.high:+.2f} %"
        table.add_row(name, *counts, change, interval, f"{pair.p_value:.2g}")
    console.print(table)
    for phase in result.phases:
        for cause, n in phase.causes.items():
            if n.first or n.second:
                console.print(f"{phase.name}: {cause}: first {n.first}, second {n.second}", highlight=False)
    for phase in result.phases[-1:]:
        for channel, mean in phase.end.items():
            if mean.low is not None and mean.high is not None and not mean.low <= 0.0 <= mean.high:
                console.print(
                    f"{phase.name}: {channel} at the end {mean.mean:+.4g} ({mean.low:+.4g} to {mean.high:+.4g})",
                    highlight=False,
                )
