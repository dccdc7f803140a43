"""The source of a PhaseSpec that a program or a notebook defined: what its functions and classes are made of, as one hash.

Followed are the functions and classes of the program itself, the globals, defaults and closures that they use, and the modules
beside it. What the interpreter and installed packages bring counts by its name.
"""

from __future__ import annotations

import dataclasses
import dis
import enum
import functools
import hashlib
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
from pydantic import BaseModel

from mission.missionfile.sources import Sources, is_library, module_sources
from mission.phase import PhaseSpec

_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis), np.generic, np.dtype)
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_MADE = {"__module__", "__dict__", "__weakref__", "__doc__", "__qualname__", "__firstlineno__", "__static_attributes__"}


class SpecSources(Sources):
    """The sources of a PhaseSpec: the hash of its code, and the data files that its calls read."""

    def __init__(self, spec: PhaseSpec, name: str) -> None:
        """Read the code of everything in the record that can change a flight."""
        reader = _Reader()
        for part in (spec.params, spec.environment, spec.reward, spec.limits):
            reader.add(part)
        self.code = reader.digest.hexdigest()
        super().__init__(None, f"{name} {self.code}", (Path.cwd(),))

    def hash(self) -> str:
        """Return the SHA-256 over the code and the data files."""
        return self.hash_with(self.code.encode())


class _Reader:
    """Feeds a digest with the code and the values that something depends on, each once."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self.seen: dict[int, int] = {}  # id -> order of appearance
        self.kept: list[Any] = []  # so that no id is used twice

    def text(self, *parts: str) -> None:
        for part in parts:
            self.digest.update(part.encode(errors="backslashreplace") + b"\0")

    def add(self, value: Any) -> None:
        """Add a value and what it depends on."""
        if isinstance(value, enum.Enum):
            self.text("enum", value.name)
            return self.add(type(value))
        if isinstance(value, _PLAIN):
            return self.text(type(value).__name__, repr(value))
        if id(value) in self.seen:
            return self.text("again", str(self.seen[id(value)]))
        self.seen[id(value)] = len(self.seen)
        self.kept.append(value)
        if isinstance(value, ModuleType):
            return self._module(value)
        if _is_of_library(value):
            return self.text("library", f"{value.__module__}.{value.__qualname__}")
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, FunctionType):
            return self._function(value)
        return self._object(value)

    def _module(self, module: ModuleType) -> None:
        name = module.__name__
        own = not is_library(getattr(module, "__file__", None), name)
        self.text("module", name, module_sources(module).hash() if own else "")

    def _function(self, function: FunctionType) -> None:
        self.text("function", function.__name__, _source(function))
        self.add(function.__defaults__)
        self.add(function.__kwdefaults__)
        for name in sorted(_globals_of(function.__code__)):
            if name in function.__globals__:
                self.text(name)
                self.add(function.__globals__[name])
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            self.text(name)
            try:
                self.add(cell.cell_contents)
            except ValueError:  # not filled yet
                self.text("empty")

    def _class(self, kind: type) -> None:
        self.text("class", kind.__name__)
        for base in kind.__bases__:
            self.add(base)
        if issubclass(kind, BaseModel):
            for name, field in kind.model_fields.items():
                self.text(name, _ADDRESS.sub("", repr(field)))
                for rule in (field.default_factory, *(part for one in field.metadata for part in _parts(one))):
                    self.add(rule)
        if dataclasses.is_dataclass(kind):
            for field in dataclasses.fields(kind):
                self.text(field.name, str(field.type))
                self.add(None if field.default is dataclasses.MISSING else field.default)
                self.add(None if field.default_factory is dataclasses.MISSING else field.default_factory)
        for name, member in vars(kind).items():
            if name not in _MADE and not name.startswith(("_abc_", "__pydantic", "__dataclass", "__annot")):
                self.text(name)
                self.add(member)

    def _object(self, value: Any) -> None:
        if isinstance(value, tuple | list):
            self.text(type(value).__name__, str(len(value)))
            parts: list[Any] = list(value)
        elif isinstance(value, set | frozenset):
            self.text("set", *sorted(map(repr, value)))
            parts = []
        elif isinstance(value, dict):
            self.text("dict", str(len(value)))
            parts = [part for pair in value.items() for part in pair]
        elif isinstance(value, MethodType):
            parts = [value.__func__, value.__self__]
        elif isinstance(value, functools.partial):
            parts = [value.func, value.args, value.keywords]
        elif hasattr(value, "dtype") and hasattr(value, "shape"):
            parts = [_array_bytes(value)]
        else:
            self.text("object", f"{type(value).__module__}.{type(value).__qualname__}")
            parts = [type(value), *_parts(value)]
        for part in parts:
            self.add(part)


def _parts(value: Any) -> Iterator[Any]:
    """Yield what an object is made of: what it wraps, and its attributes."""
    for name in ("__wrapped__", "__func__", "func", "fget", "fset"):  # of compiled functions, methods and properties
        if isinstance(inner := inspect.getattr_static(value, name, None), FunctionType | type) or (
            inner is not None and isinstance(inner := getattr(value, name, None), FunctionType | type)
        ):
            yield inner
    if isinstance(value, BaseModel) or not _is_of_library(type(value)):
        yield from (part for pair in getattr(value, "__dict__", {}).items() for part in pair)


def _is_of_library(value: Any) -> bool:
    """Return whether a function or class is that of the interpreter or of an installed package."""
    if not isinstance(getattr(value, "__module__", None), str) or not hasattr(value, "__qualname__"):
        return False
    top = value.__module__.partition(".")[0]
    module = sys.modules.get(value.__module__) or sys.modules.get(
        top
    )  # a compiled type may name a module that there is not
    return is_library(getattr(module, "__file__", None), value.__module__)


def _array_bytes(value: Any) -> tuple[str, str, bytes]:
    try:
        return str(value.dtype), str(value.shape), np.asarray(value).tobytes()
    except TypeError:  # typed random keys
        return str(value.dtype), str(value.shape), repr(value).encode()


def _source(function: FunctionType) -> str:
    """Return the source of a function; if there is none, as in an interactive session, its compiled code."""
    try:
        return textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError):
        return _code_text(function.__code__)


def _code_text(code: CodeType) -> str:
    consts = [_code_text(one) if isinstance(one, CodeType) else repr(one) for one in code.co_consts]
    return repr((code.co_code, code.co_names, code.co_varnames, code.co_freevars, consts))


def _globals_of(code: CodeType) -> set[str]:
    """Return the names of the globals that a function and those in it read."""
    names = {str(one.argval) for one in dis.get_instructions(code) if one.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return names.union(*(_globals_of(one) for one in code.co_consts if isinstance(one, CodeType)))
