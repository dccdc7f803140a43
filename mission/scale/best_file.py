"""Write the mission file of the best trial: the original text with its values, comments kept."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mission.errors import machine_errors
from mission.missionfile.pilots import NAMED_PILOTS, guarded, onnx_file, onnx_pilot, unguarded
from mission.missionfile.plugins import local_path
from mission.missionfile.reading import apply_override, load_mission, read_text
from mission.missionfile.resolve import resolve_mission
from mission.report.folder import write_file


def write_mission_file(
    target: Path, original: Path, overrides: Sequence[str], heading: str, allow_local_plugins: bool
) -> None:
    """Write a copy of a mission file with other values, and check it.

    Relative paths to local plugins, to policies that fly, and to files in the parameters are rewritten for the new folder.

    Args:
      target: the file to write.
      original: the mission file.
      overrides: "KEY=VALUE", as for `load_mission`.
      heading: a comment for its first line.
      allow_local_plugins: permit `plugin: ./file.py`.

    Raises:
      MissionError: the file cannot be written, or is not accepted.
    """
    from ruamel.yaml import YAML

    yaml = YAML(typ="rt")
    yaml.width = 120
    yaml.indent(mapping=2, sequence=4, offset=2)
    document = yaml.load(read_text(original))
    for override in overrides:
        apply_override(document, {}, override)
    here, there = original.resolve().parent, target.resolve().parent
    for entry in document["phases"]:
        if local_path(str(entry["plugin"]), here, True, "") is not None:
            entry["plugin"] = _moved(str(entry["plugin"]), here, there)
        pilot = entry.get("policy", "agent")
        if isinstance(pilot, dict):
            entry["policy"] = {"onnx": _moved(str(pilot["onnx"]), here, there)}
        elif (file := onnx_file(pilot)) is not None:
            entry["policy"] = onnx_pilot(_moved(file, here, there))
        elif (folder := unguarded(pilot)) not in NAMED_PILOTS:
            moved = _moved(folder, here, there)
            entry["policy"] = moved if folder == pilot else guarded(moved)
        _move_files(entry.get("params"), here, there)
    _move_files(document.get("params"), here, there)
    stream = io.StringIO()
    yaml.dump(document, stream)
    with machine_errors(target, "a mission file to be written", "free disk space or choose another --output"):
        write_file(target, f"# {heading}\n{stream.getvalue()}".encode())
    resolve_mission(load_mission(target), allow_local_plugins=allow_local_plugins)


def _moved(path: str, here: Path, there: Path) -> str:
    """Return a path that is relative to one folder as one that is relative to another."""
    if os.path.isabs(path):
        return path
    moved = os.path.relpath(here / path, there)
    return moved if moved.startswith(".") else f"./{moved}"


def _move_files(params: Any, here: Path, there: Path) -> None:
    """Rewrite in place each text of the parameters that names a file beside the mission file."""
    items = params.items() if isinstance(params, dict) else enumerate(params) if isinstance(params, list) else ()
    for key, value in list(items):
        if isinstance(value, str) and value and "\0" not in value and (here / value).is_file():
            params[key] = _moved(value, here, there)
        else:
            _move_files(value, here, there)
