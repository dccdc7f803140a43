"""The header of a report, `summary.json`: everything stored about a flown mission except the arrays of its flights.

The key of an unfinished report is here, too. To change either: change its model, raise `FORMAT`, and extend `upgrade`
with the step from the previous format.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue

from mission.machine.devices import Machine
from mission.missionfile.statistics import Distribution
from mission.phase import Limit
from mission.report.benchmark import Benchmark
from mission.report.summary import MissionSummary
from mission.storage.stored import check_format, seal
from mission.strict import Fraction01, Natural, StrictModel

OLDEST, FORMAT = 2, 7  # of the header and of the arrays
KEY_FORMAT = 5  # of the batches of an unfinished report
KIND = "mission report"
Role = Literal["nominal", "median", "worst", "lost"]


class PhaseHeader(StrictModel):
    """One phase of a flown mission: its plugin, its pilot, and the names of its channels, causes and limits.

    `flown_by` is as in `PhaseSummary`. `params` are the plugin's validated parameters as JSON; `causes[0]` names the success; `benchmark` is the
    measurement that a script stored beside the phase's policy; `control_period_s` is unknown before format 4.
    """

    name: str
    plugin: str
    distribution: str
    version: str
    source_sha256: str
    flown_by: str
    params: dict[str, JsonValue]
    causes: tuple[str, ...]
    channels: tuple[str, ...]
    limits: tuple[Limit, ...]
    benchmark: Benchmark | None
    control_period_s: float | None = None


class Provenance(Machine):
    """Where the numbers of a report come from: commands, versions, policies, and the machine that flew.

    `policies_sha256` holds the hash of the policy that flew each phase, None where the guide did.
    """

    commands: tuple[str, ...]
    mission_file: str
    engine: str
    policies_sha256: tuple[str | None, ...]
    training_seed: int
    python: str
    numpy: str


class BandsHeader(StrictModel):
    """The number of flights that the bands are made of, and the channels of their columns."""

    flights: Natural
    channels: tuple[str, ...]


class ChosenHeader(StrictModel):
    """A flight that is kept in full: its number, why it was chosen, and how it ended."""

    number: Natural
    role: Role
    outcome: str


class ChannelShift(StrictModel):
    """One channel at one hand-over: how far the flights that enter a phase are from its training starts.

    `distance` is that of Kolmogorov and Smirnov, the largest difference between the two distribution functions.
    """

    phase: str
    channel: str
    distance: Fraction01
    p_value: Fraction01
    differs: bool


class ReportHeader(StrictModel):
    """The summary of a report: `report` is that of the flights, `guide` that of the guides on the same seeds.

    `first_flight` is the number of the first flight; `starts` describes what each phase but the first was trained from; `flights_sha256` is the hash of
    `flights.npz`, `sha256` the seal of all other fields (`mission.storage.stored.seal`; format 2 had none).
    """

    kind: Literal["mission report"] = KIND
    format: Literal[7] = FORMAT
    mission: str
    report: MissionSummary
    guide: MissionSummary | None
    first_flight: Natural
    phases: Annotated[tuple[PhaseHeader, ...], Field(min_length=1)]
    provenance: Provenance
    starts: dict[str, str]
    bands: BandsHeader
    chosen: tuple[ChosenHeader, ...]
    handovers: tuple[ChannelShift, ...]
    flights_bytes: Natural
    flights_sha256: str
    sha256: str = ""

    def seal(self) -> str:
        """Return what `sha256` should be."""
        return seal(self.model_dump(mode="json", exclude={"sha256"}))


class UnfinishedKey(StrictModel):
    """The key of an unfinished report: everything that determines its flights.

    `actors` holds the hash of the policy that flies each phase (None: the guide does), `plugins` that of each phase's source,
    `feasibility` that of the networks whose predictions are recorded, `starts` that of a table of starts.
    """

    format: Literal[5] = KEY_FORMAT
    mission: str
    digest: str
    seed: int
    policy: str
    actors: tuple[str | None, ...]
    plugins: tuple[str, ...]
    engine: str
    feasibility: str | None = None
    starts: str | None = None


def upgrade(data: dict[str, Any], where: str) -> dict[str, Any]:
    """Return the data of a header or of a key in the current format.

    Format 2 is that of mission 0.1; there is no older one. Its summaries lack returns. Reports of format 3 begin with
    flight 0. Summaries of format 4 do not contain the pilots, those of format 5 not the criterion at hand-overs, and
    those of format 6 no guards.

    Raises:
      FormatError: the format is unknown.
      ValueError: the hash of the summary is missing or wrong.
    """
    provenance, header = data.get("provenance"), data.get("kind") == KIND
    engine = (provenance if isinstance(provenance, dict) else data).get("engine")
    newest = FORMAT if header else KEY_FORMAT
    found = check_format(data, where, OLDEST, newest, engine, "write a new report into another folder")
    if header and found > 2 and not data.get("sha256"):
        raise ValueError("sha256: Field required")
    if found == newest:
        return data
    if not header:
        return data | {"format": KEY_FORMAT}
    if found == 2:
        for side in ("report", "guide"):
            data = data | {side: _with_returns(data[side]) if isinstance(data.get(side), dict) else data.get(side)}
    elif data["sha256"] != seal({name: value for name, value in data.items() if name != "sha256"}):
        raise ValueError("the hash of the summary: does not fit")
    data = data if found >= 4 else data | {"first_flight": 0}
    return (data if found >= 5 else _with_pilots(data)) | {"format": FORMAT, "sha256": ""}


def _with_pilots(data: dict[str, Any]) -> dict[str, Any]:
    """Return the data of a header whose summaries say who flew each phase, as its list of phases does."""
    phases = data.get("phases")
    pilots = [one.get("flown_by") if isinstance(one, dict) else None for one in phases or ()]
    for side, flown_by in (("report", pilots), ("guide", ["guide"] * len(pilots))):
        summary = data.get(side)
        if isinstance(summary, dict) and isinstance(summary.get("phases"), list):
            described = [
                one | {"flown_by": pilot} if isinstance(one, dict) else one
                for one, pilot in zip(summary["phases"], flown_by, strict=False)
            ]
            data = data | {side: summary | {"phases": described}}
    return data


def _with_returns(summary: dict[str, Any]) -> dict[str, Any]:
    """Return the data of a summary of format 2 with returns that are not known."""
    unknown = Distribution().model_dump()
    phases = summary.get("phases")
    if isinstance(phases, list):
        summary = summary | {"phases": [one | {"returns": unknown} if isinstance(one, dict) else one for one in phases]}
    return summary | {"returns": unknown}
