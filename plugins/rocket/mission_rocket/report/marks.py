"""Webcast telemetry of six public return-to-launch-site flights, as reference points for a mission.

The figures are those of the public data set github.com/shahar603/Telemetry-Data (Unlicense); ranges are
over the six flights. SI units, seconds since lift-off.
"""

from __future__ import annotations

from typing import NamedTuple


class Mark(NamedTuple):
    """One event of one real flight."""

    flight: str
    event: str
    time_s: float
    altitude_m: float
    speed_m_s: float


class Boundary(NamedTuple):
    """The end of a phase of real flights: ranges by telemetry channel; `plugin` is the entry point of the phase."""

    plugin: str
    event: str
    ranges: dict[str, tuple[float, float]]


BOUNDARIES = (
    Boundary(
        "ascent",
        "main engine cut-off",
        {"altitude_m": (61e3, 74e3), "speed_m_s": (1637, 1685), "time_s": (140, 147), "downrange_m": (33e3, 43e3), "flight_path_angle_deg": (42, 58)},
    ),
    Boundary("flip_boostback", "boostback end", {"altitude_m": (112e3, 140e3), "velocity_x_m_s": (-465, -270)}),
    Boundary(
        "ballistic_arc",
        "entry burn start",
        {"altitude_m": (47e3, 65e3), "speed_m_s": (1230, 1407), "downrange_m": (6e3, 12e3), "flight_path_angle_deg": (-79, -68)},
    ),
    Boundary("entry_burn", "entry burn end", {"altitude_m": (31e3, 38e3), "speed_m_s": (586, 954)}),
    Boundary("landing_burn", "touchdown", {"speed_m_s": (0, 2), "time_s": (463, 541)}),
    Boundary("brake_then_land", "touchdown", {"speed_m_s": (0, 2), "time_s": (463, 541)}),
)  # fmt: skip

# peak of the dynamic pressure of real flights, Pa
PEAK_PRESSURE_PA = {"ascent": (21e3, 29e3), "descent": (45e3, 68e3)}

MARKS = (
    Mark("OTV-5", "main engine cut-off", 145, 64.8e3, 1631),
    Mark("OTV-5", "entry burn start", 393, 54.4e3, 1291),
    Mark("OTV-5", "entry burn end", 413, 34.2e3, 746),
    Mark("OTV-5", "landing burn start", 462, 4.8e3, 319),
    Mark("CRS-12", "main engine cut-off", 147, 60.9e3, 1637),
    Mark("CRS-12", "entry burn start", 370, 49.8e3, 1230),
    Mark("CRS-12", "entry burn end", 384, 35.9e3, 863),
    Mark("CRS-12", "landing burn start", 433, 4.7e3, 318),
    *(
        Mark("CRS-12", "landing burn", time_s, 1000 * altitude_km, speed)
        for time_s, speed, altitude_km in (
            (431, 328, 5.2), (435, 307, 4.1), (439, 262, 3.0), (443, 213, 2.1),
            (447, 163, 1.4), (451, 124, 0.8), (455, 82, 0.4), (459, 45, 0.2),
        )
    ),
)  # fmt: skip
