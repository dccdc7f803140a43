"""The format `kml`: one line for each phase and one mark for each event, for Google Earth and maps."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

import numpy as np

from mission import Trajectory, TrajectoryFormat, hookimpl
from mission_rocket.trajectories.course import PLACED, Course, Place, courses
from mission_rocket.trajectories.earth import geodetic_of


def files(trajectories: Sequence[Trajectory], options: Place) -> dict[str, str]:
    """Return one document for each flight; heights are above the WGS-84 ellipsoid."""
    return {f"{course.name}.kml": _document(course) for course in courses(trajectories, options)}


def _document(course: Course) -> str:
    flight = course.flight
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', '<kml xmlns="http://www.opengis.net/kml/2.2"><Document>']
    lines.append(f"<name>{escape(flight.mission)}, flight {flight.number}, seed {flight.seed}</name>")
    for leg in course.legs:
        begin, end = (f"{course.place.text(leg.time_s[at])}Z" for at in (0, -1))
        lines += [
            f"<Placemark><name>{escape(leg.phase)}</name><description>{escape(leg.cause)}</description>",
            f"<TimeSpan><begin>{begin}</begin><end>{end}</end></TimeSpan>",
            f"<LineString><altitudeMode>absolute</altitudeMode><coordinates>{_coordinates(leg.ecef)}</coordinates></LineString>",
            "</Placemark>",
        ]
    for event in course.rocket_events():
        lines += [
            f"<Placemark><name>{escape(event.name)}</name>",
            f"<TimeStamp><when>{course.place.text(event.time_s)}Z</when></TimeStamp>",
            "<Point><altitudeMode>absolute</altitudeMode>",
            f"<coordinates>{_coordinates(course.position_at(event.time_s)[None])}</coordinates></Point></Placemark>",
        ]
    return "\n".join([*lines, "</Document></kml>"]) + "\n"


def _coordinates(ecef: np.ndarray) -> str:
    return " ".join(f"{lon:.8f},{lat:.8f},{height:.3f}" for lat, lon, height in geodetic_of(ecef))


@hookimpl
def mission_trajectory() -> TrajectoryFormat:
    """Return the format."""
    return TrajectoryFormat(files, Place, PLACED)
