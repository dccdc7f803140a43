"""Guidance law of the entry burn: a predicted touchdown, a cut-off by speed and dynamic pressure, and steering.

In each step it predicts the coast, a burn against the flow at constant axial load, the descent and the landing, with
the estimated drag and a wind profile scaled to the measured wind. It ignites at `ignition_altitude_m` and cuts off when
the predicted final speed and peak dynamic pressure fall to the values that the propellant left allows. While lit it
tilts the thrust, and after that the body, to remove the predicted miss within a few seconds and `guide_q_alpha_share`.
The effect of a lateral impulse on the touchdown follows from the same descent: v' = -(D / m v) v.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from pydantic import Field

from mission_rocket.booster import FlightParams
from mission_rocket.controls import Setting, throttle_share
from mission_rocket.guides.guidance import (
    GuidanceLaw,
    accelerate_across,
    estimate_drag,
    estimate_lag,
    estimate_offset,
    point,
    with_drag,
)
from mission_rocket.guides.prediction import Falling, along_flow, brake, carried_wind, descend, predict_touchdown
from mission_rocket.measurement import Measurement
from mission_rocket.physics.constants import DEGREE
from mission_rocket.physics.gravity import free_fall
from mission_rocket.physics.tables import lookup
from mission_rocket.physics.vector import Scalar, Vector, norm

_OVERDUE_S = 2.0
_LANDING = (2700.0, 0.85, 1.0)  # ignition altitude, throttle and engines of the predicted landing
_ENGINES = 3.0
_SPEED = (388.0, 430.0)  # final speed [m/s] and
_PEAK = (66e3, 74e3)  # peak pressure [Pa] at which the guide cuts off: with plenty of propellant, and with the least
_PLENTY_KG = 2500.0  # above the least propellant
_SLOWEST_M_S = 300.0  # after the burn; less if the final speed would exceed
_FAST_M_S = 405.0
_BURN_TILT, _COAST_TILT = 18.0 * DEGREE, 8.0 * DEGREE
_THIN_PA = 1500.0  # below it the RCS turns the vehicle


class EntryGuideParams(FlightParams):
    """The parameters of the guidance law, of which the success box shares the end and the least propellant."""

    ignition_altitude_m: float = Field(47e3, gt=20e3, description="The guide ignites at this altitude or above.")
    guide_load_m_s2: float = Field(46.0, gt=10.0, description="Axial load of the guide's burn; real flights: 45 to 47.")
    guide_q_alpha_share: float = Field(0.67, gt=0.0, le=1.0, description="Share of the vehicle's limit of q-alpha.")
    end_altitude_m: float = Field(7000.0, gt=3000.0)
    least_propellant_kg: float = Field(6500.0, ge=0.0)


class Prediction(NamedTuple):
    """The predicted end of the phase and the landing.

    `rest` is where the vehicle would come to rest [m] and `reach` the shift per lateral velocity change [m per m/s];
    `peak` is the largest dynamic pressure [Pa]; `braked` and `speed` are the speeds after the burn and at the end of the
    phase [m/s], and `left` is the propellant after the burn [kg].
    """

    rest: Vector
    reach: Array
    peak: Array
    braked: Array
    speed: Array
    left: Array


class Plan(NamedTuple):
    """The action and the prediction; `burn` is the time to cut-off [s]."""

    action: Array
    predicted: Prediction
    burn: Array


class Estimate(NamedTuple):
    """The lag of the fins [s], drag over nominal drag, and the lateral offset of the axial force [m], body axes."""

    lag: Array
    drag: Array
    offset: Vector


@dataclasses.dataclass(frozen=True, eq=False)
class EntryGuide(GuidanceLaw[EntryGuideParams]):
    """The guidance law of the entry burn."""

    def nominal(self) -> Estimate:
        """Return the initial estimate."""
        zero, lag = jnp.zeros(()), jnp.float32(self.body.fins.lag if self.body.fins else 1.0)
        return Estimate(lag, jnp.ones((), jnp.float32), Vector(zero, zero, zero))

    def estimate(self, before: Estimate, was: Measurement, now: Measurement, command: Vector) -> Estimate:
        """Update the estimate after a control period under a command of the fins, in shares of their limit."""
        lag = before.lag
        if self.body.fins is not None:
            limit = self.body.fins.limit
            for at in (0, 1):  # yaw and pitch
                start, end = was.motion.fins[at] / limit, now.motion.fins[at] / limit
                lag = estimate_lag(lag, start, end, command[at], jnp.bool_(True), self.period_s)
        offset = estimate_offset(self.body, now, before.offset, self.period_s)
        return Estimate(lag, estimate_drag(self.body, now, before.drag), offset)

    def first_plan(self, measured: Measurement, true: Measurement) -> tuple[Plan, Vector]:
        """Return the plan at the start of the phase, and `rest` of the vehicle as it is."""
        zero, no, estimate = jnp.zeros(()), jnp.bool_(False), self.nominal()
        none = Vector(zero, zero, zero)
        nothing = Prediction(none, zero, zero, zero, zero, zero)
        plan = Plan(jnp.zeros(len(self.controls.names)), nothing, zero + 14.0), none

        def improve(_: Any, before: tuple[Plan, Vector]) -> tuple[Plan, Vector]:
            return self.plan(measured, true, before[0], no, no, estimate, 0.0)

        # the length of the burn is found by iteration
        return lax.fori_loop(0, 3, improve, plan)

    def plan(
        self,
        m: Measurement,
        true: Measurement,
        before: Plan,
        lit: Array,
        cut: Array,
        estimate: Estimate,
        elapsed: Scalar,
    ) -> tuple[Plan, Vector]:
        """Predict with the burn planned `elapsed` seconds before, correct it, and steer; also return `rest`.

        Both follow from one prediction of a touchdown: that of the plan, and that of the vehicle as it is.
        """
        burn = jnp.where(lit, jnp.maximum(before.burn - elapsed, -_OVERDUE_S), before.burn)
        predicted, rest = self._predict(m, true, before, lit, cut, burn, estimate.drag)
        burn, throttle = self._burn(m, predicted, lit, cut, burn, estimate.drag)
        turn = self._steer(m, predicted, lit, cut, burn, estimate)
        setting = turn._replace(
            throttle=throttle_share(self.body.engines[0], throttle),
            seconds={
                "time_to_ignition": (m.altitude - self._ignition(before)) / jnp.maximum(-m.climb, 1.0),
                "time_to_cut_off": burn,
            },
        )
        return Plan(self.controls.encode(setting), predicted, burn), rest

    def rest(self, m: Measurement, drag: Array) -> Vector:
        """Return where the landing would come to rest if it only braked, for a vehicle at the end of the phase [m]."""
        return predict_touchdown(with_drag(self.body, drag), self.site, self._falling(m), *_LANDING)[0]

    def _falling(self, m: Measurement) -> Falling:
        wind = carried_wind(self.site, m.wind, m.altitude)
        return Falling(m.motion.position, m.motion.velocity, m.altitude, m.mass, wind)

    def _ignition(self, plan: Plan) -> Array:
        """Return the altitude of the guide's ignition: higher if there is more to correct."""
        rest = plan.predicted.rest
        miss = jnp.sqrt(rest.x**2 + rest.y**2 + 1.0)
        return self.params.ignition_altitude_m + jnp.clip(2.5 * (miss - 1500.0), 0.0, 11e3)

    def _predict(
        self, m: Measurement, true: Measurement, before: Plan, lit: Array, cut: Array, burn: Array, drag: Array
    ) -> tuple[Prediction, Vector]:
        """Predict coast, burn, descent and landing; also return `rest` of the vehicle as it is."""
        body, params, (position, velocity, *_) = self.body, self.params, m.motion
        pull = free_fall(self.site, position, velocity)
        drop = jnp.where(lit | cut, 0.0, jnp.maximum(m.altitude - self._ignition(before), 0.0))
        root = jnp.sqrt(m.climb * m.climb - 2.0 * pull.z * drop)
        coast = 2.0 * drop / (root - m.climb + 1.0)
        top = Falling(
            position + (velocity + pull * (0.5 * coast)) * coast,
            velocity + pull * coast,
            jnp.asarray(m.altitude - drop),
            m.mass,
            carried_wind(self.site, m.wind, m.altitude),
        )
        # the impulse of the tail-off counts as a longer burn
        thrust = jnp.maximum(m.motion.levels[0], 0.01) * _ENGINES * body.engines[0].thrust
        tail = body.engines[0].lag * thrust / m.mass / params.guide_load_m_s2
        braked = brake(body, self.site, top, jnp.where(cut, 0.0, burn) + tail, params.guide_load_m_s2)
        resisting = with_drag(body, drag)
        end = descend(resisting, self.site, braked, params.end_altitude_m)
        low = jnp.minimum(m.altitude, params.end_altitude_m)
        begin = Falling(end.position, end.velocity, low, braked.mass, top.wind)
        both = jax.tree.map(lambda a, b: jnp.stack([jnp.asarray(a), jnp.asarray(b)]), begin, self._falling(true))
        rests, times = jax.vmap(lambda one: predict_touchdown(resisting, self.site, one, *_LANDING))(both)
        (rest, seconds), (braked_rest, _) = (
            jax.tree.map(lambda leaf, at=at: leaf[at], (rests, times)) for at in (0, 1)
        )
        left = jnp.asarray(m.motion.propellant - (m.mass - braked.mass))
        speeds = norm(braked.velocity), norm(end.velocity)
        prediction = Prediction(rest, end.reach + end.kept * 0.5 * seconds, end.peak, *speeds, left)
        return prediction, braked_rest

    def _burn(
        self, m: Measurement, predicted: Prediction, lit: Array, cut: Array, burn: Array, drag: Array
    ) -> tuple[Array, Array]:
        """Return (seconds until the cut-off, throttle)."""
        body, params, (_, _, peak, braked, speed, left) = self.body, self.params, predicted
        # both fall with the length of the burn; the values allowed rise as the tanks drain
        poor = jnp.clip(1.0 - (left - params.least_propellant_kg - 300.0) / _PLENTY_KG, 0.0, 1.0)
        too_fast = (speed - _SPEED[0] - (_SPEED[1] - _SPEED[0]) * poor) / 15.0
        too_dense = (peak - _PEAK[0] - (_PEAK[1] - _PEAK[0]) * poor) / 7e3
        change = jnp.maximum(too_fast, too_dense)
        # the burn ends at the least propellant, and where more of it would hardly lower the final speed but let the wind
        # carry a slow vehicle away; unless the landing would be too fast or the structure fail
        spare = (left - params.least_propellant_kg - 150.0) / 600.0
        slow = (braked - _SLOWEST_M_S + 8.0 * jnp.maximum(speed - _FAST_M_S, 0.0)) / 36.0
        change = jnp.maximum(jnp.minimum(jnp.minimum(change, spare), slow), (peak - 77e3) / 7e3)
        burn = jnp.where(cut, 0.0, jnp.clip(burn + change, -_OVERDUE_S, 30.0))
        # drag alone decelerates enough if even the least throttle would exceed the load limit together with it
        group = body.engines[0]
        coefficient = drag * lookup(along_flow(body), m.mach)
        by_drag = m.pressure * body.aerodynamics.area * coefficient
        load = (group.throttle_min * _ENGINES * group.thrust + by_drag) / m.mass
        burn = jnp.where(lit & (load > 0.95 * body.limits.axial_load), -_OVERDUE_S, burn)
        level = (params.guide_load_m_s2 * m.mass - by_drag) / (_ENGINES * group.thrust)
        return burn, jnp.clip(level, group.throttle_min, 1.0)

    def _steer(
        self, m: Measurement, predicted: Prediction, lit: Array, cut: Array, burn: Array, estimate: Estimate
    ) -> Setting:
        """Return the setting that removes the miss within some seconds."""
        body, rest, reach = self.body, predicted.rest, predicted.reach
        burning = lit | (m.thrust > 1e5)
        seconds = jnp.where(burning, jnp.clip(0.5 * burn, 2.5, 6.0), 5.0)
        active = jnp.where(lit | cut, 1.0, 0.0)
        gain = -active / (jnp.maximum(reach, 3.0) * seconds)
        bound = self.params.guide_q_alpha_share * body.limits.q_alpha
        largest = jnp.minimum(jnp.where(burning, _BURN_TILT, _COAST_TILT), bound / jnp.maximum(m.pressure, 1.0))
        extra = Vector(gain * rest.x, gain * rest.y, jnp.zeros_like(reach))
        axis = accelerate_across(m, extra, m.thrust, 150e3, largest)
        axis = jax.tree.map(lambda a, b: jnp.where(active > 0.0, a, b), axis, -m.flow)
        thin = ~burning & (m.pressure < _THIN_PA)
        stiffness = jnp.where(thin, 0.04, jnp.where(burning, 2.0, 1.0))
        damping = jnp.where(thin, 0.3, jnp.where(burning, 2.4, 1.8))
        # in thin air the fins do nothing but follow the noise of the gyros
        dense, offset = m.pressure > _THIN_PA, estimate.offset
        # roll is damped faster, but by less than its rate in a control period
        turn = point(body, m, axis, stiffness, damping, gimballed=lit, finned=dense, offset=offset, roll_gain=1.5)
        # the command leads the lag of the fins
        lead = 1.0 / (1.0 - jnp.exp(-self.period_s / estimate.lag))
        now = m.motion.fins * (1.0 / (body.fins.limit if body.fins else 1.0))
        fins = now + (turn.fins - now) * lead
        across = jnp.where(thin, 1.0, 0.0)
        roll = jnp.where(m.pressure < _THIN_PA, turn.rcs.z, 0.0)
        return Setting(gimbal=turn.gimbal, fin=fins, rcs=Vector(turn.rcs.x * across, turn.rcs.y * across, roll))
