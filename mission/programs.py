"""Compiled programs that are kept on disk, so that a later process neither traces nor compiles them.

A program is kept under the hash of everything that decides it: the identity that its owner states (sources and settings of
a phase), the sources of the engine, the installed distributions, versions and flags of JAX, the processor, and the shapes of
its arguments. Entries are pickles, so they are read only from a folder that belongs to the user and that nobody else may
write to, and only if their hash is right. Whatever cannot be read is ignored, and made again.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import pickle
import platform
import stat
import sys
import tempfile
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import jax
from jax.experimental import serialize_executable
from jax.experimental.compilation_cache import compilation_cache

log = logging.getLogger("mission")
_MOST_BYTES = 2 << 30  # the entries that were not used for longest are removed beyond it
_MAGIC = b"mission program 1\n"
_SHA = hashlib.sha256().digest_size
# Files of the engine that take part in a program.
_TRACED = ("phase.py", "learner.py", "programs.py", "flight/*.py", "sac/*.py", "report/tracks.py")
# Settings of JAX that say where or whether something is written, not what is computed.
_SILENT = ("cache", "dump", "log", "profiler", "traceback", "path", "debug")


class Program:
    """A function that is compiled once for fixed shapes of its arguments, or read from disk; it runs on one device.

    It may be called from several threads; the first call makes it, and the others wait.
    """

    def __init__(self, function: Callable[..., Any], identity: str | None, output: Callable[..., Any] | None = None):
        """Prepare.

        Args:
          function: pure, of pytrees of arrays.
          identity: what decides the function; None if the program is not to be kept.
          output: gives a tree like the function's for the arguments, without compiling; default: by tracing.
        """
        self._function, self._identity = function, identity
        self._output = output or functools.partial(jax.eval_shape, function)
        self._made: dict[tuple[Any, ...], tuple[Any, Any]] = {}
        self._lock = threading.Lock()

    def __call__(self, *arguments: Any) -> Any:
        """Run the program."""
        leaves, tree = jax.tree.flatten(arguments)
        compiled, output = self._get(leaves, tree)
        return jax.tree.unflatten(output, compiled(*leaves))

    def prepare(self, *arguments: Any) -> None:
        """Compile or read the program for arguments of these shapes."""
        self._get(*jax.tree.flatten(arguments))

    def _get(self, leaves: list[Any], tree: Any) -> tuple[Any, Any]:
        shapes = (_device(leaves), tree, *((leaf.shape, str(leaf.dtype)) for leaf in leaves))
        with self._lock:
            if shapes not in self._made:
                self._made[shapes] = self._load(leaves, tree) or self._compile(leaves, tree)
            return self._made[shapes]

    def _entry(self, leaves: list[Any], tree: Any) -> Path | None:
        folder = program_folder()
        if self._identity is None or folder is None:
            return None
        parts = [self._identity, machine_identity(), str(tree), *(f"{leaf.shape} {leaf.dtype}" for leaf in leaves)]
        return folder / hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def _load(self, leaves: list[Any], tree: Any) -> tuple[Any, Any] | None:
        path = self._entry(leaves, tree)
        data = None if path is None else read_entry(path)
        if data is None:
            return None
        try:
            count, payload = pickle.loads(data)
            output = jax.tree.structure(self._output(*jax.tree.unflatten(tree, leaves)))
            trees = jax.tree.structure(((0,) * len(leaves), {})), jax.tree.structure((0,) * count)
            if output.num_leaves != count:
                return None
            devices = [_device(leaves)]
            return serialize_executable.deserialize_and_load(payload, *trees, execution_devices=devices), output
        except Exception as error:  # of another version, or for a device that is not there
            log.debug("compiled program %s cannot be used: %s", path, error)
            return None

    def _compile(self, leaves: list[Any], tree: Any) -> tuple[Any, Any]:
        made: list[Any] = []

        def flat(*given: Any) -> tuple[Any, ...]:
            result, output = jax.tree.flatten(self._function(*jax.tree.unflatten(tree, given)))
            made.append(output)
            return tuple(result)

        lowered, path = jax.jit(flat).lower(*leaves), self._entry(leaves, tree)
        if path is None:
            return lowered.compile(), made[0]
        with _without_jax_cache():
            compiled = lowered.compile()
        try:
            payload, *_ = serialize_executable.serialize(compiled)
            write_entry(path, pickle.dumps((made[0].num_leaves, payload)))
        except Exception as error:  # a backend that cannot serialise, a full disk
            log.debug("compiled program is not kept: %s", error)
        return compiled, made[0]


class _Switch:
    """Counts the threads that need JAX's own cache to be off."""

    lock = threading.Lock()
    users = 0


@contextlib.contextmanager
def _without_jax_cache() -> Generator[None]:
    """Switch JAX's own cache off: an executable that comes from it serialises to one that cannot run."""
    with _Switch.lock:
        _Switch.users += 1
        if _Switch.users == 1:
            jax.config.update("jax_enable_compilation_cache", False)
            compilation_cache.reset_cache()
    try:
        yield
    finally:
        with _Switch.lock:
            _Switch.users -= 1
            if _Switch.users == 0:
                jax.config.update("jax_enable_compilation_cache", True)
                compilation_cache.reset_cache()


def _device(leaves: list[Any]) -> Any:
    """Return the device to which arrays are committed, or JAX's first one."""
    committed = (leaf.device for leaf in leaves if isinstance(leaf, jax.Array) and leaf.committed)
    return next(committed, jax.devices()[0])


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


@functools.cache
def machine_identity() -> str:
    """Return what decides a compiled program besides its function: engine, libraries, flags and processor."""
    engine = hashlib.sha256()
    root = Path(__file__).parent
    for path in sorted(path for pattern in _TRACED for path in root.glob(pattern)):
        engine.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    device = jax.devices()[0]
    options = {name: value for name, value in jax.config.values.items() if not any(part in name for part in _SILENT)}
    parts = [engine.hexdigest(), sys.version, *_distributions(), device.platform, device.device_kind, _processor()]
    return "\n".join([*parts, os.environ.get("XLA_FLAGS", ""), repr(sorted(options.items(), key=str))])


def _distributions() -> list[str]:
    """Return the names and versions of the installed distributions, by the names of their folders."""
    names = set()
    for folder in sys.path:
        with contextlib.suppress(OSError):
            names.update(name for name in os.listdir(folder or ".") if name.endswith((".dist-info", ".egg-info")))
    return sorted(names)


def _processor() -> str:
    """Return the model and the features of the processor."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
    return f"{platform.machine()} {platform.processor()}"
