"""`interface.json`: what an exported policy expects and gives, how close it is to its policy, and the hash of every file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from mission.errors import FormatError, InputError, MachineError
from mission.storage.export import INTERFACE
from mission.storage.stored import json_mapping
from mission.strict import StrictModel

PARITY, GOLDEN, NOTICE = "parity.json", "golden_vectors.json", "LICENSE_NOTE.txt"
FORMAT = 1
FormatName = Literal["c99", "onnx", "stablehlo", "npz"]


class ObservationField(StrictModel):
    """One entry of the observation; `lowest` and `highest` are from the flights on which the export was compared.

    `quantity`, `unit`, `scale` and `frame` say how the entry is computed; None where the phase does not describe it.
    """

    name: str
    quantity: str | None
    unit: str | None
    scale: str | None
    frame: str | None
    lowest: float
    highest: float


class ActionField(StrictModel):
    """One entry of the action; `lowest_flown` and `highest_flown` are from the same flights."""

    name: str
    minimum: float = -1.0
    maximum: float = 1.0
    lowest_flown: float
    highest_flown: float


class ChannelField(StrictModel):
    """One telemetry channel, whose name ends in its unit, that `policy_observe` of a C export takes."""

    name: str
    lowest: float
    highest: float


class Interface(StrictModel):
    """The content of `interface.json`.

    `history` is the number of observations that the policy sees at once: the newest first, then those of the control steps
    before; at the start of a phase the first one stands for them. `files` holds the SHA-256 of every other file.
    """

    format: Literal[1] = FORMAT
    target: FormatName
    arithmetic: str
    made_by: str
    mission: str
    phase: str
    plugin: str
    plugin_version: str
    policy_sha256: str
    control_period_s: float
    rate_hz: float
    history: int
    observations: tuple[ObservationField, ...]
    actions: tuple[ActionField, ...]
    channels: tuple[ChannelField, ...]
    declarations: str = ""
    files: dict[str, str]


class Latency(StrictModel):
    """Microseconds of one control step: median and worst of all calls, and the worst input where only its fastest call counts."""

    build: str
    calls: int
    median_us: float
    worst_us: float
    undisturbed_us: float


class Parity(StrictModel):
    """The content of `parity.json`: an export compared with its policy on observations from flights.

    Attributes:
      compared_with: the function of JAX with which it is compared, and its arithmetic.
      observations: number of observations.
      largest_difference: of an action, absolute.
      bound: what it had to stay within.
      from_flown: the largest difference from the policy as it flies, in float32.
      rounding_of_flown: the largest difference of that from the same function in float64, for comparison.
      observation_difference: of `policy_observe`, absolute; None without it.
      golden_vectors: number of golden vectors that were checked.
      latency: time of one control step.
      stack_bytes: the most that a call needs on the stack; None except for C.
      undefined_symbols: what the object file takes from other libraries; None except for C.
      flags: of the compiler.
      versions: of what took part.
    """

    format: Literal[1] = FORMAT
    target: FormatName
    compared_with: str
    observations: int
    largest_difference: float
    bound: float
    from_flown: float
    rounding_of_flown: float
    observation_difference: float | None = None
    golden_vectors: int
    latency: tuple[Latency, ...]
    stack_bytes: int | None = None
    undefined_symbols: tuple[str, ...] | None = None
    flags: str | None = None
    versions: dict[str, str]


def sha256(content: bytes) -> str:
    """Return the hash of a file's content."""
    return hashlib.sha256(content).hexdigest()


def is_export(folder: Path) -> bool:
    """Return whether a folder holds an exported policy."""
    return os.path.isfile(folder / INTERFACE)  # which also answers for a path that is too long


def read_interface(folder: Path, where: str) -> Interface:
    """Return the interface of an exported policy, once every file is as it was written.

    Args:
      folder: of the export.
      where: what names it, for messages.

    Raises:
      InputError: there is no export in it.
      FormatError: it has a format that this version does not read.
      MachineError: a file is missing or was altered.
    """
    if not is_export(folder):
        raise InputError(
            where,
            expected="a folder that `mission export` wrote",
            found=f"{folder}: {'no ' + INTERFACE + ' in it' if folder.exists() else 'no such folder'}",
            remedy="write it with `mission export FILE --phase NAME --format c99 -o DIR`",
        )
    try:
        data = json_mapping((folder / INTERFACE).read_text(encoding="utf-8"))
        if data.get("format") != FORMAT:
            raise FormatError(
                str(folder / INTERFACE),
                expected=f"format {FORMAT}",
                found=f"format {data.get('format')}",
                remedy="export the policy again with this version",
            )
        interface = Interface.model_validate_json((folder / INTERFACE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _altered(folder / INTERFACE, " ".join(str(error).split())[:200]) from None
    _check_files(folder, interface.files)
    return interface


def _check_files(folder: Path, files: Mapping[str, str]) -> None:
    for name, wanted in files.items():
        try:
            found = sha256((folder / Path(name).name).read_bytes())
        except OSError as error:
            raise _altered(folder / name, str(error)) from None
        if found != wanted:
            raise _altered(folder / name, f"another SHA-256: {found}")


def _altered(path: Path, found: str) -> MachineError:
    return MachineError(
        str(path), expected="a file as `mission export` wrote it", found=found, remedy="export the policy again"
    )
