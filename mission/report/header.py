"""The header of a report, `summary.json`: everything stored about a flown mission except the arrays of its flights.

The key of an unfinished report is here, too. To change either: change its model, raise `FORMAT`, and extend `upgrade`
with the step from the previous format.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import JsonValue

from mission.devices import Machine
from mission.phase import Limit
from mission.report.benchmark import Benchmark
from mission.report.stored import unknown_format
from mission.report.summary import MissionSummary
from mission.strict import StrictModel

FORMAT = 2  # of the header, of the arrays, and of the batches of an unfinished report
KIND = "mission report"
Role = Literal["nominal", "median", "worst", "lost"]


class PhaseHeader(StrictModel):
    """One phase of a flown mission: its plugin, who flew it, and the names of what its arrays hold.

    `params` are the plugin's validated parameters as JSON; `causes[0]` names the success; `benchmark` is the
    measurement that a script stored beside the phase's policy.
    """

    name: str
    plugin: str
    distribution: str
    version: str
    source_sha256: str
    flown_by: Literal["agent", "guide"]
    params: dict[str, JsonValue]
    causes: tuple[str, ...]
    channels: tuple[str, ...]
    limits: tuple[Limit, ...]
    benchmark: Benchmark | None


class Provenance(Machine):
    """Where the numbers of a report come from: commands, versions, policies, and the machine that flew.

    `policies_sha256` holds one hash per phase, None where the guide flew.
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

    flights: int
    channels: tuple[str, ...]


class ChosenHeader(StrictModel):
    """A flight that is kept in full: its number, why it was chosen, and how it ended."""

    number: int
    role: Role
    outcome: str


class ChannelShift(StrictModel):
    """One channel at one hand-over: how far the flights that enter a phase are from its training starts.

    `distance` is that of Kolmogorov and Smirnov, the largest difference between the two distribution functions.
    """

    phase: str
    channel: str
    distance: float
    p_value: float
    differs: bool


class ReportHeader(StrictModel):
    """The summary of a report: `report` is that of the flights, `guide` that of the guides on the same seeds.

    `starts` describes what each phase but the first was trained from; `flights_sha256` is the hash of
    `flights.npz`.
    """

    kind: Literal["mission report"] = KIND
    format: Literal[2] = FORMAT
    mission: str
    report: MissionSummary
    guide: MissionSummary | None
    phases: tuple[PhaseHeader, ...]
    provenance: Provenance
    starts: dict[str, str]
    bands: BandsHeader
    chosen: tuple[ChosenHeader, ...]
    handovers: tuple[ChannelShift, ...]
    flights_bytes: int
    flights_sha256: str


class UnfinishedKey(StrictModel):
    """The key of an unfinished report: everything that decides the numbers of its flights.

    `actors` holds the hash of each phase's policy (None: the guide flies), `plugins` that of each phase's source.
    """

    format: Literal[2] = FORMAT
    mission: str
    digest: str
    seed: int
    policy: str
    actors: tuple[str | None, ...]
    plugins: tuple[str, ...]
    engine: str


def upgrade(data: dict[str, Any], where: str) -> dict[str, Any]:
    """Return the data of a header or of a key in the present format.

    Format 2 is that of mission 0.1; there is no older one.

    Raises:
      FormatError: the format is unknown.
    """
    if data.get("format") != FORMAT:
        provenance = data.get("provenance")
        written_by = (provenance if isinstance(provenance, dict) else data).get("engine")
        remedy = "use the version that wrote it, or write a new report into another folder"
        raise unknown_format(where, FORMAT, data, written_by, remedy)
    return data
