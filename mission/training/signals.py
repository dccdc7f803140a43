"""Signals during training: the first one stops after the current chunk, the second one stops at once."""

from __future__ import annotations

import contextlib
import logging
import signal
from collections.abc import Callable, Generator
from typing import Any

log = logging.getLogger("mission")


@contextlib.contextmanager
def interruptible() -> Generator[Callable[[], bool]]:
    """Turn SIGINT and SIGTERM into a flag, which the yielded function returns; a second signal stops at once."""
    received: list[int] = []

    def note(number: int, frame: Any) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)
        log.warning("stopping at the end of this chunk; repeat the signal to stop at once, without saving")

    try:
        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: the caller keeps its own handlers
        before = {}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
