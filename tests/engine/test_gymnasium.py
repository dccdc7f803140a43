"""Phases in Gymnasium: its own checks, restarts, time-outs, seeds, guides, registration."""

from __future__ import annotations

import importlib
import importlib.metadata
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np
import probes
import pytest

from mission.errors import InputError, MachineError, NonFiniteError
from mission.testing import make_phase

gymnasium = pytest.importorskip("gymnasium", reason="needs the extra gymnasium")
checker = importlib.import_module("gymnasium.utils.env_checker")
adapter = importlib.import_module("mission.adapters.gymnasium")

ROOT = Path(__file__).parents[2]


def drift(**fields: Any) -> Any:
    return make_phase(probes.drift(sac=probes.probe_sac(), **{"until": 9, "wind": 0.1, "max_steps": 7} | fields))


def test_gymnasium_s_check_passes() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*alternative render modes.*")
        warnings.filterwarnings("ignore", message=".*(infinity|unbounded|-inf|\\binf\\b).*")
        checker.check_env(adapter.Env("vertical_burn"))


def test_the_check_of_stable_baselines_passes() -> None:
    sb3 = pytest.importorskip("stable_baselines3.common.env_checker", reason="Stable-Baselines3 is not installed")
    sb3.check_env(adapter.Env("vertical_burn"))


def test_episodes_end_with_their_cause_and_wait_for_a_reset() -> None:
    env = adapter.Env(make_phase(probes.time_out()))
    with pytest.raises(InputError, match="reset"):
        env.step(np.zeros(1))
    env.reset(seed=1)
    flags = [env.step(np.zeros(1))[2:] for _ in range(3)]
    assert [flag[:2] for flag in flags] == [(False, False), (False, False), (False, True)]
    assert flags[2][2] == {"terms": {"reward": 1.0}, "success": False, "cause": "time_out"}
    with pytest.raises(InputError, match="end of an episode"):
        env.step(np.zeros(1))
    env = adapter.Env(make_phase(probes.death()))
    env.reset()
    *_, (obs, reward, terminated, truncated, info) = [env.step(np.zeros(1)) for _ in range(3)]
    assert (reward, terminated, truncated, info["success"], info["cause"]) == (1.0, True, False, True, "done")
    assert obs[1] == 3.0  # the state in which it ended


def test_seeds_decide_episodes() -> None:
    env = adapter.Env(drift())

    def episode(seed: int | None) -> np.ndarray:
        obs, _ = env.reset(seed=seed)
        return np.stack([obs, *(env.step(np.zeros(2))[0] for _ in range(3))])

    first, second = episode(3), episode(None)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, episode(3))
    np.testing.assert_array_equal(second, episode(None))


@pytest.mark.parametrize("vehicles", [6, 64])
def test_vehicles_restart_in_the_step_that_ends_them(vehicles: int) -> None:
    """64 vehicles are shared by two devices; each observation continues the one before or begins an episode."""
    env = adapter.VectorEnv(drift(), vehicles, guide=True)
    assert env.metadata["autoreset_mode"] == gymnasium.vector.AutoresetMode.SAME_STEP
    obs, infos = env.reset(seed=0)
    assert infos["guide"].shape == env.action_space.shape
    total, ended = np.zeros(vehicles), 0
    for _ in range(30):
        before, action = obs, infos["guide"]
        obs, reward, terminated, truncated, infos = env.step(action)
        over, last = terminated | truncated, obs.copy()
        total += reward
        if over.any():
            np.testing.assert_array_equal(infos["_final_obs"], over)
            last[over] = np.stack(list(infos["final_obs"][over]))
            final = infos["final_info"]
            np.testing.assert_allclose(final["returns"][over], total[over], atol=1e-5)
            np.testing.assert_array_equal(final["success"][over], terminated[over])
            causes = {env.vehicles.causes[cause] for cause in final["cause"][over]}
            assert causes <= {"arrived", "time_out"}
            np.testing.assert_array_equal(obs[over, 2:], 0.0)  # a start has no velocity
            total[over], ended = 0.0, ended + int(over.sum())
        np.testing.assert_allclose(last[:, :2], before[:, :2] + 0.1 * last[:, 2:], atol=1e-5)
        np.testing.assert_array_equal(infos["terms"]["x"], reward)
        assert obs.dtype == reward.dtype == np.float32
    assert ended > vehicles


def test_two_devices_fly_the_same_vehicles_as_one() -> None:
    def flown(least: int) -> list[np.ndarray]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(adapter, "_LEAST_SHARED", least)
            env = adapter.VectorEnv(drift(), 16)
        env.reset(seed=4)
        return [env.step(np.full((16, 2), 0.3))[0] for _ in range(12)]

    np.testing.assert_allclose(flown(2), flown(1000), atol=1e-6)


def test_what_comes_from_outside_is_checked() -> None:
    env = adapter.VectorEnv(drift(), 2)
    env.reset(seed=0)
    with pytest.raises(InputError, match=r"actions \[2, 2\]"):
        env.step(np.zeros((2, 3)))
    with pytest.raises(InputError, match="not finite"):
        env.step(np.full((2, 2), np.nan))
    broken = adapter.VectorEnv(drift(wind=float("nan")), 16)
    broken.reset(seed=0)
    with pytest.raises(NonFiniteError, match=r"state\.position"):
        broken.step(np.zeros((16, 2)))


def test_installed_phases_are_registered() -> None:
    """In a process of its own, as Gymnasium reads the entry point: the name is the namespace, the value registers."""
    data = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert data["entry-points"]["gymnasium.envs"] == {"mission": "mission.adapters.registration:register_phases"}
    assert "gymnasium" in data["optional-dependencies"]
    code = """
import importlib, sys
from gymnasium.envs.registration import make, make_vec, namespace, registry
from mission.adapters.registration import register_phases
assert "jax" not in sys.modules
if "mission/vertical_burn-v0" not in registry:
    with namespace("mission"):
        register_phases()
env = make("mission/vertical_burn-v0", params={"touchdown_speed_m_s": 3.0})
env.reset(seed=0)
print(env.step(env.action_space.sample())[0].shape)
env = make_vec("mission/vertical_burn-v0", num_envs=3, guide=True)
print(env.reset(seed=0)[1]["guide"].shape)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["(6,)", "(3, 1)"]


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    monkeypatch.delitem(sys.modules, "mission.adapters.gymnasium")
    with pytest.raises(MachineError, match=r"mission-engine\[gymnasium\]"):
        importlib.import_module("mission.adapters.gymnasium")
    assert jax is not None
