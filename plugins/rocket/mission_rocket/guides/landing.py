"""Guidance law of the landing burn: a braking law on one engine group, with lateral steering.

It ignites when a burn at the reference throttle would stop at the ground. Then it commands the throttle that stops
there, with a flare over the last metres. The dispersions of the flight are estimated: drag from the specific force of
the fall, the lag of the engine from the response of its level, thrust from the delivered thrust. Laterally a
linear-quadratic regulator commands gimbal and fins together (regulator.py); the fins stop the roll, and the RCS does
where the air is too slow for them.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from pydantic import Field

from mission_rocket.booster import FlightParams
from mission_rocket.controls import Setting, throttle_share
from mission_rocket.guides.guidance import (
    GuidanceLaw,
    estimate_drag,
    estimate_lag,
    estimate_thrust,
    with_drag,
    with_thrust,
)
from mission_rocket.guides.prediction import stop, stopping_throttle
from mission_rocket.guides.regulator import Lateral, Regulator, Weights, descend, design, linearise, regulate, time_key
from mission_rocket.measurement import Measurement
from mission_rocket.physics.constants import SEA_LEVEL_PRESSURE_PA
from mission_rocket.physics.gravity import resting_gravity
from mission_rocket.physics.vector import Vector, dot
from mission_rocket.physics.vehicle import Body

_LEAST_SLOPE = 0.02  # rad/s2 per rad: below this the fins do not control roll
_FINS_FADE_PA = 3e3  # below this dynamic pressure the RCS helps them, and fully below half of it
_ROLL_RATE = 1.5  # 1/s, damping of roll by the RCS


class Gains(NamedTuple):
    """The settings of the guidance law, from an evolutionary search (CMA-ES) over flights that an entry delivered.

    Half of the flights had one dispersion far from nominal: see docs/decisions/0007-landing-regulator.md.
    """

    final_m_s: float = 0.77  # target speed at the ground
    flare_m_s: float = 12.67  # below this speed or `flare_m` the flare sets the deceleration, because the engine lags
    flare_m: float = 12.28
    slow_m_s: float = 3.43  # below it the speed of the flare falls linearly with height
    ahead: float = 0.371  # delay of the throttle in the prediction, in lags
    follows: float = 4.09  # 1/s, feedback of the speed to the profile of the flare
    q_alpha: float = 4362  # Pa rad, bounds the fins
    roll: float = 1.6  # rad/s, natural frequency
    roll_damping: float = 0.8
    lateral: Weights = Weights(
        position_m=1.532,
        velocity_m_s=0.3657,
        tilt=0.022,
        rate=0.00996,
        gimbal=0.08693,
        fins=0.1452,
        q_alpha=5417,
        disturbance_s=0.85,
        settle_s=1.069,
        settle=0.3269,
    )

    @property
    def flare_m_s2(self) -> float:
        """Return the deceleration of the flare."""
        slow = self.slow_m_s
        return (0.5 * (self.flare_m_s**2 - slow**2) + slow * (slow - self.final_m_s)) / self.flare_m

    def flare(self, height: Array) -> tuple[Array, Array]:
        """Return (speed, deceleration) of the flare at a height: constant deceleration, then speed linear in height.

        With constant deceleration down to the ground, 4 cm would decide whether the vehicle stops above it.
        """
        slope = self.flare_m_s2 / self.slow_m_s
        linear = self.final_m_s + slope * height
        above = height - (self.slow_m_s - self.final_m_s) / slope
        fast = jnp.sqrt(self.slow_m_s**2 + 2.0 * self.flare_m_s2 * jnp.maximum(above, 0.0))
        return jnp.where(above < 0.0, linear, fast), jnp.where(above < 0.0, slope * linear, self.flare_m_s2)


_GAINS = Gains()


class Plan(NamedTuple):
    """The action of the guidance law and its predictions: stop height [m], time to touchdown [s]."""

    action: Array
    stop_height: Array
    seconds: Array


class Estimate(NamedTuple):
    """The lag of the engines [s], and drag and thrust over nominal ones, as estimated in flight so far."""

    lag: Array
    drag: Array
    thrust: Array


class LandingGuideParams(FlightParams):
    """The parameters of the guidance law."""

    engines: Literal[1, 3] = Field(1, description="Number of engines that burn.")
    reference_throttle: float = Field(0.864, gt=0.4, lt=1.0, description="Throttle at which the guide plans the burn.")
    start_altitude_m: float = Field(7000.0, gt=500.0, le=40e3)
    ignition_speed_m_s: float = Field(
        315.0, ge=50.0, le=1000.0, description="Speed at ignition for which the lateral gains are designed."
    )
    touchdown_propellant_kg: float = Field(
        5000.0, ge=0.0, description="Propellant at touchdown for which the lateral gains are designed."
    )


@dataclasses.dataclass(frozen=True, eq=False)
class LandingGuide(GuidanceLaw[LandingGuideParams]):
    """The guidance law of a landing on the engines of the first groups."""

    @cached_property
    def regulator(self) -> Regulator:
        """Return the lateral gains up to 1.3 times the altitude of the start; made once, as plain numbers."""
        params, flare = self.params, (_GAINS.flare_m_s, _GAINS.flare_m_s2)
        engines, highest = float(params.engines), 1.3 * params.start_altitude_m
        with jax.ensure_compile_time_eval():
            path = descend(
                self.body,
                resting_gravity(self.site),
                params.reference_throttle,
                engines,
                self.period_s,
                highest,
                flare,
                params.touchdown_propellant_kg,
                params.ignition_speed_m_s,
            )
            slopes = linearise(self.body, self.site, path)
            return design(slopes, path, _GAINS.lateral, self.period_s, self.site.winds)

    def nominal(self) -> Estimate:
        """Return the initial estimate."""
        return Estimate(jnp.asarray(self.body.engines[0].lag, jnp.float32), jnp.ones(()), jnp.ones(()))

    def estimate(
        self, before: Estimate, was: Measurement, now: Measurement, throttle: Array, burnt: Array, lit: Array
    ) -> Estimate:
        """Update the estimate after a control period in which the engines burnt throughout, or were lit at its end."""
        level, after = was.motion.levels[0], now.motion.levels[0]
        # not during the start of the engines, because the ignition delay is unknown
        lag = estimate_lag(before.lag, level, after, throttle, burnt & (level > 0.02), self.period_s)
        # while lit, drag cannot be separated from the exhaust jet and the dispersion of the thrust
        drag = jnp.where(lit, before.drag, estimate_drag(self.body, now, before.drag))
        return Estimate(lag, drag, estimate_thrust(self.body, float(self.params.engines), now, before.thrust))

    def plan(self, measured: Measurement, lit: Array, estimate: Estimate) -> Plan:
        """Predict the burn and command throttle, ignition, gimbal and fins."""
        body = with_drag(with_thrust(self.body, estimate.thrust), estimate.drag)
        group, number, reference = body.engines[0], float(self.params.engines), self.params.reference_throttle
        speed, height = jnp.maximum(-measured.climb, 0.0), jnp.maximum(measured.altitude, 0.0)
        end = stop(body, self.site, measured.mass, height, speed, reference, number, _GAINS.final_m_s)
        # unlit, it falls until the burn would stop at the ground; mean delay and lag are added
        early = (0.2 + group.lag) * speed
        to_ignition = jnp.where(lit, 0.0, (end.height - early) / jnp.maximum(speed, 1.0))
        # leads the lag of the engine, so that the actual throttle arrives within the control period
        follow = 1.0 - jnp.exp(-self.period_s / estimate.lag)
        level = measured.motion.levels[0]
        target = jnp.clip(self._throttle(body, measured, lit, estimate), group.throttle_min, 1.0)
        throttle = level + (target - level) / follow
        key = time_key(height, speed)
        gimbal, fins = self._steer(measured, key)
        roll = self._roll(measured)
        setting = Setting(
            throttle=throttle_share(group, throttle),
            seconds={"time_to_ignition": to_ignition},
            gimbal=gimbal,
            fin=fins,
            rcs=Vector(jnp.zeros_like(roll), jnp.zeros_like(roll), roll),
        )
        return Plan(self.controls.encode(setting), end.height, key)

    def _roll(self, measured: Measurement) -> Array:
        """Return the command that stops the roll by the RCS where the air is too slow for the fins, a share of its limit."""
        rcs, rate = self.body.rcs, jnp.asarray(measured.motion.rates.z)
        if rcs is None:
            return jnp.zeros_like(rate)
        inertia = measured.loads.mass.inertia.z
        slow = jnp.clip((_FINS_FADE_PA - measured.pressure) / (0.5 * _FINS_FADE_PA), 0.0, 1.0)
        return slow * jnp.clip(-_ROLL_RATE * inertia * rate / (rcs.thrust * rcs.radius), -1.0, 1.0)

    def _throttle(self, body: Body, measured: Measurement, lit: Array, estimate: Estimate) -> Array:
        """Return the throttle that brakes to and through the flare, from the state in which it takes effect."""
        group, number = body.engines[0], float(self.params.engines)
        speed, height = jnp.maximum(-measured.climb, 0.0), jnp.maximum(measured.altitude, 0.0)
        ahead = _GAINS.ahead * estimate.lag
        braking = dot(measured.specific_force, measured.vertical) - resting_gravity(self.site)
        later = jnp.maximum(speed - jnp.where(lit, braking, 0.0) * ahead, 0.0)
        below = jnp.maximum(height - 0.5 * (speed + later) * ahead, 0.0)
        to_flare = below - _GAINS.flare_m
        stopping = stopping_throttle(body, self.site, measured.mass, to_flare, later, number, _GAINS.flare_m_s)
        profile, gentle = _GAINS.flare(below)
        gentle = resting_gravity(self.site) + gentle + _GAINS.follows * (later - profile)
        low = (later < _GAINS.flare_m_s) | (below < _GAINS.flare_m)
        flared = (measured.mass * gentle / number + group.exit_area * SEA_LEVEL_PRESSURE_PA) / group.thrust
        return jnp.where(low, flared, stopping)

    def _steer(self, measured: Measurement, key: Array) -> tuple[Vector, Vector]:
        """Return (gimbal, fins) as shares of their limits: the regulator in both directions, and roll by the fins."""
        body, motion, zero = self.body, measured.motion, jnp.zeros_like(key)

        def across(v: Vector) -> Vector:
            return measured.in_body(Vector(v.x, v.y, zero))

        position, velocity, wind = (
            across(measured.motion.position),
            across(measured.motion.velocity),
            across(measured.wind),
        )
        force, tilt, angular = across(measured.specific_force), across(measured.axis), measured.angular_acceleration
        rates, gimbal, fins = motion.rates, motion.gimbal, motion.fins
        # by lateral direction: quantities towards x and y, rotations about y and -x
        pairs = {
            "position": position[:2],
            "velocity": velocity[:2],
            "tilt": tilt[:2],
            "rate": (rates.y, -rates.x),
            "gimbal": (gimbal.y, -gimbal.x),
            "fins": (fins.y, -fins.x),
            "wind": wind[:2],
            "specific_force": force[:2],
            "angular_acceleration": (angular.y, -angular.x),
        }
        level, pressure = motion.levels[0], measured.pressure
        both = Lateral(**{name: jnp.stack(pair) for name, pair in pairs.items()})
        steer = jax.vmap(lambda lateral: regulate(self.regulator, key, level, pressure, lateral))
        (gimbal_x, gimbal_y), (fin_x, fin_y) = steer(both)
        turn = Vector(-gimbal_y, gimbal_x, zero) * (1.0 / body.gimbal.limit)
        if body.fins is None:
            return turn, Vector(zero, zero, zero)
        largest = jnp.minimum(_GAINS.q_alpha / jnp.maximum(pressure, 1.0), body.fins.limit)
        # roll'' = -2 d w roll' - w^2 roll, through the lag of the fins; gyros measure the disturbance
        effect = 2.0 * measured.slopes.fin * body.fins.radius / measured.loads.mass.inertia.z
        change = 2.0 * _GAINS.roll_damping * _GAINS.roll * angular.z + _GAINS.roll**2 * rates.z
        roll = fins.z - body.fins.lag * change / jnp.maximum(effect, _LEAST_SLOPE)
        held = Vector(-jnp.clip(fin_y, -largest, largest), jnp.clip(fin_x, -largest, largest), roll)
        return turn, held * (1.0 / body.fins.limit)
