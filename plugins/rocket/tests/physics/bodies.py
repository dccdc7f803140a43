"""Simple bodies, and flights of them, for the tests of physics."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from mission_rocket.physics.gravity import Site
from mission_rocket.physics.integrate import advance
from mission_rocket.physics.state import Command, Dispersion, State, idle, nominal, start_state
from mission_rocket.physics.tables import Grid
from mission_rocket.physics.vector import Quaternion, Vector
from mission_rocket.physics.vehicle import (
    Aerodynamics,
    Body,
    EngineGroup,
    Gimbal,
    Polar,
    StructuralLimits,
    Tank,
)

UPRIGHT = Quaternion(1.0, 0.0, 0.0, 0.0)
STILL = Vector(0.0, 0.0, 0.0)
EQUATOR = {"latitude": 0.0}
ROUND = Site(radius=6_371_007.2, surface_gravity=3.986004418e14 / 6_371_007.2**2, rotation=0.0, latitude=0.0)
EARTH_AT_REST = Site(rotation=0.0)
G0 = 9.80665


def constant(value: float) -> Grid:
    """The same coefficient everywhere."""
    return Grid((0.0, math.pi / 2.0), (0.0, 10.0), ((value, value), (value, value)))


def plain(
    mass: float = 1000.0,
    inertia: tuple[float, float, float] = (1000.0, 1000.0, 100.0),
    area: float = 1.0,
    drag: float = 0.0,
    engines: tuple[EngineGroup, ...] = (),
    propellant: float = 0.0,
    **more: Any,
) -> Body:
    """A body 10 m long with constant drag, its centre of mass in the middle, one tank about it."""
    polar = Polar(constant(0.0), constant(drag), 5.0, 5.0)
    parts: dict[str, Any] = {
        "name": "plain",
        "length": 10.0,
        "diameter": 1.0,
        "dry_mass": mass,
        "dry_centre": 5.0,
        "dry_transverse": inertia[0],
        "transverse_ratio": inertia[1] / inertia[0],
        "dry_axial": inertia[2],
        "propellant": propellant,
        "tanks": (Tank(1.0, 2.0, 0.5, 1e6),),
        "mass_table": None,
        "engines": engines,
        "gimbal": Gimbal(0.1, 0.2, 0.0),
        "fins": None,
        "rcs": None,
        "aerodynamics": Aerodynamics(area, 10.0, polar, polar, 0.0, 0.0),
        "limits": StructuralLimits(1e9, 1e9, 1e9, 1e9, 1e9, 1e9),
    }
    return Body(**(parts | more))


def engine(thrust: float = 1e5, impulse_s: float = 300.0, **more: Any) -> EngineGroup:
    """One engine on the axis, without back-pressure."""
    parts: dict[str, Any] = {
        "name": "engine",
        "positions": ((0.0, 0.0),),
        "thrust": thrust,
        "flow": thrust / (impulse_s * G0),
        "exit_area": 0.0,
        "throttle_min": 0.4,
        "ignitions": 1,
        "lag": 0.3,
    }
    return EngineGroup(**(parts | more))


def at(body: Body, position: Vector = STILL, velocity: Vector = STILL, **more: Any) -> State:
    """A state with a full tank; `more` replaces parts of its motion."""
    state = start_state(
        body, position, velocity, more.pop("attitude", UPRIGHT), more.pop("propellant", body.propellant)
    )
    cast = functools.partial(jax.tree.map, lambda part: jnp.asarray(part, state.time.dtype))
    return state._replace(motion=state.motion._replace(**cast(more)))


def fly(
    body: Body,
    site: Site,
    state: State,
    seconds: float,
    step_s: float = 0.05,
    every_s: float = 1.0,
    dispersion: Dispersion | None = None,
    command: Command | None = None,
) -> State:
    """States after `every_s`, 2 `every_s`, ...; leaves numpy [seconds / every_s]."""
    errors = nominal() if dispersion is None else dispersion
    told = idle(body) if command is None else command
    inner, outer = round(every_s / step_s), round(seconds / every_s)

    @jax.jit
    def run(state: State, errors: Dispersion, told: Command) -> State:
        def leg(state: State, _: None) -> tuple[State, State]:
            state = jax.lax.fori_loop(0, inner, lambda _, s: advance(body, site, errors, s, told, step_s), state)
            return state, state

        return jax.lax.scan(leg, state, None, length=outer)[1]

    return jax.tree.map(np.asarray, run(state, errors, told))


def last(states: State) -> State:
    """The last of a flight's states."""
    return jax.tree.map(lambda leaf: leaf[-1], states)
