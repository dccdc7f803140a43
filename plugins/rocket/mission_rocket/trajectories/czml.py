"""The format `czml`: positions, attitude, phases and events for Cesium, one document for each flight."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from mission import Trajectory, TrajectoryFormat, hookimpl
from mission_rocket.trajectories.course import PLACED, Course, Place, courses

_COLOURS = ([230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [213, 94, 0], [204, 121, 167])  # Okabe, Ito
_WHITE = {"rgba": [255, 255, 255, 255]}


def files(trajectories: Sequence[Trajectory], options: Place) -> dict[str, str]:
    """Return one document for each flight."""
    return {f"{course.name}.czml": _text(_document(course)) for course in courses(trajectories, options)}


def _text(packets: list[dict[str, Any]]) -> str:
    """Return JSON with one packet on each line."""
    return "[\n" + ",\n".join(json.dumps(packet) for packet in packets) + "\n]\n"


def _document(course: Course) -> list[dict[str, Any]]:
    time_s, position, attitude = course.joined
    end = float(time_s[-1])
    whole, flight = _interval(course, 0.0, end), course.flight
    clock = {"interval": whole, "currentTime": _utc(course, 0.0), "multiplier": 5, "range": "CLAMPED"}
    title = f"{flight.mission}, flight {flight.number}, seed {flight.seed}"
    vehicle: dict[str, Any] = {
        "id": course.name,
        "name": title,
        "description": f"<p>{flight.outcome}</p>",
        "availability": whole,
        "position": {"referenceFrame": "FIXED", **_samples(course, "cartesian", time_s, position, 3)},
        "point": {"pixelSize": 8, "color": _WHITE},
        "label": {"text": [_phase_text(course, leg) for leg in course.legs], "font": "13px sans-serif", "pixelOffset": {"cartesian2": [0, -18]}},
        "path": {"leadTime": 0, "trailTime": end, "width": 2, "material": [_path_colour(course, at) for at in range(len(course.legs))]},
        "properties": {"phase": [{"interval": _leg_interval(course, leg), "string": leg.phase} for leg in course.legs]},
    }  # fmt: skip
    if attitude is not None:
        vehicle["orientation"] = _samples(course, "unitQuaternion", time_s, attitude, 9)
    head = {"id": "document", "name": title, "version": "1.0", "clock": clock}
    phases = [_line(course, at, end) for at in range(len(course.legs))]
    events = [_mark(course, at, event, end) for at, event in enumerate(course.rocket_events())]
    return [head, vehicle, *phases, *events]


def _utc(course: Course, seconds: float) -> str:
    return course.place.text(seconds) + "Z"


def _interval(course: Course, begin: float, end: float) -> str:
    return f"{_utc(course, begin)}/{_utc(course, end)}"


def _leg_interval(course: Course, leg: Any) -> str:
    return _interval(course, leg.time_s[0], leg.time_s[-1])


def _samples(course: Course, kind: str, time_s: np.ndarray, values: np.ndarray, digits: int) -> dict[str, Any]:
    """Return a property that is sampled at seconds since its epoch and linear between them."""
    rows = np.column_stack([np.round(time_s, 6), np.round(values, digits)])
    return {
        "epoch": _utc(course, 0.0),
        "interpolationAlgorithm": "LINEAR",
        "interpolationDegree": 1,
        kind: rows.ravel().tolist(),
    }


def _colour(at: int) -> dict[str, Any]:
    return {"rgba": [*_COLOURS[at % len(_COLOURS)], 255]}


def _phase_text(course: Course, leg: Any) -> dict[str, str]:
    return {"interval": _leg_interval(course, leg), "string": leg.phase}


def _path_colour(course: Course, at: int) -> dict[str, Any]:
    return {"interval": _leg_interval(course, course.legs[at]), "solidColor": {"color": _colour(at)}}


def _line(course: Course, at: int, end: float) -> dict[str, Any]:
    """Return a phase as a line, which appears when the phase begins."""
    leg = course.legs[at]
    return {
        "id": f"{course.name}/phase/{at}-{leg.phase}",
        "name": leg.phase,
        "parent": course.name,
        "description": f"<p>{leg.phase}: {leg.cause}</p>",
        "availability": _interval(course, leg.time_s[0], end),
        "polyline": {
            "positions": {"cartesian": np.round(leg.ecef, 3).ravel().tolist()},
            "arcType": "NONE",
            "width": 2,
            "material": {"solidColor": {"color": _colour(at)}},
        },
    }


def _mark(course: Course, at: int, event: Any, end: float) -> dict[str, Any]:
    """Return an event as a point with a name, which appears when it happens."""
    return {
        "id": f"{course.name}/event/{at}",
        "name": event.name,
        "parent": course.name,
        "availability": _interval(course, event.time_s, end),
        "position": {"cartesian": np.round(course.position_at(event.time_s), 3).tolist()},
        "point": {"pixelSize": 5, "color": _WHITE},
        "label": {"text": event.name, "font": "12px sans-serif", "pixelOffset": {"cartesian2": [14, 0]}, "horizontalOrigin": "LEFT"},
    }  # fmt: skip


@hookimpl
def mission_trajectory() -> TrajectoryFormat:
    """Return the format."""
    return TrajectoryFormat(files, Place, PLACED)
