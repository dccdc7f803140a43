"""A booster that falls straight down in vacuum: constant gravity, one engine, closed forms throughout.

Height and velocity are positive upwards, in SI units. `vertical_coast` and `vertical_burn` share this file.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from mission import ActorConfig, FillConfig, NetworkConfig, SacConfig
from mission_rocket.physics.constants import STANDARD_GRAVITY_M_S2

SPECIFIC_IMPULSE_S = 282.0
EXHAUST_SPEED_M_S = SPECIFIC_IMPULSE_S * STANDARD_GRAVITY_M_S2
FULL_THRUST_N = 845_000.0
FULL_FLOW_KG_S = FULL_THRUST_N / EXHAUST_SPEED_M_S
MINIMUM_THROTTLE = 0.4
DRY_MASS_KG = 22_200.0

NOMINAL_HEIGHT_M = 10_000.0
NOMINAL_VELOCITY_M_S = -300.0
NOMINAL_MASS_KG = 33_000.0
SPREAD = 0.05


class Booster(NamedTuple):
    """The vehicle that is handed from phase to phase; all float32 scalars."""

    height_m: Array
    velocity_m_s: Array
    mass_kg: Array
    start_mass_kg: Array  # at the start of the fall
    optimal_propellant_kg: Array  # of the fall from that start


class Optimum(NamedTuple):
    """The propellant optimum: a coast, then full thrust from the latest ignition that stops at the ground."""

    coast_s: Array
    ignition_height_m: Array
    burn_s: Array
    propellant_kg: Array


def coast(height: Array, velocity: Array, seconds: Array) -> tuple[Array, Array]:
    """Return height and velocity after a free fall."""
    fallen = velocity * seconds - 0.5 * STANDARD_GRAVITY_M_S2 * seconds**2
    return height + fallen, velocity - STANDARD_GRAVITY_M_S2 * seconds


def burn(height: Array, velocity: Array, mass: Array, throttle: Array, seconds: Array) -> tuple[Array, Array, Array]:
    """Return height, velocity and mass after a burn at constant throttle (Tsiolkovsky, integrated twice).

    v = v0 + c ln(m0 / m) - g t;  h = h0 + v0 t - g t^2 / 2 + c (t - (m / flow) ln(m0 / m)).
    """
    flow = throttle * FULL_FLOW_KG_S
    after = mass - flow * seconds
    log_ratio = -jnp.log1p(-flow * seconds / mass)
    fallen, without_thrust = coast(height, velocity, seconds)
    climbed = EXHAUST_SPEED_M_S * (seconds - after / flow * log_ratio)
    return fallen + climbed, without_thrust + EXHAUST_SPEED_M_S * log_ratio, after


def fuel_optimum(height: Array, velocity: Array, mass: Array) -> Optimum:
    """Return the propellant optimum of a fall from (height, velocity < 0, mass), in closed form but for one root.

    Full thrust from the latest ignition is optimal (Meditch 1964, doi:10.1109/TAC.1964.1105758).
    With burn time b, the fall lasts T(b) = (v0 + c ln(m0 / (m0 - flow b))) / g and ends at height
    h0 + v0 T - g T^2 / 2 + c (b - (m / flow) ln(m0 / m)), which falls with b: bisection.
    If even an immediate burn is too late, coast_s is 0 and the burn stops below the ground.
    """

    def whole_time(burn_s: Array) -> tuple[Array, Array, Array]:
        left = mass - FULL_FLOW_KG_S * burn_s
        log_ratio = jnp.log(mass / left)
        return (velocity + EXHAUST_SPEED_M_S * log_ratio) / STANDARD_GRAVITY_M_S2, left, log_ratio

    def end_height(burn_s: Array) -> Array:
        total, left, log_ratio = whole_time(burn_s)
        fallen, _ = coast(height, velocity, total)
        return fallen + EXHAUST_SPEED_M_S * (burn_s - left / FULL_FLOW_KG_S * log_ratio)

    def halve(_: int, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = 0.5 * (low + high)
        total = whole_time(middle)[0]
        longer = (end_height(middle) > 0.0) | (total < middle)  # T < b: the burn cannot begin before the fall
        return jnp.where(longer, middle, low), jnp.where(longer, high, middle)

    longest = 0.95 * mass / FULL_FLOW_KG_S
    low, high = lax.fori_loop(0, 40, halve, (jnp.zeros_like(mass), longest))
    burn_s = 0.5 * (low + high)
    total, _, _ = whole_time(burn_s)
    coast_s = jnp.maximum(total - burn_s, 0.0)
    return Optimum(coast_s, coast(height, velocity, coast_s)[0], burn_s, FULL_FLOW_KG_S * burn_s)


def propellant_over_optimum_percent(booster: Booster) -> Array:
    """Return the propellant used since the start of the fall above the optimum of that fall, in percent."""
    used = booster.start_mass_kg - booster.mass_kg
    return 100.0 * (used / jnp.maximum(booster.optimal_propellant_kg, 1.0) - 1.0)


def required_throttle(height: Array, velocity: Array, mass: Array) -> Array:
    """Return the throttle that stops at the ground under constant deceleration and the present mass."""
    deceleration = velocity**2 / (2.0 * jnp.maximum(height, 0.05)) + STANDARD_GRAVITY_M_S2
    return deceleration * mass / FULL_THRUST_N


def dispersed_start(key: Array) -> Booster:
    """Draw height, speed and total mass, each uniform within 5 % of nominal. Key consumed."""
    nominal = jnp.array([NOMINAL_HEIGHT_M, NOMINAL_VELOCITY_M_S, NOMINAL_MASS_KG])
    height, velocity, mass = nominal * (1.0 + SPREAD * jax.random.uniform(key, (3,), minval=-1.0, maxval=1.0))
    return Booster(height, velocity, mass, mass, fuel_optimum(height, velocity, mass).propellant_kg)


def telemetry(booster: Booster) -> dict[str, Array]:
    """Return the channels that both phases report."""
    return {
        "height_m": booster.height_m,
        "velocity_m_s": booster.velocity_m_s,
        "mass_kg": booster.mass_kg,
        "propellant_kg": booster.mass_kg - DRY_MASS_KG,
        "propellant_over_optimum_percent": propellant_over_optimum_percent(booster),
    }


SEEN = ("height_m", "velocity_m_s", "mass_kg")  # the channels of which the observations are functions


def booster_in(channels: dict[str, Array]) -> Booster:
    """Return the booster that these channels show; what no observation uses is 0."""
    height, velocity, mass = (channels[name] for name in SEEN)
    return Booster(height, velocity, mass, jnp.zeros(()), jnp.zeros(()))


def vertical_sac(gamma: float, learning_rate: float = 1e-3) -> SacConfig:
    """Return the defaults of an agent that flies alone."""
    return SacConfig(
        actor=ActorConfig(width=64, layer_norm=True),
        critic=NetworkConfig(width=64, layer_norm=True),
        gamma=gamma,
        actor_learning_rate=learning_rate,
        critic_learning_rate=learning_rate,
        temperature_initial=0.05,
        target_entropy=-3.0,
        buffer_size=100_000,
        fill=FillConfig(env_steps=4096),
        updates_per_step=0.0625,
    )
