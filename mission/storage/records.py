"""Every record that is kept on disk beside arrays: typed, with a format number, and upgraded when it is older.

To change a record: change its model, raise `FORMAT`, and teach `upgrade` the step from the format before.
"""

from __future__ import annotations

import json
from typing import Any, Literal, TypeVar

from pydantic import ConfigDict, Field, JsonValue, ValidationError

from mission.devices import Machine
from mission.errors import FormatError
from mission.gate import GateVerdict
from mission.strict import StrictModel

FORMAT = 2
R = TypeVar("R", bound="StoredRecord")


class PluginRecord(StrictModel):
    """Where the plugin of a phase came from."""

    name: str
    distribution: str
    version: str
    source_sha256: str


class EvaluationRecord(StrictModel):
    """The evaluation of the best policy so far."""

    success: float
    returns: float
    flights: int


class RunProgress(StrictModel):
    """The host's side of a training run; it changes while the phase trains."""

    model_config = ConfigDict(frozen=False)

    env_steps: int = 0
    chunks: int = 0
    evaluations: int = 0
    best_score: list[float] = Field(default_factory=list)
    best_env_steps: int = 0
    finished: str = ""  # "gate" or "budget" once it has ended
    gate: GateVerdict | None = None
    evaluation: EvaluationRecord | None = None


class BankSize(StrictModel):
    """Numbers of training rows and of held-out rows."""

    rows: int
    held_out: int


class StoredRecord(StrictModel):
    """What every stored part of a phase was made under.

    `configuration` holds one `PhaseConfiguration` per phase up to this one, as it was when the record was written;
    `upstream` is the content hash of the policy before, or "start".
    """

    format: Literal[2] = FORMAT
    mission: str
    phase: str
    seed: int
    digest: str
    configuration: tuple[dict[str, JsonValue], ...]
    plugins: tuple[PluginRecord, ...]
    upstream: str
    init: str | None
    engine: str
    machine: Machine


class StepRecord(StoredRecord):
    """A training step: the checkpoint of a run that can be resumed."""

    progress: RunProgress


class PolicyRecord(StoredRecord):
    """A stored policy with its bank; `causes` counts the failures of the bank's flights."""

    gate: GateVerdict | None
    env_steps: int
    best_env_steps: int
    success: float
    causes: dict[str, int]
    content_sha256: str
    bank: BankSize | None


def read_record(model: type[R], text: str, where: str) -> R:
    """Return a stored record, upgraded to the present format.

    Raises:
      FormatError: its format is not one that this version reads.
      ValueError: it is damaged.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"unreadable JSON: {error}") from None
    if not isinstance(data, dict):
        raise ValueError("it holds no mapping")
    data = upgrade(data, where)
    try:
        return model.model_validate_json(json.dumps(data))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{place}: {first['msg']}") from None


def upgrade(data: dict[str, Any], where: str) -> dict[str, Any]:
    """Return the data of a record in the present format.

    Raises:
      FormatError: the format is unknown.
    """
    found = data.get("format")
    if found == 1:
        data = _from_format_1(data)
    elif found != FORMAT:
        raise FormatError(
            where,
            expected=f"a record of format 1 to {FORMAT}, which this version of mission reads",
            found=f"format {str(found)[:40]}, written by mission {str(data.get('engine', '(unknown)'))[:40]}",
            remedy="use the version that wrote it, or train into another --checkpoints; nothing was changed",
        )
    return data


def _from_format_1(data: dict[str, Any]) -> dict[str, Any]:
    """Format 1 (mission 0.1) wrote the settings of a gate as `asked`, and an evaluation's return as `return`."""
    data = data | {"format": FORMAT}
    if isinstance(data.get("machine"), dict):  # it described more than what decides the bits
        data["machine"] = {name: data["machine"].get(name) for name in Machine.model_fields}
    if data.get("gate") is not None:
        data["gate"] = _gate_from_format_1(data["gate"])
    if isinstance(data.get("progress"), dict):
        progress = dict(data["progress"])
        if progress.get("gate") is not None:
            progress["gate"] = _gate_from_format_1(progress["gate"])
        if progress.get("evaluation") is not None:
            evaluation = dict(progress["evaluation"])
            progress["evaluation"] = {"returns": evaluation.pop("return"), **evaluation}
        data["progress"] = progress
    return data


def _gate_from_format_1(verdict: dict[str, Any]) -> dict[str, Any]:
    return {("settings" if key == "asked" else key): value for key, value in verdict.items()}
