"""Seeds and lists of values as they are written on the command line, and the combinations of values."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import JsonValue

from mission.errors import InputError
from mission.missionfile.reading import parse_yaml

MOST_TRAININGS = 10_000
_LARGEST_SEED = 2**32 - 1
_FIXED = {"name": "the folders of a sweep need one name", "seed": "--seeds gives the seeds"}
_RANGE = re.compile(r"(\d{1,10})(?:-(\d{1,10}))?")


@dataclasses.dataclass(frozen=True)
class Combination:
    """One choice of a value for each key; `number` counts from 1, `label` shows the values that differ."""

    number: int
    label: str
    values: dict[str, JsonValue]

    def overrides(self) -> tuple[str, ...]:
        """Return the values as `--set` takes them."""
        return tuple(override(key, value) for key, value in self.values.items())


def override(key: str, value: JsonValue) -> str:
    """Return KEY=VALUE for `load_mission`; JSON is YAML on one line."""
    return f"{key}={json.dumps(value, ensure_ascii=False)}"


def parse_seeds(text: str) -> tuple[int, ...]:
    """Return the seeds of a text such as "0-19" or "0,3,8-10".

    Raises:
      InputError: the text is no list of seeds, a seed stands there twice, or there are too many.
    """
    seeds: list[int] = []
    for part in text.split(","):
        match = _RANGE.fullmatch(part.strip())
        first = int(match[1]) if match else 0
        last = int(match[2] or first) if match else -1
        if not first <= last <= _LARGEST_SEED:
            raise _seed_error(text, f'"{part.strip()}"', "write --seeds 0-19, or --seeds 0,3,8-10")
        if last - first + len(seeds) >= MOST_TRAININGS:
            raise _seed_error(text, f"more than {MOST_TRAININGS:,} seeds", "divide the sweep")
        seeds += range(first, last + 1)
    return check_seeds(seeds)


def check_seeds(seeds: Sequence[int]) -> tuple[int, ...]:
    """Return seeds, sorted.

    Raises:
      InputError: there are none, one is out of range, or one stands there twice.
    """
    shown = ",".join(map(str, seeds[:10]))
    if not seeds or not all(type(seed) is int and 0 <= seed <= _LARGEST_SEED for seed in seeds):
        raise _seed_error(shown, shown or "none", "give integers, for example 0-19")
    if len(set(seeds)) < len(seeds):
        twice = next(seed for seed in seeds if list(seeds).count(seed) > 1)
        raise _seed_error(shown, f"{twice} twice", "remove one")
    return tuple(sorted(seeds))


def _seed_error(text: str, found: str, remedy: str) -> InputError:
    expected = f"different seeds from 0 to {_LARGEST_SEED}, single ones and ranges FIRST-LAST"
    return InputError(f"--seeds {text}", expected=expected, found=found, remedy=remedy)


def parse_values(options: Sequence[str]) -> dict[str, tuple[JsonValue, ...]]:
    """Return key -> values for options such as "phases.burn.sac.gamma=0.99,0.995".

    Commas separate values; one inside brackets, braces or quotes belongs to the value, as in YAML.

    Raises:
      InputError: an option is no KEY=VALUE,VALUE or its key stands there twice.
    """
    values: dict[str, tuple[JsonValue, ...]] = {}
    for option in options:
        where = f"--set {option}"
        key, separator, text = option.partition("=")
        found = parse_yaml(f"[{text}\n]", where)[0] if separator else []
        if not key or not isinstance(found, list) or not found:
            expected = "KEY=VALUE or KEY=VALUE,VALUE,..."
            raise InputError(
                where, expected=expected, found=option, remedy="write --set phases.burn.sac.gamma=0.99,0.995"
            )
        if key in values:
            raise InputError(
                where, expected="each key once", found=f"{key} twice", remedy="join their values by commas"
            )
        values[key] = tuple(found)
    return check_values(values)


def check_values(values: Mapping[str, Sequence[Any]]) -> dict[str, tuple[JsonValue, ...]]:
    """Return key -> values as tuples.

    Raises:
      InputError: a key cannot be varied, has no values, or has one value twice.
    """
    for key, choices in values.items():
        where = f"--set {key}"
        check_key(key, where)
        texts = [json.dumps(choice, sort_keys=True) for choice in choices]
        if not texts or len(set(texts)) < len(texts):
            twice = next((text for text in texts if texts.count(text) > 1), None)
            found = f"{twice} twice" if twice is not None else "no value"
            raise InputError(where, expected="different values", found=found, remedy="give each value once")
    return {key: tuple(choices) for key, choices in values.items()}


def check_key(key: str, where: str) -> None:
    """Reject a key that must be the same in all trainings.

    Raises:
      InputError: names the reason.
    """
    if key in _FIXED:
        raise InputError(where, expected="a setting to vary", found=f"{key}: {_FIXED[key]}", remedy="remove it")


def combinations(values: Mapping[str, Sequence[JsonValue]]) -> tuple[Combination, ...]:
    """Return all combinations of the values, the last key changing fastest; one without a value if there are no keys."""
    varied = [key for key, choices in values.items() if len(choices) > 1]
    short = {key: key.rpartition(".")[2] for key in varied}
    names = {key: short[key] if list(short.values()).count(short[key]) == 1 else key for key in varied}
    found = []
    for number, choice in enumerate(itertools.product(*values.values()), 1):
        chosen = dict(zip(values, choice, strict=True))
        label = ", ".join(f"{names[key]}={_shown(chosen[key])}" for key in varied) or "all"
        found.append(Combination(number, label, chosen))
    return tuple(found)


def _shown(value: JsonValue) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def refuse_too_many(trainings: int) -> None:
    """Reject more trainings than a sweep may have.

    Raises:
      InputError: names both numbers.
    """
    if trainings > MOST_TRAININGS:
        raise InputError(
            "the sweep",
            expected=f"at most {MOST_TRAININGS:,} trainings",
            found=f"{trainings:,}",
            remedy="give fewer seeds or values",
        )
