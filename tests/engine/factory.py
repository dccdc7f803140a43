"""Plugins, distributions and mission files made on the spot for tests."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]

CART = """
import dataclasses
from typing import NamedTuple
import jax, jax.numpy as jnp
from pydantic import BaseModel, ConfigDict, Field
from mission import ActorConfig, Environment, FillConfig, Limit, NetworkConfig, Outcome, PhaseSpec, SacConfig, hookimpl

class Params(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    tolerance_m: float = Field(5.0, gt=0)
    seconds: float = Field(3.0, gt=0)

class Cart(NamedTuple):
    position_m: jax.Array
    velocity_m_s: jax.Array

class State(NamedTuple):
    cart: Cart
    time_s: jax.Array

@dataclasses.dataclass(frozen=True, eq=False)
class Hold(Environment):
    params: Params
    observation_names = ("position", "velocity")
    action_names = ("acceleration",)
    causes = ("held", "missed")
    control_period_s = 0.1
    max_steps = 50
    def start(self, key):
        return Cart(jax.random.uniform(key, minval=-1.0, maxval=1.0), jnp.zeros(()))
    def enter(self, key, handoff):
        return State(handoff, jnp.zeros(()))
    def step(self, key, state, action):
        velocity = state.cart.velocity_m_s + 0.1 * action[0]
        return State(Cart(state.cart.position_m + 0.1 * velocity, velocity), state.time_s + 0.1)
    def observe(self, state):
        return jnp.stack([state.cart.position_m, state.cart.velocity_m_s])
    def outcome(self, state):
        over = state.time_s >= self.params.seconds - 0.01
        held = over & (jnp.abs(state.cart.position_m) <= self.params.tolerance_m)
        return Outcome(over, held, jnp.where(held, 0, 1).astype(jnp.int32))
    def leave(self, state):
        return state.cart
    def telemetry(self, state):
        return {"position_m": state.cart.position_m, "velocity_m_s": state.cart.velocity_m_s}
    def guide(self, state):
        return jnp.clip(-4.0 * state.cart.position_m - 4.0 * state.cart.velocity_m_s, -1.0, 1.0)[None]

def reward(params):
    def terms(state, action, after, outcome):
        return {"near": 1.0 / (1.0 + 4.0 * jnp.abs(after.cart.position_m)), "end": jnp.where(outcome.success, 5.0, 0.0)}
    return terms

@hookimpl
def mission_phase():
    small = dict(width=16, depth=1)
    return PhaseSpec(params=Params, environment=Hold, reward=reward,
        limits=lambda params: (Limit("position_m", maximum=1.2),),
        sac=SacConfig(actor=ActorConfig(**small), critic=NetworkConfig(**small), batch_size=32, vehicles=16, gamma=0.9,
            actor_learning_rate=3e-3, critic_learning_rate=3e-3, buffer_size=8000, fill=FillConfig(env_steps=512),
            chunk_env_steps=512, updates_per_step=0.125))
"""

MISSION = """\
name: trial
seed: 3
phases:
  - name: first
    plugin: ./cart.py
    budget: {env_steps: 3000}
    evaluation: {every_env_steps: 1000, flights: 100}
    bank: {flights: 200, minimum: 4}
  - name: second
    plugin: ./cart.py
    params: {seconds: 2.0}
    budget: {env_steps: 2500}
    evaluation: {every_env_steps: 1000, flights: 100}
    bank: {flights: 200, minimum: 4}
    gate: {success_low: 0.0, flights: 100}
"""


def write_mission(folder: Path, text: str = MISSION, plugin: str = CART) -> Path:
    """`mission.yaml` and `cart.py` in a folder; returns the mission file."""
    (folder / "cart.py").write_text(plugin)
    path = folder / "mission.yaml"
    path.write_text(text)
    return path


def fake_distribution(
    site: Path, name: str, version: str, entry_points: dict[str, dict[str, str]], modules: dict[str, str]
) -> None:
    """A dist-info folder and modules, as an installer would leave them."""
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = [
        f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in entries.items()) for group, entries in entry_points.items()
    ]
    (info / "entry_points.txt").write_text("\n".join(lines))
    for module, source in modules.items():
        (site / f"{module}.py").write_text(textwrap.dedent(source))


def blocks(page: str, language: str, title: str = "") -> list[str]:
    """Return the contents of the fenced blocks of a language, with or without a title."""
    info = language + (f' title="{title}"' if title else "")
    return re.findall(rf"^```{re.escape(info)}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def run_cli(
    *arguments: object, cwd: Path | None = None, timeout: float = 300, path: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own; `path` is put on PYTHONPATH."""
    import os

    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    env.pop("UV_RUN_RECURSION_DEPTH", None)  # the lines that commands print differ under `uv run`
    env |= {"PYTHONPATH": str(path)} if path else {}
    command = [sys.executable, "-m", "mission", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout, env=env, check=False)
