"""The live table of a training run on a terminal: a row per phase with its curves, and the remaining time."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mission.errors import printable
from mission.missionfile.hooks import Event
from mission.observers.forecast import Forecast, Remaining

_BLOCKS = "▁▂▃▄▅▆▇█"
_PLAIN_BLOCKS = "_.-=*#"  # for terminals whose encoding has no block characters
_WIDTH = 18  # of a sparkline, in characters
_MARKS = {"waiting": "·", "done": "✓", "training": "▶"}


def sparkline(values: Sequence[float], width: int = _WIDTH, blocks: str = _BLOCKS) -> str:
    """Return a curve as characters, oldest value first; each shows the mean of its share of the values."""
    if not values:
        return ""
    cells = min(width, len(values))
    edges = [round(i * len(values) / cells) for i in range(cells + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(edges)]
    low, span = min(means), max(means) - min(means)
    top = len(blocks) - 1
    return "".join(blocks[round((mean - low) / span * top) if span > 0.0 else top // 2] for mean in means)


def duration(seconds: float) -> str:
    """Return a duration in words as exact as a forecast is: 45 s, 12 min, 3 h 10 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def left_in_words(left: Remaining) -> str:
    """Return the remaining time of a run, in words."""
    if left.seconds is None:
        return "remaining time not known yet"
    return f"{'at most' if left.at_most else 'about'} {duration(left.seconds)} left"


@dataclasses.dataclass
class _Row:
    """The row of one phase in the table."""

    state: str = "waiting"
    stage: str = ""
    returns: list[float] = dataclasses.field(default_factory=list)
    success: list[float] = dataclasses.field(default_factory=list)
    rate: float = 0.0
    seconds: float = 0.0


class LiveTable:
    """The table; `note` takes the events of the run, `__rich__` draws it as it is now."""

    def __init__(self, console: Console, phases: Sequence[str], forecast: Forecast) -> None:
        """Begin with every phase waiting; `phases` are those of the mission."""
        self.console, self.forecast, self.began = console, forecast, time.monotonic()
        trained = [one.name for one in forecast.work]
        self.rows = {name: _Row() for name in dict.fromkeys((*phases, *trained))}
        for name in phases:
            if name not in trained:
                self.rows[name] = _Row("done", "already trained")
        utf8 = (console.encoding or "").lower().startswith("utf")
        self.blocks = _BLOCKS if utf8 else _PLAIN_BLOCKS
        self.marks = _MARKS if utf8 else {"waiting": " ", "done": "x", "training": ">"}
        self.line = ""
        self.live = Live(self, console=console, refresh_per_second=4, transient=False)

    def note(self, event: Event) -> None:
        """Take an event into the table."""
        if event.kind == "baseline":
            self.line = f"baseline: {event.data['done']:,} of {event.data['flights']:,} flights"
        if event.kind == "joint":
            self.line = f"joint training: update {event.data['update']} of {event.data['updates']}"
        if not event.phase:
            return
        row = self.rows.setdefault(event.phase, _Row())
        s = event.scalars
        if event.kind == "phase_start":
            row.state, row.stage = "training", "compiling"
        elif event.kind == "imitation":
            row.stage = f"imitation {event.data['round']}/{event.data['rounds']}"
            row.success += [s["Imitation/Success"]] if "Imitation/Success" in s else []
        elif event.kind == "fill":
            row.stage = f"fill {event.env_steps:,}/{event.data['total']:,}"
        elif event.kind == "warm_up":
            row.stage = "warmed up"
        elif event.kind == "chunk":
            row.stage, row.rate = "learning", s.get("Speed/UpdatesPerSecond", 0.0)
            row.returns += [s["Episode/Return"]] if "Episode/Return" in s else []
        elif event.kind == "evaluation":
            row.success.append(s["Evaluation/Success"])
        elif event.kind == "gate":
            row.stage = "gate passed" if event.data["passed"] else "gate missed"
        elif event.kind == "phase_end":
            row.state, row.stage, row.seconds = "done", event.data["status"], event.data["seconds"]

    def __rich__(self) -> Group:
        """Return the table and a line below it."""
        table = Table(box=None, pad_edge=False, header_style="dim", show_edge=False)
        names = [("phase", "left"), ("", "left"), ("steps", "right"), ("return", "left"), ("success", "left")]
        wide = self.console.width >= 100
        for name, side in [*names, *([("updates/s", "right")] if wide else [])]:
            table.add_column(name, justify=side, no_wrap=True)  # ty: ignore[invalid-argument-type]
        for name, row in self.rows.items():
            table.add_row(*self._cells(name, row)[: 6 if wide else 5])
        left = self.forecast.remaining(time.monotonic())
        share = "" if left.share is None else f"{100 * left.share:.0f} % done, "
        line = f"{share}{left_in_words(left)}, {duration(time.monotonic() - self.began)} so far"
        return Group(table, Text(f"{line}{'; ' if self.line else ''}{printable(self.line)}", style="bold"))

    def _cells(self, name: str, row: _Row) -> list[Any]:
        done, expected = self.forecast.units(name)
        steps = "" if row.state == "waiting" or not done else _short(done)
        steps += f"/{_short(max(done, expected))}" if expected and row.state == "training" else ""  # chunks are whole
        seconds = f", {duration(row.seconds)}" if row.seconds else ""
        style = {"waiting": "dim", "training": "bold", "done": ""}[row.state]
        success = f"{self._curve(row.success)} {100 * row.success[-1]:.1f} %" if row.success else ""
        returns = f"{self._curve(row.returns)} {row.returns[-1]:.4g}" if row.returns else ""
        rate = f"{row.rate:.0f}" if row.rate else ""
        stage = printable(f"{row.stage}{seconds}")
        first = Text(f"{self.marks[row.state]} {printable(name)}", style=style)
        return [first, Text(stage, style="dim"), steps, returns, success, rate]

    def _curve(self, values: Sequence[float]) -> str:
        return sparkline(values, _WIDTH if self.console.width >= 100 else 8, self.blocks)


def _short(number: int) -> str:
    """Return a number of vehicle steps in few characters."""
    return f"{number / 1e6:.2f}M" if number >= 1e6 else f"{number / 1e3:.0f}k" if number >= 1e4 else f"{number}"
