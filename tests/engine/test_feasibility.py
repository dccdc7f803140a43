"""Feasibility: a known probability is found, scores are those of closed forms, and stale networks are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from relay import probability as known
from relay import write_relay

from mission import load_mission
from mission.errors import InputError, MachineError, StaleError
from mission.flight.chain import prepare_chain
from mission.flight.feasibility.fitting import fit_feasibility
from mission.flight.feasibility.network import FeasibilitySettings, fit, likely
from mission.flight.feasibility.scores import scores
from mission.flight.feasibility.store import FEASIBILITY, chain_feasibility, read_feasibility

QUICK = FeasibilitySettings(flights=8000, updates=2000, width=32)


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("relay")
    path = write_relay(folder, "{judge: mission}")
    fit_feasibility(prepare_chain(load_mission(path), checkpoints=folder, allow_local_plugins=True), QUICK)
    return path


def chain_of(path: Path, **options: str):
    return prepare_chain(load_mission(path), checkpoints=path.parent, allow_local_plugins=True, **options)


def test_the_set_from_which_the_rest_succeeds_is_found(relay: Path) -> None:
    """The second phase succeeds from x with a known probability; flights enter it outside of the first one's box, too."""
    found = read_feasibility(relay.parent / "relay")
    x = np.linspace(-0.98, 0.98, 99)
    estimate = likely(found.weights[1], x[:, None].astype(np.float32))
    assert np.abs(estimate - known(x)).max() < 0.12
    assert np.abs(estimate - known(x)).mean() < 0.025
    half = x[estimate > 0.5]
    assert half.min() == pytest.approx(-0.8, abs=0.04)
    assert half.max() == pytest.approx(0.8, abs=0.04)


def test_its_scores_are_those_of_the_known_probability(relay: Path) -> None:
    """No prediction can be better than the true probability; this one is hardly worse, and calibrated."""
    found = read_feasibility(relay.parent / "relay").record.phases[1].scores
    x = np.random.default_rng(0).uniform(-0.99, 1.0, 100_000)
    best = float((known(x) * (1.0 - known(x))).mean())
    assert best - 0.01 < found.brier < best + 0.015
    assert found.brier < 0.5 * found.constant_brier
    assert found.calibration_error < 0.02
    assert sum(one.flights for one in found.bins) == found.flights


def test_scores_of_flights_with_known_probabilities() -> None:
    rng = np.random.default_rng(1)
    p = rng.uniform(size=50_000)
    success = rng.uniform(size=50_000) < p
    right, wrong = scores(p, success), scores(0.5 + 0.2 * (p - 0.5), success)
    assert right.brier == pytest.approx(1.0 / 6.0, abs=0.003)  # the mean of p (1 - p)
    assert right.log_loss == pytest.approx(0.5, abs=0.005)
    assert right.calibration_error < 0.01
    assert wrong.calibration_error == pytest.approx(0.2, abs=0.01)  # 0.8 |p - 0.5| in the mean
    assert right.constant_brier == pytest.approx(0.25, abs=0.001)
    assert scores(p[:0], success[:0]) is None


def test_flights_that_all_succeed_have_a_probability_near_one() -> None:
    obs = np.random.default_rng(2).normal(size=(2000, 3)).astype(np.float32)
    weights = fit(obs, np.ones(2000, bool), np.ones(2000), QUICK, seed=0)
    estimate = likely(weights, obs)
    assert estimate.min() > 0.98
    assert estimate.max() < 1.0


def test_a_change_downstream_makes_it_stale(relay: Path) -> None:
    assert chain_feasibility(chain_of(relay)) is not None
    with pytest.raises(StaleError, match="judged by mission"):
        chain_feasibility(chain_of(relay, judge="box"))
    text = relay.read_text()
    try:
        relay.write_text(text.replace("{name: catch,", "{name: catch, params: {reach: 0.7},"))
        with pytest.raises(StaleError, match=r"phases\.catch.*reach"):
            chain_feasibility(chain_of(relay))
    finally:
        relay.write_text(text)
    plugin = relay.parent / "catch.py"
    source = plugin.read_text()
    try:
        plugin.write_text(source + "\n# another version\n")
        with pytest.raises(StaleError, match="plugin of phase"):
            chain_feasibility(chain_of(relay))
    finally:
        plugin.write_text(source)


def test_too_few_flights_and_damaged_files_are_refused(relay: Path, tmp_path: Path) -> None:
    few = FeasibilitySettings(flights=30)
    with pytest.raises(MachineError, match="at least 40 flights"):
        fit_feasibility(prepare_chain(load_mission(relay), checkpoints=tmp_path, allow_local_plugins=True), few)
    assert read_feasibility(tmp_path) is None
    data = bytearray((relay.parent / "relay" / FEASIBILITY).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / FEASIBILITY).write_bytes(data)
    with pytest.raises(MachineError, match="readable feasibility"):
        read_feasibility(tmp_path)


def test_the_same_flights_give_the_same_networks(relay: Path, tmp_path: Path) -> None:
    fit_feasibility(prepare_chain(load_mission(relay), checkpoints=tmp_path, allow_local_plugins=True), QUICK)
    first, second = (read_feasibility(folder / "relay") for folder in (relay.parent, tmp_path))
    assert first.record == second.record
    for one, other in zip(first.weights, second.weights, strict=True):
        assert all((one[name] == other[name]).all() for name in one)


def test_read_only_checkpoints_are_not_written_to(relay: Path, tmp_path: Path) -> None:
    (tmp_path / "READ_ONLY").touch()
    with pytest.raises(InputError, match="read-only"):
        fit_feasibility(prepare_chain(load_mission(relay), checkpoints=tmp_path, allow_local_plugins=True), QUICK)
    assert [path.name for path in tmp_path.iterdir()] == ["READ_ONLY"]
