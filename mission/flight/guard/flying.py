"""Flights for fitting a guard: entries to each phase, and take-overs at given control steps.

Shapes: N flights, B of a block, O observation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from mission.flight.batches import (
    BATCH,
    block_rows,
    compile_flight,
    concatenate,
    first_rows,
    fly_batch,
    join,
    map_each,
    pad,
    program_identity,
    to_host,
)
from mission.flight.causes import check_flight_causes
from mission.flight.chain import Chain
from mission.flight.fly import Flying, PhaseFlight, advance_flights, begin_flights, end_flights, guarded_controller
from mission.flight.guard.decision import advantage
from mission.flight.guard.store import guarded_parameters
from mission.machine.programs import Program
from mission.missionfile.phases import PolicyPhase
from mission.missionfile.pilots import guarded

NEVER = np.iinfo(np.int32).max  # a control step that no flight reaches
Flew = Callable[[int], None]  # called with a number of flights that were flown


class Explored(NamedTuple):
    """N flights of one phase whose guide took over at given control steps."""

    flight: PhaseFlight
    obs: Any  # float32 [N, O] at the take-over; zero without one
    peak: Any  # float32 [N], the guide's largest advantage before it; -inf without networks


class Entries(NamedTuple):
    """The flights that entered one phase, flown by their agents to the end of the mission."""

    numbers: np.ndarray  # int [N]
    handoff: Any  # leaves [N, ...]
    steps: np.ndarray  # int [N], of the phase
    success: np.ndarray  # bool [N], of the mission


def guard_phases(chain: Chain) -> list[int]:
    """Return the indices of the phases that can have a guard."""
    return [k for k, phase in enumerate(chain.phases) if phase.guardable]


def with_guards(chain: Chain, indices: list[int], parameters: dict[int, dict[str, Any]] | None = None) -> Chain:
    """Return a chain with guarded phases; the guard is inactive in phases without parameters."""
    phases, actors, flights = list(chain.phases), list(chain.actors), list(chain.flights)
    for k in indices:
        phases[k] = chain.phases[k].flown_by(guarded(chain.phases[k].pilot))
        actors[k] = (parameters or {}).get(k, guarded_parameters(chain.actors[k]))
        flights[k] = compile_flight(phases[k])
    return dataclasses.replace(chain, phases=tuple(phases), actors=tuple(actors), flights=tuple(flights))


def fly_entries(chain: Chain, numbers: np.ndarray, flew: Flew) -> list[Entries]:
    """Fly missions by their numbers (int [N]); return by phase the flights that entered it."""
    parts: list[list[Entries]] = [[] for _ in chain.phases]
    for at in range(0, len(numbers), BATCH):
        some, entering = numbers[at : at + BATCH], []

        def fly_one(index: int, handoff: Any, keys: Any, alive: np.ndarray, entering: list[Any] = entering) -> Any:
            entering.append((to_host(handoff), alive))
            return fly_batch(chain.flights[index], chain.actors[index], handoff, keys, alive)

        flights = chain.fly(some, fly_one)
        success = np.logical_and.reduce([one.success for one in flights])
        for k, (flight, (handoff, alive)) in enumerate(zip(flights, entering, strict=True)):
            rows = jax.tree.map(lambda leaf, alive=alive: leaf[alive], handoff)
            parts[k].append(Entries(some[alive], rows, flight.steps[alive], success[alive]))
        flew(len(some))
    return [jax.tree.map(concatenate, *one) for one in parts]


def rows_of(entries: Entries, index: np.ndarray) -> Entries:
    """Return some of the flights (int [M]); a flight may occur several times."""
    return jax.tree.map(lambda leaf: leaf[index], entries)


class Explorer:
    """Flies the guarded phase of a chain with take-overs that are given, and the rest of the mission as the chain does."""

    def __init__(self, chain: Chain, index: int) -> None:
        """Prepare for phase `index` of a chain from `with_guards`."""
        self.chain, self.index, self.phase = chain, index, cast(PolicyPhase, chain.phases[index])
        self._program = Program(
            partial(_explore, self.phase), program_identity(self.phase, "explore"), None, self.phase.name
        )

    def explore(self, params: Any, entries: Entries, at: np.ndarray, flew: Flew) -> tuple[Explored, np.ndarray]:
        """Fly from the entry states, with the guide from control steps `at` (int [N]); also return success, bool [N].

        Args:
          params: those of the guarded phase, whose margin does not count.
          entries: N flights.
          at: NEVER for no take-over.
          flew: called with the number of flights after each batch.
        """

        def fly(handoff: Any, keys: Any, rows: slice) -> Explored:
            count = rows.stop - rows.start
            trees = (pad(at[rows], count), pad(handoff, count), pad(keys, count), np.arange(BATCH) < count)
            blocks = [block_rows(tree, count) for tree in trees]
            return first_rows(
                join(map_each(partial(self._program, params), *blocks, devices=self.chain.devices)), count
            )

        return self._each_batch(entries, fly, lambda one: one.flight, flew)

    def guarded(self, params: Any, entries: Entries, flew: Flew) -> tuple[PhaseFlight, np.ndarray]:
        """Fly under guard from the entry states; also return success, bool [N]."""

        def fly(handoff: Any, keys: Any, rows: slice) -> PhaseFlight:
            every = np.ones(rows.stop - rows.start, bool)
            return fly_batch(self.chain.flights[self.index], params, handoff, keys, every)

        return self._each_batch(entries, fly, lambda one: one, flew)

    def _each_batch(
        self, entries: Entries, fly: Callable[..., Any], flight_of: Callable[[Any], PhaseFlight], flew: Flew
    ) -> tuple[Any, np.ndarray]:
        parts, ends = [], []
        for begin in range(0, len(entries.numbers), BATCH):
            rows = slice(begin, min(begin + BATCH, len(entries.numbers)))
            some = jax.tree.map(lambda leaf, rows=rows: leaf[rows], entries)
            found = fly(some.handoff, self.chain.keys(some.numbers)[self.index], rows)
            flight = flight_of(found)
            check_flight_causes(self.phase, flight.cause, np.ones(len(some.numbers), bool))
            rest = self.chain.fly_from(self.index + 1, flight.handoff, some.numbers, flight.success)
            ends.append(np.logical_and.reduce([flight.success, *(one.success for one in rest)]))
            parts.append(to_host(found))
            flew(len(some.numbers))
        return jax.tree.map(concatenate, *parts), np.concatenate(ends)


def _explore(phase: PolicyPhase, params: Any, at: Array, handoff: Any, keys: Array, alive: Array) -> Explored:
    """Fly one block of a phase, the guide from control steps `at` (int32 [B])."""
    control = guarded_controller(phase, lambda params, obs, step: step == at)
    begun, enter = begin_flights(phase, handoff, keys, alive)

    def step(carry: tuple[Flying, Array, Array]) -> tuple[Flying, Array, Array]:
        now, seen, peak = carry
        obs = jax.vmap(phase.environment.observe)(now.state)
        seen = jnp.where(((now.t == at) & ~now.ended)[:, None], obs, seen)
        if "margin" in params:
            gain = advantage(params, obs)
            peak = jnp.where(now.ended | (now.takeover >= 0), peak, jnp.maximum(peak, gain))
        return advance_flights(phase, control, params, keys, now)[0], seen, peak

    flights, observed = alive.shape[0], len(phase.environment.observation_names)
    first = (begun, jnp.zeros((flights, observed)), jnp.full(flights, -jnp.inf))
    end, seen, peak = lax.while_loop(lambda carry: ~carry[0].ended.all(), step, first)
    return Explored(end_flights(phase, end, alive, enter), seen, peak)
