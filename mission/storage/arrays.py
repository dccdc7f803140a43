"""A record and arrays in one `.npz` file, sealed by their hash and written at once."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mission.errors import FormatError, MachineError, exception_text, machine_errors
from mission.storage.records import Record, read_record
from mission.storage.steps import content_hash

R = TypeVar("R", bound=Record)
_SEAL = "sha256"  # the array that holds the hash of the others


def write_arrays(path: Path, what: str, record: Record, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a record with its arrays, atomically.

    Raises:
      MachineError: disk full or no permission; the previous file is kept. `what` names the content.
    """
    content: dict[str, Any] = {"record": np.array(record.model_dump_json()), **arrays}
    content[_SEAL] = np.array(content_hash(content))
    packed = io.BytesIO()
    np.savez_compressed(packed, **content)
    temporary = path.parent / f".tmp-{path.name}"
    with machine_errors(path, f"{what} to be written", "free disk space or correct the permissions"):
        with temporary.open("wb") as stream:
            stream.write(packed.getvalue())
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)


def read_arrays(path: Path, what: str, model: type[R], remedy: str) -> tuple[R, dict[str, np.ndarray]] | None:
    """Return the record and the arrays of a file; None if there is none.

    Raises:
      FormatError: it has a format that this version does not read.
      MachineError: it is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = dict(stored)
        sealed = str(arrays.pop(_SEAL, ""))
        record = read_record(model, str(arrays["record"]), str(path))  # another format has its own hash
        if sealed and sealed != content_hash(arrays):
            raise ValueError("its hash does not fit")
    except FileNotFoundError:
        return None
    except FormatError:
        raise
    except Exception as error:  # numpy and zipfile raise many kinds for a file that is damaged
        raise MachineError(
            str(path), expected=f"a readable {what}", found=exception_text(error), remedy=remedy
        ) from None
    arrays.pop("record")
    return record, arrays
