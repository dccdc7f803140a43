"""Run tasks in a worker process, and check that it matches the process that sends the tasks."""

from __future__ import annotations

import importlib.metadata
import os
import socket
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from mission.errors import FourParts, MachineError
from mission.machine.devices import CORES_VARIABLE
from mission.machine.kept import engine_hash
from mission.missionfile.failures import explained

Function = Callable[[Any, Any], Any]  # (shared value, item) -> result; found by its name in each worker


def perform(
    function: Function, where: str, versions: Mapping[str, str], shared: Any, item: Any
) -> tuple[Any, FourParts | None, float]:
    """Run a task in a worker; return its result, or its exception as an error in four parts, and its seconds."""
    begun, result, error = time.monotonic(), None, None
    try:
        check_worker(versions, worker_versions())
        result = function(shared, item)
    except (Exception, SystemExit) as raised:
        error = explained(raised, where)
        error.add_note("".join(traceback.format_exception(raised)))  # --debug shows it
    return result, error, time.monotonic() - begun


def worker_versions() -> dict[str, str]:
    """Return the versions in which a worker must agree with the process that sends the tasks."""
    return {
        "engine": f"{version_of('mission-engine')} (source {engine_hash()[:12]})",
        "jax": version_of("jax"),
        "jaxlib": version_of("jaxlib"),
    }


def version_of(distribution: str) -> str:
    """Return the version of an installed distribution."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:  # found on the path, not installed
        return "without a version"


def check_worker(expected: Mapping[str, str], found: Mapping[str, str]) -> None:
    """Refuse this worker if it differs from the process that sends it tasks.

    Raises:
      MachineError: names what differs.
    """
    for name, version in expected.items():
        if found.get(name) != version:
            raise MachineError(
                worker_name(),
                expected=f"{name} {version}, as where the command runs",
                found=f"{name} {found.get(name)}",
                remedy="install the same versions on every node of the cluster",
            )


def worker_name() -> str:
    """Return the name of this worker in messages."""
    return f"the Ray worker {os.getpid()} on {socket.gethostname()}"


def worker_environment(cores: int) -> dict[str, str]:
    """Return the variables of a worker: the modes of JAX of this process, on the cores of a task.

    XLA takes the size of its own thread pools from NPROC.
    """
    modes = {name: value for name, value in os.environ.items() if name.startswith(("JAX_", "XLA_"))}
    modes = {name: value for name, value in modes.items() if "CACHE" not in name}
    count = str(cores)
    return modes | {"JAX_PLATFORMS": "cpu", CORES_VARIABLE: count, "NPROC": count, "OMP_NUM_THREADS": count}
