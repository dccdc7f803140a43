"""Trajectories and their events as tables, CSV or Parquet, with the units of the columns.

Shapes: N rows, one for each instant of each phase of each flight.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from mission.flight.tables import table_bytes
from mission.missionfile.hooks import TrajectoryFormat
from mission.report.trajectories.record import Trajectory

# endings of the names of channels, longer ones first; a name without one of them has no unit
_UNITS = {
    "_m_s2": "m/s2", "_m_s": "m/s", "_deg_s": "deg/s", "_rad_s": "rad/s", "_kg_s": "kg/s", "_pa_deg": "Pa deg",
    "_n_m": "N m", "_percent": "%", "_deg": "deg", "_rad": "rad", "_kg": "kg", "_km": "km", "_pa": "Pa", "_n": "N",
    "_m": "m", "_s": "s",
}  # fmt: skip
_CLOCK = "mission_time_s"


def unit_of(channel: str) -> str:
    """Return the unit with which the name of a channel ends; "-" if it has none."""
    return next((unit for ending, unit in _UNITS.items() if channel.endswith(ending)), "-")


def trajectory_columns(trajectories: Sequence[Trajectory]) -> dict[str, np.ndarray]:
    """Return flights as columns [N]; a channel that a phase does not have is NaN in its rows."""
    phases = [(flight, phase) for flight in trajectories for phase in flight.phases]
    sizes = [len(phase.time_s) for _, phase in phases]
    columns = {
        "flight": np.repeat([flight.number for flight, _ in phases], sizes),
        "phase": np.repeat([phase.name for _, phase in phases], sizes),
        "step": np.concatenate([np.arange(size) for size in sizes]),
        _CLOCK: np.concatenate([phase.time_s for _, phase in phases]),
    }
    for name in dict.fromkeys(name for _, phase in phases for name in phase.channels):
        parts = [
            phase.channels.get(name, np.full(size, np.nan, np.float32))
            for (_, phase), size in zip(phases, sizes, strict=True)
        ]
        columns[f"channel.{name}" if name in columns else name] = np.concatenate(parts)
    return columns


def event_columns(trajectories: Sequence[Trajectory]) -> dict[str, np.ndarray]:
    """Return the events of flights as columns."""
    rows = [(flight.number, event) for flight in trajectories for event in flight.events()]
    return {
        "flight": np.array([number for number, _ in rows], int),
        _CLOCK: np.array([event.time_s for _, event in rows], float),
        "phase": np.array([event.phase for _, event in rows], str),
        "event": np.array([event.name for _, event in rows], str),
    }


def _files(suffix: str, trajectories: Sequence[Trajectory], options: Any) -> dict[str, bytes]:
    columns, events = trajectory_columns(trajectories), event_columns(trajectories)
    units = {name: unit_of(name) for name in columns}
    where = f"--format {suffix[1:]}"
    files = {f"trajectories{suffix}": table_bytes(columns, suffix, where, units)}
    files[f"events{suffix}"] = table_bytes(events, suffix, where, {_CLOCK: "s"})
    if suffix == ".csv":  # which has no place for units
        names = {"column": np.array(list(units)), "unit": np.array(list(units.values()))}
        files["units.csv"] = table_bytes(names, suffix, where)
    return files


TABLES = {suffix[1:]: TrajectoryFormat(partial(_files, suffix)) for suffix in (".csv", ".parquet")}
