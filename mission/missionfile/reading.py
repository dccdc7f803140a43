"""Read a mission file: bytes -> YAML 1.2 nodes with positions -> `--set` -> validated `MissionFile`."""

from __future__ import annotations

import copy
import dataclasses
import difflib
import functools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from mission.errors import InputError, MissionError, exception_text
from mission.missionfile.arguments import given_path
from mission.missionfile.given import DICT, TEXT, plain_mission
from mission.missionfile.models import Location, MissionFile, Source, dotted
from mission.missionfile.named import mission_path

MAX_BYTES = 1 << 16  # the largest mission file of this repository has 3 KiB
MAX_DEPTH = 32
MAX_VALUES = 5000  # keys, values, lists and mappings; the YAML library takes 0.1 ms for each
_MAX_INTEGER = 2**63 - 1  # of an integer's magnitude
_UNQUOTED = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?|true|false")
M = TypeVar("M", bound=BaseModel)
_SCALARS = {f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "bool", "null", "str")}


def load_mission(source: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> MissionFile:
    """Read and validate a mission; `resolve_mission` validates the parameters of plugins.

    Args:
      source: a YAML 1.2 file in UTF-8, at most 64 KiB; the name of an installed mission, as `mission plugins` lists it; the
        text of a file (a str with a line break, or that begins with a brace); or a dict with the keys of a file. In a dict a phase may have
        a `PhaseSpec` as its plugin, which is trained and flown in this process. Relative paths in a text or a dict
        begin at the working directory.
      overrides: "KEY=VALUE" strings, e.g. "phases.landing.sac.gamma=0.99".

    Raises:
      InputError: names the position of the error, or its key.
    """
    data, read = _read_source(source)
    if isinstance(overrides, str) or not all(isinstance(override, str) for override in overrides):
        expected, remedy = 'a list of "KEY=VALUE" texts', 'write overrides=["seed=4"], for example'
        raise InputError("overrides", expected=expected, found=repr(overrides), remedy=remedy)
    for override in overrides:
        apply_override(data, read.positions, override)
    read = dataclasses.replace(read, names=_phase_names(data))
    try:
        mission = MissionFile.model_validate(data)
    except ValidationError as error:
        raise explain(error, read, (), MissionFile) from None
    return mission.read_from(read)


def _read_source(source: str | Path | Mapping[str, Any]) -> tuple[Any, Source]:
    """Return the data of a mission, and where it comes from."""
    if isinstance(source, Mapping):
        data, specs = plain_mission(source)
        return data, Source(Path(DICT), {}, {}, is_file=False, specs=specs)
    if isinstance(source, str) and ("\n" in source or source.lstrip().startswith("{")):
        data, positions = parse_yaml(source, TEXT)
        return data, Source(Path(TEXT), positions, {}, is_file=False)
    if not isinstance(source, str | PathLike):
        raise InputError(
            "load_mission",
            expected="a mission file, the name of an installed mission, a text, or a dict",
            found=type(source).__name__,
            remedy="pass one of them",
        )
    path = mission_path(source)
    data, positions = parse_yaml(read_text(path), path.name)
    return data, Source(path, positions, {})


def read_yaml(path: str | Path, model: type[M], what: str = "a data file") -> M:
    """Read a data file of a plugin with the checks of a mission file, and validate it.

    Args:
      path: a YAML 1.2 file in UTF-8, at most 64 KiB, without anchors, aliases and tags.
      model: the pydantic model of the file.
      what: what the file is, for messages: "a vehicle file".

    Raises:
      MissionError: names the position of the error in that file.
    """
    path = given_path(path, what)
    data, positions = parse_yaml(read_text(path, what), path.name)
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise explain(error, Source(path, positions, {}), (), model) from None
    except ArithmeticError as error:  # pydantic passes it on: a product of numbers that each may stand alone
        expected, found = "numbers from which the plugin can compute", exception_text(error)
        raise InputError(
            str(path), expected=expected, found=found, remedy="look for a number of a wrong size"
        ) from None


def read_text(path: str | Path, what: str = "a mission file", limit: int = MAX_BYTES) -> str:
    """Read a text file in UTF-8; plugins read their data files with it.

    Args:
      path: a regular file.
      what: what the file is, for messages.
      limit: largest size in bytes.

    Raises:
      InputError: names the file.
    """
    path = given_path(path, what)
    try:
        if not path.is_file():  # a pipe or a device may never end
            found = "a folder" if path.is_dir() else "no regular file" if path.exists() else "no such file"
            raise InputError(str(path), expected=what, found=found, remedy="give the path of such a file")
        with path.open("rb") as stream:
            raw = stream.read(limit + 1)
    except (OSError, ValueError) as error:  # a ValueError for a path that no file system can hold
        raise InputError(
            str(path),
            expected=what.replace("a ", "a readable ", 1),
            found=str(error),
            remedy="check the path and its permissions",
        ) from None
    if len(raw) > limit:
        raise _too_long(str(path), limit, "bytes", what)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            str(path),
            expected="UTF-8 text",
            found=f"an invalid byte at offset {error.start}",
            remedy="save it as UTF-8",
        ) from None


def _too_long(where: str, limit: int, unit: str, what: str) -> InputError:
    expected = f"at most {limit:,} {unit}"
    return InputError(where, expected=expected, found="more than that", remedy=f"shorten it; is it {what}?")


def parse_yaml(text: str, name: str) -> tuple[Any, dict[Location, tuple[int, int] | str]]:
    """Return plain data and the (line, column) of every key and item, both counted from 1.

    Raises:
      InputError: too long, bad syntax, aliases, tags, duplicate keys, non-finite numbers, too deep.
    """
    data, positions = _parsed(text, name)
    return copy.deepcopy(data), dict(positions)


@functools.lru_cache(maxsize=8)  # the phases of a mission read the same vehicle file
def _parsed(text: str, name: str) -> tuple[Any, dict[Location, tuple[int, int] | str]]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    if len(text) > MAX_BYTES:
        raise _too_long(name, MAX_BYTES, "characters", "a mission file")
    try:
        _check_events(YAML(typ="safe", pure=True).parse(text), name)
        yaml = YAML(typ="safe", pure=True)
        node = yaml.compose(text)
        positions: dict[Location, tuple[int, int] | str] = {}
        data = None if node is None else _construct(yaml, node, (), positions, name)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        place = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark is not None else name
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        remedy = "indent with spaces, not with tabs" if "'\\t'" in problem else "correct the syntax there"
        raise InputError(place, expected="YAML 1.2", found=problem, remedy=remedy) from None
    except (ValueError, TypeError, AttributeError, IndexError, KeyError, AssertionError, OverflowError) as error:
        # On malformed input the YAML library also raises some exceptions that are not its own.
        raise InputError(
            name, expected="YAML 1.2", found=str(error) or type(error).__name__, remedy="correct the syntax"
        ) from None
    return data, positions


def _check_events(events: Iterable[Any], name: str) -> None:
    """Reject what a mission file must not use before any of it is built in memory."""
    depth = values = 0
    for event in events:
        kind = type(event).__name__
        values += kind in ("ScalarEvent", "MappingStartEvent", "SequenceStartEvent")
        place = f"{name}:{event.start_mark.line + 1}:{event.start_mark.column + 1}"
        if kind == "AliasEvent" or getattr(event, "anchor", None) is not None:
            raise InputError(place, expected="no anchors or aliases", found="one of them", remedy="write the value out")
        if kind in ("ScalarEvent", "MappingStartEvent", "SequenceStartEvent") and event.tag is not None:
            raise InputError(place, expected="no tags", found=f"the tag {event.tag}", remedy="remove the tag")
        if kind == "DocumentStartEvent" and event.version not in (None, (1, 2)):
            raise InputError(place, expected="YAML 1.2", found=f"%YAML {event.version}", remedy="remove the directive")
        if kind == "ScalarEvent" and any("\ud800" <= letter <= "\udfff" for letter in event.value):
            raise InputError(
                place, expected="Unicode text", found="half of a surrogate pair", remedy="write the letter itself"
            )
        depth += kind.endswith("StartEvent") - kind.endswith("EndEvent")
        if depth > MAX_DEPTH:
            raise InputError(place, expected=f"at most {MAX_DEPTH} levels", found="deeper nesting", remedy="flatten it")
        if values > MAX_VALUES:
            raise InputError(place, expected=f"at most {MAX_VALUES:,} values", found="more", remedy="shorten the file")


def _construct(yaml: Any, node: Any, at: Location, positions: dict[Location, Any], name: str) -> Any:
    line, column = node.start_mark.line + 1, node.start_mark.column + 1
    positions.setdefault(at, (line, column))
    if node.id == "sequence":
        return [_construct(yaml, item, (*at, i), positions, name) for i, item in enumerate(node.value)]
    if node.id == "mapping":
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            place = f"{name}:{key_node.start_mark.line + 1}:{key_node.start_mark.column + 1}"
            if key_node.id != "scalar":
                raise InputError(place, expected="a word as key", found="a list or mapping", remedy="use a plain key")
            if key in result:
                raise InputError(
                    f"{place}: {dotted((*at, key))}",
                    expected="every key once",
                    found="the key a second time",
                    remedy="remove one",
                )
            positions[(*at, key)] = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
            result[key] = _construct(yaml, value_node, (*at, key), positions, name)
        return result
    if node.tag not in _SCALARS:  # a timestamp, say: YAML 1.2's core schema has none
        return node.value
    value = yaml.constructor.construct_object(node)
    finite = not isinstance(value, float) or math.isfinite(value)
    if not finite or (isinstance(value, int) and not -_MAX_INTEGER <= value <= _MAX_INTEGER):
        raise InputError(
            f"{name}:{line}:{column}: {dotted(at)}",
            expected="a finite number, an integer of at most 64 bits",
            found=node.value[:60],
            remedy="give such a number",
        )
    return value


def _phase_names(data: Any) -> dict[int, str]:
    phases = data.get("phases") if isinstance(data, dict) else None
    if not isinstance(phases, list):
        return {}
    names = {i: entry.get("name") for i, entry in enumerate(phases) if isinstance(entry, dict)}
    return {i: name for i, name in names.items() if isinstance(name, str)}


def apply_override(data: Any, positions: dict[Location, Any], override: str) -> None:
    """Write one KEY=VALUE into the raw document; phases are named, not numbered.

    Args:
      data: the document, as `parse_yaml` returns it.
      positions: gets the text of the option as the place of the key.
      override: the text.

    Raises:
      InputError: the text is no KEY=VALUE, or there is no place for its key.
    """
    where = f"--set {override}"
    key, separator, text = override.partition("=")
    parts: list[str] = key.split(".")
    if not separator or not all(parts):
        raise InputError(
            where, expected="KEY=VALUE, KEY like phases.landing.sac.gamma", found=override, remedy="write KEY=VALUE"
        )
    value, _ = parse_yaml(text, where)
    location: list[str | int] = list(parts)
    target = data
    if parts[0] == "phases":
        names = {name: i for i, name in _phase_names(data).items()}
        if len(parts) < 3 or parts[1] not in names:
            raise InputError(
                where,
                expected=f"phases.NAME.KEY with NAME one of {', '.join(names) or '(none)'}",
                found=key,
                remedy="name a phase of the mission",
            )
        location[1] = names[parts[1]]
    for depth, part in enumerate(location[:-1]):
        if isinstance(target, dict) and isinstance(part, str):
            target = target.setdefault(part, {})
        elif isinstance(target, list) and isinstance(part, int):
            target = target[part]
        if not isinstance(target, dict | list):
            raise InputError(
                where,
                expected=f"a mapping at {dotted(tuple(location[: depth + 1]))}",
                found=repr(target),
                remedy="set a key that exists",
            )
    if not isinstance(target, dict):
        raise InputError(where, expected="a key of a mapping", found=key, remedy="set a key that exists")
    target[str(location[-1])] = value
    positions[tuple(location)] = where


def explain(error: ValidationError, source: Source, prefix: Location, model: type[BaseModel]) -> MissionError:
    """Return the first pydantic error as a four-part message with its position in the file."""
    errors = error.errors()
    first, location = errors[0], _in_document(source, prefix, errors[0]["loc"])
    where = source.where(location)
    if first["type"] == "extra_forbidden":
        known = _known_keys(model, first["loc"][:-1])
        return unknown_key(where, str(first["loc"][-1]), known)
    if first["type"] == "missing":
        return InputError(where, expected=f'the key "{location[-1]}"', found="nothing", remedy=f'add "{location[-1]}:"')
    given = first.get("input")
    shown = repr(given)
    if first["type"] == "value_error" and isinstance(given, dict | BaseModel):
        below = [at for key, at in source.positions.items() if key[: len(location)] == location]
        shown = ", with ".join(["these settings together", *(at for at in below if isinstance(at, str))])
    shown = shown if len(shown) <= 120 else shown[:117] + "..."
    # every branch of a union fails on its own
    same = [e["msg"] for e in errors if _in_document(source, prefix, e["loc"]) == location]
    words = [message.removeprefix("Value error, ").removeprefix("Input should be ") for message in same]
    if first["type"] == "model_type":
        known = ", ".join(_known_keys(model, first["loc"]))
        expected, found = f"a mapping with keys of: {known}", "nothing" if given is None else shown
        return InputError(where, expected=expected, found=found, remedy="write lines `KEY: VALUE` there")
    remedy = _change(first["type"], given)
    return InputError(where, expected=", or ".join(dict.fromkeys(words)), found=shown, remedy=remedy)


def _change(kind: str, given: object) -> str:
    """Return what to do about a value of the wrong type."""
    if kind.startswith("int_") and isinstance(given, float) and given.is_integer():  # 1e6 is a float in YAML
        return f"write {given:.0f}"
    if kind.startswith(("int_", "float_", "bool_")) and isinstance(given, str) and _UNQUOTED.fullmatch(given):
        return f"write {given} without quotes"
    return "change the value"


def _in_document(source: Source, prefix: Location, location: Sequence[str | int]) -> Location:
    """Return a place of pydantic's without the names of union branches: `float`, `constrained-int`, `literal['a']`."""
    place = prefix
    for part in location:
        label = isinstance(part, str) and ("[" in part or part.rpartition("-")[2] in ("float", "int", "str", "bool"))
        if not label or (*place, part) in source.positions:
            place = (*place, part)
    return place


def unknown_key(where: str, key: str, known: Sequence[str]) -> InputError:
    """Return the error for a key that no model declares, with the nearest one that exists."""
    near = difflib.get_close_matches(key, known, 1, 0.5)
    return InputError(
        where,
        expected=f"one of {', '.join(known)}" if known else "no keys here",
        found=f'the unknown key "{key}"',
        remedy=f'did you mean "{near[0]}"?' if near else "remove the key or correct its spelling",
    )


def _known_keys(model: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    current: Any = model
    for part in location:
        if isinstance(part, str):
            fields = getattr(current, "model_fields", {})
            field = fields.get(part, fields.get("root"))  # of a model of a mapping with any keys
            current = _model_in(field.annotation) if field is not None else current
    return sorted(getattr(current, "model_fields", {}))


def _model_in(annotation: Any) -> Any:
    """Return the pydantic model inside an annotation such as `tuple[PhaseEntry, ...]` or `Gate | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _model_in(argument)
        if found is not None:
            return found
    return None
