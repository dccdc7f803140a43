"""Progress in a notebook: a table, one bar per task and the last lines, which a cell shows and updates in place.

`rich` draws live displays in a notebook only with further packages; this display needs none.
"""

from __future__ import annotations

import contextlib
import io
import sys
import threading
import time
from typing import Any, NamedTuple

from rich.console import Console, RenderableType
from rich.progress import TaskID

from mission.errors import printable
from mission.storage.markup import escape

_EVERY_S = 0.25  # between two updates of the cell
_MOST_LINES = 12  # that a cell shows
_WIDTH = 110  # of the table, in characters


class _Task(NamedTuple):
    """A bar: its name, how much is done of how much (None: not known), and a text."""

    name: str
    done: float
    total: float | None
    text: str


class NotebookBars:
    """A table, bars and lines in the output of the cell that made them; may be called from any thread."""

    def __init__(self, table: RenderableType | None = None) -> None:
        """Show the display in the current cell; the table is drawn anew whenever the cell is."""
        from IPython.display import display  # there is one: see `in_notebook`

        self.table = table
        self.tasks: list[_Task] = []
        self.lines: list[str] = []
        self._lock, self._shown = threading.Lock(), time.monotonic()
        self._handle: Any = display(self, display_id=True)

    def add_task(self, name: str, total: float | None, text: str = "", completed: float = 0.0) -> TaskID:
        """Add a bar, and return its number."""
        self.tasks.append(_Task(name, completed, total, text))
        self.show()
        return TaskID(len(self.tasks) - 1)

    def update(self, task: TaskID, **changes: Any) -> None:
        """Change a bar: `completed`, `total`, `text`."""
        changes = {"done" if name == "completed" else name: value for name, value in changes.items()}
        self.tasks[task] = self.tasks[task]._replace(**changes)
        self.show(now=self.tasks[task].done == self.tasks[task].total)

    def say(self, text: str) -> None:
        """Add a line below the bars."""
        self.lines.append(text)
        self.show(now=True)

    def stop(self) -> None:
        """Show the last state."""
        self.show(now=True)

    def show(self, now: bool = False) -> None:
        """Update the cell, at most once in a while unless `now`."""
        with self._lock:
            if now or time.monotonic() - self._shown >= _EVERY_S:
                self._shown = time.monotonic()
                with contextlib.suppress(Exception):  # the notebook was closed
                    self._handle.update(self)

    def __repr__(self) -> str:
        bars = (f"{task.name}: {task.text}" for task in self.tasks)
        return "\n".join(
            (self._drawn().export_text().rstrip(), *map(printable, (*bars, *self.lines[-_MOST_LINES:])))
        ).strip()

    def _repr_html_(self) -> str:
        rows = []
        for name, done, total, text in self.tasks:
            bar = f'<progress value="{done:g}" max="{total:g}"></progress>' if total else ""
            rows.append(f"<tr><td>{escape(name)}</td><td>{bar}</td><td>{escape(text)}</td></tr>")
        lines = "<br>".join(map(escape, self.lines[-_MOST_LINES:]))
        drawn = self._drawn().export_html(inline_styles=True, code_format="<pre>{code}</pre>")
        return f"{drawn if self.table else ''}<table>{''.join(rows)}</table><div>{lines}</div>"

    def _drawn(self) -> Console:
        console = notebook_console()
        if self.table is not None:
            console.print(self.table)
        return console


def notebook_console() -> Console:
    """Return a console that records what it prints, for a cell of a notebook."""
    return Console(file=io.StringIO(), record=True, width=_WIDTH, force_jupyter=False)


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook, which shows displays of its cells."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None
