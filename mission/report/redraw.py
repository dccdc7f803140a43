"""`mission report`: the page again from stored records, or learning curves from a training run."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from mission.errors import InputError, MissionError
from mission.missionfile.models import MissionFile
from mission.missionfile.resolve import digest, load_installed, resolve_mission
from mission.report.arrays import records_from
from mission.report.folder import PAGE, read_arrays, read_summary, write_file
from mission.report.handovers import compare_handovers
from mission.report.page import render_page
from mission.report.records import FlightRecords

log = logging.getLogger("mission")


def read_records(folder: Path) -> tuple[dict[str, Any], FlightRecords]:
    """Header and records of a report folder.

    Raises:
      InputError: not a report, damaged, or of another version.
    """
    summary = read_summary(folder)
    arrays = read_arrays(folder, summary)
    try:
        return summary, records_from(summary, arrays)
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise InputError(
            str(folder),
            expected="a summary that fits its arrays",
            found=f"{type(error).__name__}: {str(error)[:200]}",
            remedy="make the report again with `mission fly FILE --report DIR`",
        ) from None


def report_again(folder: Path, mission: MissionFile | None = None, *, allow_local_plugins: bool = False) -> Path:
    """Draw a report's page anew from its records; the records stay as they are.

    Args:
      folder: of the report.
      mission: whose plugins draw; None takes the installed plugins that the records name.
      allow_local_plugins: permit `plugin: ./file.py`.

    Returns:
      The page's path.

    Raises:
      InputError: no usable records, or records of another mission.
    """
    summary, records = read_records(folder)
    if mission is None:
        reports = {phase["name"]: _installed(phase) for phase in summary["phases"]}
    else:
        phases = resolve_mission(mission, allow_local_plugins=allow_local_plugins)
        _check_mission(folder, summary, mission, digest([phase.configuration() for phase in phases]))
        reports = {phase.name: phase.report for phase in phases}
    page = render_page(records, compare_handovers(records), reports)
    write_file(folder / PAGE, page.encode())
    return folder / PAGE


def _installed(phase: dict[str, Any]) -> Any:
    """What the plugin that flew a phase adds to the page; None, with a warning, where it is not there."""
    if phase["distribution"] == "local file":
        log.warning('phase "%s" was flown by a local file: give the mission file too', phase["name"])
        return None
    try:
        reference = f"{phase['distribution']}:{phase['plugin']}"
        return load_installed(reference, f'phase "{phase["name"]}"')[1].report
    except MissionError as error:
        log.warning('what the plugin of phase "%s" draws is left out: %s', phase["name"], error.found)
        return None


def _check_mission(folder: Path, summary: dict[str, Any], mission: MissionFile, current: str) -> None:
    if summary["mission"] != mission.name:
        raise InputError(
            str(folder),
            expected=f"records of {mission.name}",
            found=f"records of {summary['mission'][:64]}",
            remedy="name the mission file that was flown",
        )
    if summary["report"]["digest"] != current:
        log.warning("%s was flown under another configuration of %s", folder, mission.name)
