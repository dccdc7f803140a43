"""Read one of the JSON files of a report: parse it, upgrade it to the current format, and check it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import ValidationError

from mission.errors import FormatError, InputError
from mission.strict import StrictModel

R = TypeVar("R", bound=StrictModel)
# (data of a record, its place for messages) -> the data in the present format; raises a MissionError if it cannot
Upgrade = Callable[[dict[str, Any], str], dict[str, Any]]


def parse_record(model: type[R], text: str, where: str, *, what: str, upgrade: Upgrade, remedy: str) -> R:
    """Return the record that a JSON text holds, upgraded to the current format.

    Args:
      model: model of the record.
      text: the content of the file.
      where, what: the file, and what it should hold, for messages.
      upgrade: function that upgrades files of this kind.
      remedy: what to do if the file is damaged.

    Raises:
      FormatError: its format is not one that this version reads.
      InputError: it is damaged.
    """

    def damaged(found: str) -> InputError:
        return InputError(where, expected=what, found=found, remedy=remedy)

    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise damaged(f"damaged JSON: {str(error)[:200]}") from None
    if not isinstance(data, dict):
        raise damaged("JSON without a mapping")
    data = upgrade(data, where)
    try:
        return model.model_validate_json(json.dumps(data))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise damaged(f"{place[:100]}: {first['msg'][:200]}") from None


def unknown_format(where: str, expected: int, data: dict[str, Any], written_by: object, remedy: str) -> FormatError:
    """Return the error for a record of a different format; `written_by` is the version that the record names."""
    version = f", written by mission {str(written_by)[:40]}" if written_by else ""
    return FormatError(
        where,
        expected=f"format {expected}, which this version of mission reads",
        found=f"format {str(data.get('format'))[:40]}{version}",
        remedy=f"{remedy}; nothing was changed",
    )
