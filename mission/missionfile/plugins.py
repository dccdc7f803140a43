"""Find and load plugins by name, one by one; one plugin's failure is never another's."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import importlib.metadata
import importlib.util
import logging
import re
import sys
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from mission.errors import InputError, PluginError, run_plugin_code
from mission.hooks import OBSERVER_GROUP, PHASE_GROUP, PROJECT, ObserverHooks

log = logging.getLogger("mission")


@dataclasses.dataclass(frozen=True)
class Listing:
    """One entry point, from metadata alone."""

    name: str
    distribution: str
    version: str
    target: str
    duplicate: bool
    entry_point: Any = dataclasses.field(repr=False, compare=False)

    def __str__(self) -> str:
        return f"{self.distribution} {self.version} ({self.target})"


def normalise(distribution: str) -> str:
    """Distribution names compare as on the package index (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def installed() -> dict[str, importlib.metadata.Distribution]:
    """Distributions by normalised name, of each the first on the path; those that cannot be read are left out."""
    found: dict[str, importlib.metadata.Distribution] = {}
    for distribution in importlib.metadata.distributions():
        try:
            if distribution.name and distribution.version and distribution.entry_points is not None:
                found.setdefault(normalise(distribution.name), distribution)
        except Exception as error:
            place = getattr(distribution, "_path", "a distribution")
            log.warning("%s is left out: its metadata cannot be read (%s)", place, error)
    return found


def list_plugins(group: str = PHASE_GROUP) -> tuple[Listing, ...]:
    """Entry points of a group, imported by nobody."""
    found: dict[tuple[str, str, str], tuple[Any, str]] = {}
    for name, distribution in installed().items():
        for entry in distribution.entry_points.select(group=group):
            found.setdefault((entry.name, name, entry.value), (entry, distribution.version))
    names = [name for name, _, _ in found]
    rows = [
        Listing(name, distribution, version, target, names.count(name) > 1, entry)
        for (name, distribution, target), (entry, version) in found.items()
    ]
    return tuple(sorted(rows, key=lambda row: (row.name, row.distribution)))


def find_plugin(reference: str, where: str, group: str = PHASE_GROUP) -> Listing:
    """The one entry point that `name` or `distribution:name` means.

    Raises:
      PluginError: none or several; names every candidate.
    """
    listings = list_plugins(group)
    distribution, _, name = reference.rpartition(":")
    matches = [row for row in listings if row.name == name and normalise(distribution) in ("", row.distribution)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise PluginError(
            where,
            expected=f'one plugin "{reference}"',
            found="several: " + "; ".join(map(str, matches)),
            remedy=f'write "{matches[0].distribution}:{name}", or uninstall one'
            if len({row.distribution for row in matches}) > 1
            else "one distribution declares it twice: correct its metadata",
        )
    names = sorted({row.name for row in listings})
    near = difflib.get_close_matches(name, names, 1, 0.5)
    raise PluginError(
        where,
        expected=f"an installed plugin of the group {group}: {', '.join(names) or '(none installed)'}",
        found=f'"{reference}"',
        remedy=(f'did you mean "{near[0]}"? Else ' if near else "")
        + "install its distribution or correct the name; `mission plugins` lists what is there",
    )


def load_module(listing: Listing, where: str) -> ModuleType:
    """Import an entry point; any failure, SystemExit too, becomes a PluginError."""
    expected = f'entry point "{listing.name}" of {listing} to import'
    return run_plugin_code(where, expected, listing.entry_point.load, "fix or uninstall that distribution")


def load_local(path: Path, where: str) -> ModuleType:
    """Import a plugin from a file beside the mission file."""
    if not path.is_file():
        raise PluginError(where, expected=f"a Python file at {path}", found="no such file", remedy="correct the path")
    digest = hashlib.sha256(str(path.resolve()).encode() + path.read_bytes()).hexdigest()[:12]
    if f"mission_local_{digest}" in sys.modules:  # two phases of one file share its classes
        return sys.modules[f"mission_local_{digest}"]
    spec = importlib.util.spec_from_file_location(f"mission_local_{digest}", path)
    if spec is None or spec.loader is None:
        raise PluginError(where, expected="a file that ends in .py", found=path.name, remedy="rename it")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    try:
        run_plugin_code(where, f"{path.name} to import", partial(spec.loader.exec_module, module), "fix the file")
    except BaseException:
        del sys.modules[spec.name]
        raise
    return module


def hook_caller(module: Any, hooks: type, hook_name: str, owner: str, where: str) -> Any:
    """Register a module alone and return its one implementation of a hook.

    Raises:
      PluginError: no implementation, a misspelt hook, or wrong argument names.
    """
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hooks)
    try:
        manager.register(module, name=owner)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise PluginError(
            where,
            expected=f"only the hook {hook_name} in {owner}",
            found=str(error),
            remedy=f"spell it {hook_name}, with the documented arguments",
        ) from None
    implementations = getattr(manager.hook, hook_name).get_hookimpls()
    if len(implementations) != 1:
        raise PluginError(
            where,
            expected=f"one @hookimpl function {hook_name} in {owner}",
            found=f"{len(implementations)} of them",
            remedy=f"add `@hookimpl def {hook_name}(...)` (from mission import hookimpl)",
        )
    return getattr(manager.hook, hook_name)


def load_observer(name: str, where: str) -> Any:
    """The hook caller of an observer chosen in the mission file."""
    listing = find_plugin(name, where, OBSERVER_GROUP)
    module = load_module(listing, where)
    return hook_caller(module, ObserverHooks, "mission_event", f'observer "{name}" of {listing}', where)


def local_path(reference: str, folder: Path, allowed: bool, where: str) -> Path | None:
    """The file behind `./my_phase.py`, or None for an entry point's name.

    Raises:
      InputError: local plugins were not allowed on the command line.
    """
    if not reference.endswith(".py") and not reference.startswith((".", "/")):
        return None
    if not allowed:
        raise InputError(
            where,
            expected="an installed plugin",
            found=f'the file "{reference}"',
            remedy="pass --allow-local-plugins: it runs that file's code",
        )
    return folder / reference
