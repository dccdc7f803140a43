"""Lock folders of checkpoints and reports, so that each has at most one writer."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Generator
from pathlib import Path

from mission.errors import MachineError, machine_errors

LOCK = ".lock"
_HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)  # of a lock that another process holds


@contextlib.contextmanager
def folder_lock(folder: Path, option: str = "--checkpoints") -> Generator[None]:
    """Hold the exclusive lock of a mission's or a report's folder; it dies with the process.

    Args:
      folder: created if it does not exist; the file `.lock` stays in it.
      option: the command-line option that chose the folder, for messages.

    Raises:
      MachineError: another run holds it, the folder cannot be written, or its file system has no locks.
    """
    with machine_errors(folder, "a folder to write to", f"choose another {option}"):
        folder.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW  # not a file behind a link: it is truncated below
        stream = os.fdopen(os.open(folder / LOCK, flags, 0o666), "a+")
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _HELD:
                raise MachineError(
                    str(folder),
                    expected="a file system that can lock a file, so that two runs cannot write there at once",
                    found=f"it cannot: {error.strerror}",
                    remedy=f"choose {option} on another file system; a network file system may need its lock service",
                ) from None
            stream.seek(0)
            raise MachineError(
                str(folder),
                expected="to be the only run that writes there",
                found=f"it is locked by process {stream.read().strip() or '(unknown)'}",
                remedy=f"wait for that run, or choose another {option}",
            ) from None
        with contextlib.suppress(OSError):  # a full disk: only the message of a second run needs the number
            os.ftruncate(stream.fileno(), 0)
            os.write(stream.fileno(), str(os.getpid()).encode())
        yield
