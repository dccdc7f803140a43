"""The bank of a phase: its stored end states, from which the next phase is trained.

Shapes: M training rows, K held-out rows, D float entries of one row.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mission.errors import GateError
from mission.flight.batches import FlightProgram, concatenate, fly_rows, to_host
from mission.flight.fly import PhaseFlight
from mission.machine.trees import count, is_float
from mission.missionfile.models import Bank
from mission.missionfile.phases import Phase
from mission.storage.records import PolicyRecord
from mission.storage.steps import PhaseFolder


class TerminalBank(NamedTuple):
    """The successful end states of a phase and the Gaussian that is fitted to them.

    `rows` leaves [M, ...], `held_out` leaves [K, ...]: never trained on. `mean` [D] and `factor` [D, D] describe the
    float leaves of all training rows: covariance = factor @ factor.T.
    """

    rows: Any
    held_out: Any
    mean: Array
    factor: Array


def bank_flights(
    phase: Phase, flight: FlightProgram, params: Any, upstream: TerminalBank | None, key: Array
) -> tuple[PhaseFlight, np.ndarray]:
    """Fly the flights that fill a phase's bank; also return which of them started from held-out rows.

    Flights from held-out rows give held-out rows, so that no later gate starts from a row whose ancestor was used for
    training.
    """
    settings = phase.entry.bank
    kept = settings.held_out_flights
    held_out = np.arange(settings.flights) < kept
    if upstream is None:
        return fly_rows(phase, flight, params, None, np.arange(settings.flights), key), held_out
    rows = jax.tree.map(concatenate, to_host(upstream.held_out), to_host(upstream.rows))
    held, train = count(upstream.held_out), count(upstream.rows)
    index = np.where(held_out, np.arange(settings.flights) % held, held + (np.arange(settings.flights) - kept) % train)
    return fly_rows(phase, flight, params, rows, index, key), held_out


def build_bank(
    handoffs: Any,
    success: np.ndarray,
    held_out: np.ndarray,
    settings: Bank,
    where: str,
    losses: dict[str, int],
    trained: bool = True,
) -> TerminalBank:
    """Keep the successes of N flights, split as their starts were split.

    Args:
      handoffs: leaves [N, ...], the hand-overs of the phase.
      success: bool [N].
      held_out: bool [N], flights whose start was held out upstream (or drawn so).
      settings: the settings of the bank; `minimum` is the smallest size.
      where, losses: the place and the losses by cause, for the message.
      trained: whether an agent flew, which more training may improve.

    Raises:
      GateError: fewer successes than `settings.minimum`, with the numbers in it.
    """
    train, kept = np.flatnonzero(success & ~held_out), np.flatnonzero(success & held_out)
    if len(train) + len(kept) < settings.minimum or min(len(train), len(kept)) == 0:
        more = "raise budget.env_steps: training resumes; or fly more (bank.flights), which needs --fresh"
        causes = ", ".join(f"{cause} {n}" for cause, n in losses.items() if n) or "none"
        raise GateError(
            where,
            expected=f"at least {settings.minimum} successes for the next phase to start from (bank.minimum)",
            found=f"{len(train)} + {len(kept)} held out, of {len(success)} flights; failures: {causes}",
            remedy=more if trained else "correct the guide or the parameters of the phase; or fly more (bank.flights)",
        )
    rows, held = (jax.tree.map(lambda leaf, i=i: leaf[i], handoffs) for i in (train, kept))
    mean, factor = fit_density(rows)
    return TerminalBank(rows, held, jnp.asarray(mean), jnp.asarray(factor))


def bank_shapes(phase: Phase, rows: int, held_out: int) -> TerminalBank:
    """Return the shapes of a stored bank of M rows and K held-out rows, to load it."""
    trees = (
        jax.tree.map(lambda leaf, n=n: jax.ShapeDtypeStruct((n, *leaf.shape), leaf.dtype), phase.leaves)
        for n in (rows, held_out)
    )
    width = sum(leaf.size for leaf in jax.tree.leaves(phase.leaves) if is_float(leaf))
    mean, factor = (cast(Array, jax.ShapeDtypeStruct((width,) * rank, jnp.float32)) for rank in (1, 2))
    return TerminalBank(*trees, mean, factor)


def fit_density(rows: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean [D] and a square root [D, D] of the covariance of the float leaves, float32.

    The root is computed from eigenvalues, so that constant or dependent entries are allowed.
    """
    m = count(rows)
    columns = [np.asarray(leaf, np.float64).reshape(m, -1) for leaf in jax.tree.leaves(rows) if is_float(leaf)]
    table = np.concatenate(columns, axis=1) if columns else np.zeros((m, 0))
    mean, scale = table.mean(axis=0), table.std(axis=0)
    centred = (table - mean) / np.where(scale > 0.0, scale, 1.0)
    values, vectors = np.linalg.eigh(centred.T @ centred / m)
    factor = (scale[:, None] * vectors) * np.sqrt(np.maximum(values, 0.0))
    return mean.astype(np.float32), factor.astype(np.float32)


def load_bank(folder: PhaseFolder, phase: Phase, record: PolicyRecord) -> TerminalBank | None:
    """Return the bank of a stored phase; None if too few flights succeeded for one."""
    if record.bank is None:
        return None
    return folder.load_policy({"bank": bank_shapes(phase, record.bank.rows, record.bank.held_out)})["bank"]
