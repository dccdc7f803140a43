"""Stage burn: a stage's engines burn without steering, until its propellant or the time ends.

There is no action. Success `burnt_out`: the propellant ended, or `duration_s` has
passed. Failure `grounded`: back below the pad.
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
_UNUSED_KG = 0.01  # a tank that runs dry within a step would lose a sixth of it


class Params(StageParams):
    """How a stage burns."""

    duration_s: float | None = Field(None, gt=0.0, le=1000.0, description="Until the propellant ends, if not given.")
    at_full_thrust: bool = Field(False, description="Begin at full thrust, without delay and lag.")


@dataclasses.dataclass(frozen=True, eq=False)
class StageBurn(Environment[Flight, Progress]):
    """See the module's docstring."""

    params: Params

    observation_names = ("time",)
    action_names = ()
    causes = ("burnt_out", "grounded")
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
        state = handoff.state
        if self.params.at_full_thrust:
            # unless the phase before was a burn of this stage too, this is an ignition
            left = tuple(
                jnp.where(running > 0.0, number, number - 1.0)
                for running, number in zip(state.lit_for, state.ignitions_left, strict=True)
            )
            full = (jnp.float32(1.0),) * len(left)
            motion = state.motion._replace(levels=full)
            state = state._replace(motion=motion, lit_for=tuple(level + 1e3 for level in full), ignitions_left=left)
        return stages.begin(handoff._replace(state=state))

    def step(self, key: Array, state: Progress, action: Array) -> Progress:
        motion = state.flight.state.motion
        errors = state.flight.dispersion
        spent = sum(
            level * (len(group.positions) * group.flow)
            for level, group in zip(motion.levels, self.body.engines, strict=True)
        )
        spent = jnp.maximum(spent * errors.thrust / errors.specific_impulse, 1e-6)
        left = jnp.maximum(motion.propellant - _UNUSED_KG, 0.0) / spent
        if self.params.duration_s is not None:
            left = jnp.minimum(left, self.params.duration_s - PERIOD_S * state.periods)
        over = left <= PERIOD_S
        command = idle(self.body)._replace(throttle=(jnp.float32(1.0),) * len(self.body.engines))
        seconds = jnp.where(over, jnp.maximum(left, 0.0), PERIOD_S)
        return stages.fly(self.body, self.site, state, command, seconds, over)

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
    return PhaseSpec(params=Params, environment=StageBurn)
