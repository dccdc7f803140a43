"""US Standard Atmosphere 1976 (NOAA-S/T 76-1562) by geometric altitude, and a smooth fade above 86 km.

Up to 86 km: the seven layers of table 4, in geopotential altitude. Above, temperature follows the
standard's kinetic temperature and log pressure is linear between its table values at 100, 110,
120, 150 and 200 km; the last slope continues above.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from mission_rocket.physics.constants import SEA_LEVEL_PRESSURE_PA, STANDARD_GRAVITY_M_S2
from mission_rocket.physics.tables import Table, lookup_all
from mission_rocket.physics.tracing import traced_once
from mission_rocket.physics.vector import Scalar

GAS_CONSTANT_J_KG_K = 8314.32 / 28.9644
HEAT_RATIO = 1.4
_RADIUS_M = 6_356_766.0  # of the standard, for geopotential altitude
_TOP_M = 86_000.0
_BASE_M = (0.0, 11_000.0, 20_000.0, 32_000.0, 47_000.0, 51_000.0, 71_000.0)
_LAPSE_K_M = (-0.0065, 0.0, 0.001, 0.0028, 0.0, -0.0028, -0.002)
_HYDROSTATIC = STANDARD_GRAVITY_M_S2 / GAS_CONSTANT_J_KG_K


class Air(NamedTuple):
    """Temperature K, pressure Pa, density kg/m3, speed of sound m/s."""

    temperature: Array
    pressure: Array
    density: Array
    sound_speed: Array


def _layers() -> list[tuple[float, float, float, float]]:
    """Return (base altitude, base temperature, base log pressure, lapse rate) of each layer."""
    layers, temperature, log_pressure = [], 288.15, math.log(SEA_LEVEL_PRESSURE_PA)
    for i, (base, lapse) in enumerate(zip(_BASE_M, _LAPSE_K_M, strict=True)):
        layers.append((base, temperature, log_pressure, lapse))
        if i + 1 < len(_BASE_M):
            top = _BASE_M[i + 1]
            warmer = temperature + lapse * (top - base)
            if lapse:
                log_pressure -= _HYDROSTATIC / lapse * math.log(warmer / temperature)
            else:
                log_pressure -= _HYDROSTATIC * (top - base) / temperature
            temperature = warmer
    return layers


_LAYERS = _layers()
_HIGH_M = (86_000.0, 100_000.0, 110_000.0, 120_000.0, 150_000.0, 200_000.0)
_HIGH_TEMPERATURE = Table((*_HIGH_M, 400_000.0), (186.87, 195.08, 240.00, 360.00, 634.39, 854.56, 854.56))
_HIGH_LOG_PRESSURE = Table(
    (*_HIGH_M, 400_000.0),
    (
        *(math.log(p) for p in (0.37338, 0.032011, 7.1042e-3, 2.5382e-3, 4.5422e-4, 8.4736e-5)),
        math.log(8.4736e-5) + 4.0 * math.log(8.4736e-5 / 4.5422e-4),
    ),
)
_HIGH_LOG_DENSITY = Table(
    (*_HIGH_M, 400_000.0),
    (
        *(math.log(d) for d in (6.958e-6, 5.604e-7, 9.708e-8, 2.222e-8, 2.076e-9, 2.541e-10)),
        math.log(2.541e-10) + 4.0 * math.log(2.541e-10 / 2.076e-9),
    ),
)


@traced_once(0)
def atmosphere(altitude: Scalar) -> Air:
    """Return the air at a geometric altitude [m]; extrapolated below sea level and constant above 400 km."""
    altitude = jnp.maximum(altitude, -5000.0)
    geopotential = _RADIUS_M * altitude / (_RADIUS_M + altitude)
    base, start, log_start, lapse = (jnp.full_like(geopotential, value) for value in _LAYERS[0])
    for layer in _LAYERS[1:]:
        above = geopotential >= layer[0]
        base, start, log_start, lapse = (
            jnp.where(above, new, old) for new, old in zip(layer, (base, start, log_start, lapse), strict=True)
        )
    climbed = jnp.minimum(geopotential, 84_852.0) - base
    temperature = start + lapse * climbed
    # g / (R L) log(T / T_b), whose limit in an isothermal layer is g dH / (R T_b)
    sloped = jnp.where(lapse == 0.0, 1.0, lapse)
    gradient = _HYDROSTATIC / sloped * jnp.log(jnp.where(lapse == 0.0, start, temperature) / start)
    log_pressure = log_start - jnp.where(lapse == 0.0, _HYDROSTATIC * climbed / start, gradient)
    high = altitude > _TOP_M
    thin = lookup_all((_HIGH_TEMPERATURE, _HIGH_LOG_PRESSURE, _HIGH_LOG_DENSITY), altitude)
    temperature, log_pressure = jnp.where(high, thin[0], temperature), jnp.where(high, thin[1], log_pressure)
    pressure = jnp.exp(log_pressure)
    density = jnp.where(high, jnp.exp(thin[2]), pressure / (GAS_CONSTANT_J_KG_K * temperature))
    return Air(temperature, pressure, density, jnp.sqrt(HEAT_RATIO * GAS_CONSTANT_J_KG_K * temperature))
