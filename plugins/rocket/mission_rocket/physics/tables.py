"""Piecewise-linear tables without gathers.

A table is a sum of hinges, f(x) = f0 + sum slope_i clip(x - x_i, 0, x_{i+1} - x_i): a few
multiply-adds that vectorise, while an indexed look-up per vehicle does not. Values are constant outside the table.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

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


def _steps(x: Scalar, knots: Sequence[float]) -> list[Array]:
    """Return the distance covered within each interval, as a fraction of it."""
    return [jnp.clip((x - low) * (1.0 / (high - low)), 0.0, 1.0) for low, high in itertools.pairwise(knots)]


@traced_once(1)
def lookup(table: Table, x: Scalar) -> Array:
    """Interpolate linearly; the end values hold outside."""
    rises = [b - a for a, b in zip(table.y[:-1], table.y[1:], strict=True)]
    return _sum(table.y[0] + 0.0 * x, _steps(x, table.x), rises)


@traced_once(1)
def lookup_grid(grid: Grid, x: Scalar, y: Scalar) -> Array:
    """Interpolate bilinearly; the edge holds outside."""
    along = _steps(x, grid.x)
    columns = list(zip(*grid.values, strict=True))
    by_column = [_sum(column[0] + 0.0 * x, along, [b - a for a, b in itertools.pairwise(column)]) for column in columns]
    result = by_column[0]
    for step, low, high in zip(_steps(y, grid.y), by_column[:-1], by_column[1:], strict=True):
        result = result + step * (high - low)
    return result


def _sum(start: Scalar, steps: list[Array], rises: list[float]) -> Array:
    for step, rise in zip(steps, rises, strict=True):
        if rise != 0.0:
            start = start + step * rise
    return jnp.asarray(start)
