"""The machine: two CPU cores as two devices, the compile cache, and a record of both.

XLA on the CPU gains little from a second core at the sizes of these networks; two devices that share each minibatch
gain 1.5 to 1.9 (docs/decisions/0002-two-devices.md).
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from mission.errors import MachineError
from mission.machine.kept import cache_home
from mission.strict import StrictModel

log = logging.getLogger("mission")
AXIS = "device"
REPLICATED = PartitionSpec()
SPLIT = PartitionSpec(AXIS)
CORES_VARIABLE = "MISSION_CORES"  # the most cores that this process may use; a worker of a cluster gets its task's
_CPU_DEVICES = 2
# XLA flags; the user's values win. Two devices take a core each; matrix products this small gain nothing from a third
# thread (docs/decisions/0002-two-devices.md). XLA runs the loops of a flight as thousands of small kernels, at a fixed
# cost per call, unless a loop counts as small: then it is one kernel (docs/decisions/0010-loops-as-one-kernel.md). The
# bound is in bytes; this one covers every loop. Without fusions of several outputs, each leaf of a state computes the
# forces again (docs/decisions/0013-blocks-and-kept-programs.md).
_LOOPS, _FUSION = "xla_cpu_small_while_loop_byte_threshold=1000000000000", "xla_cpu_use_multi_output_fusion"
_FLAGS = {"--xla_cpu_multi_thread_eigen": "false", "--xla_backend_extra_options": f"{_LOOPS},{_FUSION}"}
# Modes of JAX in which phases cannot run as they are written, and what they do.
_REJECTED_MODES = {
    "jax_enable_x64": "numbers have 64 bits instead of 32",
    "jax_disable_jit": "nothing is compiled, so that a flight takes hours",
}
_VARIABLES = ("JAX_", "XLA_", "CUDA_", "ROCR_", "HIP_")  # prefixes of those that choose devices and modes


class Machine(StrictModel):
    """The versions, devices and flags that determine the last bits of a training run besides its seed."""

    platform: str
    devices: int
    cores: int
    jax: str
    jaxlib: str
    xla_flags: str


@cache
def visible_cores() -> int:
    """Return the number of cores that this process may use: by affinity, quota of its container, and MISSION_CORES."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    with contextlib.suppress(OSError, ValueError):  # "max 100000" without a quota
        quota, period = (int(word) for word in Path("/sys/fs/cgroup/cpu.max").read_text().split())
        cores = min(cores, max(1, round(quota / period)))
    with contextlib.suppress(KeyError, ValueError):
        cores = min(cores, max(1, int(os.environ[CORES_VARIABLE])))
    return cores


@cache
def workers(most: int | None = None) -> ThreadPoolExecutor:
    """Return the threads that fly blocks of flights: one per core, or one per accelerator, at most `most`."""
    devices = jax.devices()
    count = visible_cores() if devices[0].platform == "cpu" else len(devices)
    return ThreadPoolExecutor(count if most is None else min(count, most))


def configure() -> None:
    """Start JAX: split the CPU into devices, set the XLA flags and enable the compilation cache.

    Every function that trains or flies calls this itself. A notebook that uses JAX before that must call it first:
    after JAX has started, its devices and flags cannot change. A warning says what to do if they are not those that
    training and flights need.

    Raises:
      MachineError: JAX finds no device, or an environment variable is not compatible with training and flying.
    """
    wanted, flags = min(_CPU_DEVICES, visible_cores()), os.environ.get("XLA_FLAGS", "").split()
    names = [flag.partition("=")[0] for flag in flags]
    _try_flags(tuple(flag for flag, name in zip(flags, names, strict=True) if name not in _FLAGS))
    missing = [f"{flag}={value}" for flag, value in _FLAGS.items() if flag not in names]
    late = False
    try:
        jax.config.update("jax_num_cpu_devices", wanted)
    except RuntimeError:  # JAX already runs; if the flags are missing, it was not started here
        late = bool(missing)
    os.environ["XLA_FLAGS"] = " ".join([*flags, *missing])
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", _cache_folder())
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    for mode, effect in _REJECTED_MODES.items():
        if getattr(jax.config, mode):
            raise _environment_error(f"{mode} is on, with which {effect}", f"unset {mode.upper()}, or switch it off")
    _check_devices(wanted, late)


def flags_without_fusion() -> str | None:
    """Return the value of XLA_FLAGS that avoids fusions of several outputs, or None if XLA does not make them."""
    used = _FUSION in os.environ.get("XLA_FLAGS", "")
    return f"--xla_backend_extra_options={_LOOPS}" if used else None


def _check_devices(wanted: int, late: bool) -> None:
    """Check that there are devices; warn if the processor is not used as it should, because JAX ran before (`late`)."""
    try:
        devices = jax.devices()
    except Exception as error:  # an AssertionError if JAX_PLATFORMS names a platform of which there is no device
        found = next(iter(str(error).splitlines()), "") or "none of the requested platform"
        raise _environment_error(found, "correct these variables, or set JAX_PLATFORMS=cpu") from None
    if devices[0].platform == "cpu" and (late or len(devices) < wanted):
        _warn_of_devices(len(devices), wanted)


@cache
def _warn_of_devices(found: int, wanted: int) -> None:
    """Warn once that JAX was started without the devices and flags that training and flights use."""
    devices = f"{found} device{'' if found == 1 else 's'} instead of {wanted}" if found < wanted else "other XLA flags"
    log.warning(
        "JAX was already running, with %s: training and flights are slower, and results differ in their last bits. To use "
        "all cores, restart the kernel or process, and begin with `import mission; mission.configure()`, before the first "
        "JAX computation",
        devices,
    )


def _environment_error(found: str, remedy: str) -> MachineError:
    given = {name: value for name, value in sorted(os.environ.items()) if name.startswith(_VARIABLES)}
    ours = [f"{flag}={value}" for flag, value in _FLAGS.items()]
    given["XLA_FLAGS"] = " ".join(flag for flag in given.get("XLA_FLAGS", "").split() if flag not in ours)
    where = "the environment: " + (
        ", ".join(f"{name}={value}" for name, value in given.items() if value) or "nothing set"
    )
    return MachineError(where, expected="a device for JAX, in its default modes", found=found, remedy=remedy)


@cache
def _try_flags(flags: tuple[str, ...]) -> None:
    """Try flags that are not the engine's in another process, because XLA aborts the process that has an unknown one."""
    if not flags:
        return
    code = "from jaxlib import xla_client; xla_client.make_cpu_client()"
    environment = os.environ | {"XLA_FLAGS": " ".join(flags)}
    tried = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    if tried.returncode and "XLA_FLAGS" in tried.stderr:
        found = next(line for line in tried.stderr.splitlines() if "XLA_FLAGS" in line)
        raise _environment_error(found.rpartition("] ")[2], "correct XLA_FLAGS, or unset it")


@cache
def _cache_folder() -> str | None:
    """Return the folder of compiled programs; None, with a warning, if there is none to write to."""
    try:
        folder = cache_home() / "jax"
        folder.mkdir(parents=True, exist_ok=True)
        writable, reason = os.access(folder, os.W_OK), f"{folder} cannot be written"
    except (OSError, RuntimeError) as error:  # RuntimeError: no HOME, and a user without a name
        writable, reason = False, str(error)
    if writable:
        return str(folder)
    log.warning("compiled programs are not kept (%s); JAX_COMPILATION_CACHE_DIR names a folder for them", reason)
    return None


@cache
def mesh() -> Mesh:
    """Return the mesh of all CPU devices (at most two), or of one accelerator."""
    devices = jax.devices()
    used = devices[: _CPU_DEVICES if devices[0].platform == "cpu" else 1]
    return jax.make_mesh((len(used),), (AXIS,), axis_types=(AxisType.Auto,), devices=used)


def device_share(tree: Any, axis: int = 0) -> Any:
    """Return this device's part of the rows along an axis, or all of them if they do not divide evenly; inside shard_map."""
    devices = lax.axis_size(AXIS)

    def share(rows: Array) -> Array:
        if rows.shape[axis] % devices:
            return rows
        size = rows.shape[axis] // devices
        return lax.dynamic_slice_in_dim(rows, lax.axis_index(AXIS) * size, size, axis)

    return jax.tree.map(share, tree)


def gather_rows(tree: Any, total: int) -> Any:
    """Return all rows [total, ...] of float32 leaves from each device's share of them, in one exchange; inside shard_map."""
    leaves, structure = jax.tree.flatten(tree)
    if leaves[0].shape[0] == total:
        return tree
    packed = jnp.concatenate([leaf.reshape(leaf.shape[0], -1) for leaf in leaves], axis=1)
    widths = np.cumsum([leaf[0].size for leaf in leaves])[:-1]
    parts = jnp.split(lax.all_gather(packed, AXIS, tiled=True), widths, axis=1)
    return jax.tree.unflatten(
        structure, [part.reshape(total, *leaf.shape[1:]) for part, leaf in zip(parts, leaves, strict=True)]
    )


def replicate(tree: Any) -> Any:
    """Put a pytree on every device of the mesh."""
    return jax.device_put(tree, NamedSharding(mesh(), REPLICATED))


def free_memory() -> int | None:
    """Return the bytes that arrays can still take, on all devices of the mesh together; None if that is not known."""
    device = mesh().devices.flat[0]
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:  # an accelerator's own memory
        return stats["bytes_limit"] - stats["bytes_in_use"]
    limits = []
    with contextlib.suppress(OSError, KeyError, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        sizes = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
        limits.append(sizes["MemAvailable"] + sizes["SwapFree"])
    with contextlib.suppress(OSError, ValueError):  # of a container; "max" if it has none
        limits.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(limits, default=None)


def describe() -> Machine:
    """Return the versions, devices and flags that determine the last bits of a training run besides its seed."""
    import jaxlib

    return Machine(
        platform=jax.devices()[0].platform,
        devices=mesh().size,
        cores=visible_cores(),
        jax=jax.__version__,
        jaxlib=jaxlib.__version__,
        xla_flags=os.environ.get("XLA_FLAGS", ""),
    )
