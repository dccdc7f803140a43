"""Send a mission to the workers of a cluster, whose files may differ from those of the machine that runs the command.

Plugins of installed distributions are compared, not shipped. Local plugins are shipped with the files beside them that they
import or read, and so are the data files that the parameters of a mission name.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mission.errors import MachineError, MissionError, machine_errors
from mission.missionfile.models import MissionFile
from mission.missionfile.phases import Phase
from mission.missionfile.resolve import resolve_mission
from mission.phase import LOCAL_FILE, PluginOrigin
from mission.scale.worker import worker_name

_REMEDY = "install the same distributions on every node of the cluster"


class Shipment(NamedTuple):
    """A mission, the files that its phases need besides installed distributions, and the plugins that it resolved to.

    `file` is the path of the mission file, relative like those of `files` to a folder that each worker makes.
    """

    mission: MissionFile
    file: str
    files: dict[str, bytes]
    origins: tuple[PluginOrigin, ...]


def pack_mission(mission: MissionFile, phases: Sequence[Phase]) -> Shipment:
    """Return a mission, resolved to `phases` on this machine, for the workers."""
    paths = sorted({path for phase in phases for path in _own_files(phase)})
    home = mission.folder.resolve()
    root = Path(os.path.commonpath([home, *(path.parent for path in paths)]))
    return Shipment(
        mission=mission,
        file=str((home / mission.source.path.name).relative_to(root)),
        files={str(path.relative_to(root)): path.read_bytes() for path in paths},
        origins=tuple(phase.origin for phase in phases),
    )


def _own_files(phase: Phase) -> list[Path]:
    """Return the files of a phase that no distribution installs: all of a local plugin, else data named by parameters."""
    files = [Path(path).resolve() for path in phase.files]
    if phase.origin.distribution == LOCAL_FILE:
        return files
    packages = {path.parent for path in files if path.suffix == ".py"}
    return [path for path in files if packages.isdisjoint(path.parents)]


def unpack_mission(shipment: Shipment) -> tuple[MissionFile, tuple[Phase, ...]]:
    """Write the files of a mission and resolve it on a worker.

    Raises:
      MachineError: a plugin is missing or has other sources here, or the files cannot be written.
    """
    with machine_errors(worker_name(), "a folder for temporary files", "free disk space there, or set TMPDIR"):
        folder = _folder_of(tuple(shipment.files.items()))
        path = Path(folder.name, shipment.file)
        path.parent.mkdir(parents=True, exist_ok=True)  # `..` in a parameter passes through it
    source = dataclasses.replace(shipment.mission.source, path=path)
    mission = shipment.mission.model_copy().read_from(source)
    try:
        phases = resolve_mission(mission, allow_local_plugins=True)  # else it was refused where the command runs
    except MissionError as error:  # it resolved where the command runs
        found = f"{error.where}: expected {error.expected}, found {error.found}"
        expected = "the plugins of the mission to work as where the command runs"
        raise MachineError(worker_name(), expected=expected, found=found, remedy=_REMEDY) from None
    for expected, phase in zip(shipment.origins, phases, strict=True):
        check_origin(expected, phase.origin)
    return mission, phases


@functools.cache  # a worker may take many missions with the same files; the folder is removed at its end
def _folder_of(files: tuple[tuple[str, bytes], ...]) -> tempfile.TemporaryDirectory[str]:
    folder = tempfile.TemporaryDirectory(prefix="mission-")
    for name, content in files:
        path = Path(folder.name, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def check_origin(expected: PluginOrigin, found: PluginOrigin) -> None:
    """Refuse a worker whose plugin has another distribution, version or source.

    Raises:
      MachineError: names the plugin and both.
    """
    if found != expected:
        raise MachineError(
            worker_name(),
            expected=f"{expected} (source {expected.source_sha256[:12]}), as where the command runs",
            found=f"{found} (source {found.source_sha256[:12]})",
            remedy=_REMEDY,
        )
