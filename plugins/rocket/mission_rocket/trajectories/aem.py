"""The format `aem`: CCSDS 504.0-B-1 Attitude Ephemeris Message, one segment for each phase.

The quaternion is (e sin(a/2), cos(a/2)) of the turn by the angle a about the axis e that takes the axes of frame A (ITRF) to
those of frame B (the body), scalar last. Its four numbers are also those that turn body components into ITRF components.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mission import Trajectory, TrajectoryFormat, hookimpl
from mission_rocket.trajectories.ccsds import FRAME, Message, events_of
from mission_rocket.trajectories.course import TURNED, Course, Leg, attitudes_of, courses


def files(trajectories: Sequence[Trajectory], options: Message) -> dict[str, str]:
    """Return one message for each flight."""
    return {f"{course.name}.aem": _message(course, options) for course in courses(trajectories, options)}


def _message(course: Course, options: Message) -> str:
    lines = options.header("AEM", "1.0")
    for leg, attitude in zip(course.legs, attitudes_of(course, "aem"), strict=True):
        lines += ["", *_segment(course, leg, attitude, options)]
    return "\n".join(lines) + "\n"


def _segment(course: Course, leg: Leg, attitude: np.ndarray, options: Message) -> list[str]:
    lines = ["META_START", *options.subject(course, leg)]
    lines += [f"REF_FRAME_A = {FRAME}", "REF_FRAME_B = SC_BODY_1", "ATTITUDE_DIR = A2B", *options.span(leg)]
    lines += ["ATTITUDE_TYPE = QUATERNION", "QUATERNION_TYPE = LAST", "META_STOP", "DATA_START"]
    lines += events_of(course, leg)
    for seconds, turn in zip(leg.time_s, attitude, strict=True):
        lines.append(" ".join([options.text(seconds), *(f"{value:.9f}" for value in turn)]))
    return [*lines, "DATA_STOP"]


@hookimpl
def mission_trajectory() -> TrajectoryFormat:
    """Return the format."""
    return TrajectoryFormat(files, Message, TURNED)
