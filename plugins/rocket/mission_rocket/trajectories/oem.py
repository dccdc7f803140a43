"""The format `oem`: CCSDS 502.0-B-2 Orbit Ephemeris Message, one segment for each phase, in kilometres and ITRF axes."""

from __future__ import annotations

from collections.abc import Sequence

from mission import Trajectory, TrajectoryFormat, hookimpl
from mission_rocket.trajectories.ccsds import FRAME, Message, events_of
from mission_rocket.trajectories.course import PLACED, Course, Leg, courses

_DEGREE = 3  # of the Hermite interpolation, which uses the velocities


def files(trajectories: Sequence[Trajectory], options: Message) -> dict[str, str]:
    """Return one message for each flight."""
    return {f"{course.name}.oem": _message(course, options) for course in courses(trajectories, options)}


def _message(course: Course, options: Message) -> str:
    lines = options.header("OEM", "2.0")
    for leg in course.legs:
        lines += ["", *_segment(course, leg, options)]
    return "\n".join(lines) + "\n"


def _segment(course: Course, leg: Leg, options: Message) -> list[str]:
    lines = ["META_START", *options.subject(course, leg), f"REF_FRAME = {FRAME}", *options.span(leg)]
    if len(leg.time_s) > _DEGREE:
        lines += ["INTERPOLATION = HERMITE", f"INTERPOLATION_DEGREE = {_DEGREE}"]
    lines += ["META_STOP", *events_of(course, leg)]
    for seconds, position, velocity in zip(leg.time_s, leg.ecef / 1e3, leg.ecef_velocity / 1e3, strict=True):
        numbers = [f"{value:.9f}" for value in (*position, *velocity)]
        lines.append(" ".join([options.text(seconds), *numbers]))
    return lines


@hookimpl
def mission_trajectory() -> TrajectoryFormat:
    """Return the format."""
    return TrajectoryFormat(files, Message, PLACED)
