"""Flights as tables: one row for each flight and phase that it entered, and one for each sample of a flight kept in full.

Shapes: N flights, C channels of a phase, L limits of it, R rows, T samples of a flight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mission.flight.chain import Chain
from mission.flight.fly import PhaseFlight
from mission.missionfile.arguments import given_path
from mission.report.arrays import Arrays, flights_from, pack_flight, records_from
from mission.report.batch_recorder import phase_header
from mission.report.flight_records import FlownPhase
from mission.report.header import PhaseHeader
from mission.report.redraw import read_report
from mission.report.summary import MissionSummary
from mission.storage.tables import Labels, Table


class _Block(NamedTuple):
    """The rows of one phase, by one set of policies: flight numbers, columns that all have, and those of its channels."""

    policy: str
    phase: str
    cause: np.ndarray  # of str
    common: dict[str, np.ndarray]
    channels: dict[str, np.ndarray]


def read_flights(folder: str | Path) -> Table:
    """Return the flights of a report, with one row for each flight and each phase that it entered.

    The columns are `policy` (that of the report, then "guide" if the guides flew the same seeds), `flight` (its number), `phase`,
    `success`, `cause` (of the end; also of a success), `steps`, `duration_s`, `returns` (missing without a reward), `takeover`
    (control step from which the guide flew; -1: it did not; missing without a guard), `feasible` (probability at entry
    that the mission succeeds; missing if it is not known); and by channel `enter/NAME` and `end/NAME`, with a limit
    `lowest/NAME` and `highest/NAME`
    too, missing where a phase has no such channel.

    Args:
      folder: of the report, from `fly_mission(report=...)`.

    Raises:
      InputError: it is not a report, or it is damaged.
      FormatError: the report has a format that this version does not read.
    """
    header, arrays = read_report(given_path(folder, "read_flights"))
    sides = [header.report.policy, *(["guide"] if header.guide is not None else [])]
    return flights_table(header.phases, arrays, sides, header.first_flight)


def read_tracks(folder: str | Path) -> Table:
    """Return the flights that a report keeps in full (docs/reports.md), with one row per sample.

    The columns are `flight`, `role`, `phase`, `time_s` since the mission began, and every channel by its name, missing where a
    phase has no such channel.

    Args:
      folder: of the report, from `fly_mission(report=...)`.

    Raises:
      InputError: it is not a report, or it is damaged.
      FormatError: the report has a format that this version does not read.
    """
    header, arrays = read_report(given_path(folder, "read_tracks"))
    records = records_from(header, arrays)
    kept = [(flight, track) for flight in records.chosen for track in flight.tracks]
    sizes = [len(track.time_s) for _, track in kept]
    return Table(
        {
            "flight": np.repeat(np.array([flight.number for flight, _ in kept], np.int64), sizes),
            "role": _labels([flight.role for flight, _ in kept], sizes),
            "phase": _labels([track.phase for _, track in kept], sizes),
            "time_s": _joined([track.time_s for _, track in kept], np.float32),
            **_ragged([track.channels for _, track in kept], sizes),
        }
    )


def with_flights(summary: MissionSummary, chain: Chain, results: Sequence[PhaseFlight], first: int) -> MissionSummary:
    """Return a summary that also gives its flights as a table; the feasibility on entering is in reports only.

    Args:
      summary: of these flights.
      chain: the mission that was flown.
      results: one record of N flights per phase.
      first: number of the first flight.
    """
    kept = [result._replace(handoff=()) for result in results]

    def table() -> Table:
        arrays: Arrays = {}
        for phase, result in zip(chain.phases, kept, strict=True):
            arrays |= pack_flight(phase, result, chain.policy)
        headers = [phase_header(phase, chain.folder(k)) for k, phase in enumerate(chain.phases)]
        return flights_table(headers, arrays, [chain.policy], first)

    return summary.with_flights(table)


def flights_table(phases: Sequence[PhaseHeader], arrays: Arrays, policies: Sequence[str], first: int = 0) -> Table:
    """Return the table of flights in arrays, as `read_flights` does.

    Args:
      phases: those of the mission.
      arrays: from `pack_flight`, or of a report.
      policies: prefixes of the arrays.
      first: number of the first flight.
    """
    blocks = [
        _block(policy, flown, arrays[f"{policy}/{flown.name}/steps"], first)
        for policy in policies
        for flown in flights_from(phases, arrays, policy).phases
    ]
    sizes = [len(block.cause) for block in blocks]
    names = tuple(dict.fromkeys(name for block in blocks for name in np.unique(block.cause).tolist()))
    causes = np.concatenate([block.cause for block in blocks])
    codes = np.zeros(len(causes), np.int32)
    for at, name in enumerate(names):
        codes[causes == name] = at
    return Table(
        {
            "policy": _labels([block.policy for block in blocks], sizes),
            "flight": np.concatenate([block.common["flight"] for block in blocks]),
            "phase": _labels([block.phase for block in blocks], sizes),
            "success": np.concatenate([block.common["success"] for block in blocks]),
            "cause": Labels(codes, names),
            **{name: np.concatenate([block.common[name] for block in blocks]) for name in ("steps", "duration_s")},
            **_ragged(
                [{name: block.common[name] for name in _SOME if name in block.common} for block in blocks], sizes, _SOME
            ),
            **_ragged([block.channels for block in blocks], sizes),
        }
    )


_SOME = ("returns", "takeover", "feasible")  # columns that not every phase has


def _block(policy: str, flown: FlownPhase, steps: np.ndarray, first: int) -> _Block:
    """Return the rows of the flights that entered a phase."""
    rows = np.flatnonzero(flown.entered)
    common = {
        "flight": first + rows,
        "success": flown.success[rows],
        "steps": steps[rows],
        "duration_s": flown.duration_s[rows],
    }
    if not np.isnan(flown.returns).all():
        common["returns"] = flown.returns[rows]
    for name, values in (("takeover", flown.takeover), ("feasible", flown.feasible)):
        if values is not None:
            common[name] = values[rows]
    limited = [limit.channel for limit in flown.limits]
    channels = {
        f"{when}/{name}": values[rows, i]
        for when, names, values in (
            ("enter", flown.channels, flown.enter),
            ("end", flown.channels, flown.end),
            ("lowest", limited, flown.lowest),
            ("highest", limited, flown.highest),
        )
        for i, name in enumerate(names)
    }
    return _Block(policy, flown.name, np.array(flown.causes)[flown.cause[rows]], common, channels)


def _labels(values: Sequence[str], sizes: Sequence[int]) -> Labels:
    """Return a column with each value repeated."""
    names = tuple(dict.fromkeys(values))
    return Labels(np.repeat(np.array([names.index(value) for value in values], np.int32), sizes), names)


def _joined(parts: Sequence[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate(parts) if parts else np.empty(0, dtype)


def _ragged(
    parts: Sequence[Mapping[str, np.ndarray]], sizes: Sequence[int], order: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """Return the columns of all parts, joined; masked in the rows of parts that do not have them.

    Args:
      parts: name -> values [R of the part].
      sizes: R of each part.
      order: of the columns; default: that of their first appearance.
    """
    columns: dict[str, np.ndarray] = {}
    for name in order or dict.fromkeys(name for part in parts for name in part):
        dtype = next((part[name].dtype for part in parts if name in part), np.dtype(np.float32))
        values = [
            part[name] if name in part else np.zeros(size, dtype) for part, size in zip(parts, sizes, strict=True)
        ]
        missing = np.repeat([name not in part for part in parts], sizes)
        joined = _joined(values, np.float32)
        columns[name] = np.ma.masked_array(joined, missing) if missing.any() else joined
    return columns
