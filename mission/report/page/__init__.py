"""The report's page: one file that opens offline; the engine's sections, and those of plugins.

Everything that is text is escaped; the page forbids itself any request (Content-Security-Policy).
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import mission.report.page.sections as sections
from mission.report.records import FlightRecords, Section

if TYPE_CHECKING:
    from mission.report.handovers import Handover

log = logging.getLogger("mission")
_FOLDER = Path(__file__).parent
_FLOATS = 750_000  # of chosen flights in the page: 4 MB as text
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:"
_PLAYER = """<div id="player"><button id="play">Play</button><select id="flight" aria-label="flight"></select>
<span class="slide"><input id="time" type="range" min="0" max="1000" step="any" value="0" aria-label="time"></span>
<select id="speed" aria-label="speed"><option value="0.25">¼&times;</option><option value="1" selected>1&times;</option>
<option value="4">4&times;</option><option value="10">10&times;</option><option value="30">30&times;</option></select>
<span id="clock"></span></div>"""

Report = Callable[[Any], tuple[Section, ...]]


def render_page(records: FlightRecords, handovers: Sequence[Handover], reports: Mapping[str, Report | None]) -> str:
    """The whole page.

    Args:
      records: what was flown.
      handovers: from `compare_handovers`.
      reports: phase -> its plugin's `PhaseSpec.report`; each different one is asked once.
    """
    own = [
        ("losses", "Losses by phase and cause", sections.losses(records.flights)),
        ("telemetry", "Telemetry", sections.telemetry(records)),
        ("margins", "Margins to limits", sections.margins(records)),
        ("handovers", "Hand-overs", sections.handovers(records, handovers)),
        ("provenance", "Provenance", sections.provenance(records)),
    ]
    added = plugin_sections(records, reports)
    body = [(f"section-{i}", section.title, section.html) for i, section in enumerate(added)]
    parts = [own[0], *body, *own[1:]]
    scripts = [_read("player.js"), *dict.fromkeys(script for section in added for script in section.scripts)]
    notices = "".join(f"<pre>{escape(text)}</pre>" for text in dict.fromkeys(n for s in added for n in s.notices))
    if notices:
        parts[-1] = (
            *own[-1][:2],
            own[-1][2] + f"<details><summary>licences of what this page holds</summary>{notices}</details>",
        )
    title = f"{records.mission}: {records.flights.count:,} flights"
    data = f'<script type="application/json" id="mission-data">{page_data(records)}</script>'
    return document(
        title,
        sections.headline(records),
        parts,
        style="".join(dict.fromkeys(section.style for section in added)),
        tail=_PLAYER + data + "".join(f"<script>{inline_script(script)}</script>" for script in scripts),
    )


def document(title: str, lead: str, parts: Sequence[tuple[str, str, str]], style: str = "", tail: str = "") -> str:
    """A page of (id, title, html) sections; titles are escaped, fragments are not."""
    links = "".join(f'<a href="#{key}">{escape(name)}</a>' for key, name, _ in parts)
    body = "".join(f'<section id="{key}"><h2>{escape(name)}</h2>{html}</section>' for key, name, html in parts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f'<link rel="icon" href="data:,"><style>{_read("page.css")}{style}</style></head>\n'
        f"<body><header><h1>{escape(title)}</h1><nav>{links}</nav></header>\n<main>{lead}{body}</main>{tail}</body></html>\n"
    )


def plugin_sections(records: FlightRecords, reports: Mapping[str, Report | None]) -> list[Section]:
    """Sections of every different `report` function; one that fails is left out with a warning."""
    added: list[Section] = []
    for report in dict.fromkeys(report for report in reports.values() if report is not None):
        try:
            found = report(records)
            if not all(isinstance(section, Section) for section in found):
                raise TypeError("report must return a tuple of Section")
            added += found
        except Exception as error:
            name = getattr(report, "__module__", "a plugin")
            log.warning("the report of %s is left out: %s: %s", name, type(error).__name__, error)
    return added


def page_data(records: FlightRecords) -> str:
    """Chosen flights for the page's script: JSON with base64 float32, thinned to fit, safe inside a script element."""
    phases = {phase.name: at for at, phase in enumerate(records.flights.phases)}
    tracks = [(len(track.time_s), 1 + len(track.channels)) for f in records.chosen for track in f.tracks]
    most = max((samples for samples, _ in tracks), default=1)
    while most > 16 and sum(min(samples, most) * columns for samples, columns in tracks) > _FLOATS:
        most = int(most * 0.9)

    def entry(track: Any) -> dict[str, Any]:
        kept = thin(len(track.time_s), most)
        table = np.stack([values[kept] for values in track.channels.values()])
        return {"phase": phases[track.phase], "time": _base64(track.time_s[kept]), "table": _base64(table)}

    flights = [
        {"number": f.number, "role": f.role, "outcome": f.outcome, "tracks": [entry(track) for track in f.tracks]}
        for f in records.chosen
    ]
    names = [{"name": p.name, "plugin": p.plugin, "channels": p.channels} for p in records.flights.phases]
    text = json.dumps({"mission": records.mission, "phases": names, "flights": flights}, allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def thin(samples: int, most: int) -> np.ndarray:
    """At most `most` indices of a series, evenly spread, both ends kept."""
    return np.unique(np.linspace(0, samples - 1, min(samples, most)).round().astype(int))


def inline_script(source: str) -> str:
    """JavaScript that cannot end its own script element early."""
    return source.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values, "<f4").tobytes()).decode()


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")
