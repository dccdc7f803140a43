"""A mission that is given as a dict, as in a notebook: plain data, and the PhaseSpecs in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from os import PathLike, fspath
from typing import Any

from pydantic import BaseModel

from mission.errors import InputError
from mission.missionfile.models import Location, dotted
from mission.missionfile.plugins import SPEC_PREFIX
from mission.phase import PhaseSpec

DICT, TEXT = "the dict", "the text"  # what stands for the path of a file
_MAX_DEPTH = 32


def plain_mission(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, PhaseSpec]]:
    """Return a mission as the data of a mission file, and the PhaseSpecs in it by what stands for them under `plugin`.

    Tuples become lists, paths texts, numpy's numbers Python's, and models such as `SacConfig` dicts.

    Raises:
      InputError: names the key that holds something else.
    """
    observers = given.get("observers")
    for i, observer in enumerate(observers if isinstance(observers, list | tuple) else ()):
        if callable(observer):
            raise _error(
                ("observers", i),
                "the name of an installed observer",
                repr(observer),
                "pass a function to train_mission(observers=[...])",
            )
    specs: dict[str, PhaseSpec] = {}
    data = _plain(given, (), lambda spec: _reference(spec, specs))
    return data, specs


def _plain(value: Any, at: Location, refer: Callable[[PhaseSpec], str]) -> Any:
    """Return a value of a mission as a YAML file would hold it."""
    if len(at) > _MAX_DEPTH:
        raise _error(at[:3], f"at most {_MAX_DEPTH} levels", "deeper nesting", "flatten it")
    if isinstance(value, PhaseSpec):
        if len(at) != 3 or at[0] != "phases" or at[2] != "plugin":
            raise _error(
                at, "a PhaseSpec only as the plugin of a phase", "one here", 'write {"plugin": spec} in phases'
            )
        return refer(value)
    if isinstance(value, BaseModel):
        return value.model_dump(mode="python")
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise _error((*at, str(key)), "a word as key", repr(key), "write the key as text")
        return {key: _plain(inner, (*at, key), refer) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, (*at, i), refer) for i, inner in enumerate(value)]
    if len(at) == 3 and at[0] == "phases" and at[2] == "plugin" and not isinstance(value, str | PathLike):
        expected = "the name of an installed plugin, a file ./NAME.py, or a PhaseSpec"
        raise _error(at, expected, repr(value), "pass PhaseSpec(params=..., environment=..., ...)")
    if isinstance(value, PathLike):
        return fspath(value)
    if getattr(value, "shape", None) == () and hasattr(value, "item"):  # a number of numpy or JAX
        return value.item()
    return value


def _reference(spec: PhaseSpec, specs: dict[str, PhaseSpec]) -> str:
    """Return what stands for a PhaseSpec under `plugin`: the name of its environment, numbered if several have the same."""
    name = getattr(spec.environment, "__name__", "")
    name = name if name.isidentifier() else "spec"  # of a lambda
    number = 1
    while True:
        reference = f"{SPEC_PREFIX}{name}" + (f"-{number}" if number > 1 else "")
        if specs.setdefault(reference, spec) is spec:
            return reference
        number += 1


def _error(at: Location, expected: str, found: str, remedy: str) -> InputError:
    return InputError(f"{DICT}: {dotted(at)}", expected=expected, found=found, remedy=remedy)
