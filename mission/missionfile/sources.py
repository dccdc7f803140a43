"""Which source files a plugin's behaviour rests on, and their hash: how an edit after training is noticed."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_DATA = (".yaml", ".yml", ".json", ".csv")
_DRAWS = "report"


def source_hash(module: Any) -> str:
    """SHA-256 over what `source_files` finds; "unknown" for a module without a file."""
    digest = hashlib.sha256()
    files = source_files(module)
    for path in files:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest() if files else "unknown"


def source_files(module: Any) -> list[Path]:
    """The module, what it imports from its own top-level package at any depth, and that package's data files.

    A subpackage or module `report` directly in the package is left out: it draws flights and cannot change one.
    """
    file = getattr(module, "__file__", None)
    if file is None:
        return []
    top = module.__name__.partition(".")[0]
    roots = [Path(root) for root in getattr(sys.modules.get(top), "__path__", [])]
    if not roots:
        return [Path(file)]
    found: dict[str, Path] = {module.__name__: Path(file)}
    waiting = [module.__name__]
    while waiting:
        name = waiting.pop()
        for wanted in _imports(name, found[name]):
            path = _file(wanted, top, roots)
            if path is not None and wanted not in found and wanted.split(".")[1:2] != [_DRAWS]:
                found[wanted] = path
                waiting.append(wanted)
    data = (path for root in roots for path in root.rglob("*") if path.suffix in _DATA)
    return sorted({*found.values(), *data})


def _imports(name: str, path: Path) -> Iterator[str]:
    """Every module that a file may import, with the packages above it."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_bytes())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        for one in names:
            parts = one.split(".")
            yield from (".".join(parts[:size]) for size in range(1, len(parts) + 1))


def _file(name: str, top: str, roots: list[Path]) -> Path | None:
    first, *rest = name.split(".")
    if first != top:
        return None
    for root in roots:
        path = root.joinpath(*rest)
        for candidate in (path / "__init__.py", path.with_suffix(".py")):
            if candidate.is_file():
                return candidate
    return None
