"""The benchmark beside a policy, `benchmark.json`: values that a script measured, for plugins to draw on the page.

The file holds the fields of `Benchmark` and their seal (`mission.storage.stored.seal`), which older files lack.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from mission.errors import MissionError, exception_text, machine_errors
from mission.storage.stored import check_format, read_stored, seal
from mission.strict import StrictModel

FILE = "benchmark.json"
FORMAT = 1
_SEAL = "sha256"
log = logging.getLogger("mission")


class Benchmark(StrictModel):
    """A stored benchmark: one channel, measured over several flights of each pilot.

    `channel` names the measured quantity with its unit, `note` describes the measurement, `command` repeats it;
    `values` holds one value per flight for each pilot ("agent", "guide").
    """

    format: Literal[1] = FORMAT
    channel: str
    note: str
    command: str
    values: dict[str, Annotated[tuple[float, ...], Field(min_length=1)]]


def upgrade(data: dict[str, Any], where: str) -> dict[str, Any]:
    """Return the data of a benchmark in the present format, without the seal.

    Raises:
      FormatError: the format is unknown.
      ValueError: the seal does not fit.
    """
    data = {"format": FORMAT, **data}  # mission 0.1 wrote format 1 without its number
    check_format(data, where, FORMAT, FORMAT, None, "run the benchmark again with --store")
    sealed = data.pop(_SEAL, None)
    if sealed is not None and sealed != seal(data):
        raise ValueError("its hash does not fit")
    return data


def read_benchmark(folder: Path) -> Benchmark | None:
    """Return the benchmark beside a policy; None if there is none, and None with a warning if it cannot be used."""
    path = folder / FILE
    try:
        return read_stored(Benchmark, path.read_text(encoding="utf-8"), str(path), upgrade)
    except (FileNotFoundError, NotADirectoryError):  # the policy may be a file of another framework
        return None
    except MissionError as error:
        log.warning("%s is left out of the report: expected %s, found %s", path, error.expected, error.found)
    except (OSError, ValueError) as error:
        log.warning("%s is left out of the report: %s", path, exception_text(error))
    return None


def write_benchmark(folder: Path, benchmark: Benchmark) -> None:
    """Store a benchmark beside a policy.

    Raises:
      MachineError: the file cannot be written.
    """
    data = benchmark.model_dump(mode="json")
    text = json.dumps(data | {_SEAL: seal(data)}, separators=(",", ":")) + "\n"
    with machine_errors(folder, "a benchmark to be stored", "free disk space or choose another folder"):
        (folder / FILE).write_text(text, encoding="utf-8")
