"""Files that are kept on disk between runs: compiled programs and results of contract checks, never flights.

Entries are pickles, so they are read only from a folder that belongs to the user and that nobody else may write to, and
only if their hash is right. Whatever cannot be read is ignored, and made again.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import pickle
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from mission.errors import MachineError

log = logging.getLogger("mission")
T = TypeVar("T")
_MOST_BYTES = 2 << 30  # the entries that were not used for longest are removed beyond it
_MAGIC = b"mission program 2\n"
_SHA = hashlib.sha256().digest_size
# Files of the engine that take part in a program or in the check of a contract.
_TRACED = (
    "phase.py", "learner.py", "machine/*.py", "flight/*.py", "sac/*.py", "training/*.py", "report/tracks.py", "missionfile/contract.py",
)  # fmt: skip


def remembered(identity: str | None, compute: Callable[[], T], valid: Callable[[T], bool]) -> T:
    """Return the stored result of an earlier process with the same identity if it is valid; else compute and store it."""
    folder = None if identity is None else program_folder()
    if identity is None or folder is None:
        return compute()
    path = folder / hashlib.sha256("\n".join([identity, library_identity()]).encode()).hexdigest()
    data = read_entry(path)
    if data is not None:
        try:
            value = pickle.loads(data)
            if valid(value):
                return value
        except Exception as error:  # a class that has moved, a file that is gone
            log.debug("%s cannot be used: %s", path, error)
    value = compute()
    try:
        write_entry(path, pickle.dumps(value))
    except Exception as error:  # a class that cannot be pickled, a full disk
        log.debug("not kept: %s", error)
    return value


def file_hash(path: str) -> str:
    """Return the SHA-256 of a file; empty if it cannot be read."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:
        return ""


def read_entry(path: Path) -> bytes | None:
    """Return the content of an entry; None if there is none, or if it is damaged."""
    with contextlib.suppress(OSError):
        data = path.read_bytes()
        head, digest, content = data[: len(_MAGIC)], data[len(_MAGIC) :][:_SHA], data[len(_MAGIC) + _SHA :]
        if head == _MAGIC and digest == hashlib.sha256(content).digest():
            with contextlib.suppress(OSError):
                os.utime(path)
            return content
    return None


def write_entry(path: Path, content: bytes) -> None:
    """Write an entry at once, and remove old ones if there are too many bytes."""
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(_MAGIC + hashlib.sha256(content).digest() + content)
    os.replace(file.name, path)
    entries = sorted(_entries(path.parent), key=lambda entry: entry[1].st_mtime)
    total = sum(status.st_size for _, status in entries)
    for old, status in entries:
        if total <= _MOST_BYTES:
            break
        old.unlink(missing_ok=True)
        total -= status.st_size


def _entries(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            yield path, path.stat()


def cache_home() -> Path:
    """Return the folder of everything that the engine keeps between runs.

    Raises:
      RuntimeError: there is no home folder.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mission"


@functools.cache
def program_folder() -> Path | None:
    """Return the folder of kept programs; None if there is none that only the user can write to."""
    try:
        folder = cache_home() / "programs"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.lstat()
    except (OSError, RuntimeError):
        return None
    ours = not hasattr(os, "getuid") or status.st_uid == os.getuid()
    if stat.S_ISDIR(status.st_mode) and ours and stat.S_IMODE(status.st_mode) == 0o700:
        return folder
    log.warning("compiled programs are not read from %s, which must belong to you alone (mode 0700)", folder)
    return None


def _kept() -> list[tuple[Path, os.stat_result]]:
    """Return the files of kept programs, and those of JAX's own cache beside them."""
    home = cache_home()
    return [entry for name in ("programs", "jax") if (home / name).is_dir() for entry in _entries(home / name)]


def cache_contents() -> dict[str, Any]:
    """Return the folder of everything that is kept, and the number and the bytes of its entries."""
    kept = _kept()
    return {"folder": str(cache_home()), "entries": len(kept), "bytes": sum(status.st_size for _, status in kept)}


def clear_cache() -> int:
    """Remove everything that is kept; return the number of entries.

    Raises:
      MachineError: an entry cannot be removed.
    """
    kept = _kept()
    for path, _ in kept:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise MachineError(
                str(path), expected="an entry that can be removed", found=str(error), remedy="check its permissions"
            ) from None
    return len(kept)


@functools.cache
def library_identity() -> str:
    """Return the sources of the engine that take part in a program, the installed distributions, and Python."""
    return "\n".join([engine_hash(_TRACED), sys.version, *_distributions()])


def engine_hash(patterns: Sequence[str] = ("**/*.py",)) -> str:
    """Return the SHA-256 of the engine's files that match the patterns."""
    digest, root = hashlib.sha256(), Path(__file__).parents[1]
    for path in sorted({path for pattern in patterns for path in root.glob(pattern)}):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _distributions() -> list[str]:
    """Return the names and versions of the installed distributions, and when they announced their entry points."""
    names = set()
    for folder in sys.path:
        with contextlib.suppress(OSError):
            found = [name for name in os.listdir(folder or ".") if name.endswith((".dist-info", ".egg-info"))]
            names.update(f"{name} {_changed(Path(folder, name, 'entry_points.txt'))}" for name in found)
    return sorted(names)


def _changed(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.stat().st_mtime_ns
    return 0
