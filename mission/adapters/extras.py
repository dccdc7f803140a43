"""Import the packages of other frameworks, which the engine does not need."""

from __future__ import annotations

import importlib
from typing import Any

from mission.errors import MachineError

GYMNAX = "gymnax>=1.0.1"  # no extra: it holds back JAX, and extras of a distribution are resolved together


def import_extra(module: str, install: str, where: str) -> Any:
    """Return a module of another framework.

    Args:
      module: its dotted name.
      install: the requirement that installs it, mostly an extra of this distribution.
      where: what needs it, for the message.

    Raises:
      MachineError: it cannot be imported; names the requirement.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MachineError(
            where,
            expected=f"{module.partition('.')[0]} to be installed",
            found=str(error),
            remedy=f'pip install "{install}"',
        ) from error
