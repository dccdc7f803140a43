"""The integrator: its order, the step chosen against a reference, falls, crossings and gradients."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bodies import STILL, UPRIGHT, at, fly, last, plain
from jax.flatten_util import ravel_pytree
from mission_rocket.physics.channels import fall
from mission_rocket.physics.dynamics import motion_rate
from mission_rocket.physics.gravity import Site, altitude, free_fall
from mission_rocket.physics.integrate import advance, advance_twice, cross_altitude
from mission_rocket.physics.state import Command, State, idle, nominal, start_state
from mission_rocket.physics.vector import Vector, quaternion_of_axis
from mission_rocket.vehicles import build_body, load_vehicle
from scipy.integrate import solve_ivp

SITE = Site()
BOOSTER = build_body(load_vehicle("falcon9_class"), carrying=False)
NO_GUST = Vector(0.0, 0.0, 0.0)


def reference(
    rate: Callable[[Any], Any], begin: Any, seconds: float, event: Callable[[Any], Any] | None = None
) -> tuple[Any, float]:
    """(end, its time) by SciPy's DOP853 in float64, rtol 1e-12; stops where `event` falls through zero."""
    flat, unravel = ravel_pytree(begin)
    compiled = jax.jit(lambda values: ravel_pytree(rate(unravel(values)))[0])
    stop = None
    if event is not None:
        stop = lambda _, values: float(event(unravel(jnp.asarray(values))))  # noqa: E731
        stop.terminal, stop.direction = True, -1.0
    solved = solve_ivp(
        lambda _, values: np.asarray(compiled(values)),
        (0.0, seconds),
        np.asarray(flat),
        method="DOP853",
        rtol=1e-12,
        atol=1e-13,
        events=stop,
    )
    return unravel(jnp.asarray(solved.y[:, -1])), float(solved.t[-1])


def test_the_integrator_is_of_fourth_order(within) -> None:
    """A powered tumble on a turning Earth, smooth, so that the error falls with the fourth power of the step."""
    with jax.enable_x64(True):
        body = plain(inertia=(1900.0, 6200.0, 7200.0))
        state = at(body, Vector(0.0, 0.0, 1e5), Vector(500.0, 50.0, 900.0), rates=Vector(0.3, 0.5, 0.4))
        exact, _ = reference(lambda m: motion_rate(body, SITE, nominal(), m, idle(body), NO_GUST), state.motion, 20.0)
        steps = (0.4, 0.2, 0.1, 0.05)
        ends = [last(fly(body, SITE, state, 20.0, step, 20.0)).motion for step in steps]
    errors = [np.linalg.norm(np.array(end.rates) - np.array(exact.rates)) for end in ends]
    orders = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    within("order less 4", orders[-1] - 4.0, 0.15)
    assert (orders > 3.7).all()


def landing(body: Any) -> tuple[State, Command]:
    """A landing burn from 5 km at 310 m/s, tilted, with gimbal and fins held, the engine running."""
    axis = Vector(jnp.asarray(math.sin(0.05)), jnp.zeros(()), jnp.asarray(math.cos(0.05)))
    state = at(
        body,
        Vector(-800.0, 50.0, 5000.0),
        Vector(60.0, -5.0, -300.0),
        attitude=quaternion_of_axis(axis),
        propellant=12e3,
    )
    told = idle(body)
    told = told._replace(
        throttle=(jnp.asarray(0.8), jnp.zeros(()), jnp.zeros(())),
        gimbal=Vector(jnp.asarray(0.002), jnp.asarray(0.004), jnp.zeros(())),
        fins=Vector(jnp.asarray(0.05), jnp.asarray(-0.05), jnp.zeros(())),
    )
    return state._replace(lit_for=(jnp.ones(()), *state.lit_for[1:])), told


def test_the_step_is_chosen_against_a_reference(within) -> None:
    """Ten seconds of a landing burn, all actuators moving: RK4 at 0.05 s, the step of phases, and beside it."""
    with jax.enable_x64(True):
        state, told = landing(BOOSTER)
        windy = nominal()._replace(wind=nominal().wind._replace(percentile=jnp.asarray(75.0)))
        exact, _ = reference(lambda m: motion_rate(BOOSTER, SITE, windy, m, told, NO_GUST), state.motion, 10.0)
        for step_s, metres, speed in ((0.1, 0.01, 0.001), (0.05, 0.005, 0.0005), (0.025, 0.002, 0.0002)):
            end = last(fly(BOOSTER, SITE, state, 10.0, step_s, 10.0, windy, told)).motion
            within(f"position m at {step_s} s", np.array(end.position) - np.array(exact.position), metres)
            within(f"velocity m/s at {step_s} s", np.array(end.velocity) - np.array(exact.velocity), speed)
    state, told = landing(BOOSTER)
    windy = nominal()._replace(wind=nominal().wind._replace(percentile=jnp.float32(75.0)))
    end = last(fly(BOOSTER, SITE, state, 10.0, 0.05, 10.0, windy, told)).motion
    within("position m at 0.05 s in float32", np.array(end.position) - np.array(exact.position), 0.02)
    within("velocity m/s at 0.05 s in float32", np.array(end.velocity) - np.array(exact.velocity), 0.01)


FALLS = {
    "after a boostback": (90e3, Vector(-400.0, 30.0, 900.0)),
    "from the apogee": (136e3, Vector(-330.0, 0.0, 0.0)),
    "during an entry": (50e3, Vector(-300.0, 20.0, -1250.0)),
    "near the ground": (800.0, Vector(-20.0, 5.0, -120.0)),
    "at staging": (62e3, Vector(1100.0, 0.0, 1200.0)),
}


@pytest.mark.parametrize("name", FALLS)
def test_vacuum_impact_point(within, name: str) -> None:
    height, velocity = FALLS[name]
    with jax.enable_x64(True):
        position = Vector(20e3, -500.0, height)
        begin = jax.tree.map(jnp.asarray, (position, velocity))
        (exact, _), seconds = reference(
            lambda there: (there[1], free_fall(SITE, *there)), begin, 900.0, lambda there: altitude(SITE, there[0])
        )
    found, took = jax.jit(lambda p, v: fall(SITE, p, v))(*jax.tree.map(jnp.float32, (position, velocity)))
    within("point m", np.array(found)[:2] - np.array(exact)[:2], 10.0)
    within("time s", float(took) - seconds, 0.02)


def test_vacuum_impact_at_a_level(within) -> None:
    found, took = fall(
        Site(rotation=0.0, constant_gravity=True),
        Vector(0.0, 0.0, jnp.float32(1500.0)),
        Vector(jnp.float32(10.0), 0.0, jnp.float32(0.0)),
        1000.0,
    )
    seconds = math.sqrt(2.0 * 500.0 / (3.986004418e14 / 6_371_000.0**2))
    within("time s", float(took) - seconds, 1e-3)
    within("point m", float(found.x) - 10.0 * seconds, 0.02)


def test_two_steps_put_a_switch_between_them(within) -> None:
    """A cut-off inside a control period: the velocity gained is in proportion, whatever the split."""
    off, on = idle(BOOSTER), idle(BOOSTER)._replace(throttle=(jnp.ones(()), jnp.zeros(()), jnp.zeros(())))
    state = start_state(BOOSTER, Vector(0.0, 0.0, 3e5), STILL, UPRIGHT, 3e4)
    for split in (0.0, 0.03, 0.1):
        end = advance_twice(BOOSTER, SITE, nominal(), state, (off, on), (jnp.float32(split), jnp.float32(0.1 - split)))
        within("clock s", float(end.time) - 0.1, 1e-7)
        within("running s", float(end.lit_for[0]) - (0.1 - split), 2e-6)
        within("throttle", float(end.motion.levels[0]) - (1.0 - math.exp(-(0.1 - split) / 0.3)), 1e-4)


def test_crossing_of_the_ground(within) -> None:
    """Where and how fast a falling body passes the ground inside a step, against the closed form."""
    flat = Site(rotation=0.0, constant_gravity=True)
    body = plain()
    pull = flat.surface_gravity
    for height in (0.5, 7.0, 11.9):
        state = at(body, Vector(0.0, 0.0, height), Vector(3.0, 0.0, -120.0))
        after = advance(body, flat, nominal(), state, idle(body), 0.1)
        crossed, there = cross_altitude(flat, state, after, 0.1, 0.0)
        seconds = (-120.0 + math.sqrt(120.0**2 + 2.0 * pull * height)) / pull
        assert bool(crossed)
        within("height m", float(there.motion.position.z), 1e-4)
        within("time s", float(there.time) - seconds, 2e-6)
        within("speed m/s", float(there.motion.velocity.z) + 120.0 + pull * seconds, 1e-4)
    above = at(body, Vector(0.0, 0.0, 50.0), Vector(3.0, 0.0, -120.0))
    after = advance(body, flat, nominal(), above, idle(body), 0.1)
    crossed, there = cross_altitude(flat, above, after, 0.1, 0.0)
    assert not bool(crossed)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(a == b), there, after))


STEPS = 80


@functools.cache
def touchdown() -> Callable[[jax.Array], jax.Array]:
    """Controls [STEPS, 3] (throttle, yaw, pitch of the gimbal) -> state at the ground."""

    def run(controls: jax.Array) -> jax.Array:
        axis = Vector(jnp.asarray(0.02), jnp.zeros(()), jnp.asarray(math.sqrt(1.0 - 0.02**2)))
        state = at(
            BOOSTER,
            Vector(-30.0, 10.0, 520.0),
            Vector(5.0, -2.0, -110.0),
            attitude=quaternion_of_axis(axis),
            propellant=4e3,
            levels=(0.7, 0.0, 0.0),
        )
        state = state._replace(lit_for=(jnp.ones(()), *state.lit_for[1:]))

        def step(carry: tuple[State, jax.Array], row: jax.Array) -> tuple[tuple[State, jax.Array], None]:
            state, down = carry
            told = idle(BOOSTER)._replace(
                throttle=(row[0], 0.0 * row[0], 0.0 * row[0]), gimbal=Vector(row[1], row[2], 0.0 * row[0])
            )
            moved = advance(BOOSTER, SITE, nominal(), state, told, 0.1)
            crossed, there = cross_altitude(SITE, state, moved, 0.1, 0.0)
            kept = jax.tree.map(lambda old, new: jnp.where(down, old, new), state, there)
            return (kept, down | crossed), None

        (end, down), _ = jax.lax.scan(step, (state, jnp.bool_(False)), controls)
        motion = end.motion
        found = jnp.stack(
            [
                *motion.position,
                *motion.velocity,
                motion.attitude.x,
                motion.attitude.y,
                *motion.rates,
                end.time,
                motion.propellant,
            ]
        )
        return jnp.where(down, found, jnp.nan)

    return jax.jit(run)


def test_gradient_of_the_touchdown_state_by_the_controls(within) -> None:
    with jax.enable_x64(True):
        run = touchdown()
        wave = 0.01 * jnp.sin(jnp.arange(STEPS) * 0.3)
        controls = jnp.stack([0.62 + wave, 0.3 * wave, -0.2 * wave], axis=1)
        weights = 1.0 / jnp.array([10.0, 10.0, 1.0, 1.0, 1.0, 1.0, 0.01, 0.01, 0.01, 0.01, 0.01, 1.0, 100.0])
        slope = np.asarray(jax.jit(jax.grad(lambda controls: weights @ run(controls)))(controls))
        assert np.isfinite(slope).all()
        largest = np.abs(slope).max(axis=0)
        for number, control in [(0, 0), (20, 0), (40, 0), (3, 1), (30, 1), (10, 2), (45, 2)]:
            nudge = jnp.zeros_like(controls).at[number, control].set(1e-5)
            differences = float(weights @ (run(controls + nudge) - run(controls - nudge)) / 2e-5)
            within(
                "relative to the largest of its kind", (slope[number, control] - differences) / largest[control], 1e-3
            )
            assert abs(differences) > 0.01 * largest[control]
