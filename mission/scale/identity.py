"""The identity of a sweep or a search: the settings that determine its results. A folder accepts only one identity."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import JsonValue

from mission import __version__
from mission.errors import InputError, machine_errors
from mission.missionfile.models import MissionFile
from mission.missionfile.phases import Phase
from mission.missionfile.resolve import first_change
from mission.report.folder import write_file
from mission.storage.lock import LOCK
from mission.storage.protection import refuse_read_only
from mission.storage.records import PluginRecord, plugin_records
from mission.storage.stored import check_format, read_stored
from mission.strict import Count, StrictModel

R = TypeVar("R", bound="Identity")


class Identity(StrictModel):
    """The conditions under which a folder was begun; `mission` is the content of the mission file."""

    format: Literal[1] = 1
    kind: str
    engine: str = __version__
    mission: dict[str, JsonValue]
    plugins: tuple[PluginRecord, ...]
    cores: Count
    seeds: tuple[int, ...]


def common_identity(mission: MissionFile, phases: Sequence[Phase], cores: int, seeds: Sequence[int]) -> dict[str, Any]:
    """Return the part that sweeps and searches have in common."""
    return {
        "mission": mission.model_dump(mode="json"),
        "plugins": plugin_records(phases),
        "cores": cores,
        "seeds": tuple(seeds),
    }


def stored_identity(folder: Path, file: str, model: type[R]) -> R | None:
    """Return the identity that a folder was begun with; None for a new folder.

    Raises:
      InputError: the folder is read-only, holds something else, or its record is damaged.
      FormatError: this version does not read its format.
    """
    refuse_read_only(folder, "--output")
    path = folder / file
    if not path.is_file():
        others = sorted(entry.name for entry in folder.iterdir() if entry.name != LOCK) if folder.is_dir() else []
        if others or folder.is_file():
            found = "other files: " + ", ".join(others[:5]) if others else "a file"
            raise _other(folder, "a new folder, or one that this command has written", found)
        return None
    kind = model.model_fields["kind"].default
    with machine_errors(path, "a record that can be read", "check the permissions"):
        text = path.read_text(encoding="utf-8", errors="replace")

    def upgrade(data: dict[str, Any], where: str) -> dict[str, Any]:
        if data.get("kind") != kind:
            raise _other(folder, f"the folder of a {kind}", "something else")
        check_format(data, where, 1, 1, data.get("engine"), "choose another --output")
        return data

    try:
        return read_stored(model, text, str(path), upgrade)
    except ValueError as error:
        raise _other(folder, f"the record of a {kind} in {file}", str(error)) from None


def refuse_another(folder: Path, stored: Identity, current: Identity, ignored: set[str]) -> None:
    """Reject a folder that was started with another identity.

    Args:
      folder: for the message.
      stored, current: the identities.
      ignored: fields that may differ; the engine's version always may.

    Raises:
      InputError: names the first difference.
    """
    sides = [one.model_dump(mode="json", exclude={"engine", *ignored}) for one in (stored, current)]
    change = first_change(sides[0], sides[1])
    if change:
        raise _other(folder, f"the {stored.kind} that it was begun with", change)


def write_identity(folder: Path, file: str, identity: Identity) -> None:
    """Write the record of a folder.

    Raises:
      MachineError: disk full or no permission.
    """
    with machine_errors(folder, "a record to be written", "free disk space or choose another --output"):
        write_file(folder / file, identity.model_dump_json(indent=1).encode())


def _other(folder: Path, expected: str, found: str) -> InputError:
    remedy = "choose another --output, or remove that folder; nothing was changed"
    return InputError(str(folder), expected=expected, found=found, remedy=remedy)
