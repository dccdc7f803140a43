"""Tables of starts: one row per flight, and one column for each number of the hand-over to the first phase.

Shapes: M rows of a table, N flights.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mission.errors import InputError
from mission.flight.tables import read_table
from mission.machine.trees import is_key
from mission.storage.steps import content_hash

_TRUTH = {"true": 1.0, "false": 0.0}


@dataclasses.dataclass(frozen=True, eq=False)
class Starts:
    """The hand-overs with which flights 0 to M - 1 enter the first phase, on the host; `path` is the table they are from."""

    path: Path
    rows: Any  # leaves [M, ...]
    count: int

    @property
    def sha256(self) -> str:
        """The SHA-256 of the numbers."""
        return content_hash(jax.tree.leaves(self.rows))


class _Column(NamedTuple):
    leaf: int  # among the leaves of a hand-over
    entry: int  # of the leaf, flattened


def start_columns(accepts: Any) -> dict[str, _Column]:
    """Return the columns of a table of starts: a name such as `state.position[0]` -> where it is in a hand-over.

    Typed random keys have no columns.
    """
    columns: dict[str, _Column] = {}
    for at, (path, leaf) in enumerate(jax.tree_util.tree_flatten_with_path(accepts)[0]):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            continue
        name = jax.tree_util.keystr(path).lstrip(".") or "start"
        for entry in range(math.prod(leaf.shape)):
            place = ",".join(map(str, np.unravel_index(entry, leaf.shape)))
            columns[f"{name}[{place}]" if leaf.shape else name] = _Column(at, entry)
    return columns


def starts_table(accepts: Any, rows: Any) -> dict[str, np.ndarray]:
    """Return hand-overs [N, ...] as the columns of a table of starts."""
    leaves = jax.tree.leaves(rows)
    flat = [leaf if is_key(leaf) else np.reshape(leaf, (len(leaf), -1)) for leaf in leaves]
    return {name: flat[at][:, entry] for name, (at, entry) in start_columns(accepts).items()}


def read_starts(path: Path, accepts: Any, nominal: Callable[[int], Any], where: str = "--starts") -> Starts:
    """Read a table of starts.

    Args:
      path: a CSV or Parquet file.
      accepts: shapes and dtypes of the hand-over that the first phase receives.
      nominal: number of flights M -> the mission's own hand-overs [M, ...], for the columns that the table does not have.
      where: what names the table, for messages.

    Raises:
      InputError: no table, an unknown column, or a value that is missing, no finite number, or out of range.
    """
    table, columns = read_table(path, where), start_columns(accepts)
    unknown = [name for name in table if name not in columns]
    if unknown:
        raise InputError(
            f"{where} {path}",
            expected=f"columns of the start of the first phase: {', '.join(columns)}",
            found=f'the column "{unknown[0]}"',
            remedy="rename or remove it; `mission starts FILE -o TABLE` writes a table with every column",
        )
    count = len(next(iter(table.values()), ()))
    if not count:
        found = "no row" if table else "no column"
        raise InputError(f"{where} {path}", expected="at least one flight", found=found, remedy="add a row")
    leaves, tree = jax.tree.flatten(nominal(count))
    leaves = [leaf if is_key(leaf) else np.array(leaf) for leaf in leaves]
    for name, values in table.items():
        at, entry = columns[name]
        leaves[at].reshape(count, -1)[:, entry] = _numbers(path, name, values, leaves[at].dtype, where)
    return Starts(path, jax.tree.unflatten(tree, leaves), count)


def _numbers(path: Path, name: str, values: np.ndarray, dtype: np.dtype, where: str) -> np.ndarray:
    """Return a column as numbers of a type, or raise an error that names the invalid row."""
    found = np.zeros(len(values), dtype)
    for row, value in enumerate(values):
        try:
            text = value.strip().lower() if isinstance(value, str) else value
            number = float(_TRUTH.get(text, text))
            with np.errstate(over="ignore"):
                found[row] = number
            exact = np.issubdtype(dtype, np.floating) or float(found[row]) == number
            good = math.isfinite(number) and np.isfinite(found[row]) and exact
        except (TypeError, ValueError, OverflowError):
            good = False
        if not good:
            kind = (
                "a finite number"
                if np.issubdtype(dtype, np.floating)
                else "0 or 1"
                if np.issubdtype(dtype, np.bool_)
                else f"{dtype}"
            )
            raise InputError(
                f'{where} {path}: row {row}, column "{name}"',
                expected=kind,
                found="nothing" if value is None or value == "" else str(value),
                remedy="correct the value, or remove the column: the mission then draws it for every flight",
            )
    return found
