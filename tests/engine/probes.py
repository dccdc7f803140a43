"""Probe environments with known values, and a drift that can be cut into phases."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from pydantic import BaseModel

from mission import ActorConfig, Environment, FillConfig, Limit, NetworkConfig, Outcome, PhaseSpec, SacConfig
from mission.sac.networks import make_networks, mean_action
from mission.training.loop import Run

GAMMA = 0.8


class Nothing(BaseModel):
    """No parameters."""


def probe_sac(**changes: Any) -> SacConfig:
    """A small agent with a constant temperature of almost nothing."""
    settings: dict[str, Any] = {
        "actor": ActorConfig(width=32, depth=1, activation="tanh"),
        "critic": NetworkConfig(width=32, depth=1, activation="silu"),
        "gamma": GAMMA,
        "tau": 0.05,
        "actor_learning_rate": 3e-3,
        "critic_learning_rate": 3e-3,
        "temperature_learned": False,
        "temperature_initial": 1e-3,
        "buffer_size": 4096,
        "batch_size": 64,
        "vehicles": 16,
        "fill": FillConfig(env_steps=512),
        "updates_per_step": 0.5,
        "chunk_env_steps": 1024,
    }
    return SacConfig(**(settings | changes))


class Point(NamedTuple):
    """Where a probe stands: a sign drawn at the start, and the steps flown."""

    sign: Array  # float32, -1 or 1
    steps: Array  # float32


@dataclasses.dataclass(frozen=True, eq=False)
class Probe(Environment[Point, Point]):
    """Ends by death after `lives` steps (0: never), or by time-out after `max_steps`.

    `traced` gets an entry whenever Python runs the body of `step`: once for each tracing.
    """

    lives: int = 1
    max_steps: int = 10
    traced: list[str] = dataclasses.field(default_factory=list)

    observation_names = ("sign", "time")
    action_names = ("push",)
    causes = ("done", "failed")
    control_period_s = 1.0

    def start(self, key: Array) -> Point:
        return Point(jnp.where(jax.random.bernoulli(key), 1.0, -1.0).astype(jnp.float32), jnp.zeros(()))

    def enter(self, key: Array, handoff: Point) -> Point:
        return handoff._replace(steps=jnp.zeros(()))

    def step(self, key: Array, state: Point, action: Array) -> Point:
        self.traced.append("step")
        return state._replace(steps=state.steps + 1.0)

    def observe(self, state: Point) -> Array:
        """The time is seen only where it matters; a time-out must not be foreseen."""
        return jnp.stack([state.sign, state.steps if self.lives else jnp.zeros(())])

    def outcome(self, state: Point) -> Outcome:
        dead = (state.steps >= self.lives) if self.lives else jnp.bool_(False)
        return Outcome(dead, dead, jnp.int32(0))

    def leave(self, state: Point) -> Point:
        return state

    def telemetry(self, state: Point) -> dict[str, Array]:
        return {"sign_m": state.sign, "phase_time_s": state.steps}


Terms = Callable[[Point, Array, Point, Outcome], dict[str, Array]]


def probe(reward: Callable[[Point, Array, Point], Array], lives: int = 1, max_steps: int = 10, **sac: Any) -> PhaseSpec:
    """A probe with this reward of (state, action, next state)."""

    def terms(params: Any) -> Terms:
        return lambda state, action, after, outcome: {"reward": reward(state, action, after)}

    return PhaseSpec(Nothing, lambda params: Probe(lives, max_steps), terms, sac=probe_sac(**sac))


def constant(**sac: Any) -> PhaseSpec:
    """One step, reward 1: V = 1."""
    return probe(lambda state, action, after: jnp.ones(()), **sac)


def observed(**sac: Any) -> PhaseSpec:
    """One step, reward = the sign that is seen."""
    return probe(lambda state, action, after: state.sign, **sac)


def discounted(**sac: Any) -> PhaseSpec:
    """Two steps, reward 1 at the end: V = gamma, then 1."""
    return probe(lambda state, action, after: jnp.where(after.steps >= 2.0, 1.0, 0.0), lives=2, **sac)


def acted(**sac: Any) -> PhaseSpec:
    """One step, reward 1 - 2 (a - 0.5)^2: best at a = 0.5, where V = 1."""
    return probe(lambda state, action, after: 1.0 - 2.0 * (action[0] - 0.5) ** 2, **sac)


def observed_and_acted(**sac: Any) -> PhaseSpec:
    """One step, reward 1 - 2 (a - 0.5 sign)^2: best at half the sign."""
    return probe(lambda state, action, after: 1.0 - 2.0 * (action[0] - 0.5 * state.sign) ** 2, **sac)


def death(**sac: Any) -> PhaseSpec:
    """Reward 1 a step, terminated after the third: V = 1 + gamma + gamma^2 at the start."""
    return probe(lambda state, action, after: jnp.ones(()), lives=3, **sac)


def time_out(**sac: Any) -> PhaseSpec:
    """Reward 1 a step, stopped by the time limit after the third: V = 1 / (1 - gamma) everywhere."""
    return probe(lambda state, action, after: jnp.ones(()), lives=0, max_steps=3, **sac)


class Drift(NamedTuple):
    """A particle in a curved valley; `label` says which start it came from."""

    position: Array  # float32 [2]
    velocity: Array  # float32 [2]
    age: Array  # int32, steps since the very first start
    label: Array  # int32


@dataclasses.dataclass(frozen=True, eq=False)
class DriftEnvironment(Environment[Drift, Drift]):
    """Ends when its age reaches `until`; deterministic but for `wind`. `broken` labels turn into NaN at age 3."""

    until: int = 20
    wind: float = 0.0
    broken: int = -1
    max_steps: int = 100

    observation_names = ("x", "y", "vx", "vy")
    action_names = ("ax", "ay")
    causes = ("arrived", "lost")
    control_period_s = 0.1

    def start(self, key: Array) -> Drift:
        return Drift(jax.random.uniform(key, (2,), minval=-1.0, maxval=1.0), jnp.zeros(2), jnp.int32(0), jnp.int32(-1))

    def enter(self, key: Array, handoff: Drift) -> Drift:
        return handoff

    def step(self, key: Array, state: Drift, action: Array) -> Drift:
        velocity = (
            state.velocity + 0.1 * (action - jnp.sin(3.0 * state.position)) + self.wind * jax.random.normal(key, (2,))
        )
        velocity = jnp.where((state.label == self.broken) & (state.age >= 2) & (self.broken >= 0), jnp.nan, velocity)
        return state._replace(position=state.position + 0.1 * velocity, velocity=velocity, age=state.age + 1)

    def observe(self, state: Drift) -> Array:
        return jnp.concatenate([state.position, state.velocity])

    def outcome(self, state: Drift) -> Outcome:
        over = state.age >= self.until
        return Outcome(over, over, jnp.int32(0))

    def leave(self, state: Drift) -> Drift:
        return state

    def telemetry(self, state: Drift) -> dict[str, Array]:
        return {"x_m": state.position[0], "age_s": 0.1 * state.age}

    def guide(self, state: Drift) -> Array:
        return jnp.clip(jnp.cos(2.0 * state.position) - 0.3 * state.velocity, -1.0, 1.0)


def drift(sac: SacConfig | None = None, **fields: Any) -> PhaseSpec:
    """A phase of the drift; reward = x."""
    return PhaseSpec(
        Nothing,
        lambda params: DriftEnvironment(**fields),
        lambda params: lambda state, action, after, outcome: {"x": after.position[0]},
        limits=lambda params: (Limit("x_m", maximum=5.0), Limit("age_s", minimum=0.0)),
        sac=sac,
    )


class Case(NamedTuple):
    """A probe, how long it is trained, and what is known of it, for the observations [N, 2]."""

    spec: Callable[[], Any]
    chunks: int
    obs: list[list[float]]
    values: list[float]  # [N] of the best actions
    actions: list[float] | None = None  # [N], the best; None where any will do


_BOTH = [[1.0, 0.0], [-1.0, 0.0]]
# Where the action counts: two layers, and noise that keeps the critic's data from narrowing to a point.
_WIDE: dict[str, Any] = {
    "critic": NetworkConfig(width=32, activation="silu"),
    "exploration_noise": 0.1,
    "actor_learning_rate": 5e-4,
}


def _head(name: str) -> PhaseSpec:
    actor = probe_sac().actor.model_copy(update={"head": name})
    return observed_and_acted(actor=actor, max_std=0.5, **_WIDE)


CASES = {
    "constant": Case(constant, 5, _BOTH, [1.0, 1.0]),
    "observed, uniform": Case(lambda: observed(prioritised=False), 5, _BOTH, [1.0, -1.0]),
    "discounted, two steps at once": Case(lambda: discounted(n_step=2), 6, [[1.0, 0.0], [1.0, 1.0]], [GAMMA, 1.0]),
    "death": Case(death, 6, [[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]], [1.0 + GAMMA + GAMMA**2, 1.0 + GAMMA, 1.0]),
    "time-out": Case(time_out, 10, _BOTH, [1.0 / (1.0 - GAMMA)] * 2),
    "acted": Case(lambda: acted(**_WIDE), 24, _BOTH, [1.0, 1.0], [0.5, 0.5]),
    "observed and acted, bounded head": Case(lambda: _head("bounded"), 24, _BOTH, [1.0, 1.0], [0.5, -0.5]),
    "observed and acted, softplus head": Case(lambda: _head("softplus"), 24, _BOTH, [1.0, 1.0], [0.5, -0.5]),
}


def largest_errors(case: Case, run: Run) -> tuple[float, float | None]:
    """Largest relative errors of both critics, and of the actor where its best action is known."""
    config = run.phase.learner
    networks, obs = make_networks(config, 1), np.array(case.obs, np.float32)
    chosen = np.asarray(mean_action(config.actor.head, networks.normal(run.state.agent.actor, obs)))
    best = chosen if case.actions is None else np.array(case.actions, np.float32)[:, None]
    values = np.array(case.values)
    q = np.asarray(networks.q(run.state.agent.critic, obs, best))
    critics = float(np.abs(q / values - 1.0).max())
    return critics, None if case.actions is None else float(np.abs(chosen / best - 1.0).max())
