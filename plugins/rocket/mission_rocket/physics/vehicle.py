"""A vehicle as plain tuples of floats, and its mass properties as its tanks drain.

Body axes: z along the axis from the base to the nose, x and y across it; positions are measured
from the middle of the base. Pydantic models of vehicle files (`mission_rocket.vehicles`) build these.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from mission_rocket.physics.tables import Grid, Table, lookup
from mission_rocket.physics.vector import Scalar, Vector


class Tank(NamedTuple):
    """An upright cylinder that holds `share` of a stage's propellant, filled from the bottom."""

    share: float
    bottom: float
    radius: float
    density: float


class MassTable(NamedTuple):
    """Centre of mass from the base [m] and inertia about it [kg m2] by propellant [kg], instead of tanks."""

    centre: Table
    transverse: Table
    axial: Table


class EngineGroup(NamedTuple):
    """Engines that are lit and throttled together; `positions` across the base [m].

    `thrust` in vacuum [N] and `flow` [kg/s] of one engine at full throttle, `exit_area` [m2].
    """

    name: str
    positions: tuple[tuple[float, float], ...]
    thrust: Scalar
    flow: Scalar
    exit_area: float
    throttle_min: float
    ignitions: int
    lag: float


class Gimbal(NamedTuple):
    """Largest angle [rad] and first-order lag [s] of all engines; distance of the pivots from the base [m]."""

    limit: float
    lag: float
    height: float


class Fins(NamedTuple):
    """Four grid fins at +-x and +-y: area of one [m2], height and radius of mounting [m], limit [rad], lag [s].

    `normal` is C_N per radian of local incidence by Mach, `axial` C_A by Mach; both on the fin's area.
    """

    area: float
    height: float
    radius: float
    limit: float
    lag: float
    normal: Table
    axial: Table


class Rcs(NamedTuple):
    """Cold-gas thrusters in pairs: thrust for one axis [N], mounting height and radius [m], exhaust speed [m/s]."""

    thrust: float
    height: float
    radius: float
    exhaust_speed: float
    propellant: float


class Polar(NamedTuple):
    """Lift and drag coefficients over (incidence [rad], Mach), odd and even in incidence, and where they act [m].

    The centre of pressure moves from `centre_of_pressure`, at small incidence, to `centre_across` at 90 degrees.
    """

    lift: Grid
    drag: Grid
    centre_of_pressure: float
    centre_across: float


class Aerodynamics(NamedTuple):
    """Aerodynamics nose first and engines first; `moment_slope` is C_m per rad, `damping` -C_mq on length^2 / (2 V).

    `length` refers pitch, about the body's y axis, and yaw unless `yaw_length` is given; `axial_damping`, -C_lp, is on
    `axial_length` in the same way.
    """

    area: Scalar
    length: float
    nose_first: Polar
    engine_first: Polar
    moment_slope: float
    damping: float
    yaw_length: float | None = None
    axial_damping: float = 0.0
    axial_length: float = 0.0


class StructuralLimits(NamedTuple):
    """Dynamic pressure nose and engine first [Pa], its product with incidence [Pa rad], loads [m/s2], rate [rad/s]."""

    dynamic_pressure_nose_first: float
    dynamic_pressure_engine_first: float
    q_alpha: float
    axial_load: float
    lateral_load: float
    body_rate: float


class Body(NamedTuple):
    """A flying body: one stage, and the stages that it carries as dead weight.

    `transverse_ratio` is the inertia about y over that about x, for bodies that are not round.
    """

    name: str
    length: float
    diameter: float
    dry_mass: float
    dry_centre: float
    dry_transverse: float
    dry_axial: float
    propellant: float
    tanks: tuple[Tank, ...]
    mass_table: MassTable | None
    engines: tuple[EngineGroup, ...]
    gimbal: Gimbal
    fins: Fins | None
    rcs: Rcs | None
    aerodynamics: Aerodynamics
    limits: StructuralLimits
    cargo_mass: float = 0.0
    cargo_centre: float = 0.0
    cargo_transverse: float = 0.0
    cargo_axial: float = 0.0
    transverse_ratio: float = 1.0


class MassProperties(NamedTuple):
    """Mass [kg], centre of mass from the base along the axis [m], inertia about it by axis [kg m2]."""

    mass: Scalar
    centre: Scalar
    inertia: Vector


def mass_properties(
    body: Body, dry_mass_factor: Scalar, propellant: Scalar, rcs_propellant: Scalar = 0.0
) -> MassProperties:
    """Return mass, centre of mass and inertia with `propellant` left [kg]; the liquid is treated as a solid."""
    left = jnp.maximum(propellant, 0.0)
    dry = body.dry_mass * dry_mass_factor + rcs_propellant
    if body.mass_table is not None:
        table = body.mass_table
        transverse = lookup(table.transverse, left)
        return MassProperties(
            dry + left + body.cargo_mass,
            lookup(table.centre, left),
            Vector(transverse, transverse * body.transverse_ratio, lookup(table.axial, left)),
        )
    # (mass, centre, transverse inertia about own centre, axial inertia) of each part
    parts: list[tuple[Scalar, Scalar, Scalar, Scalar]] = [
        (dry, body.dry_centre, body.dry_transverse * dry_mass_factor, body.dry_axial * dry_mass_factor)
    ]
    if body.cargo_mass:
        parts.append((body.cargo_mass, body.cargo_centre, body.cargo_transverse, body.cargo_axial))
    for tank in body.tanks:
        mass = left * tank.share
        height = mass * (1.0 / (tank.density * 3.141592653589793 * tank.radius**2))
        square = tank.radius**2
        parts.append(
            (mass, tank.bottom + 0.5 * height, mass * (3.0 * square + height * height) / 12.0, 0.5 * mass * square)
        )
    mass = sum(part[0] for part in parts)
    centre = sum(part[0] * part[1] for part in parts) / mass
    transverse = sum(part[2] + part[0] * (part[1] - centre) ** 2 for part in parts)
    axial = sum(part[3] for part in parts)
    return MassProperties(mass, centre, Vector(transverse, transverse * body.transverse_ratio, axial))
