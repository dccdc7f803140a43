"""The command that usually follows a command: the last line of what each prints, except of JSON."""

from __future__ import annotations

import shlex
from pathlib import Path

from mission.cli.output import say


def say_next(*words: object, why: str) -> None:
    """Print the command that usually follows; `words` without `mission`, None left out. Not for JSON output."""
    command = shlex.join(["mission", *(str(word) for word in words if word is not None)])
    say(f"next: {command}  ({why})")


def repeated_words(option: str, values: list[str] | None) -> list[str]:
    """Return an option with each of its values, for the next command."""
    return [word for value in values or () for word in (option, value)]


def given_words(option: str, value: object) -> list[str]:
    """Return an option and its value; nothing if it was not given."""
    return [] if value is None else [option, str(value)]


def local_words(local: bool) -> list[str]:
    """Return the option that permits local plugins, if it was given."""
    return ["--allow-local-plugins"] if local else []


def say_after_flight(file: Path, same: list[str], mission: str, report_dir: Path | None, guides: bool) -> None:
    """Print what follows flights: their report, or what a report leads to.

    Args:
      file: mission file, as it was given.
      same: options that the next command needs too.
      mission: name of the mission.
      report_dir: the report that was written; None: there is none.
      guides: the guides flew every phase.
    """
    if report_dir is None:
        say_next("fly", file, *same, "--report", f"reports/{mission}", why="the page with replay and charts")
        return
    say(f"report: {report_dir / 'index.html'}")
    if guides:
        say_next("train", file, why="agents, to compare with the guides")
    else:
        say_next("feasibility", file, *same, why="from which states the rest of the mission succeeds")
