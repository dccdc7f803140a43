"""`mission new`: a complete, installable plugin distribution that trains without further edits."""

from __future__ import annotations

import importlib.util
import keyword
import os
import re
import shlex
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from mission.errors import InputError, machine_errors
from mission.machine.shell import install_command, mission_command, python_command
from mission.missionfile.plugins import installed, list_plugins, normalise

_COMMON = {"pyproject.toml": "pyproject.toml", "README.md": "README.md", "gitignore": ".gitignore"}
_ONE = {
    "mission.yaml": "mission.yaml",
    "phase.py": "__MODULE__/__init__.py",
    "test_phase.py": "tests/test___MODULE__.py",
}
_CHAIN = {
    "chain.yaml": "mission.yaml",
    "chain.py": "__MODULE__/__init__.py",
    "handover.py": "__MODULE__/handover.py",
    "first.py": "__MODULE__/__FIRST_MODULE__.py",
    "second.py": "__MODULE__/__SECOND_MODULE__.py",
    "test_chain.py": "tests/test___MODULE__.py",
}
# No phase of a chain has one of these names: the chain's own module, and the one that a plugin's source hash leaves out.
_RESERVED = ("handover", "report")


def write_skeleton(name: str, directory: Path | None, phases: Sequence[str] = ()) -> Path:
    """Write the distribution and return its folder.

    Args:
      name: name of the distribution, of its mission, and of its phase unless `phases` are given.
      directory: the folder to write; None: the name.
      phases: names of the two phases of a chain with a staging between them; empty for one phase.

    Raises:
      InputError: a name cannot be a module name or is taken, or the folder is not empty.
      MachineError: the folder cannot be written.
    """
    _check_name(name)
    if phases:
        _check_phases(phases)
    folder = directory if directory is not None else Path(name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(
            str(folder), expected="a new or empty folder", found="something in it", remedy="choose another --directory"
        )
    words = _words(name, phases)
    templates = resources.files("mission.missionfile") / "templates"
    with machine_errors(folder, "a folder to write to", "choose another --directory"):
        for template, target in (_COMMON | (_CHAIN if phases else _ONE)).items():
            text = (templates / f"{template}.txt").read_text(encoding="utf-8")
            path = folder / _fill(target, words)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_fill(text, words), encoding="utf-8")
    return folder


def next_steps(folder: Path) -> tuple[str, ...]:
    """Return the shell commands that install, train, fly and test a skeleton in the environment of this process."""
    place = folder if folder.is_absolute() else Path(os.curdir) / folder
    where = f"{'' if folder.is_absolute() else './'}{folder}"
    package, mission_file = shlex.quote(f"{where}[test]"), shlex.quote(str(place / "mission.yaml"))
    return (
        install_command("-q", "-e", package),
        f"{mission_command()} train {mission_file}",
        f"{mission_command()} fly {mission_file}",
        f"{python_command()} -m pytest {shlex.quote(where)}",
    )


def _check_name(name: str) -> None:
    _check_spelling(name, "parachute_descent")
    taken = importlib.util.find_spec(_module(name)) is not None or normalise(f"mission-{name}") in installed()
    if taken or not _is_free(name):
        raise InputError(
            "mission new",
            expected="a name that no Python module, distribution or plugin has yet",
            found=repr(name),
            remedy=f"try {name.rstrip('-_')}_phase",
        )


def _check_phases(phases: Sequence[str]) -> None:
    where = "mission new --phases"
    if len(phases) != 2 or _module(phases[0]) == _module(phases[1]):
        raise InputError(
            where,
            expected="two different names, FIRST,SECOND",
            found=repr(",".join(phases)),
            remedy="write --phases tow,stop; more phases can be added to what is written",
        )
    for phase in phases:
        _check_spelling(phase, "tow")
        if not _is_free(phase) or phase in _RESERVED:
            raise InputError(
                where,
                expected=f"a name that no plugin has yet, and none of {', '.join(_RESERVED)}",
                found=repr(phase),
                remedy=f"try {phase.rstrip('-_')}_phase",
            )


def _check_spelling(name: str, example: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9_-]{0,63}", name):
        raise InputError(
            "mission new",
            expected=f"a name like {example}",
            found=repr(name),
            remedy="use a-z, 0-9, _ and -, a letter first",
        )


def _is_free(name: str) -> bool:
    """Return whether a name can be a module, and no installed plugin has it."""
    plugins = {row.name for row in list_plugins()}
    return name[-1] not in "-_" and not keyword.iskeyword(_module(name)) and name not in plugins


def _module(name: str) -> str:
    return name.replace("-", "_")


def _words(name: str, phases: Sequence[str]) -> dict[str, str]:
    """Return what the words of the templates are replaced by."""
    module = _module(name)
    words = {"__NAME__": name, "__MODULE__": module}
    if not phases:
        entry = f'{name} = "{module}"'
        return words | {"__ENTRY_POINTS__": entry, "__DESCRIPTION__": "A flight phase", "__WHAT__": "the phase"}
    first, second = phases
    entries = "\n".join(f'{phase} = "{module}.{_module(phase)}"' for phase in phases)
    return words | {
        "__FIRST__": first,
        "__SECOND__": second,
        "__FIRST_MODULE__": _module(first),
        "__SECOND_MODULE__": _module(second),
        "__ENTRY_POINTS__": entries,
        "__DESCRIPTION__": "Two flight phases",
        "__WHAT__": "both phases",
    }


def _fill(text: str, words: dict[str, str]) -> str:
    for word, replacement in words.items():
        text = text.replace(word, replacement)
    return text
