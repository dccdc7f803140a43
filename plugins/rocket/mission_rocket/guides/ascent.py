"""Guidance law of the ascent: a gravity turn (flight-path angle by speed) and a cut-off at a target speed.

The reference is a point-mass flight of the default vehicle (kick 0.82 deg at 70 m/s, slightly depressed above 700 m/s
so that it reaches 65 km at 50 deg). The velocity is turned towards it and into the plane of flight. Incidence is kept
below a fraction of the limit on q-alpha, so in strong wind the vehicle drifts and returns above the windy layer. The
throttle limits dynamic pressure around max q, and the axial load near the end. If the reserve would be too small, as
with an engine out, the law aims at a lower speed inside the box.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from pydantic import Field

from mission_rocket.booster import FlightParams
from mission_rocket.controls import Setting, throttle_share
from mission_rocket.guides.guidance import GuidanceLaw, estimate_offset, point, within
from mission_rocket.measurement import Measurement
from mission_rocket.physics.constants import DEGREE
from mission_rocket.physics.gravity import free_fall
from mission_rocket.physics.tables import Table, lookup
from mission_rocket.physics.vector import Vector, dot, norm
from mission_rocket.vehicles import Range

TAIL_S = 1.0  # least time flown after MECO: more than three lags of the engines
_SPEED_MARGIN_M_S, _RESERVE_MARGIN_KG = 10.0, 500.0  # distance to the lowest speed and reserve of the box
# flight-path angle [deg] by speed [m/s]
_REFERENCE = Table(
    (
        70.0, 100.0, 150.0, 200.0, 250.0, 300.0, 350.0, 400.0,
        500.0, 600.0, 700.0, 800.0, 900.0, 1000.0, 1200.0, 1400.0, 1650.0,
    ),
    (90.0, 88.5, 87.0, 85.6, 82.5, 78.5, 75.1, 72.8, 69.4, 66.9, 64.7, 62.7, 60.6, 58.6, 55.3, 52.6, 50.1),
)  # fmt: skip


class AscentGuideParams(FlightParams):
    """The parameters of the guidance law, of which the success box shares the speed and the reserve."""

    speed_m_s: Range = (1600.0, 1700.0)
    reserve_kg: float = Field(45e3, ge=0.0)
    aim_altitude_m: float = Field(65e3, gt=0.0)
    aim_speed_m_s: float = Field(1650.0, gt=0.0)
    aim_flight_path_angle_deg: float = Field(50.0, gt=0.0, lt=90.0)
    guide_pressure_pa: float = Field(25e3, gt=0.0, description="The guide uses the least throttle above it.")
    guide_load_m_s2: float = Field(35.0, gt=10.0)
    guide_q_alpha_share: float = Field(0.75, gt=0.0, le=1.0, description="Share of the vehicle's limit of q-alpha.")


class Plan(NamedTuple):
    """The action of the guidance law."""

    action: Array


class Estimate(NamedTuple):
    """The lateral offset of the axial force from the centre of mass [m], body axes."""

    offset: Vector


def path_error(measured: Measurement) -> Array:
    """Return the flight-path angle above the reference [rad]; zero below 30 m/s."""
    angle = jnp.arcsin(jnp.clip(measured.climb / measured.speed, -1.0, 1.0))
    return jnp.where(measured.speed > 30.0, angle - lookup(_REFERENCE, measured.speed) * DEGREE, 0.0)


@dataclasses.dataclass(frozen=True, eq=False)
class AscentGuide(GuidanceLaw[AscentGuideParams]):
    """The guidance law of the ascent."""

    def nominal(self) -> Estimate:
        """Return the initial estimate."""
        zero = jnp.zeros(())
        return Estimate(Vector(zero, zero, zero))

    def estimate(self, before: Estimate, now: Measurement) -> Estimate:
        """Update the estimate after a control period."""
        return Estimate(estimate_offset(self.body, now, before.offset, self.period_s))

    def plan(self, measured: Measurement, cut: Array, estimate: Estimate) -> Plan:
        """Predict the cut-off, and command throttle and gimbal."""
        axis = self._axis(measured)
        gimballed = jnp.where(cut, 0.0, 1.0)
        turn = point(self.body, measured, axis, 0.5, 1.1, rate_limit=0.1, gimballed=gimballed, offset=estimate.offset)
        radii = [(x * x + y * y) ** 0.5 for group in self.body.engines for x, y in group.positions]
        arm, inertia = sum(radii) / len(radii), measured.loads.mass.inertia.z
        roll = -inertia * measured.motion.rates.z / ((measured.thrust + 1e5) * arm * self.body.gimbal.limit)
        setting = Setting(
            throttle=throttle_share(self.body.engines[0], self._throttle(measured)),
            seconds={"time_to_meco": self._cut_off(measured)},
            gimbal=turn.gimbal._replace(z=jnp.where(cut, 0.0, roll)),
        )
        return Plan(self.controls.encode(setting))

    def _throttle(self, m: Measurement) -> Array:
        """Throttle down to the least across a band of dynamic pressure, and cap the axial load."""
        group, level, highest = self.body.engines[0], m.motion.levels[0], self.params.guide_pressure_pa
        full = sum(len(one.positions) for one in self.body.engines) * group.thrust
        band = 0.3 * highest
        by_pressure = 1.0 - (1.0 - group.throttle_min) * (m.pressure - highest + band) / band
        axial = jnp.maximum(dot(m.specific_force, m.axis), 1.0)
        return jnp.minimum(
            by_pressure, self.params.guide_load_m_s2 * jnp.where(level > 0.3, level / axial, m.mass / full)
        )

    def _cut_off(self, m: Measurement) -> Array:
        """Return the time to cut-off."""
        params, group = self.params, self.body.engines[0]
        sine = m.climb / m.speed
        push = dot(m.specific_force, m.motion.velocity * (1.0 / m.speed))
        # the speed gained while the thrust tails off, minus the gravity loss until the end
        pull = -dot(free_fall(self.site, m.motion.position, m.motion.velocity), m.vertical)
        tail = push * group.lag - pull * sine * (TAIL_S + 0.5 * self.period_s)
        gain = jnp.maximum(push - pull * sine, 2.0)
        # a lower speed if the reserve would be too small, as with an engine out
        flow = jnp.maximum(m.thrust, 1e5) * group.flow / group.thrust
        burn = (params.aim_speed_m_s - tail - m.speed) / gain + group.lag
        left = m.motion.propellant - flow * burn
        least = params.speed_m_s[0] + _SPEED_MARGIN_M_S
        short = jnp.maximum(params.reserve_kg + _RESERVE_MARGIN_KG - left, 0.0)
        aim_speed = jnp.maximum(params.aim_speed_m_s - short * gain / flow, least)
        return (aim_speed - tail - m.speed) / gain

    def _axis(self, m: Measurement) -> Vector:
        """Return the direction of the nose: along the reference, back to the plane y = 0, within q-alpha limits."""
        angle = lookup(_REFERENCE, m.speed) * DEGREE
        back = jnp.clip(-0.02 * m.motion.position.y, -10.0, 10.0) / jnp.maximum(m.speed, 100.0)
        aim = Vector(
            jnp.cos(angle) * m.vertical.z + jnp.sin(angle) * m.vertical.x,
            jnp.sin(angle) * m.vertical.y + back,
            jnp.sin(angle) * m.vertical.z - jnp.cos(angle) * m.vertical.x,
        )
        moving = jnp.clip((m.speed - 20.0) / 30.0, 0.0, 1.0)
        heading = m.vertical * (1.0 - moving) + m.motion.velocity * (1.0 / m.speed) * moving
        turn = (aim - heading) * (0.25 * m.speed * m.mass * moving)
        # thrust acts along the nose, lift along its angle from the flow
        lift = jnp.where(m.speed > 50.0, m.slopes.lift, 0.0)
        axis = heading * (jnp.maximum(m.thrust, 1e5)) + m.flow * lift + turn
        axis = axis * (1.0 / norm(axis))
        largest = self.params.guide_q_alpha_share * self.body.limits.q_alpha / jnp.maximum(m.pressure, 2e3)
        relieved = within(axis, m.flow, jnp.minimum(largest, 30.0 * DEGREE))
        return Vector(*(jnp.where(m.pressure > 2e3, a, b) for a, b in zip(relieved, axis, strict=True)))
