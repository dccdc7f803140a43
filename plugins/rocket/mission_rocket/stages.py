"""Everything that the phases of passive stages share: parameters, start, state, and `StagePhase`.

`stage_burn`, `stage_coast` and `stage_drop` fly a stage of a vehicle file without steering. The attitude is free:
only the air and the Earth's rotation change it.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array
from pydantic import Field, model_validator

from mission import Outcome
from mission_rocket.observation import NO_FRAME, Observation, ObservedPhase, linear, row
from mission_rocket.physics.channels import channels
from mission_rocket.physics.constants import DEGREE, EARTH_MU_M3_S2, EARTH_RADIUS_M, EARTH_ROTATION_RAD_S
from mission_rocket.physics.dynamics import loads
from mission_rocket.physics.gravity import Site, altitude, rotation_vector
from mission_rocket.physics.integrate import advance_twice
from mission_rocket.physics.state import Command, Handover, idle, nominal, start_state
from mission_rocket.physics.vector import Vector, quaternion_of_axis, rotate_back
from mission_rocket.physics.vehicle import Body
from mission_rocket.physics.wind import gust_velocity
from mission_rocket.vehicles import Strict, Vehicle, build_body
from mission_rocket.winds import Winds, WindTable

PERIOD_S = 0.1
TIME = Observation((row("time", "time in the phase", NO_FRAME, linear(100.0, "s"), "elapsed_s"),))
_GROUND_M = -50.0


class SiteModel(Strict):
    """The Earth at the pad; the default gravity is mu / radius^2."""

    latitude_deg: float = Field(0.0, ge=-90.0, le=90.0)
    azimuth_deg: float = Field(90.0, ge=-360.0, le=360.0, description="Direction of downrange, clockwise from north.")
    radius_m: float = Field(EARTH_RADIUS_M, gt=0.0)
    surface_gravity_m_s2: float | None = Field(None, gt=0.0)
    rotation_rad_s: float = Field(EARTH_ROTATION_RAD_S, ge=0.0)
    flattening: float = Field(0.0, ge=0.0, le=0.1, description="Of the ellipsoid whose equator has the radius.")
    j2: float = Field(0.0, ge=0.0, le=0.01, description="Oblateness of the gravity.")

    def build(self, wind: WindTable | None = None) -> Site:
        """Return the tuple that the physics functions take."""
        gravity, azimuth = self.surface_gravity_m_s2, self.azimuth_deg * DEGREE
        return Site(
            radius=self.radius_m,
            surface_gravity=EARTH_MU_M3_S2 / self.radius_m**2 if gravity is None else gravity,
            rotation=self.rotation_rad_s,
            latitude=self.latitude_deg * DEGREE,
            azimuth=azimuth,
            flattening=self.flattening,
            j2=self.j2,
            winds=None if wind is None else wind.profile(azimuth),
        )


class StartModel(Strict):
    """The start of a phase that is the first of its mission: above the pad, in the plane of flight.

    The pitch is above the horizon, its rate relative to the local horizon.
    """

    altitude_m: float = 0.0
    downrange_speed_m_s: float = 0.0
    vertical_speed_m_s: float = 0.0
    pitch_deg: float = Field(90.0, ge=-90.0, le=90.0)
    pitch_rate_deg_s: float = 0.0
    propellant_kg: float | None = Field(None, ge=0.0, description="None: the tanks are full.")


class StageParams(Strict):
    """The stage that flies, its vehicle, its site and its start."""

    vehicle: Vehicle = Field("nasa_two_stage", validate_default=True)
    stage: int = Field(0, ge=0, le=7)
    site: SiteModel = SiteModel()
    wind: Winds = Field(None, description="Steady wind by altitude: a table or a file; by default it is calm.")
    begin: StartModel = StartModel()

    @model_validator(mode="after")
    def _stage(self) -> StageParams:
        if self.stage >= len(self.vehicle.stages) or not self.vehicle.stages[self.stage].engines:
            raise ValueError(f"stage {self.stage} of {self.vehicle.name} does not exist or has no engines")
        return self


class StageState(NamedTuple):
    """A stage within a phase: control periods and seconds flown, whether the phase is over, whether it failed."""

    flight: Handover
    periods: Array
    elapsed_s: Array
    over: Array
    failed: Array


def begin(flight: Handover, failed: Array) -> StageState:
    """Return the state at the entry of a phase."""
    return StageState(flight, jnp.int32(0), jnp.float32(0.0), jnp.bool_(False), failed)


def start(params: StageParams, body: Body, site: Site) -> Handover:
    """Return the vehicle at `params.begin`, without dispersions."""
    begin = params.begin
    pitch = jnp.float32(begin.pitch_deg * DEGREE)
    attitude = quaternion_of_axis(Vector(jnp.cos(pitch), jnp.zeros(()), jnp.sin(pitch)))
    left = body.propellant if begin.propellant_kg is None else begin.propellant_kg
    state = start_state(
        body,
        Vector(0.0, 0.0, begin.altitude_m),
        Vector(begin.downrange_speed_m_s, 0.0, begin.vertical_speed_m_s),
        attitude,
        left,
    )
    # nose up is about -y; the local horizon turns about +y with the speed over ground, and with the Earth
    horizon = begin.downrange_speed_m_s / (site.radius + begin.altitude_m)
    spin = rotation_vector(site)
    rotation = Vector(spin.x, spin.y + horizon - begin.pitch_rate_deg_s * DEGREE, spin.z)
    rates = rotate_back(attitude, Vector(*(jnp.float32(part) for part in rotation)))
    return Handover(state._replace(motion=state.motion._replace(rates=rates)), nominal())


@dataclasses.dataclass(frozen=True, eq=False)
class StagePhase(ObservedPhase[Handover, StageState]):
    """A phase of a passive stage; a concrete phase is final and writes `step`. There is no action."""

    params: Any

    action_names = ()
    control_period_s = PERIOD_S
    max_steps = 10_000

    @cached_property
    def carrier(self) -> Body:
        """Return the stage with the stages above it as dead weight."""
        return build_body(self.params.vehicle, self.params.stage)

    @property
    def flying(self) -> Body:
        """Return the body that flies within the phase."""
        return self.carrier

    @cached_property
    def site(self) -> Site:
        """Return the launch site."""
        return self.params.site.build(self.params.wind)

    def grounded(self, flight: Handover) -> Array:
        """Return whether a flight is back below the pad."""
        return altitude(self.site, flight.state.motion.position) < _GROUND_M

    def start(self, key: Array) -> Handover:
        """Return the vehicle at the start that the parameters state."""
        return start(self.params, self.carrier, self.site)

    def enter(self, key: Array, handoff: Handover) -> StageState:
        """Begin the phase."""
        return begin(handoff, self.grounded(handoff))

    def fly(self, state: StageState, command: Command, seconds: Array, over: Array) -> StageState:
        """Fly `seconds`, at most a control period, in two integration steps."""
        vehicle, dispersion = state.flight
        half = 0.5 * seconds
        moved = advance_twice(self.flying, self.site, dispersion, vehicle, (command, command), (half, half))
        flight = Handover(moved, dispersion)
        return StageState(flight, state.periods + 1, state.elapsed_s + seconds, over, self.grounded(flight))

    def outcome(self, state: StageState) -> Outcome:
        """Return the outcome of the stage; a failure ends the phase at once."""
        return self.causes.judge(state.over, {self.causes[1]: state.failed}, {})

    def leave(self, state: StageState) -> Handover:
        """Hand over the vehicle."""
        return state.flight

    def telemetry(self, state: StageState) -> dict[str, Array]:
        """Return every derived channel, the pitch above the horizon, and the time in the phase."""
        vehicle, dispersion = state.flight
        height = altitude(self.site, vehicle.motion.position)
        gust = gust_velocity(dispersion.wind, vehicle.gust, height)
        acting = loads(self.flying, self.site, dispersion, vehicle.motion, idle(self.flying), gust)
        derived = channels(self.flying, self.site, vehicle, acting, acting.wind + gust)
        return derived | {"pitch_deg": 90.0 - derived["tilt_deg"], "phase_time_s": state.elapsed_s}
