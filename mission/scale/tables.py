"""Tables on the terminal: a sweep, and a search."""

from __future__ import annotations

from typing import TextIO

from mission.report.terminal import Printer
from mission.scale.summary import CombinationSummary, SweepSummary
from mission.scale.tune import TuneSummary


def print_sweep(summary: SweepSummary, stream: TextIO) -> None:
    """Print a row for each combination, then the reason of each training that did not pass."""
    printer = Printer(stream)
    columns = (
        "combination", "passed", "95 %", "success", "95 %", "range", "return", "time", "failures", "best",
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
        "-" if one.success.median is None else f"{100 * one.success.median:.1f} %",
        _range(one.success.low, one.success.high),
        _range(one.success.min, one.success.max),
        "-" if one.returns.median is None else f"{one.returns.median:.4g}",
        "-" if one.seconds.median is None else f"{one.seconds.median:.0f} s",
        str(one.failures),
        "-" if one.best is None else f"seed {one.best}",
    ]


def _range(low: float | None, high: float | None) -> str:
    """Return two proportions in percent."""
    return "-" if low is None or high is None else f"{100 * low:.1f}-{100 * high:.1f}"


def print_tuning(summary: TuneSummary, stream: TextIO) -> None:
    """Print a row for each trial, the best first, then why others failed, and the fresh flights of the best."""
    printer = Printer(stream)
    keys = list(dict.fromkeys(key for trial in summary.trials for key in trial.values))
    sign = -1.0 if summary.direction == "maximize" else 1.0
    rows = sorted(summary.trials, key=lambda row: (row.objective is None, sign * (row.objective or 0.0), row.number))
    title = f"{summary.mission}: {len(rows)} trials, {summary.objective} of {summary.phase}"
    columns = ["trial", "state", summary.objective, *(key.rpartition(".")[2] for key in keys), "time"]
    cells = [
        [
            f"{row.number}{' *' if row.number == summary.best else ''}",
            row.state,
            "-" if row.objective is None else f"{row.objective:.4g}",
            *(f"{value:.4g}" if isinstance(value := row.values.get(key), float) else str(value) for key in keys),
            f"{row.seconds:.0f} s",
        ]
        for row in rows
    ]
    printer.table(title, columns, ("state",), cells)
    for row in summary.trials:
        if row.state == "failed":
            printer.line(f"trial {row.number} failed: {row.reason}")
    if summary.best is None:
        printer.line("no trial is complete")
        return
    printer.line(f"best: trial {summary.best}, written to {summary.mission_file}")
    if (fresh := summary.fresh) is not None:
        value = "-" if fresh.objective is None else f"{fresh.objective:.4g}"
        printer.line(
            f"on {fresh.flights:,} fresh flights (seed {fresh.seed}): {summary.objective} {value}; success "
            f"{fresh.success.count} of those that entered, 95 % {_range(fresh.success.low, fresh.success.high)} %"
        )
