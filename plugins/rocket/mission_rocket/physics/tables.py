"""Piecewise-linear tables without gathers.

A table is a sum of hinges, f(x) = f0 + sum slope_i clip(x - x_i, 0, x_{i+1} - x_i): a few
multiply-adds that vectorise, while an indexed look-up per vehicle does not. Values are constant outside the table.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from mission_rocket.physics.tracing import traced_once
from mission_rocket.physics.vector import Scalar

Knots = tuple[float, ...]


class Table(NamedTuple):
    """y over x; `x` increases strictly."""

    x: Knots
    y: Knots


class Grid(NamedTuple):
    """Values over (x, y): `values[i][j]` at x[i], y[j]."""

    x: Knots
    y: Knots
    values: tuple[Knots, ...]


def at_x(grid: Grid, x: float) -> Table:
    """Return the values of a grid over y at a fixed x, by linear interpolation."""
    return Table(grid.y, tuple(float(np.interp(x, grid.x, column)) for column in zip(*grid.values, strict=True)))


def _steps(x: Scalar, knots: Sequence[float]) -> list[Array]:
    """Return the distance covered within each interval, as a fraction of it."""
    # not jnp.clip: programs hold thousands of these, and it takes four operations
    zero, one = (lax.full_like(x, value) for value in (0.0, 1.0))
    return [lax.clamp(zero, (x - low) * (1.0 / (high - low)), one) for low, high in itertools.pairwise(knots)]


@traced_once(1)
def lookup(table: Table, x: Scalar) -> Array:
    """Interpolate linearly; the end values hold outside."""
    x = jnp.asarray(x)
    return _sum(lax.full_like(x, table.y[0]), _steps(x, table.x), _rises(table.y))


@traced_once(1)
def lookup_all(tables: tuple[Table, ...], x: Scalar) -> tuple[Array, ...]:
    """Interpolate several tables at the same x; those with the same knots share the work on them."""
    x = jnp.asarray(x)
    steps = {knots: _steps(x, knots) for knots in dict.fromkeys(table.x for table in tables)}
    return tuple(_sum(lax.full_like(x, table.y[0]), steps[table.x], _rises(table.y)) for table in tables)


@traced_once(1)
def lookup_grids(grids: tuple[Grid, ...], x: Scalar, y: Scalar) -> tuple[Array, ...]:
    """Interpolate several grids bilinearly at the same point; the edge holds outside."""
    x, y = jnp.broadcast_arrays(x, y)
    along = {knots: _steps(x, knots) for knots in dict.fromkeys(grid.x for grid in grids)}
    across = {knots: _steps(y, knots) for knots in dict.fromkeys(grid.y for grid in grids)}
    return tuple(_bilinear(grid, x, along[grid.x], across[grid.y]) for grid in grids)


def lookup_grid(grid: Grid, x: Scalar, y: Scalar) -> Array:
    """Interpolate one grid."""
    return lookup_grids((grid,), x, y)[0]


def _bilinear(grid: Grid, x: Array, along: list[Array], across: list[Array]) -> Array:
    columns = list(zip(*grid.values, strict=True))
    result = _sum(lax.full_like(x, columns[0][0]), along, _rises(columns[0]))
    for step, low, high in zip(across, columns[:-1], columns[1:], strict=True):
        change = [b - a for a, b in zip(low, high, strict=True)]
        if any(change):
            result = result + step * _sum(lax.full_like(x, change[0]), along, _rises(change))
    return result


def _rises(values: Sequence[float]) -> list[float]:
    return [b - a for a, b in itertools.pairwise(values)]


def _sum(start: Array, steps: list[Array], rises: list[float]) -> Array:
    for step, rise in zip(steps, rises, strict=True):
        if rise != 0.0:
            start = start + step * rise
    return start
