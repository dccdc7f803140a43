"""Vehicle files: the default one, one of a user's own, and wrong ones, refused with the place and the reason."""

from __future__ import annotations

import copy
import itertools
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import mission_rocket
import numpy as np
import pytest
from mission_rocket.booster import FlightParams
from mission_rocket.dispersions import Dispersions
from mission_rocket.physics.vehicle import mass_properties
from mission_rocket.vehicles import Vehicle, VehicleModel, build_body, load_vehicle
from pydantic import BaseModel, ConfigDict, ValidationError
from ruamel.yaml import YAML

from mission import MissionError, load_mission, resolve_mission

FILE = Path(mission_rocket.__file__).parent / "data" / "falcon9_class.yaml"
ROOT = Path(__file__).parents[4]
EXAMPLE = ROOT / "missions" / "vehicles" / "small_booster.yaml"
CONTENT = YAML(typ="safe", pure=True).load(FILE.read_text(encoding="utf-8"))


def test_the_default_vehicle(within) -> None:
    stack, booster = (
        build_body(load_vehicle("falcon9_class")),
        build_body(load_vehicle("falcon9_class"), carrying=False),
    )
    full = mass_properties(stack, 1.0, stack.propellant)
    within("lift-off mass kg", float(full.mass) - 549_054.0, 1.0)
    empty = mass_properties(booster, 1.0, 0.0)
    within("transverse inertia, relative", float(empty.inertia.x) / 3.8e6 - 1.0, 0.01)
    within("axial inertia, relative", float(empty.inertia.z) / 4.4e4 - 1.0, 0.01)
    assert 13.0 < float(mass_properties(booster, 1.0, 10e3).centre) < 20.0
    assert float(full.centre) > float(mass_properties(booster, 1.0, booster.propellant).centre)
    assert float(full.inertia.x) > 10.0 * float(empty.inertia.x)


def test_tanks_move_centre_and_inertia_like_their_slices(within) -> None:
    """Against a sum over thin discs of the liquid."""
    body = build_body(load_vehicle("falcon9_class"), carrying=False)
    left = 120e3
    parts = [(body.dry_mass, body.dry_centre, body.dry_transverse)]
    for tank in body.tanks:
        mass = left * tank.share
        height = mass / (tank.density * math.pi * tank.radius**2)
        middles = tank.bottom + height * (np.arange(1000) + 0.5) / 1000
        parts += [(mass / 1000, middle, mass / 1000 * tank.radius**2 / 4.0) for middle in middles]
    total = sum(mass for mass, *_ in parts)
    centre = sum(mass * place for mass, place, _ in parts) / total
    transverse = sum(own + mass * (place - centre) ** 2 for mass, place, own in parts)
    found = mass_properties(body, 1.0, left)
    within("centre m", float(found.centre) - centre, 1e-4)
    within("inertia, relative", float(found.inertia.x) / transverse - 1.0, 1e-5)


def edited(edit: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    content = copy.deepcopy(CONTENT)
    edit(content)
    return content


def put(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """An edit: `stages.0.tanks.1.share`."""

    def edit(content: Any) -> None:
        *way, name = [int(part) if part.isdigit() else part for part in path.split(".")]
        for part in way:
            content = content[part]
        if value is None:
            del content[name]
        else:
            content[name] = value

    return edit


POLAR = "stages.0.aerodynamics.nose_first"
WRONG = {
    "negative mass": (put("stages.0.dry_mass_kg", -1.0), "stages.0.dry_mass_kg", "greater than 0"),
    "mass that is text": (put("stages.0.dry_mass_kg", "25600"), "stages.0.dry_mass_kg", "valid number"),
    "no lag": (put("stages.0.gimbal.lag_s", 0.0), "gimbal.lag_s", "greater than or equal to 0.001"),
    "infinite thrust": (put("stages.0.engines.0.thrust_vacuum_n", math.inf), "thrust_vacuum_n", "finite number"),
    "Mach not increasing": (
        put(f"{POLAR}.lift_mach.3", 0.5),
        POLAR,
        "lift_mach must increase, but entry 3 is 0.5 after 0.8",
    ),
    "fin table not increasing": (put("stages.0.fins.normal_mach.2", 0.1), "stages.0.fins", "normal_mach must increase"),
    "incidence not from 0": (put(f"{POLAR}.incidence_deg.0", -1.0), POLAR, "incidence_deg must begin at 0"),
    "lift at no incidence": (put(f"{POLAR}.lift.0.0", 0.1), POLAR, "lift must be 0 at incidence 0"),
    "negative drag": (put(f"{POLAR}.drag.0.0", -0.1), POLAR, "drag must not be negative"),
    "row too short": (put(f"{POLAR}.drag.2", [0.1, 0.2]), POLAR, "drag row 2 has 2 entries, but drag_mach has 12"),
    "dry above lift-off": (put("lift_off_mass_kg", 1000.0), "", "dry mass 153354 kg is above lift_off_mass_kg 1000"),
    "masses that do not add up": (
        put("lift_off_mass_kg", 600e3),
        "",
        "weigh 549054 kg, but lift_off_mass_kg is 600000",
    ),
    "centre of pressure outside": (
        put(f"{POLAR}.centre_of_pressure_m", 43.0),
        "stages.0",
        "nose_first.centre_of_pressure_m 43 lies outside the body (0 to 42 m)",
    ),
    "centre of pressure across outside": (
        put(f"{POLAR}.centre_of_pressure_across_m", -0.5),
        "stages.0",
        "nose_first.centre_of_pressure_across_m -0.5 lies outside the body (0 to 42 m)",
    ),
    "missing table": (put(f"{POLAR}.lift", None), f"{POLAR}.lift", "Field required"),
    "missing aerodynamics": (put("stages.0.aerodynamics", None), "stages.0", "so it needs aerodynamics"),
    "no tanks": (put("stages.0.tanks", None), "stages.0", "needs either tanks or mass_table"),
    "tank too tall": (put("stages.0.tanks.1.bottom_m", 30.0), "stages.0", "above the stage's length"),
    "shares": (put("stages.0.tanks.1.share", 0.5), "stages.0", "must add up to 1, not 0.8"),
    "dry centre above the nose": (put("stages.0.dry_centre_of_mass_m", 50.0), "stages.0", "is above the nose"),
    "fins beyond the nose": (put("stages.0.fins.height_m", 50.0), "stages.0", "fins.height_m 50 is above the nose"),
    "unknown key": (put("stages.0.colour", "white"), "stages.0.colour", "Extra inputs"),
    "no engines": (put("stages.0.engines", []), "", "has no engines"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_vehicles_are_refused(name: str) -> None:
    edit, field, reason = WRONG[name]
    with pytest.raises(ValidationError) as refused:
        VehicleModel.model_validate(edited(edit))
    (error,) = refused.value.errors()[:1]
    assert ".".join(str(part) for part in error["loc"]).endswith(field)
    assert reason in error["msg"]


class Params(BaseModel):
    """As a phase declares it."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    vehicle: Vehicle


def test_a_file_of_one_s_own(tmp_path: Path) -> None:
    """Relative to the mission file; its content, not its name, is the parameter, hence in the digest."""
    text = FILE.read_text(encoding="utf-8").replace("dry_mass_kg: 25600.0", "dry_mass_kg: 22200.0")
    text = text.replace("lift_off_mass_kg: 549054.0", "lift_off_mass_kg: 545654.0")
    (tmp_path / "light.yaml").write_text(text, encoding="utf-8")
    params = Params.model_validate({"vehicle": "./light.yaml"}, context={"folder": str(tmp_path)})
    assert params.vehicle.stages[0].dry_mass_kg == 22200.0
    assert params.model_dump(mode="json")["vehicle"]["stages"][0]["dry_mass_kg"] == 22200.0
    again = Params.model_validate_json(params.model_dump_json())
    assert again == params


NESTED = "a: &a [x, x]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}]\n" for a, b in itertools.pairwise("abcdefghijklmnop")
)


@pytest.mark.parametrize(
    ("text", "where", "part"),
    [
        (None, "mine.yaml", "no such file"),
        ("stages: [", "mine.yaml:1:10", "YAML 1.2"),
        ("x" * ((1 << 16) + 1), "mine.yaml", "at most 65,536 bytes"),
        (NESTED, "mine.yaml:1:4", "no anchors or aliases"),
        (
            FILE.read_text(encoding="utf-8").replace("dry_mass_kg: 25600.0", "dry_mass_kg: -1.0"),
            "mine.yaml:11:5: stages[0].dry_mass_kg",
            "greater than 0",
        ),
        (
            FILE.read_text(encoding="utf-8").replace("lag_s: 0.25,", "lag_s: 0.0001,"),
            "mine.yaml:44:30: stages[0].gimbal.lag_s",
            "0.001",
        ),
    ],
)
def test_files_that_are_refused(tmp_path: Path, text: str | None, where: str, part: str) -> None:
    """By the reader of mission files, with the position in the vehicle file."""
    if text is not None:
        (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(MissionError) as refused:
        load_vehicle("./mine.yaml", tmp_path)
    assert where in refused.value.where
    assert part in str(refused.value)
    assert refused.value.exit_code == 2


def test_files_that_never_end_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    for name in ("./pipe.yaml", "/dev/zero", "."):
        with pytest.raises(MissionError, match=r"regular file|a folder"):
            load_vehicle(name, tmp_path)


def test_the_reader_gives_the_values_of_the_file() -> None:
    assert VehicleModel.model_validate(CONTENT) == load_vehicle("falcon9_class")


@pytest.mark.parametrize("engine", [-1, 0, 8])
def test_engines_that_can_be_out(engine: int) -> None:
    assert FlightParams(dispersions=Dispersions(engine_out=engine)).dispersions.engine_out == engine


def test_an_engine_that_does_not_exist_is_refused_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "mission.yaml").write_text(
        "name: trial\nparams:\n  dispersions: {engine_out: 9}\nphases:\n  - {name: up, plugin: ascent}\n",
        encoding="utf-8",
    )
    with pytest.raises(MissionError) as refused:
        resolve_mission(load_mission(tmp_path / "mission.yaml"))
    assert refused.value.where == "mission.yaml:3:17: params.dispersions.engine_out"
    assert "from 0 to 8" in refused.value.expected
    assert refused.value.found == "9"


def test_braking_from_too_low_names_the_parameter(tmp_path: Path) -> None:
    """It used to reach the guide of the entry burn, whose error pydantic printed."""
    (tmp_path / "mission.yaml").write_text(
        "name: trial\nphases:\n  - {name: land, plugin: brake_then_land, params: {start_altitude_m: 18000.0}}\n",
        encoding="utf-8",
    )
    with pytest.raises(MissionError) as refused:
        resolve_mission(load_mission(tmp_path / "mission.yaml"))
    assert "params.start_altitude_m" in refused.value.where
    assert "greater than 20000" in refused.value.expected


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValidationError, match="known: falcon9_class, nasa_two_stage"):
        load_vehicle("saturn")


def test_the_schema_is_current_and_describes_the_files() -> None:
    stored = json.loads((ROOT / "docs" / "vehicle.schema.json").read_text(encoding="utf-8"))
    assert stored == mission_rocket.vehicle_schema(), "run `make docs`"
    for path in (FILE, FILE.with_name("nasa_two_stage.yaml"), EXAMPLE):
        jsonschema.validate(YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8")), stored)
    with pytest.raises(jsonschema.ValidationError, match="colour"):
        jsonschema.validate(edited(put("stages.0.colour", "white")), stored)


def test_the_example_is_lighter_and_names_its_schema() -> None:
    mass = [
        float(mass_properties(build_body(vehicle, carrying=False), 1.0, 0.0).mass)
        for vehicle in (load_vehicle(f"./{EXAMPLE.name}", EXAMPLE.parent), load_vehicle("falcon9_class"))
    ]
    assert mass[0] < 0.4 * mass[1]
    first = EXAMPLE.read_text(encoding="utf-8").splitlines()[0]
    assert (EXAMPLE.parent / first.partition("schema=")[2]).resolve() == ROOT / "docs" / "vehicle.schema.json"


@pytest.mark.parametrize("radius", ["1e+200", "1e-200"])
def test_numbers_whose_product_overflows_are_refused_in_their_file(tmp_path: Path, radius: str) -> None:
    text = EXAMPLE.read_text(encoding="utf-8").replace(
        "radius_m: 1.26, density_kg_m3", f"radius_m: {radius}, density_kg_m3"
    )
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(MissionError, match=r"mine\.yaml") as caught:
        load_vehicle("./mine.yaml", tmp_path)
    assert "numbers from which" in caught.value.expected
