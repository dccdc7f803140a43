"""Multilevel splitting: unbiased for a known loss of 1e-4, with intervals that hold it, and narrower than plain flights."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from factory import run_cli
from relay import write_walk

from mission import load_mission
from mission.errors import InputError
from mission.flight.chain import prepare_chain
from mission.flight.feasibility.fitting import fit_feasibility
from mission.flight.feasibility.network import FeasibilitySettings, likely
from mission.flight.feasibility.store import chain_feasibility
from mission.flight.splitting import check_splitting, draw_copies, expected_copies, split_flights

LOSS, REPEATS = 1e-4, 200


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("walk")
    path = write_walk(folder, LOSS)
    fit_feasibility(prepare_chain(load_mission(path), checkpoints=folder, allow_local_plugins=True))
    return path


@pytest.fixture(scope="module")
def repeats(walk: Path):
    """Estimates of as many seeds, 2,000 lanes each: a plain flight of them sees a loss in one of five."""
    chain = prepare_chain(load_mission(walk), checkpoints=walk.parent, allow_local_plugins=True)
    feasibility = chain_feasibility(chain)
    seeds = [dataclasses.replace(chain, seed=1000 + seed) for seed in range(REPEATS)]
    return [split_flights(one, feasibility, 2000) for one in seeds]


def test_the_search_for_what_is_lost_seldom_finds_it(walk: Path) -> None:
    """From x = 8 before the last leg the walk is lost with P(noise > 0.7) = 0.24, and from 0 hardly ever."""
    chain = prepare_chain(load_mission(walk), checkpoints=walk.parent, allow_local_plugins=True)
    weights = chain_feasibility(chain).weights[-1]
    lost = 1.0 - likely(weights, np.array([[0.0], [8.0 / 3.0], [-8.0 / 3.0]], np.float32))
    assert lost[0] < 1e-3
    assert 0.08 < lost[1] < 0.5
    assert 0.08 < lost[2] < 0.5


def test_the_estimate_is_unbiased(repeats) -> None:
    found = np.array([one.loss for one in repeats])
    error = found.std(ddof=1) / np.sqrt(REPEATS)
    assert abs(found.mean() - LOSS) < 3.0 * error
    assert error < 0.1 * LOSS


def test_intervals_hold_the_loss(repeats) -> None:
    held = sum(one.low <= LOSS <= one.high for one in repeats)
    assert held >= 0.9 * REPEATS


def test_the_interval_is_that_of_ten_times_as_many_plain_flights(repeats) -> None:
    """The variance over repeats, not the one that a run states, against that of plain flights of the same steps."""
    found = np.array([one.loss for one in repeats])
    cost = np.mean([one.cost_flights for one in repeats])
    assert LOSS * (1.0 - LOSS) / found.var(ddof=1) >= 10.0 * cost
    assert np.median([one.gain or 0.0 for one in repeats]) == pytest.approx(LOSS / found.var(ddof=1) / cost, rel=0.6)


def test_a_wrong_feasibility_costs_little_and_biases_nothing() -> None:
    """Whatever it says, a flight keeps at least its share of the defensive lanes, and weights stay means of 1."""
    rng = np.random.default_rng(0)
    weights, feasible = rng.exponential(size=1000), rng.uniform(size=1000)
    expected = expected_copies(weights, feasible)
    assert expected.sum() == pytest.approx(1000.0)
    assert (expected >= 0.29 * 1000.0 * weights / weights.sum()).all()
    totals = [
        (weights / expected)[draw_copies(expected, 1000, np.random.default_rng(seed))].sum() for seed in range(400)
    ]
    assert np.mean(totals) == pytest.approx(weights.sum(), rel=0.01)


def test_splitting_needs_feasibility_and_two_batches(walk: Path, tmp_path: Path) -> None:
    chain = prepare_chain(load_mission(walk), checkpoints=tmp_path, allow_local_plugins=True)
    with pytest.raises(InputError, match="mission feasibility"):
        check_splitting(chain, chain_feasibility(chain), 2000)
    with pytest.raises(InputError, match="at least 2,000"):
        check_splitting(chain, None, 1000)


def test_the_command_prints_the_loss_and_what_was_gained(walk: Path, tmp_path: Path) -> None:
    out = tmp_path / "split.json"
    words = ["fly", str(walk), "--splitting", "--allow-local-plugins", "--checkpoints", str(walk.parent)]
    done = run_cli(*words, "--flights", "4000", "--json", str(out))
    assert done.returncode == 0, done.stderr
    assert "plain flights would give an interval as wide" in done.stdout
    found = json.loads(out.read_text())
    assert 0.2 * LOSS < found["loss"] < 5.0 * LOSS
    assert sum(sum(phase["lost"].values()) for phase in found["phases"]) == pytest.approx(found["loss"], rel=1e-6)
    assert run_cli(*words, "--flights", "4000", "--json", "-").stdout == out.read_text()  # the same bits
    done = run_cli(*words, "--flights", "4000", "--sensitivity")
    assert done.returncode == 2
    assert "--sensitivity" in done.stderr


def test_a_quick_fit_is_worse_but_still_unbiased(walk: Path, tmp_path: Path) -> None:
    quick = FeasibilitySettings(flights=1000, rounds=0, updates=200, width=8)
    fit_feasibility(prepare_chain(load_mission(walk), checkpoints=tmp_path, allow_local_plugins=True), quick)
    chain = prepare_chain(load_mission(walk), checkpoints=tmp_path, allow_local_plugins=True)
    found = [
        split_flights(dataclasses.replace(chain, seed=seed), chain_feasibility(chain), 10_000) for seed in range(20)
    ]
    losses = np.array([one.loss for one in found])
    assert abs(losses.mean() - LOSS) < 4.0 * max(losses.std(ddof=1), LOSS / 2.0) / np.sqrt(len(found))
