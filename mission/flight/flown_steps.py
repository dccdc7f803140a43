"""Control steps of flights, chosen for a check: along the flights, and those with an event.

Shapes: N vehicles, T control steps, M chosen ones, A action.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mission.machine.trees import drop_weak_types, is_float, is_key, where_rows
from mission.missionfile.phases import Phase

MOST_STEPS = 1000  # of a flight
ALONG = "along its flights"  # the steps in which nothing happens
_MOST_VALUES = 4  # of a leaf that holds a flag
_RARE = 0.25  # largest share of the control steps in which the flag of an event changes
_INSIDE = 0.95  # actions stay away from the ends of [-1, 1], where a vehicle may clip them
_AT_START = 8  # one chosen step in so many is the first of its flight


class FlownSteps(NamedTuple):
    """M control steps in groups; in steps along the flights, the action differs from the flown one."""

    states: list[Any]  # leaves [M, ...] of the states before the step
    keys: Array  # [M]
    actions: np.ndarray  # [M, A]
    groups: dict[str, np.ndarray]  # where -> indices of the steps
    flags: tuple[int, ...]  # leaves that an event changes: two values, and seldom another one


class _Flights(NamedTuple):
    """N flights as they were flown; a state stays constant after its flight has ended."""

    states: list[list[Any]]  # T + 1 times the leaves [N, ...]
    keys: list[Array]  # T times [N]
    actions: list[np.ndarray]  # T times [N, A]
    live: np.ndarray  # bool [T, N]
    ends: np.ndarray  # bool [T, N], the step ended the phase


def flown_steps(phase: Phase, vehicles: int, seed: int) -> FlownSteps:
    """Fly vehicles, half of them near the guide if there is one, and choose some of their control steps.

    Args:
      phase: the resolved phase.
      vehicles: N; so many steps are chosen twice over along the flights, and a quarter of it for each event.
      seed: of keys, actions and choice.
    """
    flights, names = _fly(phase, vehicles, seed), _leaf_names(phase)
    rng = np.random.default_rng(seed)
    changes = {i: _changes(flights, i) for i in range(len(names))}
    share = {i: change[flights.live].mean() for i, change in changes.items()}
    flags = tuple(i for i in changes if 0.0 < share[i] <= _RARE and _is_flag([state[i] for state in flights.states]))
    events = {"in a step that ends the phase": flights.ends}
    events |= {f"in a step that changes {names[i]}": changes[i] & flights.live for i in flags}
    quiet = flights.live & ~np.any(list(events.values()), axis=0)
    first = _choose(rng, quiet[:1], max(1, 2 * vehicles // _AT_START))
    chosen = {ALONG: np.concatenate([first, _choose(rng, quiet, 2 * vehicles)])}
    chosen |= {where: _choose(rng, steps, vehicles // 4) for where, steps in events.items()}
    places = np.concatenate(list(chosen.values()))
    bounds = np.cumsum([0, *map(len, chosen.values())])
    groups = {where: np.arange(*bounds[k : k + 2]) for k, where in enumerate(chosen) if len(chosen[where])}
    leaves = [_gather([state[i] for state in flights.states], places) for i in range(len(names))]
    actions = np.stack([flights.actions[t][n] for t, n in places])
    free = groups.get(ALONG, np.zeros(0, int))  # any action may follow, and the guide's are much alike
    actions[free] = rng.uniform(-_INSIDE, _INSIDE, actions[free].shape)
    return FlownSteps(leaves, jnp.stack([flights.keys[t][n] for t, n in places]), actions, groups, flags)


def _leaf_names(phase: Phase) -> list[str]:
    """Return the name of each leaf of a state."""
    env = phase.environment
    state = jax.eval_shape(lambda key: env.enter(key, env.start(key)), jax.random.key(0))
    return ["state" + jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(state)[0]]


def _fly(phase: Phase, vehicles: int, seed: int) -> _Flights:
    """Fly N vehicles to their ends, or for MOST_STEPS."""
    env, pilot = phase.environment, phase.guide_environment
    guided = jnp.arange(vehicles) % 2 == (0 if pilot.guide is not None else 2)

    def advance(states: tuple[Any, Any], live: Array, key: Array) -> tuple[Any, Array, tuple[Array, Array, Array]]:
        state, piloted = states
        noise_key, step_key = jax.random.split(key)
        keys = jax.random.split(step_key, vehicles)
        noise = jax.random.uniform(noise_key, (vehicles, len(env.action_names)), minval=-1.0, maxval=1.0)
        action = noise
        if pilot.guide is not None:
            action = jnp.where(guided[:, None], jax.vmap(pilot.guide)(piloted) + 0.2 * noise, noise)
        action = jnp.clip(action, -_INSIDE, _INSIDE)
        after = drop_weak_types(jax.vmap(env.step)(keys, state, action))
        followed = drop_weak_types(jax.vmap(pilot.step)(keys, piloted, action))
        ended = jax.vmap(env.outcome)(after).terminated
        moved = where_rows(live, after, state), where_rows(live, followed, piloted)
        return moved, live & ~ended, (keys, action, live & ended)

    def begin(key: Array) -> tuple[Any, Array]:
        starts, enters = jax.random.split(key, (2, vehicles))
        handoff = jax.vmap(env.start)(starts)
        # the guide's plans are in the state of its own environment, in which the same vehicles fly
        state, piloted = (drop_weak_types(jax.vmap(one.enter)(enters, handoff)) for one in (env, pilot))
        return (state, piloted), ~jax.vmap(env.outcome)(state).terminated

    key, number = jax.random.key(seed), 0
    program = jax.jit(lambda states, live, t: advance(states, live, jax.random.fold_in(key, t)))
    now, live = jax.jit(begin)(key)
    states, lived, flown = [_leaves(now[0])], [], []
    while number < min(env.max_steps, MOST_STEPS) and live.any():
        lived.append(np.asarray(live))
        now, live, step = program(now, live, number)
        states.append(_leaves(now[0]))
        flown.append(step)
        number += 1
    keys, actions, ends = zip(*flown, strict=True)
    return _Flights(states, list(keys), list(map(np.asarray, actions)), np.array(lived), np.array(ends))


def _leaves(state: Any) -> list[Any]:
    return [leaf if is_key(leaf) else np.asarray(leaf) for leaf in jax.tree.leaves(state)]


def _changes(flights: _Flights, leaf: int) -> np.ndarray:
    """Return whether a leaf changed in each step, bool [T, N]; typed keys never do."""
    if is_key(flights.states[0][leaf]):
        return np.zeros_like(flights.live)
    rows = [state[leaf].reshape(len(flights.live[0]), -1) for state in flights.states]
    return np.array([(a != b).any(axis=1) for a, b in itertools.pairwise(rows)])


def _is_flag(values: Sequence[Any]) -> bool:
    """Return whether a leaf has only few different values over all flights, such as a boolean."""
    return values[0].dtype == bool or (is_float(values[0]) and len(np.unique(np.stack(values))) <= _MOST_VALUES)


def _choose(rng: np.random.Generator, steps: np.ndarray, most: int) -> np.ndarray:
    """Return at most so many places [M, 2] (control step, vehicle) where `steps` [T, N] is true."""
    places = np.argwhere(steps)
    return places[rng.permutation(len(places))[:most]]


def _gather(values: Sequence[Any], places: np.ndarray) -> Any:
    rows = [values[t][n] for t, n in places]
    return jnp.stack(rows) if is_key(values[0]) else np.stack(rows)
