"""Convert unexpected exceptions into errors in four parts."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

from mission.errors import FourParts, MachineError, PluginError
from mission.missionfile.hooks import OBSERVER_GROUP, PHASE_GROUP
from mission.missionfile.plugins import LOCAL_PREFIX, list_plugins

_NO_MEMORY = ("RESOURCE_EXHAUSTED", "Out of memory", "out of memory", "bad_alloc")  # JAX has no class for it


def explained(error: BaseException, where: str) -> FourParts:
    """Return the error message for an exception from a plugin, from the system, or from a bug in the engine.

    Args:
      error: any exception; one in four parts is returned as it is.
      where: the command that raised it.
    """
    if isinstance(error, FourParts):
        return error
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]  # JAX may put a whole traceback there
    found = f"{type(error).__name__}: {lines[-1] if lines else 'no message'}"
    if isinstance(error, MemoryError) or any(sign in str(error) for sign in _NO_MEMORY):
        remedy = "lower sac.buffer_size, sac.batch_size or sac.vehicles, or end other programs"
        return MachineError(where, expected="enough memory", found=found, remedy=remedy)
    place = plugin_place(error)
    if place is not None:
        remedy = "fix the plugin; --debug shows the traceback"
        return PluginError(where, expected="the plugin's code to work", found=f"{found} ({place})", remedy=remedy)
    if isinstance(error, OSError):
        remedy = "free disk space, or correct the path or its permissions"
        return MachineError(str(error.filename or where), expected="the system to do it", found=found, remedy=remedy)
    variables = [name for name in os.environ if name.startswith(("JAX_", "XLA_")) and name in str(error)]
    if variables:  # JAX reads them while it is imported
        where = f"the environment: {variables[0]}={os.environ[variables[0]]}"
        return MachineError(where, expected="a value that JAX accepts", found=found, remedy=f"unset {variables[0]}")
    remedy = "--debug shows the traceback; please report it as a bug of the engine"
    return MachineError(where, expected="to run to its end", found=found, remedy=remedy)


def plugin_place(error: BaseException) -> str | None:
    """Return the line of a plugin's code that an exception came from; None if it came from no plugin."""
    if "CpuCallback error" in str(error):  # only plugins have callbacks; their traceback is text in the message
        return "in a callback"
    groups = (PHASE_GROUP, OBSERVER_GROUP)
    packages = {row.target.partition(":")[0].partition(".")[0] for group in groups for row in list_plugins(group)}
    place = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        module = str(frame.f_globals.get("__name__"))
        if module.startswith(LOCAL_PREFIX) or module.partition(".")[0] in packages - {"mission"}:
            place = f"{Path(frame.f_code.co_filename).name}, line {line}, in {frame.f_code.co_name}"
    return place
