"""Signals: the first one ends training after the current chunk, the next one ends the process at once.

Python runs its signal handlers in the main thread, between two of its own instructions, and a compiled chunk is a
single one. The command line therefore lets the C-level handler write each signal to a pipe (`signal.set_wakeup_fd`),
and a thread that reads the pipe acts on it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator
from typing import Any, NoReturn

from mission.training.early import STOPPED

log = logging.getLogger("mission")
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_ENDING_S = 5.0  # longest wait for threads that are still running after a command
_FLUSH_S = 1.0  # longest wait for a terminal or pipe that takes no more text
_SHOW_CURSOR = "\x1b[?25h"  # a progress bar hides it


class _StopRequest:
    """The signals that arrived during one training run."""

    def __init__(self) -> None:
        self.signals = 0

    def note(self) -> bool:
        """Count a signal; return whether training will end by itself because of it."""
        self.signals += 1
        if self.signals == 1:
            log.warning("stopping at the end of this chunk; repeat the signal to stop at once, without saving")
        return self.signals == 1


_endings: list[Callable[[], object]] = []  # what is to be done before a signal ends the process
_requests: list[_StopRequest] = []  # of the training run in progress
_watching = threading.Event()


def watch_signals() -> None:
    """End this process at once on a signal from now on, unless a training run handles it; for the command line only."""
    if _watching.is_set():
        return
    _watching.set()
    read, write = os.pipe()
    os.set_blocking(write, False)
    for number in _caught():
        signal.signal(number, lambda number, frame: None)  # the thread below acts
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(read,), name="signals", daemon=True).start()


def _caught() -> list[signal.Signals]:
    """Return the signals to handle; if SIGHUP is ignored (`nohup`), it stays ignored."""
    return [n for n in _SIGNALS if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]


def _watch(pipe: int) -> None:
    while True:
        for number in os.read(pipe, 64):
            if number in _SIGNALS and not (_requests and _requests[-1].note()):
                end_process(130, STOPPED)


def quiet_threads() -> None:
    """Report an exception that ends a thread in one line, and none of those that Python ignores in destructors."""

    def report(failed: Any) -> None:
        name = failed.thread.name if failed.thread is not None else "(ended)"
        log.warning("the thread %s failed: %s: %s", name, failed.exc_type.__name__, failed.exc_value)

    threading.excepthook = report
    sys.unraisablehook = lambda failed: None


def finish_process(code: int) -> NoReturn:
    """End the process of the command line: at once after an error, else within seconds.

    Python itself waits without a limit for threads that libraries and plugins have started.
    """
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        closed = isinstance(error, BrokenPipeError)  # the reader has all that it wanted
        end_process(3, "" if closed else f"error: could not write to standard output: {error}")
    if code != 0:
        end_process(code)
    timer = threading.Timer(_ENDING_S, end_process, (code,))
    timer.daemon = True
    timer.start()
    sys.exit(code)


def end_process(code: int, message: str = "") -> NoReturn:
    """Flush what was printed and end the process with an exit code at once; no other thread is waited for."""

    def flush() -> None:
        for call in _endings:
            with contextlib.suppress(Exception):
                call()
        with contextlib.suppress(Exception):
            cursor = _SHOW_CURSOR if sys.stderr.isatty() else ""
            print(cursor + message, end="\n" if message else "", file=sys.stderr, flush=True)
            sys.stdout.flush()

    with contextlib.suppress(RuntimeError):  # the interpreter is shutting down and starts no thread any more
        thread = threading.Thread(target=flush, daemon=True)
        thread.start()
        thread.join(_ENDING_S if _endings else _FLUSH_S)
    os._exit(code)


@contextlib.contextmanager
def before_end(call: Callable[[], object]) -> Generator[None]:
    """Inside the block, call a function from another thread before a signal ends the process of the command line."""
    _endings.append(call)
    try:
        yield
    finally:
        _endings.remove(call)


@contextlib.contextmanager
def interruptible() -> Generator[Callable[[], bool]]:
    """Turn the first SIGINT, SIGTERM or SIGHUP into a flag, which the yielded function returns.

    The next signal ends the process of the command line at once; elsewhere it raises KeyboardInterrupt.
    """
    request = _StopRequest()

    def note(number: int, frame: Any) -> None:
        if not request.note():
            raise KeyboardInterrupt

    before: dict[int, Any] = {}
    if not _watching.is_set():
        with contextlib.suppress(ValueError):  # not the main thread: the caller keeps its own handlers
            before = {number: signal.signal(number, note) for number in _caught()}
    _requests.append(request)
    try:
        yield lambda: request.signals > 0
    finally:
        _requests.remove(request)
        for number, handler in before.items():
            signal.signal(number, handler)
