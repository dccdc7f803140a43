"""Phases for gymnax and Brax, and environments of other libraries as phases."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import probes
import pytest
from factory import write_mission

from mission import SacConfig, load_mission, make_env, resolve_mission
from mission.adapters import brax_phase, gymnax_phase, playground_phase
from mission.adapters.foreign import Foreign
from mission.adapters.gymnax import GymnaxEnv
from mission.errors import MachineError, PluginError
from mission.machine.devices import flags_without_fusion
from mission.testing import check_phase, make_phase


def drift(name: str = "drift", **fields: Any) -> Any:
    return make_phase(probes.drift(sac=probes.probe_sac(), **fields), name=name)


# gymnax


def test_the_interface_of_gymnax_steps_as_the_engine() -> None:
    env, engine = GymnaxEnv(drift(until=4, max_steps=3)), make_env(drift(until=4, max_steps=3))
    params = env.default_params
    obs, state = jax.jit(env.reset)(jax.random.key(0), params)
    own, first = jax.jit(engine.init)(jax.random.key(0))
    np.testing.assert_array_equal(obs, first[0])
    step, own_step = jax.jit(env.step), jax.jit(engine.step)
    for i in range(7):
        action = jnp.array([0.5, -2.0])
        obs, state, reward, terminated, truncated, info = step(jax.random.key(i), state, action, params)
        own, result = own_step(jax.random.key(i), own, action[None])
        np.testing.assert_array_equal(obs, result.obs[0])
        np.testing.assert_array_equal(info["final_observation"], result.next_obs[0])
        assert (reward, terminated, truncated) == (result.reward[0], result.terminated[0], result.truncated[0])
        assert bool(truncated) == (i % 3 == 2)
    vectorised = jax.jit(jax.vmap(env.reset, (0, None)))(jax.random.split(jax.random.key(1), 5), params)
    moved = jax.jit(jax.vmap(env.step, (0, 0, 0, None)))(
        jax.random.split(jax.random.key(2), 5), vectorised[1], jnp.zeros((5, 2)), params
    )
    assert moved[0].shape == (5, 4)
    assert (env.num_actions, env.name) == (2, "drift")


def test_the_spaces_of_gymnax() -> None:
    pytest.importorskip("gymnax", reason="needs gymnax")
    env = GymnaxEnv(drift())
    assert env.observation_space(env.default_params).shape == (4,)
    assert env.action_space().low == -1.0


# Brax


def test_an_environment_of_brax() -> None:
    training = pytest.importorskip("brax.envs.wrappers.training", reason="needs the extra brax")
    adapter = importlib.import_module("mission.adapters.brax")
    env = adapter.BraxEnv(drift(until=6, max_steps=4))
    assert (env.observation_size, env.action_size, env.episode_length) == (4, 2, 4)
    wrapped = training.AutoResetWrapper(training.EpisodeWrapper(training.VmapWrapper(env), env.episode_length, 1))
    state, step = jax.jit(wrapped.reset)(jax.random.split(jax.random.PRNGKey(0), 8)), jax.jit(wrapped.step)
    begun = state.obs
    for i in range(1, 5):
        before, state = state, step(state, jnp.full((8, 2), 0.5))
        np.testing.assert_array_equal(state.done, float(i == 4))
    np.testing.assert_array_equal(state.info["truncation"], 1.0)
    np.testing.assert_array_equal(state.obs, begun)  # Brax's own restart
    np.testing.assert_array_equal(state.metrics["x"], state.reward)
    assert (state.reward != before.reward).any()


# Environments of other libraries


def survive(spec: Any) -> Foreign:
    phase = make_phase(spec)
    assert isinstance(phase.environment, Foreign)
    return phase.environment


def test_a_pendulum_of_gymnax_is_a_phase() -> None:
    gymnax = pytest.importorskip("gymnax", reason="needs gymnax")
    spec = gymnax_phase("Pendulum-v1")()
    check_phase(spec)
    own, params = gymnax.make("Pendulum-v1")
    env = make_env(make_phase(spec), vehicles=3)
    state, _ = jax.jit(env.init)(jax.random.key(0))
    step = jax.jit(env.step)
    for i in range(200):
        foreign = jax.tree.map(lambda leaf: leaf[0], state.state.foreign)
        state, result = step(jax.random.key(i), state, jnp.full((3, 1), 0.25))
        if i % 40 == 0:
            seen, _, reward, done, _ = own.step_env(jax.random.key(9), foreign, jnp.array([0.5]), params)
            np.testing.assert_allclose(result.next_obs[0], seen, atol=1e-5)
            np.testing.assert_allclose(result.reward[0], reward, atol=1e-5)
            assert not done
    assert result.truncated.all()
    assert result.success.all()  # it has survived, which is all that there is to do
    assert [env.causes[cause] for cause in result.cause] == ["survived"] * 3


def test_reaching_a_goal_can_be_the_success() -> None:
    pytest.importorskip("gymnax", reason="needs gymnax")
    spec = gymnax_phase("MountainCarContinuous-v0", goal=True)()
    assert survive(spec).time_out_cause is None
    assert spec.params().max_steps == 999
    check_phase(spec, spec.params(max_steps=20))


def test_what_cannot_be_a_phase_is_named() -> None:
    pytest.importorskip("gymnax", reason="needs gymnax")
    with pytest.raises(PluginError, match="continuous actions"):
        gymnax_phase("CartPole-v1")()
    with pytest.raises(PluginError, match="Nothing-v1"):
        gymnax_phase("Nothing-v1")()


def test_two_lines_are_a_plugin(tmp_path: Path) -> None:
    pytest.importorskip("gymnax", reason="needs gymnax")
    plugin = 'from mission.adapters import gymnax_phase\nmission_phase = gymnax_phase("Pendulum-v1")\n'
    text = "name: swing\nphases:\n  - {name: up, plugin: ./cart.py, params: {max_steps: 50}}\n"
    (phase,) = resolve_mission(load_mission(write_mission(tmp_path, text, plugin)), allow_local_plugins=True)
    assert phase.environment.max_steps == 50
    assert phase.learner == SacConfig()


def test_an_environment_of_brax_is_a_phase() -> None:
    pytest.importorskip("brax.envs", reason="needs the extra brax")
    check_phase(brax_phase("fast")(), steps=20)


@pytest.mark.slow
def test_a_reacher_of_brax_is_a_phase() -> None:
    pytest.importorskip("brax.envs", reason="needs the extra brax")
    check_phase(brax_phase("reacher")(), steps=20)


@pytest.mark.slow
def test_an_environment_of_playground_is_a_phase() -> None:
    pytest.importorskip("mujoco_playground", reason="needs the extra playground")
    check_phase(playground_phase("CartpoleBalance")(), steps=20)


@pytest.mark.parametrize(
    ("hook", "module", "extra"),
    [(gymnax_phase, "gymnax", "gymnax>="), (brax_phase, "brax.envs", r"mission-engine\[brax\]"),
     (playground_phase, "mujoco_playground", r"mission-engine\[playground\]")],
)  # fmt: skip
def test_a_missing_library_is_named(hook: Any, module: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MachineError, match=extra):
        hook("any")()


def test_flags_without_fusions_of_several_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    """XLA aborts on some programs of Brax with them."""
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_extra_options=a=1,xla_cpu_use_multi_output_fusion")
    flags = flags_without_fusion()
    assert flags is not None
    assert "multi_output" not in flags
    monkeypatch.setenv("XLA_FLAGS", flags)
    assert flags_without_fusion() is None
