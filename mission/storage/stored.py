"""Read what is stored as JSON: parse it, upgrade it to the current format, and check it through its model.

Everything on disk that is a typed record is read here: the records of checkpoints, baselines, reports and benchmarks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import ValidationError

from mission.errors import FormatError, printable
from mission.strict import StrictModel

R = TypeVar("R", bound=StrictModel)
# (data of a record, its place for messages) -> the data in the current format; raises a MissionError if it cannot
Upgrade = Callable[[dict[str, Any], str], dict[str, Any]]


def read_stored(model: type[R], text: str, where: str, upgrade: Upgrade) -> R:
    """Return the record that a JSON text holds, upgraded to the current format.

    Args:
      model: model of the record.
      text: the content of the file.
      where: the file, for messages.
      upgrade: function that upgrades records of this kind.

    Raises:
      FormatError: its format is not one that this version reads.
      ValueError: it is damaged.
    """
    data = upgrade(json_mapping(text), where)
    try:
        return model.model_validate_json(json.dumps(data))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ValueError(printable(f"{place}: {first['msg']}", 200)) from None


def json_mapping(text: str) -> dict[str, Any]:
    """Parse the JSON of a record.

    Raises:
      ValueError: it is damaged, or says one thing twice.
    """
    try:
        data = json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_reject_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(printable(f"damaged JSON: {error}", 200)) from None
    if not isinstance(data, dict):
        raise ValueError("JSON without a mapping")
    return data


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) < len(pairs):
        raise ValueError("a key stands there twice")
    return data


def _reject_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def check_format(data: dict[str, Any], where: str, oldest: int, newest: int, engine: object, remedy: str) -> int:
    """Return the format of a record, if this version reads it.

    Args:
      data: of the record.
      where: its place, for messages.
      oldest, newest: the formats that this version reads.
      engine: the version of mission that the record names, or None.
      remedy: what to do about another format.

    Raises:
      FormatError: it does not.
    """
    found = data.get("format")
    if type(found) is int and oldest <= found <= newest:  # True and 1.0 equal 1 but are not format numbers
        return found
    formats = f"format {newest}" if oldest == newest else f"format {oldest} to {newest}"
    shown = printable(f"format {found!r}", 60) if "format" in data else "no format number"
    raise FormatError(
        where,
        expected=f"{formats}, which this version of mission reads",
        found=f"{shown}, written by mission {printable(engine or '(unknown)', 40)}",
        remedy=f"use the version of mission that wrote it, or {remedy}; nothing was changed",
    )


def seal(data: dict[str, Any]) -> str:
    """Return the SHA-256 of a record's content; it does not depend on the order of its keys."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
