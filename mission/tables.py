"""A mission report as tables on a terminal."""

from __future__ import annotations

from mission.report import MissionReport


def print_report(report: MissionReport) -> None:
    """Success by phase with intervals, losses by cause, worst values of limits."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

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
