"""Landing burn from high above, `engines: [3, 1]`: three engines brake, the vehicle falls on, one engine lands it.

For missions without an entry burn. The environment is the entry burn down to 7 km and the landing burn from there,
as one phase: one agent flies both, with the actions of the entry burn (11), of which the landing uses seven; while it
brakes, 0.3 of `residual` counts. How the
vehicle is handed over within the phase does not count, what happens at the ground does.

Observation (82): whether it still brakes, what the entry burn observes (45) while it does and what the landing
burn observes (36) after that, zero otherwise; scales as there.

Success and failures are the landing burn's. While braking, `overstressed`, `out_of_propellant` and `rose` end it.

Reward: the landing burn's after the hand-over; while braking the entry burn's `aim` and `limits`, and propellant
at half the landing's price, throughout: at all of it the 17 t that every flight burns would outweigh the landing.

Guide: the entry burn's, which lights at once and burns at `_LOAD`, then the landing burn's.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from mission import Environment, Outcome
from mission_rocket.flight import Flight, FlightParams
from mission_rocket.phases import entry_burn, landing_burn

if TYPE_CHECKING:
    from collections.abc import Callable

_HAND_OVER_M = 7000.0
_OFFSET_M = -1200.0  # of where a fall without air ends: air and burn shorten the flight by as much
_LOAD = 57.0  # m/s2: at the entry burn's 46, dynamic pressure passes 80 kPa from 30 km
_PRICE_KG = 400.0  # of propellant, for a reward of 1
_SHARE = 0.3  # of the landing's residual, while it brakes
_LANDING_ACTIONS = jnp.array([0, 1, 3, 4, 5, 6, 7])  # of the entry burn's, in the landing burn's order


class _Braking(entry_burn.EntryBurn):
    """The entry burn at the landing's control period."""

    control_period_s = landing_burn.LandingBurn.control_period_s


class State(NamedTuple):
    """Both parts; `landing` is what `enter` gave until the hand-over."""

    braking: Array
    entry: entry_burn.State
    landing: landing_burn.State


@dataclasses.dataclass(frozen=True, eq=False)
class BrakeThenLand(Environment[Flight, State]):
    """See the module's docstring."""

    entry: _Braking
    landing: landing_burn.LandingBurn

    action_names = entry_burn.EntryBurn.action_names
    observation_names = (
        "braking",
        *(f"brake_{name}" for name in entry_burn.EntryBurn.observation_names),
        *(f"land_{name}" for name in landing_burn.LandingBurn.observation_names),
    )
    causes = landing_burn.LandingBurn.causes
    control_period_s = landing_burn.LandingBurn.control_period_s
    max_steps = 700

    def start(self, key: Array) -> Flight:
        """As an arc leaves it at the start's altitude."""
        return self.entry.start(key)

    def enter(self, key: Array, handoff: Flight) -> State:
        return State(jnp.bool_(True), self.entry.enter(key, handoff), self.landing.enter(key, handoff))

    def step(self, key: Array, state: State, action: Array) -> State:
        braked = self.entry.step(key, state.entry, action)
        landed = self.landing.step(key, state.landing, action[_LANDING_ACTIONS])
        handed = self.landing.enter(key, braked.flight)
        over = state.braking & braked.arrived

        def choose(kept: Array, fresh: Array, moved: Array) -> Array:
            return jnp.where(over, fresh, jnp.where(state.braking, kept, moved))

        landing = jax.tree.map(choose, state.landing, handed, landed)
        entry = jax.tree.map(lambda old, new: jnp.where(state.braking, new, old), state.entry, braked)
        return State(state.braking & ~braked.arrived, entry, landing)

    def _flight(self, state: State) -> Flight:
        return jax.tree.map(lambda a, b: jnp.where(state.braking, a, b), state.entry.flight, state.landing.flight)

    def guide(self, state: State) -> Array:
        """The guide's action of the present part; zero where the action corrects it."""
        brake, land = self.entry.guide(state.entry), self.landing.guide(state.landing)
        return jnp.where(state.braking, brake, jnp.zeros_like(brake).at[_LANDING_ACTIONS].set(land))

    def observe(self, state: State) -> Array:
        brake = jnp.where(state.braking, self.entry.observe(state.entry), 0.0)
        land = jnp.where(state.braking, 0.0, self.landing.observe(state.landing))
        return jnp.concatenate([state.braking.astype(jnp.float32)[None], brake, land])

    def outcome(self, state: State) -> Outcome:
        brake, land = self.entry.outcome(state.entry), self.landing.outcome(state.landing)
        cause = jnp.full((), landing_burn.ROSE)
        for theirs, ours in (
            (entry_burn.OVERSTRESSED, landing_burn.OVERSTRESSED),
            (entry_burn.EMPTY, landing_burn.EMPTY),
        ):
            cause = jnp.where(brake.cause == theirs, ours, cause)
        ended = brake.terminated & ~state.entry.arrived
        return Outcome(
            jnp.where(state.braking, ended, land.terminated),
            ~state.braking & land.success,
            jnp.where(state.braking, cause, land.cause).astype(jnp.int32),
        )

    def leave(self, state: State) -> Flight:
        return self._flight(state)

    def telemetry(self, state: State) -> dict[str, Array]:
        time = jnp.where(state.braking, state.entry.time, state.entry.time + state.landing.time)
        seen = state.landing._replace(flight=self._flight(state), time=time, begun_kg=state.entry.begun_kg)
        return self.landing.telemetry(seen)


def environment(params: landing_burn.Params) -> BrakeThenLand:
    """The phase for its parameters; `start_altitude_m` is where it begins."""
    shared = {name: getattr(params, name) for name in FlightParams.model_fields}
    high = entry_burn.Params(
        **shared,
        residual=_SHARE * params.residual,
        ignition_altitude_m=params.start_altitude_m,
        guide_load_m_s2=_LOAD,
        guide_q_alpha_share=0.55,
        end_altitude_m=_HAND_OVER_M,
        start_altitude_m=params.start_altitude_m,
        start_propellant_kg=(18_000.0, 26_000.0),
        start_offset_m=_OFFSET_M,
    )
    low = params.model_copy(update={"engines": 1, "start_altitude_m": _HAND_OVER_M})
    brake, land = entry_burn.environment(high), landing_burn.environment(low)
    return BrakeThenLand(_Braking(high, brake.body, brake.site), land)


def reward(params: landing_burn.Params) -> Callable[[State, Array, State, Outcome], dict[str, Any]]:
    """Reward terms; see the module's docstring."""
    env = environment(params)
    brake, land = entry_burn.reward(env.entry.params), landing_burn.reward(env.landing.params)

    def terms(state: State, action: Array, after: State, outcome: Outcome) -> dict[str, Any]:
        braked = brake(state.entry, action, after.entry, env.entry.outcome(after.entry))
        landed = land(state.landing, action[_LANDING_ACTIONS], after.landing, outcome)
        before, here = env.leave(state).state.motion, env.leave(after).state.motion
        mixed = {
            name: jnp.where(state.braking, braked[name] if name == "limits" else 0.0, term)
            for name, term in landed.items()
        }
        return mixed | {
            "aim": jnp.where(state.braking, braked["aim"], 0.0),
            "propellant": jnp.asarray(here.propellant - before.propellant) / _PRICE_KG,
        }

    return terms
