"""What happens to a phase before and while it flies, for displays: checking, tracing, compiling, reading, flying."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator

Listener = Callable[[str, str], None]  # (name of the phase, stage)
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
    """Report the stage of a phase."""
    for listener in tuple(_listeners):
        listener(phase, stage)
