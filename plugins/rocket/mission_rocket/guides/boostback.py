"""Guidance law of the flip and boostback: thrust that reduces the miss of the predicted vacuum impact point.

Rate-limited proportional-derivative control turns the vehicle, with the RCS until the nose is within an angle of the
direction of the burn, then with the gimbal. The recent mean gimbal angle is fed forward, which trims the offset of the
centre of mass. The thrust has a constant elevation (below the horizon, which gives the apogee of real flights), the
load is limited, and the last seconds are flown at the least throttle. The cut-off is timed for the closest approach of
the impact point and leads by the lag of the engines. That lag is estimated from the previous change of throttle,
because the impact point moves by up to 10 km per second and the lag is uncertain by 0.06 s.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from pydantic import Field

from mission_rocket.booster import FlightParams
from mission_rocket.controls import Setting, throttle_share
from mission_rocket.guides.guidance import GuidanceLaw, estimate_lag, point
from mission_rocket.measurement import Measurement
from mission_rocket.physics.channels import fall
from mission_rocket.physics.constants import DEGREE
from mission_rocket.physics.gravity import Site
from mission_rocket.physics.vector import Vector, dot, norm

_ENGINES = 3.0
_TRIM_S = 3.0  # time over which the gimbal angle is averaged


class BoostbackGuideParams(FlightParams):
    """The target and the parameters of the guidance law."""

    target_x_m: float = Field(0.0, description="Target of the vacuum impact point, downrange of the pad.")
    target_y_m: float = 0.0
    target_lead_s: float = Field(
        0.0, ge=0.0, le=100.0, description="Move the target upwind, by the distance that the wind covers in this time."
    )
    elevation_deg: float = Field(-12.0, ge=-45.0, le=60.0, description="Elevation of the guide's thrust.")
    ignition_angle_deg: float = Field(60.0, gt=0.0, le=180.0, description="The guide ignites within it.")
    guide_load_m_s2: float = Field(45.0, gt=10.0)
    slow_s: float = Field(3.0, ge=0.0, description="Duration of the end of the guide's burn, at the least throttle.")


class Plan(NamedTuple):
    """The action of the guidance law."""

    action: Array


class Aim(NamedTuple):
    """The vacuum impact point of navigation, as range safety computes it, and where it is from the target [m].

    `impact` is reached after `t_fall` [s]; `target` is where it should be, `off` the offset and `miss` its length.
    """

    impact: Vector
    t_fall: Array
    target: Vector
    off: Vector
    miss: Array


def aim(params: BoostbackGuideParams, site: Site, position: Vector, velocity: Vector, wind: Vector) -> Aim:
    """Return where the vacuum impact point is, and where it should be."""
    impact, t_fall = fall(site, position, velocity)
    target_x = params.target_x_m - wind.x * params.target_lead_s
    target_y = params.target_y_m - wind.y * params.target_lead_s
    off = Vector(impact.x - target_x, impact.y - target_y, impact.z)
    miss = jnp.sqrt(off.x * off.x + off.y * off.y + 1.0)
    return Aim(impact, t_fall, Vector(target_x, target_y, 0.0 * miss), off, miss)


class Estimate(NamedTuple):
    """The lag of the engines [s], and the mean gimbal angle [rad] that balances the offset of the centre of mass."""

    lag: Array
    trim: Vector


@dataclasses.dataclass(frozen=True, eq=False)
class BoostbackGuide(GuidanceLaw[BoostbackGuideParams]):
    """The guidance law of the boostback."""

    def nominal(self) -> Estimate:
        """Return the initial estimate."""
        zero = jnp.zeros(())
        return Estimate(jnp.asarray(self.body.engines[0].lag, jnp.float32), Vector(zero, zero, zero))

    def estimate(
        self, before: Estimate, was: Measurement, now: Measurement, throttle: Array, burnt: Array, burns: Array
    ) -> Estimate:
        """Update the estimate after a control period; the engines `burnt` throughout it, or `burns` at its end."""
        level, after = was.motion.levels[0], now.motion.levels[0]
        # not during the start of the engines, because the ignition delay is unknown
        lag = estimate_lag(before.lag, level, after, throttle, burnt & (level > 0.02), self.period_s)
        weight = jnp.where(burns, self.period_s / _TRIM_S, 0.0)
        return Estimate(lag, before.trim + (now.motion.gimbal - before.trim) * weight)

    def plan(self, m: Measurement, to: Aim, lit: Array, cut: Array, estimate: Estimate) -> Plan:
        """Predict the speed of the impact point and the cut-off, and command engines and attitude."""
        params, group, off, miss, t_fall = self.params, self.body.engines[0], to.off, to.miss, to.t_fall
        towards = Vector(-off.x / miss, -off.y / miss, jnp.zeros_like(miss))
        elevation = params.elevation_deg * DEGREE
        wanted = towards * jnp.cos(elevation) + m.vertical * jnp.sin(elevation)
        wanted = wanted * (1.0 / norm(wanted))
        # with less than 8 m/s left, noise would dominate the direction: keep it
        settled = cut | (lit & (miss < 8.0 * t_fall))
        wanted = Vector(*(jnp.where(settled, a, b) for a, b in zip(m.axis, wanted, strict=True)))
        # speed of the impact point: at the present thrust if lit, at the least throttle if not
        push = _ENGINES * group.throttle_min * group.thrust / m.mass
        along = Vector(*(jnp.where(lit, a, b * push) for a, b in zip(m.specific_force, wanted, strict=True)))
        ahead = 0.1
        later, _ = fall(self.site, m.motion.position, m.motion.velocity + along * ahead)
        moved = Vector(later.x - to.target.x - off.x, later.y - to.target.y - off.y, 0.0)
        # time to the closest approach of the impact point, minus the contribution of the tail-off
        rate = jnp.maximum(norm(moved, 1.0) / ahead, 100.0)
        t_go = -(moved.x * off.x + moved.y * off.y) / (ahead * rate * rate) - estimate.lag
        away = (miss > 20e3) & (dot(moved, towards) < 0.3 * ahead * rate)  # not yet turned round
        t_go = jnp.where(away, miss / rate, t_go)
        return Plan(self._act(m, wanted, t_go, lit, cut, estimate.trim))

    def _act(self, m: Measurement, wanted: Vector, t_go: Array, lit: Array, cut: Array, trim: Vector) -> Array:
        """Return the action that turns to a direction, ignites, and cuts off in time."""
        body, params, group, level = self.body, self.params, self.body.engines[0], m.motion.levels[0]
        lights = lit | (dot(m.axis, wanted) > jnp.cos(params.ignition_angle_deg * DEGREE))
        # full throttle within the load limit; the least throttle over the last seconds
        load = jnp.maximum(norm(m.specific_force), 1.0)
        idle_level = m.mass / (_ENGINES * group.thrust)
        by_load = params.guide_load_m_s2 * jnp.where(level > 0.3, level / load, idle_level)
        slow = t_go * level / group.throttle_min < params.slow_s
        share = throttle_share(group, jnp.minimum(by_load, 1.0))
        share = jnp.clip(jnp.where(lit & slow & (level > 0.3), 0.0, share), 0.0, 1.0)
        share = jnp.where(lights & ~lit, jnp.maximum(share, 0.5), jnp.where(lights, share, 0.0))
        burning = lit & ~cut
        stiffness, damping = jnp.where(burning, 1.2, 0.04), jnp.where(burning, 1.8, 0.4)
        turn = point(body, m, wanted, stiffness, damping, 0.12, gimballed=jnp.where(burning, 1.0, 0.0))
        setting = Setting(
            throttle=share,
            seconds={"time_to_cut_off": jnp.where(lit & (level > 0.3), t_go, self.controls.longest_s)},
            gimbal=turn.gimbal + trim * jnp.where(burning, 1.0 / body.gimbal.limit, 0.0),
            rcs=turn.rcs,
        )
        return self.controls.encode(setting)
