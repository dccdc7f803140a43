"""Kill a training run with SIGKILL, let it finish, and compare what it wrote; tests and `benchmarks/kills.py` use it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def train_command(mission_file: Path, checkpoints: Path, *more: str) -> list[str]:
    """The command of a run that saves after every chunk."""
    command = [sys.executable, "-m", "mission", "train", str(mission_file), "--checkpoints", str(checkpoints)]
    return [*command, "--checkpoint-every", "0", *more]


def start(command: list[str]) -> subprocess.Popen[str]:
    """A process whose output is kept."""
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def kill_once(command: list[str], checkpoints: Path, moment_s: float, after_chunk: bool = True) -> bool:
    """Start a run and kill it at a moment; whether that hit it before its end.

    Args:
      command: from `train_command`.
      checkpoints: its folder.
      moment_s: seconds after the start, or after the first line that this process adds to a metrics file.
      after_chunk: which of the two.
    """
    before, process = _written(checkpoints), start(command)
    deadline = time.monotonic() + 120.0
    while after_chunk and _written(checkpoints) <= before and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(moment_s)
    process.kill()
    _, errors = process.communicate()
    if process.returncode not in (0, -signal.SIGKILL):
        raise RuntimeError(f"a run that resumed ended with exit code {process.returncode}:\n{errors}")
    return process.returncode == -signal.SIGKILL


def _written(checkpoints: Path) -> int:
    return sum(len(path.read_bytes()) for path in checkpoints.glob("*/*/metrics.jsonl"))


def finish(command: list[str], timeout_s: float = 600.0) -> None:
    """Let a run come to its end."""
    process = start(command)
    try:
        _, errors = process.communicate(timeout=timeout_s)
    finally:
        process.kill()
    if process.returncode != 0:
        raise RuntimeError(f"exit code {process.returncode}:\n{errors}")


def results(mission_folder: Path) -> dict[str, Any]:
    """What a run leaves, by phase: the hash of policy and bank, and the metrics that no clock decides."""
    found = {}
    for folder in sorted(path.parent for path in mission_folder.glob("*/policy")):
        record = json.loads((folder / "policy" / "meta.json").read_text())
        metrics = folder / "metrics.jsonl"
        lines = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []
        clock = ("Speed", "sha256")  # the hash covers the speeds
        kept = [{name: value for name, value in line.items() if not name.startswith(clock)} for line in lines]
        found[folder.name] = {"sha256": record["content_sha256"], "metrics": kept}
    return found
