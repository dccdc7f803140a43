"""Causes that contradict the contract: an error in flights and in training, never another cause."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from factory import CART, write_mission
from jax import Array
from probes import Nothing, probe_sac

from mission import Environment, Outcome, PhaseSpec, fly_mission, load_mission, train_mission
from mission.errors import PluginError
from mission.flight.batches import compile_flight, fly_batch, fly_rows
from mission.missionfile.phases import TrainedPhase
from mission.testing import make_phase
from mission.training.checks import check_causes
from mission.training.step import EnvBatch, step_envs

OUTCOME = "return Outcome(over, held, jnp.where(held, 0, 1).astype(jnp.int32))"
END = (True, True, 0)  # terminated, success, cause


class Report(NamedTuple):
    """The outcome that the phase reports after one step."""

    terminated: Array
    success: Array
    cause: Array
    x: Array


@dataclasses.dataclass(frozen=True, eq=False)
class Reporter(Environment[Report, Report]):
    """Reports whatever outcome its hand-over holds."""

    observation_names, action_names, causes = ("x",), ("u",), ("done", "failed")
    control_period_s, max_steps = 1.0, 3

    def start(self, key: Array) -> Report:
        return Report(jnp.bool_(True), jnp.bool_(True), jnp.int32(0), jnp.zeros(()))

    def enter(self, key: Array, handoff: Report) -> Report:
        return handoff

    def step(self, key: Array, state: Report, action: Array) -> Report:
        return state

    def observe(self, state: Report) -> Array:
        return state.x[None]

    def outcome(self, state: Report) -> Outcome:
        return Outcome(state.terminated, state.success, state.cause)

    def leave(self, state: Report) -> Report:
        return state

    def telemetry(self, state: Report) -> dict[str, Array]:
        return {"x_m": state.x}

    def guide(self, state: Report) -> Array:
        return jnp.zeros(1)


@pytest.fixture(scope="module")
def phase():
    return make_phase(PhaseSpec(Nothing, lambda params: Reporter(), lambda params: _reward, sac=probe_sac()))


@pytest.fixture(scope="module")
def flight(phase):
    return compile_flight(phase.guided())


def _reward(state: Report, action: Array, after: Report, outcome: Outcome) -> dict[str, Array]:
    return {"x": after.x}


def reports(*rows: tuple[bool, bool, int], x: float = 0.0) -> Report:
    terminated, success, cause = zip(*rows, strict=True)
    numbers = np.full(len(rows), x, np.float32)
    return Report(np.array(terminated), np.array(success), np.array(cause, np.int32), numbers)


WRONG = [
    ((True, False, 2), "cause 2"),  # the engine's time_out has this index
    ((True, False, 3), "cause 3"),  # and its non_finite this one
    ((True, False, 4), "cause 4"),
    ((True, False, -1), "cause -1"),
    ((True, False, 2**31 - 1), "cause 2147483647"),
    ((True, True, 5), "cause 5"),
    ((True, False, 0), 'a failure with cause 0 ("done")'),
    ((True, True, 1), 'a success with cause 1 ("failed")'),
]


@pytest.mark.parametrize(("row", "found"), WRONG)
def test_a_wrong_cause_of_a_flight_is_named(phase, flight, row, found):
    rows = reports(END, row, END)
    with pytest.raises(PluginError) as caught:
        fly_rows(phase.guided(), flight, None, rows, np.arange(3), jax.random.key(0))
    assert f"found: {found}; 1 of 3 flights" in str(caught.value)
    assert "causes 0 to 1" in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_cause_counts_only_where_the_plugin_ended_the_flight(phase, flight):
    """Undefined before the end, and irrelevant where the engine ends the flight or the vehicle never entered."""
    rows = reports(END, (True, False, 1), (False, False, 77), (False, False, 0))
    result = fly_rows(phase.guided(), flight, None, rows, np.arange(4), jax.random.key(0))
    assert result.cause.tolist() == [0, 1, 2, 2]
    broken = fly_rows(
        phase.guided(), flight, None, reports((True, False, 9), x=np.nan), np.zeros(1, int), jax.random.key(0)
    )
    assert broken.cause.tolist() == [3]
    keys = jax.random.split(jax.random.key(0), 2)
    alive = np.array([True, False])
    assert fly_batch(flight, None, reports(END, (True, False, 9)), keys, alive).success.tolist() == [True, False]


@pytest.mark.parametrize(("row", "found"), WRONG)
def test_a_wrong_cause_in_training_is_named(phase, row, found):
    assert isinstance(phase, TrainedPhase)
    state = jax.tree.map(jnp.asarray, reports(END, row))
    envs = EnvBatch(state, jnp.zeros(2, jnp.int32), jnp.zeros(2))
    causes = step_envs(phase, envs, jnp.zeros((2, 1)), jnp.zeros((2, 1)), jax.random.split(jax.random.key(0))).end.cause
    with pytest.raises(PluginError) as caught:
        check_causes(phase, np.array([[0, 1], [causes.min(), causes.max()]]), 160)
    assert f"found: {found}; in training, at vehicle step {160 + 2 * phase.learner.vehicles}" in str(caught.value)


def test_causes_in_training_are_ignored_before_the_end(phase):
    state = jax.tree.map(jnp.asarray, reports((False, False, 9), (True, False, 1)))
    envs = EnvBatch(state, jnp.full(2, 2, jnp.int32), jnp.zeros(2))
    end = step_envs(phase, envs, jnp.zeros((2, 1)), jnp.zeros((2, 1)), jax.random.split(jax.random.key(0))).end
    assert end.cause.tolist() == [0, 1]
    assert check_causes(phase, np.array([[0, 1]]), 0) is None


def test_a_mission_with_a_wrong_cause_neither_flies_nor_trains(tmp_path):
    """The bad cause is reported in random flights and in those of the guide that end off the mark."""
    plugin = CART.replace(OUTCOME, OUTCOME.replace("0, 1)", "0, 3)"))
    mission = load_mission(write_mission(tmp_path, plugin=plugin), ["phases.first.params.tolerance_m=0.005"])
    with pytest.raises(PluginError, match="cause 3"):
        fly_mission(mission, flights=50, policy="guide", allow_local_plugins=True)
    with pytest.raises(PluginError, match="cause 3; in training"):
        train_mission(mission, checkpoints=tmp_path / "ck", allow_local_plugins=True)
    assert not list(tmp_path.rglob("policy"))
