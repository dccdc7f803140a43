"""Where the pad's frame is on the WGS-84 ellipsoid: rotations and positions in Earth-centred, Earth-fixed axes (ECEF).

Shapes: T instants. Everything is float64 on the host: float32 resolves only 0.5 m at the Earth's radius.
"""

from __future__ import annotations

import numpy as np

RADIUS_M = 6_378_137.0  # NIMA TR8350.2
FLATTENING = 1.0 / 298.257223563
ECCENTRICITY = FLATTENING * (2.0 - FLATTENING)  # squared


def ecef_of(latitude_deg: float, longitude_deg: float, height_m: float) -> np.ndarray:
    """Return the ECEF position [3] of a geodetic place."""
    latitude, longitude = np.radians(latitude_deg), np.radians(longitude_deg)
    normal = RADIUS_M / np.sqrt(1.0 - ECCENTRICITY * np.sin(latitude) ** 2)
    level = (normal + height_m) * np.cos(latitude)
    return np.array(
        [
            level * np.cos(longitude),
            level * np.sin(longitude),
            (normal * (1.0 - ECCENTRICITY) + height_m) * np.sin(latitude),
        ]
    )


def east_north_up(latitude_deg: float, longitude_deg: float) -> np.ndarray:
    """Return the matrix [3, 3] whose columns are east, north and up at a place in ECEF axes."""
    latitude, longitude = np.radians(latitude_deg), np.radians(longitude_deg)
    sine, cosine = np.sin(latitude), np.cos(latitude)
    east = [-np.sin(longitude), np.cos(longitude), 0.0]
    north = [-sine * np.cos(longitude), -sine * np.sin(longitude), cosine]
    up = [cosine * np.cos(longitude), cosine * np.sin(longitude), sine]
    return np.column_stack([east, north, up])


def local_to_enu(azimuth_deg: float) -> np.ndarray:
    """Return the matrix [3, 3] from the pad's frame (x downrange, y to its left, z up) to east, north, up.

    The azimuth of downrange is clockwise from north.
    """
    sine, cosine = np.sin(np.radians(azimuth_deg)), np.cos(np.radians(azimuth_deg))
    return np.array([[sine, -cosine, 0.0], [cosine, sine, 0.0], [0.0, 0.0, 1.0]])


def geodetic_of(ecef: np.ndarray) -> np.ndarray:
    """Return latitude [deg], longitude [deg] and height above the ellipsoid [m], [T, 3], of ECEF positions [T, 3].

    Fixed-point iteration of the latitude; up to 1,000 km of height five rounds leave less than 1 um.
    """
    x, y, z = ecef.T
    level = np.hypot(x, y)
    latitude = np.arctan2(z, level * (1.0 - ECCENTRICITY))
    for _ in range(5):
        normal = RADIUS_M / np.sqrt(1.0 - ECCENTRICITY * np.sin(latitude) ** 2)
        latitude = np.arctan2(z + ECCENTRICITY * normal * np.sin(latitude), level)
    normal = RADIUS_M / np.sqrt(1.0 - ECCENTRICITY * np.sin(latitude) ** 2)
    sine, cosine = np.sin(latitude), np.cos(latitude)
    height = level * cosine + z * sine - normal * (1.0 - ECCENTRICITY * sine**2)
    return np.column_stack([np.degrees(latitude), np.degrees(np.arctan2(y, x)), height])
