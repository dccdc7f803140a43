"""Missions by name: the mission files and policies that are part of installed distributions.

An entry point of the group `mission.missions` names a package, for example `acme = "acme_flights"`. The folder of that
package holds `missions/NAME.yaml` and, if policies are shipped too, `shipped/MISSION/PHASE/`. No package is imported.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib.util
import re
from os import PathLike
from pathlib import Path

from mission.errors import InputError
from mission.missionfile.hooks import MISSION_GROUP
from mission.missionfile.plugins import Listing, list_plugins, normalise


@dataclasses.dataclass(frozen=True)
class NamedMission:
    """A mission file of an installed distribution; its name is the file's, without `.yaml`."""

    name: str
    distribution: str
    version: str
    path: Path


def list_missions() -> tuple[NamedMission, ...]:
    """Return the missions of installed distributions, by name."""
    found = {
        (path.stem, row.distribution): NamedMission(path.stem, row.distribution, row.version, path)
        for row in list_plugins(MISSION_GROUP)
        for folder in _folders(row)
        for path in (folder / "missions").glob("*.yaml")
    }
    return tuple(found[key] for key in sorted(found))


def shipped_policies(mission: str) -> tuple[Path, ...]:
    """Return the folders with policies of a mission that installed distributions hold."""
    folders = (folder / "shipped" / mission for row in list_plugins(MISSION_GROUP) for folder in _folders(row))
    return tuple(dict.fromkeys(folder for folder in folders if folder.is_dir()))


def mission_path(reference: str | Path) -> Path:
    """Return the mission file that a path, NAME or DISTRIBUTION:NAME refers to; a file of that name comes first.

    Raises:
      InputError: there is no such file, and no distribution, or several, have a mission of that name.
    """
    if not isinstance(reference, str | PathLike):
        raise InputError(
            "the mission",
            expected="a mission file, or the name of an installed mission",
            found=type(reference).__name__,
            remedy="write the mission to a file: sweeps and searches train in processes of their own",
        )
    path, text = Path(reference), str(reference)
    if path.is_file() or (path.exists() and not _is_name(text)):
        return path
    missions = list_missions()
    distribution, _, name = text.rpartition(":")
    matches = [one for one in missions if one.name == name and normalise(distribution) in ("", one.distribution)]
    if len(matches) == 1 and _is_name(text):
        return matches[0].path
    if len(matches) > 1:
        raise InputError(
            text,
            expected="one installed mission of that name",
            found="several: " + ", ".join(f"{one.distribution} {one.version}" for one in matches),
            remedy=f'write "{matches[0].distribution}:{name}"',
        )
    if path.exists():  # a folder whose name no mission has
        return path
    names = sorted({one.name for one in missions})
    near = difflib.get_close_matches(path.stem if path.suffix else name, names, 1, 0.6)
    raise InputError(
        text,
        expected=f"a mission file, or an installed mission: {', '.join(names) or '(none installed)'}",
        found="no such file" if path.suffix or path.name != text else "no such file or mission",
        remedy=f'did you mean "{near[0]}"?' if near else "give the path of a YAML file",
    )


def _is_name(text: str) -> bool:
    return re.fullmatch(r"([\w.-]+:)?[\w-]+", text) is not None


def _folders(row: Listing) -> list[Path]:
    """Return the folders of the package that an entry point names."""
    top, *below = row.target.partition(":")[0].split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return []
    places = spec.submodule_search_locations if spec is not None else None
    return [Path(place).joinpath(*below) for place in places or ()]
