"""Write a report folder from flights in arrays: those of one run, or those of several that were joined."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path

from mission.flight.batches import BATCH
from mission.report.arrays import Arrays, flights_from, records_from
from mission.report.choosing import choose_flights
from mission.report.flight_records import TrainingStarts
from mission.report.folder import encode_arrays, write_folder
from mission.report.handovers import compare_handovers
from mission.report.header import BandsHeader, ChosenHeader, PhaseHeader, Provenance, ReportHeader
from mission.report.page import PluginReport, render_page
from mission.report.summary import MissionSummary


@dataclasses.dataclass(frozen=True, eq=False)
class Flown:
    """Flights and everything that a report says of them.

    Attributes:
      summary, guide: of the flights, and of the guides on the same seeds.
      first: number of the first flight.
      channels: those of the whole mission.
      starts: phase -> what its training starts are.
      arrays: flights, training starts, bands, and the tracks of flights that may be chosen.
    """

    mission: str
    summary: MissionSummary
    guide: MissionSummary | None
    first: int
    headers: tuple[PhaseHeader, ...]
    channels: tuple[str, ...]
    starts: dict[str, str]
    arrays: Arrays
    provenance: Provenance


def write_report(folder: Path, flown: Flown, reports: Mapping[str, PluginReport | None]) -> None:
    """Choose the flights that are kept in full, and write the folder; `reports` is what plugins add to the page.

    Raises:
      MachineError: the folder cannot be written.
    """
    flights = flights_from(flown.headers, flown.arrays, flown.summary.policy)
    chosen = [
        ChosenHeader(number=flown.first + index, role=role, outcome=flights.outcome(index))
        for index, role in choose_flights(flights)
    ]
    arrays = _only_chosen(flown.arrays, [one.number for one in chosen])
    starts = {name: TrainingStarts(source, arrays[f"starts/{name}"]) for name, source in flown.starts.items()}
    data = encode_arrays(arrays)
    header = ReportHeader(
        mission=flown.mission,
        report=flown.summary,
        guide=flown.guide,
        first_flight=flown.first,
        phases=flown.headers,
        provenance=flown.provenance,
        starts=flown.starts,
        bands=BandsHeader(flights=min(BATCH, flown.summary.flights), channels=flown.channels),
        chosen=tuple(chosen),
        handovers=compare_handovers(flights, starts),
        flights_bytes=len(data),
        flights_sha256=hashlib.sha256(data).hexdigest(),
    )
    write_folder(folder, header, data, render_page(records_from(header, arrays), header.handovers, reports))


def _only_chosen(arrays: Arrays, numbers: list[int]) -> Arrays:
    """Return the arrays, by name, without the tracks of flights that might have been chosen but were not."""
    kept = {f"{number}" for number in numbers}
    return {
        name: arrays[name] for name in sorted(arrays) if not name.startswith("flight/") or name.split("/")[1] in kept
    }
