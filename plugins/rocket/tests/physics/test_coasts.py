"""Real coasts: webcast telemetry from 6 s after the boostback to 2 s before the entry burn."""

from __future__ import annotations

import numpy as np
import pytest
from bodies import at, fly, last, plain
from mission_rocket.physics.gravity import Site, altitude
from mission_rocket.physics.vector import Vector, norm

# (altitude km, downrange speed, vertical speed, duration s, altitude km and speed observed at the end)
COASTS = {
    "NROL-76": (143.99, -270.5, 638.4, 213.0, 67.54, 1391.0),
    "OTV-5": (122.26, -326.3, 519.4, 184.0, 56.84, 1274.0),
    "CRS-12": (113.78, -458.0, 301.8, 150.0, 52.10, 1214.0),
    "SAOCOM-1A": (131.80, -298.9, 198.4, 148.0, 58.02, 1237.0),
}
BODY = plain()


@pytest.mark.parametrize("flight", COASTS)
def test_real_coast(within, flight: str) -> None:
    height, along, climb, seconds, end_height, end_speed = COASTS[flight]
    state = at(BODY, Vector(0.0, 0.0, 1e3 * height), Vector(along, 0.0, climb))
    site, flat = Site(), Site(rotation=0.0, constant_gravity=True)
    end, wrong = (last(fly(BODY, where, state, seconds, 0.1)).motion for where in (site, flat))
    missed = float(altitude(site, end.position)) / 1e3 - end_height
    within("altitude km", missed, 1.6)
    within("speed m/s", float(norm(end.velocity)) - end_speed, 15.0)
    assert abs(float(wrong.position.z) / 1e3 - end_height) >= 3.0 * abs(missed)
    assert np.isfinite(missed)
