"""The engine as a worker: a phase that costs nothing to fly, so that a chunk is almost all updates."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from mission.machine.devices import configure

configure()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from jax import Array  # noqa: E402
from pydantic import BaseModel  # noqa: E402

from mission.phase import Environment, Outcome, PhaseSpec  # noqa: E402
from mission.sac.config import SacConfig  # noqa: E402
from mission.testing import make_phase  # noqa: E402
from mission.training.loop import begin, fill_and_warm_up, train_chunk  # noqa: E402

VEHICLES = 64


class Nothing(BaseModel):
    """No parameters."""


class Drift(NamedTuple):
    """A point that drifts."""

    place: Array  # float32 [O]


@dataclasses.dataclass(frozen=True, eq=False)
class Trivial(Environment[Drift, Drift]):
    """O observations and A actions; never terminates."""

    observations: int
    actions: int

    causes = ("survived", "never")
    control_period_s = 1.0
    max_steps = 200

    @property
    def observation_names(self) -> tuple[str, ...]:
        """O names."""
        return tuple(f"place{i}" for i in range(self.observations))

    @property
    def action_names(self) -> tuple[str, ...]:
        """A names."""
        return tuple(f"push{i}" for i in range(self.actions))

    def start(self, key: Array) -> Drift:
        """Anywhere."""
        return Drift(jax.random.normal(key, (self.observations,)))

    def enter(self, key: Array, handoff: Drift) -> Drift:
        """As handed over."""
        return handoff

    def step(self, key: Array, state: Drift, action: Array) -> Drift:
        """Decay, a push and noise."""
        return Drift(0.9 * state.place + 0.1 * action.sum() + 0.3 * jax.random.normal(key, (self.observations,)))

    def observe(self, state: Drift) -> Array:
        """The state."""
        return state.place

    def outcome(self, state: Drift) -> Outcome:
        """Never ends."""
        return Outcome(jnp.bool_(False), jnp.bool_(False), jnp.int32(0))

    def leave(self, state: Drift) -> Drift:
        """The state."""
        return state

    def telemetry(self, state: Drift) -> dict[str, Array]:
        """One channel."""
        return {"place_m": state.place[0]}


def updates_per_second(
    observations: int,
    actions: int,
    rows: int,
    chunk_updates: int,
    vehicles: int = VEHICLES,
    per_step: float = 1.0,
    **sac: Any,
) -> Callable[[], float]:
    """A full replay, a compiled chunk, and the function that runs one and returns updates per second.

    Args:
      observations, actions: O and A.
      rows: of the replay; all are filled.
      chunk_updates: updates of one chunk, about.
      vehicles, per_step: flown side by side, updates a vehicle step.
      sac: further fields of SacConfig.
    """
    rows = rows // vehicles * vehicles
    steps = max(1, round(chunk_updates / per_step))
    config = SacConfig(
        vehicles=vehicles,
        updates_per_step=per_step,
        buffer_size=rows,
        chunk_env_steps=steps,
        **{"fill": {"env_steps": rows}} | sac,  # ty: ignore[invalid-argument-type]
    )
    spec = PhaseSpec(
        params=Nothing,
        environment=lambda params: Trivial(observations, actions),
        reward=lambda params: lambda state, action, after, outcome: {"nearness": -jnp.abs(after.place).mean()},
        sac=config,
    )
    run = begin(make_phase(spec), None, jax.random.key(0))

    def emit(*arguments: Any, **keywords: Any) -> None:
        return None

    fill_and_warm_up(run, emit)
    updates = config.chunk_cycles * config.update_cycle[1]
    train_chunk(run, emit)

    def measure() -> float:
        began = time.perf_counter()
        train_chunk(run, emit)
        return updates / (time.perf_counter() - began)

    return measure
