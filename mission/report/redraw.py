"""Redraw the page of a report from its stored records."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from mission.errors import InputError, MissionError, exception_text, machine_errors
from mission.missionfile.arguments import given_path, optional_path
from mission.missionfile.changes import parameters_change
from mission.missionfile.models import MissionFile
from mission.missionfile.phases import Phase
from mission.missionfile.resolve import load_installed, resolve_mission
from mission.phase import LOCAL_FILE, LOCAL_SOURCE
from mission.report.arrays import Arrays, records_from
from mission.report.curves import is_training, learning_page
from mission.report.fits import check_fits
from mission.report.flight_records import FlightRecords
from mission.report.folder import PAGE, read_arrays, read_header, write_page
from mission.report.header import PhaseHeader, ReportHeader
from mission.report.inline import ReportPage
from mission.report.page import PluginReport, render_page
from mission.storage.protection import refuse_read_only

log = logging.getLogger("mission")


def read_report(folder: Path) -> tuple[ReportHeader, Arrays]:
    """Return the header and the arrays of a report folder, which fit each other.

    Raises:
      InputError: it is not a report, or it is damaged.
      FormatError: the report has a format that this version does not read.
    """
    header = read_header(folder)
    arrays = read_arrays(folder, header)
    try:
        check_fits(header, arrays)
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise InputError(
            str(folder),
            expected="a summary that fits its arrays and its own hash",
            found=exception_text(error),
            remedy="write the report again with `mission fly FILE --report DIR`",
        ) from None
    return header, arrays


def read_records(folder: Path) -> tuple[ReportHeader, FlightRecords]:
    """Return the header and the records of a report folder; errors are those of `read_report`."""
    header, arrays = read_report(folder)
    return header, records_from(header, arrays)


def draw_report(
    folder: str | Path,
    mission: MissionFile | None = None,
    *,
    output: str | Path | None = None,
    allow_local_plugins: bool = False,
) -> ReportPage:
    """Redraw the page of a report from its records, which are not changed; or draw the learning curves of a training run.

    Args:
      folder: folder of the report, or checkpoints/MISSION of a training run.
      mission: the mission whose plugins draw; None uses the installed plugins that the report names. Learning curves need none.
      output: page of the learning curves; default: `learning.html` in the folder. A report's page is `index.html` in its folder.
      allow_local_plugins: permit `plugin: ./file.py`.

    Returns:
      The page: its path, which a notebook shows as the page.

    Raises:
      InputError: the records are not usable or belong to another mission, or the folder is read-only.
      FormatError: the report has a format that this version does not read.
      MachineError: the page cannot be written.
    """
    folder, output = given_path(folder, "draw_report"), optional_path(output, "draw_report")
    if is_training(folder):
        return ReportPage(learning_page(folder, output))
    if output is not None:
        expected, found = "no output for a report, whose page is index.html in its folder", str(output)
        raise InputError("draw_report", expected=expected, found=found, remedy="remove output")
    refuse_read_only(folder, "report folder")
    header, records = read_records(folder)
    if mission is None:
        reports = {phase.name: installed_report(phase) for phase in header.phases}
    else:
        phases = resolve_mission(mission, allow_local_plugins=allow_local_plugins)
        _check_mission(folder, header, mission, phases)
        reports = {phase.name: phase.report for phase in phases}
    page = render_page(records, header.handovers, reports)
    with machine_errors(folder, "the page to be written", "free disk space or check the permissions"):
        write_page(folder / PAGE, page)
    return ReportPage(folder / PAGE)


def installed_report(phase: PhaseHeader) -> PluginReport | None:
    """Return what the plugin that flew a phase adds to the page; None, with a warning, if it is not installed."""
    if phase.distribution == LOCAL_SOURCE:
        log.warning(
            'phase "%s" was flown by a PhaseSpec of a program or a notebook: draw_report(DIR, mission) draws its sections there',
            phase.name,
        )
        return None
    if phase.distribution == LOCAL_FILE:
        log.warning(
            'phase "%s" was flown by a local file: `mission report DIR --mission FILE` draws its sections', phase.name
        )
        return None
    try:
        return load_installed(f"{phase.distribution}:{phase.plugin}", f'phase "{phase.name}"')[1].report
    except MissionError as error:
        log.warning('the sections of phase "%s" are left out: %s', phase.name, error.found)
        return None


def _check_mission(folder: Path, header: ReportHeader, mission: MissionFile, phases: Sequence[Phase]) -> None:
    """Reject records of another mission, and warn if their phases had other parameters."""
    if header.mission != mission.name:
        raise InputError(
            str(folder),
            expected=f"records of {mission.name}",
            found=f"records of {header.mission[:64]}",
            remedy="name the mission file that was flown",
        )
    change = parameters_change({phase.name: phase.params for phase in header.phases}, phases)
    if change:
        log.warning("%s was flown under another configuration of %s: %s", folder, mission.name, change)
