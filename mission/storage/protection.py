"""Protect folders from writing: shipped policies, and folders of others behind a link."""

from __future__ import annotations

import os
from pathlib import Path

from mission.errors import InputError, MachineError

READ_ONLY = "READ_ONLY"  # a file; nothing is written to the folder that holds it, or below


def refuse_read_only(folder: Path, option: str) -> None:
    """Reject a folder to write to that holds the marker `READ_ONLY`, or is below one that does.

    Args:
      folder: need not exist.
      option: the command-line option that chose it, for the message.

    Raises:
      InputError: names the folder with the marker.
    """
    place = Path(os.path.realpath(folder))
    for marked in (place, *place.parents):
        if os.path.isfile(marked / READ_ONLY):
            raise InputError(
                str(folder),
                expected="a folder to write to",
                found=f"{marked} is read-only: it holds the file {READ_ONLY}, as shipped policies do",
                remedy=f"choose another {option}",
            )


def refuse_links(folder: Path) -> None:
    """Reject a phase's folder that is a link or holds one, because training would change what is behind it.

    Raises:
      MachineError: names the link.
    """
    for path in (folder, *_entries(folder), *_entries(folder / "training")):
        if path.is_symlink():
            raise MachineError(
                str(path),
                expected="a file or folder of this phase",
                found=f"a link to {os.path.realpath(path)}",
                remedy="remove the link, or choose another --checkpoints; nothing was changed",
            )


def check_removable(folder: Path) -> None:
    """Check that a phase's folder holds no link and that everything in it can be removed.

    Raises:
      MachineError: names the link, or a folder without write permission.
    """
    refuse_links(folder)
    places = [folder.parent, *(Path(place) for place, _, _ in os.walk(folder))]
    for place in places:
        if place.exists() and not os.access(place, os.W_OK | os.X_OK):
            raise MachineError(
                str(place),
                expected="a folder whose files can be removed",
                found="no permission to write",
                remedy="correct the permissions; nothing was changed",
            )


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []
