"""Every error that the user sees, in four parts: where, expected, found, what to do; and text that is safe to print."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import traceback
from collections.abc import Callable, Generator
from typing import Any, TypeVar

T = TypeVar("T")
MOST_SHOWN = 120  # characters of a name or text from outside
_LONG_WORD = re.compile(rf"\S{{{MOST_SHOWN + 1},}}")
_BELOW_PLUGINS = {"mission", "jax", "jaxlib", "numpy", "flax", "optax", "pluggy", "pydantic", "pydantic_core"}
_OF_TRACING = {"TracerBoolConversionError", "TracerIntegerConversionError", "TracerArrayConversionError"}
_OF_TRACING |= {"ConcretizationTypeError"}  # their names: this module does not import JAX
_MOST_PATH, _MOST_TEXT = 400, 2000  # characters of a path, and of one part of a message


def printable(text: object, most: int = _MOST_TEXT) -> str:
    """Return text from outside as one printable line without terminal control characters.

    Characters that do not print become escapes, so that a name cannot clear the screen or imitate a line of output.
    Each word is cut at 120 characters, a path at 400, and the whole at `most`.
    """
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))
    words = _LONG_WORD.sub(lambda word: _cut(word[0], _word_limit(word[0])), line)
    return _cut(words, most)


def _word_limit(word: str) -> int:
    return _MOST_PATH if os.sep in word else MOST_SHOWN


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural unless it is 1; for nouns that form it with s."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def exception_text(error: BaseException) -> str:
    """Return type and message of an exception that a plugin or a library raised, printable and cut."""
    try:
        message = " ".join((_first_of_model(error) or str(error)).split())
    except Exception:  # of the exception's own `__str__`
        message = "(a message that cannot be read)"
    return printable(f"{type(error).__name__}: {message}", MOST_SHOWN)


def _first_of_model(error: Any) -> str | None:
    """Return model, field and message of the first error that a pydantic model found; this module does not import it."""
    if type(error).__module__.partition(".")[0] != "pydantic_core" or type(error).__name__ != "ValidationError":
        return None
    first = error.errors()[0]
    return f"{'.'.join(map(str, (error.title, *first['loc'])))}: {first['msg']}"


class FourParts(BaseException):
    """An exception in four parts, where, expected, found and what to do, with the exit code of the process."""

    exit_code = 2

    def __init__(self, where: str, *, expected: str, found: str, remedy: str) -> None:
        self.where, self.expected, self.found, self.remedy = map(printable, (where, expected, found, remedy))
        super().__init__(self.where, self.expected, self.found, self.remedy)

    def __reduce__(self) -> tuple[Any, ...]:
        return _read_again, (type(self), self.where, self.expected, self.found, self.remedy), self.__dict__

    def __str__(self) -> str:
        return f"{self.where}\n  expected: {self.expected}\n  found: {self.found}\n  to do: {self.remedy}"


def _read_again(kind: type[FourParts], where: str, expected: str, found: str, remedy: str) -> FourParts:
    """Return a pickled error."""
    return kind(where, expected=expected, found=found, remedy=remedy)


class MissionError(FourParts, Exception):
    """An error in four parts (where, expected, found, what to do), with the exit code of the process."""


class InputError(MissionError):
    """The mission file or the command line is wrong."""


class PluginError(MissionError):
    """A plugin is missing, ambiguous, broken, or violates the contract."""


class LinkError(MissionError):
    """Two consecutive phases do not hand over the same state."""


class StaleError(MissionError):
    """A stored phase was made with another configuration, seed or plugin."""


class GateError(MissionError):
    """A phase was trained and missed its gate, or left too few successes for the next one."""

    exit_code = 1


class ParityError(MissionError):
    """An exported policy does not give the same actions as the policy."""

    exit_code = 1


class DifferentFlightsError(MissionError):
    """Flights of stored policies differ from their baseline."""

    exit_code = 1


class UnfinishedError(MissionError):
    """Some training runs of a sweep did not finish, or no trial of a search did."""

    exit_code = 1


class NonFiniteError(MissionError):
    """A vehicle, a reward or a network became infinite or NaN during training."""

    exit_code = 1


class MachineError(MissionError):
    """The machine failed: disk full, permission, locked folder, unreadable checkpoint, out of memory, no device, no package."""

    exit_code = 3


class FormatError(MissionError):
    """A stored record has a format that this version does not read; the record itself may be sound."""

    exit_code = 3


class Interrupted(FourParts, KeyboardInterrupt):
    """SIGINT or SIGTERM arrived; the state was saved first.

    It is a KeyboardInterrupt, not a MissionError, so that `except MissionError` in a loop does not swallow Ctrl-C.
    """

    exit_code = 130


@contextlib.contextmanager
def machine_errors(where: object, expected: str, remedy: str) -> Generator[None]:
    """Turn an error of the operating system inside the block into a MachineError."""
    try:
        yield
    except OSError as error:
        raise MachineError(str(where), expected=expected, found=str(error), remedy=remedy) from None


def _place_outside(error: BaseException) -> str | None:
    """Return the innermost line of an exception's traceback that neither the engine nor a library below it has."""
    place = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        package = str(frame.f_globals.get("__name__")).partition(".")[0]
        if package not in _BELOW_PLUGINS and package not in sys.stdlib_module_names:
            place = f"{os.path.basename(frame.f_code.co_filename)}, line {line}, in {frame.f_code.co_name}"
    return place


def run_plugin_code(where: str, expected: str, call: Callable[[], T], remedy: str = "fix the plugin") -> T:
    """Call a plugin's code and turn any exception, including SystemExit, into a PluginError."""
    try:
        return call()
    except (MissionError, KeyboardInterrupt):
        raise
    except BaseException as error:
        place = _place_outside(error)
        found = exception_text(error) + (f" ({place})" if place else "")
        if type(error).__name__ in _OF_TRACING:
            remedy = "write jnp.where for `if`, and functions of jnp for those of math and numpy: JAX traces the values"
        remedy = f"{remedy}; --debug shows the traceback"
        raise PluginError(where, expected=expected, found=found, remedy=remedy) from error
