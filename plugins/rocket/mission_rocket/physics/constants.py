"""Constants of nature and of the standard atmosphere, SI."""

from __future__ import annotations

STANDARD_GRAVITY_M_S2 = 9.80665
SEA_LEVEL_PRESSURE_PA = 101_325.0
EARTH_MU_M3_S2 = 3.986004418e14
EARTH_RADIUS_M = 6_371_000.0
EARTH_ROTATION_RAD_S = 7.292115e-5
DEGREE = 0.017453292519943295  # rad
