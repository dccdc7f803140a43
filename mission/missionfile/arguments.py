"""Arguments of the public functions, checked before anything is read: a wrong one is an InputError and no traceback."""

from __future__ import annotations

import contextlib
import operator
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mission.errors import InputError
from mission.missionfile.models import MissionFile

LARGEST_SEED = 2**32 - 1
_FOR_ALL = ("agent", "guide", "guarded")  # pilots that fly every phase


def given_mission(mission: Any, call: str) -> MissionFile:
    """Return a mission, or say how to get one from what was passed instead of it.

    Args:
      mission: the argument.
      call: name of the function.

    Raises:
      InputError: it is not what `load_mission` returns.
    """
    if isinstance(mission, MissionFile):
        return mission
    text = repr(mission) if isinstance(mission, str) and len(mission) <= 60 else "..."
    remedy = f"write {call}(load_mission({text}))"
    raise InputError(call, expected="a mission from load_mission", found=type(mission).__name__, remedy=remedy)


def whole_number(value: Any, where: str, least: int, most: int | None = None) -> int:
    """Return a whole number, also one of numpy or JAX, as Python's.

    Raises:
      InputError: it is no whole number, or out of range.
    """
    number = None
    with contextlib.suppress(TypeError):
        number = None if isinstance(value, bool | np.bool_) else operator.index(value)
    if number is None or number < least or (most is not None and number > most):
        limits = f"at least {least}" if most is None else f"{least} to {most}"
        found = repr(value) if number is None else str(number)
        raise InputError(where, expected=f"a whole number, {limits}", found=found, remedy="pass such a number")
    return number


def given_path(path: Any, where: str) -> Path:
    """Return a path.

    Args:
      path: the argument.
      where: its name, for the message.

    Raises:
      InputError: it is neither a text nor a path of texts.
    """
    text = os.fspath(path) if isinstance(path, str | os.PathLike) else path
    if not isinstance(text, str):
        raise InputError(where, expected="a path: a str or a pathlib.Path", found=repr(path), remedy="pass such a path")
    return Path(text)


def optional_path(path: Any, where: str) -> Path | None:
    """Return a path as `given_path` does, or None if none is given."""
    return None if path is None else given_path(path, where)


def given_seed(seed: Any) -> int:
    """Return a seed as Python's integer.

    Raises:
      InputError: it is no whole number of 32 bits.
    """
    return whole_number(seed, "--seed", 0, LARGEST_SEED)


def check_pilots(policy: Any, policies: Any) -> None:
    """Reject what `policy` and `policies` of `fly_mission` cannot mean.

    Raises:
      InputError: another word than agent, guide or guarded; or pilots that are no mapping by phase.
    """
    if policy not in _FOR_ALL:
        raise InputError(
            f"--policy {policy}",
            expected=", ".join(_FOR_ALL),
            found=repr(policy),
            remedy='name one of them; for one phase pass policies={"PHASE": "guide"}, or its folder',
        )
    if policies is not None and not isinstance(policies, Mapping):
        raise InputError(
            "policies",
            expected="a dict: name of a phase -> its pilot",
            found=type(policies).__name__,
            remedy='pass policies={"PHASE": "guide"}, for example',
        )
