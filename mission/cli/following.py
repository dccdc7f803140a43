"""The command that usually follows a command: the last line of what each prints, except of JSON."""

from __future__ import annotations

import shlex

from mission.cli.output import say
from mission.machine.shell import mission_command


def say_next(*words: object, why: str) -> None:
    """Print the command that usually follows; `words` without `mission`, None left out. Not for JSON output."""
    say(f"next: {mission_command()} {shlex.join(str(word) for word in words if word is not None)}  ({why})")


def repeated_words(option: str, values: list[str] | None) -> list[str]:
    """Return an option with each of its values, for the next command."""
    return [word for value in values or () for word in (option, value)]


def given_words(option: str, value: object) -> list[str]:
    """Return an option and its value; nothing if it was not given."""
    return [] if value is None else [option, str(value)]


def stale_words(stale: bool) -> list[str]:
    """Return the option that permits stale policies, if it was given."""
    return ["--allow-stale"] if stale else []


def local_words(local: bool) -> list[str]:
    """Return the option that permits local plugins, if it was given."""
    return ["--allow-local-plugins"] if local else []
