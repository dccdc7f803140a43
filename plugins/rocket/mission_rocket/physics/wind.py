"""Steady wind by percentile and azimuth, and Dryden turbulence as a state.

Steady: Cape Kennedy quasi-steady envelope by altitude and percentile, below 1 km the 1/7 power law; or a profile by
altitude, such as a sounding.
Turbulence: the Dryden spectra of MIL-F-8785C, section 3.7, along (first order) and across (second
order) the flow. The states are kept at unit variance and advanced by their exact transition, so
that the variance is right for any step; intensity and length only scale them.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from mission_rocket.physics.tables import Grid, Table, lookup, lookup_grid
from mission_rocket.physics.tracing import traced_once
from mission_rocket.physics.vector import Scalar, Vector

_ENVELOPE = Grid(
    (1_000.0, 10_000.0, 13_600.0, 20_000.0, 23_000.0, 50_000.0, 80_000.0),
    (50.0, 75.0, 90.0, 95.0, 99.0),
    (
        (10.0, 14.0, 19.0, 19.0, 28.0),
        (46.0, 56.0, 67.0, 75.0, 96.0),
        (46.0, 56.0, 67.0, 75.0, 96.0),
        (15.0, 18.0, 22.0, 25.0, 40.0),
        (15.0, 18.0, 21.0, 25.0, 40.0),
        (58.0, 73.0, 91.0, 102.0, 120.0),
        (57.0, 72.0, 90.0, 102.0, 119.0),
    ),
)
_TYPICAL = Table(_ENVELOPE.x, tuple(speeds[_ENVELOPE.y.index(75.0)] for speeds in _ENVELOPE.values))
# Moderate turbulence by altitude, MIL-F-8785C figure 7 (probability of exceedance 1e-3), faded out above [est].
_INTENSITY_M_S = Table((0.0, 600.0, 3_000.0, 10_000.0, 18_000.0, 25_000.0), (1.5, 2.0, 2.1, 1.9, 0.9, 0.0))
_LENGTH_M = Table((10.0, 533.0), (40.0, 533.0))  # 1,750 ft above 1,750 ft, shorter near the ground


class Wind(NamedTuple):
    """The wind of a flight: percentile of the envelope, unit vector along which it blows, scale of the turbulence.

    `percentile` below 50 scales the median down linearly, so 0 is calm. `uniform` is added at every
    altitude along the same direction [m/s].
    """

    percentile: Scalar
    along_x: Scalar
    along_y: Scalar
    turbulence: Scalar
    uniform: Scalar = 0.0


class Profile(NamedTuple):
    """The steady wind by altitude as plain floats: components [m/s] in the local frame; the end values hold outside."""

    x: Table
    y: Table


class Gust(NamedTuple):
    """Standardised Dryden states: `along`, and two for each direction across; float32 scalars."""

    along: Scalar
    left: Scalar
    left_slow: Scalar
    right: Scalar
    right_slow: Scalar


def calm() -> Wind:
    """Return a wind of zero."""
    return Wind(jnp.zeros(()), jnp.ones(()), jnp.zeros(()), jnp.zeros(()), jnp.zeros(()))


def steady_wind(wind: Wind, altitude: Scalar, profile: Profile | None = None) -> Vector:
    """Return the horizontal wind [m/s] in the local frame; a profile replaces the envelope, not the uniform part."""
    if profile is not None:
        extra = Vector(wind.uniform * wind.along_x, wind.uniform * wind.along_y, 0.0 * altitude)
        return profile_wind(profile, altitude) + extra
    speed = lookup_grid(_ENVELOPE, altitude, wind.percentile) * jnp.clip(wind.percentile / 50.0, 0.0, 1.0)
    speed = speed * _near_ground(altitude) + wind.uniform
    return Vector(speed * wind.along_x, speed * wind.along_y, jnp.zeros_like(speed))


def envelope_speed(altitude: Scalar) -> Array:
    """Return the wind speed of the envelope at its 75th percentile [m/s], by which predictions scale a wind."""
    return lookup(_TYPICAL, altitude) * _near_ground(altitude)


def _near_ground(altitude: Scalar) -> Array:
    """Return the factor of the power law below 1 km."""
    return ((jnp.clip(altitude, 0.0, 1000.0) + 10.0) / 1010.0) ** (1.0 / 7.0)


def profile_wind(profile: Profile, altitude: Scalar) -> Vector:
    """Return the wind of a profile [m/s] in the local frame."""
    return Vector(lookup(profile.x, altitude), lookup(profile.y, altitude), 0.0 * altitude)


def start_gust(key: Array) -> Gust:
    """Draw from the stationary distribution. Key consumed."""
    a, b, c, d, e = jax.random.normal(key, (5,))
    return Gust(a, *_pair(b, c), *_pair(d, e))


def _pair(first: Array, second: Array) -> tuple[Array, Array]:
    """Return the stationary (y1, y2), whose covariance is [[1, 1], [1, 1]/2] / 2."""
    return first * jnp.sqrt(0.5), first * (0.5 * jnp.sqrt(0.5)) + second * 0.5 * jnp.sqrt(0.5)


def advance_gust(gust: Gust, key: Array, airspeed: Scalar, altitude: Scalar, seconds: Scalar) -> Gust:
    """Advance the turbulence by its exact transition over a step. Key consumed.

    Across the flow the Dryden filter (1 + sqrt(3) T s) / (1 + T s)^2, T = L / V, is sqrt(3) y1 +
    (1 - sqrt(3)) y2 of the chain y1 = w / (1 + T s), y2 = y1 / (1 + T s); see `gust_velocity`.
    """
    noise = jax.random.normal(key, (5,))
    ratio = seconds * jnp.maximum(airspeed, 1.0) / lookup(_LENGTH_M, altitude)
    kept = jnp.exp(-ratio)
    square = kept * kept
    along = kept * gust.along + jnp.sqrt(jnp.maximum(1.0 - square, 0.0)) * noise[0]
    q11 = 0.5 * (1.0 - square)
    q12 = 0.25 * (1.0 - square) - 0.5 * square * ratio
    q22 = 0.25 * (1.0 - square) - 0.5 * square * (ratio * ratio + ratio)
    first = jnp.sqrt(jnp.maximum(q11, 1e-12))
    mixed = q12 / first
    second = jnp.sqrt(jnp.maximum(q22 - mixed * mixed, 0.0))

    def across(fast: Scalar, slow: Scalar, a: Array, b: Array) -> tuple[Scalar, Scalar]:
        return kept * fast + first * a, kept * (slow + ratio * fast) + mixed * a + second * b

    return Gust(
        along,
        *across(gust.left, gust.left_slow, noise[1], noise[2]),
        *across(gust.right, gust.right_slow, noise[3], noise[4]),
    )


@traced_once(0)
def gust_velocity(wind: Wind, gust: Gust, altitude: Scalar) -> Vector:
    """Return the turbulent wind [m/s] in the local frame; z is along the flow of a vehicle that moves vertically."""
    intensity = wind.turbulence * lookup(_INTENSITY_M_S, altitude)
    root = 3.0**0.5

    def across(fast: Scalar, slow: Scalar) -> Scalar:
        return intensity * (root * fast + (1.0 - root) * slow)

    return Vector(across(gust.left, gust.left_slow), across(gust.right, gust.right_slow), intensity * gust.along)
