"""Import the packages that only an extra installs."""

from __future__ import annotations

import importlib
from typing import Any

from mission.errors import MachineError


def import_extra(module: str, extra: str, where: str) -> Any:
    """Return a module that an extra of this distribution installs.

    Args:
      module: its dotted name.
      extra: name of the extra.
      where: what needs it, for the message.

    Raises:
      MachineError: it cannot be imported; names the extra.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MachineError(
            where,
            expected=f"{module.partition('.')[0]} to be installed",
            found=str(error),
            remedy=f'install the extra: pip install "mission-engine[{extra}]"',
        ) from error
