"""What all phases of the booster's flight share: parameters, the state handed over, and how it is seen.

A phase hands over a `Flight`: the vehicle and the day's errors, which stay with it from lift-off to
touchdown, so that a chain is one flight.
"""

from __future__ import annotations

import math
from typing import Annotated, NamedTuple

import jax.numpy as jnp
from jax import Array
from pydantic import BaseModel, ConfigDict, Field, model_validator

from mission import ActorConfig, FillConfig, Limit, NetworkConfig, SacConfig, WarmUpConfig
from mission_rocket.physics.constants import DEGREE, EARTH_ROTATION_RAD_S
from mission_rocket.physics.dynamics import loads
from mission_rocket.physics.gravity import Site, altitude, up
from mission_rocket.physics.integrate import advance_twice, blow
from mission_rocket.physics.state import Command, Dispersion, Spread, State, draw_dispersion, idle
from mission_rocket.physics.tables import lookup, lookup_grid
from mission_rocket.physics.vector import Scalar, Vector, body_axis, dot, norm, rotate, rotate_back
from mission_rocket.physics.vehicle import Body
from mission_rocket.physics.wind import gust_velocity, steady_wind
from mission_rocket.vehicles import Vehicle

Range = Annotated[tuple[float, float], Field(strict=False)]


class Dispersions(BaseModel):
    """Errors of the day: standard deviations in percent or the unit of the name, ranges of uniform draws."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    thrust_percent: float = Field(1.0, ge=0.0, le=20.0)
    specific_impulse_percent: float = Field(1.0, ge=0.0, le=20.0)
    propellant_percent: float = Field(0.5, ge=0.0, le=20.0)
    dry_mass_percent: float = Field(1.0, ge=0.0, le=20.0)
    drag_percent: float = Field(10.0, ge=0.0, le=28.0)
    lift_percent: float = Field(10.0, ge=0.0, le=28.0)
    centre_of_mass_m: float = Field(0.1, ge=0.0, le=1.0)
    actuator_lag_percent: float = Field(20.0, ge=0.0, le=20.0)
    attitude_deg: float = Field(0.2, ge=0.0, le=5.0)
    ignition_delay_s: Range = (0.0, 0.4)
    wind_percentile: Range = (50.0, 95.0)
    turbulence: float = Field(1.0, ge=0.0, le=5.0, description="Scale of the Dryden intensity; 1 is moderate.")
    uniform_wind_m_s: float = Field(0.0, ge=0.0, le=50.0, description="Added at every altitude, along the day's wind.")
    engine_out: int = Field(-1, ge=-1, description="Number of an engine that never lights; -1: none.")

    @model_validator(mode="after")
    def _ranges(self) -> Dispersions:
        for name, highest in (("ignition_delay_s", 5.0), ("wind_percentile", 99.0)):
            low, high = getattr(self, name)
            if not 0.0 <= low <= high <= highest:
                raise ValueError(f"{name} must be [low, high] within 0 to {highest:g}, not [{low:g}, {high:g}]")
        return self

    def spread(self) -> Spread:
        """In the units of the physics."""
        return Spread(
            self.thrust_percent / 100.0,
            self.specific_impulse_percent / 100.0,
            self.propellant_percent / 100.0,
            self.dry_mass_percent / 100.0,
            self.drag_percent / 100.0,
            self.lift_percent / 100.0,
            self.centre_of_mass_m,
            self.actuator_lag_percent / 100.0,
            self.attitude_deg * DEGREE,
            self.ignition_delay_s,
            self.wind_percentile,
            self.turbulence,
            self.engine_out,
            self.uniform_wind_m_s,
        )


class FlightParams(BaseModel):
    """Parameters of every phase of the booster; set them once under the mission's `params`."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    vehicle: Vehicle = Field("falcon9_class", validate_default=True)
    dispersions: Dispersions = Dispersions()
    earth_rotation: bool = True
    latitude_deg: float = Field(28.4858, ge=-90.0, le=90.0)
    azimuth_deg: float = Field(90.0, ge=0.0, lt=360.0, description="Of downrange, clockwise from north.")

    def site(self) -> Site:
        """The launch site."""
        return Site(
            rotation=EARTH_ROTATION_RAD_S if self.earth_rotation else 0.0,
            latitude=math.radians(self.latitude_deg),
            azimuth=math.radians(self.azimuth_deg),
        )


class Flight(NamedTuple):
    """What is handed from phase to phase."""

    state: State
    dispersion: Dispersion


class View(NamedTuple):
    """What controllers and observations use of a flight: what navigation, gyros, accelerometers and air data give.

    The day's errors are not in it, nor are gusts. `wind` is the steady wind here, `toward` the direction
    of flight through the air, `felt` what accelerometers measure (local), `lift_slope` the body's lift
    per radian of incidence [N], `trimmed_slope` the same with the fins' force that holds the incidence,
    `stiffness` the aerodynamic moment per radian of incidence [N m].
    """

    altitude: Scalar
    climb: Scalar
    speed: Scalar
    position: Vector
    velocity: Vector
    wind: Vector
    toward: Vector
    vertical: Vector
    axis: Vector
    rates: Vector
    felt: Vector
    turning: Vector
    mass: Scalar
    centre: Scalar
    inertia: Vector
    pressure: Scalar
    mach: Scalar
    sound_speed: Array
    lift_slope: Scalar
    trimmed_slope: Scalar
    stiffness: Scalar
    fin_slope: Scalar
    thrust: Scalar


def view(body: Body, site: Site, flight: Flight) -> View:
    """Measure a flight."""
    motion = flight.state.motion
    height = altitude(site, motion.position)
    zero = jnp.zeros_like(height)
    gust = gust_velocity(flight.dispersion.wind, flight.state.gust, height)
    real = loads(body, site, flight.dispersion, motion, idle(body), gust)
    wind = steady_wind(flight.dispersion.wind, height)
    through = motion.velocity - wind
    pressure, mach = real.flow.dynamic_pressure, real.flow.mach
    vertical = up(site, motion.position)
    axis = body_axis(motion.attitude)
    small = 4.0 * DEGREE
    aero = body.aerodynamics
    engine_first = dot(axis, through) < 0.0
    slope = (
        jnp.where(
            engine_first,
            lookup_grid(aero.engine_first.lift, small + zero, mach),
            lookup_grid(aero.nose_first.lift, small + zero, mach),
        )
        / small
    )
    lift_slope = pressure * aero.area * slope
    centre_of_pressure = jnp.where(
        engine_first, aero.engine_first.centre_of_pressure, aero.nose_first.centre_of_pressure
    )
    fin_slope = zero
    arm = centre_of_pressure - real.mass.centre
    stiffness, trimmed = lift_slope * jnp.abs(arm), lift_slope
    if body.fins is not None:
        trimmed = lift_slope * (1.0 - arm / (body.fins.height - real.mass.centre))
        fin_slope = jnp.where(engine_first, 2.0 * pressure * body.fins.area * lookup(body.fins.normal, mach), 0.0)
    return View(
        height,
        dot(motion.velocity, vertical),
        norm(motion.velocity, 1e-6),
        motion.position,
        motion.velocity,
        wind,
        through * (1.0 / real.flow.airspeed),
        vertical,
        axis,
        motion.rates,
        rotate(motion.attitude, real.wrench.force * (1.0 / real.mass.mass)),
        Vector(*(m / i for m, i in zip(real.wrench.moment, real.mass.inertia, strict=True))),
        real.mass.mass,
        real.mass.centre,
        real.mass.inertia,
        pressure,
        mach,
        real.air.sound_speed,
        lift_slope,
        trimmed,
        stiffness,
        fin_slope,
        real.thrust,
    )


class Stress(NamedTuple):
    """The largest of what the structure and the rules bound, so far in a phase."""

    dynamic_pressure: Array
    q_alpha: Array
    axial: Array
    lateral: Array
    rate: Array


def no_stress() -> Stress:
    """At the start of a phase."""
    zero = jnp.zeros(())
    return Stress(zero, zero, zero, zero, zero)


def stress(body: Body, site: Site, flight: Flight, command: Command) -> Stress:
    """What the structure feels now, gusts and wind included: Pa, Pa rad, m/s2, rad/s."""
    motion = flight.state.motion
    gust = gust_velocity(flight.dispersion.wind, flight.state.gust, altitude(site, motion.position))
    acting = loads(body, site, flight.dispersion, motion, command, gust)
    felt = acting.wrench.force * (1.0 / acting.mass.mass)
    met = acting.flow
    return Stress(
        met.dynamic_pressure,
        met.dynamic_pressure * met.incidence,
        jnp.abs(felt.z),
        jnp.sqrt(felt.x * felt.x + felt.y * felt.y + 1e-9),
        norm(motion.rates, 1e-12),
    )


def stress_ratio(body: Body, felt: Stress, engine_first: bool) -> Array:
    """The largest share of a limit that is used; above 1 the vehicle is lost."""
    limits = body.limits
    pressure = limits.dynamic_pressure_engine_first if engine_first else limits.dynamic_pressure_nose_first
    shares = (
        felt.dynamic_pressure / pressure,
        felt.q_alpha / limits.q_alpha,
        felt.axial / limits.axial_load,
        felt.lateral / limits.lateral_load,
        felt.rate / limits.body_rate,
    )
    return jnp.max(jnp.stack(shares))


def structural_limits(params: FlightParams, engine_first: bool) -> tuple[Limit, ...]:
    """The vehicle's limits as the engine reports them."""
    stage = params.vehicle.stages[0]
    assert stage.limits is not None
    limits = stage.limits
    pressure = limits.dynamic_pressure_engine_first_pa if engine_first else limits.dynamic_pressure_nose_first_pa
    return (
        Limit("dynamic_pressure_pa", maximum=pressure),
        Limit("q_alpha_pa_deg", maximum=limits.q_alpha_pa_deg),
        Limit("axial_load_m_s2", maximum=limits.axial_load_m_s2),
        Limit("lateral_load_m_s2", maximum=limits.lateral_load_m_s2),
        Limit("rate_deg_s", maximum=limits.body_rate_deg_s),
        Limit("propellant_kg", minimum=0.0),
    )


def move(
    body: Body,
    site: Site,
    key: Array,
    flight: Flight,
    commands: tuple[Command, Command],
    switch: Scalar,
    period: Scalar,
    steps_each: int = 1,
) -> Flight:
    """One control period: the first command until `switch` seconds, then the second. Key consumed."""
    state = blow(site, flight.dispersion, flight.state, key, period)
    spans = (switch, period - switch)
    return flight._replace(state=advance_twice(body, site, flight.dispersion, state, commands, spans, steps_each))


def draw_day(params: FlightParams, key: Array) -> Dispersion:
    """The errors of a flight. Key consumed."""
    return draw_dispersion(params.dispersions.spread(), key)


def compress(value: Scalar, scale: float) -> Array:
    """sign(x) log(1 + |x| / scale): fine near zero, bounded growth far away."""
    return jnp.sign(value) * jnp.log1p(jnp.abs(value) / scale)


def body_components(flight: Flight, vector: Vector) -> Vector:
    """A local vector in body axes."""
    return rotate_back(flight.state.motion.attitude, vector)


def bounded(action: Array, times: tuple[int, ...] = ()) -> Array:
    """A guide's action in [-1, 1]; its times to go may be overdue, down to -2.

    So a correction can put an event off, but not for ever: the longer it is overdue, the less a correction counts.
    """
    return jnp.clip(action, jnp.full(len(action), -1.0).at[jnp.array(times, int)].set(-2.0), 1.0)


def corrected(guide: Array, residual: float, action: Array, shares: tuple[float, ...] | None = None) -> Array:
    """What the vehicle receives: the guide's action and `residual` times the agent's; with 0 the agent's alone.

    `shares` of the residual go to each action; all of it where None.
    """
    correction = action if shares is None else jnp.array(shares) * action
    return jnp.clip(guide + residual * correction, -1.0, 1.0) if residual > 0.0 else action


def uncorrected(guide: Array, residual: float) -> Array:
    """The action with which the guide flies alone."""
    return jnp.zeros_like(guide) if residual > 0.0 else jnp.clip(guide, -1.0, 1.0)


def agent(
    target_entropy: float,
    width: int = 128,
    gamma: float = 0.995,
    actor_learning_rate: float = 5e-5,
    exploration_noise: float = 0.1,
) -> SacConfig:
    """The agents' common defaults: a small correction of a good guide, that must not lose what the guide can do.

    The policy begins with the guide (`output_scale`), the replay with flights of the guide and noise about it, and
    the critics learn from those before the actor moves: an actor that follows critics which know nothing unlearns
    the guide within 50,000 steps.
    """
    return SacConfig(
        actor=ActorConfig(width=width, layer_norm=True, log_std_max=0.0, output_scale=0.0),
        critic=NetworkConfig(width=width, layer_norm=True),
        gamma=gamma,
        tau=0.01,
        n_step=5,
        actor_learning_rate=actor_learning_rate,
        critic_learning_rate=5e-4,
        temperature_initial=5e-4,
        target_entropy=target_entropy,
        exploration_noise=exploration_noise,
        buffer_size=400_000,
        fill=FillConfig(env_steps=65_536, policy="guide"),
        warm_up=WarmUpConfig(steps=15_000),
    )
