"""Lock folders of checkpoints and reports, so that each has at most one writer."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Generator
from pathlib import Path

from mission.errors import MachineError, machine_errors

LOCK = ".lock"


@contextlib.contextmanager
def folder_lock(folder: Path, option: str = "--checkpoints") -> Generator[None]:
    """Hold the exclusive lock of a mission's or a report's folder; it dies with the process.

    Args:
      folder: created if it does not exist; the file `.lock` stays in it.
      option: the command-line option that chose the folder, for messages.

    Raises:
      MachineError: another run holds it, or the folder cannot be written.
    """
    with machine_errors(folder, "a folder to write to", f"choose another {option}"):
        folder.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW  # not a file behind a link: it is truncated below
        stream = os.fdopen(os.open(folder / LOCK, flags, 0o666), "a+")
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            stream.seek(0)
            raise MachineError(
                str(folder),
                expected="to be the only run that writes there",
                found=f"it is locked by process {stream.read().strip() or '(unknown)'}",
                remedy=f"wait for that run, or choose another {option}",
            ) from None
        stream.truncate(0)
        stream.write(str(os.getpid()))
        stream.flush()
        yield
