"""Fixed-step integration: classical Runge-Kutta of order 4, compensated sums, events inside a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from mission_rocket.physics.actuators import (
    actuator_lags,
    fed_shares,
    feed_at,
    followed,
    left_at,
    mean_left,
    stage_factors,
)
from mission_rocket.physics.dynamics import limited, motion_rate
from mission_rocket.physics.gravity import Site, altitude
from mission_rocket.physics.state import Command, Dispersion, Motion, Rounding, State
from mission_rocket.physics.vector import Scalar, Vector, norm, normalise
from mission_rocket.physics.vehicle import Body
from mission_rocket.physics.wind import advance_gust, gust_velocity, steady_wind


def rk4_increment(rate: Callable[[Any], Any], begin: Any, seconds: Scalar) -> Any:
    """Return the change of a pytree over one step of the classical fourth-order method (Kutta 1901).

    The four stages are one loop, so that a compiled program holds `rate` once.
    """
    dtype = jax.tree.leaves(begin)[0].dtype
    zero = jax.tree.map(jnp.zeros_like, begin)

    def stage(carry: tuple[Any, Any], numbers: tuple[Array, Array]) -> tuple[tuple[Any, Any], None]:
        slope, total = carry
        reach, weight = numbers
        there = jax.tree.map(lambda b, s: b + (reach * seconds) * s, begin, slope)
        slope = rate(there)
        return (slope, jax.tree.map(lambda t, s: t + (weight * seconds) * s, total, slope)), None

    reaches = jnp.array([0.0, 0.5, 0.5, 1.0], dtype)
    weights = jnp.array([1.0, 2.0, 2.0, 1.0], dtype) / 6.0
    return lax.scan(stage, (zero, zero), (reaches, weights))[0][1]


def _kahan(total: Any, lost: Any, change: Any) -> tuple[Any, Any]:
    """Add pytrees with compensation: (sum, rounding error)."""
    exact = jax.tree.map(lambda c, e: c - e, change, lost)
    summed = jax.tree.map(lambda t, e: t + e, total, exact)
    return summed, jax.tree.map(lambda s, t, e: (s - t) - e, summed, total, exact)


def advance(body: Body, site: Site, dispersion: Dispersion, state: State, command: Command, seconds: Scalar) -> State:
    """Integrate one step under a constant command; the turbulence is held over it.

    An engine group that is commanded to light does so after the ignition delay of the flight, if it has an ignition
    left. Actuators follow their lags exactly, and engines and RCS stop where their tank runs dry (actuators.py).
    """
    command = limited(body, command)
    throttle, lit_for, left = [], [], []
    for wanted, running, ignitions in zip(command.throttle, state.lit_for, state.ignitions_left, strict=True):
        was = running > 0.0
        lit = (wanted > 0.0) & (was | (ignitions > 0.5))
        left.append(jnp.where(lit & jnp.logical_not(was), ignitions - 1.0, ignitions))
        now = jnp.where(lit, running + jnp.maximum(seconds, 1e-6), 0.0)
        # the fraction of this step after the delay, so that the impulse is right without splitting the step
        share = jnp.clip((now - dispersion.ignition_delay) / jnp.maximum(seconds, 1e-6), 0.0, 1.0)
        throttle.append(jnp.where(lit, wanted * share, 0.0))
        lit_for.append(now)
    command = command._replace(throttle=tuple(throttle))
    motion, span = state.motion, jnp.asarray(seconds, state.time.dtype)
    gust = gust_velocity(dispersion.wind, state.gust, altitude(site, motion.position))
    lags = actuator_lags(body, dispersion)
    factors = stage_factors(lags, span)
    mean = followed(motion, motion, command, mean_left(lags, span))
    shares = fed_shares(body, dispersion, motion, mean, command, span)

    def rate(there: tuple[Motion, Array]) -> tuple[Motion, Array]:
        moved, since = there
        moved = followed(moved, motion, command, left_at(lags, since, factors))
        slope = motion_rate(body, site, dispersion, moved, command, gust, feed_at(shares, since))
        return slope, jnp.ones_like(since)

    change, _ = rk4_increment(rate, (motion, jnp.zeros_like(span)), span)
    moved = jax.tree.map(lambda m, c: m + c, motion, change)
    moved = followed(moved, motion, command, left_at(lags, span))
    (position, velocity, propellant, time), rounding = _kahan(
        (motion.position, motion.velocity, motion.propellant, state.time),
        tuple(state.rounding),
        (change.position, change.velocity, change.propellant, span),
    )
    moved = moved._replace(
        position=position,
        velocity=velocity,
        propellant=jnp.where(shares.engines < 1.0, 0.0, jnp.maximum(propellant, 0.0)),
        rcs_propellant=jnp.where(shares.rcs < 1.0, 0.0, jnp.maximum(moved.rcs_propellant, 0.0)),
        attitude=normalise(moved.attitude),
    )
    return State(
        motion=moved,
        rounding=Rounding(*rounding),
        lit_for=tuple(lit_for),
        ignitions_left=tuple(left),
        gust=state.gust,
        time=time,
    )


def blow(site: Site, dispersion: Dispersion, state: State, key: Array, seconds: Scalar) -> State:
    """Advance the turbulence by `seconds`. Key consumed."""
    height = altitude(site, state.motion.position)
    wind = steady_wind(dispersion.wind, height, site.winds)
    speed = norm(state.motion.velocity - wind, 1e-6)
    return state._replace(gust=advance_gust(state.gust, key, speed, height, seconds))


def advance_twice(
    body: Body,
    site: Site,
    dispersion: Dispersion,
    state: State,
    commands: tuple[Command, Command],
    seconds: tuple[Scalar, Scalar],
    steps_each: int = 1,
) -> State:
    """Integrate two spans of `steps_each` steps in one loop; a switch inside a control period falls between them."""
    both = [*((0,) * steps_each), *((1,) * steps_each)]
    stacked = jax.tree.map(lambda *pair: jnp.stack([jnp.asarray(pair[at]) for at in both]), *commands)
    spans = jnp.stack([jnp.asarray(seconds[at], state.time.dtype) / steps_each for at in both])

    def step(state: State, span: tuple[Command, Array]) -> tuple[State, None]:
        return advance(body, site, dispersion, state, *span), None

    return lax.scan(step, state, (stacked, spans))[0]


def cross_altitude(site: Site, before: State, after: State, seconds: Scalar, level: float) -> tuple[Array, State]:
    """Find where a step descended through an altitude: (whether it did; the state there, or `after` if it did not).

    Position is the cubic Hermite interpolant between both ends and velocity its derivative,
    everything else is linear. The crossing is found by bisection and sharpened by one step of
    Newton's method, which also gives the crossing time the right derivative.
    """
    span = jnp.maximum(seconds, 1e-6)
    high, low = altitude(site, before.motion.position) - level, altitude(site, after.motion.position) - level
    crossed = (high > 0.0) & (low <= 0.0)

    def height(fraction: Array) -> Array:
        return altitude(site, _hermite(before.motion, after.motion, fraction, span)[0]) - level

    def halve(_: int, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        above, below = bounds
        middle = 0.5 * (above + below)
        over = height(middle) > 0.0
        return jnp.where(over, middle, above), jnp.where(over, below, middle)

    _, fraction = lax.fori_loop(0, 20, halve, (jnp.zeros_like(high), jnp.ones_like(high)))
    fraction = lax.stop_gradient(fraction)
    sinking = lax.stop_gradient(jnp.where(crossed, jax.grad(height)(fraction), -1.0))
    fraction = jnp.where(crossed, jnp.clip(fraction - height(fraction) / jnp.minimum(sinking, -1e-6), 0.0, 1.0), 1.0)
    between = jax.tree.map(lambda a, b: a + fraction * (b - a), before, after)
    position, velocity = _hermite(before.motion, after.motion, fraction, span)
    motion = between.motion._replace(position=position, velocity=velocity, attitude=normalise(between.motion.attitude))
    there = between._replace(motion=motion, ignitions_left=after.ignitions_left, lit_for=after.lit_for)
    return crossed, jax.tree.map(lambda a, b: jnp.where(crossed, a, b), there, after)


def _hermite(a: Motion, b: Motion, t: Scalar, span: Scalar) -> tuple[Vector, Vector]:
    """Return the position at fraction t of a step, and its derivative."""
    t2, t3 = t * t, t * t * t

    def place(p: Scalar, q: Scalar, v: Scalar, w: Scalar) -> Scalar:
        return p + (3 * t2 - 2 * t3) * (q - p) + span * ((t3 - 2 * t2 + t) * v + (t3 - t2) * w)

    def speed(p: Scalar, q: Scalar, v: Scalar, w: Scalar) -> Scalar:
        return (6 * t - 6 * t2) * (q - p) / span + (3 * t2 - 4 * t + 1) * v + (3 * t2 - 2 * t) * w

    ends = list(zip(a.position, b.position, a.velocity, b.velocity, strict=True))
    return Vector(*(place(*end) for end in ends)), Vector(*(speed(*end) for end in ends))
