"""Every record that is stored beside arrays: typed, with a format number, and upgraded if it is older.

To change a record: change its model, raise `FORMAT` (and the format of `mission.gate.GateVerdict`), and extend
`upgrade` with the step from the previous format. A new option of a plugin or learner is not such a change, because
configurations are stored as JSON and compared through the current models (`mission.missionfile.changes`).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any, Literal, TypeVar

from pydantic import ConfigDict, Field, JsonValue, ValidationError

from mission.devices import Machine
from mission.errors import FormatError
from mission.gate import GateVerdict
from mission.missionfile.phases import Phase, PhaseConfiguration
from mission.strict import StrictModel

FORMAT = 2
R = TypeVar("R", bound="Record")


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
    """The host's part of the state of a training run; it changes while the phase trains."""

    model_config = ConfigDict(frozen=False)

    env_steps: int = 0
    chunks: int = 0
    evaluations: int = 0
    best_score: list[float] = Field(default_factory=list)
    best_env_steps: int = 0
    finished: str = ""  # "gate" or "budget" once training has ended
    gate: GateVerdict | None = None
    evaluation: EvaluationRecord | None = None


class BankSize(StrictModel):
    """Numbers of training rows and of held-out rows."""

    rows: int
    held_out: int


class Record(StrictModel):
    """A record that is a separate file on disk."""

    format: Literal[2] = FORMAT


class StoredRecord(Record):
    """The conditions under which a stored part of a phase was made.

    `configuration`, `given` and `plugins` have one entry per phase up to this one, as it was when the record was
    written. `given` holds the parameters as the mission file gave them; version 0.1 did not store them (None).
    `upstream` is the content hash of the policy before, or "start".
    """

    mission: str
    phase: str
    seed: int
    digest: str
    configuration: tuple[PhaseConfiguration, ...]
    given: tuple[dict[str, JsonValue], ...] | None = None
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


def plugin_records(phases: Sequence[Phase]) -> tuple[PluginRecord, ...]:
    """Return the origins of the plugins of phases, as records store them."""
    return tuple(PluginRecord(**dataclasses.asdict(phase.origin)) for phase in phases)


def read_record(model: type[R], text: str, where: str) -> R:
    """Return a stored record, upgraded to the current format.

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
        raise ValueError(f"{place}: {first['msg']}") from None


def json_mapping(text: str) -> dict[str, Any]:
    """Parse the JSON of a record.

    Raises:
      ValueError: it is damaged.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"unreadable JSON: {error}") from None
    if not isinstance(data, dict):
        raise ValueError("it holds no mapping")
    return data


def upgrade(data: dict[str, Any], where: str) -> dict[str, Any]:
    """Return the data of a record, and of the verdicts in it, in the current format.

    Raises:
      FormatError: the format is unknown.
    """
    engine = str(data.get("engine", "(unknown)"))[:40]
    found = _check_format(data, where, engine)
    if found == 1:
        return _from_format_1(data)
    for holder in (data, data.get("progress")):
        verdict = holder.get("gate") if isinstance(holder, dict) else None
        if isinstance(verdict, dict):
            _check_format(verdict, f"{where}: gate", engine)
    return data


def _check_format(data: dict[str, Any], where: str, engine: str) -> int:
    """Return the format of a record, 1 to FORMAT."""
    found = data.get("format")
    if type(found) is int and 1 <= found <= FORMAT:  # True and 1.0 equal 1 but are not format numbers
        return found
    raise FormatError(
        where,
        expected=f"a record of format 1 to {FORMAT}, which this version of mission reads",
        found=f"{f'format {found!r}'[:60] if 'format' in data else 'no format number'}, written by mission {engine}",
        remedy="use the version of mission that wrote it, or choose another --checkpoints; nothing was changed",
    )


def _from_format_1(data: dict[str, Any]) -> dict[str, Any]:
    """Upgrade from format 1 (mission 0.1): it named a gate's settings `asked`, and an evaluation's return `return`."""
    data = data | {"format": FORMAT}
    if isinstance(data.get("machine"), dict):  # it also held entries that do not decide the bits
        data["machine"] = {name: data["machine"].get(name) for name in Machine.model_fields}
    if isinstance(data.get("gate"), dict):
        data["gate"] = _gate_from_format_1(data["gate"])
    if isinstance(data.get("progress"), dict):
        progress = dict(data["progress"])
        if isinstance(progress.get("gate"), dict):
            progress["gate"] = _gate_from_format_1(progress["gate"])
        if isinstance(progress.get("evaluation"), dict):
            progress["evaluation"] = {
                ("returns" if key == "return" else key): value for key, value in progress["evaluation"].items()
            }
        data["progress"] = progress
    return data


def _gate_from_format_1(verdict: dict[str, Any]) -> dict[str, Any]:
    renamed = {("settings" if key == "asked" else key): value for key, value in verdict.items()}
    return renamed | {"format": FORMAT}
