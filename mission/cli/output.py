"""The output of commands: only results go to standard output, as text without terminal control characters."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any, TextIO

import typer
from typer.core import TyperCommand

from mission.errors import machine_errors, printable

_LONGEST_SENTENCE = 500  # characters
_streams: list[TextIO] = []  # of the results; the last is that of the command that runs


@contextlib.contextmanager
def results_alone() -> Generator[None]:
    """Reserve standard output for results; any other output goes to standard error.

    So a plugin that prints, at its import or inside a compiled program, does not mix with JSON.
    """
    shown, stream = sys.stdout, sys.stdout
    descriptor = None
    with contextlib.suppress(OSError, ValueError, AttributeError):  # a stream of a test or a notebook has no descriptor
        if shown.fileno() == 1 and sys.stderr.fileno() == 2:
            shown.flush()
            descriptor = os.dup(1)
            stream = os.fdopen(os.dup(1), "w", encoding=shown.encoding, errors="backslashreplace")
            os.dup2(2, 1)
    sys.stdout = sys.stderr
    _streams.append(stream)
    try:
        yield
        stream.flush()
    finally:
        _streams.pop()
        if "jax" in sys.modules:
            sys.modules["jax"].effects_barrier()  # callbacks of compiled programs print late
        sys.stdout = shown
        if descriptor is not None:
            os.dup2(descriptor, 1)
            os.close(descriptor)


class Command(TyperCommand):
    """A command that runs with standard output reserved for its results; its `--help` is printed before that."""

    def get_short_help_str(self, limit: int = 45) -> str:
        """Return the first sentence of the help whole; the list of commands wraps it."""
        return super().get_short_help_str(max(limit, _LONGEST_SENTENCE))

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        with results_alone():
            return super().invoke(ctx)


def say(*lines: str) -> None:
    """Print lines of a result."""
    typer.echo("\n".join(printable(line) for line in lines), file=results())
    results().flush()


def results() -> TextIO:
    """Return the stream of the results of the command that runs."""
    return _streams[-1] if _streams else sys.stdout


def write_json(text: str) -> None:
    """Print JSON, with terminal control characters as escapes."""
    typer.echo("".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text), file=results())


def write_text(text: str, output: Path | None) -> None:
    """Write a text to a file; None prints it."""
    if output is None:
        typer.echo(text, nl=False, file=results())
        return
    with machine_errors(output, "a file to write", "choose another path"):
        output.write_text(text, encoding="utf-8")


class PrintableFormatter(logging.Formatter):
    """Formats warnings, which quote names and exceptions of plugins and files."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the message as one printable line."""
        return printable(super().formatMessage(record))
