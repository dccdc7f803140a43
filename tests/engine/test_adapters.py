"""Phases, policies and banks from Python: the same numbers as in training and in compiled flights."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import probes
import pytest

from mission import load_bank, load_mission, load_policy, make_env, resolve_mission
from mission.errors import InputError, LinkError, MachineError
from mission.flight.batches import BLOCK, compile_flight, flight_keys, nominal_starts
from mission.flight.fly import enter_phase
from mission.missionfile.models import Restart
from mission.testing import make_phase
from mission.training.bank import TerminalBank, fit_density
from mission.training.restart import snapshot_steps
from mission.training.step import keep_snapshots, start_waiting, step_envs, waiting_envs

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "checkpoints" / "shipped"
V = 48


def drift(**restart: float) -> Any:
    phase = make_phase(probes.drift(sac=probes.probe_sac(), until=9, wind=0.1, max_steps=7), name="drift")
    mixture = Restart(**(restart or {"stored": 0.5, "noisy": 0.3, "nominal": 0.2}))
    return dataclasses.replace(phase, entry=phase.entry.model_copy(update={"restart": mixture}))


def bank(rows: int = 32) -> TerminalBank:
    def draw(key: Any) -> Any:
        return probes.DriftEnvironment().start(key)._replace(age=jax.random.randint(key, (), 0, 5))

    stored = jax.tree.map(np.asarray, jax.vmap(draw)(jax.random.split(jax.random.key(5), rows)))
    return TerminalBank(stored, stored, *fit_density(stored))


@pytest.mark.parametrize("restart", [{}, {"stored": 0.7, "noisy": 0.1, "nominal": 0.2, "visited": 0.5}])
def test_steps_are_those_of_training(restart: dict[str, float]) -> None:
    """Bit by bit, over restarts from a bank, ends, time-outs and visited states."""
    phase, held = drift(**restart), jax.tree.map(jnp.asarray, bank())
    horizon = snapshot_steps(phase, 0)
    env = make_env(phase, bank=bank(), vehicles=V)
    step, start, move = (
        jax.jit(env.step),
        jax.jit(start_waiting, static_argnums=0),
        jax.jit(step_envs, static_argnums=0),
    )
    keep = jax.jit(keep_snapshots, static_argnums=3)
    state, obs = jax.jit(env.init)(jax.random.key(0))
    envs = start(phase, held, waiting_envs(phase, V, horizon), jax.random.split(jax.random.key(0), V))
    ends = {"terminated": 0, "truncated": 0}
    for i in range(40):
        key = jax.random.key(i + 1)
        starts, moves = jax.random.split(key, (2, V))
        action = 2.0 * jax.random.normal(jax.random.key(1000 + i), (V, 2))
        trained = move(phase, envs, obs, action, moves)
        after = trained.envs
        if envs.snapshots:
            kept = keep(envs.snapshots, envs, trained.end.ended, horizon, jax.random.fold_in(starts[0], 1))
            after = after._replace(snapshots=kept)
        envs = start(phase, held, after, starts)
        state, result = step(key, state, action)
        obs = result.obs
        for mine, theirs in zip(jax.tree.leaves(state), jax.tree.leaves(envs), strict=True):
            np.testing.assert_array_equal(mine, theirs)
        np.testing.assert_array_equal(result.next_obs, trained.transition.next_obs)
        np.testing.assert_array_equal(result.reward, trained.transition.reward)
        np.testing.assert_array_equal(result.terminated, trained.transition.terminated > 0)
        np.testing.assert_array_equal(result.terminated | result.truncated, trained.end.ended)
        ends = {name: count + int(getattr(result, name).sum()) for name, count in ends.items()}
    assert min(ends.values()) > 20


def test_time_outs_are_flagged_and_rewards_are_the_sum_of_their_terms() -> None:
    env = make_env(make_phase(probes.time_out()), vehicles=4)
    state, _ = jax.jit(env.init)(jax.random.key(0))
    step = jax.jit(env.step)
    for steps in (1, 2, 3):
        state, result = step(jax.random.key(steps), state, jnp.zeros((4, 1)))
        assert not result.terminated.any()
        assert (result.truncated == (steps == 3)).all()
        assert (result.steps == steps).all()
        np.testing.assert_array_equal(result.reward, sum(result.terms.values()))
    assert [env.causes[cause] for cause in result.cause] == ["time_out"] * 4
    assert not result.success.any()
    np.testing.assert_array_equal(result.returns, 3.0)


def test_steps_run_in_a_scan_and_take_parameters() -> None:
    env = make_env("vertical_burn", params={"touchdown_speed_m_s": 20.0}, vehicles=16, guide=True)

    def fly(carry: Any, key: Any) -> Any:
        state, _ = carry
        state, result = env.step(key, state, env.guide(state))
        return (state, result.obs), result

    _, results = jax.jit(lambda key: jax.lax.scan(fly, env.init(key), jax.random.split(key, 400)))(jax.random.key(0))
    assert results.terminated.sum() >= 16
    np.testing.assert_array_equal(results.success, results.terminated)
    assert results.obs.shape == (400, 16, len(env.observation_names))


def test_wrong_arguments_are_named() -> None:
    phase = drift()
    for arguments, expected in (
        ({"vehicles": 0}, "whole number from 1"),
        ({"params": {"a": 1}}, "params only with a name"),
        ({"bank": {"rows": 1}}, "from load_bank"),
    ):
        with pytest.raises(InputError, match=expected):
            make_env(phase, **arguments)
    with pytest.raises(InputError, match=r"params\.speed"):
        make_env("vertical_burn", params={"speed": 1.0})
    with pytest.raises(InputError, match="that an agent can fly"):
        make_env(make_phase(probes.drift()))
    with pytest.raises(LinkError, match="height_m"):
        make_env("vertical_burn", bank=bank())
    with pytest.raises(InputError, match="found: none"):
        make_env(make_phase(probes.constant()), guide=True)


# Policies and banks


def test_a_policy_flies_as_the_compiled_flight() -> None:
    """Flown from Python, one control step after another, each flight ends alike."""
    mission = load_mission(ROOT / "missions" / "vertical.yaml")
    policy = load_policy(mission, "burn", SHIPPED)
    phase, env, rows = policy.phase, policy.phase.environment, 64
    keys = flight_keys(jax.random.key(3), np.arange(BLOCK))
    starts = nominal_starts(phase, keys)
    flown = compile_flight(phase)(policy.actor, starts, keys, np.ones(BLOCK, bool))
    state = enter_phase(phase, jax.tree.map(lambda leaf: leaf[:rows], starts), keys[:rows])
    step = jax.jit(jax.vmap(env.step))
    fold = jax.jit(jax.vmap(jax.random.fold_in, (0, None)))
    steps, ended = np.zeros(rows, int), np.zeros(rows, bool)
    success, observe, judge = np.zeros(rows, bool), jax.jit(jax.vmap(env.observe)), jax.jit(jax.vmap(env.outcome))
    while not ended.all():
        obs = observe(state)
        state = step(fold(keys[:rows], steps.max() + 1), state, policy(obs))
        outcome, steps = judge(state), steps + ~ended
        now = np.asarray(outcome.terminated) & ~ended
        success, ended = np.where(now, outcome.success, success), ended | now
    np.testing.assert_array_equal(success, flown.success[:rows])
    np.testing.assert_array_equal(steps, flown.steps[:rows])
    assert 40 < success.sum() < rows


def test_a_policy_takes_one_observation_or_many() -> None:
    mission = load_mission(ROOT / "missions" / "vertical.yaml")
    policy = load_policy(mission, "burn", SHIPPED)
    env = make_env(policy.phase, bank=load_bank(mission, "coast", SHIPPED), vehicles=5)
    state, obs = env.init(jax.random.key(0))
    many, one = policy(obs), policy(obs[2])
    assert (many.shape, one.shape) == ((5, 1), (1,))
    np.testing.assert_allclose(one, many[2], atol=1e-6)
    np.testing.assert_allclose(policy.observe(jax.tree.map(lambda leaf: leaf[2], state.state)), obs[2], atol=1e-6)
    assert policy.action_names == ("throttle",)
    assert all(isinstance(value, np.ndarray) for value in policy.params.values())
    assert policy.description is not None
    assert set(policy.description.tensors) <= set(policy.params)
    assert [scale.shape for scale in policy.scales] == [(6,), (6,)]
    with pytest.raises(InputError, match=r"observations \[6\]"):
        policy(np.zeros(7))


def test_the_scales_of_a_policy_are_those_of_its_network() -> None:
    mission = load_mission(ROOT / "missions" / "landing_only.yaml")
    policy = load_policy(mission, "landing", SHIPPED)
    mean, std = policy.scales
    assert mean.shape == std.shape == (len(policy.observation_names),)
    assert (std > 0).all()
    assert (mean != 0).any()


def test_a_bank_has_rows_with_names() -> None:
    mission = load_mission(ROOT / "missions" / "vertical.yaml")
    stored = load_bank(mission, "coast", SHIPPED)
    columns = stored.columns()
    assert list(columns) == list(stored.names)
    assert columns["height_m"].shape == (len(columns["mass_kg"]),)
    assert len(stored.mean) == len(stored.factor) == len(stored.names)
    phase = resolve_mission(mission)[1]
    env = make_env(phase, bank=stored, vehicles=256)
    state, _ = jax.jit(env.init)(jax.random.key(1))
    heights = np.asarray(state.state.booster.height_m)
    assert np.isin(heights, columns["height_m"]).mean() > 0.6  # restart.stored


def test_missing_policies_and_banks_are_named(tmp_path: Path) -> None:
    mission = load_mission(ROOT / "missions" / "vertical.yaml")
    with pytest.raises(InputError, match="coast, burn"):
        load_policy(mission, "landing", SHIPPED)
    with pytest.raises(MachineError, match="a trained policy"):
        load_policy(mission, "burn", tmp_path)
    with pytest.raises(MachineError, match="mission train"):
        load_bank(mission, "coast", tmp_path)
    with pytest.raises(InputError, match="one that its guide flies"):
        load_policy(mission.flown_by({"burn": "guide"}), "burn", SHIPPED)
