"""What the benchmarks share: workers in processes of their own, interleaved rounds, tables, JSON.

A worker is the same script, started again with `--worker NAME`, by this interpreter or by the
peers'. It prepares and compiles, then measures one round whenever it is asked. So alternatives take
turns (ABABAB) while none compiles and none shares a process, and whatever else the machine does
falls on all of them. Standard library only: a peer's interpreter imports this file too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

_MARK = "@round "
Rounds = dict[str, list[float]]


class Worker:
    """A child process that measures one round whenever it is asked."""

    def __init__(self, script: str, name: str, python: str = sys.executable, options: Sequence[str] = ()) -> None:
        self.name = name
        command = [python, str(Path(script).resolve()), "--worker", name, *options]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | {"JAX_PLATFORMS": "cpu"}
        )
        self.about = self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(_MARK):
                return json.loads(line[len(_MARK) :])
        raise SystemExit(f"worker {self.name} ended with exit code {self.process.wait()}; its message stands above")

    def round(self, request: str = "") -> dict[str, Any]:
        """One measured round: what the worker's function returned."""
        assert self.process.stdin is not None
        self.process.stdin.write(request + "\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """Let the child end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def serve(measure: Callable[[str], dict[str, Any]], about: dict[str, Any] | None = None) -> None:
    """The worker's side: say that it is ready, then one `measure(request)` for each line of stdin."""
    print(_MARK + json.dumps(about or {}), flush=True)
    for line in sys.stdin:
        print(_MARK + json.dumps(measure(line.rstrip("\n"))), flush=True)


def take_turns(workers: Sequence[Worker], rounds: int) -> Rounds:
    """Each worker once a round, after one round that does not count; the numbers of all by name."""
    seen: Rounds = {}
    for number in range(rounds + 1):
        for worker in workers:
            values = worker.round()
            if number:
                for name, value in values.items():
                    seen.setdefault(name, []).append(value)
    return seen


def ratios(over: list[float], under: list[float]) -> list[float]:
    """Quotients of the same round."""
    return [a / b for a, b in zip(over, under, strict=True)]


def spread(values: list[float], digits: int = 2) -> str:
    """`median (least to most)`."""
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Left-aligned columns; the first row is the heading."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip(), flush=True)


def parser(documentation: str | None, peer: bool, rounds: int | None = None) -> argparse.ArgumentParser:
    """The options that every script has."""
    options = argparse.ArgumentParser(description=documentation, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--json", metavar="FILE", help="also write the numbers here")
    if rounds is not None:
        options.add_argument("--rounds", type=int, default=rounds, help="measured rounds (default: %(default)s)")
    if peer:
        options.add_argument(
            "--peers-python",
            metavar="PATH",
            default=os.environ.get("MISSION_PEERS_PYTHON"),
            help="interpreter that has the peers (default: environment variable MISSION_PEERS_PYTHON)",
        )
        options.add_argument("--worker", help=argparse.SUPPRESS)
    return options


def peer_missing(python: str | None, peer: str) -> bool:
    """Whether there is no interpreter with peers; says so."""
    if not python:
        print(f"{peer}: skipped, no peers' interpreter (--peers-python PATH, see benchmarks/README.md)")
    return not python


def write_json(file: str | None, numbers: dict[str, Any]) -> None:
    """The numbers and the machine that they were measured on."""
    if file is None:
        return
    machine: dict[str, Any] = {"cores": os.cpu_count(), "python": sys.version.split()[0]}
    with contextlib.suppress(OSError):
        machine["load"] = os.getloadavg()
    Path(file).write_text(json.dumps(numbers | {"machine": machine}, indent=2) + "\n", encoding="utf-8")
