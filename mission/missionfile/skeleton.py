"""`mission new`: a complete, installable plugin distribution that trains without further edits."""

from __future__ import annotations

import importlib.util
import keyword
import re
from importlib import resources
from pathlib import Path

from mission.errors import InputError, machine_errors
from mission.missionfile.plugins import installed, list_plugins, normalise

_FILES = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "mission.yaml": "mission.yaml",
    "phase.py": "{module}/__init__.py",
    "test_phase.py": "tests/test_{module}.py",
}


def write_skeleton(name: str, directory: Path | None) -> Path:
    """Write the distribution and return its folder.

    Raises:
      InputError: the name cannot be a module name or is taken, or the folder is not empty.
      MachineError: the folder cannot be written.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_-]{0,63}", name):
        raise InputError(
            "mission new",
            expected="a name like parachute_descent",
            found=repr(name),
            remedy="use a-z, 0-9, _ and -, a letter first",
        )
    module = name.replace("-", "_")
    if (
        name[-1] in "-_"
        or keyword.iskeyword(module)
        or importlib.util.find_spec(module) is not None
        or normalise(f"mission-{name}") in installed()
        or name in {row.name for row in list_plugins()}
    ):
        raise InputError(
            "mission new",
            expected="a name that no Python module, distribution or plugin has yet",
            found=repr(name),
            remedy=f"try {name.rstrip('-_')}_phase",
        )
    folder = directory if directory is not None else Path(name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(
            str(folder), expected="a new or empty folder", found="something in it", remedy="choose another --directory"
        )
    templates = resources.files("mission.missionfile") / "templates"
    with machine_errors(folder, "a folder to write to", "choose another --directory"):
        for template, target in _FILES.items():
            text = (templates / f"{template}.txt").read_text(encoding="utf-8")
            path = folder / target.format(module=module)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.replace("__NAME__", name).replace("__MODULE__", module), encoding="utf-8")
    return folder
