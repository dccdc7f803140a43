"""Compiled programs, which are kept on disk so that a later process neither traces nor compiles them.

A program is stored under the hash of everything that determines it: the identity that its owner states (sources and
settings of
a phase), the sources of the engine, the installed distributions, versions and flags of JAX, the processor, and the shapes of
its arguments.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import pickle
import platform
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
from jax.experimental import serialize_executable
from jax.experimental.compilation_cache import compilation_cache

from mission.machine.devices import visible_cores
from mission.machine.kept import library_identity, program_folder, read_entry, write_entry
from mission.machine.stages import tell

log = logging.getLogger("mission")
# Settings of JAX that say where or whether something is written, or which devices there are; a program runs on one of them,
# which is part of its identity.
_SILENT = ("cache", "dump", "log", "profiler", "traceback", "path", "debug", "num_cpu_devices", "jax_platforms")


class Program:
    """A function that is compiled once for fixed shapes of its arguments, or read from disk.

    It may be called from several threads; the first call makes it, and the others wait.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        identity: str | None,
        output: Callable[..., Any] | None = None,
        phase: str | None = None,
        updates: bool = False,
        devices: Sequence[Any] | None = None,
    ):
        """Prepare.

        Args:
          function: pure, of pytrees of arrays.
          identity: what decides the function; None if the program is not to be kept.
          output: gives a tree like the function's for the arguments, without compiling; default: by tracing.
          phase: whose stages a display shows; None: none.
          updates: the function updates its first argument: that is donated and comes back as the first result. The other
            results are of built-in types, so that they need not be traced.
          devices: on which it runs; None: the one of its arguments.
        """
        self._function, self._identity, self._phase = function, identity, phase
        self._output = output or functools.partial(jax.eval_shape, function)
        self._updates, self._devices = updates, devices
        self._made: dict[tuple[Any, ...], tuple[Any, Any]] = {}
        self._lock = threading.Lock()

    @property
    def variants(self) -> int:
        """The number of shapes of arguments for which it was made."""
        return len(self._made)

    def __call__(self, *arguments: Any) -> Any:
        """Run the program."""
        leaves, tree = jax.tree.flatten(arguments)
        compiled, output = self._get(leaves, tree)
        return jax.tree.unflatten(output, compiled(*leaves))

    def prepare(self, *arguments: Any) -> None:
        """Compile or read the program for arguments of these shapes."""
        self._get(*jax.tree.flatten(arguments))

    def text(self, *arguments: Any) -> str:
        """Return the compiled program for arguments of these shapes, in the language of XLA."""
        return self._get(*jax.tree.flatten(arguments))[0].as_text()

    def _get(self, leaves: list[Any], tree: Any) -> tuple[Any, Any]:
        shapes = (*self._places(leaves), tree, *((leaf.shape, str(leaf.dtype)) for leaf in leaves))
        with self._lock:
            if shapes not in self._made:
                self._made[shapes] = self._load(leaves, tree) or self._compile(leaves, tree)
            return self._made[shapes]

    def _places(self, leaves: list[Any]) -> Sequence[Any]:
        return self._devices or [_device(leaves)]

    def _tell(self, stage: str) -> None:
        if self._phase is not None:
            tell(self._phase, stage)

    def _entry(self, leaves: list[Any], tree: Any) -> Path | None:
        folder = program_folder()
        if self._identity is None or folder is None:
            return None
        shapes = (f"{leaf.shape} {leaf.dtype}" for leaf in leaves)
        parts = [self._identity, machine_identity(), str(len(self._devices or " ")), str(tree), *shapes]
        return folder / hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def _load(self, leaves: list[Any], tree: Any) -> tuple[Any, Any] | None:
        path = self._entry(leaves, tree)
        data = None if path is None else read_entry(path)
        if data is None:
            return None
        try:
            self._tell("reading its program")
            count, others, payload = pickle.loads(data)
            arguments = jax.tree.unflatten(tree, leaves)
            output = jax.tree.structure((arguments[0], *others) if self._updates else self._output(*arguments))
            trees = jax.tree.structure(((0,) * len(leaves), {})), jax.tree.structure((0,) * count)
            if output.num_leaves != count:
                return None
            devices = self._places(leaves)
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

        self._tell("tracing")
        donated = len(jax.tree.leaves(jax.tree.unflatten(tree, leaves)[0])) if self._updates else 0
        lowered, path = jax.jit(flat, donate_argnums=range(donated)).lower(*leaves), self._entry(leaves, tree)
        self._tell("compiling")
        if path is None:
            return lowered.compile(), made[0]
        with _without_jax_cache():
            compiled = lowered.compile()
        try:
            payload, *_ = serialize_executable.serialize(compiled)
            count = made[0].num_leaves
            others = jax.tree.unflatten(made[0], range(count))[1:] if self._updates else ()
            write_entry(path, pickle.dumps((count, others, payload)))
        except Exception as error:  # a backend that cannot serialise, a full disk
            log.debug("compiled program is not kept: %s", error)
        return compiled, made[0]


def in_background(calls: Sequence[Callable[[], Any]]) -> None:
    """Prepare programs in threads, one per core; a call of a program that failed raises its error."""
    pool = ThreadPoolExecutor(visible_cores(), "compile")
    for call in calls:
        pool.submit(call)
    pool.shutdown(wait=False)


class _Switch:
    """Counts the threads that need JAX's own cache to be off."""

    lock = threading.Lock()
    users = 0
    before = True  # whether the cache was on


@contextlib.contextmanager
def _without_jax_cache() -> Generator[None]:
    """Switch JAX's own cache off: an executable that comes from it serialises to one that cannot run."""
    with _Switch.lock:
        _Switch.users += 1
        if _Switch.users == 1:
            _Switch.before = jax.config.values["jax_enable_compilation_cache"]
            jax.config.update("jax_enable_compilation_cache", False)
            compilation_cache.reset_cache()
    try:
        yield
    finally:
        with _Switch.lock:
            _Switch.users -= 1
            if _Switch.users == 0:
                jax.config.update("jax_enable_compilation_cache", _Switch.before)
                compilation_cache.reset_cache()


def _device(leaves: list[Any]) -> Any:
    """Return the device to which arrays are committed, or JAX's first one."""
    committed = (leaf.device for leaf in leaves if isinstance(leaf, jax.Array) and leaf.committed)
    return next(committed, jax.devices()[0])


@functools.cache
def machine_identity() -> str:
    """Return the identity of a compiled program besides its function: engine, libraries, flags and processor."""
    device = jax.devices()[0]
    options = {name: value for name, value in jax.config.values.items() if not any(part in name for part in _SILENT)}
    parts = [library_identity(), device.platform, device.device_kind, _processor()]
    return "\n".join([*parts, os.environ.get("XLA_FLAGS", ""), repr(sorted(options.items(), key=str))])


def _processor() -> str:
    """Return the model and the features of the processor."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
    return f"{platform.machine()} {platform.processor()}"
