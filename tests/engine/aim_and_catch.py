"""A chain of two phases with a known conflict: what the first one is paid for is not what the second one needs.

The first throws to x = action + 0.3 z, z standard normal, and is paid for -(x + 0.2)^2. Its box is |x| <= 3. The second
succeeds from x with probability Phi((x - 0.2) / 0.1), and its reward pulls x upwards. So the throw that is paid best, -0.2, succeeds with 10 %, and 1 with 99.4 %.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.stats import norm

SPREAD, EDGE, NOISE = 0.3, 0.2, 0.1
COMMON = """
import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from mission import ActorConfig, Environment, FillConfig, NetworkConfig, Outcome, PhaseSpec, SacConfig, hookimpl
from pydantic import BaseModel


class Params(BaseModel):
    loops: bool = False


class State(NamedTuple):
    x: jax.Array
    steps: jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class Phase(Environment):
    params: Params
    observation_names = ("x",)
    control_period_s = 1.0
    max_steps = 3

    def start(self, key):
        return {{"x": jnp.zeros(())}}

    def enter(self, key, handoff):
        x = handoff["x"]
        if self.params.loops:
            x = jax.lax.while_loop(lambda x: x > 100.0, lambda x: x - 1.0, x)
        return State(x, jnp.int32(0))

    def observe(self, state):
        return state.x[None]

    def leave(self, state):
        return {{"x": state.x}}

    def telemetry(self, state):
        return {{"x_m": state.x}}

{methods}
"""
AIM = """
    action_names = ("aim",)
    causes = ("thrown", "wide")
    box_causes = ("wide",)

    def step(self, key, state, action):
        return State(action[0] + 0.3 * jax.random.normal(key), state.steps + 1)

    def outcome(self, state):
        over, wide = state.steps >= 1, jnp.abs(state.x) > 3.0
        return Outcome(over, over & ~wide, jnp.where(over & wide, 1, 0))


def rewarded(params):
    return lambda state, action, after, outcome: {"own": -((after.x + 0.2) ** 2)}


@hookimpl
def mission_phase():
    sac = SacConfig(
        actor=ActorConfig(width=16, depth=1, activation="tanh"), critic=NetworkConfig(width=32, depth=1),
        actor_learning_rate=3e-3, critic_learning_rate=3e-3, temperature_learned=False, temperature_initial=1e-3,
        buffer_size=4096, batch_size=128, vehicles=16, fill=FillConfig(env_steps=512), updates_per_step=0.5,
        chunk_env_steps=1024,
    )
    return PhaseSpec(params=Params, environment=Phase, reward=rewarded, sac=sac)
"""
CATCH = """
    action_names = ()
    causes = ("caught", "dropped")

    def step(self, key, state, action):
        return State(state.x + 0.1 * jax.random.normal(key), state.steps + 1)

    def outcome(self, state):
        over, held = state.steps >= 1, state.x >= 0.2
        return Outcome(over, over & held, jnp.where(over & ~held, 1, 0))


def rewarded(params):
    return lambda state, action, after, outcome: {"deep": -jax.nn.softplus(8.0 * (0.6 - after.x))}


@hookimpl
def mission_phase():
    return PhaseSpec(params=Params, environment=Phase, reward=rewarded)
"""


def success(aim: float) -> float:
    """The probability that the mission succeeds with a throw that aims at `aim`."""
    return float(norm.cdf((aim - EDGE) / np.hypot(SPREAD, NOISE)))


def write_aim_and_catch(folder: Path, chain: str, *more: str) -> Path:
    """Write both plugins and a mission; `chain` is the text of its `chain:`, `more` are lines of the first phase."""
    head, _, tail = AIM.partition("\n\ndef rewarded")
    (folder / "aim.py").write_text(COMMON.format(methods=head) + "\n\ndef rewarded" + tail)
    head, _, tail = CATCH.partition("\n\ndef rewarded")
    (folder / "catch.py").write_text(COMMON.format(methods=head) + "\n\ndef rewarded" + tail)
    lines = ["name: aim_and_catch", "seed: 3", "phases:", "  - name: aim", "    plugin: ./aim.py"]
    lines += ["    budget: {env_steps: 8192}", "    evaluation: {every_env_steps: 2048, flights: 500}"]
    lines += [f"    {line}" for line in more]
    lines += ["  - {name: catch, plugin: ./catch.py}", f"chain: {chain}"]
    path = folder / "aim_and_catch.yaml"
    path.write_text("\n".join(lines) + "\n")
    return path
