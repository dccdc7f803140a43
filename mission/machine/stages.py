"""The stages of a phase before and during flight, for displays: checking, tracing, compiling, reading, flying.

Workers of a cluster have a stage, too: how far they are, and what they cost.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator

Listener = Callable[[str, str], None]  # (name of the phase, or CLUSTER; stage)
CLUSTER = "Ray"  # no phase can have this name
_listeners: list[Listener] = []


@contextlib.contextmanager
def watch(listener: Listener) -> Generator[None]:
    """Call `listener` at every stage, from any thread."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def tell(phase: str, stage: str) -> None:
    """Report the stage of a phase, or of the workers of a cluster."""
    for listener in tuple(_listeners):
        listener(phase, stage)
