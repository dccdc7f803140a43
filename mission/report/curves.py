"""Learning curves of a training run: one page from the `metrics.jsonl` of each phase.

Shapes: G lines of a metrics file.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mission.errors import InputError, machine_errors
from mission.missionfile.gate import counted
from mission.observers.metrics import MetricsLine, read_metrics
from mission.report.charts import Chart, span
from mission.report.folder import SUMMARY, write_page
from mission.report.page import document
from mission.storage.markup import escape
from mission.storage.policies import phase_record
from mission.storage.protection import refuse_read_only
from mission.storage.records import PolicyRecord, StepRecord
from mission.storage.steps import PhaseFolder

log = logging.getLogger("mission")
PAGE = "learning.html"
_ENGINE = ("Episode", "Evaluation")  # families of metrics that the engine logs, whatever the learner
_DECADE = 10.0  # an axis is logarithmic if all values are positive and span more than this factor


def is_training(folder: Path) -> bool:
    """Return whether a folder belongs to a training run: it holds phases with `metrics.jsonl`, and no report."""
    return folder.is_dir() and not (folder / SUMMARY).exists() and bool(training_files(folder))


def training_files(folder: Path) -> list[Path]:
    """Return `<phase>/metrics.jsonl` of a training run, in the order of the mission."""
    files = [path for path in folder.glob("*/metrics.jsonl") if path.is_file()]
    return sorted(files, key=_place)


def _place(path: Path) -> tuple[float, str]:
    """Return the place of a phase in its mission, to sort by; a phase without a readable record comes last."""
    record = phase_record(PhaseFolder(path.parent))  # it holds the configuration of all phases up to its own
    return (len(record.configuration) if record is not None else math.inf, path.parent.name)


def learning_page(folder: Path, output: Path | None = None) -> Path:
    """Write the learning curves of `checkpoints/<mission>`.

    Args:
      folder: holds `<phase>/metrics.jsonl`.
      output: the page; by default `learning.html` in the folder.

    Raises:
      InputError: there are no metrics, or the page would be among shipped policies.
      MachineError: the page cannot be written.
    """
    files = training_files(folder)
    parts = [(f"phase-{i}", path.parent.name, curves(path)) for i, path in enumerate(files)]
    if not any(html for _, _, html in parts):
        raise InputError(
            str(folder),
            expected="<phase>/metrics.jsonl of a training run",
            found="no readable metrics" if files else "none",
            remedy="name the folder checkpoints/MISSION",
        )
    output = output or folder / PAGE
    refuse_read_only(output.parent, "--output FILE")
    page = document(f"{folder.resolve().name}: training", "", parts, style="body{padding-bottom:20px}")
    with machine_errors(output, "a page to be written", "choose another --output"):
        output.parent.mkdir(parents=True, exist_ok=True)
        write_page(output, page)
    return output


def series(lines: Sequence[MetricsLine], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return (vehicle steps, values) of one metric, [G] each; values that are not finite are left out."""
    values = ((line.env_steps, line.scalar(name)) for line in lines)
    pairs = [(step, value) for step, value in values if value is not None and math.isfinite(value)]
    table = np.array(pairs, float).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def chart_groups(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return title -> metrics of each chart: first those of episodes and evaluations, then all others.

    `Episode/X` and `Evaluation/X` share a chart, and so do quantiles of one quantity (`Replay/PriorityP50` and
    `Replay/PriorityP95`); every other metric has a separate chart under its name.
    """
    pairs: dict[str, list[str]] = {}
    single: dict[str, list[str]] = {}
    others: dict[str, list[str]] = {}
    for name in names:
        family, _, quantity = name.partition("/")
        if family not in _ENGINE:
            others.setdefault(re.sub(r"P\d+$", "", name), []).append(name)
        elif {f"{other}/{quantity}" for other in _ENGINE} <= set(names):
            pairs.setdefault(quantity, []).append(name)
        else:
            single[name] = [name]
    return {
        title if len(metrics) > 1 else metrics[0]: tuple(sorted(metrics))
        for groups in (pairs, single, others)
        for title, metrics in groups.items()
    }


def curves(path: Path) -> str:
    """Return the charts of one phase; empty if its file has no metrics."""
    lines = read_metrics(path)
    _warn_if_short(path, lines)
    names = list(dict.fromkeys(name for line in lines for name in line.model_extra or ()))
    charts = "".join(_chart(lines, title, metrics) for title, metrics in chart_groups(names).items())
    gates = [line for line in lines if line.kind == "gate"]
    note = ""
    if gates:
        last = gates[-1]
        verdict = "passed" if last.passed else "missed"
        seen = counted(last.count, last.flights, last.starts, last.looks)
        note = f"gate {verdict} at vehicle step {last.env_steps:,}: {seen}"
    return f'<p class="soft">{escape(note)}</p><div class="charts">{charts}</div>' if charts else ""


def _warn_if_short(path: Path, lines: Sequence[MetricsLine]) -> None:
    """Warn if the lines end before the vehicle step that the phase's record names."""
    record = phase_record(PhaseFolder(path.parent))
    if isinstance(record, PolicyRecord | StepRecord):
        steps = record.env_steps if isinstance(record, PolicyRecord) else record.progress.env_steps
        last = max((line.env_steps for line in lines), default=0)
        if last < steps:
            log.warning(
                "%s ends at vehicle step %d, and the phase was trained to %d: lines are missing", path, last, steps
            )


def _is_logarithmic(names: Sequence[str], values: np.ndarray) -> bool:
    """Return whether a chart has a logarithmic axis; those of episodes and evaluations never have one."""
    if any(name.partition("/")[0] in _ENGINE for name in names):
        return False
    return bool(values.min() > 0.0 and values.max() > _DECADE * values.min())


def _chart(lines: Sequence[MetricsLine], title: str, names: Sequence[str]) -> str:
    curves = [(name, *series(lines, name)) for name in names]
    curves = [(name, steps, values) for name, steps, values in curves if len(values)]
    if not curves:
        return ""
    logarithmic = _is_logarithmic(names, np.concatenate([values for _, _, values in curves]))
    if logarithmic:
        curves = [(name, steps, np.log10(values)) for name, steps, values in curves]
    right = span(0.0, *[steps for _, steps, _ in curves], pad=0.02)[1]
    y_label = f"log10 of {title}" if logarithmic else ""
    chart = Chart(title, "vehicle steps", y_label, (0.0, right), span(*[values for _, _, values in curves]))
    for i, (name, steps, values) in enumerate(curves):
        label = name if len(curves) > 1 else ""
        colour = f"c{i % 4}"
        chart.line(steps, values, colour, label)
        if len(values) < 40:
            chart.points(steps, values, f"{colour} few")
    return chart.html()
