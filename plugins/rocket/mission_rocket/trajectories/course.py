"""The course of a flight: positions, velocities and attitudes by phase, in the pad's frame and on the Earth.

Shapes: T instants of a phase.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from scipy.spatial.transform import Rotation

from mission import MissionError, Trajectory, TrajectoryEvent
from mission_rocket.trajectories.earth import east_north_up, ecef_of, geodetic_of, local_to_enu

LATITUDE_DEG, LONGITUDE_DEG = 28.4858, -80.5444  # LZ-1, Cape Canaveral (28 29 09 N, 80 32 40 W)
_AZIMUTH_DEG = 90.0
PLACED = (  # the channels of a phase that can be placed on the Earth: one of these sets
    ("position_x_m", "position_y_m", "position_z_m", "velocity_x_m_s", "velocity_y_m_s", "velocity_z_m_s"),
    ("height_m", "velocity_m_s"),
)
TURNED = tuple((*placed, *(f"attitude_{axis}" for axis in "xyzw")) for placed in PLACED)  # and with an attitude
_TICK_S = 1e-6  # resolution of the written times
_LIT = re.compile(r"engines_lit from (\d+) to (\d+)")


class Place(BaseModel):
    """Where on the Earth and when the flight begins: the options of every format that needs it."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    latitude_deg: float | None = Field(None, ge=-90.0, le=90.0, description="None: that of the mission file.")
    longitude_deg: float = Field(LONGITUDE_DEG, ge=-180.0, le=180.0)
    azimuth_deg: float | None = Field(None, ge=0.0, lt=360.0, description="None: that of the mission file.")
    height_m: float = Field(0.0, ge=-500.0, le=9000.0, description="Of the pad above the WGS-84 ellipsoid.")
    epoch: Annotated[datetime, Field(description="UTC at which the mission begins.")] = datetime(2026, 1, 1, tzinfo=UTC)

    def at(self, seconds: float) -> datetime:
        """Return the UTC of some seconds after the epoch."""
        begin = self.epoch if self.epoch.tzinfo is not None else self.epoch.replace(tzinfo=UTC)
        return begin.astimezone(UTC) + timedelta(seconds=seconds)

    def text(self, seconds: float) -> str:
        """Return the same as CCSDS and ISO 8601 write it, without the zone."""
        return self.at(seconds).strftime("%Y-%m-%dT%H:%M:%S.%f")


@dataclasses.dataclass(frozen=True, eq=False)
class Leg:
    """One phase of a course; the times increase by at least a microsecond."""

    phase: str
    cause: str
    time_s: np.ndarray  # [T] since the epoch
    position: np.ndarray  # [T, 3] in the pad's frame
    velocity: np.ndarray  # [T, 3]
    attitude: np.ndarray | None  # [T, 4] body to the pad's frame: x, y, z, w
    ecef: np.ndarray  # [T, 3]
    ecef_velocity: np.ndarray  # [T, 3] relative to the rotating Earth
    ecef_attitude: np.ndarray | None  # [T, 4] body to ECEF: x, y, z, w, without jumps of sign
    channels: dict[str, np.ndarray]  # [T] each


@dataclasses.dataclass(frozen=True, eq=False)
class Course:
    """A flight on the Earth.

    The pad's frame is placed at the pad on the WGS-84 ellipsoid with its z axis along the ellipsoid's normal. For a mission
    with `earth: wgs84` that is the Earth that was simulated. A mission on the sphere keeps positions relative to the
    pad, and therefore its altitudes differ from those above the ellipsoid (docs/trajectories.md).
    """

    flight: Trajectory
    place: Place
    latitude_deg: float
    azimuth_deg: float

    @property
    def name(self) -> str:
        """The name of the flight's files, without suffix."""
        return f"flight-{self.flight.number}"

    @cached_property
    def legs(self) -> tuple[Leg, ...]:
        """The phases that have a position throughout, up to the first one that breaks."""
        return tuple(leg for leg in map(self._leg, self.flight.phases) if len(leg.time_s))

    @cached_property
    def joined(self) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Times [T], ECEF positions [T, 3] and attitudes [T, 4], if all legs have one, of the whole flight."""
        time_s = np.concatenate([leg.time_s for leg in self.legs])
        kept = _increasing(time_s)
        position = np.concatenate([leg.ecef for leg in self.legs])
        turns = [leg.ecef_attitude for leg in self.legs if leg.ecef_attitude is not None]
        attitude = _continuous(np.concatenate(turns)[kept]) if len(turns) == len(self.legs) else None
        return time_s[kept], position[kept], attitude

    def rocket_events(self) -> tuple[TrajectoryEvent, ...]:
        """Return the events of the flight, with ignitions, cut-offs, apogee and the largest dynamic pressure."""
        found = [event._replace(name=_in_words(event.name)) for event in self.flight.events()]
        found += self._peak("altitude_m", "apogee", inside=True)
        found += self._peak("dynamic_pressure_pa", "max dynamic pressure", inside=False)
        end = self.legs[-1].time_s[-1]
        return tuple(sorted((event for event in found if event.time_s <= end), key=lambda event: event.time_s))

    def position_at(self, seconds: float) -> np.ndarray:
        """Return the ECEF position [3] at a time."""
        time_s, position, _ = self.joined
        return np.array([np.interp(seconds, time_s, column) for column in position.T])

    def geodetic(self, leg: Leg) -> np.ndarray:
        """Return latitude, longitude [deg] and height above the ellipsoid [m] of a leg, [T, 3]."""
        return geodetic_of(leg.ecef)

    def _peak(self, channel: str, name: str, inside: bool) -> list[TrajectoryEvent]:
        legs = [leg for leg in self.legs if channel in leg.channels]
        if not legs:
            return []
        values = np.concatenate([leg.channels[channel] for leg in legs])
        times = np.concatenate([leg.time_s for leg in legs])
        phases = np.repeat([leg.phase for leg in legs], [len(leg.time_s) for leg in legs])
        at = int(np.nanargmax(values)) if np.isfinite(values).any() else 0
        if inside and at in (0, len(values) - 1):
            return []
        return [TrajectoryEvent(float(times[at]), str(phases[at]), name)]

    def _leg(self, phase: Any) -> Leg:
        get = phase.channels.get
        position = _vector(get, "position_{}_m", "height_m")
        velocity = _vector(get, "velocity_{}_m_s", "velocity_m_s")
        if position is None or velocity is None:
            raise MissionError(
                f"flight {self.flight.number}, phase {phase.name}",
                expected="channels position_x_m, _y_m, _z_m and velocity_x_m_s, ..., or height_m and velocity_m_s",
                found=", ".join(phase.channels),
                remedy="write the format csv, or add these channels to the phase's telemetry",
            )
        parts = [get(f"attitude_{axis}") for axis in "xyzw"]
        turned = [part for part in parts if part is not None]
        attitude = np.column_stack(turned).astype(float) if len(turned) == 4 else None
        every = np.column_stack([phase.time_s, position, velocity, *(() if attitude is None else (attitude,))])
        whole = int(np.append(np.isfinite(every).all(axis=1), False).argmin())
        kept = np.arange(whole)[_increasing(phase.time_s[:whole])]
        position, velocity = position[kept], velocity[kept]
        axes = east_north_up(self.latitude_deg, self.place.longitude_deg) @ local_to_enu(self.azimuth_deg)
        pad = ecef_of(self.latitude_deg, self.place.longitude_deg, self.place.height_m)
        turned = None if attitude is None else (Rotation.from_matrix(axes) * Rotation.from_quat(attitude[kept]))
        return Leg(
            phase=phase.name,
            cause=phase.cause,
            time_s=phase.time_s[kept],
            position=position,
            velocity=velocity,
            attitude=None if attitude is None else attitude[kept],
            ecef=pad + position @ axes.T,
            ecef_velocity=velocity @ axes.T,
            ecef_attitude=None if turned is None else _continuous(turned.as_quat()),
            channels={name: values[kept] for name, values in phase.channels.items()},
        )


def courses(trajectories: Sequence[Trajectory], place: Place) -> tuple[Course, ...]:
    """Return the courses of flights; latitude and azimuth come from the options, the mission file, or the defaults.

    Raises:
      MissionError: a phase has no channels of position and velocity, or a flight has no finite position.
    """
    found = []
    for flight in trajectories:
        params = flight.phases[0].params
        site = params.get("site")
        given = {**params, **(site if isinstance(site, dict) else {})}
        latitude, azimuth = given.get("latitude_deg", LATITUDE_DEG), given.get("azimuth_deg", _AZIMUTH_DEG)
        latitude = place.latitude_deg if place.latitude_deg is not None else float(str(latitude))
        azimuth = place.azimuth_deg if place.azimuth_deg is not None else float(str(azimuth))
        course = Course(flight, place, latitude, azimuth)
        if not course.legs:
            raise MissionError(
                f"flight {flight.number}",
                expected="a finite position on entering its first phase",
                found="none",
                remedy="write the format csv, which holds every number as it is",
            )
        found.append(course)
    return tuple(found)


def attitudes_of(course: Course, name: str) -> list[np.ndarray]:
    """Return the attitudes [T, 4] of every leg in ECEF axes.

    Raises:
      MissionError: a phase has none.
    """
    found = [leg.ecef_attitude for leg in course.legs if leg.ecef_attitude is not None]
    if len(found) < len(course.legs):
        raise MissionError(
            f"--format {name}",
            expected="phases with the channels attitude_w, attitude_x, attitude_y and attitude_z",
            found=f"{course.flight.mission}, whose vehicle has no attitude",
            remedy="remove this format",
        )
    return found


def _vector(get: Any, pattern: str, vertical: str) -> np.ndarray | None:
    """Return a vector [T, 3] of channels; of a vertical flight if only its component along z is known."""
    parts = [get(pattern.format(axis)) for axis in "xyz"]
    if all(part is not None for part in parts):
        return np.column_stack(parts).astype(float)
    up = get(vertical)
    return None if up is None else np.column_stack([np.zeros_like(up), np.zeros_like(up), up]).astype(float)


def _increasing(time_s: np.ndarray) -> np.ndarray:
    """Return the rows whose time is later than that of every row before; the rest are the same instant twice."""
    latest = np.maximum.accumulate(np.concatenate([[-np.inf], time_s[:-1]])) if len(time_s) else time_s
    return np.flatnonzero(time_s > latest + _TICK_S)


def _continuous(turns: np.ndarray) -> np.ndarray:
    """Return quaternions [T, 4] with the sign that is nearest to the one before, so that they can be interpolated."""
    flips = np.sign((turns[1:] * turns[:-1]).sum(axis=1))
    signs = np.cumprod(np.concatenate([[1.0], np.where(flips == 0.0, 1.0, flips)]))[:, None] if len(turns) else 1.0
    return turns * signs


def _in_words(name: str) -> str:
    match = _LIT.fullmatch(name)
    if match is None:
        return name
    before, after = int(match[1]), int(match[2])
    return f"ignition of {after}" if not before else "cut-off" if not after else f"{after} engines burn"
