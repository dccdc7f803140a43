"""What losses and end states depend on: closed forms, coverage, and the command."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from typer.testing import CliRunner

from mission.cli.commands import app
from mission.report.sensitivity import LOST, first_order, inputs_of, loss_odds, sensitivity

VERTICAL = str(Path(__file__).parents[2] / "missions" / "vertical.yaml")


def standardised(rng: np.random.Generator, flights: int, inputs: int) -> np.ndarray:
    table = rng.uniform(-1.0, 1.0, (flights, inputs))
    return (table - table.mean(axis=0)) / table.std(axis=0)


def test_indices_of_the_function_of_ishigami() -> None:
    """Ishigami and Homma 1990, a = 7, b = 0.1: first-order indices 0.3139, 0.4424 and 0."""
    x = np.random.default_rng(1).uniform(-math.pi, math.pi, (20_000, 3))
    y = np.sin(x[:, 0]) + 7.0 * np.sin(x[:, 1]) ** 2 + 0.1 * x[:, 2] ** 4 * np.sin(x[:, 0])
    found = {one.name: one for one in first_order(["a", "b", "c"], x, "y", y)}
    assert set(found) <= {"a", "b", "c"}
    for name, exact in (("a", 0.3139), ("b", 0.4424)):
        assert found[name].index == pytest.approx(exact, abs=0.02)
        assert found[name].low < exact + 0.01
        assert found[name].high > exact - 0.01
    assert "c" not in found or found["c"].index < 0.01


def test_an_output_that_depends_on_nothing_has_no_index_in_most_samples() -> None:
    rng, false = np.random.default_rng(2), 0
    for _ in range(100):
        false += len(first_order(["a"], standardised(rng, 400, 1), "y", rng.normal(size=400)))
    assert false <= 8  # 2.5 of 100 are expected


def test_intervals_of_indices_hold_the_index_as_often_as_they_say() -> None:
    """y = x + noise of the same variance: the index is 0.5."""
    rng, held = np.random.default_rng(3), 0
    for _ in range(200):
        x = standardised(rng, 1000, 1)
        (found,) = first_order(["x"], x, "y", x[:, 0] + rng.normal(size=1000))
        held += found.low <= 0.5 <= found.high
    assert held >= 0.88 * 200


def test_odds_of_a_known_model() -> None:
    rng, flights = np.random.default_rng(4), 40_000
    table = standardised(rng, flights, 3)
    line = -3.0 + 0.8 * table[:, 0] + 0.5 * table[:, 1] ** 2
    lost = rng.uniform(size=flights) < 1.0 / (1.0 + np.exp(-line))
    rows = {one.name: one for one in loss_odds(["side", "far", "none"], table, lost)}
    assert math.log(rows["side"].above.ratio) == pytest.approx(1.6, abs=0.25)
    assert math.log(rows["side"].below.ratio) == pytest.approx(-1.6, abs=0.25)
    for end in (rows["far"].above, rows["far"].below):
        assert math.log(end.ratio) == pytest.approx(2.0, abs=0.25)
    assert rows["side"].clarity() > 0.0
    assert rows["none"].clarity() < 0.0 or rows["none"].above.ratio < 1.5


def test_one_loss_gives_finite_odds_and_none_gives_no_table() -> None:
    table = standardised(np.random.default_rng(5), 500, 2)
    lost = np.zeros(500, bool)
    assert loss_odds(["a", "b"], table, lost) == ()
    lost[np.argmax(table[:, 0])] = True
    (first, second) = loss_odds(["a", "b"], table, lost)
    assert {first.name, second.name} == {"a", "b"}
    assert all(math.isfinite(end.high) for row in (first, second) for end in (row.below, row.above))


class Start(NamedTuple):
    height: np.ndarray
    twice: np.ndarray
    constant: np.ndarray
    vector: np.ndarray
    number: np.ndarray


def test_inputs_are_the_numbers_that_differ_and_twins_count_once() -> None:
    rng = np.random.default_rng(6)
    height = rng.normal(100.0, 5.0, 50)
    vector = np.stack([rng.normal(size=50), np.full(50, 2.0)], axis=1)
    start = Start(height, 3.0 - 2.0 * height, np.full(50, 7.0), vector, np.arange(50))
    names, table, same = inputs_of(start)
    assert names == ["height", "vector[0]"]
    assert same == {"twice": "height"}
    np.testing.assert_allclose(table.mean(axis=0), 0.0, atol=1e-9)
    np.testing.assert_allclose(table.std(axis=0), 1.0)


def test_end_states_count_successes_and_finite_values_only() -> None:
    rng = np.random.default_rng(7)
    x = rng.normal(size=2000)
    success = x < 1.0
    end = np.where(success, x, 1e9)
    end[np.flatnonzero(success)[:5]] = np.nan
    found = sensitivity({"x": x}, success, {"end_m": end})
    by_output = {one.output: one for one in found.indices}
    assert by_output["end_m"].index > 0.95
    assert by_output[LOST].index > 0.9
    assert found.lost == int((~success).sum())


def test_the_command_prints_stores_and_draws_it(tmp_path: Path) -> None:
    out, folder = tmp_path / "summary.json", tmp_path / "report"
    words = ["fly", VERTICAL, "--policy", "guide", "--flights", "500", "--sensitivity"]
    done = CliRunner().invoke(app, [*words, "--json", str(out), "--report", str(folder)])
    assert done.exit_code == 0, done.output
    assert "share of the variance" in done.output
    stored = json.loads(out.read_text())["sensitivity"]
    assert {"mass_kg", "height_m"} <= set(stored["inputs"])
    mass = [one for one in stored["indices"] if (one["output"], one["name"]) == ("mass_kg", "mass_kg")]
    assert mass[0]["index"] > 0.9  # a heavier vehicle is heavier on the ground
    page = (folder / "index.html").read_text()
    assert ">Sensitivity</h2>" in page
    assert "--sensitivity" in json.loads((folder / "summary.json").read_text())["provenance"]["commands"][0]
    assert CliRunner().invoke(app, ["report", str(folder)]).exit_code == 0
    assert (folder / "index.html").read_text() == page
