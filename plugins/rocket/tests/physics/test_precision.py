"""float32 against float64 over a whole flight: ascent, staging, boostback, coast, entry and landing burns.

Throttles by the clock, attitude held by the same closed-loop controller in both; nothing steers
position, so whatever float32 loses adds up until the ground.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from bodies import STILL, UPRIGHT
from mission_rocket.physics.constants import DEGREE
from mission_rocket.physics.gravity import Site, altitude
from mission_rocket.physics.integrate import advance
from mission_rocket.physics.state import Command, State, idle, nominal, start_state
from mission_rocket.physics.tables import Table, lookup
from mission_rocket.physics.vector import Vector, cross, norm, rotate_back
from mission_rocket.physics.vehicle import Body
from mission_rocket.vehicles import build_body, load_vehicle

VEHICLE = load_vehicle("falcon9_class")
SITE = Site()
PERIOD_S, STEPS = 0.1, 4800
STAGING_S = 140.0
# (from s, to s, throttle of centre, pair, ring)
BURNS = (
    (0.0, 136.0, 0.92, 0.92, 0.92),
    (156.0, 193.333, 1.0, 1.0, 0.0),
    (374.0, 384.9165, 1.0, 1.0, 0.0),
    (446.9367, 481.0, 0.7347, 0.0, 0.0),
)
PITCH = Table(
    (0.0, 10.0, 30.0, 60.0, 100.0, 140.0),
    (0.0, 0.0, 9.78 * DEGREE, 32.6 * DEGREE, 47.8 * DEGREE, 52.2 * DEGREE),
)
RISE = 0.17  # rad above the horizon, of the thrust during the boostback


def wanted_axis(state: State) -> Vector:
    """Pitch programme, then backwards for the boostback, then against the velocity."""
    tilt = lookup(PITCH, state.time)
    zero = jnp.zeros_like(tilt)
    back = state.motion.velocity * (-1.0 / norm(state.motion.velocity, 1e-6))
    late, home = state.time > 195.0, state.time > STAGING_S
    x = jnp.where(late, back.x, jnp.where(home, -math.cos(RISE), jnp.sin(tilt)))
    z = jnp.where(late, back.z, jnp.where(home, math.sin(RISE), jnp.cos(tilt)))
    return Vector(x, jnp.where(late, back.y, zero), z)


def controller(body: Body, state: State) -> Command:
    """Throttles by the clock; proportional and rate feedback to gimbals, fins and RCS."""
    motion = state.motion
    target = rotate_back(motion.attitude, wanted_axis(state))
    zero = jnp.zeros_like(target.x)
    error = cross(Vector(zero, zero, zero + 1.0), target)
    bounded = Vector(*(jnp.clip(part, -0.3, 0.3) for part in error))
    turn = bounded * 0.3 - motion.rates
    on = [jnp.zeros_like(zero)] * len(body.engines)
    for begin, end, *levels in BURNS:
        burning = (state.time > begin - 0.01) & (state.time < end - 0.01)
        on = [jnp.where(burning, level, told) for level, told in zip(levels, on, strict=True)]
    return idle(body)._replace(throttle=tuple(on), gimbal=turn * 0.5, fins=turn * 1.0, rcs=turn * 20.0)


def leg(body: Body, state: State, steps: int) -> tuple[State, Any]:
    @jax.jit
    def run(state: State) -> tuple[State, Any]:
        def control(state: State, _: None) -> tuple[State, Any]:
            told = controller(body, state)
            inner = lambda _, s: advance(body, SITE, nominal(), s, told, 0.5 * PERIOD_S)  # noqa: E731
            state = jax.lax.fori_loop(0, 2, inner, state)
            motion = state.motion
            return state, (
                motion.position,
                motion.velocity,
                motion.rates,
                motion.propellant,
                altitude(SITE, motion.position),
            )

        return jax.lax.scan(control, state, None, length=steps)

    return run(state)


@functools.cache
def flight(x64: bool) -> tuple[Any, State]:
    """(track: position, velocity, rates, propellant, altitude by step; the last state)."""
    with jax.enable_x64(x64):
        stack, booster = build_body(VEHICLE), build_body(VEHICLE, carrying=False)
        state = start_state(stack, STILL, STILL, UPRIGHT, stack.propellant)
        first = round(STAGING_S / PERIOD_S)
        state, ascent = leg(stack, state, first)
        state, descent = leg(booster, state, STEPS - first)
        track = jax.tree.map(lambda a, b: np.concatenate([np.asarray(a), np.asarray(b)]), ascent, descent)
    return track, jax.tree.map(np.asarray, state)


def test_float32_stays_beside_float64(within) -> None:
    (position, velocity, *_, height), end = flight(False)
    (exact, fast, *_, exact_height), _ = flight(True)
    assert height.dtype == np.float32
    assert exact_height.dtype == np.float64
    # the flight is one: up, back, and down to the ground within the 480 s
    assert exact_height.max() > 100e3
    assert 0.0 < exact_height[-1] < 300.0
    assert -20.0 < fast.z[-1] < 0.0
    apart = np.sqrt(sum((np.float64(a) - b) ** 2 for a, b in zip(position, exact, strict=True)))
    within("distance before touchdown m", apart[-1], 5.0)
    within("largest distance m", apart, 5.0)
    within("speed m/s", [np.float64(a[-1]) - b[-1] for a, b in zip(velocity, fast, strict=True)], 0.5)
    within("clock s", np.float64(end.time) - 480.0, 0.01)
