"""What the phases of passive stages share: where they fly, how they start, what they hand over.

`stage_burn`, `stage_coast` and `stage_drop` fly a stage of a vehicle file without any steering.
Attitude is free: nothing but air and the Earth's turning move it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array
from pydantic import BaseModel, ConfigDict, Field, model_validator

from mission_rocket.physics.channels import channels
from mission_rocket.physics.constants import DEGREE, EARTH_MU_M3_S2, EARTH_RADIUS_M, EARTH_ROTATION_RAD_S
from mission_rocket.physics.gravity import Site, rotation_vector
from mission_rocket.physics.integrate import advance_twice
from mission_rocket.physics.state import Command, Dispersion, State, nominal, start_state
from mission_rocket.physics.vector import Vector, quaternion_of_axis, rotate_back
from mission_rocket.physics.vehicle import Body
from mission_rocket.vehicles import Vehicle, build_body

PERIOD_S = 0.1


class Strict(BaseModel):
    """No coercion, no unknown keys, immutable, finite numbers only."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class SiteModel(Strict):
    """The Earth as seen from the pad; the default pull is mu / radius^2."""

    latitude_deg: float = Field(0.0, ge=-90.0, le=90.0)
    azimuth_deg: float = Field(90.0, ge=-360.0, le=360.0, description="Of downrange, clockwise from north.")
    radius_m: float = Field(EARTH_RADIUS_M, gt=0.0)
    surface_gravity_m_s2: float | None = Field(None, gt=0.0)
    rotation_rad_s: float = Field(EARTH_ROTATION_RAD_S, ge=0.0)

    def build(self) -> Site:
        """The tuple that physics takes."""
        pull = self.surface_gravity_m_s2
        return Site(
            self.radius_m,
            EARTH_MU_M3_S2 / self.radius_m**2 if pull is None else pull,
            self.rotation_rad_s,
            self.latitude_deg * DEGREE,
            self.azimuth_deg * DEGREE,
        )


class StartModel(Strict):
    """Where a phase that nobody hands over to begins: above the pad, in the plane of flight.

    Pitch is above the horizon, its rate against the local horizon.
    """

    altitude_m: float = 0.0
    downrange_speed_m_s: float = 0.0
    vertical_speed_m_s: float = 0.0
    pitch_deg: float = Field(90.0, ge=-90.0, le=90.0)
    pitch_rate_deg_s: float = 0.0
    propellant_kg: float | None = Field(None, ge=0.0, description="Full, if not given.")


class StageParams(Strict):
    """Which stage of which vehicle flies where."""

    vehicle: Vehicle = Field("nasa_two_stage", validate_default=True)
    stage: int = Field(0, ge=0, le=7)
    site: SiteModel = SiteModel()
    begin: StartModel = StartModel()

    @model_validator(mode="after")
    def _stage(self) -> StageParams:
        if self.stage >= len(self.vehicle.stages) or not self.vehicle.stages[self.stage].engines:
            raise ValueError(f"stage {self.stage} of {self.vehicle.name} does not exist or has no engines")
        return self


class Flight(NamedTuple):
    """What is handed from phase to phase: the vehicle, and the errors of the day."""

    state: State
    dispersion: Dispersion


class Progress(NamedTuple):
    """A flight within a phase: control periods flown, seconds flown, whether its end was reached."""

    flight: Flight
    periods: Array
    elapsed_s: Array
    over: Array


def begin(flight: Flight) -> Progress:
    """At the entry of a phase."""
    return Progress(flight, jnp.int32(0), jnp.float32(0.0), jnp.bool_(False))


def start(params: StageParams, body: Body, site: Site) -> Flight:
    """The flight of `params.begin`, without errors."""
    told = params.begin
    pitch = jnp.float32(told.pitch_deg * DEGREE)
    attitude = quaternion_of_axis(Vector(jnp.cos(pitch), jnp.zeros(()), jnp.sin(pitch)))
    left = body.propellant if told.propellant_kg is None else told.propellant_kg
    state = start_state(
        body,
        Vector(0.0, 0.0, told.altitude_m),
        Vector(told.downrange_speed_m_s, 0.0, told.vertical_speed_m_s),
        attitude,
        left,
    )
    # nose up is about -y; the local horizon turns about +y with the speed over ground, and with the Earth
    horizon = told.downrange_speed_m_s / (site.radius + told.altitude_m)
    spin = rotation_vector(site)
    turning = Vector(spin.x, spin.y + horizon - told.pitch_rate_deg_s * DEGREE, spin.z)
    rates = rotate_back(attitude, Vector(*(jnp.float32(part) for part in turning)))
    return Flight(state._replace(motion=state.motion._replace(rates=rates)), nominal())


def fly(body: Body, site: Site, progress: Progress, command: Command, seconds: Array, over: Array) -> Progress:
    """On by `seconds`, at most a control period, in two integration steps."""
    state, dispersion = progress.flight
    half = 0.5 * seconds
    state = advance_twice(body, site, dispersion, state, (command, command), (half, half))
    return Progress(Flight(state, dispersion), progress.periods + 1, progress.elapsed_s + seconds, over)


def carrier(params: StageParams) -> Body:
    """The stage with those above it on top."""
    return build_body(params.vehicle, params.stage)


def telemetry(body: Body, site: Site, progress: Progress, **more: Any) -> dict[str, Array]:
    """Every derived channel, pitch above the horizon, and the time in the phase."""
    found = channels(body, site, progress.flight.dispersion, progress.flight.state)
    return found | {"pitch_deg": 90.0 - found["tilt_deg"], "phase_time_s": progress.elapsed_s} | more
