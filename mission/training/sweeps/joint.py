"""Joint training of a chain: after the sweeps, all its agents learn from the same whole flights.

An update flies vehicles from the start of the mission to its end, and every agent follows the gradient of the return
of whole flights, across the links (`mission.training.sweeps.flights`). At regular intervals the chain is evaluated,
and the best policies are kept.

Shapes: B vehicles of one block.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from mission.errors import MachineError
from mission.flight.batches import flight_keys, fly_batches, map_each, name_key, to_host
from mission.flight.chain import Chain
from mission.machine.trees import floats
from mission.missionfile.models import JointSettings
from mission.missionfile.phases import Phase, TrainedPhase
from mission.storage.arrays import read_arrays, write_arrays
from mission.storage.records import Record
from mission.strict import Natural, Seed
from mission.training.restart import draw_start
from mission.training.sweeps.flights import Leg, PhaseFlights

log = logging.getLogger("mission")
_BLOCK = 32
_CHOSEN = (5 << 29) - (1 << 20)  # number of the first flight that chooses among the policies: fresh ones
_KEPT = "joint.npz"


class JointRecord(Record):
    """The record of `joint.npz`, a joint training in progress."""

    seed: Seed
    settings: JointSettings
    start: tuple[str | None, ...]  # content hashes of the policies that it began with
    updates: Natural
    succeeded: Natural


@dataclasses.dataclass
class _State:
    """The state of joint training: actors and optimisers by phase, and the best actors so far with their successes."""

    actors: list[Any]
    optimisers: list[Any]
    best: list[Any]
    succeeded: int
    updates: int


@dataclasses.dataclass(eq=False)
class JointTraining:
    """The joint training of a chain; `without` names reward terms that count only in the last phase."""

    chain: Chain
    phases: Sequence[Phase]
    settings: JointSettings
    without: tuple[str, ...]
    folder: Path
    progress: Callable[[int, int], None]
    tell: Callable[[int, int, float], None]

    def __post_init__(self) -> None:
        """Make the programs."""
        last, bound = len(self.phases) - 1, self.settings.flight_grad_max
        legs = [PhaseFlights(phase, () if k == last else self.without, bound) for k, phase in enumerate(self.phases)]
        self.programs = [leg.programs() for leg in legs]
        self.update = jax.jit(self._updated)

    def run(self) -> list[Any]:
        """Train to the end, resuming an interrupted run; return the best actors by phase."""
        state = self._restore()
        settings = self.settings
        if state.updates == 0:
            state.succeeded = self._successes(state.actors)
            self.tell(0, settings.updates, state.succeeded / settings.choice_flights)
        while state.updates < settings.updates:
            grads, earned = self._gradients(state.actors, state.updates)
            for k, grad in enumerate(grads):
                if isinstance(self.phases[k], TrainedPhase):
                    state.actors[k], state.optimisers[k] = self.update(state.actors[k], state.optimisers[k], grad)
            state.updates += 1
            self.progress(state.updates, settings.updates)
            if state.updates % settings.every == 0 or state.updates == settings.updates:
                found = self._successes(state.actors)
                if found > state.succeeded:
                    state.best, state.succeeded = list(state.actors), found
                self.tell(state.updates, settings.updates, found / settings.choice_flights)
                self._keep(state)
            log.debug("joint update %d: mean return %.4g", state.updates, earned)
        return state.best

    def _optimiser(self) -> optax.GradientTransformation:
        return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(self.settings.learning_rate))

    def _updated(self, actor: Any, optimiser: Any, grad: Any) -> tuple[Any, Any]:
        """Return an actor and its optimiser after a step up the gradient; statistics of observations stay."""
        down = {name: jax.tree.map(jnp.negative, part) for name, part in grad.items()}
        frozen = {name: jax.tree.map(jnp.zeros_like, part) for name, part in grad.items() if name != "params"}
        changes, optimiser = self._optimiser().update(down | frozen, optimiser)
        return optax.apply_updates(actor, changes), optimiser

    def _gradients(self, actors: Sequence[Any], update: int) -> tuple[list[Any], float]:
        """Return the gradient of the mean return of one update's whole flights, by phase, and that return."""
        key = jax.random.fold_in(name_key(jax.random.key(self.chain.seed), "joint training of"), update)
        keys = flight_keys(key, np.arange(self.settings.flights))
        blocks = [keys[at : at + _BLOCK] for at in range(0, self.settings.flights, _BLOCK)]
        parts = map_each(partial(self._block, actors), blocks)
        total = jax.tree.map(lambda *leaves: sum(leaves[1:], leaves[0]), *(grads for grads, _ in parts))
        return total, float(sum(earned for _, earned in parts))

    def _block(self, actors: Sequence[Any], keys: Array) -> tuple[list[Any], Any]:
        """Fly one block from the first phase to the last, and pull the gradient back through all of them."""
        share = np.float32(1.0 / self.settings.flights)
        by_phase = [to_host(jax.vmap(name_key, (0, None))(keys, phase.name)) for phase in self.phases]
        handoff, alive = to_host(self._starts(by_phase[0])), np.ones(len(keys), bool)
        legs: list[tuple[Any, Leg]] = []
        for k, (forward, _) in enumerate(self.programs):
            leg = forward(actors[k], handoff, by_phase[k], alive)
            legs.append((handoff, leg))
            handoff, alive = leg.handoff, leg.passed
        pulled = [np.zeros(leaf.shape, leaf.dtype) for leaf in floats(handoff)]
        grads: list[Any] = [None] * len(legs)
        for k in reversed(range(len(legs))):
            handoff, leg = legs[k]
            grads[k], pulled = self.programs[k][1](actors[k], handoff, by_phase[k], leg, pulled, share)
        return grads, sum(np.asarray(leg.earned).sum() * share for _, leg in legs)

    def _starts(self, keys: Array) -> Any:
        """Return the hand-overs [B] with which a block begins; as many of them with wide dispersions as in training."""
        first = self.phases[0]
        share = first.wide.share if first.wide is not None else 0.0
        wide = round(share * len(keys))
        parts = [
            jax.vmap(partial(draw_start, first, None, wide=days))(keys[rows])
            for days, rows in ((True, slice(0, wide)), (False, slice(wide, None)))
            if len(keys[rows])
        ]
        return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)

    def _successes(self, actors: Sequence[Any]) -> int:
        chain = dataclasses.replace(self.chain, actors=tuple(to_host(actor) for actor in actors))
        results = fly_batches(self.settings.choice_flights, None, chain.fly, self.progress, first=_CHOSEN)
        return int(np.logical_and.reduce([result.success for result in results]).sum())

    def _begin(self) -> _State:
        actors = list(self.chain.actors)
        return _State(actors, [self._optimiser().init(actor) for actor in actors], list(actors), 0, 0)

    def _keep(self, state: _State) -> None:
        """Write the state of the training atomically."""
        leaves = jax.tree.leaves((state.actors, state.optimisers, state.best))
        record = JointRecord(
            seed=self.chain.seed,
            settings=self.settings,
            start=self.chain.policy_hashes(),
            updates=state.updates,
            succeeded=state.succeeded,
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        arrays = {str(number): np.asarray(leaf) for number, leaf in enumerate(leaves)}
        write_arrays(self.folder / _KEPT, "joint training", record, arrays)

    def _restore(self) -> _State:
        """Return the state that an interrupted run has kept, or the first one."""
        state = self._begin()
        path, remedy = self.folder / _KEPT, "remove the file: it begins again"
        found = read_arrays(path, "joint training", JointRecord, remedy)
        conditions = (self.settings, self.chain.seed, self.chain.policy_hashes())
        if found is None or (found[0].settings, found[0].seed, found[0].start) != conditions:
            return state
        record, arrays = found
        carried = (state.actors, state.optimisers, state.best)
        template = [np.asarray(leaf) for leaf in jax.tree.leaves(carried)]
        leaves = [arrays.get(str(number), np.empty(0, object)) for number in range(len(template))]
        kinds = [[(leaf.shape, leaf.dtype) for leaf in some] for some in (template, leaves)]
        if kinds[0] != kinds[1] or len(arrays) != len(template):
            raise MachineError(
                str(path), expected="the policies of this mission", found="arrays of other shapes", remedy=remedy
            )
        actors, optimisers, best = jax.tree.unflatten(jax.tree.structure(carried), leaves)
        return _State(actors, optimisers, best, record.succeeded, record.updates)
