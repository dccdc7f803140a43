"""Winds by altitude: tables in a mission file, soundings in files beside it, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from mission_rocket.booster import FlightParams
from mission_rocket.guides.prediction import carried_wind, wind_at
from mission_rocket.physics.gravity import Site
from mission_rocket.physics.vector import Vector
from mission_rocket.physics.wind import calm, steady_wind
from mission_rocket.winds import WindTable, read_sounding
from pydantic import ValidationError

from mission import MissionError

TABLE = {"altitude_m": [0.0, 1000.0, 9000.0], "east_m_s": [2.0, 5.0, 30.0], "north_m_s": [0.0, -3.0, 10.0]}
LIST = """72210 TBW Tampa Bay Area Observations at 12Z

-----------------------------------------------------------------------------
   PRES   HGHT   TEMP   DWPT   RELH   MIXR   DRCT   SKNT   THTA   THTE   THTV
    hPa     m      C      C      %    g/kg    deg   knot     K      K      K
-----------------------------------------------------------------------------
 1016.0     13   24.4   22.1     87  16.74     90      4  296.2  344.6  299.1
 1000.0    152   24.6   21.3     82  16.18
  925.0    830   20.2   18.4     89  14.60    180     10  299.7  342.7  302.3
  700.0   3159                                270     20  310.0  340.0  312.0

Station information and sounding indices
"""


def blown(table: WindTable, height: float, azimuth: float = 0.5 * math.pi) -> np.ndarray:
    return np.array(steady_wind(calm(), jnp.float32(height), table.profile(azimuth)))


def test_a_table_is_linear_between_its_levels_and_constant_outside(within) -> None:
    table = WindTable.model_validate(TABLE)
    for height, east, north in ((-50.0, 2.0, 0.0), (500.0, 3.5, -1.5), (5000.0, 17.5, 3.5), (20e3, 30.0, 10.0)):
        within("wind m/s", blown(table, height) - (east, north, 0.0), 1e-5)
        within("in a frame along north", blown(table, height, 0.0) - (north, -east, 0.0), 1e-5)


def test_direction_is_the_one_from_which_the_wind_blows(within) -> None:
    table = WindTable(altitude_m=(0.0, 1.0), speed_m_s=(10.0, 10.0), direction_deg=(270.0, 180.0))
    within("a wind from the west", blown(table, 0.0) - (10.0, 0.0, 0.0), 1e-5)
    within("a wind from the south", blown(table, 1.0) - (0.0, 10.0, 0.0), 1e-5)


def test_a_uniform_wind_is_added(within) -> None:
    wind = calm()._replace(uniform=jnp.float32(7.0), along_x=jnp.float32(0.0), along_y=jnp.float32(1.0))
    profile = WindTable.model_validate(TABLE).profile(0.5 * math.pi)
    within("wind m/s", np.array(steady_wind(wind, jnp.float32(0.0), profile)) - (2.0, 7.0, 0.0), 1e-6)


def test_a_list_of_the_university_of_wyoming(tmp_path: Path, within) -> None:
    (tmp_path / "tampa.txt").write_text(LIST, encoding="utf-8")
    table = read_sounding(tmp_path / "tampa.txt")
    knot = 1852.0 / 3600.0
    assert table.altitude_m == (13.0, 830.0, 3159.0)
    within("east m/s", np.array(table.east_m_s) - (-4.0 * knot, 0.0, 20.0 * knot), 1e-9)
    within("north m/s", np.array(table.north_m_s) - (0.0, 10.0 * knot, 0.0), 1e-9)


def test_files_give_the_same_site_as_a_table(tmp_path: Path) -> None:
    rows = zip(*TABLE.values(), strict=True)
    (tmp_path / "day.csv").write_text(
        f"# a test\n{','.join(TABLE)}\n" + "".join(",".join(map(str, row)) + "\n" for row in rows), encoding="utf-8"
    )
    (tmp_path / "day.yaml").write_text("".join(f"{name}: {row}\n" for name, row in TABLE.items()), encoding="utf-8")
    sites = [
        FlightParams.model_validate({"wind": wind}, context={"folder": tmp_path}).site()
        for wind in (TABLE, "day.csv", "./day.yaml")
    ]
    assert sites[0].winds is not None
    assert sites[0] == sites[1] == sites[2]
    assert FlightParams().site() == Site(azimuth=math.radians(90.0), latitude=math.radians(28.4858))


def test_many_levels_are_thinned_where_it_matters_least(tmp_path: Path, within) -> None:
    height = np.arange(0.0, 20_000.0, 10.0)
    speed = 20.0 + 15.0 * np.sin(height / 4000.0)
    lines = [f"{h} {v:.4f} 0" for h, v in zip(height, speed, strict=True)]
    (tmp_path / "fine.txt").write_text("altitude_m east_m_s north_m_s\n" + "\n".join(lines), encoding="utf-8")
    table = read_sounding(tmp_path / "fine.txt")
    assert len(table.altitude_m) == 64
    within("east m/s", np.interp(height, table.altitude_m, table.east_m_s or ()) - speed, 0.1)


@pytest.mark.parametrize(
    ("text", "where", "part"),
    [
        (LIST.replace("    180     10", "   18O     10 "), "day.txt:9", "925.0"),
        ("height wind\n0 1\n", "day.txt", "no such line"),
        ("altitude_m,east_m_s,north_m_s\n0,1,2\n500,calm,2\n", "day.txt:3", "500,calm,2"),
        ("altitude_m,east_m_s,north_m_s\n0,1,2\n500,2\n", "day.txt:3", "500,2"),
        ("altitude_m,east_m_s,north_m_s\n0,1,2\n", "day.txt", "at least two levels"),
        ("altitude_m,east_m_s\n0,1\n500,2\n", "day.txt", "needs altitude_m with east_m_s and north_m_s"),
        ("altitude_m,east_m_s,north_m_s\n0,nan,2\n500,2,2\n", "day.txt", "finite"),
        ("altitude_m,east_m_s,north_m_s\n0,500,2\n500,2,2\n", "day.txt", "units"),
        ("x" * ((1 << 18) + 1), "day.txt", "at most"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, text: str, where: str, part: str) -> None:
    (tmp_path / "day.txt").write_text(text, encoding="utf-8")
    with pytest.raises(MissionError) as refused:
        read_sounding(tmp_path / "day.txt")
    assert where in refused.value.where
    assert part in str(refused.value)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"north_m_s": None}, "needs altitude_m with"),
        ({"speed_m_s": [1.0, 1.0, 1.0]}, "needs altitude_m with"),
        ({"altitude_m": [0.0, 1000.0, 1000.0]}, "must increase"),
        ({"east_m_s": [1.0, 2.0]}, "2 entries"),
        ({"east_m_s": [1.0, 2.0, 300.0]}, "units"),
    ],
)
def test_tables_that_are_refused(change: dict[str, Any], part: str) -> None:
    with pytest.raises(ValidationError, match=part):
        FlightParams.model_validate({"wind": TABLE | change})


def test_guides_expect_the_profile_and_carry_what_differs_from_it(within) -> None:
    table = WindTable.model_validate(TABLE)
    site = Site(winds=table.profile(0.5 * math.pi))
    measured, height = Vector(jnp.float32(20.0), jnp.float32(1.0), jnp.float32(0.0)), jnp.float32(5000.0)
    carried = carried_wind(site, measured, height)
    within("at the vehicle", np.array(wind_at(site, carried, height)) - np.array(measured), 1e-5)
    within("lower", np.array(wind_at(site, carried, jnp.float32(1000.0))) - (5.0 + 2.5, -3.0 - 2.5, 0.0), 1e-5)


@pytest.mark.parametrize("low", [0.0, 300.0, 1000.0, 9000.0, 30e3])
def test_guides_expect_the_wind_of_the_envelope(within, low: float) -> None:
    """On a day of the 75th percentile, the wind measured at 13 km gives that at every other altitude."""
    day = calm()._replace(percentile=jnp.float32(75.0))
    height, elsewhere = jnp.float32(13e3), jnp.float32(low)
    expected = wind_at(Site(), carried_wind(Site(), steady_wind(day, height), height), elsewhere)
    within("m/s", float(expected.x) - float(steady_wind(day, elsewhere).x), 1e-4)
