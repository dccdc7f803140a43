"""`history: n`: the agent sees the last n observations, and everything else is as it was."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import probes
import pytest
from factory import CART, write_mission
from jax import Array
from typer.testing import CliRunner

from mission import NetworkConfig, Outcome, PhaseSpec, fly_mission, load_mission, train_mission
from mission.cli import app
from mission.errors import PluginError
from mission.missionfile.changes import model_change
from mission.missionfile.phases import TrainedPhase, json_of
from mission.testing import check_phase, make_phase
from mission.training.loop import begin, fill_and_warm_up, train_chunk


class Slide(NamedTuple):
    position: Array
    velocity: Array  # -1 or 1, never observed
    steps: Array


@dataclasses.dataclass(frozen=True, eq=False)
class Hidden(probes.Probe):
    """Two steps; the second action should be half the velocity, of which only two positions tell."""

    lives: int = 2
    observation_names = ("position",)

    def start(self, key: Array) -> Slide:
        one, two = jax.random.split(key)
        velocity = jnp.where(jax.random.bernoulli(one), 1.0, -1.0).astype(jnp.float32)
        return Slide(jax.random.uniform(two, minval=-1.0, maxval=1.0), velocity, jnp.zeros(()))

    def step(self, key: Array, state: Slide, action: Array) -> Slide:
        return Slide(state.position + 0.5 * state.velocity, state.velocity, state.steps + 1.0)

    def observe(self, state: Slide) -> Array:
        return state.position[None]

    def telemetry(self, state: Slide) -> dict[str, Array]:
        return {"position_m": state.position}

    def guide(self, state: Slide) -> Array:
        return 0.5 * state.velocity[None]


def hidden(**sac: Any) -> PhaseSpec:
    def terms(params: Any) -> Any:
        second = lambda state: state.steps == 1.0  # noqa: E731
        return lambda state, action, after, outcome: {
            "near": jnp.where(second(state), 1.0 - 2.0 * (action[0] - 0.5 * state.velocity) ** 2, 0.0)
        }

    settings = {"critic": NetworkConfig(width=32, activation="silu"), "exploration_noise": 0.1}
    return PhaseSpec(probes.Nothing, lambda params: Hidden(), terms, sac=probes.probe_sac(**(settings | sac)))


def error_of(history: int) -> float:
    """The root mean square error of the trained agent's second action."""
    run = begin(make_phase(hidden(history=history)), None, jax.random.key(5))
    fill_and_warm_up(run, lambda *arguments, **details: None)
    for _ in range(7):
        train_chunk(run, lambda *arguments, **details: None)
    env, keys = run.phase.environment, jax.random.split(jax.random.key(1), 256)
    state = jax.vmap(env.enter)(keys, jax.vmap(env.start)(keys))
    state = jax.vmap(env.step)(keys, state, jnp.zeros((256, 1)))
    learner = run.programs.learner
    action = learner.mean_action(learner.policy(run.state.agent), jax.vmap(env.observe)(state))
    return float(jnp.sqrt(((action - jax.vmap(env.guide)(state)) ** 2).mean()))


def test_what_two_observations_tell_is_learned_with_two() -> None:
    assert error_of(2) < 0.15
    assert error_of(1) > 0.3


def test_the_newest_observation_comes_first_and_the_first_is_repeated() -> None:
    env = make_phase(hidden(history=3)).environment
    assert env.observation_names == ("position", "position[-1]", "position[-2]")
    key = jax.random.key(0)
    start = env.start(key)
    state, seen = env.enter(key, start), []
    for _ in range(4):
        seen.append(np.asarray(env.observe(state)))
        state = env.step(key, state, jnp.zeros(1))
    x, v = float(start.position), 0.5 * float(start.velocity)
    expected = [[x, x, x], [x + v, x, x], [x + 2 * v, x + v, x], [x + 3 * v, x + 2 * v, x + v]]
    np.testing.assert_allclose(seen, expected, atol=1e-6)
    assert isinstance(env.leave(state), Slide)
    assert float(env.guide(state)[0]) == 0.5 * float(start.velocity)
    assert isinstance(env.outcome(state), Outcome)
    assert env.lives == 2  # type: ignore[attr-defined]  # what the contract does not know comes from the phase


def test_one_observation_leaves_the_phase_as_it_is() -> None:
    """So its programs are the same, and so are policies that were stored before the option existed."""
    spec = hidden()
    phase = make_phase(spec)
    assert type(phase.environment) is Hidden
    assert isinstance(phase, TrainedPhase)
    assert spec.sac is not None
    before = {
        key: value for key, value in json_of(spec.sac).items() if key not in ("history", "episode_noise", "mirror")
    }
    assert model_change(before, spec.sac, "sac") == ""
    assert "history was 1, is 2" in model_change(before | {"history": 1}, hidden(history=2).sac, "sac")


def test_the_contract_holds_with_it() -> None:
    check_phase(hidden(history=4))


@pytest.mark.parametrize(
    ("names", "history", "found"), [(("x", "x[-1]"), 2, "x[-1]"), (tuple(f"n{i}" for i in range(100)), 64, "6,400")]
)
def test_names_that_do_not_fit_are_refused(names: tuple[str, ...], history: int, found: str) -> None:
    wide = dataclasses.make_dataclass("Wide", [], bases=(Hidden,), frozen=True, eq=False)
    wide.observation_names = names
    spec = dataclasses.replace(hidden(history=history), environment=lambda params: wide())
    with pytest.raises(PluginError, match=r"sac\.history") as caught:
        make_phase(spec)
    assert found in caught.value.found


MISSION = """\
name: stacked
phases:
  - name: first
    plugin: ./cart.py
    sac: {history: 3}
    budget: {env_steps: 512}
    evaluation: {every_env_steps: 512, flights: 50}
    bank: {flights: 100, minimum: 4}
  - name: second
    plugin: ./cart.py
    policy: guide
    bank: {flights: 100, minimum: 4}
"""


def test_a_mission_trains_flies_and_reports_with_it(tmp_path: Path) -> None:
    path = write_mission(tmp_path, MISSION, CART)
    checked = CliRunner().invoke(app, ["check", str(path), "--allow-local-plugins"]).stdout
    assert "6 observations, 1 action, " in checked
    assert "2 observations, 1 action, " in checked
    mission = load_mission(path)
    train_mission(mission, checkpoints=tmp_path, log_dir=tmp_path / "runs", allow_local_plugins=True)
    policy = json.loads((tmp_path / "stacked" / "first" / "policy" / "policy.json").read_text())
    assert policy["observation_names"] == [
        name + back for back in ("", "[-1]", "[-2]") for name in ("position", "velocity")
    ]
    options: dict[str, Any] = {"checkpoints": tmp_path, "flights": 100, "allow_local_plugins": True}
    plain = fly_mission(mission, **options)
    reported = fly_mission(mission, report=tmp_path / "report", **options)
    assert plain.success == reported.success
    assert (tmp_path / "report" / "index.html").stat().st_size > 1000
