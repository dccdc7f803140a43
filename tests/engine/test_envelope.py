"""The states from which the rest of a mission succeeds: boxes of known sets, their confidence, and the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from factory import run_cli
from relay import probability as known
from relay import write_relay
from scipy.integrate import quad
from scipy.optimize import brentq

from mission.flight.feasibility.envelope import feasibility_map, largest_box, telling_channels
from mission.report.feasibility import handover_feasibility

FLIGHTS = 8000


def flights(rng: np.random.Generator, count: int = FLIGHTS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """States x, and two that decide nothing; the probability of success; and outcomes."""
    table = rng.uniform(-1.0, 1.0, (count, 3))
    p = known(table[:, 0])
    return table, p, rng.uniform(size=count) < p


def test_the_box_of_a_known_set() -> None:
    """The largest interval [-a, a] whose mean probability is 0.95 is known; a box must fall short of it, by little."""
    largest = brentq(lambda a: quad(known, -a, a)[0] / (2 * a) - 0.95, 0.5, 0.99)
    table, p, success = flights(np.random.default_rng(0))
    box = largest_box(["x", "y", "z"], table, p, success, 0.95, 0.95)
    assert box.holds
    assert box.limiting == "x"
    (side,) = [one for one in box.sides if one.channel == "x"]
    assert -largest - 0.02 < side.low < -0.6
    assert 0.6 < side.high < largest + 0.02
    others = [one.cut for one in box.sides if one.channel != "x"]
    assert sum(others) < 0.1


def test_a_box_that_holds_is_wrong_as_seldom_as_it_says() -> None:
    """Outcomes that are as likely everywhere, just below what is asked: hardly any box may hold."""
    rng, wrong = np.random.default_rng(1), 0
    for _ in range(100):
        table = rng.uniform(-1.0, 1.0, (600, 2))
        success = rng.uniform(size=600) < 0.895
        wrong += largest_box(["x", "y"], table, np.full(600, 0.895), success, 0.9, 0.95).holds
    assert wrong <= 12  # 5 of 100 are allowed in the mean


def test_where_nothing_is_feasible_there_is_no_box() -> None:
    table, p, _ = flights(np.random.default_rng(2), 1000)
    box = largest_box(["x", "y", "z"], table, p, np.zeros(1000, bool), 0.5, 0.95)
    assert not box.holds
    assert box.sides == ()
    assert box.limiting is None


def test_a_channel_of_two_values_is_not_cut_away() -> None:
    rng = np.random.default_rng(3)
    table, p, success = flights(rng, 2000)
    table[:, 1] = rng.uniform(size=2000) < 0.5
    box = largest_box(["x", "flag", "z"], table, p, success, 0.95, 0.95)
    assert "flag" not in [one.channel for one in box.sides]


def test_maps_hold_the_mean_of_their_flights() -> None:
    table, p, _ = flights(np.random.default_rng(4))
    found = feasibility_map(("x", "y"), table[:, 0], table[:, 1], p)
    assert sum(map(sum, found.flights)) == FLIGHTS
    counts, cells = np.array(found.flights), np.array(found.cells, float)
    assert (counts * cells).sum() / FLIGHTS == pytest.approx(p.mean())
    middle = len(cells) // 2
    assert cells[middle, middle] > 0.99
    assert cells[middle, 0] < 0.2  # x near -1
    assert cells[0, middle] > 0.99  # y decides nothing


def test_the_telling_channel_comes_first_and_its_twin_last() -> None:
    table, p, _ = flights(np.random.default_rng(5))
    table = np.concatenate([table, 2.0 * table[:, :1] + 1.0], axis=1)
    ranked = telling_channels(["x", "y", "z", "twin"], table, p)
    assert {ranked[0], ranked[-1]} == {"x", "twin"}


def test_flights_unlike_the_training_starts_are_counted() -> None:
    rng = np.random.default_rng(6)
    starts = rng.normal(size=(1000, 2)) @ np.array([[1.0, 0.9], [0.0, 0.2]])
    near = rng.normal(size=(2000, 2)) @ np.array([[1.0, 0.9], [0.0, 0.2]])
    far = near.copy()
    far[:200] = [1.0, -1.0]  # neither channel is unusual alone
    p, success = np.full(2000, 0.9), np.ones(2000, bool)
    like = handover_feasibility("burn", ["a", "b"], near, p, success, starts=starts)
    unlike = handover_feasibility("burn", ["a", "b"], far, p, success, starts=starts)
    assert like.unlike < 0.015
    assert unlike.unlike == pytest.approx(0.1, abs=0.015)


def test_the_commands_fit_and_fly_and_draw(tmp_path: Path) -> None:
    path, page, out = write_relay(tmp_path, "{judge: mission}"), tmp_path / "page.html", tmp_path / "envelope.json"
    shared = [str(path), "--allow-local-plugins", "--checkpoints", str(tmp_path)]
    done = run_cli("envelope", *shared)
    assert done.returncode == 3
    assert "mission feasibility" in done.stderr
    done = run_cli("feasibility", *shared, "--flights", "4000")
    assert done.returncode == 0, done.stderr
    assert "catch" in done.stdout
    words = ["--flights", "4000", "--probability", "0.95", "-o", str(page), "--json", str(out)]
    done = run_cli("envelope", *shared, *words)
    assert done.returncode == 0, done.stderr
    assert "x_m" in done.stdout
    found = json.loads(out.read_text())
    throw, catch = found["handovers"]
    assert catch["box"]["holds"]
    assert catch["scores"]["calibration_error"] < 0.03
    assert throw["flights"] == 4000
    assert "reliability" in page.read_text()
    done = run_cli("envelope", *shared, "--channels", "height_m")
    assert done.returncode == 2
    assert "one of x_m" in done.stderr
    done = run_cli("envelope", *shared, "--probability", "1.5")
    assert done.returncode == 2


def test_a_report_says_how_feasible_its_hand_overs_were(tmp_path: Path) -> None:
    path, report = write_relay(tmp_path, "{judge: mission}"), tmp_path / "report"
    shared = [str(path), "--allow-local-plugins", "--checkpoints", str(tmp_path)]
    fly = ["fly", *shared, "--flights", "1500", "--report", str(report)]
    assert run_cli(*fly).returncode == 0
    assert "Feasibility at the hand-overs" not in (report / "index.html").read_text()
    done = run_cli("feasibility", *shared, "--flights", "4000")
    assert done.returncode == 0, done.stderr
    done = run_cli(*fly, "--seed", "77")
    assert done.returncode == 0, done.stderr
    page = (report / "index.html").read_text()
    assert "Feasibility at the hand-overs" in page
    assert "calibration error" in page
    with np.load(report / "flights.npz") as stored:
        feasible, success = (stored[f"agent/catch/{name}"] for name in ("feasible", "success"))
        entered = stored["agent/throw/success"]
    assert feasible.shape == (1500,)
    assert abs(feasible[entered].mean() - success[entered].mean()) < 0.05
    assert run_cli("report", str(report), "--mission", str(path), "--allow-local-plugins").returncode == 0
    assert (report / "index.html").read_text() == page
    path.write_text(path.read_text().replace("{name: catch,", "{name: catch, params: {reach: 0.5},"))
    done = run_cli(*fly, "--seed", "78")
    assert done.returncode == 0, done.stderr
    assert "the report says nothing of feasibility" in done.stderr
    assert "Feasibility at the hand-overs" not in (report / "index.html").read_text()
