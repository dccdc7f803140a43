"""Skip checks of a plugin if nothing on which they depend has changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from mission.machine.kept import file_hash, remembered
from mission.missionfile.sources import UNKNOWN_SOURCE, files_read, note_files
from mission.phase import PluginOrigin

T = TypeVar("T")


def once(identity: list[Any], origin: PluginOrigin, check: Callable[[], T]) -> T:
    """Return what a check of a plugin returns, or returned before under the same identity; files that it reads count."""
    known = not origin.local and origin.source_sha256 != UNKNOWN_SOURCE

    def valid(kept: tuple[T, dict[str, str]]) -> bool:
        return all(file_hash(path) == found for path, found in kept[1].items())

    result, files = remembered(
        json.dumps(identity, default=lambda model: model.model_dump_json()) if known else None,
        lambda: files_read(check),
        valid,
    )
    note_files(files)
    return result
