"""Packages that only some exports need."""

from __future__ import annotations

import importlib
from typing import Any

from mission.errors import InputError
from mission.machine.shell import install_requirement


def extra(package: str, name: str, where: str = "mission export") -> Any:
    """Return a package of an optional extra.

    Args:
      package: to import.
      name: of the extra of `mission-engine` that installs it.
      where: what needs it, for the message.

    Raises:
      InputError: it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise InputError(
            where,
            expected=f"the package {package}",
            found=f"it cannot be imported: {error}",
            remedy=f"install the extra: {install_requirement(f'mission-engine[{name}]')}",
        ) from None
