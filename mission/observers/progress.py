"""The progress display: a live table on a terminal or in a notebook, plain lines elsewhere; and the bar of flights."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Generator

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from mission.errors import printable
from mission.machine.stages import CLUSTER, watch
from mission.missionfile.gate import counted
from mission.missionfile.hooks import Event, hookimpl
from mission.observers.forecast import Forecast
from mission.observers.notebook import NotebookBars, in_notebook, notebook_console
from mission.observers.table import LiveTable, left_in_words

_PLAIN_EVERY_S = 5.0
_COUNTED = ("count", "flights", "starts", "looks")  # of the event of a gate


def _bars(console: Console, disable: bool, transient: bool = False) -> Progress | NotebookBars:
    """Return the bars of a terminal or of a notebook, which show at once."""
    if in_notebook():
        return NotebookBars()
    columns = TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[text]}")
    bars = Progress(*columns, TimeElapsedColumn(), console=console, disable=disable, transient=transient)
    bars.start()
    return bars


class _Display:
    """The display of one run: a live table on a terminal or in a notebook, lines elsewhere; finished results are lines in all."""

    def __init__(self, event: Event) -> None:
        data = event.data
        self.console = Console(stderr=True)
        self.forecast = Forecast(data.get("work", ()), data.get("baseline_flights", 0), time.monotonic())
        notebook, terminal = in_notebook(), self.console.is_terminal
        console = notebook_console() if notebook else self.console
        self.table = LiveTable(console, data["phases"], self.forecast) if notebook or terminal else None
        self.cell = NotebookBars(self.table) if notebook else None
        self.success, self.printed = "-", 0.0
        if self.table is not None and self.cell is None:
            self.table.live.start()

    def note(self, event: Event) -> None:
        """Show an event."""
        self.forecast.note(event, time.monotonic())
        if self.table is not None:
            self.table.note(event)
        if self.cell is not None:
            self.cell.show()
        shown = getattr(self, f"_{event.kind}", None)
        if shown is not None:
            shown(event)

    def end(self) -> None:
        """Leave the last table on the terminal or in the cell."""
        if self.cell is not None:
            self.cell.stop()
        elif self.table is not None:
            self.table.live.stop()

    def _phase_start(self, event: Event) -> None:
        self.success, self.printed = "-", 0.0
        self._plain(
            f"{event.phase}: starts at vehicle step {event.env_steps:,}, budget {event.data['budget']:,}", every_s=0
        )

    def _chunk(self, event: Event) -> None:
        s, budget = event.scalars, event.data["budget"]
        value = s.get("Episode/Return")
        steps = f"{event.env_steps:,}/{budget:,} steps"
        if event.env_steps > budget:  # the last chunk is whole
            steps = f"{event.env_steps:,} steps (budget {budget:,}, rounded up to whole chunks)"
        shown = "".join(f"{label} {number:.3g}, " for label, number in event.data.get("shown", {}).items())
        self._plain(
            f"{event.phase}: {steps}, {s['Speed/UpdatesPerSecond']:.0f} updates/s, "
            f"return {'-' if value is None else f'{value:.2f}'}, success {self.success}, {shown}{self._left()}"
        )

    def _imitation(self, event: Event) -> None:
        done, rounds, success = *map(event.data.get, ("round", "rounds")), event.scalars.get("Imitation/Success")
        rate = "-" if success is None else f"{100 * success:.1f} %"
        text = f"imitation, round {done} of {rounds}: loss {event.scalars['Imitation/Loss']:.3g}, success {rate}"
        self._plain(f"{event.phase}: {text}, {self._left()}", every_s=0)

    def _evaluation(self, event: Event) -> None:
        self.success = f"{100 * event.scalars['Evaluation/Success']:.1f} %"
        text = f"success {self.success}, return {event.scalars['Evaluation/Return']:.2f}"
        failures = "".join(f"; {failure}" for failure in event.data["failures"])
        line = f"{event.phase}: evaluation at {event.env_steps:,}: {text}{failures}"
        if self.table is None or failures:
            self.say(line)

    def _gate(self, event: Event) -> None:
        verdict = "passed" if event.data["passed"] else "missed: " + "; ".join(event.data["failures"])
        self.say(f"{event.phase}: gate {verdict} ({counted(*map(event.data.get, _COUNTED))}; held-out starts)")

    def _phase_end(self, event: Event) -> None:
        self.say(f"{event.phase}: {event.data['status']} in {event.data['seconds']:.0f} s")

    def _sweep(self, event: Event) -> None:
        data = event.data
        after = {0: "before the first sweep", -1: "after joint training"}.get(
            data["sweep"], f"after sweep {data['sweep']}"
        )
        share, low, high = (100 * value for value in (data["succeeded"] / data["flights"], data["low"], data["high"]))
        counted = f"{data['succeeded']:,} of {data['flights']:,}: {share:.2f} % ({low:.2f} to {high:.2f} %)"
        self.say(f"chain {after}: success {counted}; {data['seconds']:.0f} s")

    def _joint(self, event: Event) -> None:
        data = event.data
        self.say(f"joint training: update {data['update']} of {data['updates']}, success {100 * data['success']:.2f} %")

    def _baseline(self, event: Event) -> None:
        done, flights = event.data["done"], event.data["flights"]
        if done == 0:
            self._plain(f"baseline: {flights:,} flights of the finished policies", every_s=0)
        else:
            self._plain(f"baseline: {done:,} of {flights:,} flights, {self._left()}")

    def _left(self) -> str:
        return left_in_words(self.forecast.remaining(time.monotonic()))

    def _plain(self, text: str, every_s: float = _PLAIN_EVERY_S) -> None:
        """Print a line about the present state where there is no table, at most once in a while."""
        if self.table is None and time.monotonic() - self.printed >= every_s:
            self.printed = time.monotonic() if every_s else self.printed
            self.say(text)

    def say(self, text: str) -> None:
        if self.cell is not None:
            self.cell.say(text)
            return
        self.console.print(printable(text), highlight=False, markup=False, soft_wrap=True)


_display: _Display | None = None


@hookimpl
def mission_event(event: Event) -> None:
    """Show chunks, evaluations, gates and the ends of phases."""
    global _display
    if event.kind == "mission_start":
        _display = _Display(event)
    elif _display is not None and event.kind == "mission_end":
        _display.end()
        _display = None
    elif _display is not None:
        _display.note(event)


@contextlib.contextmanager
def flight_bar(flights: int | None = None) -> Generator[Callable[[int, int], None]]:
    """Yield a progress callback for flights, on standard error or in a notebook; silent if there is neither a terminal nor one.

    A line for each phase shows what happens to it: checking, tracing, compiling, flying. What the workers of a cluster did
    and cost is printed at the end, to a terminal or not.

    Args:
      flights: their number, if it is known before the first call.
    """
    lines, stages = {}, {}
    bar = _bars(Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
    try:
        whole = bar.add_task("flights", total=flights, text="starting")

        def show(phase: str, stage: str) -> None:
            stages[phase] = stage
            if phase not in lines:
                lines[phase] = bar.add_task(printable(phase), total=None, text=stage)
            bar.update(lines[phase], text=stage)

        with watch(show):
            yield lambda done, total: bar.update(whole, completed=done, total=total, text=f"{done:,} of {total:,}")
    finally:
        bar.stop()
    if CLUSTER in stages:
        print(f"{CLUSTER}: {stages[CLUSTER]}", file=sys.stderr)


@contextlib.contextmanager
def shown_progress(
    progress: Callable[[int, int], None] | None, flights: int
) -> Generator[Callable[[int, int], None] | None]:
    """Yield the caller's progress callback; if there is none, that of bars in a notebook, and None elsewhere."""
    if progress is not None or not in_notebook():
        yield progress
        return
    with flight_bar(flights) as bar:
        yield bar
