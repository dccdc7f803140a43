"""Import packages that only some results, adapters and exports need."""

from __future__ import annotations

import importlib
from typing import Any

from mission.errors import MachineError
from mission.machine.shell import install_requirement


def import_extra(module: str, install: str, where: str) -> Any:
    """Return a module of an optional package.

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
            remedy=f"install it: {install_requirement(install)}",
        ) from error
