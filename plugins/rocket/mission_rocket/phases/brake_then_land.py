"""Brake, then land: three engines brake at high altitude, the vehicle coasts, and one engine lands it.

For missions without an entry burn. The phase flies the entry burn down to 7 km and the landing burn from there as one:
one agent flies both, with the actions of the entry burn (11), of which the landing uses eight. By default (`residual: 0`)
the vehicle receives the action itself; with `residual` r > 0, guide + r x action, of which 0.3 counts while it brakes. Success is judged at the ground only, not at the switch from braking to landing.

Success and failures are those of the landing burn; while braking, `overstressed`, `out_of_propellant` and `rose` end
the phase.

Reward: that of the landing burn after the hand-over; at the hand-over the entry burn's `arrival`, and throughout `limits`
and `propellant`, 1 for each 400 kg: at the landing burn's price, the 17 t that every flight burns would outweigh
the landing.

Guidance law: that of the entry burn, which ignites at once and burns at 57 m/s2, then that of the landing burn.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from pydantic import Field

from mission import Outcome, PhaseSpec, hookimpl
from mission_rocket import booster
from mission_rocket.booster import FlightParams
from mission_rocket.measurement import Measurement
from mission_rocket.observation import Observation, ObservedPhase, Row, flag
from mission_rocket.phases import entry_burn, landing_burn
from mission_rocket.phases.entry_burn import EntryBurn
from mission_rocket.phases.landing_burn import LandingBurn
from mission_rocket.physics.state import Handover
from mission_rocket.report import sections

_HAND_OVER_M = 7000.0
_OFFSET_M = -1200.0  # of the vacuum impact point: air and burn shorten the flight by this distance
_LOAD = 57.0  # m/s2; with the entry burn's 46, dynamic pressure would exceed 80 kPa from 30 km
_PRICE_KG = 400.0  # of propellant, for a reward of 1
_SHARE = 0.3  # of the landing's residual, while it brakes
# the positions of the landing's actions among those of the entry burn
_LANDING = np.array([entry_burn.CONTROLS.names.index(name) for name in landing_burn.CONTROLS.names])


class Params(landing_burn.LandingBox):
    """The landing box, the start, and the guidance law."""

    residual: float = booster.residual_field(0.0)
    reference_throttle: float = Field(0.864, gt=0.4, lt=1.0, description="Throttle at which the guide plans to land.")
    start_altitude_m: float = Field(30_000.0, gt=20e3, le=70e3)


class State(NamedTuple):
    """Both parts; until the switch, `landing` is its initial value from `enter`."""

    braking: Array
    entry: entry_burn.State
    landing: landing_burn.State


def _part(prefix: str, part: str, rows: Observation) -> tuple[Row, ...]:
    """Return the rows of a part, entry or landing, which are zero while the other one flies."""

    def wrapped(one: Row) -> Row:
        def value(phase: Any, state: Any) -> Array:
            flies = state.braking if part == "entry" else ~state.braking
            return jnp.where(flies, one.compute(getattr(phase, part), getattr(state, part)), 0.0)

        scale = one.scale._replace(transform=lambda scaled: scaled)
        return one._replace(name=f"{prefix}_{one.name}", scale=scale, value=value, component=None)

    return tuple(wrapped(one) for one in rows)


@dataclasses.dataclass(frozen=True, eq=False)
class BrakeThenLand(ObservedPhase[Handover, State]):
    """The braking and landing burns; see the docstring of the module."""

    entry: EntryBurn
    landing: LandingBurn

    observation = Observation(
        (
            flag("braking", "whether it still brakes", "braking"),
            *_part("brake", "entry", EntryBurn.observation),
            *_part("land", "landing", LandingBurn.observation),
        )
    )
    action_names = entry_burn.CONTROLS.names
    event_actions = tuple(entry_burn.CONTROLS.names[at] for at in entry_burn.CONTROLS.events)
    causes = LandingBurn.causes
    control_period_s = LandingBurn.control_period_s
    max_steps = 700

    @classmethod
    def build(cls, params: Params) -> BrakeThenLand:
        """Build the phase for its parameters."""
        high = entry_burn.Params(
            **{name: getattr(params, name) for name in FlightParams.model_fields},
            residual=_SHARE * params.residual,
            ignition_altitude_m=params.start_altitude_m,
            guide_load_m_s2=_LOAD,
            guide_q_alpha_share=0.55,
            end_altitude_m=_HAND_OVER_M,
            start_altitude_m=params.start_altitude_m,
            start_propellant_kg=(18_000.0, 26_000.0),
            start_offset_m=_OFFSET_M,
        )
        low = landing_burn.Params(
            **{name: getattr(params, name) for name in landing_burn.LandingBox.model_fields},
            residual=params.residual,
            reference_throttle=params.reference_throttle,
            start_altitude_m=_HAND_OVER_M,
        )
        braking = dataclasses.replace(EntryBurn.build(high), control_period_s=cls.control_period_s)
        return cls(braking, LandingBurn.build(low))

    def unguided(self) -> BrakeThenLand:
        """Return the phase without the plans of its guidance laws, unless the agent corrects them."""
        return BrakeThenLand(self.entry.unguided(), self.landing.unguided())

    def start(self, key: Array) -> Handover:
        """Draw a vehicle as an arc leaves it at the altitude of the start."""
        return self.entry.start(key)

    def perturb(self, handoff: Handover, noise: Handover) -> Handover:
        """Move the vehicle by noise; the dispersions of its flight stay."""
        return self.entry.perturb(handoff, noise)

    def redraw(self, key: Array, handoff: Handover) -> Handover:
        """Draw the dispersions of a flight again."""
        return self.entry.redraw(key, handoff)

    def enter(self, key: Array, handoff: Handover) -> State:
        return State(jnp.bool_(True), self.entry.enter(key, handoff), self.landing.enter(key, handoff))

    def step(self, key: Array, state: State, action: Array) -> State:
        braked = self.entry.step(key, state.entry, action)
        landed = self.landing.step(key, state.landing, action[_LANDING])
        handed = self.landing.enter(key, braked.flight)
        over = state.braking & braked.arrived

        def choose(kept: Array, fresh: Array, moved: Array) -> Array:
            return jnp.where(over, fresh, jnp.where(state.braking, kept, moved))

        landing = jax.tree.map(choose, state.landing, handed, landed)
        entry = jax.tree.map(lambda old, new: jnp.where(state.braking, new, old), state.entry, braked)
        return State(state.braking & ~braked.arrived, entry, landing)

    def guide(self, state: State) -> Array:
        """Return the action of the guidance law of the present part; zero where the action corrects it."""
        brake, land = self.entry.guide(state.entry), self.landing.guide(state.landing)
        return jnp.where(state.braking, brake, jnp.zeros_like(brake).at[_LANDING].set(land))

    def outcome(self, state: State) -> Outcome:
        brake, land = self.entry.outcome(state.entry), self.landing.outcome(state.landing)
        cause = jnp.full((), self.causes.index("rose"), jnp.int32)
        for name in ("overstressed", "out_of_propellant"):
            cause = jnp.where(self.entry.causes.among(brake, name), jnp.int32(self.causes.index(name)), cause)
        return Outcome(
            jnp.where(state.braking, brake.terminated & ~state.entry.arrived, land.terminated),
            ~state.braking & land.success,
            jnp.where(state.braking, cause, land.cause),
        )

    def reward(self, state: State, action: Array, after: State, outcome: Outcome) -> dict[str, Array]:
        """Return the reward terms of a step."""
        brake, entry_outcome = state.braking, self.entry.outcome(after.entry)
        arrival = self.entry.reward(state.entry, action, after.entry, entry_outcome)["arrival"]
        landed = self.landing.reward(state.landing, action[_LANDING], after.landing, outcome)
        braked = self.landing.limit_penalty(after.entry.measured)
        before, here = self.leave(state).state.motion, self.leave(after).state.motion
        return {name: jnp.where(brake, 0.0, term) for name, term in landed.items()} | {
            "arrival": jnp.where(brake, arrival, 0.0),
            "propellant": jnp.asarray(here.propellant - before.propellant) / _PRICE_KG,
            "limits": jnp.where(brake, braked, landed["limits"]),
        }

    def _flown(self, state: State) -> tuple[Handover, Measurement]:
        """Return flight and measurement of the present part."""
        parts = ((part.flight, part.measured) for part in (state.entry, state.landing))
        return jax.tree.map(lambda a, b: jnp.where(state.braking, a, b), *parts)

    def leave(self, state: State) -> Handover:
        return self._flown(state)[0]

    def telemetry(self, state: State) -> dict[str, Array]:
        flight, measured = self._flown(state)
        time = jnp.where(state.braking, state.entry.time, state.entry.time + state.landing.time)
        begun = state.entry.begun_kg
        return self.landing.telemetry(
            state.landing._replace(flight=flight, measured=measured, time=time, begun_kg=begun)
        )


@hookimpl
def mission_phase() -> PhaseSpec:
    """Return the record of the phase."""
    return PhaseSpec(
        params=Params,
        environment=BrakeThenLand.build,
        reward=lambda params: BrakeThenLand.build(params).reward,
        limits=lambda params: booster.structural_limits(params, True),
        report=sections,
        sac=booster.flown_alone_sac(rounds=32),
    )
