"""The optimum that landings are measured against, on published cases without air."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))

pytest.importorskip("cvxpy", reason="cvxpy is not installed (dependency group ref)")

from optimum import Burn, Lander, least_burn, optimum, vacuum

GRAVITY = 9.80665


def burn(thrust: float, least: float, air=vacuum) -> Burn:
    return Burn(Lander(thrust, 282.0 * GRAVITY, 0.0, least, GRAVITY, air))


@pytest.mark.parametrize(("least", "kilograms", "seconds"), [(0.57, 5964.0, 25.5), (0.40, 5869.0, 24.5)])
def test_burn_from_the_start(least: float, kilograms: float, seconds: float) -> None:
    """From (300, 5000) m at (-30, -300) m/s, 33 t, one engine of 845 kN: within 0.4 % and half a second."""
    found, length = least_burn(burn(845e3, least), np.array([300.0, 0.0, 5000.0]), np.array([-30.0, 0.0, -300.0]), 33e3)
    assert found == pytest.approx(kilograms, rel=4e-3)
    assert length == pytest.approx(seconds, abs=0.5)


def test_fall_then_full_thrust() -> None:
    """10 km, 300 m/s, 33 t: falling 13.24 s, then full thrust, takes 6934.96 kg."""
    found = optimum(burn(845e3, 0.4), np.array([0.0, 0.0, 10e3]), np.array([0.0, 0.0, -300.0]), 33e3)
    assert found.propellant == pytest.approx(6934.96, rel=1e-3)
    assert found.coast_s == pytest.approx(13.24, abs=0.3)
    assert np.abs(found.position[-1]).max() < 0.1
    assert np.abs(found.velocity[-1]).max() < 0.1


def test_drag_saves_propellant() -> None:
    """By the impulse that it gives: a constant 20 kN over the burn is 20 kN s a second less to do."""
    r, v = np.array([0.0, 0.0, 5000.0]), np.array([0.0, 0.0, -300.0])

    def constant(height: np.ndarray, speed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return 20e3 / np.maximum(speed, 1.0), np.zeros_like(speed)

    without, _ = least_burn(burn(845e3, 0.4), r, v, 33e3, rounds=6)
    with_drag, seconds = least_burn(burn(845e3, 0.4, constant), r, v, 33e3, rounds=6)
    saved = 20e3 * seconds / (282.0 * GRAVITY)
    assert without - with_drag == pytest.approx(saved, rel=0.25)
