"""Actuators that follow a constant command over a step of any length, and tanks that run dry inside it.

First-order lags are exact exponentials, x = command + (x0 - command) exp(-t / lag). Simpson's rule, by which the
integrator sums over its stages, overrates an exponential that is short against the step; the stages therefore take it
times a factor that makes the mean over the step exact.

A tank that feeds only a share s of a step feeds the first stage with 6 s - 5 s^2 and the others with s^2: the classical
Runge-Kutta method then gives the velocity s and the displacement s - s^2 / 2 of a constant thrust that ends there.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from mission_rocket.physics.propulsion import Feed, engine_flow, rcs_flow
from mission_rocket.physics.state import Command, Dispersion, Motion
from mission_rocket.physics.vector import Scalar
from mission_rocket.physics.vehicle import Body


class ByActuator(NamedTuple):
    """One number for each actuator: its lag [s], or the share of the gap to its command that is left."""

    engines: tuple[Scalar, ...]
    gimbal: Scalar
    fins: Scalar


def actuator_lags(body: Body, dispersion: Dispersion) -> ByActuator:
    """Return the lags of the actuators [s]."""
    factor = dispersion.actuator_lag
    return ByActuator(
        tuple(group.lag * factor for group in body.engines),
        body.gimbal.lag * factor,
        (body.fins.lag if body.fins else 1.0) * factor,
    )


def followed(there: Motion, begin: Motion, command: Command, left: ByActuator) -> Motion:
    """Return the motion `there` with actuators that followed their commands from `begin`."""

    def towards(target: Scalar, value: Scalar, share: Scalar) -> Scalar:
        return target + (value - target) * share

    return there._replace(
        levels=tuple(towards(*each) for each in zip(command.throttle, begin.levels, left.engines, strict=True)),
        gimbal=command.gimbal + (begin.gimbal - command.gimbal) * left.gimbal,
        fins=command.fins + (begin.fins - command.fins) * left.fins,
    )


def left_at(lags: ByActuator, seconds: Array, factors: ByActuator | None = None) -> ByActuator:
    """Return the shares that are left after `seconds`, times `factors` if they are given."""
    shares = jax.tree.map(lambda lag: jnp.exp(-seconds / lag), lags)
    return shares if factors is None else jax.tree.map(lambda share, factor: share * factor, shares, factors)


def mean_left(lags: ByActuator, seconds: Array) -> ByActuator:
    """Return the means over a step of the shares that are left."""
    return jax.tree.map(lambda lag: _mean(seconds / lag), lags)


def stage_factors(lags: ByActuator, seconds: Array) -> ByActuator:
    """Return the factors of the stages of a step, with which Simpson's rule gives the mean of the shares."""

    def factor(lag: Scalar) -> Array:
        half = jnp.exp(-0.5 * seconds / lag)
        return 6.0 * _mean(seconds / lag) / (1.0 + 4.0 * half + half * half)

    return jax.tree.map(factor, lags)


def fed_shares(
    body: Body, dispersion: Dispersion, begin: Motion, mean: Motion, command: Command, seconds: Array
) -> Feed:
    """Return the shares of a step for which the tanks feed engines and RCS; `mean` holds the mean actuators."""

    def share(tank: Scalar, flow: Array) -> Array:
        return jnp.clip(tank / jnp.maximum(flow * seconds, 1e-9), 0.0, 1.0)

    return Feed(
        share(begin.propellant, engine_flow(body, dispersion, mean.levels)),
        share(begin.rcs_propellant, rcs_flow(body, command)),
    )


def feed_at(shares: Feed, since: Array) -> Feed:
    """Return what the tanks feed at the stage of the integrator that is `since` seconds after the first."""
    return Feed(*(jnp.where(since > 0.0, share * share, share * (6.0 - 5.0 * share)) for share in shares))


def _mean(ratio: Scalar) -> Array:
    """Return the mean of exp(-t / lag) over a step of `ratio` lags."""
    ratio = jnp.maximum(ratio, 1e-6)
    return -jnp.expm1(-ratio) / ratio
