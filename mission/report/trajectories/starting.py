"""Write the starts of a campaign as a table, to edit it and fly it again."""

from __future__ import annotations

from pathlib import Path

import jax

from mission.errors import machine_errors
from mission.flight.batches import batches, concatenate
from mission.flight.chain import check_flights, prepare_chain
from mission.flight.starts import starts_table
from mission.flight.tables import check_suffix, table_bytes
from mission.missionfile.models import MissionFile
from mission.report.folder import write_file


def write_starts(
    mission: MissionFile, path: Path, flights: int, *, seed: int | None = None, allow_local_plugins: bool = False
) -> int:
    """Write the starts of flights 0 to N - 1 of a mission into a CSV or Parquet file, and return the number of columns.

    Raises:
      MissionError: wrong input, no package to write Parquet (2), or a file that cannot be written (3).
    """
    check_flights(flights, None)
    check_suffix(path, "--output")
    chain = prepare_chain(mission, seed=seed, policy="guide", allow_local_plugins=allow_local_plugins)
    rows = jax.tree.map(concatenate, *(chain.starts(numbers) for numbers in batches(flights)))
    table = starts_table(chain.phases[0].accepts, rows)
    content = table_bytes(table, path.suffix, f"--output {path}")
    with machine_errors(path, "a file to write", "choose another --output"):
        write_file(path, content)
    return len(table)
