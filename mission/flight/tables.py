"""Tables in files: CSV, and Parquet with the extra `data`. The suffix of a file says which of the two it is."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mission.errors import InputError, machine_errors
from mission.machine.extras import import_extra

SUFFIXES = (".csv", ".parquet")


def check_suffix(path: Path, where: str) -> None:
    """Reject a file that is neither CSV nor Parquet."""
    if path.suffix not in SUFFIXES:
        raise InputError(
            f"{where} {path}",
            expected="a file that ends in .csv or .parquet",
            found=path.suffix or "no suffix",
            remedy="rename it",
        )


def read_table(path: Path, where: str) -> dict[str, np.ndarray]:
    """Return the columns [N] of a table; those of a CSV file hold strings.

    Raises:
      InputError: no such file, no table, a column twice, or a row of another length.
      MachineError: the package that reads Parquet is not installed.
    """
    check_suffix(path, where)
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no regular file" if path.exists() else "no such file"
        raise InputError(f"{where} {path}", expected="a file", found=found, remedy="correct the path")
    if path.suffix == ".parquet":
        return _read_parquet(path, where)
    with machine_errors(path, "a file to read", "choose another file"):
        try:
            rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline="")))
        except (UnicodeDecodeError, csv.Error) as error:
            raise _not_a_table(path, where, str(error)) from None
    head, *body = [row for row in rows if row] or [[]]
    for number, row in enumerate(body):
        if len(row) != len(head):
            raise _not_a_table(path, where, f"{len(row)} values in row {number}, {len(head)} columns")
    if len(set(head)) < len(head):
        twice = next(name for name in head if head.count(name) > 1)
        raise _not_a_table(path, where, f'the column "{twice}" twice')
    return {name: np.array([row[at] for row in body], object) for at, name in enumerate(head)}


def _not_a_table(path: Path, where: str, found: str) -> InputError:
    expected = "a table: a line of different column names, then one line of values for each row"
    return InputError(f"{where} {path}", expected=expected, found=found, remedy="correct the file")


def _read_parquet(path: Path, where: str) -> dict[str, np.ndarray]:
    parquet = import_extra("pyarrow.parquet", "mission-engine[data]", where)
    with machine_errors(path, "a file to read", "choose another file"):
        try:
            table = parquet.ParquetFile(path).read()
        except (ValueError, RuntimeError) as error:  # pyarrow's errors derive from them
            raise _not_a_table(path, where, str(error)) from None
    names = table.column_names
    if len(set(names)) < len(names):
        raise _not_a_table(path, where, "a column twice")
    return {name: np.array(table.column(name).to_pylist(), object) for name in names}


def table_bytes(columns: Mapping[str, np.ndarray], suffix: str, where: str, units: Mapping[str, str] = {}) -> bytes:
    """Return the content of a file with these columns [N].

    Args:
      columns: name -> numbers, truth values or strings.
      suffix: ".csv" or ".parquet".
      where: what needs it, for the message if Parquet cannot be written.
      units: of columns; only Parquet holds them, as the metadata `unit` of a field.

    Raises:
      MachineError: the package that writes Parquet is not installed.
    """
    if suffix == ".parquet":
        pyarrow, parquet = (
            import_extra(name, "mission-engine[data]", where) for name in ("pyarrow", "pyarrow.parquet")
        )
        arrays = [pyarrow.array(values) for values in columns.values()]
        fields = [
            pyarrow.field(name, array.type, metadata={"unit": units[name]} if name in units else None)
            for name, array in zip(columns, arrays, strict=True)
        ]
        stream = io.BytesIO()
        parquet.write_table(pyarrow.table(arrays, schema=pyarrow.schema(fields)), stream)
        return stream.getvalue()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*(map(_written, values) for values in columns.values()), strict=True))
    return text.getvalue().encode()


def _written(value: Any) -> str:
    """Return a value with the fewest digits that reproduce it exactly."""
    if isinstance(value, np.floating):
        shortest = str(value)
        return shortest if type(value)(float(shortest)) == value else repr(float(value))
    return str(int(value)) if isinstance(value, bool | np.bool_) else str(value)
