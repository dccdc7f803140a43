"""US Standard Atmosphere 1976: its printed table, and a reference package at 1,000 altitudes."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from mission_rocket.physics.atmosphere import atmosphere

# geometric altitude m: T K, p Pa, rho kg/m3, speed of sound m/s (NOAA-S/T 76-1562)
TABLE = {
    0.0: (288.150, 101325.0, 1.22500, 340.294),
    1000.0: (281.651, 89876.0, 1.11170, 336.435),
    5000.0: (255.676, 54048.0, 0.73643, 320.546),
    10000.0: (223.252, 26500.0, 0.41351, 299.532),
    11000.0: (216.774, 22700.0, 0.36480, 295.154),
    20000.0: (216.650, 5529.3, 0.088910, 295.070),
    30000.0: (226.509, 1197.0, 0.018410, 301.709),
    40000.0: (250.350, 287.14, 3.9957e-3, 317.189),
    60000.0: (247.021, 21.959, 3.0968e-4, 315.074),
    80000.0: (198.639, 1.0525, 1.8458e-5, 282.538),
}


def air(altitudes: np.ndarray) -> np.ndarray:
    """[4, altitudes]: temperature, pressure, density, speed of sound in float32."""
    return np.stack([np.asarray(part) for part in jax.jit(atmosphere)(np.float32(altitudes))])


def test_printed_table(within) -> None:
    expected = np.array(list(TABLE.values())).T
    error = air(np.array(list(TABLE))) / expected - 1.0
    within("temperature", error[0], 0.001)
    within("pressure", error[1], 0.001)
    within("density", error[2], 0.002)
    within("speed of sound", error[3], 0.001)


def test_reference_package(within) -> None:
    ussa1976 = pytest.importorskip("ussa1976", reason="ussa1976 is not installed (dependency group ref)")
    altitudes = np.linspace(0.0, 86_000.0, 1000)
    reference = ussa1976.compute(z=altitudes, variables=["t", "p", "rho"])
    expected = np.stack([reference[name].to_numpy() for name in ("t", "p", "rho")])
    error = air(altitudes)[:3] / expected - 1.0
    within("temperature", error[0], 0.001)
    within("pressure", error[1], 0.001)
    within("density", error[2], 0.002)


def test_above_86_km_it_goes_on_smoothly(within) -> None:
    found = air(np.linspace(85_900.0, 86_100.0, 201))
    within("temperature jump", np.diff(found[0]) / found[0][:-1], 0.001)
    within("pressure jump", np.diff(np.log(found[1])), 0.002)
    within("density jump", np.diff(np.log(found[2])), 0.003)
    found = air(np.linspace(0.0, 400_000.0, 4001))
    assert np.isfinite(found).all()
    assert (np.diff(found[1]) < 0.0).all()
    assert (np.diff(found[2]) < 0.0).all()


def test_the_slope_is_finite_everywhere() -> None:
    slopes = jax.vmap(jax.grad(lambda height: atmosphere(height).density))(
        np.linspace(-100.0, 300_000.0, 3001, dtype=np.float32)
    )
    assert np.isfinite(slopes).all()
    assert (np.asarray(slopes) < 0.0).all()
