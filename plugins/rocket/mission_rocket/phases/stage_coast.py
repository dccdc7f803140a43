"""Stage coast: a stage flies without thrust for a time.

There is no action. Success `coasted`: `duration_s` has passed. Failure `grounded`:
back below the pad.
"""

from __future__ import annotations

import dataclasses
import functools

import jax.numpy as jnp
from jax import Array
from pydantic import Field

from mission import Environment, Outcome, PhaseSpec, hookimpl
from mission_rocket import stages
from mission_rocket.physics.gravity import Site, altitude
from mission_rocket.physics.state import idle
from mission_rocket.physics.vehicle import Body
from mission_rocket.stages import PERIOD_S, Flight, Progress, StageParams

_GROUND_M = -50.0


class Params(StageParams):
    """How long a stage coasts."""

    duration_s: float = Field(60.0, gt=0.0, le=1000.0)


@dataclasses.dataclass(frozen=True, eq=False)
class StageCoast(Environment[Flight, Progress]):
    """See the module's docstring."""

    params: Params

    observation_names = ("time",)
    action_names = ()
    causes = ("coasted", "grounded")
    control_period_s = PERIOD_S
    max_steps = 10_000

    @functools.cached_property
    def body(self) -> Body:
        """The stage and what it carries."""
        return stages.carrier(self.params)

    @functools.cached_property
    def site(self) -> Site:
        """Where it flies."""
        return self.params.site.build()

    def start(self, key: Array) -> Flight:
        return stages.start(self.params, self.body, self.site)

    def enter(self, key: Array, handoff: Flight) -> Progress:
        return stages.begin(handoff)

    def step(self, key: Array, state: Progress, action: Array) -> Progress:
        left = self.params.duration_s - PERIOD_S * state.periods
        seconds = jnp.clip(left, 0.0, PERIOD_S)
        return stages.fly(self.body, self.site, state, idle(self.body), seconds, left <= PERIOD_S)

    def observe(self, state: Progress) -> Array:
        return jnp.stack([state.elapsed_s / 100.0])

    def outcome(self, state: Progress) -> Outcome:
        grounded = altitude(self.site, state.flight.state.motion.position) < _GROUND_M
        return Outcome(state.over | grounded, state.over & ~grounded, jnp.where(grounded, 1, 0).astype(jnp.int32))

    def leave(self, state: Progress) -> Flight:
        return state.flight

    def telemetry(self, state: Progress) -> dict[str, Array]:
        return stages.telemetry(self.body, self.site, state)


@hookimpl
def mission_phase() -> PhaseSpec:
    """The phase's record."""
    return PhaseSpec(params=Params, environment=StageCoast)
