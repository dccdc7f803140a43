"""The restart mixture: the start of a training vehicle after its episode has ended."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from mission.machine.trees import count, drop_weak_types, is_float
from mission.missionfile.phases import Phase, TrainedPhase
from mission.training.bank import TerminalBank


def wide_vehicles(phase: TrainedPhase) -> Array | None:
    """Return which of the E training vehicles start with the phase's wide dispersions, bool [E]; None if it has none."""
    if phase.wide is None:
        return None
    vehicles = phase.learner.vehicles
    return jnp.arange(vehicles) < round(phase.wide.share * vehicles)


def snapshot_steps(phase: TrainedPhase, horizon: int) -> int:
    """Return how many control steps before the end of an episode a snapshot may be; 0: none are kept.

    Args:
      phase: with its restart mixture.
      horizon: of the learner.
    """
    restart = phase.entry.restart
    return max(horizon, restart.visited_steps if restart.visited > 0.0 else 0)


def fresh_state(phase: Phase, bank: TerminalBank | None, key: Array, wide: bool = False) -> Any:
    """Return the state of one training vehicle at the beginning of an episode.

    Args:
      phase, bank: as in `draw_start`.
      key: consumed.
      wide: whether the vehicle starts with the phase's wide dispersions.
    """
    draw, enter = jax.random.split(key)
    return drop_weak_types(phase.starts(wide).enter(enter, draw_start(phase, bank, draw, wide)))


def draw_start(phase: Phase, bank: TerminalBank | None, key: Array, wide: bool = False) -> Any:
    """Draw a hand-over for one training vehicle: a stored row, a noisy row, or the phase's own start.

    Args:
      phase: the phase with its `start` and its restart mixture.
      bank: bank of the previous phase; with None only `start` is used.
      key: consumed.
      wide: whether the vehicle starts with the phase's wide dispersions; rows of the bank then get new dispersions.
    """
    environment = phase.starts(wide)
    if bank is None:
        return environment.start(key)
    mixture = phase.entry.restart
    pick, choose, shake, own, *again = jax.random.split(key, 5 if wide else 4)
    row = jax.tree.map(lambda leaf: leaf[jax.random.randint(pick, (), 0, count(bank.rows))], bank.rows)
    for redraw_key in again:
        row = environment.redraw(redraw_key, row)
    noisy = environment.perturb(row, draw_noise(row, bank.factor, mixture.noise_scale, shake))
    nominal = environment.start(own)
    u = jax.random.uniform(choose)

    def select(stored: Array, moved: Array, fresh: Array) -> Array:
        return jnp.where(u < mixture.stored, stored, jnp.where(u < mixture.stored + mixture.noisy, moved, fresh))

    return jax.tree.map(select, row, noisy, nominal)


def draw_noise(row: Any, factor: Array, scale: float, key: Array) -> Any:
    """Return scale * N(0, factor factor^T) on the float leaves of one row (leaves [...]), zeros on the others. Key
    consumed.
    """
    noise = scale * (factor @ jax.random.normal(key, (factor.shape[1],)))
    leaves, tree = jax.tree.flatten(row)
    drawn, at = [], 0
    for leaf in leaves:
        if is_float(leaf):
            drawn.append(noise[at : at + leaf.size].reshape(leaf.shape).astype(leaf.dtype))
            at += leaf.size
        else:
            drawn.append(jnp.zeros_like(leaf))
    return jax.tree.unflatten(tree, drawn)
