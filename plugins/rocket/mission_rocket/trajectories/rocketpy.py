"""The format `rocketpy`: CSV with the names of RocketPy's flight attributes, for its `FlightDataImporter`.

x is east, y north and z up from the pad, in SI units and degrees; e0 to e3 turn body components into these, scalar first.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

from mission import Trajectory, TrajectoryFormat, hookimpl
from mission_rocket.trajectories.course import PLACED, Course, Place, courses
from mission_rocket.trajectories.earth import geodetic_of, local_to_enu

# RocketPy's name -> channel
_CHANNELS = {"altitude": "altitude_m", "speed": "speed_m_s", "mach_number": "mach"}


def files(trajectories: Sequence[Trajectory], options: Place) -> dict[str, str]:
    """Return one table for each flight."""
    return {f"{course.name}.rocketpy.csv": _table(course) for course in courses(trajectories, options)}


def _table(course: Course) -> str:
    turn = _turn(course.azimuth_deg)
    columns: dict[str, np.ndarray] = {"time": np.concatenate([leg.time_s for leg in course.legs])}
    for names, part in (("x y z", "position"), ("vx vy vz", "velocity")):
        table = np.concatenate([getattr(leg, part) for leg in course.legs]) @ local_to_enu(course.azimuth_deg).T
        columns |= dict(zip(names.split(), table.T, strict=True))
    turns = [leg.attitude for leg in course.legs if leg.attitude is not None]
    if len(turns) == len(course.legs):
        columns |= dict(zip(("e0", "e1", "e2", "e3"), turn(np.concatenate(turns)).T, strict=True))
    for name, channel in _CHANNELS.items():
        parts = [leg.channels[channel] for leg in course.legs if channel in leg.channels]
        if len(parts) == len(course.legs):
            columns[name] = np.concatenate(parts).astype(float)
    place = geodetic_of(np.concatenate([leg.ecef for leg in course.legs]))
    columns |= {"latitude": place[:, 0], "longitude": place[:, 1]}
    kept = np.concatenate([[True], np.diff(columns["time"]) > 0.0])  # a phase begins where the one before ended
    text = io.StringIO()
    header = ",".join(columns)
    np.savetxt(text, np.column_stack([*columns.values()])[kept], "%.10g", ",", header=header, comments="")
    return text.getvalue()


def _turn(azimuth_deg: float):
    """Return the function that turns attitudes [T, 4] (x, y, z, w) in the pad's frame to east, north, up, scalar first."""
    from scipy.spatial.transform import Rotation

    axes = Rotation.from_matrix(local_to_enu(azimuth_deg))
    return lambda attitude: np.roll((axes * Rotation.from_quat(attitude)).as_quat(), 1, axis=1)


@hookimpl
def mission_trajectory() -> TrajectoryFormat:
    """Return the format."""
    return TrajectoryFormat(files, Place, PLACED)
