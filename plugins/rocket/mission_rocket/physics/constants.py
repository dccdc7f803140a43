"""Constants of nature and of the standard atmosphere, SI, and the approximations that guidance laws use."""

from __future__ import annotations

from mission_rocket.physics.tables import Table

STANDARD_GRAVITY_M_S2 = 9.80665
SEA_LEVEL_PRESSURE_PA = 101_325.0
EARTH_MU_M3_S2 = 3.986004418e14
EARTH_RADIUS_M = 6_371_000.0
EARTH_ROTATION_RAD_S = 7.292115e-5
DEGREE = 0.017453292519943295  # rad

# The guidance laws predict with these rounded gravities instead of the gravity of the site at the altitude of each
# phase. They differ because each law was tuned with its own value.
ASCENT_GRAVITY_M_S2 = 9.7
ENTRY_GRAVITY_M_S2 = 9.6
LANDING_GRAVITY_M_S2 = 9.8
STOP_GRAVITY_M_S2 = 9.81

# Ambient pressure that the prediction of a landing assumes throughout, instead of the atmosphere.
LANDING_PRESSURE_PA = 1e5

# Wind speed [m/s] by altitude [m] at the 75th percentile of the wind envelope in wind.py. Predictions use it instead of
# the envelope and scale it to the wind at the vehicle.
WIND_SHAPE = Table(
    x=(0.0, 1_000.0, 10_000.0, 13_600.0, 20_000.0, 23_000.0, 50_000.0, 80_000.0),
    y=(8.0, 14.0, 56.0, 56.0, 18.0, 18.0, 73.0, 72.0),
)
