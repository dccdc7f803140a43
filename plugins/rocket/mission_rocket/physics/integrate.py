"""Fixed-step integration: classical Runge-Kutta of order 4, compensated sums, events inside a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from mission_rocket.physics.actuators import decays, each, fed_shares, feed_at, followed
from mission_rocket.physics.dynamics import limited, motion_rate
from mission_rocket.physics.gravity import Site, altitude, up
from mission_rocket.physics.state import Command, Dispersion, Motion, Rounding, State
from mission_rocket.physics.vector import Quaternion, Scalar, Vector, dot, norm, normalise
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


class _Free(NamedTuple):
    """The part of the motion that the integrator advances; actuators follow their commands exactly."""

    position: Vector
    velocity: Vector
    attitude: Quaternion
    rates: Vector
    propellant: Scalar
    rcs_propellant: Scalar

    @classmethod
    def of(cls, motion: Motion) -> _Free:
        return cls(*(getattr(motion, name) for name in cls._fields))


def advance(body: Body, site: Site, dispersion: Dispersion, state: State, command: Command, seconds: Scalar) -> State:
    """Integrate one step under a constant command; the turbulence is held over it.

    An engine group that is commanded to light does so after the ignition delay of the flight, if it has an ignition
    left. Actuators follow their lags exactly, and engines and RCS stop where their tank runs dry (actuators.py).
    """
    command, lit_for, ignitions = _ignite(dispersion, state, limited(body, command), seconds)
    motion, span = state.motion, jnp.asarray(seconds, state.time.dtype)
    gust = gust_velocity(dispersion.wind, state.gust, altitude(site, motion.position))
    left = decays(body, dispersion, span)
    mean = followed(motion, motion, command, each(left, lambda decay: decay.mean))
    shares = fed_shares(body, dispersion, motion, mean, command, span)

    def rate(there: tuple[_Free, Array]) -> tuple[_Free, Array]:
        free, since = there
        moved = followed(
            motion._replace(**free._asdict()), motion, command, each(left, lambda decay: decay.at_stage(since, span))
        )
        slope = motion_rate(body, site, dispersion, moved, command, gust, feed_at(shares, since))
        return _Free.of(slope), jnp.ones_like(since)

    begin = _Free.of(motion)
    change, _ = rk4_increment(rate, (begin, jnp.zeros_like(span)), span)
    free = jax.tree.map(lambda m, c: m + c, begin, change)
    (position, velocity, propellant, time), rounding = _kahan(
        (motion.position, motion.velocity, motion.propellant, state.time),
        tuple(state.rounding),
        (change.position, change.velocity, change.propellant, span),
    )
    moved = motion._replace(
        position=position,
        velocity=velocity,
        attitude=normalise(free.attitude),
        rates=free.rates,
        propellant=jnp.where(shares.engines < 1.0, 0.0, jnp.maximum(propellant, 0.0)),
        rcs_propellant=jnp.where(shares.rcs < 1.0, 0.0, jnp.maximum(free.rcs_propellant, 0.0)),
    )
    moved = followed(moved, motion, command, each(left, lambda decay: decay.end))
    return State(moved, Rounding(*rounding), lit_for, ignitions, state.gust, time)


def _ignite(
    dispersion: Dispersion, state: State, command: Command, seconds: Scalar
) -> tuple[Command, tuple[Scalar, ...], tuple[Scalar, ...]]:
    """Return the command of the engines that burn in a step, and by group `lit_for` and the ignitions left after it."""
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
    return command._replace(throttle=tuple(throttle)), tuple(lit_for), tuple(left)


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
        return altitude(site, _hermite(before.motion, after.motion, fraction, span)) - level

    def halve(_: int, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        above, below = bounds
        middle = 0.5 * (above + below)
        over = height(middle) > 0.0
        return jnp.where(over, middle, above), jnp.where(over, below, middle)

    _, fraction = lax.fori_loop(0, 20, halve, (jnp.zeros_like(high), jnp.ones_like(high)))
    fraction = lax.stop_gradient(fraction)
    near = _hermite(before.motion, after.motion, fraction, span)
    sinking = span * dot(up(site, near), _hermite_speed(before.motion, after.motion, fraction, span))
    sinking = lax.stop_gradient(jnp.where(crossed, sinking, -1.0))
    fraction = jnp.where(
        crossed, jnp.clip(fraction - (altitude(site, near) - level) / jnp.minimum(sinking, -1e-6), 0.0, 1.0), 1.0
    )
    between = jax.tree.map(lambda a, b: a + fraction * (b - a), before.motion, after.motion)
    position = _hermite(before.motion, after.motion, fraction, span)
    velocity = _hermite_speed(before.motion, after.motion, fraction, span)
    there = between._replace(position=position, velocity=velocity, attitude=normalise(between.attitude))
    motion = jax.tree.map(lambda a, b: jnp.where(crossed, a, b), there, after.motion)
    time = jnp.where(crossed, before.time + fraction * (after.time - before.time), after.time)
    return crossed, after._replace(motion=motion, time=time)


def _hermite(a: Motion, b: Motion, t: Scalar, span: Scalar) -> Vector:
    """Return the position at fraction t of a step."""
    t2, t3 = t * t, t * t * t
    share, begin, end = 3 * t2 - 2 * t3, span * (t3 - 2 * t2 + t), span * (t3 - t2)
    return a.position + (b.position - a.position) * share + a.velocity * begin + b.velocity * end


def _hermite_speed(a: Motion, b: Motion, t: Scalar, span: Scalar) -> Vector:
    """Return the derivative of the position by time at fraction t of a step."""
    t2 = t * t
    share, begin, end = (6 * t - 6 * t2) / span, 3 * t2 - 4 * t + 1, 3 * t2 - 2 * t
    return (b.position - a.position) * share + a.velocity * begin + b.velocity * end
