"""The data of the page's script: the chosen flights as JSON inside the page.

Shapes: T samples of a flight, C channels of a phase.
"""

from __future__ import annotations

import base64

import numpy as np

from mission.report.flight_records import FlightRecords, Track
from mission.strict import StrictModel

_FLOATS = 750_000  # of all chosen flights together: 4 MB as text


class PagePhase(StrictModel):
    """One phase of the mission, as the script reads it."""

    name: str
    plugin: str
    channels: tuple[str, ...]


class PageTrack(StrictModel):
    """One phase of a chosen flight; `phase` is its index, `time` [T] and `table` [C, T] are float32 in base64."""

    phase: int
    time: str
    table: str


class PageFlight(StrictModel):
    """A chosen flight."""

    number: int
    role: str
    outcome: str
    tracks: tuple[PageTrack, ...]


class PageData(StrictModel):
    """Everything that the script reads."""

    mission: str
    phases: tuple[PagePhase, ...]
    flights: tuple[PageFlight, ...]


def page_data(records: FlightRecords) -> str:
    """Return the chosen flights as JSON, thinned to fit into the page and safe inside a script element."""
    phases = {phase.name: at for at, phase in enumerate(records.flights.phases)}
    tracks = [(len(track.time_s), 1 + len(track.channels)) for f in records.chosen for track in f.tracks]
    most = max((samples for samples, _ in tracks), default=1)
    while most > 16 and sum(min(samples, most) * columns for samples, columns in tracks) > _FLOATS:
        most = int(most * 0.9)

    def thinned(track: Track) -> PageTrack:
        kept = thin(len(track.time_s), most)
        table = np.stack([values[kept] for values in track.channels.values()])
        return PageTrack(phase=phases[track.phase], time=_base64(track.time_s[kept]), table=_base64(table))

    data = PageData(
        mission=records.mission,
        phases=tuple(PagePhase(name=p.name, plugin=p.plugin, channels=p.channels) for p in records.flights.phases),
        flights=tuple(
            PageFlight(number=f.number, role=f.role, outcome=f.outcome, tracks=tuple(thinned(t) for t in f.tracks))
            for f in records.chosen
            if f.tracks
        ),
    )
    text = data.model_dump_json()
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def thin(samples: int, most: int) -> np.ndarray:
    """Return at most `most` indices of a series, evenly spread, with both ends."""
    return np.unique(np.linspace(0, samples - 1, min(samples, most)).round().astype(int))


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values, "<f4").tobytes()).decode()
