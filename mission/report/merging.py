"""Join reports of disjoint flights of one mission, which were flown on several machines."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mission.errors import InputError
from mission.missionfile.arguments import given_path
from mission.missionfile.resolve import first_change
from mission.missionfile.statistics import distribution
from mission.report.arrays import Arrays, flights_from, unpack_flight
from mission.report.folder import check_target
from mission.report.header import Provenance, ReportHeader
from mission.report.redraw import installed_report, read_report
from mission.report.summary import MissionSummary, summarise, timed
from mission.report.writing import Flown, write_report
from mission.storage.lock import folder_lock

# What decides the bits of a flight besides mission, policies and seed; the number of cores does not.
_MACHINE = ("engine", "policies_sha256", "training_seed", "platform", "jax", "jaxlib", "xla_flags")


class Part(NamedTuple):
    """One of the reports."""

    folder: Path
    header: ReportHeader
    arrays: Arrays

    @property
    def end(self) -> int:
        """The number after that of the last flight."""
        return self.header.first_flight + self.header.report.flights


def merge_reports(folders: Sequence[str | Path], report: str | Path) -> MissionSummary:
    """Join reports of one mission into one, which is equal to the report of a single run.

    Args:
      folders: the reports, in any order; made by the same mission, policies, seed and versions, and with consecutive
        flight numbers (`--first-flight` of `mission fly`).
      report: folder of the new report; only a report of the same mission is replaced.

    Returns:
      The summary of all flights.

    Raises:
      InputError: the reports do not belong together, overlap or leave a gap, or one is damaged.
      FormatError: a report has a format that this version does not read.
      MachineError: the new report cannot be written.
    """
    several = isinstance(folders, Iterable) and not isinstance(folders, str | bytes)
    paths = [given_path(folder, "merge") for folder in folders] if several else []
    if len(paths) < 2:
        raise _error("merge", "at least two reports", str(len(paths)), "name each of them")
    out = given_path(report, "--report")
    if any(folder.resolve() == out.resolve() for folder in paths):
        raise _error(f"--report {out}", "a folder besides the reports that are joined", "one of them", "choose another")
    read = [Part(folder, *read_report(folder)) for folder in paths]
    parts = sorted(read, key=lambda part: part.header.first_flight)
    for part in parts:
        _check_alone(part)
        _check_same(parts[0], part)
    for before, part in itertools.pairwise(parts):
        _check_next(before, part)
    mission = parts[0].header.mission
    check_target(out, mission)
    with folder_lock(out, "--report"):
        flown = _joined(parts, out)
        write_report(out, flown, {phase.name: installed_report(phase) for phase in flown.headers})
    return flown.summary


def _error(where: str, expected: str, found: str, remedy: str) -> InputError:
    return InputError(where, expected=expected, found=found, remedy=remedy)


def _check_alone(part: Part) -> None:
    if part.header.report.until is not None:
        found = f"--until {part.header.report.until:g}, which decided how many flights there are"
        raise _error(str(part.folder), "a report of a fixed number of flights", found, "fly it again without --until")
    if any(phase.control_period_s is None for phase in part.header.phases):
        expected, found = "a report that this version of mission wrote", "one of an earlier version"
        raise _error(str(part.folder), expected, found, "fly it again")


def _check_same(first: Part, part: Part) -> None:
    change = first_change(_conditions(first), _conditions(part))
    if change:
        remedy = "fly it again under the same conditions"
        raise _error(str(part.folder), f"the conditions of {first.folder}", change, remedy)
    for name in first.header.starts:
        if not np.array_equal(first.arrays[f"starts/{name}"], part.arrays[f"starts/{name}"], equal_nan=True):
            expected, found = f"the training starts of {name} as in {first.folder}", "others"
            raise _error(str(part.folder), expected, found, "fly both with the same policies on processors of one kind")


def _conditions(part: Part) -> dict[str, Any]:
    header = part.header
    return {
        "mission": header.mission,
        "seed": header.report.seed,
        "policy": header.report.policy,
        "flown by guides, too": header.guide is not None,
        # one policy may be in a folder of another name on another machine; `policies_sha256` tells whether it is one
        "phases": [phase.model_dump(mode="json", exclude={"flown_by"}) for phase in header.phases],
        "digest": header.report.digest,
        "provenance": header.provenance.model_dump(mode="json", include=set(_MACHINE)),
        "starts": header.starts,
    }


def _check_next(before: Part, part: Part) -> None:
    first = part.header.first_flight
    if first == before.end:
        return
    here = f"flights {first:,} to {part.end - 1:,}"
    there = f"{before.folder} ends with flight {before.end - 1:,}"
    if first < before.end:
        raise _error(str(part.folder), "each flight in one report", f"{here}, but {there}", "leave one of them out")
    found = f"{here}, but {there}"
    remedy = f"fly the {first - before.end:,} flights between them (--first-flight {before.end})"
    raise _error(str(part.folder), "flight numbers without a gap", found, remedy)


def _joined(parts: Sequence[Part], out: Path) -> Flown:
    first = parts[0].header
    sides = [summary for summary in (first.report, first.guide) if summary is not None]
    every = {name: values for part in reversed(parts) for name, values in part.arrays.items()}  # bands of the first one
    joined = [name for name in parts[0].arrays if name.partition("/")[0] in {side.policy for side in sides}]
    arrays = every | {name: np.concatenate([part.arrays[name] for part in parts]) for name in joined}
    summaries = [_summary(side, first, arrays) for side in sides]
    return Flown(
        mission=first.mission,
        summary=summaries[0],
        guide=summaries[1] if len(summaries) > 1 else None,
        first=first.first_flight,
        headers=first.phases,
        channels=first.bands.channels,
        starts=first.starts,
        arrays=arrays,
        provenance=_provenance(parts, out),
    )


def _summary(of_part: MissionSummary, header: ReportHeader, arrays: Arrays) -> MissionSummary:
    """Return the summary of all flights by agents or by guides, as `mission_summary` makes it."""
    flights, phases = flights_from(header.phases, arrays, of_part.policy), []
    for phase, one, flown in zip(header.phases, of_part.phases, flights.phases, strict=True):
        result = unpack_flight(phase, arrays, of_part.policy)
        seconds = timed(result, phase.control_period_s or 0.0)
        phases.append(summarise(phase, one.plugin, one.flown_by, result, flown.entered, seconds, result.returns))
    return of_part.model_copy(
        update={
            "flights": flights.count,
            "success": flights.rate(),
            "returns": distribution(flights.returns),
            "phases": tuple(phases),
        }
    )


def _provenance(parts: Sequence[Part], out: Path) -> Provenance:
    """Return where the numbers come from: the commands of the parts, and the first one's machine."""
    flown = [command for part in parts for command in part.header.provenance.commands[:-1]]
    merge = shlex.join(["mission", "merge", *(str(part.folder) for part in parts), "--report", str(out)])
    commands = (*flown, merge, shlex.join(["mission", "report", str(out)]))
    return parts[0].header.provenance.model_copy(update={"commands": commands})
