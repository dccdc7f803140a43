"""The dispersions of a flight: the spread of thrust, mass, air, actuators and wind, and how they are drawn."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from pydantic import Field, model_validator

from mission_rocket.physics.constants import DEGREE
from mission_rocket.physics.state import Dispersion, Navigation
from mission_rocket.physics.vector import Vector
from mission_rocket.physics.wind import Wind
from mission_rocket.vehicles import Range, Strict


class Dispersions(Strict):
    """The spread of each dispersion: standard deviations in percent or in the unit of the name, or uniform ranges."""

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
    uniform_wind_m_s: float = Field(
        0.0, ge=0.0, le=50.0, description="Wind that is added at every altitude, in the direction of the steady wind."
    )
    engine_out: int = Field(-1, ge=-1, description="Number of an engine that never lights; -1 for none.")
    engine_out_percent: float = Field(
        0.0, ge=0.0, le=100.0, description="Share of the flights in which one engine never lights."
    )
    engines_out: tuple[int, ...] = Field(
        (),
        strict=False,
        description="Numbers of the engines that can fail in that share of the flights; all of them if left out.",
    )

    position_bias_m: float = Field(0.0, ge=0.0, le=1000.0, description="Navigation error of each component.")
    velocity_bias_m_s: float = Field(0.0, ge=0.0, le=50.0)
    attitude_bias_deg: float = Field(0.0, ge=0.0, le=5.0)
    rate_bias_deg_s: float = Field(0.0, ge=0.0, le=5.0)
    position_noise_m: float = Field(0.0, ge=0.0, le=1000.0, description="Navigation error, new in each control step.")
    velocity_noise_m_s: float = Field(0.0, ge=0.0, le=50.0)
    attitude_noise_deg: float = Field(0.0, ge=0.0, le=5.0)
    rate_noise_deg_s: float = Field(0.0, ge=0.0, le=5.0)

    @model_validator(mode="after")
    def _ranges(self) -> Dispersions:
        for name, highest in (("ignition_delay_s", 5.0), ("wind_percentile", 99.0)):
            low, high = getattr(self, name)
            if not 0.0 <= low <= high <= highest:
                raise ValueError(f"{name} must be [low, high] within 0 to {highest:g}, not [{low:g}, {high:g}]")
        return self

    def draw(self, key: Array, engines: int) -> Dispersion:
        """Draw the dispersions of one flight; normal draws are cut at 3.5 standard deviations.

        Args:
          key: consumed.
          engines: number of engines of the vehicle.
        """
        normal_key, uniform_key = jax.random.split(key)
        n = jax.random.truncated_normal(normal_key, -3.5, 3.5, (11,))
        u = jax.random.uniform(uniform_key, (3,))

        def factor(percent: float, draw: Array) -> Array:
            return 1.0 + percent / 100.0 * draw

        def between(bounds: tuple[float, float], fraction: Array) -> Array:
            return bounds[0] + (bounds[1] - bounds[0]) * fraction

        return Dispersion(
            thrust=factor(self.thrust_percent, n[0]),
            specific_impulse=factor(self.specific_impulse_percent, n[1]),
            propellant=factor(self.propellant_percent, n[2]),
            dry_mass=factor(self.dry_mass_percent, n[3]),
            drag=factor(self.drag_percent, n[4]),
            lift=factor(self.lift_percent, n[5]),
            centre_of_mass_x=self.centre_of_mass_m * n[6],
            centre_of_mass_y=self.centre_of_mass_m * n[7],
            actuator_lag=factor(self.actuator_lag_percent, n[8]),
            tilt_x=self.attitude_deg * DEGREE * n[9],
            tilt_y=self.attitude_deg * DEGREE * n[10],
            ignition_delay=between(self.ignition_delay_s, u[0]),
            engine_out=self._engine_out(jax.random.fold_in(key, 3), engines),
            wind=Wind(
                percentile=between(self.wind_percentile, u[1]),
                along_x=jnp.cos(2.0 * jnp.pi * u[2]),
                along_y=jnp.sin(2.0 * jnp.pi * u[2]),
                turbulence=jnp.asarray(self.turbulence, u.dtype),
                uniform=jnp.asarray(self.uniform_wind_m_s, u.dtype),
            ),
            navigation=self._navigation(jax.random.fold_in(key, 2)),
        )

    def _engine_out(self, key: Array, engines: int) -> Array:
        """Draw the engine that never lights, -1 for none. Key consumed."""
        fails_key, engine_key = jax.random.split(key)
        fails = jax.random.uniform(fails_key) < self.engine_out_percent / 100.0
        engine = jax.random.choice(engine_key, jnp.asarray(list(self.engines_out or range(engines)), jnp.float32))
        return jnp.where(fails, engine, jnp.float32(self.engine_out))

    def _navigation(self, key: Array) -> Navigation:
        """Draw the errors of navigation of one flight. Key consumed."""
        n = jax.random.truncated_normal(key, -3.5, 3.5, (4, 3))
        biases = (
            self.position_bias_m,
            self.velocity_bias_m_s,
            self.attitude_bias_deg * DEGREE,
            self.rate_bias_deg_s * DEGREE,
        )
        noises = (
            self.position_noise_m,
            self.velocity_noise_m_s,
            self.attitude_noise_deg * DEGREE,
            self.rate_noise_deg_s * DEGREE,
        )
        position, velocity, attitude, rates = (Vector(*(bias * draw)) for bias, draw in zip(biases, n, strict=True))
        return Navigation(position, velocity, attitude, rates, *(jnp.full((), noise, n.dtype) for noise in noises))
