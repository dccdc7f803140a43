"""A decorator for functions that many programs call: JAX traces them once per set of shapes, not once per call."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax

F = TypeVar("F", bound=Callable[..., Any])


def traced_once(static: int) -> Callable[[F], F]:
    """Return a decorator that traces a function once per set of shapes and values of its first `static` arguments.

    Those arguments are plain tuples of numbers, such as a `Body`, a `Site` or a `Table`. Where one of them holds a
    traced number (a body whose thrust is estimated, for instance), the function is traced at every call.
    """

    def decorate(function: F) -> F:
        compiled = jax.jit(function, static_argnums=tuple(range(static)))

        @functools.wraps(function)
        def call(*arguments: Any, **options: Any) -> Any:
            try:
                hash(arguments[:static])
            except TypeError:  # a tracer or an array
                return function(*arguments, **options)
            return compiled(*arguments, **options)

        return call  # ty: ignore[invalid-explicit-return]

    return decorate
