"""Progress on the terminal: a live line where there is one, plain lines where there is not."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Generator
from typing import Any

from mission.hooks import Event, hookimpl

_PLAIN_EVERY_S = 5.0


class _Display:
    """State of one run's display."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self.console = Console(stderr=True)
        self.live = self.console.is_terminal
        self.began, self.first_step, self.printed, self.task = time.monotonic(), 0, 0.0, None
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[text]}"),
            TimeElapsedColumn(),
        )
        self.bar = Progress(*columns, console=self.console) if self.live else None
        self.success = "-"
        if self.bar is not None:
            self.bar.start()

    def begin(self, phase: str, env_steps: int, budget: int) -> None:
        self.began, self.first_step, self.printed, self.success = time.monotonic(), env_steps, 0.0, "-"
        if self.bar is not None:
            self.task = self.bar.add_task(phase, total=budget, completed=env_steps, text="compiling")
        else:
            self.say(f"{phase}: begins at vehicle step {env_steps:,} of at most {budget:,}")

    def chunk(self, event: Event) -> None:
        s, budget = event.scalars, event.data["budget"]
        rate = (event.env_steps - self.first_step) / max(time.monotonic() - self.began, 1e-6)
        left = max(budget - event.env_steps, 0) / max(rate, 1e-6)
        value = s.get("Episode/Return")
        text = (
            f"{event.env_steps:,}/{budget:,} steps, {s['Speed/UpdatesPerSecond']:.0f} updates/s, return {'-' if value is None else f'{value:.2f}'}, "
            f"success {self.success}, temperature {s['Temperature/Value']:.3g}, at most {left:.0f} s left"
        )
        if self.bar is not None and self.task is not None:
            self.bar.update(self.task, completed=event.env_steps, text=text)
        elif time.monotonic() - self.printed >= _PLAIN_EVERY_S:
            self.printed = time.monotonic()
            self.say(f"{event.phase}: {text}")

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.stop()


_display: _Display | None = None


@hookimpl
def mission_event(event: Event) -> None:
    """Show chunks, evaluations, gates and ends of phases."""
    global _display
    if event.kind == "mission_start":
        _display = _Display()
    if _display is None:
        return
    if event.kind == "phase_start":
        _display.begin(event.phase, event.env_steps, event.data["budget"])
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
        _display.say(
            f"{event.phase}: gate {verdict} ({event.data['count']} of {event.data['flights']} on held-out starts)"
        )
    elif event.kind == "phase_end":
        _display.say(f"{event.phase}: {event.data['status']} in {event.data['seconds']:.0f} s")
    elif event.kind == "mission_end":
        _display.close()
        _display = None


@contextlib.contextmanager
def flight_bar(flights: int) -> Generator[Callable[[int, int], None]]:
    """A progress bar over flights, on standard error; silent where that is not a terminal."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task: Any = bar.add_task("compiling", total=flights)
        yield lambda done, total: bar.update(task, completed=done, description="flying")
