"""Tables on the terminal: a sweep, and a search."""

from __future__ import annotations

from typing import TextIO

from mission.report.terminal import Printer
from mission.scale.summary import CombinationSummary, SweepSummary


def print_sweep(summary: SweepSummary, stream: TextIO) -> None:
    """Print a row for each combination, then the reason of each training that did not pass."""
    printer = Printer(stream)
    columns = (
        "combination", "passed", "95 %", "success %", "95 % of median", "range", "return", "time", "failures", "best",
    )  # fmt: skip
    title = f"{summary.mission}: {len(summary.trainings)} trainings, {len(summary.seeds)} seeds"
    printer.table(title, columns, ("combination",), [_cells(one) for one in summary.combinations])
    for row in summary.trainings:
        if row.status != "passed":
            printer.line(f"{row.folder}: {row.status}: {row.reason}")
    printer.line(
        "success, return and time: medians over trainings; success and return are the last phase's bank flights"
    )


def _cells(one: CombinationSummary) -> list[str]:
    return [
        one.label,
        f"{one.passed.count} of {one.trainings}",
        _range(one.passed.low, one.passed.high),
        "-" if one.success.median is None else f"{100 * one.success.median:.1f}",
        _range(one.success.low, one.success.high),
        _range(one.success.min, one.success.max),
        "-" if one.returns.median is None else f"{one.returns.median:.4g}",
        "-" if one.seconds.median is None else f"{one.seconds.median:.0f} s",
        str(one.failures),
        "-" if one.best is None else f"seed {one.best}",
    ]


def _range(low: float | None, high: float | None) -> str:
    """Return two proportions in percent."""
    return "-" if low is None or high is None else f"{100 * low:.1f} to {100 * high:.1f}"
