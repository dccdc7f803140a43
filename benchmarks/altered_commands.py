"""The commands that read what is stored, run in this process on an altered copy; `altered.py` uses them."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

FLIGHTS = "20"
LOCAL = "--allow-local-plugins"
OF_CHECKPOINTS = ("fly", "compare", "recertify", "train", "resume", "learning")
OF_REPORTS = ("report", "fly --report")


def arguments(name: str, root: Path, mission: Path, original: Path) -> list[str]:
    """Return the arguments of a command.

    Args:
      name: one of `OF_CHECKPOINTS` or `OF_REPORTS`.
      root: the copy, with `checkpoints/` and `report/`.
      mission: the mission file.
      original: what was copied.
    """
    folder, kept = root / "checkpoints", original / "checkpoints"
    train = ["train", mission, LOCAL, "--checkpoints", folder, "--baseline", "0", "--checkpoint-every", "0"]
    commands = {
        "fly": ["fly", mission, LOCAL, "--checkpoints", folder, "--flights", FLIGHTS, "--json", "-"],
        "compare": ["compare", folder, kept, "--mission", mission, LOCAL, "--flights", FLIGHTS, "--json"],
        "recertify": ["recertify", folder / "trial", "--mission", mission, LOCAL, "--json"],
        "train": train,
        "resume": train,
        "learning": ["report", folder / "trial", "-o", root / "learning.html"],
        "report": ["report", root / "report", "--mission", mission, LOCAL],
        "fly --report": ["fly", mission, LOCAL, "--checkpoints", kept, "--flights", "60", "--report", root / "report"],
    }
    return [str(argument) for argument in commands[name]]


def run_command(name: str, root: Path, mission: Path, original: Path) -> str:
    """Run a command on a copy and return its numbers, or "refused: " and the class of the error.

    Raises:
      Exception: one that the engine does not explain, or an exit code that is not documented.
    """
    from typer.testing import CliRunner

    from mission.cli.commands import app
    from mission.errors import MissionError

    phase = root / "checkpoints" / "trial" / "first"
    if name == "resume":  # from the older of the two training steps
        with contextlib.suppress(OSError):
            (phase / "done").unlink()
            shutil.rmtree(phase / "policy")
            shutil.rmtree(max(phase.glob("training/*"), key=lambda path: int(path.name)))
    done = CliRunner().invoke(app, arguments(name, root, mission, original))
    error = done.exception
    if error is not None and not isinstance(error, MissionError | SystemExit):
        raise error
    code = error.exit_code if isinstance(error, MissionError) else done.exit_code
    if code not in (0, 1, 2, 3):
        raise RuntimeError(f"exit code {code}: {done.output}") from error
    if code:
        return f"refused: {type(error).__name__}"
    pages = {"learning": root / "learning.html", "report": root / "report" / "index.html"}
    if name in pages:
        return pages[name].read_text()
    if name == "resume":
        return json.loads((phase / "policy" / "meta.json").read_text())["content_sha256"]
    return done.stdout.replace(str(root), "")
