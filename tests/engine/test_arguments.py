"""Wrong arguments of the public functions: each is an InputError that says what to pass, and nothing is flown or written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from factory import write_mission
from test_python import a_mission, local_spec

from mission import (
    InputError,
    MissionFile,
    Table,
    check,
    compare,
    draw_report,
    export_policy,
    fly_mission,
    load_bank,
    load_mission,
    load_policy,
    merge_reports,
    read_flights,
    read_metrics,
    read_text,
    read_tracks,
    resolve_mission,
    sweep,
    train_mission,
    tune,
    write_trajectories,
)


@pytest.fixture(scope="module")
def one() -> MissionFile:
    """A mission of one phase that its guide flies."""
    return load_mission(a_mission(local_spec()))


@pytest.mark.parametrize("wrong", [None, "vertical", Path("vertical.yaml"), {"name": "x"}, 3])
def test_what_is_no_mission_says_how_to_load_one(wrong: Any) -> None:
    calls = [
        check,
        resolve_mission,
        fly_mission,
        train_mission,
        lambda given: load_policy(given, "stay"),
        lambda given: load_bank(given, "stay"),
        lambda given: export_policy(given, "stay", "npz", "nowhere"),
    ]
    for call in calls:
        with pytest.raises(InputError, match="a mission from load_mission") as caught:
            call(wrong)
        assert "load_mission(" in caught.value.remedy


@pytest.mark.parametrize(
    "arguments",
    [
        {"flights": 0},
        {"flights": True},
        {"flights": 1.5},
        {"flights": "10"},
        {"flights": [1.0]},
        {"flights": np.array([0.5])},
        {"flights": [True]},
        {"flights": [2**32]},
        {"flights": iter(())},
        {"seed": -1},
        {"seed": 2**32},
        {"seed": 1.5},
        {"seed": "3"},
        {"seed": True},
        {"until": "0.1"},
        {"policy": "guides"},
        {"policy": None},
        {"policies": [("stay", "guide")]},
        {"policies": "stay=guide"},
        {"devices": 0},
        {"devices": "2"},
        {"devices": 1.5},
        {"first_flight": 1000.0},
        {"first_flight": -1000},
    ],
)
def test_wrong_arguments_of_a_flight(one: MissionFile, arguments: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        fly_mission(one, **({"policy": "guide"} | arguments))


def test_whole_numbers_of_numpy_and_jax_are_whole_numbers(one: MissionFile) -> None:
    plain = fly_mission(one, policy="guide", flights=3, seed=4)
    for kind in (np.int64, np.uint8, np.asarray, jnp.int32):
        found = fly_mission(one, policy="guide", flights=kind(3), seed=kind(4), devices=kind(1))
        assert found.to_json() == plain.to_json()
    for numbers in ([0, 2], np.array([0, 2]), jnp.array([0, 2]), (n for n in (0, 2)), range(0, 3, 2)):
        assert [flight.number for flight in fly_mission(one, policy="guide", flights=numbers)] == [0, 2]


@pytest.mark.parametrize(
    "arguments",
    [{"seed": -1}, {"seed": 1.0}, {"seed": "3"}, {"baseline_flights": -1}, {"baseline_flights": 0.5}, {"sweeps": "2"}],
)
def test_wrong_arguments_of_training(one: MissionFile, tmp_path: Path, arguments: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        train_mission(one, checkpoints=tmp_path / "ck", **arguments)
    assert not (tmp_path / "ck").exists()


@pytest.mark.parametrize("wrong", [3, b"name", True, ["a"]])
def test_what_is_no_path_is_refused_before_anything_runs(one: MissionFile, wrong: Any) -> None:
    flown = {"policy": "guide", "flights": 3}
    calls: list[Callable[[], Any]] = [
        lambda: read_flights(wrong),
        lambda: read_tracks(wrong),
        lambda: read_metrics(wrong),
        lambda: draw_report(wrong),
        lambda: draw_report("nowhere", output=wrong),
        lambda: merge_reports(wrong, "nowhere"),
        lambda: merge_reports(["a", wrong], "nowhere"),
        lambda: merge_reports(["a", "b"], wrong),
        lambda: compare(wrong, one),
        lambda: compare(one, one, checkpoints=wrong),
        lambda: fly_mission(one, report=wrong, **flown),
        lambda: fly_mission(one, starts=wrong, policy="guide"),
        lambda: fly_mission(one, checkpoints=wrong, **flown),
        lambda: fly_mission(one, policies={"stay": wrong}, flights=3),
        lambda: train_mission(one, checkpoints=wrong),
        lambda: train_mission(one, log_dir=wrong),
        lambda: train_mission(one, init={"stay": wrong}),
        lambda: export_policy(one, "stay", "npz", wrong),
        lambda: load_bank(one, "stay", checkpoints=wrong),
        lambda: sweep(wrong, seeds=[0]),
        lambda: tune(wrong, space={}, trials=1),
        lambda: write_trajectories(fly_mission(one, policy="guide", flights=[1]), wrong),
        lambda: Table({"a": [1]}).to_parquet(wrong),
        lambda: read_text(wrong),
    ]
    for call in calls:
        with pytest.raises(InputError):
            call()


@pytest.mark.parametrize("call", [read_flights, read_tracks, read_metrics, draw_report, load_mission])
def test_none_is_no_path(call: Any) -> None:
    with pytest.raises(InputError):
        call(None)


def test_the_output_of_a_sweep_and_of_a_search_is_a_path(tmp_path: Path) -> None:
    file = write_mission(tmp_path)
    for wrong in (3, b"name"):
        with pytest.raises(InputError, match="--output"):
            sweep(file, seeds=[0], output=wrong, allow_local_plugins=True)  # ty: ignore[invalid-argument-type]
        with pytest.raises(InputError, match="--space"):
            tune(file, space=wrong, trials=1, allow_local_plugins=True)  # ty: ignore[invalid-argument-type]


@pytest.mark.parametrize("count", [0, -1, 99, 1.5, "200", True])
def test_an_export_is_compared_on_enough_observations(one: MissionFile, tmp_path: Path, count: Any) -> None:
    with pytest.raises(InputError, match="--observations"):
        export_policy(one, "stay", "npz", tmp_path / "out", observations=count)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("overrides", ["seed=4", [4], [None]])
def test_overrides_are_a_list_of_texts(overrides: Any) -> None:
    with pytest.raises(InputError, match="a list"):
        load_mission(a_mission(local_spec()), overrides)


@pytest.mark.parametrize("flights", [None, "flights", [], ["flight"], 3])
def test_only_flights_are_written(flights: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="write_trajectories"):
        write_trajectories(flights, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_one_flight_and_one_format_need_no_list(one: MissionFile, tmp_path: Path) -> None:
    (flight,) = fly_mission(one, policy="guide", flights=[1])
    many = write_trajectories([flight], tmp_path / "many", ["csv"])
    single = write_trajectories(flight, tmp_path / "single", "csv")  # ty: ignore[invalid-argument-type]
    assert [path.read_bytes() for path in single] == [path.read_bytes() for path in many]
