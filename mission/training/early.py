"""Ctrl-C before the rest of the command line is imported; this file imports only what Python has loaded or loads at once."""

from __future__ import annotations

import os
import signal
import sys

STOPPED = "stopped; what was saved before is kept"
_PACKAGE = os.path.dirname(os.path.dirname(__file__))


def started_as_program() -> bool:
    """Return whether this process is the command line: `mission` or `python -m mission`."""
    folder, name = os.path.split(sys.argv[0])
    return name == "mission" or folder == _PACKAGE


def end_on_interrupt() -> None:
    """From now on, end this process on Ctrl-C, without a traceback of an import."""

    def end(number: int, frame: object) -> None:
        os.write(2, f"{STOPPED}\n".encode())
        os._exit(130)

    signal.signal(signal.SIGINT, end)
