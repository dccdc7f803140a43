"""Options of the SAC learner against closed forms and counts: soft n-step returns, discount, target entropy, fill."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import probes
import pytest
from factory import MISSION, write_mission
from jax import Array
from jax.sharding import PartitionSpec
from typer.testing import CliRunner

from mission import ActorConfig, NetworkConfig, PhaseSpec, SacConfig, load_mission
from mission.cli import app
from mission.errors import InputError, PluginError
from mission.learner import PhaseInterface, Transition
from mission.machine.devices import AXIS, REPLICATED, SPLIT, mesh
from mission.missionfile.resolve import resolve_mission
from mission.sac import memory
from mission.sac import replay as store
from mission.sac.entropy import gaussian_entropy, largest_entropy, target_entropy
from mission.sac.learner import Sac
from mission.sac.losses import td_target
from mission.testing import check_phase, make_phase
from mission.training.loop import begin, fill_and_warm_up, fly_evaluation, train_chunk

GAMMA = 0.9
TINY = NetworkConfig(width=4, depth=1)


def small(**changes: Any) -> SacConfig:
    settings: dict[str, Any] = {
        "actor": ActorConfig(width=4, depth=1),
        "critic": TINY,
        "gamma": GAMMA,
        "vehicles": 4,
        "buffer_size": 4096,
        "batch_size": 64,
        "updates_per_step": 1.0,
        "fill": {"env_steps": 64},
    }
    return SacConfig.model_validate(settings | changes)


def on_devices(function: Callable[..., Any], out: Any = SPLIT) -> Callable[..., Any]:
    """A compiled function of replicated arguments that runs on every device, as a learner does."""
    return jax.jit(jax.shard_map(function, mesh=mesh(), in_specs=REPLICATED, out_specs=out, check_vma=False))


def remembered(sac: Sac, steps: int, seed: int = 0, **fields: Any) -> Any:
    """A replay of so many steps of E vehicles: the same observation, uniform actions, reward 0, no end."""
    vehicles, replay, rng = sac.config.vehicles, sac.empty_replay(), np.random.default_rng(seed)
    remember = jax.jit(sac.remember)
    for step in range(steps):
        zeros, obs = np.zeros(vehicles, np.float32), np.zeros((vehicles, sac.observations), np.float32)
        action = rng.uniform(-1.0, 1.0, (vehicles, sac.actions)).astype(np.float32).clip(-0.9, 1.0)
        values = {"obs": obs, "action": action, "reward": zeros, "next_obs": obs, "terminated": zeros, "ended": zeros}
        values |= {name: field(step) for name, field in fields.items()}
        replay = remember(replay, Transition(**values))
    return replay


# Soft n-step returns


def entropy_of(head: str, std: float) -> float:
    """That of the head with a mean of 0, from the density on a fine grid of actions."""
    if head != "squashed":
        return gaussian_entropy(std)
    action = np.linspace(-1.0, 1.0, 2_000_001)[1:-1]
    u = np.arctanh(action)
    density = np.exp(-0.5 * (u / std) ** 2) / (std * math.sqrt(2 * math.pi)) / (1.0 - action**2)
    return float(-(density * np.log(np.maximum(density, 1e-300))).sum() * (action[1] - action[0]))


@pytest.mark.parametrize(("head", "std"), [("squashed", 0.6), ("bounded", 0.5)])
@pytest.mark.parametrize("n", [1, 3, 5, 12])  # of the last, four steps stand for eleven
def test_the_soft_value_is_the_same_for_every_number_of_steps(n: int, head: str, std: float) -> None:
    """One observation, no reward, no end: Q = gamma alpha H / (1 - gamma) is its own target, whatever was flown."""
    alpha = 0.3
    actor = ActorConfig(width=4, depth=1, head=head, log_std_min=math.log(std) - 1.0, log_std_max=math.log(std) + 1.0)
    config = small(actor=actor, max_std=2 * std, n_step=n, temperature_initial=alpha, prioritised=False)
    sac = Sac(config, PhaseInterface(2, 1))
    agent = sac.init(jax.random.key(0))
    agent = agent._replace(actor=jax.tree.map(jnp.zeros_like, agent.actor))  # mean 0, std in the middle of its range
    value = GAMMA * alpha * entropy_of(head, std) / (1.0 - GAMMA)

    def constant(path: Any, leaf: Array) -> Array:
        return jnp.full_like(leaf, value if "Dense_1" in str(path) and "bias" in str(path) else 0.0)

    agent = agent._replace(target_critic=jax.tree_util.tree_map_with_path(constant, agent.target_critic))

    def targets(replay: Any, key: Array) -> Array:
        batch, _ = sac.draw_minibatch(agent, replay, key, 8192, jnp.int32(0))
        noise = jax.random.normal(jax.random.fold_in(key, jax.lax.axis_index(AXIS) + 9), (batch.reward.size, 1))
        return td_target(config, sac.networks_of, agent, batch, noise)

    target = np.asarray(on_devices(targets)(remembered(sac, 30), jax.random.key(1)))
    error = target.std() / math.sqrt(target.size)
    assert error < 0.01 * abs(value)
    assert abs(target.mean() - value) < 4.0 * error


# Discount by time


def test_the_discount_follows_the_control_period() -> None:
    config = small(discount_time_s=20.0)
    assert config.discount(0.2) == math.exp(-0.01)
    assert small().discount(0.2) == GAMMA
    sac = Sac(small(discount_time_s=20.0, n_step=3), PhaseInterface(2, 1, control_period_s=0.5))
    agent, replay = sac.init(jax.random.key(0)), remembered(sac, 10)
    draw = on_devices(lambda key: sac.draw_minibatch(agent, replay, key, 64, jnp.int32(0))[0].discount)
    discount = np.asarray(draw(jax.random.key(0)))
    steps = np.round(np.log(discount) / (-0.5 / 20.0))
    assert set(steps) == {1.0, 2.0, 3.0}
    np.testing.assert_allclose(discount, np.exp(-0.5 / 20.0) ** steps, rtol=1e-6)


def test_a_mission_file_gives_one_discount(tmp_path: Path) -> None:
    """The one that it gives replaces what the plugin sets, here gamma."""
    path = write_mission(tmp_path)

    def learner(*overrides: str) -> Any:
        return resolve_mission(load_mission(path, list(overrides)), allow_local_plugins=True)[0].learner

    assert learner().discount(0.1) == 0.9
    assert learner("phases.first.sac.discount_time_s=50").discount(0.1) == math.exp(-0.1 / 50)
    assert learner("phases.first.sac.gamma=0.8").discount(0.1) == 0.8
    assert learner("phases.first.sac.discount_time_s=null", "phases.first.sac.gamma=0.8").discount(0.1) == 0.8
    assert learner("phases.first.sac.target_std_fraction=0.5").target_std_fraction == 0.5
    for both in (("gamma=0.8", "discount_time_s=50"), ("target_entropy=-1.0", "target_std_fraction=0.5")):
        with pytest.raises(InputError, match=both[1].partition("=")[0]):
            learner(*(f"phases.first.sac.{one}" for one in both))


# The target entropy


def test_target_std_fraction() -> None:
    config = small(target_std_fraction=0.5, max_std=0.2)
    assert target_entropy(config, 3) == pytest.approx(3 * 0.5 * math.log(2 * math.pi * math.e * 0.1**2))
    assert target_entropy(small(target_std_fraction=1.0), 2) == target_entropy(small(target_entropy="max_std"), 2)


@pytest.mark.parametrize("log_std", [-3.0, -1.0, -0.137, 1.5])
def test_the_largest_entropy_of_the_squashed_head(log_std: float) -> None:
    """Below the best std the bound on it decides; above it, uniform actions are almost reached, and never passed."""
    actor = ActorConfig(log_std_max=log_std, log_std_min=-6.0)
    wanted = entropy_of("squashed", math.exp(min(log_std, math.log(0.873))))
    largest = largest_entropy(small(actor=actor), 2)
    assert largest == pytest.approx(2 * wanted, abs=2e-4)
    assert largest < 2 * math.log(2.0)


REACHED: list[tuple[dict[str, Any], bool]] = [
    ({"actor": {"head": "bounded"}, "target_entropy": "max_std"}, False),
    ({"actor": {"head": "bounded"}, "target_std_fraction": 1.0}, False),
    ({"actor": {"head": "bounded"}, "target_std_fraction": 0.5}, True),
    ({"actor": {"head": "bounded"}, "target_entropy": 1.42}, False),
    ({"actor": {"head": "bounded"}, "target_entropy": 1.41}, True),
    ({"actor": {"head": "bounded"}, "target_entropy": "max_std", "temperature_learned": False}, True),
    ({"target_entropy": 0.7}, False),
    ({"target_entropy": 0.6}, True),
    ({"actor": {"log_std_max": -2.0}}, True),
    ({"actor": {"log_std_max": -2.5}}, False),
    ({"actor": {"head": "softplus"}, "target_entropy": 100.0}, True),
]


@pytest.mark.parametrize(("settings", "reached"), REACHED)
def test_a_target_that_the_head_cannot_reach_is_named(settings: dict[str, Any], reached: bool) -> None:
    actor = {"width": 4, "depth": 1} | settings.get("actor", {})
    found = Sac(small(**settings | {"actor": actor}), PhaseInterface(2, 1)).warnings()
    assert bool(found) is not reached
    key = "target_std_fraction" if "target_std_fraction" in settings else "target_entropy"
    assert all(at == key and "cannot reach" in text for at, text in found)


def test_check_warns_of_it_once_with_the_place(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_mission(tmp_path, MISSION.replace("    gate:", "    sac: {target_entropy: 1.5}\n    gate:"))
    for _ in range(2):  # the result of a check is kept unless it warned
        result = CliRunner().invoke(app, ["check", str(path), "--allow-local-plugins"])
        assert result.exit_code == 0
        (message,) = caplog.messages
        assert message.startswith(
            'mission.yaml:15:11: phases[1] "second": sac.target_entropy: the squashed head cannot'
        )
        caplog.clear()


def test_check_phase_warns_of_it(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "mission"):
        check_phase(probes.constant(target_entropy=0.0, temperature_learned=True), steps=1)
        assert not caplog.messages
        check_phase(probes.constant(target_entropy=0.7, temperature_learned=True), steps=1)
    (message,) = caplog.messages
    assert message.startswith("check_phase(Probe): sac.target_entropy: the squashed head cannot reach")


# The fill


def test_the_agent_flies_the_fill() -> None:
    """A narrow policy whose mean is tanh(1): its actions fill the replay, not uniform ones."""
    actor = ActorConfig(width=4, depth=1, log_std_min=-6.0, log_std_max=-5.0)
    phase = make_phase(probes.constant(actor=actor, fill={"env_steps": 64, "policy": "agent"}, chunk_env_steps=64))

    def one(path: Any, leaf: Array) -> Array:
        last = "Dense_1" in str(path) and "bias" in str(path)
        return jnp.array([1.0, 0.0]) if last else jnp.zeros_like(leaf)

    initial = jax.tree_util.tree_map_with_path(one, phase.build_learner().init(jax.random.key(0)).actor)
    run = begin(phase, None, jax.random.key(0), initial)
    fill_and_warm_up(run, lambda *arguments, **parts: None)
    action = np.asarray(run.state.replay.rows[: int(run.state.replay.size), 2])
    assert action.size == 64
    assert 0.0 < np.abs(action - math.tanh(1.0)).max() < 0.02


# The actor's share of uniform rows


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_actor_sees_its_share_of_uniform_rows(share: float) -> None:
    """One row of 120 has almost all of the priority, so the critics see it alone, and the actor sees the others too."""
    sac = Sac(small(actor_uniform_share=share), PhaseInterface(1, 1))
    replay = remembered(sac, 30, obs=lambda step: (4.0 * step + np.arange(4.0, dtype=np.float32))[:, None])
    errors = jnp.full(4096, 1e-6).at[17].set(1e12)
    replay = store.rebuild_priorities(replay, errors, 1.0, 1e-6)

    def draw(key: Array) -> tuple[Array, Array]:
        agent = sac.init(key)
        batch, index = sac.draw_minibatch(agent, replay, key, 64, jnp.int32(0))
        batch = sac.with_actor_rows(batch, replay, index, key)
        return batch.obs, batch.obs if batch.actor_obs is None else batch.actor_obs

    rows = on_devices(lambda keys: jax.lax.map(draw, keys), PartitionSpec(None, AXIS))(
        jax.random.split(jax.random.key(0), 300)
    )
    critics, actors = (np.asarray(part)[..., 0] for part in rows)
    assert (critics == 17).all()
    counts = np.bincount(actors.astype(int).ravel(), minlength=120)
    uniform = round(share * 64) * 300 / 120
    assert abs(counts[17] - (64 * 300 - uniform * 119)) < 4.5 * math.sqrt(uniform) + 1e-6
    assert np.abs(np.delete(counts, 17) - uniform).max() <= 4.5 * math.sqrt(uniform)
    if share == 0.5:  # each place of the minibatch, whatever its stratum
        assert np.abs((actors != 17).mean(axis=0) - 0.5 * 119 / 120).max() < 4.5 * 0.5 / math.sqrt(300)


# Privileged critics


@dataclasses.dataclass(frozen=True, eq=False)
class Hidden(probes.Probe):
    """The sign is hidden from the actor; `privileged` notes each time that it is traced."""

    privileged_names = ("sign",)
    seen: list[str] = dataclasses.field(default_factory=list)

    def observe(self, state: probes.Point) -> Array:
        return jnp.zeros(2)

    def privileged(self, state: probes.Point) -> Array:
        self.seen.append("privileged")
        return state.sign[None]


def hidden(environment: Callable[..., Any] = Hidden, **sac: Any) -> PhaseSpec:
    """One step, reward = the hidden sign."""

    def terms(params: Any) -> Any:
        return lambda state, action, after, outcome: {"reward": state.sign}

    settings = probes.probe_sac(**{"privileged_critic": True} | sac)
    return PhaseSpec(probes.Nothing, lambda params: environment(), terms, sac=settings)


def test_privileged_critics_learn_what_the_observation_hides() -> None:
    """And the policy has no input for it, nor does the program that flies ever compute it."""
    check_phase(hidden(), steps=2)
    phase = make_phase(hidden(critic_learning_rate=1e-2, tau=0.1, chunk_env_steps=512))
    run = begin(phase, None, jax.random.key(5))
    fill_and_warm_up(run, lambda *arguments, **parts: None)
    for _ in range(4):
        train_chunk(run, lambda *arguments, **parts: None)
    agent, networks = run.state.agent, run.programs.learner.networks_of  # type: ignore[attr-defined]
    view = jnp.array([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]])
    np.testing.assert_allclose(networks.q(agent.critic, view, jnp.zeros((2, 1))), [[1.0, -1.0]] * 2, atol=0.05)
    assert agent.actor["params"]["body"]["Dense_0"]["kernel"].shape[0] == 2
    assert agent.critic["params"]["q1"]["Dense_0"]["kernel"].shape[0] == 2 + 1 + 1
    traced = len(phase.environment.seen)
    assert traced > 0
    fly_evaluation(run, run.best_actor)
    assert len(phase.environment.seen) == traced
    assert Sac(probes.probe_sac(), PhaseInterface(2, 1, privileged=1)).example.privileged is None


class Nameless(Hidden):
    privileged_names = ()


class Empty(probes.Probe):
    privileged_names = ("sign",)


class TooMany(Hidden):
    privileged_names = ("sign", "wind")


class Twice(Hidden):
    privileged_names = ("sign", "sign")


@pytest.mark.parametrize(
    ("environment", "privileged_critic", "reason"),
    [
        (Nameless, False, "privileged_names and privileged together"),
        (Empty, False, "privileged_names and privileged together"),
        (TooMany, False, r"privileged to be float32\[2\]"),
        (Twice, False, "privileged_names to be a tuple of different words"),
        (probes.Probe, True, "privileged values, since sac.privileged_critic is set"),
    ],
)
def test_privileged_values_keep_the_contract(environment: Any, privileged_critic: bool, reason: str) -> None:
    with pytest.raises(PluginError, match=reason):
        make_phase(hidden(environment, privileged_critic=privileged_critic))


def test_check_phase_finds_privileged_values_that_are_not_finite() -> None:
    class Broken(Hidden):
        def privileged(self, state: probes.Point) -> Array:
            return jnp.log(-state.steps)[None]

    with pytest.raises(PluginError, match="a finite privileged value"):
        check_phase(hidden(Broken), steps=2)


# Prior data


def numbered(sac: Sac, steps: int) -> Any:
    """A replay whose observations are 4 step + vehicle, and whose rewards are the step."""
    number = lambda step: 4.0 * step + np.arange(4.0, dtype=np.float32)  # noqa: E731
    return remembered(
        sac,
        steps,
        obs=lambda step: number(step)[:, None],
        next_obs=lambda step: number(step + 1)[:, None],
        reward=lambda step: np.full(4, step, np.float32),
    )


@pytest.mark.parametrize("prioritised", [True, False])
@pytest.mark.parametrize("share", [0.25, 0.5])
def test_prior_transitions_stay_and_are_their_share_of_each_minibatch(prioritised: bool, share: float) -> None:
    """The first 5 steps of 4 vehicles, beside a ring of 10; windows of 3 steps end at the border, weights are exact."""
    prior = {"env_steps": 18, "share": share}
    sac = Sac(
        small(prior=prior, buffer_size=40, fill={"env_steps": 84}, n_step=3, prioritised=prioritised, beta=0.7),
        PhaseInterface(1, 1),
    )
    agent, replay = sac.init(jax.random.key(0)), numbered(sac, 30)
    agent = agent._replace(log_temperature=jnp.float32(-1e9))  # no entropy in the rewards
    np.testing.assert_array_equal(replay.prior.rows[:, 0], np.arange(20))
    np.testing.assert_array_equal(np.sort(replay.recent.rows[:, 0]), np.arange(80, 120))
    errors = np.random.default_rng(1).exponential(size=60).astype(np.float32)
    replay = memory.rebuild_priorities(replay, jnp.asarray(errors), 1.0, 0.0)

    def draw(key: Array) -> Any:
        batch, index = sac.draw_minibatch(agent, replay, key, 64, jnp.int32(0))
        return batch, index[None]

    batch, index = jax.tree.map(np.asarray, on_devices(draw)(jax.random.key(3)))
    index, step, kept = index[0], batch.obs[:, 0] // 4, batch.obs[:, 0] < 20
    assert kept.sum() == round(share * 64)
    np.testing.assert_array_equal(kept, index < 20)
    length = np.minimum(3, np.where(kept, 5, 30) - step)
    np.testing.assert_array_equal(batch.next_obs[:, 0], batch.obs[:, 0] + 4 * length)
    np.testing.assert_allclose(batch.discount, GAMMA**length, rtol=1e-5)
    reward = sum(np.where(k < length, GAMMA**k * (step + k), 0.0) for k in range(3))
    np.testing.assert_allclose(batch.reward, reward, rtol=1e-5)
    mass = np.concatenate([errors[:20] / errors[:20].mean(), errors[20:] / errors[20:].mean()])
    weight = mass[index] ** -0.7 if prioritised else np.ones(64)
    np.testing.assert_allclose(batch.weight, weight / weight.max(), rtol=1e-4)


def test_priorities_of_prior_transitions_are_their_own() -> None:
    sac = Sac(small(prior={"env_steps": 20}, buffer_size=40, fill={"env_steps": 84}), PhaseInterface(1, 1))
    replay = numbered(sac, 12)
    before = np.asarray(replay.recent.tree[-1]).reshape(-1)
    assert (int(replay.prior.size), int(replay.recent.size)) == (20, 28)
    index = jnp.array([3, 19, 20, 47])
    after = memory.update_priorities(replay, index, jnp.array([4.0, 5.0, 6.0, 7.0]), 0.5, 1.0, 0.0)
    prior, recent = (np.asarray(part.tree[-1]).reshape(-1) for part in after)
    np.testing.assert_array_equal(np.delete(prior, [3, 19])[:18], 1.0)
    np.testing.assert_array_equal(prior[[3, 19]], [4.0, 5.0])
    np.testing.assert_array_equal(recent[[0, 27]], [6.0, 7.0])
    np.testing.assert_array_equal(np.delete(recent, [0, 27]), np.delete(before, [0, 27]))
    for part in after:
        np.testing.assert_allclose(part.tree[0].sum(), part.tree[-1].sum(), rtol=1e-6)


def test_prior_transitions_train() -> None:
    """A chunk with everything at once: warm-up, uniform rows, kept rows; the reward is learned from both parts."""
    spec = probes.observed(
        prior={"env_steps": 128, "share": 0.3},
        actor_uniform_share=0.5,
        buffer_size=256,
        batch_size=63,
        n_step=2,
        warm_up={"steps": 200, "learning_rate": 1e-2},
        chunk_env_steps=512,
    )
    run = begin(make_phase(spec), None, jax.random.key(0))
    fill_and_warm_up(run, lambda *arguments, **parts: None)
    kept = np.array(run.state.replay.prior.rows)
    train_chunk(run, lambda *arguments, **parts: None)
    np.testing.assert_array_equal(run.state.replay.prior.rows, kept)
    assert len(np.unique(kept[:, 2])) == 128
    q = run.programs.learner.networks_of.q(  # type: ignore[attr-defined]
        run.state.agent.critic, jnp.array([[1.0, 0.0], [-1.0, 0.0]]), jnp.zeros((2, 1))
    )
    np.testing.assert_allclose(q, [[1.0, -1.0]] * 2, atol=0.1)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"prior": {"env_steps": 4}}, "beyond those of prior.env_steps"),
        ({"prior": {"env_steps": 4}, "batch_size": 1}, "batch_size must be at least 2"),
        ({"prior": {"share": 1.0}}, "less than 1"),
    ],
)
def test_prior_transitions_that_leave_nothing_else_are_refused(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        small(**settings)
