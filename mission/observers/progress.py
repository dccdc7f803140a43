"""The progress display: a live line on a terminal, bars in a notebook, plain lines elsewhere."""

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
from mission.observers.notebook import NotebookBars, in_notebook

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
    """The display of one run."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self.live = self.console.is_terminal or in_notebook()
        self.bar = _bars(self.console, disable=not self.live)

    def begin(self, phase: str, env_steps: int, budget: int) -> None:
        self.began, self.first_step, self.printed, self.success = time.monotonic(), env_steps, 0.0, "-"
        self.task = self.bar.add_task(phase, total=budget, completed=env_steps, text="compiling")
        if not self.live:
            self.say(f"{phase}: starts at vehicle step {env_steps:,} of at most {budget:,}")

    def chunk(self, event: Event) -> None:
        s, budget = event.scalars, event.data["budget"]
        rate = (event.env_steps - self.first_step) / max(time.monotonic() - self.began, 1e-6)
        left = max(budget - event.env_steps, 0) / max(rate, 1e-6)
        value = s.get("Episode/Return")
        shown = "".join(f"{label} {number:.3g}, " for label, number in event.data.get("shown", {}).items())
        text = (
            f"{event.env_steps:,}/{budget:,} steps, {s['Speed/UpdatesPerSecond']:.0f} updates/s, "
            f"return {'-' if value is None else f'{value:.2f}'}, success {self.success}, {shown}at most {left:.0f} s left"
        )
        self.bar.update(self.task, completed=event.env_steps, text=text)
        if not self.live and time.monotonic() - self.printed >= _PLAIN_EVERY_S:
            self.printed = time.monotonic()
            self.say(f"{event.phase}: {text}")

    def imitation(self, event: Event) -> None:
        done, rounds, success = *map(event.data.get, ("round", "rounds")), event.scalars.get("Imitation/Success")
        rate = "-" if success is None else f"{100 * success:.1f} %"
        text = f"imitation, round {done} of {rounds}: loss {event.scalars['Imitation/Loss']:.3g}, success {rate}"
        self.bar.update(self.task, text=text)
        if not self.live:
            self.say(f"{event.phase}: {text}")

    def sweep(self, event: Event) -> None:
        data = event.data
        after = {0: "before the first sweep", -1: "after joint training"}.get(
            data["sweep"], f"after sweep {data['sweep']}"
        )
        share, low, high = (100 * value for value in (data["succeeded"] / data["flights"], data["low"], data["high"]))
        counted = f"{data['succeeded']:,} of {data['flights']:,}: {share:.2f} % ({low:.2f} to {high:.2f} %)"
        self.say(f"chain {after}: success {counted}; {data['seconds']:.0f} s")

    def joint(self, event: Event) -> None:
        data = event.data
        self.say(f"joint training: update {data['update']} of {data['updates']}, success {100 * data['success']:.2f} %")

    def baseline(self, done: int, flights: int) -> None:
        if done == 0:
            self.printed = time.monotonic()
            self.task = self.bar.add_task("baseline", total=flights, text="compiling")
            if not self.live:
                self.say(f"baseline: {flights:,} flights of the finished policies")
        else:
            self.bar.update(self.task, completed=done, text=f"{done:,}/{flights:,} flights")
        if not self.live and time.monotonic() - self.printed >= _PLAIN_EVERY_S:
            self.printed = time.monotonic()
            self.say(f"baseline: {done:,} of {flights:,} flights")

    def say(self, text: str) -> None:
        if isinstance(self.bar, NotebookBars):
            self.bar.say(text)
            return
        self.console.print(printable(text), highlight=False, markup=False, soft_wrap=True)


_display: _Display | None = None


@hookimpl
def mission_event(event: Event) -> None:
    """Show chunks, evaluations, gates and the ends of phases."""
    global _display
    if event.kind == "mission_start":
        _display = _Display()
    if _display is None:
        return
    if event.kind == "phase_start":
        _display.begin(event.phase, event.env_steps, event.data["budget"])
    elif event.kind == "imitation":
        _display.imitation(event)
    elif event.kind == "chunk":
        _display.chunk(event)
    elif event.kind == "evaluation":
        _display.success = f"{100 * event.scalars['Evaluation/Success']:.1f} %"
        _display.say(
            f"{event.phase}: evaluation at {event.env_steps:,}: success {_display.success}, return {event.scalars['Evaluation/Return']:.2f}"
            + "".join(f"; {failure}" for failure in event.data["failures"])
        )
    elif event.kind == "gate":
        verdict = "passed" if event.data["passed"] else "missed: " + "; ".join(event.data["failures"])
        _display.say(f"{event.phase}: gate {verdict} ({counted(*map(event.data.get, _COUNTED))}; held-out starts)")
    elif event.kind == "phase_end":
        _display.say(f"{event.phase}: {event.data['status']} in {event.data['seconds']:.0f} s")
    elif event.kind == "sweep":
        _display.sweep(event)
    elif event.kind == "joint":
        _display.joint(event)
    elif event.kind == "baseline":
        _display.baseline(event.data["done"], event.data["flights"])
    elif event.kind == "mission_end":
        _display.bar.stop()
        _display = None


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
