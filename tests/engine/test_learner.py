"""The learner protocol: a second learner trains a probe phase through `train_mission`, and nothing else knows of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from factory import write_mission

from mission import MissionError, fly_mission, load_mission, train_mission
from mission.learner import LEARNERS, Entry
from mission.observers.metrics import read_metrics
from mission.training import loop

# Random search over the actor's last layer: of the last layers tried, keep the one that earned the most per step.
SEARCH = """
from typing import Any, ClassVar, NamedTuple
import jax, jax.numpy as jnp
from mission import Learner, LearnerConfig

class SearchConfig(LearnerConfig):
    width: int = 16
    spread: float = 1.0

class Agent(NamedTuple):
    hidden: Any
    best: Any
    tried: Any
    best_reward: Any
    updates: Any

class Seen(NamedTuple):
    reward: Any
    steps: Any

class Search(Learner):
    metrics: ClassVar = ("Search/Reward", "Search/Best")
    shown: ClassVar = {"best": "Search/Best"}
    warm_up_metric: ClassVar = "Search/WarmUp"

    def __init__(self, config, interface):
        self.config, self.observations, self.actions = config, interface.observations, interface.actions
        self.warm_up_steps = 2

    def init(self, key):
        hidden = jax.random.normal(key, (self.observations, self.config.width))
        last = jnp.zeros((self.config.width, self.actions))
        return Agent(hidden, last, last, jnp.float32(-1e9), jnp.int32(0))

    def empty_replay(self):
        return Seen(jnp.zeros(()), jnp.zeros(()))

    def act(self, agent, obs, key):
        return self.mean_action({"hidden": agent.hidden, "last": agent.tried}, obs)

    def remember(self, replay, transition):
        return Seen(replay.reward + transition.reward.sum(), replay.steps + transition.reward.size)

    def warm_up(self, agent, replay, key):
        return agent, self.empty_replay(), jnp.ones(2)

    def update(self, agent, replay, visited, key):
        earned = replay.reward / jnp.maximum(replay.steps, 1.0)
        better = (earned > agent.best_reward) & (replay.steps > 0.0)
        best = jnp.where(better, agent.tried, agent.best)
        noise = jax.random.normal(jax.random.fold_in(key, agent.updates), best.shape)
        reward = jnp.where(better, earned, agent.best_reward)
        after = Agent(agent.hidden, best, best + self.config.spread * noise, reward, agent.updates + 1)
        return after, self.empty_replay(), {"Search/Reward": earned, "Search/Best": reward}, {}

    def policy(self, agent):
        return {"hidden": agent.hidden, "last": agent.best}

    def with_policy(self, agent, policy):
        return agent._replace(hidden=policy["hidden"], best=policy["last"], tried=policy["last"])

    def mean_action(self, policy, obs):
        return jnp.tanh(jnp.tanh(obs @ policy["hidden"]) @ policy["last"])
"""

# One step per episode; the best action is half the sign that is observed.
PROBE = """
import dataclasses
from typing import NamedTuple
import jax, jax.numpy as jnp
from pydantic import BaseModel
from mission import Environment, FillConfig, Outcome, PhaseSpec, hookimpl
from mission_second_learner import SearchConfig

class Params(BaseModel):
    pass

class Point(NamedTuple):
    sign: jax.Array
    action: jax.Array
    over: jax.Array

@dataclasses.dataclass(frozen=True, eq=False)
class Half(Environment):
    observation_names, action_names, causes = ("sign",), ("push",), ("near", "far")
    control_period_s, max_steps = 1.0, 4
    def start(self, key):
        sign = jnp.where(jax.random.bernoulli(key), 1.0, -1.0).astype(jnp.float32)
        return Point(sign, jnp.zeros(()), jnp.bool_(False))
    def enter(self, key, handoff):
        return handoff._replace(over=jnp.bool_(False))
    def step(self, key, state, action):
        return Point(state.sign, action[0], jnp.bool_(True))
    def observe(self, state):
        return state.sign[None]
    def outcome(self, state):
        near = jnp.abs(state.action - 0.5 * state.sign) < 0.05
        return Outcome(state.over, state.over & near, jnp.where(near, 0, 1).astype(jnp.int32))
    def leave(self, state):
        return state
    def telemetry(self, state):
        return {"action_m": state.action}

@hookimpl
def mission_phase():
    reward = lambda params: lambda state, action, after, outcome: {"near": 1.0 - (action[0] - 0.5 * state.sign) ** 2}
    return PhaseSpec(Params, lambda params: Half(), reward, sac=SearchConfig(
        vehicles=32, updates_per_step=1 / 512, chunk_env_steps=1024, fill=FillConfig(env_steps=64)))
"""

MISSION = """
name: searched
seed: 5
observers: [progress]
phases:
  - name: only
    plugin: ./probe.py
    sac: {spread: 0.3}
    budget: {env_steps: 60000}
    evaluation: {every_env_steps: 1024, flights: 100}
    bank: {flights: 200, minimum: 4}
    gate: {success_low: 0.9, flights: 200}
"""


@pytest.fixture
def second_learner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a mission whose phase is trained by random search."""
    package = tmp_path / "site" / "mission_second_learner"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(SEARCH)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    entry = Entry("mission_second_learner:SearchConfig", "mission_second_learner:Search")
    monkeypatch.setitem(LEARNERS, "search", entry)
    write_mission(tmp_path, MISSION)
    (tmp_path / "probe.py").write_text(PROBE)
    yield tmp_path
    sys.modules.pop("mission_second_learner", None)


def train(folder: Path, name: str = "checkpoints", overrides: tuple[str, ...] = (), **options: Any) -> Any:
    mission = load_mission(folder / "mission.yaml", overrides)
    return train_mission(
        mission, checkpoints=folder / name, log_dir=folder / "runs", allow_local_plugins=True, **options
    )


def content(folder: Path, name: str = "checkpoints") -> str:
    return json.loads((folder / name / "searched" / "only" / "policy" / "meta.json").read_text())["content_sha256"]


def test_a_second_learner_trains_a_phase(second_learner: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (summary,) = train(second_learner)
    assert summary.status == "trained"
    assert summary.gate is not None
    assert summary.gate.passed
    report = fly_mission(
        load_mission(second_learner / "mission.yaml"),
        checkpoints=second_learner / "checkpoints",
        flights=300,
        allow_local_plugins=True,
    )
    assert report.success.low > 0.9
    assert (train(second_learner)[0]).status == "already trained"
    shown = capfd.readouterr().err
    assert "best " in shown
    assert "gate passed" in shown
    lines = read_metrics(second_learner / "checkpoints" / "searched" / "only" / "metrics.jsonl")
    assert {line.kind for line in lines} == {"warm_up", "chunk", "evaluation", "gate"}
    first = next(line for line in lines if line.kind == "evaluation").scalar("Evaluation/Success")
    assert first is not None
    assert first < 0.9
    chunk = next(line for line in lines if line.kind == "chunk")
    assert chunk.scalar("Search/Best") is not None
    assert next(line for line in lines if line.kind == "warm_up").scalar("Search/WarmUp") == 1.0


def test_its_interrupted_training_resumes_bit_identically(
    second_learner: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gate does not stop it, so that there is something to resume."""
    to_the_end = (
        "phases.only.gate.success_low=0.0",
        "phases.only.gate.stop=false",
        "phases.only.budget.env_steps=6000",
    )
    train(second_learner, "whole", to_the_end)

    def broken(run: Any, emit: Any, original: Any = loop.train_chunk) -> None:
        if run.progress.chunks == 2:
            raise KeyboardInterrupt
        original(run, emit)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_chunk", broken)
        with pytest.raises(KeyboardInterrupt):
            train(second_learner, "cut", to_the_end, checkpoint_every_s=0.0)
    assert train(second_learner, "cut", to_the_end)[0].status == "trained"
    assert content(second_learner, "cut") == content(second_learner, "whole")


def test_a_learner_that_is_not_entered_is_refused(second_learner: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(LEARNERS, "search")
    with pytest.raises(MissionError, match=r"settings of a learner \(sac\)"):
        train(second_learner)
