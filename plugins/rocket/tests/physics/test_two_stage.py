"""NASA's check-case 17: burn, coast, drop, burn as a chain of phases that the engine flies."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from mission_rocket.phases import stage_burn, stage_coast, stage_drop

from mission import MissionError, fly_mission, load_mission
from mission.testing import check_phase

ROOT = Path(__file__).parents[4]
# s: altitude m, eastward and upward speed m/s, pitch deg
TABLE = {
    10: (1829.3, 356.59, 364.41, 43.236),
    20: (7248.4, 868.10, 727.48, 39.631),
    30: (16628.3, 1533.43, 1165.87, 36.820),
    40: (30840.8, 2181.33, 1562.61, 36.001),
    60: (60348.7, 2164.75, 1389.25, None),
    100: (109110.6, 2141.32, 1049.65, 29.170),
    130: (136816.4, 2128.18, 797.73, 24.969),
    150: (153859.6, 2943.34, 989.52, 22.079),
    180: (192760.7, 5419.78, 1685.30, 16.956),
}
BURN_OUT_S, COAST_S = 37.381, 96.79


def fly(tmp_path: Path, phases: list[tuple[str, str, dict[str, Any]]]) -> dict[str, dict[str, float]]:
    """Channels at the end of each phase: the shipped mission with other phases."""
    head = (ROOT / "missions" / "nasa_two_stage.yaml").read_text(encoding="utf-8").partition("phases:\n")[0]
    rows = [f"  - {{name: {name}, plugin: {plugin}, params: {params}}}" for name, plugin, params in phases]
    path = tmp_path / "mission.yaml"
    path.write_text(
        head + "phases:\n" + "\n".join(rows).replace("'", "").replace("True", "true") + "\n", encoding="utf-8"
    )
    report = fly_mission(load_mission(path), checkpoints=tmp_path, flights=2)
    assert report.success.count == 2
    return {phase.name: {name: values.mean for name, values in phase.end.items()} for phase in report.phases}


@pytest.mark.parametrize(
    "cuts",
    [pytest.param((40, 130), id="few cuts"), pytest.param((40, 60, 100, 130), id="all cuts", marks=pytest.mark.slow)],
)
def test_to_130_seconds(within, tmp_path: Path, cuts: tuple[int, ...]) -> None:
    """The first stage's flight, its phases cut at the times of the published table."""
    full = {"at_full_thrust": True}
    begin = {"begin": {"pitch_deg": 55.22}}
    phases = [
        ("t10", "stage_burn", full | begin | {"duration_s": 10.0}),
        ("t20", "stage_burn", full | {"duration_s": 10.0}),
        ("t30", "stage_burn", full | {"duration_s": 10.0}),
        ("burnt_out", "stage_burn", full),
        *(
            (f"t{end}", "stage_coast", {"duration_s": end - begins})
            for begins, end in itertools.pairwise((BURN_OUT_S, *cuts))
        ),
        ("coasted", "stage_coast", {"duration_s": BURN_OUT_S + COAST_S - 130.0}),
        ("dropped", "stage_drop", {}),
    ]
    ends = fly(tmp_path, phases)
    for seconds in (10, 20, 30, *cuts):
        height, east, climb, pitch = TABLE[seconds]
        found = ends[f"t{seconds}"]
        within(f"altitude at {seconds} s, relative", found["altitude_m"] / height - 1.0, 0.005)
        within(f"speed at {seconds} s, relative", found["speed_m_s"] / math.hypot(east, climb) - 1.0, 0.005)
        if seconds <= 40:
            within(f"pitch at {seconds} s, deg", found["pitch_deg"] - pitch, 0.3)
    within("burn-out s", ends["burnt_out"]["time_s"] - BURN_OUT_S, 0.001)
    within("mass at burn-out kg", ends["burnt_out"]["mass_kg"] - 134e3, 1.0)
    within("mass after the coast kg", ends["coasted"]["mass_kg"] - 134e3, 1.0)
    within("mass after the drop kg", ends["dropped"]["mass_kg"] - 99e3, 0.1)
    # the drop takes no time and gives no push: what flies on is 4.6 m higher up the body
    assert ends["dropped"]["time_s"] == ends["coasted"]["time_s"]
    within("height gained in the drop m", ends["dropped"]["altitude_m"] - ends["coasted"]["altitude_m"], 4.7)
    within("speed gained in the drop m/s", ends["dropped"]["speed_m_s"] - ends["coasted"]["speed_m_s"], 0.05)


def test_stage_2_from_the_reference_state_at_130_seconds(within, tmp_path: Path) -> None:
    height, east, climb, pitch = TABLE[130]
    begin = {
        "altitude_m": height,
        "downrange_speed_m_s": east,
        "vertical_speed_m_s": climb,
        "pitch_deg": pitch,
        "pitch_rate_deg_s": -0.140,
        "propellant_kg": 0.0,
    }
    left = BURN_OUT_S + COAST_S - 130.0
    second = {"stage": 1, "at_full_thrust": True}
    phases = [
        ("coasted", "stage_coast", {"duration_s": left, "begin": begin}),
        ("dropped", "stage_drop", {}),
        ("t150", "stage_burn", second | {"duration_s": 20.0 - left}),
        ("t180", "stage_burn", second | {"duration_s": 30.0}),
    ]
    ends = fly(tmp_path, phases)
    for seconds in (150, 180):
        height, east, climb, _ = TABLE[seconds]
        found = ends[f"t{seconds}"]
        within(f"altitude at {seconds} s, relative", found["altitude_m"] / height - 1.0, 0.005)
        within(f"speed at {seconds} s, relative", found["speed_m_s"] / math.hypot(east, climb) - 1.0, 0.005)


@pytest.mark.slow
def test_the_shipped_mission_ends_as_published(within, tmp_path: Path) -> None:
    report = fly_mission(load_mission(ROOT / "missions" / "nasa_two_stage.yaml"), checkpoints=tmp_path, flights=2)
    assert report.success.count == 2
    within("burn-out s", report.phases[-1].end["time_s"].mean - (BURN_OUT_S + COAST_S + 61.193), 0.002)
    masses = [phase.end["mass_kg"].mean for phase in report.phases]
    for found, expected in zip(masses, (134e3, 134e3, 99e3, 19e3), strict=True):
        within("mass kg", (found or 0.0) - expected, 1.0)


@pytest.mark.parametrize("plugin", [stage_burn, stage_coast, stage_drop], ids=["burn", "coast", "drop"])
def test_contract(plugin: Any) -> None:
    check_phase(plugin.mission_phase(), steps=20)


def test_a_drop_under_thrust_fails() -> None:
    drop = stage_drop.StageDrop(stage_drop.Params())
    flight = drop.start(jax.random.key(0))
    for level, cause in ((0.0, "dropped"), (1.0, "burning")):
        motion = flight.state.motion._replace(levels=(jnp.float32(level),))
        begun = drop.enter(jax.random.key(0), flight._replace(state=flight.state._replace(motion=motion)))
        outcome = drop.outcome(drop.step(jax.random.key(0), begun, jnp.zeros(0)))
        assert bool(outcome.terminated)
        assert bool(outcome.success) == (cause == "dropped")
        assert drop.causes[int(outcome.cause)] == cause


def test_a_stage_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissionError, match="stage 2 of nasa_two_stage does not exist"):
        fly(tmp_path, [("burning", "stage_burn", {"stage": 2})])
