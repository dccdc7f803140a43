"""The landing's guide: a braking law on one engine group, with lateral steering.

Lights when a burn at the reference throttle would stop at the ground, then holds the throttle that does, with a flare
over the last metres. What differs from day to day is found in flight: drag from what the fall feels, the engine's lag
from how its level follows, thrust from what it gives. Sideways a linear-quadratic regulator commands gimbal and fins
together (mission_rocket/regulator.py); fins stop the roll.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from mission_rocket.flight import Flight, View, body_components, bounded, view
from mission_rocket.guidance import found_drag, found_lag, found_thrust, with_thrust
from mission_rocket.physics.gravity import Site
from mission_rocket.physics.vector import Vector, dot
from mission_rocket.physics.vehicle import Body
from mission_rocket.prediction import stop, stopping_throttle
from mission_rocket.regulator import Lateral, Regulator, Weights, descend, design, linearise, regulate, time_key

LONGEST_S = 10.0  # to the ignition, that an action can ask for
_LEAST_SLOPE = 0.02  # rad/s2 per rad: below it the fins do not steer in roll


class Gains(NamedTuple):
    """The guide's settings, found by evolutionary search (CMA-ES) over flights that an entry delivered.

    Half of them had one error far from nominal: see docs/decisions/0007-landing-regulator.md.
    """

    final_m_s: float = 0.87  # aimed at, at the ground
    flare_m_s: float = 12.67  # below this speed or `flare_m` the deceleration is the flare's: the engine lags
    flare_m: float = 12.28
    slow_m_s: float = 3.43  # below it the flare's speed falls linearly with height
    ahead: float = 0.371  # lags after which the throttle is reckoned to act
    follows: float = 4.09  # 1/s, of the speed to the flare's profile
    q_alpha: float = 4362  # Pa rad, that bounds the fins
    roll: float = 2.942  # rad/s, natural frequency
    roll_damping: float = 0.8
    lateral: Weights = Weights(
        position_m=1.532,
        velocity_m_s=0.3657,
        tilt=0.022,
        rate=0.00996,
        gimbal=0.08693,
        fins=0.1452,
        q_alpha=5417,
        felt_s=0.85,
        settle_s=1.069,
        settle=0.3269,
    )

    @property
    def flare_m_s2(self) -> float:
        """Deceleration of the flare."""
        slow = self.slow_m_s
        return (0.5 * (self.flare_m_s**2 - slow**2) + slow * (slow - self.final_m_s)) / self.flare_m

    def flare(self, height: Array) -> tuple[Array, Array]:
        """(speed, deceleration) of the flare at a height: constant deceleration, and at last speed linear in height.

        At constant deceleration to the ground 4 cm of height would decide whether it stops above it.
        """
        slope = self.flare_m_s2 / self.slow_m_s
        linear = self.final_m_s + slope * height
        above = height - (self.slow_m_s - self.final_m_s) / slope
        fast = jnp.sqrt(self.slow_m_s**2 + 2.0 * self.flare_m_s2 * jnp.maximum(above, 0.0))
        return jnp.where(above < 0.0, linear, fast), jnp.where(above < 0.0, slope * linear, self.flare_m_s2)


_GAINS = Gains()


class Plan(NamedTuple):
    """What the guide would do now, and what it expects: action [7], stop height [m], time to touchdown [s]."""

    action: Array
    stop_height: Array
    seconds: Array


class Found(NamedTuple):
    """The engines' lag [s], drag and thrust over nominal ones, as the flight has shown them so far."""

    lag: Array
    drag: Array
    thrust: Array


@dataclasses.dataclass(frozen=True, eq=False)
class LandingGuide:
    """The guide of a vehicle that lands on `engines` engines of its first groups.

    It lights for a stop at `reference_throttle`; its lateral gains reach up to `highest_m`.
    """

    body: Body
    site: Site
    engines: float
    reference_throttle: float
    highest_m: float
    period_s: float

    @cached_property
    def regulator(self) -> Regulator:
        """The lateral gains; made once, as plain numbers."""
        flare = (_GAINS.flare_m_s, _GAINS.flare_m_s2)
        with jax.ensure_compile_time_eval():
            path = descend(self.body, self.reference_throttle, self.engines, self.period_s, self.highest_m, flare)
            return design(linearise(self.body, self.site, path), path, _GAINS.lateral, self.period_s)

    def nothing_found(self) -> Found:
        """Everything nominal."""
        return Found(jnp.full((), self.body.engines[0].lag), jnp.ones(()), jnp.ones(()))

    def find(self, found: Found, was: Flight, now: Flight, throttle: Array, burnt: Array, lit: Array) -> Found:
        """What a control period taught; `burnt` throughout it, `lit` at its end, told to go to `throttle`."""
        before, after = was.state.motion.levels[0], now.state.motion.levels[0]
        # not while they start: the ignition delay is unknown
        lag = found_lag(found.lag, before, after, throttle, burnt & (before > 0.02), self.period_s)
        seen = view(self.body, self.site, now)
        # lit, the burn's jet and the thrust's own error are mixed with it
        drag = jnp.where(lit, found.drag, found_drag(self.body, seen, found.drag))
        return Found(lag, drag, found_thrust(self.body, self.engines, seen, now, found.thrust))

    def plan(self, flight: Flight, lit: Array, found: Found) -> Plan:
        """What the guide does now."""
        body, number = with_thrust(self.body, found.thrust), self.engines
        seen, group = view(self.body, self.site, flight), body.engines[0]
        speed, height = jnp.maximum(-seen.climb, 0.0), jnp.maximum(seen.altitude, 0.0)
        end = stop(body, seen.mass, height, speed, self.reference_throttle, number, _GAINS.final_m_s, found.drag)
        # unlit it falls until the stop would be at the ground; the mean delay and the lag come on top
        early = (0.2 + group.lag) * speed
        to_ignition = jnp.where(lit, 0.0, (end.height - early) / jnp.maximum(speed, 1.0))
        # leads the engine's lag, so that the real throttle arrives within the control period
        follow = 1.0 - jnp.exp(-self.period_s / found.lag)
        level = flight.state.motion.levels[0]
        wanted = jnp.clip(self._throttle(body, seen, lit, found, speed, height), group.throttle_min, 1.0)
        throttle = level + (wanted - level) / follow
        key = time_key(height, speed)
        gimbal, fins = self._steer(flight, seen, key)
        share = (throttle - group.throttle_min) / (1.0 - group.throttle_min)
        commands = (2.0 * share - 1.0, 2.0 * to_ignition / LONGEST_S - 1.0)
        action = jnp.stack([*commands, gimbal.x, gimbal.y, *fins])
        return Plan(bounded(action, (1,)), end.height, key)

    def _throttle(self, body: Body, seen: View, lit: Array, found: Found, speed: Array, height: Array) -> Array:
        """Throttle that brakes to the flare and through it, from where it will be when the engine has followed."""
        group, number = body.engines[0], self.engines
        ahead = _GAINS.ahead * found.lag
        braked = jnp.where(lit, dot(seen.felt, seen.vertical) - 9.8, 0.0)
        later = jnp.maximum(speed - braked * ahead, 0.0)
        below = jnp.maximum(height - 0.5 * (speed + later) * ahead, 0.0)
        wanted = stopping_throttle(
            body, seen.mass, below - _GAINS.flare_m, later, number, _GAINS.flare_m_s, group.throttle_min, found.drag
        )
        profile, gentle = _GAINS.flare(below)
        gentle = 9.8 + gentle + _GAINS.follows * (later - profile)
        low = (later < _GAINS.flare_m_s) | (below < _GAINS.flare_m)
        flared = (seen.mass * gentle / number + group.exit_area * 101_325.0) / group.thrust
        return jnp.where(low, flared, wanted)

    def _steer(self, flight: Flight, seen: View, key: Array) -> tuple[Vector, Vector]:
        """(gimbal, fins), shares of their limits: the regulator in both directions, and roll by the fins."""
        body, motion, zero = self.body, flight.state.motion, jnp.zeros_like(key)

        def across(v: Vector) -> Vector:
            return body_components(flight, Vector(v.x, v.y, zero))

        here, going, wind, felt = (across(v) for v in (seen.position, seen.velocity, seen.wind, seen.felt))
        tilt, rates, gimbal, fins = across(seen.axis), motion.rates, motion.gimbal, motion.fins
        in_x = Lateral(here.x, going.x, tilt.x, rates.y, gimbal.y, fins.y, wind.x, felt.x, seen.turning.y)
        in_y = Lateral(here.y, going.y, tilt.y, -rates.x, -gimbal.x, -fins.x, wind.y, felt.y, -seen.turning.x)
        level = motion.levels[0]
        gimbal_x, fin_x = regulate(self.regulator, key, level, seen.pressure, in_x)
        gimbal_y, fin_y = regulate(self.regulator, key, level, seen.pressure, in_y)
        turn = Vector(-gimbal_y, gimbal_x, zero) * (1.0 / body.gimbal.limit)
        if body.fins is None:
            return turn, Vector(zero, zero, zero)
        largest = jnp.minimum(_GAINS.q_alpha / jnp.maximum(seen.pressure, 1.0), body.fins.limit)
        # roll'' = -2 d w roll' - w^2 roll, through the lag of the fins; gyros feel what disturbs it
        per = jnp.maximum(2.0 * seen.fin_slope * body.fins.radius / seen.inertia.z, _LEAST_SLOPE)
        change = 2.0 * _GAINS.roll_damping * _GAINS.roll * seen.turning.z + _GAINS.roll**2 * rates.z
        roll = fins.z - body.fins.lag * change / per
        held = Vector(-jnp.clip(fin_y, -largest, largest), jnp.clip(fin_x, -largest, largest), roll)
        return turn, held * (1.0 / body.fins.limit)
