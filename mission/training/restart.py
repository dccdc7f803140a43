"""The restart mixture: where a training vehicle starts when its episode has ended."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from mission.machine.trees import count, is_float
from mission.missionfile.phases import Phase
from mission.training.bank import TerminalBank


def draw_start(phase: Phase, bank: TerminalBank | None, key: Array) -> Any:
    """Draw a hand-over for one training vehicle: a stored row, a noisy row, or the phase's own start.

    Args:
      phase: the phase with its `start` and its restart mixture.
      bank: bank of the previous phase; with None only `start` is used.
      key: consumed.
    """
    if bank is None:
        return phase.environment.start(key)
    mixture = phase.entry.restart
    pick, choose, shake, own = jax.random.split(key, 4)
    row = jax.tree.map(lambda leaf: leaf[jax.random.randint(pick, (), 0, count(bank.rows))], bank.rows)
    noisy = add_noise(row, bank.factor, mixture.noise_scale, shake)
    nominal = phase.environment.start(own)
    u = jax.random.uniform(choose)

    def select(stored: Array, moved: Array, fresh: Array) -> Array:
        return jnp.where(u < mixture.stored, stored, jnp.where(u < mixture.stored + mixture.noisy, moved, fresh))

    return jax.tree.map(select, row, noisy, nominal)


def add_noise(row: Any, factor: Array, scale: float, key: Array) -> Any:
    """Return one row (leaves [...]) plus scale * N(0, factor factor^T) on its float leaves. Key consumed."""
    noise = scale * (factor @ jax.random.normal(key, (factor.shape[1],)))
    leaves, tree = jax.tree.flatten(row)
    shifted, at = [], 0
    for leaf in leaves:
        if is_float(leaf):
            leaf = leaf + noise[at : at + leaf.size].reshape(leaf.shape).astype(leaf.dtype)
            at += leaf.size
        shifted.append(leaf)
    return jax.tree.unflatten(tree, shifted)
