"""The files that a plugin's behaviour depends on, and their hash, which reveals an edit after training.

Sources are found by following import statements. An audit hook notes data files when they are opened: a file
that a module's body reads belongs to that module; a file that a call reads while a phase is resolved, to that phase.
"""

from __future__ import annotations

import ast
import contextvars
import dataclasses
import functools
import hashlib
import inspect
import os
import sys
import sysconfig
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, TypeVar

from mission.machine import kept
from mission.machine.kept import file_hash

T = TypeVar("T")

UNKNOWN_SOURCE = "unknown"
_DRAWS = "report"
_CODE = (".py", ".pyc", ".pyi", ".pyw", ".so", ".pyd", ".dll", ".dylib", ".pth")
_SYSTEM = ("/proc/", "/sys/", "/dev/")
_LIBRARIES = tuple({sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")})

_read_at_import: dict[str, set[str]] = {}  # file of a module -> what its body read
# (file of a plugin, parameters) -> what its calls read in this process, because a plugin may cache what it read
_read_in_calls: dict[tuple[str, str], set[str]] = {}
_listening: contextvars.ContextVar[set[str] | None] = contextvars.ContextVar("listening", default=None)


@dataclasses.dataclass(eq=False)
class Sources:
    """The files of one plugin as one phase uses it.

    Attributes:
      file: of the plugin's module; None for a module without a file.
      name: dotted name of that module, as its own files import it.
      bases: folders in which that name and its neighbours are looked up.
      shipped: first path components of the files that the plugin's distribution installs; None if it is not in a
        folder that distributions share, so that everything beside the plugin belongs to it.
    """

    file: Path | None
    name: str
    bases: tuple[Path, ...]
    shipped: Collection[str] | None = None
    read: set[str] = dataclasses.field(default_factory=set)

    def listen(self, call: Callable[[], T], parameters: str = "") -> T:
        """Call the plugin's code and note the files that it reads; `parameters` distinguishes its phases."""
        read: set[str] = set()
        token = _listening.set(read)
        try:
            return call()
        finally:
            _listening.reset(token)
            known = _read_in_calls.setdefault((str(self.file or self.name), parameters), set())
            known |= read
            self.read |= known

    def hash(self) -> str:
        """Return the SHA-256 over names and bytes of all files; UNKNOWN_SOURCE for a module without a file.

        It does not depend on where the files are: sources are in the order of the package's folders, data in the order
        of name and content.
        """
        sources = self.modules()
        if not sources:
            return UNKNOWN_SOURCE
        return self.hash_with(*(_entry(path) for path in sources))

    def hash_with(self, *code: bytes) -> str:
        """Return the SHA-256 over code and the data files."""
        digest = hashlib.sha256()
        for entry in (*code, *sorted(_entry(path) for path in self.data(self.modules()))):
            digest.update(entry)
        return digest.hexdigest()

    def modules(self) -> list[Path]:
        """Return the module and what it imports from its own package, or from files beside it, at any depth.

        A subpackage or module `report` directly in the package is left out: it draws flights and cannot change them.
        """
        if self.file is None:
            return []
        found: dict[str, Path] = {self.name: self.file}
        waiting = [self.name]
        while waiting:
            name = waiting.pop()
            for wanted in _imports(name, found[name]):
                path = None if wanted in found else self._find(wanted)
                if path is not None:
                    found[wanted] = path
                    waiting.append(wanted)
        return sorted(set(found.values()))

    def data(self, modules: Collection[Path]) -> list[Path]:
        """Return the data files that the bodies of these modules and the calls of the plugin read."""
        read = set(self.read).union(*(_read_at_import.get(os.path.realpath(path), ()) for path in modules))
        return [Path(path) for path in sorted(read) if os.path.isfile(path) and self._counts(path)]

    def _find(self, name: str) -> Path | None:
        top, *below = name.split(".")
        own = top == self.name.partition(".")[0]
        if (own and below[:1] == [_DRAWS]) or not (own or self._beside(top)):
            return None
        return next((path for base in self.bases if (path := module_file(base, name)) is not None), None)

    def _beside(self, top: str) -> bool:
        return may_be_beside(top) and (self.shipped is None or top in self.shipped)

    def _counts(self, path: str) -> bool:
        """Return whether a file that was read is the plugin's data, rather than a file of a library or of a cache."""
        bases = [os.path.join(os.path.realpath(base), "") for base in self.bases]
        for folder in (*_LIBRARIES, *_caches()):
            if path.startswith(folder) and not any(base.startswith(folder) for base in bases):
                return False
        if self.shipped is None:
            return True
        # in a folder that distributions share, only the plugin's own files count
        own = {*self.shipped, self.name.partition(".")[0]}
        return all(not path.startswith(base) or path[len(base) :].split(os.sep)[0] in own for base in bases)


def files_read(call: Callable[[], T]) -> tuple[T, dict[str, str]]:
    """Call a plugin's code while `Sources.listen` does, and also return the files that it read, with their SHA-256."""
    read: set[str] = set()
    token = _listening.set(read)
    try:
        result = call()
    finally:
        _listening.reset(token)
    note_files(read)
    return result, {path: file_hash(path) for path in sorted(read) if os.path.isfile(path)}


def note_files(files: Collection[str]) -> None:
    """Note files for the `Sources.listen` that is under way, as if they had been read."""
    listening = _listening.get()
    if listening is not None:
        listening.update(files)


def module_sources(module: ModuleType, files: Collection[Any] | None = None) -> Sources:
    """Return the sources of an imported module of a distribution that installed `files` (paths relative to its place)."""
    file = getattr(module, "__file__", None)
    top = module.__name__.partition(".")[0]
    roots = [Path(root) for root in getattr(sys.modules.get(top), "__path__", [])]
    bases = tuple(dict.fromkeys(root.parent for root in roots)) or ((Path(file).parent,) if file else ())
    shared = any(str(base.resolve()) + os.sep in _LIBRARIES for base in bases)
    shipped = {str(path).split("/")[0].removesuffix(".py") for path in files or ()} if shared else None
    return Sources(Path(file) if file else None, module.__name__, bases, shipped)


def is_library(file: str | None, name: str) -> bool:
    """Return whether a module, by its file and dotted name, is of the interpreter, of an installed package or of the engine."""
    top = name.partition(".")[0]
    if top in ("mission", "builtins") or (top in sys.stdlib_module_names and top != "__main__"):
        return True
    return file is not None and os.path.realpath(file).startswith(
        tuple(os.path.realpath(one) + os.sep for one in _LIBRARIES)
    )


def module_file(base: Path, name: str) -> Path | None:
    """Return the file of a dotted module name below a folder; None if it has none."""
    path = base.joinpath(*name.split("."))
    return next((file for file in (path / "__init__.py", path.with_suffix(".py")) if file.is_file()), None)


def may_be_beside(top: str) -> bool:
    """Return whether a top-level name can be a file beside a plugin: not one of the standard library or engine."""
    return top not in sys.stdlib_module_names and top != "mission"


def _imports(name: str, path: Path) -> Iterator[str]:
    """Yield every module that a file may import, with the packages above it."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for level, names in _import_statements(path.read_bytes()):
        above = package[: len(package) + 1 - level] if level else []
        for one in names:
            parts = [*above, *one.split(".")] if one else above
            yield from (".".join(parts[:size]) for size in range(1, len(parts) + 1))


@functools.lru_cache(maxsize=4096)
def _import_statements(source: bytes) -> tuple[tuple[int, tuple[str, ...]], ...]:
    """Return (level of a relative import, modules that it may mean) for each import statement of a source."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # a file that is imported has already failed
        return ()
    found: list[tuple[int, tuple[str, ...]]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.append((0, tuple(alias.name for alias in node.names)))
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            below = (f"{base}.{alias.name}".lstrip(".") for alias in node.names)
            found.append((node.level, (base, *below)))
    return tuple(found)


def _entry(path: Path) -> bytes:
    return path.name.encode() + b"\0" + path.read_bytes() + b"\0"


def _caches() -> list[str]:
    """Return the cache folders of JAX and other libraries."""
    jax = sys.modules.get("jax")
    folders = [os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")]
    folders += [getattr(jax.config, "jax_compilation_cache_dir", None) or ""] if jax is not None else []
    return [os.path.join(os.path.realpath(folder), "") for folder in folders if folder]


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    """Attribute a file that is opened for reading to a module's body or a call of a plugin; an audit hook."""
    if event != "open":
        return
    try:
        path, mode, flags = arguments
        writes = (flags or 0) & os.O_ACCMODE == os.O_WRONLY if mode is None else not mode.startswith("r")
        if isinstance(path, int) or path is None or writes:
            return
        name = os.fsdecode(path)
        if name.endswith(_CODE) or name.startswith(_SYSTEM):
            return
        read = _reader(inspect.currentframe())
        if read is not None:
            read.add(os.path.realpath(name))
    except Exception:  # an exception here would be raised by the plugin's `open`
        return


def _reader(frame: Any) -> set[str] | None:
    """Return the set that belongs to the innermost frame which is a module's body or an observed call of a plugin.

    A file that JAX opens for itself is not attributed, nor is one of what the engine keeps on disk.
    """
    frame = frame.f_back  # the first one is the hook's
    while frame is not None and _top(frame) in sys.stdlib_module_names:
        frame = frame.f_back
    if frame is not None and (_top(frame) in ("jax", "jaxlib") or frame.f_globals.get("__name__") == kept.__name__):
        return None
    while frame is not None:
        code: CodeType = frame.f_code
        if code is Sources.listen.__code__:
            return _listening.get()
        if code.co_name == "<module>" and not code.co_filename.startswith("<"):
            return _read_at_import.setdefault(os.path.realpath(code.co_filename), set())
        frame = frame.f_back
    return None


def _top(frame: Any) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


sys.addaudithook(_note)
