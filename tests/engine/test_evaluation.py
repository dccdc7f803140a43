"""Evaluations on the same starts, the choice of the policy, and gates whose interval counts looks and repeats."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import probes
import pytest
from factory import CART, write_mission
from probes import Drift

from mission import load_mission, resolve_mission
from mission.errors import InputError
from mission.missionfile.gate import NEW_STARTS, Gate, gate_verdict, success_interval
from mission.missionfile.models import Evaluation
from mission.missionfile.statistics import wilson
from mission.storage.records import EvaluationRecord, RunProgress, upgrade
from mission.testing import make_phase
from mission.training.bank import TerminalBank, fit_density
from mission.training.choice import is_best
from mission.training.loop import Run, begin, evaluate, fly_evaluation, fly_gate, fly_held_out

HELD = 24


def bank_of(rows: int, held_out: int) -> TerminalBank:
    """Rows whose labels say which one a flight began at; held-out labels follow the others."""

    def drifts(labels: np.ndarray) -> Drift:
        size = len(labels)
        rows = np.zeros((size, 2), np.float32), np.zeros((size, 2), np.float32), np.zeros(size, np.int32)
        return Drift(*map(jnp.asarray, rows), jnp.asarray(labels, jnp.int32))

    trained, held = drifts(np.arange(rows)), drifts(np.arange(rows, rows + held_out))
    return TerminalBank(trained, held, *map(jnp.asarray, fit_density(jax.tree.map(np.asarray, trained))))


def run_of(bank: TerminalBank | None, **entry: Any) -> Run:
    phase = make_phase(probes.drift(sac=probes.probe_sac(vehicles=4), until=6, wind=0.5))
    entry = {"evaluation": Evaluation(flights=20)} | entry
    return begin(dataclasses.replace(phase, entry=phase.entry.model_copy(update=entry)), bank, jax.random.key(1))


@pytest.fixture(scope="module")
def from_bank() -> Run:
    return run_of(bank_of(40, HELD), gate=Gate(success_low=0.0))


@pytest.fixture(scope="module")
def from_start() -> Run:
    return run_of(None, gate=Gate(success_low=0.0, flights=30))


# Evaluations


@pytest.mark.parametrize("which", ["from_bank", "from_start"])
def test_every_evaluation_flies_the_same_starts_with_the_same_keys(which: str, request: pytest.FixtureRequest) -> None:
    run = request.getfixturevalue(which)
    run.progress = RunProgress()
    flights = []
    for _ in range(2):
        evaluate(run, lambda *_, **__: None)
        flights.append(fly_evaluation(run, run.best_actor))
    assert run.progress.evaluations == 2
    for first, second in zip(*map(jax.tree.leaves, flights), strict=True):
        np.testing.assert_array_equal(first, second)
    assert flights[0].returns.std() > 0.01  # the gusts are drawn from the keys


def test_each_look_at_the_gate_flies_fresh_ones(from_start: Run, from_bank: Run) -> None:
    for run in (from_start, from_bank):
        run.progress, gate = RunProgress(), run.phase.entry.gate
        assert gate is not None
        looks = []
        for look in (1, 2):
            run.progress.looks = look
            looks.append(fly_held_out(run, gate))
        assert not np.isin(looks[0].returns, looks[1].returns).any()
        evaluated = fly_evaluation(run, run.best_actor)
        assert not np.isin(looks[0].returns, evaluated.returns).any()


def test_a_gate_flies_each_held_out_row_once(from_bank: Run) -> None:
    run = from_bank
    labels = {}
    for flights in (None, HELD - 4, HELD + 6):
        run.progress = RunProgress()
        gate = Gate(success_low=0.0, flights=flights)
        verdict = fly_gate(run, gate, lambda *_, **__: None)
        labels[flights] = np.sort(np.asarray(fly_held_out(run, gate).handoff.label))
        assert verdict.flights == len(labels[flights])
        assert verdict.starts == (HELD if flights == HELD + 6 else None)
        assert verdict.looks == 1
    np.testing.assert_array_equal(labels[None], np.arange(40, 40 + HELD))
    assert len(np.unique(labels[HELD - 4])) == HELD - 4
    assert set(np.bincount(labels[HELD + 6] - 40)) == {1, 2}


def test_fewer_flights_than_rows_are_other_rows_at_each_look(from_bank: Run) -> None:
    run, gate, seen = from_bank, Gate(success_low=0.0, flights=HELD // 2), []
    for look in (1, 2):
        run.progress = RunProgress(looks=look)
        seen.append({*np.asarray(fly_held_out(run, gate).handoff.label).tolist()})
    assert seen[0] != seen[1]


# The choice


def choose(*evaluations: tuple[bool, float, float]) -> int:
    """Return the number of the evaluation whose policy is stored, of (passed, success, return) each."""
    progress = RunProgress()
    for number, (passed, success, returned) in enumerate(evaluations):
        progress.env_steps = number
        found = EvaluationRecord(success=success, returns=returned, flights=1000, passed=passed)
        assert is_best(progress, found) == (progress.best_env_steps == number)
    return progress.best_env_steps


@pytest.mark.parametrize("passed", [False, True])
def test_success_decides_and_within_two_hundredths_of_a_point_the_return(passed: bool) -> None:
    assert choose((passed, 0.990, 9.0), (passed, 0.992, 1.0)) == 1
    assert choose((passed, 0.992, 1.0), (passed, 0.990, 9.0)) == 0
    assert choose((passed, 0.9918, 1.0), (passed, 0.992, 0.5)) == 0
    assert choose((passed, 0.992, 1.0), (passed, 0.9918, 2.0)) == 1
    assert choose((passed, 0.992, 1.0), (passed, 0.992, 1.0)) == 0


def test_small_steps_down_do_not_add_up() -> None:
    """Each is within two hundredths of a point of the one before, but only the second of the best."""
    falling = [(True, 0.999 - 0.0002 * k, float(k)) for k in range(5)]
    assert choose(*falling) == 1
    assert choose(*falling[::-1]) == 4  # the one at 0.9986 kept out 0.9988, and is itself too far from 0.999


def test_a_policy_that_meets_the_gate_ranks_above_one_that_does_not() -> None:
    """A bound on a channel or on the return can fail where the success rate is larger."""
    assert choose((True, 0.95, 1.0), (False, 1.0, 9.0)) == 0
    assert choose((False, 1.0, 9.0), (True, 0.95, 1.0)) == 1
    assert choose((False, 1.0, 9.0), (True, 0.95, 1.0), (True, 0.9499, 2.0)) == 2


@pytest.mark.parametrize(("score", "passed"), [([1.0, -3.5, 0.97], True), ([0.0, 0.97, -3.5], False), ([], False)])
def test_the_score_of_an_older_checkpoint_is_read(score: list[float], passed: bool) -> None:
    found = {"success": 0.97, "returns": -3.5, "flights": 100}
    old = {"format": 3, "progress": {"env_steps": 5, "best_score": score, "evaluation": found}}
    progress = RunProgress.model_validate(upgrade(old, "here")["progress"])
    assert progress.evaluation == EvaluationRecord(**found, passed=passed)
    assert progress.most_success == 0.97
    assert "best_score" in old["progress"]  # the argument stays as it is


# The interval


def test_the_first_look_is_the_95_percent_interval() -> None:
    for look in (None, 1):
        assert success_interval(90, 100, looks=look) == wilson(90, 100)
    assert success_interval(0, 0) == (0.0, 1.0)


def test_repeated_starts_add_nothing() -> None:
    assert success_interval(190, 200, starts=100) == wilson(95, 100)
    assert success_interval(200, 200, starts=100) == wilson(100, 100)
    verdict = gate_verdict(Gate(success_low=0.94), np.arange(200) < 190, {}, starts=100)
    assert not verdict.passed
    assert "190 of 200 flights from 100 different starts" in verdict.failures[0]
    assert gate_verdict(Gate(success_low=0.88), np.arange(200) < 190, {}, starts=100).passed


def test_each_look_widens_the_interval() -> None:
    lows = [success_interval(990, 1000, looks=look)[0] for look in range(1, 12)]
    assert (np.diff(lows) < 0.0).all()
    assert lows[-1] > 0.97


@pytest.mark.parametrize("rate", [0.5, 0.9, 0.99])
def test_a_phase_below_its_gate_passes_in_at_most_5_percent_of_runs_however_often_it_is_flown(rate: float) -> None:
    """The rate is exactly that of the gate; the plain interval at each look passes several times as often."""
    rng, runs, looks, flights = np.random.default_rng(0), 4000, 40, 1024
    counts = rng.binomial(flights, rate, (runs, looks))

    def ever(counted: bool) -> float:
        least = np.array([_least(rate, flights, look if counted else 1) for look in range(1, looks + 1)])
        return float((counts >= least).any(axis=1).mean())

    assert 0.01 < ever(True) <= 0.05 + 3.0 * np.sqrt(0.05 * 0.95 / runs)
    assert ever(False) > 0.2


def _least(rate: float, flights: int, look: int) -> int:
    """Return the least number of successes with which a look passes; one more than all if none does."""
    passing = [
        n for n in range(int(rate * flights), flights + 1) if success_interval(n, flights, looks=look)[0] >= rate
    ]
    return passing[0] if passing else flights + 1


# Defaults


def test_the_default_number_of_flights() -> None:
    assert (Gate().number(1019), Gate().number(None)) == (1019, NEW_STARTS)
    assert (Gate(flights=50).number(1019), Gate(flights=2048).number(1019)) == (50, 2048)
    assert Gate.model_validate_json(Gate().model_dump_json()) == Gate()
    assert "one flight per held-out start" in str(Gate())
    assert "50 flights" in str(Gate(flights=50))


TWO = """\
name: trial
phases:
  - {name: a, plugin: ./cart.py, bank: {flights: 200, minimum: 4}}
  - {name: b, plugin: ./cart.py, gate: {success_low: 0.95}}
"""


def test_a_gate_that_its_held_out_rows_can_never_show_is_refused(tmp_path) -> None:
    path = write_mission(tmp_path, TWO, CART)
    for overrides in ([], ["phases.b.gate.flights=4000"]):
        with pytest.raises(
            InputError, match=r'"b": gate.success_low(.|\n)*at most 0.9123(.|\n)*bank.flights'
        ) as caught:
            resolve_mission(load_mission(path, overrides), allow_local_plugins=True)
        assert caught.value.exit_code == 2
    for overrides in (["phases.a.bank.flights=2000"], ["phases.b.policy=guide"], ["phases.b.gate.success_low=0.9"]):
        resolve_mission(load_mission(path, overrides), allow_local_plugins=True)


def test_a_look_that_cannot_be_passed_any_more_says_so_and_is_not_taken(from_bank: Run) -> None:
    verdict = gate_verdict(Gate(success_low=0.995, flights=1024), np.ones(1024, bool), {}, looks=3)
    assert not verdict.passed
    assert "cannot be passed" in verdict.failures[1]
    assert "at look 3" in verdict.failures[1]
    run = from_bank
    gate = Gate(success_low=0.75)  # 20 of 20 show 0.839 at the first look, 0.799 at the second, 0.742 at the third
    phase = dataclasses.replace(run.phase, entry=run.phase.entry.model_copy(update={"gate": gate}))
    for looks, taken in ((0, 1), (1, 2), (2, 2), (5, 5)):
        seen: list[str] = []
        fresh = dataclasses.replace(run, phase=phase, progress=RunProgress(looks=looks))
        evaluate(fresh, lambda kind, seen=seen, **_: seen.append(kind))
        assert fresh.progress.looks == taken
        assert ("gate" in seen) == (taken > looks)
