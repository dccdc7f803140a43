"""Find and load plugins by name, one by one; a plugin that fails does not affect the others."""

from __future__ import annotations

import builtins
import dataclasses
import difflib
import importlib.abc
import importlib.machinery
import importlib.metadata
import importlib.util
import itertools
import logging
import re
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import pluggy
from pydantic import BaseModel

from mission.errors import InputError, PluginError, run_plugin_code
from mission.missionfile.hooks import OBSERVER_GROUP, PHASE_GROUP, PROJECT, ObserverHooks
from mission.missionfile.sources import Sources, may_be_beside, module_file, module_sources
from mission.phase import Environment, PhaseSpec, PluginOrigin

log = logging.getLogger("mission")
LOCAL_PREFIX = "mission_local_"  # prefix of the module names of local plugins
SPEC_PREFIX = "spec:"  # of what stands for a PhaseSpec that a dict holds under `plugin`


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
    """Return a distribution name in the form in which the package index compares names (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def installed() -> dict[str, importlib.metadata.Distribution]:
    """Return the distributions by normalised name, the first on the path of each; unreadable ones are left out."""
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
    """Return the entry points of a group without importing any of them."""
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


def find_plugin(
    reference: str,
    where: str,
    group: str = PHASE_GROUP,
    listings: Sequence[Listing] | None = None,
    folder: Path | None = None,
) -> Listing:
    """Return the one entry point that `name` or `distribution:name` refers to, among listings of the group if given.

    `folder` is that of the mission file, where a file of the name may be what is meant.

    Raises:
      PluginError: none or several; names every candidate.
    """
    listings = list_plugins(group) if listings is None else listings
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
    beside = {path.stem: f"./{path.name}" for path in folder.glob("*.py")} if folder is not None else {}
    near = difflib.get_close_matches(name.removesuffix(".py"), [*beside, *names], 1, 0.6)
    near = [beside.get(one, one) for one in near]
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


def installed_sources(listing: Listing, module: ModuleType) -> Sources:
    """Return the sources of an installed plugin."""
    return module_sources(module, listing.entry_point.dist.files if listing.entry_point.dist is not None else None)


@dataclasses.dataclass(frozen=True)
class _Loaded:
    """A local plugin that was imported, and the hash of all files that its import depended on."""

    module: ModuleType
    hash: str


_loaded: dict[Path, _Loaded] = {}
_numbers = itertools.count()


def load_local(path: Path, where: str) -> ModuleType:
    """Import a plugin from a file beside the mission file; it may import the files beside it.

    The module is imported again if it, a file that it imports, or a data file that these read has changed.
    """
    if not path.is_file():
        raise PluginError(where, expected=f"a Python file at {path}", found="no such file", remedy="correct the path")
    if path.suffix != ".py":
        raise PluginError(where, expected="a file that ends in .py", found=path.name, remedy="rename it")
    path, sources = path.resolve(), local_sources(path)
    loaded = _loaded.get(path)
    if loaded is not None and loaded.hash == sources.hash():  # two phases of one file share its classes
        return loaded.module
    name = f"{LOCAL_PREFIX}{path.stem}_{next(_numbers)}"
    loader = _BesideLoader(name, str(path))
    spec = importlib.util.spec_from_file_location(
        name, path, loader=loader, submodule_search_locations=[str(path.parent)]
    )
    if spec is None:
        raise PluginError(where, expected="a Python file", found=path.name, remedy="correct the path")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    try:
        run_plugin_code(where, f"{path.name} to import", partial(loader.exec_module, module), "fix the file")
    except BaseException:
        for imported in [one for one in sys.modules if one == name or one.startswith(f"{name}.")]:
            del sys.modules[imported]
        raise
    _loaded[path] = _Loaded(module, sources.hash())
    return module


def local_sources(path: Path) -> Sources:
    """Return the sources of a local plugin."""
    path = path.resolve()
    return Sources(path, path.stem, (path.parent,))


class _BesideLoader(importlib.machinery.SourceFileLoader):
    """Load a local plugin, or a file that it imports; imports are looked up among the files beside the plugin first.

    A local plugin acts as a separate package whose modules are the files beside it. Therefore two missions may each
    have a `helper.py`, and an edited one is imported again.
    """

    def get_code(self, fullname: str) -> CodeType:
        """Compile the source, because the timestamp that validates cached bytecode can miss a quick edit."""
        path = self.get_filename(fullname)
        return compile(self.get_data(path), path, "exec", dont_inherit=True)

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's body with an `__import__` that looks beside the plugin first."""
        package = module.__name__.partition(".")[0]
        vars(module)["__builtins__"] = vars(builtins) | {"__import__": partial(_import_beside, package)}
        super().exec_module(module)


class _BesideFinder(importlib.abc.MetaPathFinder):
    """Find the files beside a local plugin as its modules."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        """Return the spec of a module of a local plugin; None for every other module."""
        if not fullname.startswith(LOCAL_PREFIX) or not path:
            return None
        return importlib.machinery.FileFinder(path[0], (_BesideLoader, [".py"])).find_spec(fullname)


sys.meta_path.insert(0, _BesideFinder())


def _import_beside(
    package: str, name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0
) -> ModuleType:
    """Do what `__import__` does, but look for top-level names among the files beside a local plugin first."""
    top = name.partition(".")[0]
    if level or not _is_beside(Path(sys.modules[package].__path__[0]), top):
        return builtins.__import__(name, globals, locals, fromlist, level)
    importlib.import_module(f"{package}.{name}")
    if fromlist:
        return builtins.__import__(f"{package}.{name}", globals, locals, fromlist, 0)
    return sys.modules[f"{package}.{top}"]


def _is_beside(folder: Path, top: str) -> bool:
    """Return whether `import top` means a file or folder beside a local plugin, rather than what is installed."""
    file = module_file(folder, top)
    if not may_be_beside(top) or (file is None and not (folder / top).is_dir()):
        return False
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        return True
    # a package that is installed from this very folder is the one that other plugins import too
    return file is not None and (spec.origin is None or Path(spec.origin).resolve() != file)


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
    """Return the hook caller of an observer chosen in the mission file."""
    listing = find_plugin(name, where, OBSERVER_GROUP)
    module = load_module(listing, where)
    return hook_caller(module, ObserverHooks, "mission_event", f'observer "{name}" of {listing}', where)


def refuse_spec(reference: str, where: str) -> None:
    """Reject the placeholder of a PhaseSpec of another process.

    Raises:
      PluginError: says where the PhaseSpec is.
    """
    if reference.startswith(SPEC_PREFIX):
        name = reference.removeprefix(SPEC_PREFIX)
        raise PluginError(
            where,
            expected=f'the PhaseSpec "{name}", which exists only in the program or notebook that defines it',
            found="none here",
            remedy=f'pass it there: load_mission({{"phases": [{{"plugin": {name}, ...}}]}}); or write it to a file beside the '
            "mission file, with a function mission_phase, and name that: plugin: ./FILE.py",
        )


def local_path(reference: str, folder: Path, allowed: bool, where: str) -> Path | None:
    """Return the file that `./my_phase.py` names, or None for an entry point's name.

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


def build_environment(where: str, origin: PluginOrigin, spec: PhaseSpec, params: BaseModel) -> Environment:
    """Return the environment that a plugin builds from validated parameters.

    Raises:
      PluginError: the plugin cannot build it.
    """
    environment = run_plugin_code(where, f"{origin}: environment to work", lambda: spec.environment(params))
    if not isinstance(environment, Environment):
        raise PluginError(
            where,
            expected=f"{origin}: environment to return an Environment",
            found=type(environment).__name__,
            remedy="derive it from mission.Environment",
        )
    return environment
