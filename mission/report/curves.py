"""Learning curves of a training run: one page from the `metrics.jsonl` of each phase.

Shapes: G lines of a metrics file.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from mission.errors import InputError, machine_errors
from mission.observers.metrics import MetricsLine, read_metrics
from mission.report.charts import Chart, span
from mission.report.folder import SUMMARY, write_file
from mission.report.page import document
from mission.storage.policies import SHIPPED

PAGE = "learning.html"
# title, metrics of one chart, whether its axis is logarithmic
CHARTS: tuple[tuple[str, tuple[str, ...], bool], ...] = (
    ("return", ("Episode/Return", "Evaluation/Return"), False),
    ("success", ("Episode/Success", "Evaluation/Success"), False),
    ("critic loss", ("Critic/Loss",), True),
    ("actor loss", ("Actor/Loss",), False),
    ("temperature", ("Temperature/Value",), True),
    ("TD error", ("Critic/TDError",), True),
    ("action standard deviation", ("Actor/Std",), False),
    ("buffer priorities", ("Replay/PriorityP50", "Replay/PriorityP95"), True),
)


def is_training(folder: Path) -> bool:
    """Whether a folder is a training run's: phases' folders with `metrics.jsonl`, and no report."""
    return folder.is_dir() and not (folder / SUMMARY).exists() and bool(_phases(folder))


def _phases(folder: Path) -> list[Path]:
    found = [path for path in folder.glob("*/metrics.jsonl") if path.is_file()]
    return sorted(found, key=lambda path: (path.stat().st_mtime, path))  # in the order of training


def learning_page(folder: Path, output: Path | None = None) -> Path:
    """Write the learning curves of `checkpoints/<mission>`.

    Args:
      folder: holds `<phase>/metrics.jsonl`.
      output: the page; default `learning.html` in the folder.

    Raises:
      InputError: no metrics, or the default place is read-only to the tool.
      MachineError: the page cannot be written.
    """
    files = _phases(folder)
    parts = [(f"phase-{i}", path.parent.name, _phase(path)) for i, path in enumerate(files)]
    if not any(html for _, _, html in parts):
        raise InputError(
            str(folder),
            expected="<phase>/metrics.jsonl of a training run",
            found="no readable metrics" if files else "none",
            remedy="give checkpoints/MISSION",
        )
    if output is None and folder.resolve().is_relative_to(SHIPPED.resolve()):
        raise InputError(
            str(folder), expected="a folder to write to", found="the shipped policies", remedy="pass --output FILE"
        )
    output = output or folder / PAGE
    page = document(f"{folder.resolve().name}: training", "", parts, style="body{padding-bottom:20px}")
    with machine_errors(output, "a page to be written", "choose another --output"):
        output.parent.mkdir(parents=True, exist_ok=True)
        write_file(output, page.encode())
    return output


def series(lines: Sequence[MetricsLine], name: str) -> tuple[np.ndarray, np.ndarray]:
    """(vehicle steps, values) of one metric, [G] each."""
    found = ((line.env_steps, line.scalar(name)) for line in lines)
    pairs = [(step, value) for step, value in found if value is not None]
    table = np.array(pairs, float).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def _phase(path: Path) -> str:
    lines = read_metrics(path)
    charts = "".join(_chart(lines, *chart) for chart in CHARTS)
    gates = [line for line in lines if line.kind == "gate"]
    note = ""
    if gates:
        last = gates[-1]
        verdict = "passed" if last.passed else "missed"
        note = f"gate {verdict} at vehicle step {last.env_steps:,}: {last.count} of {last.flights} flights"
    return f'<p class="soft">{escape(note)}</p><div class="charts">{charts}</div>' if charts else ""


def _chart(lines: Sequence[MetricsLine], title: str, names: tuple[str, ...], logarithmic: bool) -> str:
    curves = [(name, *series(lines, name)) for name in names]
    curves = [
        (name, steps, np.log10(np.maximum(v, 1e-12)) if logarithmic else v) for name, steps, v in curves if len(v)
    ]
    if not curves or not any(math.isfinite(v) for _, _, values in curves for v in values):
        return ""
    steps = [steps for _, steps, _ in curves]
    y = span(*[values for _, _, values in curves])
    chart = Chart(
        title, "vehicle steps", f"log10 of {title}" if logarithmic else "", (0.0, span(0.0, *steps, pad=0.02)[1]), y
    )
    for i, (name, steps, values) in enumerate(curves):
        chart.line(steps, values, f"c{i}", name)
        if len(values) < 40:
            chart.points(steps, values, f"c{i} few")
    return chart.html()
