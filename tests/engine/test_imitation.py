"""Imitation of a guidance law: the labels, the policy that results, and what is stored of it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from linear_quadratic import best_gain, regulator

from mission import ActorConfig, FillConfig, ImitationConfig
from mission.learner import Labels
from mission.machine.devices import AXIS
from mission.sac.imitate import fit
from mission.sac.losses import create_agent
from mission.sac.networks import make_networks, mean_action
from mission.sac.replay import unpack
from mission.testing import make_phase
from mission.training.loop import begin, fill_and_warm_up, imitate

ROUNDS = 3
SETTINGS = ImitationConfig(
    rounds=ROUNDS, guide_shares=(1.0, 0.5), env_steps=1024, rows=2048, updates=200, batch_size=128
)


@pytest.fixture(scope="module")
def imitated():
    """A run after its imitation, and the events of it."""
    spec = regulator(
        imitation=SETTINGS,
        standardise=True,
        vehicles=32,
        actor=ActorConfig(width=32, depth=1, activation="tanh", log_std_max=-2.5),
        fill=FillConfig(env_steps=512, policy="agent"),
    )
    run, events = begin(make_phase(spec), None, jax.random.key(0)), []
    fill_and_warm_up(run, lambda kind, **event: events.append((kind, event)))
    return run, events


def test_the_policy_acts_as_the_guide(imitated):
    run, _ = imitated
    learner = run.programs.learner
    x = jnp.linspace(-0.5, 0.5, 11)[:, None]
    action = learner.mean_action(learner.policy(run.state.agent), x)[:, 0]
    np.testing.assert_allclose(action, -best_gain() * x[:, 0], atol=0.03)


def test_each_round_is_reported(imitated):
    _, events = imitated
    rounds = [event for kind, event in events if kind == "imitation"]
    assert [event["data"]["round"] for event in rounds] == [1, 2, 3]
    assert [event["scalars"]["Imitation/GuideShare"] for event in rounds] == [1.0, 0.5, 0.0]
    assert rounds[-1]["scalars"]["Imitation/Loss"] < 0.25 * rounds[0]["scalars"]["Imitation/Loss"]
    assert "Imitation/Success" not in rounds[0]["scalars"]  # the guide flies every vehicle
    assert rounds[-1]["scalars"]["Imitation/Success"] == 0.0  # there is no success in this problem


def test_actor_average_and_imitator_are_one_policy_afterwards(imitated):
    agent = imitated[0].state.agent
    for a, b, c in zip(*map(jax.tree.leaves, (agent.actor, agent.average, agent.imitator)), strict=True):
        assert np.array_equal(a, b)
        assert np.array_equal(a, c)
    assert all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves(agent.actor_optimiser))


def test_the_statistics_are_those_of_the_first_labels(imitated):
    """The guide flies the first round alone: x shrinks from uniform in [-1, 1] by 1 - k / 2 per step, over 20 steps."""
    run, _ = imitated
    statistics = run.state.agent.actor["statistics"]["standardise"]
    assert abs(float(statistics["mean"][0])) < 0.05
    factor = 1.0 - 0.5 * best_gain()
    expected = np.sqrt(np.mean([factor ** (2 * t) / 3.0 for t in range(20)]))
    assert float(statistics["std"][0]) == pytest.approx(expected, rel=0.1)
    for part in ("critic", "target_critic"):
        other = getattr(run.state.agent, part)["statistics"]["standardise"]
        assert np.array_equal(other["std"], statistics["std"])


def test_the_fill_is_flown_by_the_imitator(imitated):
    """Its actions differ from the guide's by the exploration alone, whose deviation is at most exp(-2.5)."""
    run, _ = imitated
    rows = run.programs.learner.example
    stored = unpack(run.state.replay.rows[: int(run.state.replay.size)], rows)
    error = np.arctanh(np.clip(stored.action[:, 0], -0.999, 0.999)) - np.arctanh(-best_gain() * stored.obs[:, 0])
    assert np.abs(error[np.abs(stored.obs[:, 0]) < 0.5]).max() < 5 * np.exp(-2.5)


def test_the_imitation_is_the_same_again(imitated):
    run, _ = imitated
    again = begin(run.phase, None, jax.random.key(0))
    imitate(again, lambda *_, **__: None)
    for a, b in zip(
        jax.tree.leaves(again.state.agent.imitator), jax.tree.leaves(run.state.agent.imitator), strict=True
    ):
        assert np.array_equal(a, b)


def test_a_signal_ends_it_between_two_rounds(imitated):
    run, events = begin(imitated[0].phase, None, jax.random.key(0)), []
    emit = lambda kind, **event: events.append(kind)  # noqa: E731
    assert not fill_and_warm_up(run, emit, lambda: len(events) == 2)
    assert events == ["imitation", "imitation"]
    assert run.progress.env_steps == 0


def test_an_event_time_weighs_more_near_its_event() -> None:
    """Labels contradict each other: at weight W the best answer to (now, later) in equal parts is pulled to now.

    With a quadratic loss, of W for -1 and 1 for 0.5, the best constant is (-W + 0.5) / (W + 1).
    """
    spec = regulator(imitation=SETTINGS, actor=ActorConfig(width=8, depth=1, activation="tanh"))
    networks = make_networks(spec.sac, 1)
    agent = create_agent(spec.sac, networks, jax.random.key(0), 1, 0)
    action = jnp.where(jnp.arange(512) % 2 == 0, -1.0, 0.5)[:, None]
    labels = Labels(jnp.zeros((512, 1)), action, jnp.int32(0), jnp.int32(512))
    for weight, event, expected in ((1.0, True, -0.25), (5.0, False, -0.25), (5.0, True, -0.75)):
        settings = ImitationConfig(rounds=1, updates=1500, batch_size=512, huber=10.0, event_weight=weight)
        program = jax.jit(
            jax.shard_map(
                lambda agent, settings=settings, event=event: fit(
                    spec.sac, settings, networks, jnp.array([event]), agent, labels, jnp.int32(0), jax.random.key(1)
                ),
                mesh=jax.make_mesh((1,), (AXIS,)),
                in_specs=P(),
                out_specs=P(),
                check_vma=False,
            )
        )
        fitted, _ = program(agent)
        found = mean_action(spec.sac.actor.head, networks.normal(fitted.actor, jnp.zeros((1, 1))))
        assert float(found[0, 0]) == pytest.approx(expected, abs=0.03)


def test_an_agent_that_starts_from_a_policy_holds_each_array_once(imitated):
    """Chunks overwrite the state that they are given. An array that stood in it twice was freed twice: a crash."""
    run, _ = imitated
    started = begin(
        run.phase, None, jax.random.key(1), jax.tree.map(jnp.copy, run.programs.learner.policy(run.state.agent))
    )
    arrays = [leaf.addressable_shards[0].data for leaf in jax.tree.leaves(started.state.agent)]
    assert len({array.unsafe_buffer_pointer() for array in arrays}) == len(arrays)
