"""Results as data: columns of equal length, which become Arrow tables, Parquet files, and frames of pandas or polars.

Shapes: R rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from mission.errors import InputError, machine_errors
from mission.machine.extras import import_extra
from mission.missionfile.arguments import given_path
from mission.storage.markup import escape

Library = Literal["pandas", "polars"]
_EXTRA = {
    "pandas": ("pandas", "mission-engine[data]"),
    "polars": ("polars", "polars"),
}
_SHOWN = 8  # rows at each end of a table in a notebook


class Labels(NamedTuple):
    """A column of R names out of a few: `codes` int32 [R] are indices into `names`."""

    codes: np.ndarray
    names: tuple[str, ...]


class Table(Mapping[str, np.ndarray]):
    """Columns of a result by name: `table["success"]` is a numpy array [R], masked where a row has no value.

    Reading the columns needs only numpy. Arrow, Parquet and pandas frames need the extra `data`; polars frames need
    the package polars. A notebook shows the first and the last rows.
    """

    def __init__(self, columns: Mapping[str, np.ndarray | Labels | Sequence[Any]]) -> None:
        """Take columns of equal length; None in a sequence is a missing value."""
        self._columns = {
            name: values if isinstance(values, Labels | np.ndarray) else _array(values)
            for name, values in columns.items()
        }

    def __getitem__(self, name: str) -> np.ndarray:
        column = self._columns[name]
        return np.array(column.names, object)[column.codes] if isinstance(column, Labels) else column

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def __repr__(self) -> str:
        return f"Table of {self.rows:,} rows: {', '.join(self)}"

    @property
    def rows(self) -> int:
        """The number of rows, R."""
        column = next(iter(self._columns.values()), np.empty(0))
        return len(column.codes if isinstance(column, Labels) else column)

    def to_arrow(self) -> Any:
        """Return a `pyarrow.Table`; missing values are null, and columns of few different names are dictionaries.

        Raises:
          MachineError: pyarrow is not installed.
        """
        arrow = import_extra("pyarrow", "mission-engine[data]", "to_arrow")
        return arrow.table({name: _arrow(arrow, column) for name, column in self._columns.items()})

    def to_frame(self, library: Library = "pandas") -> Any:
        """Return a frame.

        Args:
          library: "pandas" or "polars".

        Raises:
          InputError: another library.
          MachineError: it is not installed.
        """
        if library not in _EXTRA:
            raise InputError("to_frame", expected="pandas or polars", found=repr(library), remedy="name one of them")
        package = import_extra(*_EXTRA[library], "to_frame")
        table = self.to_arrow()
        return table.to_pandas() if library == "pandas" else package.from_arrow(table)

    def to_parquet(self, path: str | Path) -> Path:
        """Write a Parquet file, and return its path.

        Raises:
          MachineError: pyarrow is not installed, or the file cannot be written.
        """
        path = given_path(path, "to_parquet")
        parquet = import_extra("pyarrow.parquet", "mission-engine[data]", "to_parquet")
        with machine_errors(path, "a file to write", "choose another path"):
            path.parent.mkdir(parents=True, exist_ok=True)
            parquet.write_table(self.to_arrow(), path)
        return path

    def _repr_html_(self) -> str:
        rows = range(self.rows)
        shown = rows if len(rows) <= 2 * _SHOWN else [*rows[:_SHOWN], *rows[-_SHOWN:]]
        columns = [self[name] for name in self]
        cells = [[_cell(column[row]) for column in columns] for row in shown]
        return html_table(list(self), cells) + f"<p>{self.rows:,} rows</p>"


def html_table(heads: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> str:
    """Return an HTML table of texts, which are escaped."""
    above = f"<caption>{escape(caption)}</caption>" if caption else ""
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    body = "".join(f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in row)}</tr>" for row in rows)
    return f"<table>{above}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _array(values: Sequence[Any]) -> np.ndarray:
    """Return a column; masked where a value is None."""
    missing = [value is None for value in values]
    known = [value for value in values if value is not None]
    dtype = object if not known or isinstance(known[0], str) else np.asarray(known).dtype
    filled = np.array(
        [dtype.type(0) if gone and dtype is not object else value for value, gone in zip(values, missing, strict=True)],
        dtype,
    )
    return np.ma.masked_array(filled, missing) if any(missing) else filled


def _arrow(arrow: Any, column: np.ndarray | Labels) -> Any:
    if isinstance(column, Labels):
        return arrow.DictionaryArray.from_arrays(arrow.array(column.codes), arrow.array(column.names, arrow.string()))
    if isinstance(column, np.ma.MaskedArray):
        return arrow.array(column.data, mask=np.ma.getmaskarray(column))
    return arrow.array(column)


def _cell(value: Any) -> str:
    if value is np.ma.masked or value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float | np.floating) else str(value)
