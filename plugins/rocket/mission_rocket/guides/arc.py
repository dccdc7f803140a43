"""Guidance law of the ballistic arc: it turns the vehicle to fly engines first at the end altitude.

The direction of the flow there is predicted from the present trajectory. Proportional-derivative control turns the
vehicle slowly, because the gas that a turn needs grows with its rate. In dense enough air the fins take over; they only
damp, because the vehicle is stable engines first.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from pydantic import Field

from mission_rocket.booster import FlightParams
from mission_rocket.controls import Setting
from mission_rocket.guides.guidance import GuidanceLaw, point
from mission_rocket.measurement import Measurement
from mission_rocket.physics.gravity import Site, free_fall
from mission_rocket.physics.vector import Vector, norm

_SLEW = 0.025  # rad/s
_DENSE_PA = 150.0  # above this dynamic pressure the fins and the air turn the vehicle better than the gas


class ArcGuideParams(FlightParams):
    """The parameters of the guidance law."""

    end_altitude_m: float = Field(70e3, gt=10e3, lt=110e3)


class Plan(NamedTuple):
    """The action of the guidance law."""

    action: Array


def wanted_axis(site: Site, m: Measurement, end_altitude: float) -> Vector:
    """Return the axis of a vehicle that flies engines first at the end altitude, from its present ballistic path."""
    position, velocity = m.motion.position, m.motion.velocity
    pull = free_fall(site, position, velocity)
    above = jnp.maximum(m.altitude - end_altitude, 0.0)
    seconds = (m.climb + jnp.sqrt(m.climb * m.climb - 2.0 * pull.z * above)) / -pull.z
    through = velocity + pull * seconds - m.wind
    return through * (-1.0 / norm(through))


@dataclasses.dataclass(frozen=True, eq=False)
class ArcGuide(GuidanceLaw[ArcGuideParams]):
    """The guidance law of the ballistic arc."""

    def plan(self, m: Measurement) -> Plan:
        """Predict the flow at the end altitude, and command RCS and fins."""
        wanted = wanted_axis(self.site, m, self.params.end_altitude_m)
        dense = m.pressure > _DENSE_PA
        turn = point(self.body, m, wanted, jnp.where(dense, 0.0, 0.03), 0.25, _SLEW, hold=0.0)
        setting = Setting(fin=turn.fins, rcs=turn.rcs * jnp.where(dense, 0.0, 1.0))
        return Plan(self.controls.encode(setting))
