"""Shell completion of mission files, phases, plugins, pilots and folders; fast, because it runs at every press of Tab."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Generator, Iterable
from pathlib import Path

import typer

from mission.errors import MissionError

_MOST = 200  # entries of a folder
_MOST_CHARACTERS = 1 << 16  # of a mission file
# The name of an entry of `phases:`. A YAML reader would take longer than the rest of a completion.
_NAME = re.compile(r"""(?:-\s+\{?|\{)\s*name:\s*["']?([A-Za-z0-9_-]+)""")
_PILOTS = ("agent", "imitator", "guide", "guarded")


@contextlib.contextmanager
def whole_words() -> Generator[None]:
    """Complete NAME=VALUE in bash, which takes the part behind `=` for a word and replaces that part alone.

    The parts are joined before the command line is parsed, and NAME= is removed from what is printed.
    """
    words, place = os.environ.get("COMP_WORDS", "").split("\n"), os.environ.get("COMP_CWORD", "")
    if os.environ.get("_MISSION_COMPLETE") != "complete_bash" or not place.isdigit() or "=" not in words:
        yield
        return
    now, kept, at = int(place), [], 0
    for index, word in enumerate([*words, ""] if int(place) == len(words) else words):
        if kept and (word == "=" or words[index - 1 : index] == ["="]):
            kept[-1] += word
        else:
            kept.append(word)
        at = len(kept) - 1 if index == now else at
    os.environ |= {"COMP_WORDS": "\n".join(kept), "COMP_CWORD": str(at)}
    name, equals, _ = kept[at].rpartition("=") if at < len(kept) else ("", "", "")
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            yield
    finally:
        for line in printed.getvalue().splitlines():
            print(line.removeprefix(name + equals))


def complete_file(incomplete: str) -> list[str]:
    """Return mission files and folders that begin so, and the names of installed missions."""
    from mission.missionfile.named import list_missions

    return _matching([one.name for one in list_missions()], incomplete) + _paths(incomplete, (".yaml", ".yml"))


def complete_folder(incomplete: str) -> list[str]:
    """Return folders that begin so."""
    return _paths(incomplete, ())


def complete_side(incomplete: str) -> list[str]:
    """Return what `mission compare` takes: mission files, installed missions, and folders of checkpoints."""
    return complete_file(incomplete)


def complete_phase(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the phases of the mission that the command line names."""
    return _matching(_phases(ctx), incomplete)


def complete_init(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return NAME=, then NAME=DIR."""
    name, separator, value = incomplete.partition("=")
    if separator:
        return [f"{name}={path}" for path in _paths(value, ())]
    return _matching([f"{name}=" for name in _phases(ctx)], incomplete)


def complete_policy(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return pilots of all phases, NAME= and NAME=PILOT, and folders."""
    name, separator, value = incomplete.partition("=")
    if separator:
        return [f"{name}={pilot}" for pilot in _matching(_PILOTS, value) + _paths(value, ())]
    names = ["guide", "guarded", *(f"{phase}=" for phase in _phases(ctx))]
    return _matching(names, incomplete) + _paths(incomplete, ())


def complete_set(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return keys of the mission file, and the plugins and observers that may be their values."""
    key, separator, value = incomplete.partition("=")
    if separator:
        names = _installed("mission.phases") if key.endswith(".plugin") else []
        names = [f"[{one}]" for one in _installed("mission.observers")] if key == "observers" else names
        return [f"{key}={name}" for name in _matching(names, value)]
    below = ("plugin", "params.", "sac.", "budget.env_steps", "policy", "gate.", "bank.flights", "evaluation.flights")
    keys = ["seed=", "observers=", *(f"phases.{name}." for name in _phases(ctx))]
    if incomplete.count(".") >= 2 and incomplete.startswith("phases."):
        stem = ".".join(incomplete.split(".")[:2])
        keys = [f"{stem}.{one}{'' if one.endswith('.') else '='}" for one in below]
    return _matching(keys, incomplete)


def _installed(group: str) -> list[str]:
    """Return the names of installed plugins or observers, from their metadata."""
    from mission.missionfile.plugins import list_plugins

    return sorted({row.name for row in list_plugins(group)})


def _phases(ctx: typer.Context) -> list[str]:
    """Return the names of the phases of the file on the command line; none if it cannot be read."""
    # The parser stops at an option without its value, which is being completed; what it has not parsed is in `args`.
    file = ctx.params.get("file") or next((word for word in ctx.args if not word.startswith("-")), None)
    if not file:
        return []
    path = Path(file)
    with contextlib.suppress(MissionError, OSError, ValueError):
        if not path.is_file():
            from mission.missionfile.named import mission_path

            path = mission_path(str(file))
        with path.open(encoding="utf-8") as stream:
            _, _, phases = stream.read(_MOST_CHARACTERS).partition("\nphases:")
        return list(dict.fromkeys(_NAME.findall(phases)))
    return []


def _matching(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _paths(incomplete: str, endings: tuple[str, ...]) -> list[str]:
    """Return folders, with a slash, and files with one of these endings."""
    folder, _, begin = incomplete.rpartition("/")
    stem = f"{folder}/" if "/" in incomplete else ""
    with contextlib.suppress(OSError):
        found = sorted(Path(stem or ".").expanduser().iterdir())[:_MOST]
        shown = [one for one in found if one.name.startswith(begin) and (begin or not one.name.startswith("."))]
        return [
            f"{stem}{one.name}{'/' if one.is_dir() else ''}" for one in shown if one.is_dir() or one.suffix in endings
        ]
    return []
