"""Pilots of a phase: one of its own, the policy in a folder, or an ONNX model.

A pilot is always stored as one text: `agent`, `imitator`, `guide`, `guarded`, a folder with a slash, `guarded:` before
such
a folder, or `onnx:` before a file. A mission file writes the last one as `{onnx: FILE}`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema

from mission.errors import InputError

NamedPilot = Literal["agent", "imitator", "guide", "guarded"]
NAMED_PILOTS: tuple[str, ...] = get_args(NamedPilot)
_GUARDED = "guarded"  # the agent, until its guard hands over to the guide
_GUARDED_FOLDER = f"{_GUARDED}:"  # before the folder of a trained phase: its policy instead of the agent
_ONNX = "onnx:"  # before a file


def _from_mapping(value: Any) -> Any:
    """Return `onnx:FILE` for `{onnx: FILE}`; anything else as it is."""
    if isinstance(value, dict):
        file = value.get("onnx")
        if list(value) != ["onnx"] or not isinstance(file, str) or not file:
            raise ValueError("{onnx: FILE}")
        return f"{_ONNX}{file}"
    return value


def _folder_or_file(text: str) -> str:
    if onnx_file(unguarded(text)) is not None and text.startswith(_GUARDED_FOLDER):
        raise ValueError("an ONNX model without `guarded:`, since no guard is fitted to it")
    if onnx_file(text) == "" or ("/" not in text and onnx_file(text) is None):
        raise ValueError("the folder of a trained phase, with a slash: ./landing")
    return text


_SCHEMA = {
    "anyOf": [
        {"type": "string", "pattern": "/|^onnx:."},
        {
            "type": "object",
            "properties": {"onnx": {"type": "string", "minLength": 1}},
            "required": ["onnx"],
            "additionalProperties": False,
        },
    ]
}
_Other = Annotated[str, AfterValidator(_folder_or_file), BeforeValidator(_from_mapping), WithJsonSchema(_SCHEMA)]
Pilot = NamedPilot | _Other


def onnx_file(pilot: str) -> str | None:
    """Return the file of the ONNX model that a pilot is, as it was written; None for any other pilot."""
    return pilot.removeprefix(_ONNX) if pilot.startswith(_ONNX) else None


def onnx_pilot(file: str) -> str:
    """Return the pilot that is the ONNX model in a file."""
    return f"{_ONNX}{file}"


def pilot_in_words(pilot: str) -> str:
    """Return the pilot of a phase in words: its agent, imitator or guide, or another policy; and whether under guard."""
    flies, file = unguarded(pilot), onnx_file(pilot)
    if file is not None:
        return f"the ONNX policy {file}"
    words = f"its {flies}" if flies in NAMED_PILOTS else f"the policy in {flies}"
    return words if flies == pilot else f"{words} under guard"


def unguarded(pilot: str) -> str:
    """Return the pilot of a phase before a take-over; the pilot itself if there is no guard."""
    return "agent" if pilot == _GUARDED else pilot.removeprefix(_GUARDED_FOLDER)


def guarded(pilot: str) -> str:
    """Return the pilot that is "agent" or the policy in a folder, under guard."""
    return _GUARDED if pilot == "agent" else f"{_GUARDED_FOLDER}{pilot}"


def read_pilot(pilot: str | Path, where: str) -> str:
    """Return a pilot as `PhaseEntry.policy` has it, for a value from the command line or from Python.

    Args:
      pilot: a folder of the working directory needs no slash.
      where: the option, for messages.

    Raises:
      InputError: it is none.
    """
    text = str(pilot)
    if text in NAMED_PILOTS and not isinstance(pilot, Path):
        return text
    folder = unguarded(text)
    file = onnx_file(folder)
    if file is None and "/" in text:
        return text
    if file and folder == text:
        return text
    if file is not None or not Path(folder).is_dir():
        expected = f"{', '.join(NAMED_PILOTS)}, the folder of a trained phase, or onnx:FILE"
        raise InputError(where, expected=expected, found=text or "nothing", remedy="name one of them")
    return f"./{text}" if folder == text else guarded(f"./{folder}")
