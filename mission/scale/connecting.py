"""Start a Ray on this machine, or connect to a cluster that the user runs.

A local Ray listens on the loopback interface only, has no dashboard and sends no usage statistics. It ends with this process,
however that ends. If it is killed, the system ends Ray's processes (two helpers notice it themselves, within a minute or so), and
a shell that waits for this process removes the folder.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import warnings
from collections.abc import Generator
from typing import Any

from mission.errors import InputError, MachineError, exception_text
from mission.machine.extras import import_extra
from mission.training.signals import before_end

_CONNECT_S = 5.0
_REMOVE_S = 5.0
_LONGEST_BASE = 20  # characters; the path of a socket in the folder must be short
_STORE_BYTES = 512 << 20  # of a local Ray's object store


def import_ray() -> Any:
    """Return the package ray, which must not be connected yet."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray = import_extra("ray", "mission-engine[ray]", "--on ray")
    if ray.is_initialized():
        found, remedy = "a process that is connected to Ray already", "call ray.shutdown() before"
        raise InputError("--on ray", expected="to connect to Ray", found=found, remedy=remedy)
    return ray


@contextlib.contextmanager
def started(ray: Any, cores: int) -> Generator[str]:
    """Start a Ray with a number of cores, and end it; yields its folder, which is removed."""
    base = tempfile.gettempdir()
    base = base if len(base) < _LONGEST_BASE else "/tmp"
    folder = tempfile.mkdtemp(prefix=f"mission-ray-{os.getpid()}-", dir=base)
    # JAX warns of forks; nothing of it runs in a child of Ray's before that becomes another program
    warnings.filterwarnings("ignore", r"os\.fork\(\) was called", RuntimeWarning)
    # removes the folder if this process ends without a word
    clean = 'read -r _ || { sleep 2; rm -rf "$0"; }'
    janitor = subprocess.Popen(["sh", "-c", clean, folder], stdin=subprocess.PIPE, start_new_session=True)
    try:
        with _on_loopback():
            _init(
                ray,
                "--on ray",
                address="local",
                num_cpus=cores,
                include_dashboard=False,
                object_store_memory=_STORE_BYTES,
                _temp_dir=folder,
                _node_ip_address="127.0.0.1",
            )
        addresses = {node["NodeManagerAddress"] for node in ray.nodes()}
        if addresses != {"127.0.0.1"}:
            raise MachineError(
                "--on ray",
                expected="a local Ray that listens on the loopback interface only",
                found=f"one at {', '.join(sorted(addresses))}",
                remedy="install ray 2.60, with which this is tested",
            )
        with before_end(ray.shutdown):
            yield folder
    finally:
        ray.shutdown()
        _remove(folder)
        janitor.communicate(b"\n")


def _remove(folder: str) -> None:
    """Remove the folder of a Ray whose last processes may still write to it."""
    until = time.monotonic() + _REMOVE_S
    while os.path.exists(folder) and time.monotonic() < until:
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.05)


@contextlib.contextmanager
def _on_loopback() -> Generator[None]:
    """Let Ray take the loopback address for that of this machine, as it does where clusters are not supported."""
    constants = importlib.import_module("ray._private.ray_constants")
    before = constants.ENABLE_RAY_CLUSTER
    constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before


@contextlib.contextmanager
def connected(ray: Any, address: str) -> Generator[None]:
    """Connect to a cluster that the user runs, and leave it."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():  # not auto
        try:  # Ray itself tries for a minute, and then ends the process
            socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S).close()
        except OSError as error:
            raise _not_begun(f"--on ray:{address}", error) from None
    try:
        _init(ray, f"--on ray:{address}", address=address)
        yield
    finally:
        ray.shutdown()


def _init(ray: Any, where: str, **options: Any) -> None:
    try:
        with _own_signals():
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
    except Exception as error:  # Ray raises many kinds
        raise _not_begun(where, error) from None


@contextlib.contextmanager
def _own_signals() -> Generator[None]:
    """Restore the signal handlers of this process afterwards: those of Ray print a trace of the stack."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # not the main thread, where Ray leaves them, too
            for number, handler in before.items():
                signal.signal(number, handler)


def _not_begun(where: str, error: Exception) -> MachineError:
    return MachineError(
        where,
        expected="a Ray that runs",
        found=exception_text(error),
        remedy="check the address and the cluster (`ray status`), or leave the address out for a local Ray",
    )
