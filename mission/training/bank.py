"""Terminal-state bank: where the previous phase really ended, and how training restarts from there.

Shapes: M training rows, K held-out rows, D float entries of one row.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mission.errors import GateError
from mission.missionfile.models import Bank, Restart
from mission.phase import Phase


class TerminalBank(NamedTuple):
    """Successful end states of a phase and the Gaussian fitted to them.

    `rows` leaves [M, ...], `held_out` leaves [K, ...]: never trained on. `mean` [D] and `factor`
    [D, D] describe the float leaves of all training rows: covariance = factor @ factor.T.
    """

    rows: Any
    held_out: Any
    mean: Array
    factor: Array


def count(rows: Any) -> int:
    """Number of rows of a batched pytree."""
    return jax.tree.leaves(rows)[0].shape[0]


def build_bank(
    handoffs: Any, success: np.ndarray, held_out: np.ndarray, settings: Bank, where: str, losses: dict[str, int]
) -> TerminalBank:
    """Keep the successes of N flights, split as their starts were split.

    Args:
      handoffs: leaves [N, ...], what the phase left.
      success: bool [N].
      held_out: bool [N], flights whose start was held out upstream (or drawn so).
      settings: minimum size.
      where, losses: for the message.

    Raises:
      GateError: fewer successes than `settings.minimum`, with the numbers in it.
    """
    train, kept = np.flatnonzero(success & ~held_out), np.flatnonzero(success & held_out)
    if len(train) + len(kept) < settings.minimum or min(len(train), len(kept)) == 0:
        causes = ", ".join(f"{cause} {n}" for cause, n in losses.items() if n) or "none"
        raise GateError(
            where,
            expected=f"at least {settings.minimum} successes for the next phase to start from (bank.minimum)",
            found=f"{len(train)} + {len(kept)} held out, of {len(success)} flights; losses: {causes}",
            remedy="raise budget.env_steps: training goes on; or fly more (bank.flights), which needs --fresh",
        )
    rows, held = (jax.tree.map(lambda leaf, i=i: leaf[i], handoffs) for i in (train, kept))
    mean, factor = fit_density(rows)
    return TerminalBank(rows, held, jnp.asarray(mean), jnp.asarray(factor))


def is_float(leaf: Array) -> bool:
    """Whether a leaf takes part in the density."""
    return jnp.issubdtype(leaf.dtype, jnp.floating)


def fit_density(rows: Any) -> tuple[np.ndarray, np.ndarray]:
    """Mean [D] and a square root [D, D] of the covariance of the float leaves, float32.

    The root is taken by eigenvalues, so that constant or dependent entries are no trouble.
    """
    m = count(rows)
    columns = [np.asarray(leaf, np.float64).reshape(m, -1) for leaf in jax.tree.leaves(rows) if is_float(leaf)]
    table = np.concatenate(columns, axis=1) if columns else np.zeros((m, 0))
    mean, scale = table.mean(axis=0), table.std(axis=0)
    centred = (table - mean) / np.where(scale > 0.0, scale, 1.0)
    values, vectors = np.linalg.eigh(centred.T @ centred / m)
    factor = (scale[:, None] * vectors) * np.sqrt(np.maximum(values, 0.0))
    return mean.astype(np.float32), factor.astype(np.float32)


def add_noise(row: Any, factor: Array, scale: float, key: Array) -> Any:
    """One row (leaves [...]) plus scale * N(0, factor factor^T) on its float leaves. Key consumed."""
    noise = scale * (factor @ jax.random.normal(key, (factor.shape[1],)))
    leaves, tree = jax.tree.flatten(row)
    shifted, at = [], 0
    for leaf in leaves:
        if is_float(leaf):
            leaf = leaf + noise[at : at + leaf.size].reshape(leaf.shape).astype(leaf.dtype)
            at += leaf.size
        shifted.append(leaf)
    return jax.tree.unflatten(tree, shifted)


def draw_start(phase: Phase, bank: TerminalBank | None, key: Array) -> Any:
    """A fresh handoff for one training vehicle: stored, noisy, or the phase's own start.

    Args:
      phase: whose `start` and restart mix are used.
      bank: of the previous phase; None draws from `start` alone.
      key: consumed.
    """
    if bank is None:
        return phase.environment.start(key)
    mix: Restart = phase.entry.restart
    pick, choose, shake, own = jax.random.split(key, 4)
    row = jax.tree.map(lambda leaf: leaf[jax.random.randint(pick, (), 0, count(bank.rows))], bank.rows)
    noisy = add_noise(row, bank.factor, mix.noise_scale, shake)
    nominal = phase.environment.start(own)
    u = jax.random.uniform(choose)

    def select(stored: Array, moved: Array, fresh: Array) -> Array:
        return jnp.where(u < mix.stored, stored, jnp.where(u < mix.stored + mix.noisy, moved, fresh))

    return jax.tree.map(select, row, noisy, nominal)
