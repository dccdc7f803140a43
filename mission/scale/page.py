"""The page of a sweep: its table, and the learning curves of all training runs, one colour per combination.

Shapes: G lines of a metrics file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from mission.errors import machine_errors
from mission.missionfile.models import MissionFile
from mission.observers.metrics import MetricsLine, read_metrics
from mission.report.charts import Chart, number, span
from mission.report.curves import series
from mission.report.folder import write_page
from mission.report.page import document
from mission.report.page.sections import percent
from mission.scale.summary import CombinationSummary, Spread, SweepSummary, TrainingRow
from mission.storage.markup import escape, wide_table
from mission.storage.steps import PhaseFolder

_CURVES = ("Evaluation/Success", "Evaluation/Return")
_TURN = 137.508  # degrees between the hues of neighbours, so that no two of them are alike

Curve = tuple[np.ndarray, np.ndarray]  # vehicle steps and values, [G] each


def sweep_page(path: Path, summary: SweepSummary, missions: Mapping[int, MissionFile]) -> None:
    """Write the page of a sweep.

    Args:
      path: of the page; the folders of the trainings are beside it.
      summary: of the sweep.
      missions: by number of the combination; one that could not be loaded is missing.

    Raises:
      MachineError: the page cannot be written.
    """
    first = missions[min(missions)]
    parts = [("combinations", "Combinations", _combinations(summary)), ("trainings", "Trainings", _trainings(summary))]
    for i, phase in enumerate(first.phases):
        lines = {
            (row.combination, row.seed): _lines(path.parent / row.folder, first.name, phase.name)
            for row in summary.trainings
        }
        charts = "".join(_phase(summary, lines, name) for name in _CURVES)
        if charts:
            parts.append((f"phase-{i}", f"Learning curves of {phase.name}", charts))
    style = "".join(f".k{c.number}{{--hue:{_hue(c.number)}}}" for c in summary.combinations)
    style += ".line.thin{stroke-width:.8;opacity:.55}.line.bold{stroke-width:2.4}.charts+.charts{margin-top:12px}body{padding-bottom:20px}"
    title = f"{summary.mission}: sweep of {len(summary.trainings):,} trainings"
    with machine_errors(path, "a page to be written", "free disk space or choose another --output"):
        write_page(path, document(title, _lead(summary), parts, style=style))


def _hue(index: int) -> str:
    """Return the colour of a combination, legible on light and on dark paper."""
    return f"hsl({(210.0 + _TURN * (index - 1)) % 360.0:.0f} 62% 52%)"


def _lead(summary: SweepSummary) -> str:
    passed = sum(one.passed.count for one in summary.combinations)
    text = (
        f"{len(summary.combinations)} combinations, {len(summary.seeds)} seeds; {passed} of {len(summary.trainings)} "
        "trainings passed every gate. Success and return are those of the last phase's bank flights."
    )
    return f'<p class="soft">{escape(text)}</p>'


def _combinations(summary: SweepSummary) -> str:
    names = (
        "combination",
        "passed",
        "95 % Wilson",
        "success",
        "95 % bootstrap",
        "range",
        "return",
        "time",
        "failures",
        "best",
    )
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    rows = "".join(_combination(one) for one in summary.combinations)
    note = (
        "Success, return and time are medians over the trainings. Choosing the best of several trainings by these "
        "flights biases its success upwards: fly it again with another seed before you quote a figure."
    )
    return f'{wide_table("combinations", f"<tr>{head}</tr>{rows}")}<p class="soft">{escape(note)}</p>'


def _combination(one: CombinationSummary) -> str:
    time = "-" if one.seconds.median is None else f"{one.seconds.median:,.0f} s"
    cells = (
        f"{one.passed.count} of {one.trainings}",
        f"{percent(one.passed.low)} to {percent(one.passed.high)}",
        percent(one.success.median),
        _interval(one.success, percent),
        _extremes(one.success, percent),
        "-" if one.returns.median is None else number(one.returns.median),
        time,
        str(one.failures),
        "-" if one.best is None else f"seed {one.best}",
    )
    label = f'<span class="key k{one.number}">{escape(one.label)}</span>'
    return f"<tr><td>{label}</td>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"


def _interval(values: Spread, show: Callable[[float], str] = number) -> str:
    """Return the bootstrap interval of a median for display."""
    return "-" if values.low is None or values.high is None else f"{show(values.low)} to {show(values.high)}"


def _extremes(values: Spread, show: Callable[[float], str] = number) -> str:
    """Return the least and the largest value for display."""
    return "-" if values.min is None or values.max is None else f"{show(values.min)} to {show(values.max)}"


def _trainings(summary: SweepSummary) -> str:
    names = ("folder", "status", "success", "return", "vehicle steps", "time")
    head = "".join(f"<th>{escape(name)}</th>" for name in names) + '<th class="left">reason</th>'
    rows = "".join(_training(row) for row in summary.trainings)
    table = wide_table("trials", f"<tr>{head}</tr>{rows}")
    return f"<details><summary>all {len(summary.trainings)} trainings</summary>{table}</details>"


def _training(row: TrainingRow) -> str:
    cells = (
        row.status,
        percent(row.success),
        "-" if row.returns is None else number(row.returns),
        f"{row.env_steps:,}",
        "-" if row.seconds is None else f"{row.seconds:,.0f} s",
    )
    label = f'<span class="key k{row.combination}">{escape(row.folder)}</span>'
    middle = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    return f'<tr><td>{label}</td>{middle}<td class="left">{escape(row.reason)}</td></tr>'


def _lines(training: Path, mission: str, phase: str) -> list[MetricsLine]:
    path = PhaseFolder(training / mission / phase).metrics
    return read_metrics(path) if path.is_file() else []


def _phase(summary: SweepSummary, lines: Mapping[tuple[int, int], Sequence[MetricsLine]], metric: str) -> str:
    """Return the charts of one metric: all combinations in one, then each for itself, with the same axes."""
    curves = {key: series(found, metric) for key, found in lines.items()}
    curves = {key: curve for key, curve in curves.items() if len(curve[0])}
    if not curves:
        return ""
    title = metric.rpartition("/")[2].lower()
    right = span(0.0, *[steps for steps, _ in curves.values()], pad=0.02)[1]
    limits = span(*[values for _, values in curves.values()])

    def chart(name: str) -> Chart:
        return Chart(name, "vehicle steps", "", (0.0, right), limits)

    whole = chart(f"{title}: medians")
    single = []
    for one in summary.combinations:
        own = [curve for (number, _), curve in sorted(curves.items()) if number == one.number]
        if not own:
            continue
        css = f"k{one.number}"
        steps, values = median_curve(own)
        whole.line(steps, values, f"{css} bold").named(css, one.label)
        if len(steps) < 2:
            whole.points(steps, values, f"{css} few")
        alone = chart(f"{title}: {one.label}")
        for curve in own:
            alone.line(*curve, f"{css} thin")
            if len(curve[0]) < 2:
                alone.points(*curve, f"{css} few")
        single.append(alone.line(steps, values, f"{css} bold", "").html())
    return f'<div class="charts">{whole.html()}{"".join(single)}</div>'


def median_curve(curves: Sequence[Curve]) -> Curve:
    """Return the median of curves at the vehicle steps that any of them has; each counts up to its own end."""
    steps = np.unique(np.concatenate([curve[0] for curve in curves]))
    table = np.full((len(curves), len(steps)), np.nan)
    for row, (own, values) in zip(table, curves, strict=True):
        inside = (steps >= own[0]) & (steps <= own[-1])
        row[inside] = np.interp(steps[inside], own, values)
    return steps, np.nanmedian(table, axis=0)
