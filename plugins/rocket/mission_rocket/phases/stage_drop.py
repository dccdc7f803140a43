"""Stage drop: the lowest stage falls away, in no time and without a push; the next one flies on.

What flies on has its own centre of mass, higher up the body: position and velocity become those of
that point. Its tanks are full and its engines off. There is no action. Success `dropped`. Failure
`burning`: the engines of the stage that falls away still push.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from pydantic import model_validator

from mission import Environment, Outcome, PhaseSpec, hookimpl
from mission_rocket import stages
from mission_rocket.physics.gravity import Site
from mission_rocket.physics.state import start_state
from mission_rocket.physics.vector import Vector, cross, rotate
from mission_rocket.physics.vehicle import Body, mass_properties
from mission_rocket.stages import PERIOD_S, Flight, Progress, StageParams
from mission_rocket.vehicles import build_body


class Params(StageParams):
    """`stage` is the one that falls away."""

    @model_validator(mode="after")
    def _next(self) -> Params:
        if self.stage + 1 >= len(self.vehicle.stages) or not self.vehicle.stages[self.stage + 1].engines:
            raise ValueError(f"above stage {self.stage} of {self.vehicle.name} there is no stage with engines")
        return self


class Dropping(NamedTuple):
    """What flies on, and whether the stage below still pushed."""

    progress: Progress
    burning: Array


@dataclasses.dataclass(frozen=True, eq=False)
class StageDrop(Environment[Flight, Dropping]):
    """See the module's docstring."""

    params: Params

    observation_names = ("dropped",)
    action_names = ()
    causes = ("dropped", "burning")
    control_period_s = PERIOD_S
    max_steps = 2

    @functools.cached_property
    def stack(self) -> Body:
        """The stage that falls away, with what it carries."""
        return stages.carrier(self.params)

    @functools.cached_property
    def upper(self) -> Body:
        """What flies on."""
        return build_body(self.params.vehicle, self.params.stage + 1)

    @functools.cached_property
    def site(self) -> Site:
        """Where it flies."""
        return self.params.site.build()

    def start(self, key: Array) -> Flight:
        return stages.start(self.params, self.stack, self.site)

    def enter(self, key: Array, handoff: Flight) -> Dropping:
        old, errors = handoff
        motion = old.motion
        before = mass_properties(self.stack, errors.dry_mass, motion.propellant, motion.rcs_propellant)
        fresh = start_state(self.upper, motion.position, motion.velocity, motion.attitude, self.upper.propellant)
        rcs = fresh.motion.rcs_propellant
        after = mass_properties(self.upper, errors.dry_mass, fresh.motion.propellant, rcs)
        zero = jnp.zeros(())
        higher = Vector(zero, zero, self.stack.length + after.centre - before.centre)
        moved = fresh.motion._replace(
            position=motion.position + rotate(motion.attitude, higher),
            velocity=motion.velocity + rotate(motion.attitude, cross(motion.rates, higher)),
            rates=motion.rates,
        )
        fresh = fresh._replace(motion=moved, gust=old.gust, time=old.time)
        burning = (jnp.stack(motion.levels).max() > 0.01) & (motion.propellant > 0.0)
        return Dropping(stages.begin(Flight(fresh, errors)), burning)

    def step(self, key: Array, state: Dropping, action: Array) -> Dropping:
        return state._replace(progress=state.progress._replace(over=jnp.bool_(True)))

    def observe(self, state: Dropping) -> Array:
        return jnp.stack([jnp.where(state.progress.over, 1.0, 0.0)])

    def outcome(self, state: Dropping) -> Outcome:
        over = state.progress.over
        return Outcome(over, over & ~state.burning, jnp.where(state.burning, 1, 0).astype(jnp.int32))

    def leave(self, state: Dropping) -> Flight:
        return state.progress.flight

    def telemetry(self, state: Dropping) -> dict[str, Array]:
        return stages.telemetry(self.upper, self.site, state.progress)


@hookimpl
def mission_phase() -> PhaseSpec:
    """The phase's record."""
    return PhaseSpec(params=Params, environment=StageDrop)
