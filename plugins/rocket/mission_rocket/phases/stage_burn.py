"""Stage burn: the engines of a stage burn without steering, until its propellant or the time ends.

Success `burnt_out`: the propellant ended, or `duration_s` has passed. Failure `grounded`: back below the pad.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from jax import Array
from pydantic import Field

from mission import PhaseSpec, hookimpl
from mission_rocket.causes import Causes
from mission_rocket.physics.state import Handover, idle
from mission_rocket.stages import PERIOD_S, TIME, StageParams, StagePhase, StageState, begin

_UNUSED_KG = 0.01  # a tank that runs dry within a step would cost a sixth of the step's propellant


class Params(StageParams):
    """The duration of the burn, and how it begins."""

    duration_s: float | None = Field(
        None, gt=0.0, le=1000.0, description="Duration; None: until the propellant is used up."
    )
    at_full_thrust: bool = Field(False, description="Begin at full thrust, without delay and lag.")


@dataclasses.dataclass(frozen=True, eq=False)
class StageBurn(StagePhase):
    """The burn of a stage; see the docstring of the module."""

    params: Params

    observation = TIME
    causes = Causes(("burnt_out", "grounded"))

    def enter(self, key: Array, handoff: Handover) -> StageState:
        state = handoff.state
        if self.params.at_full_thrust:
            # an ignition, unless the previous phase was also a burn of this stage
            left = tuple(
                jnp.where(running > 0.0, number, number - 1.0)
                for running, number in zip(state.lit_for, state.ignitions_left, strict=True)
            )
            full = (jnp.float32(1.0),) * len(left)
            motion = state.motion._replace(levels=full)
            state = state._replace(motion=motion, lit_for=tuple(level + 1e3 for level in full), ignitions_left=left)
        return begin(handoff._replace(state=state), self.grounded(handoff))

    def step(self, key: Array, state: StageState, action: Array) -> StageState:
        motion, dispersion = state.flight.state.motion, state.flight.dispersion
        flow = sum(
            level * (len(group.positions) * group.flow)
            for level, group in zip(motion.levels, self.carrier.engines, strict=True)
        )
        flow = jnp.maximum(flow * dispersion.thrust / dispersion.specific_impulse, 1e-6)
        left = jnp.maximum(motion.propellant - _UNUSED_KG, 0.0) / flow
        if self.params.duration_s is not None:
            left = jnp.minimum(left, self.params.duration_s - PERIOD_S * state.periods)
        over = left <= PERIOD_S
        command = idle(self.carrier)._replace(throttle=(jnp.float32(1.0),) * len(self.carrier.engines))
        return self.fly(state, command, jnp.where(over, jnp.maximum(left, 0.0), PERIOD_S), over)


@hookimpl
def mission_phase() -> PhaseSpec:
    """Return the record of the phase."""
    return PhaseSpec(params=Params, environment=StageBurn)
