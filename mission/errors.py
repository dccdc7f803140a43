"""Every error that the user sees, in four parts: where, expected, found, what to do."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from typing import TypeVar

T = TypeVar("T")


class MissionError(Exception):
    """An error that says where, what was expected, what was found and what to do, with the exit code of the process."""

    exit_code = 2

    def __init__(self, where: str, *, expected: str, found: str, remedy: str) -> None:
        self.where, self.expected, self.found, self.remedy = where, expected, found, remedy
        super().__init__(where, expected, found, remedy)

    def __str__(self) -> str:
        return f"{self.where}\n  expected: {self.expected}\n  found: {self.found}\n  to do: {self.remedy}"


class InputError(MissionError):
    """The mission file or the command line is wrong."""


class PluginError(MissionError):
    """A plugin is missing, ambiguous, broken, or violates the contract."""


class LinkError(MissionError):
    """Two consecutive phases do not hand over the same state."""


class StaleError(MissionError):
    """A stored phase was made under another configuration, seed or plugin."""


class GateError(MissionError):
    """A phase was trained and missed its gate, or left too few successes for the next one."""

    exit_code = 1


class DifferentFlightsError(MissionError):
    """Stored policies do not fly as their baseline did."""

    exit_code = 1


class NonFiniteError(MissionError):
    """A vehicle, a reward or a network became infinite or NaN during training."""

    exit_code = 1


class MachineError(MissionError):
    """The machine could not do it: disk full, permission, locked folder, no readable checkpoint, no memory, no device."""

    exit_code = 3


class FormatError(MissionError):
    """A stored record has a format that this version does not read; the record itself may be sound."""

    exit_code = 3


class Interrupted(MissionError):
    """SIGINT or SIGTERM arrived; the state was saved first."""

    exit_code = 130


@contextlib.contextmanager
def machine_errors(where: object, expected: str, remedy: str) -> Generator[None]:
    """Turn an error of the operating system inside the block into a MachineError."""
    try:
        yield
    except OSError as error:
        raise MachineError(str(where), expected=expected, found=str(error), remedy=remedy) from None


def run_plugin_code(where: str, expected: str, call: Callable[[], T], remedy: str = "fix the plugin") -> T:
    """Call a plugin's code and turn whatever it raises, SystemExit too, into a PluginError."""
    try:
        return call()
    except (MissionError, KeyboardInterrupt):
        raise
    except BaseException as error:
        found = f"{type(error).__name__}: {error}"
        remedy = f"{remedy}; --debug shows the traceback"
        raise PluginError(where, expected=expected, found=found, remedy=remedy) from error
