"""Actuators that follow a constant command over a step of any length, and tanks that run dry inside it.

First-order lags are exact exponentials, x = command + (x0 - command) exp(-t / lag). Simpson's rule, by which the
integrator sums over its stages, overrates an exponential that is short against the step; the stages therefore take it
times a factor that makes the mean over the step exact.

A tank that feeds only a share s of a step feeds the first stage with 6 s - 5 s^2 and the others with s^2: the classical
Runge-Kutta method then gives the velocity s and the displacement s - s^2 / 2 of a constant thrust that ends there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from mission_rocket.physics.propulsion import Feed, engine_flow, rcs_flow
from mission_rocket.physics.state import Command, Dispersion, Motion
from mission_rocket.physics.vector import Scalar
from mission_rocket.physics.vehicle import Body


class ByActuator(NamedTuple):
    """A number or a function of time for each actuator."""

    engines: tuple[Any, ...]
    gimbal: Any
    fins: Any


class Decay(NamedTuple):
    """What is left of the gap between an actuator and its command, as a share of that at the beginning of a step."""

    half: Array  # after half of the step
    mean: Array

    @property
    def end(self) -> Array:
        """At the end of the step."""
        return self.half * self.half

    def at_stage(self, since: Array, seconds: Array) -> Array:
        """At a stage of the integrator, `since` seconds after the beginning, so that Simpson's rule gives the mean."""
        factor = 6.0 * self.mean / (1.0 + 4.0 * self.half + self.end)
        return factor * jnp.where(since <= 0.0, 1.0, jnp.where(since < seconds, self.half, self.end))


def decays(body: Body, dispersion: Dispersion, seconds: Array) -> ByActuator:
    """Return the decay of every actuator over a step."""
    by_lag: dict[float, Decay] = {}

    def decay(lag: float) -> Decay:
        if lag not in by_lag:
            ratio = jnp.maximum(seconds / (lag * dispersion.actuator_lag), 1e-6)
            closed = jnp.expm1(-0.5 * ratio)  # minus the share of the gap that is closed at half of the step
            by_lag[lag] = Decay(1.0 + closed, -closed * (2.0 + closed) / ratio)
        return by_lag[lag]

    engines = tuple(decay(group.lag) for group in body.engines)
    return ByActuator(engines, decay(body.gimbal.lag), decay(body.fins.lag if body.fins else 1.0))


def each(by_actuator: ByActuator, function: Callable[[Decay], Array]) -> ByActuator:
    """Return the values of a function of the decays."""
    engines, gimbal, fins = by_actuator
    return ByActuator(tuple(function(decay) for decay in engines), function(gimbal), function(fins))


def followed(there: Motion, begin: Motion, command: Command, left: ByActuator) -> Motion:
    """Return the motion `there` with actuators of whose gap to the command at `begin` the shares `left` are left."""

    def towards(target: Scalar, value: Scalar, share: Scalar) -> Scalar:
        return target + (value - target) * share

    return there._replace(
        levels=tuple(towards(*one) for one in zip(command.throttle, begin.levels, left.engines, strict=True)),
        gimbal=command.gimbal + (begin.gimbal - command.gimbal) * left.gimbal,
        fins=command.fins + (begin.fins - command.fins) * left.fins,
    )


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
