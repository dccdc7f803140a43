"""What a phase declares of its observation and its actions: mirrored flights, and times to an event."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import probes
import pytest
from jax import Array
from probes import Point

from mission import NetworkConfig, PhaseSpec
from mission.errors import PluginError
from mission.learner import Transition
from mission.machine.devices import REPLICATED, SPLIT, mesh
from mission.sac import replay as store
from mission.testing import make_phase
from mission.training.loop import begin, fill_and_warm_up, run_chunk, train_chunk

STEPS, E = 5, 16


@dataclasses.dataclass(frozen=True, eq=False)
class OneSide(probes.Probe):
    """Every flight starts on the same side; the best action is half the sign."""

    observation_names = ("sign", "time")
    mirror = ((-1.0, 1.0), (-1.0,))

    def start(self, key: Array) -> Point:
        return Point(jnp.ones(()), jnp.zeros(()))

    def observe(self, state: Point) -> Array:
        """A constant lets the policy ignore the sign."""
        return jnp.stack([0.3 * state.sign, jnp.ones(())])


@dataclasses.dataclass(frozen=True, eq=False)
class Times(probes.Probe):
    """Five steps without an end of their own; the second action is a time to an event."""

    lives: int = 0
    max_steps: int = STEPS
    action_names = ("push", "wait")
    event_actions = ("wait",)


def spec(environment: Any, **sac: Any) -> PhaseSpec:
    terms = lambda state, action, after, outcome: {"near": 1.0 - 2.0 * (action[0] - 0.5 * state.sign) ** 2}  # noqa: E731
    return PhaseSpec(probes.Nothing, lambda params: environment, lambda params: terms, sac=probes.probe_sac(**sac))


def quiet(*arguments: Any, **details: Any) -> None:
    pass


def asymmetry(mirror: bool) -> float:
    """How far the trained policy is from turning its sign with that of the observation."""
    wide = {"critic": NetworkConfig(width=32, activation="silu"), "exploration_noise": 0.1, "actor_learning_rate": 1e-3}
    run = begin(make_phase(spec(OneSide(), mirror=mirror, **wide)), None, jax.random.key(5))
    fill_and_warm_up(run, quiet)
    for _ in range(3):
        train_chunk(run, quiet)
    learner = run.programs.learner
    here, there = learner.mean_action(learner.policy(run.state.agent), jnp.array([[0.3, 1.0], [-0.3, 1.0]]))[:, 0]
    assert abs(here - 0.5) < 0.1
    return abs(float(here + there))


def test_a_mirrored_policy_is_antisymmetric() -> None:
    assert asymmetry(True) < 0.1
    assert asymmetry(False) > 0.3


def test_every_second_transition_is_mirrored() -> None:
    sac: Any = make_phase(spec(OneSide(), mirror=True, prioritised=False)).build_learner()  # type: ignore[attr-defined]
    count = sac.config.vehicles
    rows = Transition(
        obs=jnp.full((count, 2), 3.0),
        action=jnp.full((count, 1), 0.25),
        reward=jnp.full(count, 2.0),
        next_obs=jnp.full((count, 2), 5.0),
        terminated=jnp.zeros(count),
        ended=jnp.zeros(count),
    )
    replay = store.append(sac.empty_replay(), rows)
    draw = jax.shard_map(
        lambda key: sac.draw_minibatch(sac.init(key), replay, key, 64, jnp.int32(0))[0],
        mesh=mesh(), in_specs=REPLICATED, out_specs=SPLIT, check_vma=False,
    )  # fmt: skip
    batch = jax.tree.map(np.asarray, jax.jit(draw)(jax.random.key(0)))
    turned = batch.action[:, 0] < 0.0
    assert turned.sum() == 32
    np.testing.assert_array_equal(batch.obs, np.where(turned[:, None], [-3.0, 3.0], [3.0, 3.0]))
    np.testing.assert_array_equal(batch.next_obs, np.where(turned[:, None], [-5.0, 5.0], [5.0, 5.0]))
    np.testing.assert_array_equal(np.abs(batch.action), 0.25)
    np.testing.assert_array_equal(batch.reward, 2.0)


def with_attribute(**attributes: Any) -> Any:
    kind = dataclasses.make_dataclass("Changed", [], bases=(probes.Probe,), frozen=True, eq=False)
    for name, value in attributes.items():
        setattr(kind, name, value)
    return kind()


@pytest.mark.parametrize(
    ("environment", "sac", "expected"),
    [
        (with_attribute(mirror=((1.0,), (1.0,))), {}, "2 of the observation, 1 of the action"),
        (with_attribute(mirror=((1.0, 0.5), (1.0,))), {}, "two tuples of signs"),
        (with_attribute(mirror=((1.0, True), (1.0,))), {}, "two tuples of signs"),
        (with_attribute(mirror=[(1.0, 1.0), (1.0,)]), {}, "two tuples of signs"),
        (with_attribute(mirror=1.0), {}, "two tuples of signs"),
        (probes.Probe(), {"mirror": True}, "a mirror, since sac.mirror is true"),
        (with_attribute(event_actions=("pull",)), {}, "a tuple of actions (push)"),
        (with_attribute(event_actions=("push", "push")), {}, "a tuple of actions (push)"),
        (with_attribute(event_actions="push"), {}, "a tuple of actions (push)"),
        (with_attribute(event_actions=([],)), {}, "a tuple of actions (push)"),
        (probes.Probe(), {"episode_noise": True}, "event_actions, since sac.episode_noise is true"),
    ],
)
def test_a_wrong_declaration_is_refused(environment: Any, sac: dict[str, Any], expected: str) -> None:
    with pytest.raises(PluginError) as caught:
        make_phase(spec(environment, **sac))
    assert expected in caught.value.expected


def stored_actions() -> np.ndarray:
    """Actions [T, E, A] of the fill and of a chunk in which the policy does not move."""
    settings = {"fill": {"env_steps": E * 10 * STEPS, "policy": "random"}, "actor_learning_rate": 1e-12}
    sac = settings | {"episode_noise": True, "exploration_noise": 0.1}
    run = begin(make_phase(spec(Times(), **sac)), None, jax.random.key(5))
    run_chunk(run, "fill", run.phase.learner.fill_cycles, True)
    run_chunk(run, "chunk", 10 * STEPS, False)
    filled = int(run.state.replay.size)
    return np.asarray(run.state.replay.rows[:filled, 2:4]).reshape(-1, E, 2)


def test_the_noise_of_an_event_is_drawn_once_per_episode() -> None:
    actions = stored_actions()
    assert len(actions) == 20 * STEPS
    push, wait = np.moveaxis(actions.reshape(-1, STEPS, E, 2), 3, 0)  # [episodes, STEPS, E] each
    for part in (slice(0, 10), slice(10, 20)):  # random fill, policy
        assert np.ptp(wait[part], axis=1).max() < 1e-5
        assert np.std(wait[part, 0]) > 0.1
        assert len(np.unique(np.round(wait[part, 0], 4))) > 150  # of 160: another one for each vehicle and episode
        assert np.ptp(push[part], axis=1).min() > 1e-3
