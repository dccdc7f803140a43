"""Compile exported C with gcc, and read from its output what the code needs: stack, and symbols of other libraries."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

from mission.errors import MachineError
from mission.flight.onboard.c99 import FUNCTIONS
from mission.flight.onboard.interface import Latency

COMPILER = "gcc"
FLAGS = ("-std=c99", "-O2", "-Wall", "-Wextra", "-pedantic")
LIBRARY = "libpolicy.so"
_OTHER_SYMBOLS = {"memcpy", "memmove", "memset"}  # what a compiler may make of a loop
_LEVELS = ("-O2", "-O3")
_TIMEOUT_S = 600


def check_compiler() -> None:
    """Check that there is a compiler.

    Raises:
      MachineError: gcc is not on the path.
    """
    if shutil.which(COMPILER) is None:
        raise MachineError(
            "mission export --format c99",
            expected=f"{COMPILER} on the PATH, which compiles and checks what is written",
            found="none",
            remedy="install gcc (Debian: apt-get install gcc libc6-dev), or choose another --format",
        )


def compiler_version() -> str:
    """Return the first line of the compiler's version."""
    return _run([COMPILER, "--version"], Path()).splitlines()[0]


def compile_library(folder: Path) -> None:
    """Compile `libpolicy.so` in a folder of sources; every warning is an error."""
    _compile(folder, [*FLAGS, "-fPIC", "-shared"], LIBRARY, ["policy.c"])


def run_golden_test(folder: Path) -> None:
    """Compile and run `test_policy.c`, outside of the folder's own files."""
    _compile(folder, list(FLAGS), "test_policy", ["test_policy.c", "policy.c"])
    try:
        _run(["./test_policy"], folder)
    finally:
        (folder / "test_policy").unlink()


def measure_latency(folder: Path) -> tuple[Latency, ...]:
    """Compile and run `latency.c` with each level of optimisation."""
    found = []
    for level in _LEVELS:
        _compile(folder, [*FLAGS, level], "latency_policy", ["latency.c", "policy.c"])
        figures = json.loads(_run(["./latency_policy"], folder))
        (folder / "latency_policy").unlink()
        found.append(Latency(build=f"{COMPILER} {level}", **figures))
    return tuple(found)


def stack_bytes(folder: Path) -> int:
    """Return the bytes of stack that the policy needs at most: the sum over its functions, none of which calls itself.

    Raises:
      MachineError: the stack of a function is not bounded at compile time.
    """
    _compile(folder, [*FLAGS, "-fstack-usage", "-c"], "policy.o", ["policy.c"])
    lines = [line.split("\t") for line in (folder / "policy.su").read_text().splitlines()]
    (folder / "policy.su").unlink()
    unbounded = [line[0] for line in lines if line[2] != "static"]
    if unbounded:
        raise _failed(folder, "functions with a stack that is known at compile time", ", ".join(unbounded))
    return sum(int(line[1]) for line in lines)


def undefined_symbols(folder: Path) -> tuple[str, ...]:
    """Return what `policy.o` takes from other libraries, and remove it: nothing beyond mathematical functions.

    Raises:
      MachineError: it takes anything else, such as malloc.
    """
    text = _run(["nm", "-u", "policy.o"], folder)
    (folder / "policy.o").unlink()
    symbols = tuple(sorted(set(re.findall(r"^\s*U (\S+)", text, re.MULTILINE)) - {"_GLOBAL_OFFSET_TABLE_"}))
    others = set(symbols) - FUNCTIONS - _OTHER_SYMBOLS
    if others:
        raise _failed(folder, "code that needs mathematical functions only", ", ".join(sorted(others)))
    return symbols


def _compile(folder: Path, flags: list[str], output: str, sources: list[str]) -> None:
    _run([COMPILER, *flags, "-Werror", "-o", output, *sources, *([] if "-c" in flags else ["-lm"])], folder)


def _run(command: list[str], folder: Path) -> str:
    """Run a command in a folder and return what it prints.

    Raises:
      MachineError: it fails.
    """
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _failed(folder, " ".join(command), str(error)) from None
    if done.returncode:
        raise _failed(folder, f"{' '.join(command)} to succeed", (done.stderr or done.stdout)[:1000])
    return done.stdout


def _failed(folder: Path, expected: str, found: str) -> MachineError:
    remedy = "compare the compiler's version with docs/export.md"
    return MachineError(str(folder), expected=expected, found=found, remedy=remedy)
