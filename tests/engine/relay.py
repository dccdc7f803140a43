"""A chain of two phases without controls, whose probability of success from every hand-over is known.

The first throws a number x, uniform in [-1, 1]; its box is |x| <= 0.5. The second adds a draw with a standard deviation of
0.1, and succeeds within 0.8.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.stats import norm

BOX, REACH, NOISE = 0.5, 0.8, 0.1
PLUGIN = """
import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from mission import Environment, Outcome, PhaseSpec, hookimpl
from pydantic import BaseModel


class Params(BaseModel):
    box: float = 0.5
    reach: float = 0.8


class State(NamedTuple):
    x: jax.Array
    steps: jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class Phase(Environment):
    params: Params
    observation_names = ("x",)
    action_names = ()
    control_period_s = 1.0
    max_steps = 3

    def start(self, key):
        return {{"x": jax.random.uniform(key, minval=-1.0, maxval=1.0)}}

    def enter(self, key, handoff):
        return State(handoff["x"], jnp.int32(0))

    def observe(self, state):
        return state.x[None]

    def leave(self, state):
        return {{"x": state.x}}

    def telemetry(self, state):
        return {{"x_m": state.x}}

{methods}

@hookimpl
def mission_phase():
    return PhaseSpec(params=Params, environment=Phase)
"""
THROW = """
    causes = ("thrown", "broken", "wide")
    box_causes = ("wide",)

    def step(self, key, state, action):
        return State(state.x, state.steps + 1)

    def outcome(self, state):
        over, wide = state.steps >= 1, jnp.abs(state.x) > self.params.box
        broken = state.x < -0.99
        cause = jnp.where(broken, 1, jnp.where(wide, 2, 0))
        return Outcome(over, over & (cause == 0), jnp.where(over, cause, 0))
"""
CATCH = """
    causes = ("caught", "dropped")

    def step(self, key, state, action):
        return State(state.x + 0.1 * jax.random.normal(key), state.steps + 1)

    def outcome(self, state):
        over, held = state.steps >= 1, jnp.abs(state.x) <= self.params.reach
        return Outcome(over, over & held, jnp.where(held, 0, 1))
"""


def probability(x: np.ndarray) -> np.ndarray:
    """The probability that the second phase succeeds from x."""
    return norm.cdf((REACH - x) / NOISE) - norm.cdf((-REACH - x) / NOISE)


def write_relay(folder: Path, chain: str = "") -> Path:
    """Write both plugins and a mission; `chain` is the text of its `chain:`."""
    (folder / "throw.py").write_text(PLUGIN.format(methods=THROW))
    (folder / "catch.py").write_text(PLUGIN.format(methods=CATCH))
    lines = ["name: relay", "seed: 3", "phases:", "  - {name: throw, plugin: ./throw.py}"]
    lines += ["  - {name: catch, plugin: ./catch.py}"]
    path = folder / "relay.yaml"
    path.write_text("\n".join([*lines, f"chain: {chain}" if chain else ""]) + "\n")
    return path


WALK = """
import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from mission import Environment, Outcome, PhaseSpec, hookimpl
from pydantic import BaseModel


class Params(BaseModel):
    limit: float = 0.0


class State(NamedTuple):
    x: jax.Array
    steps: jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class Walk(Environment):
    params: Params
    observation_names = ("x",)
    action_names = ()
    causes = ("over", "beyond")
    control_period_s = 1.0
    max_steps = 3

    def start(self, key):
        return {"x": jax.random.normal(key)}

    def enter(self, key, handoff):
        return State(handoff["x"], jnp.int32(0))

    def step(self, key, state, action):
        return State(state.x + jax.random.normal(key), state.steps + 1)

    def observe(self, state):
        return state.x[None] / 3.0

    def outcome(self, state):
        over = state.steps >= 1
        lost = (self.params.limit > 0.0) & (jnp.abs(state.x) > self.params.limit)
        return Outcome(over, over & ~lost, jnp.where(lost, 1, 0))

    def leave(self, state):
        return {"x": state.x}

    def telemetry(self, state):
        return {"x_m": state.x}


@hookimpl
def mission_phase():
    return PhaseSpec(params=Params, environment=Walk)
"""
PHASES = 4


def write_walk(folder: Path, loss: float) -> Path:
    """Write a random walk over four phases that is lost, in the last one, with a known probability."""
    limit = float(norm.isf(loss / 2.0) * np.sqrt(1.0 + PHASES))
    (folder / "walk.py").write_text(WALK)
    lines = ["name: walk", "seed: 5", "phases:"]
    lines += [f"  - {{name: leg{k}, plugin: ./walk.py}}" for k in range(1, PHASES)]
    lines += [f"  - {{name: leg{PHASES}, plugin: ./walk.py, params: {{limit: {limit!r}}}}}"]
    path = folder / "walk.yaml"
    path.write_text("\n".join(lines) + "\n")
    return path


DUEL = """
import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from mission import ActorConfig, Environment, FillConfig, NetworkConfig, Outcome, PhaseSpec, SacConfig, hookimpl
from pydantic import BaseModel


class Nothing(BaseModel):
    pass


class State(NamedTuple):
    x: jax.Array
    guided: jax.Array
    steps: jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class Duel(Environment):
    planned: bool = True
    observation_names = ("x", "time")
    action_names = ("push",)
    causes = ("over", "never")
    control_period_s = 1.0
    max_steps = 10

    def start(self, key):
        return {"x": jax.random.uniform(key, minval=-1.0, maxval=1.0), "guided": jnp.zeros(())}

    def enter(self, key, handoff):
        return State(handoff["x"], jnp.zeros(()), jnp.zeros(()))

    def step(self, key, state, action):
        return State(state.x, jnp.where(action[0] == 1.0, 1.0, 0.0), state.steps + 1.0)

    def observe(self, state):
        return jnp.stack([jnp.where(state.steps < 3.0, state.x, 0.0), state.steps])

    def outcome(self, state):
        over = state.steps >= 6.0
        return Outcome(over, over, jnp.int32(0))

    def leave(self, state):
        return {"x": state.x, "guided": state.guided}

    def telemetry(self, state):
        return {"x_m": state.x, "guided": state.guided}

    def unguided(self):
        return dataclasses.replace(self, planned=False)

    def guide(self, state):
        return jnp.ones(1) if self.planned else jnp.zeros(1)


def reward(params):
    return lambda state, action, after, outcome: {"quiet": -action[0] ** 2}


@hookimpl
def mission_phase():
    small = {"width": 8, "depth": 1}
    sac = SacConfig(actor=ActorConfig(**small), critic=NetworkConfig(**small), batch_size=32, vehicles=16,
        buffer_size=1024, fill=FillConfig(env_steps=256), chunk_env_steps=256, updates_per_step=0.125)
    return PhaseSpec(params=Nothing, environment=lambda params: Duel(), reward=reward, sac=sac)
"""
VERDICT = """
import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from mission import Environment, Outcome, PhaseSpec, hookimpl
from pydantic import BaseModel


class Params(BaseModel):
    agent: float = 0.8
    guide: float = 0.0


class State(NamedTuple):
    x: jax.Array
    guided: jax.Array
    steps: jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class Verdict(Environment):
    params: Params
    observation_names = ("x", "guided")
    action_names = ()
    causes = ("passed", "agent lost", "guide lost")
    control_period_s = 1.0
    max_steps = 3

    def start(self, key):
        return {"x": jnp.zeros(()), "guided": jnp.zeros(())}

    def enter(self, key, handoff):
        return State(handoff["x"], handoff["guided"], jnp.int32(0))

    def step(self, key, state, action):
        return state._replace(steps=state.steps + 1)

    def observe(self, state):
        return jnp.stack([state.x, state.guided])

    def outcome(self, state):
        over, guided = state.steps >= 1, state.guided > 0.5
        agent = ~guided & (state.x > self.params.agent)
        guide = guided & (state.x < self.params.guide)
        cause = jnp.where(agent, 1, jnp.where(guide, 2, 0))
        return Outcome(over, over & (cause == 0), jnp.where(over, cause, 0))

    def leave(self, state):
        return {"x": state.x, "guided": state.guided}

    def telemetry(self, state):
        return {"x_m": state.x}


@hookimpl
def mission_phase():
    return PhaseSpec(params=Params, environment=Verdict)
"""
AGENT_FAILS, GUIDE_FAILS = 0.8, 0.0


def write_duel(folder: Path, policy: str = "agent") -> Path:
    """Write a mission whose agent is lost above x = 0.8 and whose guide is lost below 0, in the phase after theirs.

    Who flies the last of six steps counts; from the fourth on x is not observed. The agent's actions never are exactly 1, which are the guide's.
    """
    (folder / "duel.py").write_text(DUEL)
    (folder / "verdict.py").write_text(VERDICT)
    lines = ["name: duel", "seed: 11", "phases:", f"  - {{name: duel, plugin: ./duel.py, policy: {policy},"]
    lines += ["      budget: {env_steps: 600}, evaluation: {flights: 50}, bank: {flights: 100, minimum: 2}}"]
    lines += ["  - {name: verdict, plugin: ./verdict.py, bank: {flights: 100, minimum: 2}}"]
    path = folder / "duel.yaml"
    path.write_text("\n".join(lines) + "\n")
    return path


def write_unobserved(folder: Path) -> Path:
    """Write a relay whose throws above 0.3 leave x as NaN, although they succeed, and that has a channel which is always NaN."""
    path = write_relay(folder)
    throw, catch = (folder / name for name in ("throw.py", "catch.py"))
    throw.write_text(
        throw.read_text().replace('{"x": state.x}', '{"x": jnp.where(state.x > 0.3, jnp.nan, state.x)}', 1)
    )
    catch.write_text(catch.read_text().replace('{"x_m": state.x}', '{"x_m": state.x, "never": jnp.nan * state.x}'))
    return path
