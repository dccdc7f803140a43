"""Progress in a notebook: one bar per task and the last lines, which a cell shows and updates in place.

`rich` draws live displays in a notebook only with further packages; this display needs none.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from typing import Any, NamedTuple

from rich.progress import TaskID

from mission.errors import printable
from mission.storage.tables import html_text

_EVERY_S = 0.25  # between two updates of the cell
_MOST_LINES = 12  # that a cell shows


class _Task(NamedTuple):
    """A bar: its name, how much is done of how much (None: not known), and a text."""

    name: str
    done: float
    total: float | None
    text: str


class NotebookBars:
    """Bars and lines in the output of the cell that made them; may be called from any thread."""

    def __init__(self) -> None:
        """Show the display in the current cell."""
        from IPython.display import display  # there is one: see `in_notebook`

        self.tasks: list[_Task] = []
        self.lines: list[str] = []
        self._lock, self._shown = threading.Lock(), time.monotonic()
        self._handle: Any = display(self, display_id=True)

    def add_task(self, name: str, total: float | None, text: str = "", completed: float = 0.0) -> TaskID:
        """Add a bar, and return its number."""
        self.tasks.append(_Task(name, completed, total, text))
        self._show()
        return TaskID(len(self.tasks) - 1)

    def update(self, task: TaskID, **changes: Any) -> None:
        """Change a bar: `completed`, `total`, `text`."""
        changes = {"done" if name == "completed" else name: value for name, value in changes.items()}
        self.tasks[task] = self.tasks[task]._replace(**changes)
        self._show(now=self.tasks[task].done == self.tasks[task].total)

    def say(self, text: str) -> None:
        """Add a line below the bars."""
        self.lines.append(text)
        self._show(now=True)

    def stop(self) -> None:
        """Show the last state."""
        self._show(now=True)

    def _show(self, now: bool = False) -> None:
        with self._lock:
            if now or time.monotonic() - self._shown >= _EVERY_S:
                self._shown = time.monotonic()
                with contextlib.suppress(Exception):  # the notebook was closed
                    self._handle.update(self)

    def __repr__(self) -> str:
        bars = (f"{task.name}: {task.text}" for task in self.tasks)
        return "\n".join(printable(line) for line in (*bars, *self.lines[-_MOST_LINES:]))

    def _repr_html_(self) -> str:
        rows = []
        for name, done, total, text in self.tasks:
            bar = f'<progress value="{done:g}" max="{total:g}"></progress>' if total else ""
            rows.append(f"<tr><td>{html_text(name)}</td><td>{bar}</td><td>{html_text(text)}</td></tr>")
        lines = "<br>".join(map(html_text, self.lines[-_MOST_LINES:]))
        return f"<table>{''.join(rows)}</table><div>{lines}</div>"


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook, which shows displays of its cells."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None
