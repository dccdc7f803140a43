"""The machine: two CPU cores as two devices, the compile cache, and a record of both.

XLA on the CPU gains little from a second core at the sizes of these networks; two devices that share each minibatch
gain 1.5 to 1.9 (docs/decisions/0002-two-devices.md).
"""

from __future__ import annotations

import contextlib
import os
from functools import cache
from pathlib import Path
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from mission.strict import StrictModel

AXIS = "device"
REPLICATED = PartitionSpec()
SPLIT = PartitionSpec(AXIS)
_CPU_DEVICES = 2
# XLA flags; the user's values win. Two devices take a core each; matrix products this small gain nothing from a third
# thread (docs/decisions/0002-two-devices.md). XLA runs the loops of a flight as thousands of small kernels, at a fixed
# cost per call, unless a loop counts as small: then it is one kernel (docs/decisions/0010-loops-as-one-kernel.md). The
# bound is in bytes; this one covers every loop.
_FLAGS = {
    "--xla_cpu_multi_thread_eigen": "false",
    "--xla_backend_extra_options": "xla_cpu_small_while_loop_byte_threshold=1000000000000",
}


class Machine(StrictModel):
    """The versions, devices and flags that decide the bits of a training run besides its seed."""

    platform: str
    devices: int
    cores: int
    jax: str
    jaxlib: str
    xla_flags: str


def visible_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def configure() -> None:
    """Split the CPU into devices, set XLA's flags and switch the compile cache on; without effect once JAX runs."""
    with contextlib.suppress(RuntimeError):  # JAX already runs: keep its devices
        jax.config.update("jax_num_cpu_devices", min(_CPU_DEVICES, visible_cores()))
    flags = os.environ.get("XLA_FLAGS", "")
    missing = [f"{flag}={value}" for flag, value in _FLAGS.items() if flag not in flags]
    os.environ["XLA_FLAGS"] = " ".join([*flags.split(), *missing])
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        cache_home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(cache_home / "mission" / "jax"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


@cache
def mesh() -> Mesh:
    """Return the mesh of all CPU devices (at most two), or of one accelerator."""
    devices = jax.devices()
    used = devices[: _CPU_DEVICES if devices[0].platform == "cpu" else 1]
    return jax.make_mesh((len(used),), (AXIS,), axis_types=(AxisType.Auto,), devices=used)


def replicate(tree: Any) -> Any:
    """Put a pytree on every device of the mesh."""
    return jax.device_put(tree, NamedSharding(mesh(), REPLICATED))


def describe() -> Machine:
    """Return the versions, devices and flags that decide the bits of a training run besides its seed."""
    import jaxlib

    return Machine(
        platform=jax.devices()[0].platform,
        devices=mesh().size,
        cores=visible_cores(),
        jax=jax.__version__,
        jaxlib=jaxlib.__version__,
        xla_flags=os.environ.get("XLA_FLAGS", ""),
    )
