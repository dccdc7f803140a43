"""Every record that is stored beside arrays: typed, with a format number, and upgraded if it is older.

To change a record: change its model, raise `FORMAT` (and the format of `mission.missionfile.gate.GateVerdict`), and extend
`upgrade` with the step from the previous format. A new option of a plugin or learner is not such a change, because
configurations are stored as JSON and compared through the current models (`mission.missionfile.changes`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, Field, JsonValue, StringConstraints, model_validator

from mission.machine.devices import Machine
from mission.missionfile.gate import GateVerdict
from mission.missionfile.models import Name
from mission.missionfile.phases import Phase, PhaseConfiguration
from mission.storage.stored import check_format, read_stored
from mission.strict import Count, Fraction01, Natural, Seed, StrictModel

FORMAT = 4
Sha256 = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
R = TypeVar("R", bound="Record")


class PluginRecord(StrictModel):
    """Where the plugin of a phase came from."""

    name: str
    distribution: str
    version: str
    source_sha256: str


class EvaluationRecord(StrictModel):
    """An evaluation of a policy; `passed` says whether it met the bounds of the gate, if there is one."""

    success: Fraction01
    returns: float
    flights: Count
    passed: bool = False


class RunProgress(StrictModel):
    """The host's part of the state of a training run; it changes while the phase trains.

    `evaluation` is that of the best policy so far, and `most_success` the largest success rate of an evaluation with the
    same `passed`.
    """

    model_config = ConfigDict(frozen=False)

    env_steps: Natural = 0
    chunks: Natural = 0
    evaluations: Natural = 0
    looks: Natural = 0  # at the gate
    most_success: Fraction01 = 0.0
    best_env_steps: Natural = 0
    finished: Annotated[str, StringConstraints(pattern="^(|gate|budget)$")] = ""  # how training has ended
    gate: GateVerdict | None = None
    evaluation: EvaluationRecord | None = None


class BankSize(StrictModel):
    """Numbers of training rows and of held-out rows."""

    rows: Annotated[Count, Field(le=10**6)]
    held_out: Annotated[Count, Field(le=10**6)]


class Record(StrictModel):
    """A record that is a separate file on disk."""

    format: Literal[4] = FORMAT


class StoredRecord(Record):
    """The conditions under which a stored part of a phase was made.

    `configuration`, `given` and `plugins` have one entry per phase up to this one, as it was when the record was
    written. `given` holds the parameters as the mission file gave them; version 0.1 did not store them (None).
    `upstream` is the content hash of the policy before, or "start".
    """

    mission: Name
    phase: Name
    seed: Seed
    digest: Sha256
    configuration: tuple[PhaseConfiguration, ...]
    given: tuple[dict[str, JsonValue], ...] | None = None
    plugins: tuple[PluginRecord, ...]
    upstream: str
    init: str | None
    engine: str
    machine: Machine

    @model_validator(mode="after")
    def _one_entry_per_phase(self) -> StoredRecord:
        names = [one.name for one in self.configuration]
        lengths = {len(names), len(self.plugins), len(self.given if self.given is not None else names)}
        if len(lengths) > 1 or names[-1:] != [self.phase] or len(set(names)) < len(names):
            raise ValueError("configuration, given and plugins need one entry for each phase up to this one")
        return self


class StepRecord(StoredRecord):
    """A training step: the checkpoint of a run that can be resumed."""

    progress: RunProgress


class PolicyRecord(StoredRecord):
    """A stored policy with its bank; `causes` counts the failures of the bank's flights.

    `returns` is the mean return of these flights; None without a reward, and in records of older formats. `flown_by` is
    who flew them: "agent", "guide", or the folder of a policy as the mission file names it.
    """

    gate: GateVerdict | None
    env_steps: Natural
    best_env_steps: Natural
    success: Fraction01
    returns: float | None = None
    causes: dict[str, Natural]
    content_sha256: Sha256
    bank: BankSize | None
    flown_by: str = "agent"


def plugin_records(phases: Sequence[Phase]) -> tuple[PluginRecord, ...]:
    """Return the origins of the plugins of phases, as records store them."""
    return tuple(PluginRecord(**dataclasses.asdict(phase.origin)) for phase in phases)


def read_record(model: type[R], text: str, where: str) -> R:
    """Return a stored record, upgraded to the current format.

    Raises:
      FormatError: its format is not one that this version reads.
      ValueError: it is damaged.
    """
    return read_stored(model, text, where, upgrade)


def upgrade(data: dict[str, Any], where: str) -> dict[str, Any]:
    """Return the data of a record, and of the verdicts in it, in the current format.

    Raises:
      FormatError: the format is unknown.
    """
    engine, remedy = data.get("engine"), "choose another --checkpoints"
    found = check_format(data, where, 1, FORMAT, engine, remedy)
    if found == 1:
        data = _from_format_1(data)
    for holder in (data, data.get("progress")):
        verdict = holder.get("gate") if isinstance(holder, dict) else None
        if isinstance(verdict, dict):
            check_format(verdict, f"{where}: gate", 1, FORMAT, engine, remedy)
    if found <= 2:
        data = _from_format_2(data)
    return _without_score(data if found == FORMAT else _from_format_3(data))


def _without_score(data: dict[str, Any]) -> dict[str, Any]:
    """Upgrade the score by which earlier versions chose a policy: its first number said whether the gate's bounds were met.

    No number of a format stands for this change, because the score was in all of them.
    """
    progress = data.get("progress")
    if not isinstance(progress, dict) or "best_score" not in progress:
        return data
    progress = dict(progress)
    score, best = progress.pop("best_score"), progress.get("evaluation")
    if isinstance(best, dict):
        progress["evaluation"] = best | {"passed": bool(score and score[0])}
        progress["most_success"] = best.get("success")
    return data | {"progress": progress}


def _from_format_1(data: dict[str, Any]) -> dict[str, Any]:
    """Upgrade from format 1 (mission 0.1): it named a gate's settings `asked`, and an evaluation's return `return`."""
    data = dict(data)
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
    return renamed | {"format": 2}


def _from_format_2(data: dict[str, Any]) -> dict[str, Any]:
    """Upgrade from format 2: it knew neither returns nor how often a gate was looked at."""
    progress = data.get("progress")
    if isinstance(progress, dict) and isinstance(progress.get("gate"), dict):
        return data | {"progress": progress | {"looks": 1}}
    return data


def _from_format_3(data: dict[str, Any]) -> dict[str, Any]:
    """Upgrade from format 3: it counted who flies a phase as part of the configuration."""
    data = data | {"format": FORMAT}
    phases = data.get("configuration")
    if isinstance(phases, list) and all(isinstance(phase, dict) for phase in phases):
        if "bank" in data and phases:  # the record of a policy
            data["flown_by"] = phases[-1].get("policy")
        data["configuration"] = [{k: v for k, v in phase.items() if k != "policy"} for phase in phases]
    if isinstance(data.get("gate"), dict):
        data["gate"] = data["gate"] | {"format": FORMAT}
    progress = data.get("progress")
    if isinstance(progress, dict) and isinstance(progress.get("gate"), dict):
        data["progress"] = progress | {"gate": progress["gate"] | {"format": FORMAT}}
    return data
