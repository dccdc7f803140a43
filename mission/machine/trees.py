"""Pytrees of many vehicles: counting rows, finite values, typed keys, weak types."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from mission.phase import Environment


def count(rows: Any) -> int:
    """Return the number of rows of a batched pytree."""
    return jax.tree.leaves(rows)[0].shape[0]


def is_key(leaf: Any) -> bool:
    """Return whether a leaf holds typed keys."""
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def is_float(leaf: Any) -> bool:
    """Return whether a leaf holds floating-point numbers."""
    return jnp.issubdtype(leaf.dtype, jnp.floating)


def floats(tree: Any) -> list[Any]:
    """Return the leaves of real numbers of a pytree."""
    return [leaf for leaf in jax.tree.leaves(tree) if is_float(leaf)]


def with_floats(tree: Any, numbers: list[Any]) -> Any:
    """Return a pytree with its leaves of real numbers replaced, in the order of `floats`."""
    leaves = iter(numbers)
    return jax.tree.map(lambda leaf: next(leaves) if is_float(leaf) else leaf, tree)


def without_keys(tree: Any) -> Any:
    """Return a pytree with the data of its typed keys in their place, so that it can be stored in arrays."""
    return jax.tree.map(lambda leaf: jax.random.key_data(leaf) if is_key(leaf) else leaf, tree)


def with_keys(tree: Any, like: Any) -> Any:
    """Return a pytree with typed keys where `like` has them, of which `without_keys` left the data."""
    return jax.tree.map(
        lambda leaf, old: jax.random.wrap_key_data(leaf, impl=jax.random.key_impl(old)) if is_key(old) else leaf,
        tree,
        like,
    )


def drop_weak_types(tree: Any) -> Any:
    """Give every leaf a strong type, so that the types of a loop's carry do not change."""
    return jax.tree.map(
        lambda leaf: leaf if is_key(leaf) else lax.convert_element_type(leaf, jnp.asarray(leaf).dtype), tree
    )


def where_rows(condition: Array, chosen: Any, other: Any) -> Any:
    """Select rows [N, ...] of two pytrees by a condition [N]."""
    return jax.tree.map(lambda a, b: jnp.where(condition.reshape((-1,) + (1,) * (b.ndim - 1)), a, b), chosen, other)


def state_leaf_names(environment: Environment) -> tuple[str, ...]:
    """Return the names of the float leaves of a phase's state, in the order of `finite_leaves`."""
    state = jax.eval_shape(lambda key: environment.enter(key, environment.start(key)), jax.random.key(0))
    names = tuple(
        "state" + jax.tree_util.keystr(path)
        for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]
        if is_float(leaf)
    )
    return names or ("state",)


def all_finite(rows: Any) -> Array:
    """Return whether every number of each row of a batched pytree is finite, bool [N]."""
    leaves = [
        leaf.reshape(leaf.shape[0], -1) if leaf.ndim > 1 else leaf for leaf in jax.tree.leaves(rows) if is_float(leaf)
    ]
    flags = [jnp.isfinite(leaf).all(axis=1) if leaf.ndim > 1 else jnp.isfinite(leaf) for leaf in leaves]
    return functools.reduce(jnp.logical_and, flags, jnp.ones(count(rows), bool))


def finite_leaves(state: Any, batch_axes: int) -> Array:
    """Return which float leaves of a state are finite, bool [..., L]; `batch_axes` leading axes are kept."""
    flags = [
        jnp.isfinite(leaf).all(axis=tuple(range(batch_axes, leaf.ndim)))
        for leaf in jax.tree.leaves(state)
        if is_float(leaf)
    ]
    if not flags:
        return jnp.ones((*jax.tree.leaves(state)[0].shape[:batch_axes], 1), bool)
    return jnp.stack(flags, axis=-1)
