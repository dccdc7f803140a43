"""Stage coast: a stage flies without thrust for a time.

Success `coasted`: `duration_s` has passed. Failure `grounded`: back below the pad.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from jax import Array
from pydantic import Field

from mission import PhaseSpec, hookimpl
from mission_rocket.causes import Causes
from mission_rocket.physics.state import idle
from mission_rocket.stages import PERIOD_S, TIME, StageParams, StagePhase, StageState


class Params(StageParams):
    """The duration of the coast."""

    duration_s: float = Field(60.0, gt=0.0, le=1000.0)


@dataclasses.dataclass(frozen=True, eq=False)
class StageCoast(StagePhase):
    """The coast of a stage; see the docstring of the module."""

    params: Params

    observation = TIME
    causes = Causes(("coasted", "grounded"))

    def step(self, key: Array, state: StageState, action: Array) -> StageState:
        left = self.params.duration_s - PERIOD_S * state.periods
        return self.fly(state, idle(self.carrier), jnp.clip(left, 0.0, PERIOD_S), left <= PERIOD_S)


@hookimpl
def mission_phase() -> PhaseSpec:
    """Return the record of the phase."""
    return PhaseSpec(params=Params, environment=StageCoast)
