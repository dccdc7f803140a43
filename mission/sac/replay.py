"""Replay over any pytree of float32 rows: uniform or prioritised, n-step, all inside jit.

Rows are packed in one [C, W] float32 array, so a minibatch is one gather. Priorities form a tree of fan-out 16; the
prefix sums of a row are its product with a triangular matrix. Sums above a changed row are computed again instead of
being corrected by differences, so that rounding errors do not accumulate.

PER: Schaul et al. 2016, arXiv:1511.05952. Shapes: C capacity, W width of a row, E rows appended at once (one per
vehicle), B minibatch, K = 16.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

FAN_OUT = 16
_TOP = 128  # largest number of entries of the top level
_DENSE = 65_536  # up to this many entries below it, summing a whole level again is cheaper


class Replay(NamedTuple):
    """Rows and their priorities."""

    rows: Array  # float32 [C, W]
    tree: tuple[Array, ...]  # float32 [rows, K] per level, top first; leaves hold (|td| + eps)^alpha
    largest: Array  # float32 [], the maximum of all leaves set so far
    cursor: Array  # int32 [], the next row to write; a multiple of E
    size: Array  # int32 [], rows filled


def row_width(example: Any) -> int:
    """Return the width W of the packed row of one example pytree."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(example))


def pack(batch: Any) -> Array:
    """Pack a pytree of float32 leaves [B, ...] -> [B, W]."""
    return jnp.concatenate(
        [leaf.reshape(leaf.shape[0], -1).astype(jnp.float32) for leaf in jax.tree.leaves(batch)], axis=1
    )


def unpack(rows: Array, example: Any) -> Any:
    """Unpack [..., W] -> pytree of leaves [..., *shape of the example's leaf]."""
    leaves, tree = jax.tree.flatten(example)
    split = np.cumsum([math.prod(leaf.shape) for leaf in leaves])[:-1]
    parts = jnp.split(rows, split, axis=-1)
    return jax.tree.unflatten(
        tree, [part.reshape(*rows.shape[:-1], *leaf.shape) for part, leaf in zip(parts, leaves, strict=True)]
    )


def create(capacity: int, width: int, prioritised: bool = True) -> Replay:
    """Return an empty replay of C rows; without priorities the tree is empty."""
    levels: list[Array] = []
    entries = capacity
    while prioritised and (not levels or entries > FAN_OUT):
        rows = math.ceil(entries / FAN_OUT)
        levels.insert(0, jnp.zeros((rows, FAN_OUT)))
        if rows * FAN_OUT <= _TOP:
            break
        entries = rows
    return Replay(jnp.zeros((capacity, width)), tuple(levels), jnp.ones(()), jnp.int32(0), jnp.int32(0))


def append(replay: Replay, batch: Any, write: Array | None = None) -> Replay:
    """Write E rows at the cursor, over the oldest; new rows get the largest priority so far.

    With `write`, bool [], nothing changes where it is False; the rows that are there are then written again, because
    XLA would copy the buffer for a branch.
    """
    rows = pack(batch)
    capacity, e = replay.rows.shape[0], rows.shape[0]
    if capacity % e:
        raise ValueError(f"capacity {capacity} is not a multiple of the {e} rows appended at once")
    index = replay.cursor + jnp.arange(e, dtype=jnp.int32)
    if write is not None:
        rows = jnp.where(write, rows, lax.dynamic_slice_in_dim(replay.rows, replay.cursor, e))
    stored = lax.dynamic_update_slice(replay.rows, rows, (replay.cursor, 0))
    tree = replay.tree
    if tree:
        value = jnp.full((e,), replay.largest)
        if write is not None:
            value = jnp.where(write, value, tree[-1].reshape(-1)[index])
        tree = _set_leaves(tree, index, value)
    steps = e if write is None else jnp.where(write, e, 0)
    cursor = (replay.cursor + steps) % capacity
    return Replay(stored, tree, replay.largest, cursor, jnp.minimum(replay.size + steps, capacity))


def _set_leaves(tree: tuple[Array, ...], index: Array, value: Array) -> tuple[Array, ...]:
    """Set leaves [B], with the largest value for duplicate indices, and sum the rows above again."""
    row = index // FAN_OUT
    leaves = tree[-1].reshape(-1).at[index].set(0.0).at[index].max(value)
    levels = [leaves.reshape(tree[-1].shape)]
    for level in tree[-2::-1]:
        if levels[0].size <= _DENSE:
            levels.insert(0, _sums(levels[0], level))
        else:
            sums = levels[0][row] @ np.ones(FAN_OUT, np.float32)
            levels.insert(0, level.reshape(-1).at[row].set(sums).reshape(level.shape))
            row = row // FAN_OUT
    return tuple(levels)


def _sums(below: Array, level: Array) -> Array:
    """Return a level from all rows of the level below it, in the shape of `level`."""
    return jnp.zeros(level.size).at[: below.shape[0]].set(below @ np.ones(FAN_OUT, np.float32)).reshape(level.shape)


def _prefix(rows: Array) -> Array:
    """Return inclusive sums along rows [R, n], as a product: XLA's reduction on the CPU is ten times slower."""
    return jnp.matmul(rows, np.triu(np.ones((rows.shape[1],) * 2, np.float32)), precision=lax.Precision.HIGHEST)


def _prefix_flat(values: Array) -> Array:
    """Return inclusive sums over all of [N], N a multiple of K: within rows of K, and over the rows before."""
    within = _prefix(values.reshape(-1, FAN_OUT))
    before = jnp.concatenate([jnp.zeros(1), _prefix(within[None, :, -1])[0, :-1]])
    return (within + before[:, None]).reshape(-1)


def _search_top(entries: Array, u: Array, stratum: Array) -> tuple[Array, Array]:
    """Return the entry of [N] into which each u falls, and the remainder of u; u [B] holds one value per stratum.

    No search is needed: the stratum of a prefix sum gives the number of u below it, and the index of an entry is the
    number of prefix sums that are not above u.
    """
    batch, prefix = u.shape[0], _prefix_flat(entries)
    u = jnp.minimum(u, prefix[-1] * (1.0 - 1e-6))  # rounding must not lead past the last entry
    mine = jnp.minimum((prefix / stratum).astype(jnp.int32), batch)
    below = mine + ((mine < batch) & (u[jnp.minimum(mine, batch - 1)] < prefix))
    counts = jnp.zeros(-(-batch // FAN_OUT) * FAN_OUT).at[below].add(1.0, mode="drop")
    index = jnp.minimum(_prefix_flat(counts)[:batch], entries.size - 1).astype(jnp.int32)
    return index, u - jnp.where(index > 0, prefix[index - 1], 0.0)


def _search_row(rows: Array, index: Array, u: Array) -> tuple[Array, Array, Array]:
    """Return the child of each row [B, K] into which u [B] falls, as an index in the level; the remainder; its mass.

    The bisection is a separate loop, so that its result is an array. Otherwise XLA would compute the index again for
    every element of the following gather.
    """
    prefix, first = _prefix(rows), index * FAN_OUT
    here = jnp.arange(u.shape[0], dtype=jnp.int32) * FAN_OUT - first  # from the level to these rows
    u = jnp.minimum(u, prefix[:, -1] * (1.0 - 1e-6))
    flat = prefix.reshape(-1)

    def halve(step: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        child, below = carry
        half = FAN_OUT // 2 >> step
        until = flat[here + child + half - 1]
        # With <=, a child without mass is skipped.
        return jnp.where(until <= u, child + half, child), jnp.where(until <= u, until, below)

    child, below = lax.fori_loop(0, FAN_OUT.bit_length() - 1, halve, (first, jnp.zeros_like(u)))
    return child, u - below, rows.reshape(-1)[here + child]


def sample_uniform(replay: Replay, key: Array, batch: int) -> Array:
    """Return row indices int32 [B], drawn uniformly from the filled rows. Key consumed."""
    return jax.random.randint(key, (batch,), 0, replay.size)


def sample(replay: Replay, key: Array, batch: int, beta: Array | float) -> tuple[Array, Array]:
    """Return row indices int32 [B], and importance weights float32 [B] over their maximum in the minibatch."""
    index, weight = draw(replay, key, batch, beta)
    return index, weight / weight.max()


def draw(replay: Replay, key: Array, batch: int, beta: Array | float) -> tuple[Array, Array]:
    """Return row indices int32 [B] and importance weights float32 [B], not divided by their maximum.

    Prioritised: stratified over the total (PER, appendix B.2.1), with weights (size * P(i))^-beta (PER, section 3.4).
    Without priorities: uniform, with weights of 1. Key consumed.
    """
    if not replay.tree:
        return sample_uniform(replay, key, batch), jnp.ones(batch)
    # The search starts at the lowest level that has no more entries than there are strata.
    first = max((k for k, level in enumerate(replay.tree) if level.size <= batch), default=0)
    top = replay.tree[first].reshape(-1)
    total = top.sum()
    stratum = total / batch
    u = (jnp.arange(batch) + jax.random.uniform(key, (batch,))) * stratum
    # All reads, including that of the mass, precede the update's writes; otherwise XLA copies the tree.
    index, u = _search_top(top, u, stratum)
    leaf = top[index]
    for level in replay.tree[first + 1 :]:
        index, u, leaf = _search_row(level[index], index, u)
    index = jnp.minimum(index, replay.size - 1)
    probability = jnp.maximum(leaf / total, 1e-12)
    return index, (replay.size.astype(jnp.float32) * probability) ** -beta


def update_priorities(replay: Replay, index: Array, td_error: Array, alpha: float, epsilon: float) -> Replay:
    """Set P ~ (|td| + epsilon)^alpha (PER, section 3.3) for rows [B]; duplicates keep the largest."""
    if not replay.tree:
        return replay
    value = (jnp.abs(td_error) + epsilon) ** alpha
    return replay._replace(
        tree=_set_leaves(replay.tree, index, value), largest=jnp.maximum(replay.largest, value.max())
    )


def rebuild_priorities(replay: Replay, td_error: Array, alpha: float, epsilon: float) -> Replay:
    """Set the priority of every filled row from td_error [C] at once, and reset the largest."""
    if not replay.tree:
        return replay
    value = jnp.where(jnp.arange(td_error.shape[0]) < replay.size, (jnp.abs(td_error) + epsilon) ** alpha, 0.0)
    leaves = replay.tree[-1]
    levels = [jnp.zeros(leaves.size).at[: value.size].set(value).reshape(leaves.shape)]
    for level in replay.tree[-2::-1]:
        levels.insert(0, _sums(levels[0], level))
    return replay._replace(tree=tuple(levels), largest=levels[-1].max())


class NStep(NamedTuple):
    """n-step windows of a minibatch, in the form that a one-step target needs, each with its own discount."""

    first: Any  # transition at the window's start, leaves [B, ...]
    last: Any  # transition at its end
    reward: Array  # [B], discounted sum over the window
    discount: Array  # [B], gamma^(steps in the window)
    later: Any = None  # transitions 1..n-1 of the window, leaves [B, n-1, ...]; None with n = 1
    later_weight: Any = None  # [B, n-1], gamma^k, or 0 after the window's end


def gather_n_step(replay: Replay, index: Array, example: Any, n: int, gamma: float, stride: int) -> NStep:
    """Return windows of up to n steps that start at rows [B] (Sutton and Barto 2018, section 7.1).

    A window ends at the end of its episode, or at the newest row of its vehicle. The example's fields `reward` and
    `ended` are used; `stride` = E rows lie between two steps of one vehicle.
    """
    first = unpack(replay.rows[index], example)
    if n == 1:
        return NStep(first, first, first.reward, jnp.full(index.shape, gamma))
    capacity = replay.rows.shape[0]
    age = (replay.cursor - 1 - index) % capacity // stride  # steps stored after this one
    step = jnp.arange(n)
    window = unpack(replay.rows[(index[:, None] + step[None, :] * stride) % capacity], example)
    open_before = jnp.cumprod(1.0 - window.ended, axis=1)
    inside = jnp.concatenate([jnp.ones((index.shape[0], 1)), open_before[:, :-1]], axis=1) * (
        step[None, :] <= age[:, None]
    )
    weight = inside * gamma ** step[None, :]
    reward = (window.reward * weight).sum(axis=1)
    length = inside.sum(axis=1).astype(jnp.int32)
    last = jax.tree.map(
        lambda leaf: jnp.take_along_axis(leaf, (length - 1).reshape((-1,) + (1,) * (leaf.ndim - 1)), axis=1)[:, 0],
        window,
    )
    later = jax.tree.map(lambda leaf: leaf[:, 1:], window)
    return NStep(first, last, reward, gamma ** length.astype(jnp.float32), later, weight[:, 1:])
