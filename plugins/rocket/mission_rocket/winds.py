"""Wind by altitude: a table in the mission file, or a file beside it, such as a sounding.

A file ending in `.yaml` has the keys of the table. Any other file is text with a line of column names: either separated
by commas, with the same names, or a sounding as the University of Wyoming lists it (`HGHT`, `DRCT`, `SKNT`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BeforeValidator, Field, ValidationError, ValidationInfo, model_validator

from mission import MissionError, read_text, read_yaml
from mission_rocket.physics.constants import DEGREE
from mission_rocket.physics.tables import Table
from mission_rocket.physics.wind import Profile
from mission_rocket.vehicles import Knots, Strict, as_long, increasing

_MOST_LEVELS = 64  # that a table keeps: each costs a few operations in every evaluation of the forces
_LARGEST_BYTES = 1 << 18
_KNOT_M_S = 1852.0 / 3600.0
_WYOMING = ("HGHT", "DRCT", "SKNT")
_WYOMING_WIDTH = 7
_NAMES = ("altitude_m", "east_m_s", "north_m_s", "speed_m_s", "direction_deg")


class WindTable(Strict):
    """The steady wind by altitude, towards east and north, or by speed and the direction from which it blows."""

    altitude_m: Knots
    east_m_s: Knots | None = None
    north_m_s: Knots | None = None
    speed_m_s: Knots | None = None
    direction_deg: Knots | None = Field(None, description="From which the wind blows, clockwise from north.")

    @model_validator(mode="after")
    def _whole(self) -> WindTable:
        given = [name for name in _NAMES[1:] if getattr(self, name) is not None]
        if given not in (["east_m_s", "north_m_s"], ["speed_m_s", "direction_deg"]):
            raise ValueError(
                "a wind table needs altitude_m with east_m_s and north_m_s, or with speed_m_s and direction_deg, "
                f"not {', '.join(given) or 'altitude_m alone'}"
            )
        increasing("altitude_m", self.altitude_m)
        for name in given:
            as_long(name, getattr(self, name), "altitude_m", self.altitude_m)
        if not max(map(math.hypot, *self.towards())) <= 200.0:
            raise ValueError("a wind of more than 200 m/s: are the units m/s?")
        return self

    def towards(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return the wind towards east and north [m/s]."""
        if self.east_m_s is not None and self.north_m_s is not None:
            return self.east_m_s, self.north_m_s
        return _blowing(self.speed_m_s or (), self.direction_deg or ())

    def profile(self, azimuth: float) -> Profile:
        """Return the wind in the local frame whose x axis has an azimuth clockwise from north [rad]."""
        sine, cosine = math.sin(azimuth), math.cos(azimuth)
        pairs = list(zip(*self.towards(), strict=True))
        along = tuple(sine * east + cosine * north for east, north in pairs)
        left = tuple(sine * north - cosine * east for east, north in pairs)
        return Profile(Table(self.altitude_m, along), Table(self.altitude_m, left))


def _blowing(speeds: Sequence[float], directions: Sequence[float]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the components towards east and north of winds by speed and the direction [deg] from which they blow."""
    pairs = list(zip(speeds, directions, strict=True))
    return tuple(-v * math.sin(d * DEGREE) for v, d in pairs), tuple(-v * math.cos(d * DEGREE) for v, d in pairs)


def _read(value: Any, info: ValidationInfo) -> Any:
    """Replace the path of a wind file by its content; keep a value that already is content."""
    if not isinstance(value, str):
        return value
    path = Path((info.context or {}).get("folder", ".")) / value
    if path.suffix in (".yaml", ".yml"):
        return read_yaml(path, WindTable, "a wind file")
    return read_sounding(path)


Winds = Annotated[WindTable | None, BeforeValidator(_read)]


def read_sounding(path: Path) -> WindTable:
    """Read the levels of a sounding that state a wind, thinned to those that matter most.

    Raises:
      MissionError: names the line.
    """
    lines = read_text(path, "a sounding file", _LARGEST_BYTES).splitlines()
    for number, line in enumerate(lines):
        names = re.split(r"\s*,\s*|\s+", line.strip())
        if set(_WYOMING) <= set(names):
            return _table(path, list(_wyoming(path, names, lines[number + 1 :], number + 2)))
        if "altitude_m" in names:
            return _table(path, list(_columns(path, names, lines[number + 1 :], number + 2)))
    raise MissionError(
        str(path),
        expected=f"a line with the column names altitude_m and others of {', '.join(_NAMES[1:])}; or {' '.join(_WYOMING)}",
        found="no such line",
        remedy="give the columns their names",
    )


def _wyoming(path: Path, names: list[str], lines: list[str], first: int) -> Iterator[dict[str, float]]:
    """Yield the levels of a list of fixed width, up to the first line without a pressure; a level may lack its wind."""
    begun = False
    for number, line in enumerate(lines, first):
        cells = [line[at : at + _WYOMING_WIDTH].strip() for at in range(0, _WYOMING_WIDTH * len(names), _WYOMING_WIDTH)]
        level = dict(zip(names, cells, strict=True))
        if not re.fullmatch(r"[\d.]+", cells[0]):  # units and rules before the levels, remarks after them
            if begun:
                return
            continue
        begun = True
        if all(level[name] for name in _WYOMING):
            try:
                height, direction, knots = (float(level[name]) for name in _WYOMING)
            except ValueError:
                raise _bad_line(path, number, f"columns of {_WYOMING_WIDTH} characters", line) from None
            yield {"altitude_m": height, "direction_deg": direction, "speed_m_s": knots * _KNOT_M_S}


def _columns(path: Path, names: list[str], lines: list[str], first: int) -> Iterator[dict[str, float]]:
    """Yield the levels of a table whose columns are separated by commas or blanks."""
    for number, line in enumerate(lines, first):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            numbers = [float(cell) for cell in re.split(r"\s*,\s*|\s+", line.strip())]
            yield {name: value for name, value in zip(names, numbers, strict=True) if name in _NAMES}
        except ValueError:
            raise _bad_line(path, number, f"{len(names)} numbers ({', '.join(names)})", line) from None


def _bad_line(path: Path, number: int, expected: str, line: str) -> MissionError:
    found = line.strip()[:60]
    return MissionError(f"{path.name}:{number}", expected=expected, found=found, remedy="correct the line")


def _table(path: Path, levels: list[dict[str, float]]) -> WindTable:
    """Return the table of levels in increasing altitude; a level not above the one before it is left out."""
    rising: list[dict[str, float]] = []
    for level in levels:
        if not rising or level["altitude_m"] > rising[-1]["altitude_m"]:
            rising.append(level)
    if len(rising) < 2:
        raise MissionError(
            str(path), expected="at least two levels with a wind", found=str(len(rising)), remedy="add levels"
        )
    columns = {name: tuple(level[name] for level in rising) for name in rising[0]}
    if "speed_m_s" in columns and "direction_deg" in columns:
        columns["east_m_s"], columns["north_m_s"] = _blowing(columns.pop("speed_m_s"), columns.pop("direction_deg"))
    try:
        if {"east_m_s", "north_m_s"} <= columns.keys():
            kept = _kept(np.array([columns[name] for name in ("altitude_m", "east_m_s", "north_m_s")]))
            columns = {name: tuple(column[at] for at in kept) for name, column in columns.items()}
        return WindTable.model_validate(columns)
    except ValidationError as error:
        raise MissionError(
            str(path), expected="a table of winds", found=error.errors()[0]["msg"], remedy="correct the file"
        ) from None


def _kept(rows: np.ndarray) -> list[int]:
    """Return the numbers of the levels to keep: each time, the one that its neighbours replace best goes."""
    kept = list(range(rows.shape[1]))
    while len(kept) > _MOST_LEVELS:
        height, *parts = rows[:, kept]
        share = (height[1:-1] - height[:-2]) / (height[2:] - height[:-2])
        off = [part[1:-1] - part[:-2] - share * (part[2:] - part[:-2]) for part in parts]
        del kept[1 + int(np.argmin(np.hypot(*off)))]
    return kept
