"""The page of a report: one file that opens offline, with the sections of the engine and those of plugins.

All text passes `mission.storage.markup.escape`, and the Content-Security-Policy of the page forbids every request.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import mission.report.page.sections as sections
from mission.errors import MissionError, exception_text, printable, run_plugin_code
from mission.report.flight_records import FlightRecords, Section
from mission.report.header import ChannelShift
from mission.report.page.data import page_data
from mission.storage.markup import escape

log = logging.getLogger("mission")
_FOLDER = Path(__file__).parent
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:; "
    "base-uri 'none'; form-action 'none'"
)
_PLAYER = """<footer id="player" aria-label="flight and clock"><button id="play">Play</button><select id="flight" aria-label="flight"></select>
<span class="slide"><input id="time" type="range" min="0" max="1000" step="any" value="0" aria-label="time"></span>
<select id="other" aria-label="flight to compare with"></select>
<span class="zoom"><button id="zoom-out" aria-label="zoom out of the time axis" disabled>&minus;</button><button id="zoom-in" aria-label="zoom into the time axis">+</button></span>
<select id="speed" aria-label="speed"><option value="0.25">¼&times;</option><option value="1" selected>1&times;</option>
<option value="4">4&times;</option><option value="10">10&times;</option><option value="30">30&times;</option></select>
<span id="clock"></span></footer>"""

PluginReport = Callable[[Any], tuple[Section, ...]]  # of `PhaseSpec.report`


def render_page(
    records: FlightRecords, shifts: Sequence[ChannelShift], reports: Mapping[str, PluginReport | None]
) -> str:
    """Return the whole page.

    Args:
      records: of the flights.
      shifts: from `compare_handovers`.
      reports: phase -> its plugin's `PhaseSpec.report`; each distinct function is called once.
    """
    draw = partial(_drawn, records)
    own = [
        ("losses", "Losses by phase and cause", draw(sections.losses)),
        ("compare", "Two flights compared", draw(sections.two_flights)),
        ("telemetry", "Telemetry", draw(sections.telemetry)),
        ("margins", "Margins to limits", draw(sections.margins)),
        ("handovers", "Hand-overs", draw(partial(sections.handovers, shifts=shifts))),
        ("provenance", "Provenance", draw(sections.provenance)),
    ]
    if any(phase.feasible is not None for phase in records.flights.phases):
        own.insert(1, ("feasibility", "Feasibility at the hand-overs", draw(sections.feasibility)))
    if any(phase.takeover is not None for phase in records.flights.phases):
        own.insert(1, ("guard", "Take-overs by the guides", draw(sections.takeovers)))
    if records.sensitivity is not None:
        own.insert(1, ("sensitivity", "Sensitivity", draw(sections.dependence)))
    added, missing = plugin_sections(records, reports)
    body = [(f"section-{i}", section.title, section.html) for i, section in enumerate(added)]
    if missing:
        body.append(("missing", "Not drawn", "".join(map(_note, missing))))
    parts = [own[0], *body, *own[1:]]
    scripts = [_read("player.js"), *dict.fromkeys(script for section in added for script in section.scripts)]
    notices = "".join(f"<pre>{escape(text)}</pre>" for text in dict.fromkeys(n for s in added for n in s.notices))
    if notices:
        parts[-1] = (
            *own[-1][:2],
            own[-1][2] + f"<details><summary>licences of the scripts on this page</summary>{notices}</details>",
        )
    title = f"{records.mission}: {records.flights.count:,} flights"
    data = f'<script type="application/json" id="mission-data">{page_data(records)}</script>'
    return document(
        title,
        draw(sections.headline),
        parts,
        style="".join(dict.fromkeys(section.style for section in added)),
        tail=_PLAYER + data + "".join(f"<script>{inline_script(script)}</script>" for script in scripts),
    )


def document(title: str, lead: str, parts: Sequence[tuple[str, str, str]], style: str = "", tail: str = "") -> str:
    """Return a page of (id, title, html) sections; titles are escaped, fragments are not."""
    links = "".join(f'<a href="#{key}">{escape(name)}</a>' for key, name, _ in parts)
    body = "".join(
        f'<section id="{key}" aria-labelledby="{key}-title"><h2 id="{key}-title">{escape(name)}</h2>{html}</section>'
        for key, name, html in parts
    )
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f'<link rel="icon" href="data:,"><style>{_read("page.css")}{style}</style></head>\n'
        f'<body><a class="skip" href="#main">Skip to the content</a><header><h1>{escape(title)}</h1>'
        f'<nav aria-label="sections">{links}</nav></header>\n<main id="main" tabindex="-1">{lead}{body}</main>{tail}</body></html>\n'
    )


def _drawn(records: FlightRecords, draw: Callable[[FlightRecords], str]) -> str:
    """Return a section of the engine, or a note with the reason: the flights are flown, so the page must come out."""
    try:
        return draw(records)
    except Exception as error:
        log.warning("a section of the report could not be drawn: %s", exception_text(error))
        return _note(f"This section could not be drawn: {exception_text(error)}")


def _note(text: str) -> str:
    return f'<p class="warning">{escape(text)}</p>'


def plugin_sections(
    records: FlightRecords, reports: Mapping[str, PluginReport | None]
) -> tuple[list[Section], list[str]]:
    """Return the sections of every distinct `report` function, and a note for each function that failed."""
    added: list[Section] = []
    missing: list[str] = []
    for report in dict.fromkeys(report for report in reports.values() if report is not None):
        name = str(getattr(report, "__module__", "a plugin"))
        try:
            added += run_plugin_code(name, "sections of the report", partial(_sections_of, report, records))
        except MissionError as error:  # the plugin may raise one itself
            missing.append(f"The report of {printable(name)} is left out: {error.found}")
            log.warning("the report of %s is left out: %s", name, error.found)
    return added, missing


def _sections_of(report: PluginReport, records: FlightRecords) -> tuple[Section, ...]:
    """Return what a plugin adds to the page.

    Raises:
      TypeError: it is not a tuple of Section, or a field has another type than text.
    """
    drawn = tuple(report(records))
    if not all(isinstance(section, Section) for section in drawn):
        raise TypeError("report must return a tuple of Section")
    for section in drawn:
        texts = (section.title, section.html, section.style, *section.scripts, *section.notices)
        if not all(isinstance(text, str) for text in texts):
            raise TypeError("the fields of a Section must be text")
    return drawn


def stylesheet() -> str:
    """Return the style of every page."""
    return _read("page.css")


def inline_script(source: str) -> str:
    """Return JavaScript that cannot end its own script element early."""
    return source.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")
