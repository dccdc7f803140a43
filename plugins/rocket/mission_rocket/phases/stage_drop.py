"""Stage drop: the lowest stage separates instantaneously and without an impulse; the next one continues.

The remaining vehicle has its own centre of mass, higher up the body: position and velocity become those of that point.
Its tanks are full and its engines off. Success `dropped`. Failure `burning`: the engines of the dropped stage still
produce thrust.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property

import jax.numpy as jnp
from jax import Array
from pydantic import model_validator

from mission import Outcome, PhaseSpec, hookimpl
from mission_rocket.causes import Causes
from mission_rocket.observation import Observation, flag
from mission_rocket.physics.state import Handover, start_state
from mission_rocket.physics.vector import Vector, cross, rotate
from mission_rocket.physics.vehicle import Body, mass_properties
from mission_rocket.stages import StageParams, StagePhase, StageState, begin
from mission_rocket.vehicles import build_body


class Params(StageParams):
    """The stage that is dropped."""

    @model_validator(mode="after")
    def _next(self) -> Params:
        if self.stage + 1 >= len(self.vehicle.stages) or not self.vehicle.stages[self.stage + 1].engines:
            raise ValueError(f"above stage {self.stage} of {self.vehicle.name} there is no stage with engines")
        return self


@dataclasses.dataclass(frozen=True, eq=False)
class StageDrop(StagePhase):
    """The separation of a stage; see the docstring of the module."""

    params: Params

    observation = Observation((flag("dropped", "whether the stage has fallen away", "over"),))
    causes = Causes(("dropped", "burning"))
    max_steps = 2

    @cached_property
    def flying(self) -> Body:
        """Return the remaining vehicle."""
        return build_body(self.params.vehicle, self.params.stage + 1)

    def enter(self, key: Array, handoff: Handover) -> StageState:
        old, dispersion = handoff
        motion, upper = old.motion, self.flying
        before = mass_properties(self.carrier, dispersion.dry_mass, motion.propellant, motion.rcs_propellant)
        fresh = start_state(upper, motion.position, motion.velocity, motion.attitude, upper.propellant)
        rcs = fresh.motion.rcs_propellant
        after = mass_properties(upper, dispersion.dry_mass, fresh.motion.propellant, rcs)
        zero = jnp.zeros(())
        higher = Vector(zero, zero, self.carrier.length + after.centre - before.centre)
        moved = fresh.motion._replace(
            position=motion.position + rotate(motion.attitude, higher),
            velocity=motion.velocity + rotate(motion.attitude, cross(motion.rates, higher)),
            rates=motion.rates,
        )
        fresh = fresh._replace(motion=moved, gust=old.gust, time=old.time)
        burning = (jnp.stack(motion.levels).max() > 0.01) & (motion.propellant > 0.0)
        return begin(Handover(fresh, dispersion), jnp.asarray(burning))

    def step(self, key: Array, state: StageState, action: Array) -> StageState:
        return state._replace(over=jnp.bool_(True))

    def outcome(self, state: StageState) -> Outcome:
        return self.causes.judge(state.over, {}, {"burning": state.over & state.failed})


@hookimpl
def mission_phase() -> PhaseSpec:
    """Return the record of the phase."""
    return PhaseSpec(params=Params, environment=StageDrop)
