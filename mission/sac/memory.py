"""The memory of an agent: one replay buffer, or one with permanent first rows and a ring buffer of recent rows.

Prior data that is never overwritten: RLPD, Ball et al. 2023, arXiv:2302.02948. Each part has its own priorities, and a
window of n steps stays inside its part. Rows are numbered through both parts, the kept ones first: P kept rows, C rows
of
the ring, B minibatch.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from mission.sac import replay as store
from mission.sac.config import SacConfig
from mission.sac.replay import NStep, Replay


class Kept(NamedTuple):
    """A memory in two parts."""

    prior: Replay  # P rows, filled once
    recent: Replay  # the ring of C rows


Memory = Replay | Kept


def create(config: SacConfig, width: int) -> Memory:
    """Return an empty memory of rows of this width."""
    recent = store.create(config.buffer_size // config.vehicles * config.vehicles, width, config.prioritised)
    rows = config.prior_rows
    return Kept(store.create(rows, width, config.prioritised), recent) if rows else recent


def parts(memory: Memory) -> tuple[Replay, ...]:
    """Return the parts, in the order of their numbers."""
    return (memory,) if isinstance(memory, Replay) else memory


def capacity(memory: Memory) -> int:
    """Return the number of rows of all parts."""
    return sum(part.rows.shape[0] for part in parts(memory))


def append(memory: Memory, batch: Any) -> Memory:
    """Write E rows: into the kept rows until they are full, then into the ring."""
    if isinstance(memory, Replay):
        return store.append(memory, batch)
    kept = memory.prior.size < memory.prior.rows.shape[0]
    return Kept(store.append(memory.prior, batch, kept), store.append(memory.recent, batch, ~kept))


def sample(memory: Memory, key: Array, batch: int, beta: Array, share: float) -> tuple[Array, Array]:
    """Return rows int32 [B], those of the kept part first, and importance weights [B] over their maximum. Key consumed.

    A weight corrects the priorities within its part, so it counts the rows and the mass of that part alone.
    """
    if isinstance(memory, Replay):
        return store.sample(memory, key, batch, beta)
    drawn = [store.draw(*part, beta) for part in _split(memory, key, batch, share)]
    weight = jnp.concatenate([weight for _, weight in drawn])
    return _numbered(memory, [index for index, _ in drawn]), weight / weight.max()


def sample_uniform(memory: Memory, key: Array, batch: int, share: float) -> Array:
    """Return rows int32 [B], drawn uniformly within each part, as many of each as `sample`. Key consumed."""
    if isinstance(memory, Replay):
        return store.sample_uniform(memory, key, batch)
    return _numbered(memory, [store.sample_uniform(*part) for part in _split(memory, key, batch, share)])


def _split(memory: Kept, key: Array, batch: int, share: float) -> list[tuple[Replay, Array, int]]:
    """Return each part with a key and its number of rows of a minibatch."""
    kept, keys = kept_of(batch, share), jax.random.split(key)
    return [(memory.prior, keys[0], kept), (memory.recent, keys[1], batch - kept)]


def kept_of(batch: int, share: float) -> int:
    """Return how many rows of a minibatch come from the kept part; each part gives at least one."""
    return min(max(1, round(share * batch)), batch - 1)


def _numbered(memory: Kept, index: list[Array]) -> Array:
    return jnp.concatenate([index[0], index[1] + memory.prior.rows.shape[0]])


def rows_at(memory: Memory, index: Array, example: Any) -> Any:
    """Return the rows [B] as the example's pytree, leaves [B, ...]."""
    if isinstance(memory, Replay):
        return store.unpack(memory.rows[index], example)
    return _chosen(memory, index, lambda part, rows: store.unpack(part.rows[rows], example))


def gather_n_step(memory: Memory, index: Array, example: Any, n: int, gamma: float, stride: int) -> NStep:
    """Return windows of up to n steps that start at rows [B]; each ends in its part."""
    if isinstance(memory, Replay):
        return store.gather_n_step(memory, index, example, n, gamma, stride)
    return _chosen(memory, index, lambda part, rows: store.gather_n_step(part, rows, example, n, gamma, stride))


def _chosen(memory: Kept, index: Array, read: Any) -> Any:
    """Return what `read` gives of each row's part, leaves [B, ...]."""
    first = memory.prior.rows.shape[0]
    kept, prior = index < first, read(memory.prior, jnp.minimum(index, first - 1))
    recent = read(memory.recent, jnp.maximum(index - first, 0))
    return jax.tree.map(lambda a, b: jnp.where(kept.reshape(-1, *(1,) * (a.ndim - 1)), a, b), prior, recent)


def update_priorities(
    memory: Memory, index: Array, td_error: Array, share: float, alpha: float, epsilon: float
) -> Memory:
    """Set the priorities of the rows [B] of one `sample`."""
    if isinstance(memory, Replay):
        return store.update_priorities(memory, index, td_error, alpha, epsilon)
    kept, first = kept_of(index.size, share), memory.prior.rows.shape[0]
    return Kept(
        store.update_priorities(memory.prior, index[:kept], td_error[:kept], alpha, epsilon),
        store.update_priorities(memory.recent, index[kept:] - first, td_error[kept:], alpha, epsilon),
    )


def rebuild_priorities(memory: Memory, td_error: Array, alpha: float, epsilon: float) -> Memory:
    """Set the priority of every filled row from td_error [P + C]."""
    if isinstance(memory, Replay):
        return store.rebuild_priorities(memory, td_error, alpha, epsilon)
    first = memory.prior.rows.shape[0]
    return Kept(
        store.rebuild_priorities(memory.prior, td_error[:first], alpha, epsilon),
        store.rebuild_priorities(memory.recent, td_error[first:], alpha, epsilon),
    )
