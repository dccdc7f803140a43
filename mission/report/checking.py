"""`check`: resolve and describe a mission, or recall the last check if nothing has changed."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mission.errors import counted
from mission.machine.kept import engine_hash, file_hash, remembered
from mission.missionfile.arguments import given_mission
from mission.missionfile.models import MissionFile
from mission.storage.markup import escape

if TYPE_CHECKING:
    from mission.missionfile.phases import Phase

_OWN = {"progress", "tensorboard"}  # observers that are part of the engine
_VARIABLES = ("JAX_", "XLA_", "CUDA_", "ROCR_", "HIP_", "PYTHONPATH")  # prefixes of those that a check depends on


class Checked(NamedTuple):
    """The output of a check, and the files on which it depends with their SHA-256; `quiet` if it did not warn."""

    lines: tuple[str, ...]
    files: dict[str, str]
    quiet: bool


@dataclasses.dataclass(frozen=True)
class MissionCheck:
    """The description of a mission as `lines` of text, as `mission check` prints them."""

    lines: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(self.lines)

    def _repr_html_(self) -> str:
        return f"<pre>{'<br>'.join(map(escape, self.lines))}</pre>"


class _Warnings(logging.Handler):
    """Notes whether anything was logged."""

    heard = False

    def emit(self, record: logging.LogRecord) -> None:
        """Note a warning."""
        self.heard = True


def check(mission: MissionFile, *, allow_local_plugins: bool = False) -> MissionCheck:
    """Resolve and link a mission, load its observers, and return a description of it; nothing is trained.

    If neither the mission nor anything that it depends on has changed, the result of the last check is returned.

    Args:
      mission: from `load_mission`.
      allow_local_plugins: permit `plugin: ./file.py`.

    Raises:
      MissionError: the mission, a plugin or the machine is not as it must be; names the place in the mission.
    """
    mission = given_mission(mission, "check")
    variables = sorted((name, value) for name, value in os.environ.items() if name.startswith(_VARIABLES))
    identity = repr(
        [
            "check",
            engine_hash(),
            mission.model_dump_json(),
            str(mission.folder.resolve()),
            allow_local_plugins,
            variables,
        ]
    )
    known = identity if _OWN.issuperset(mission.observers) and mission.source.is_file else None
    return MissionCheck(remembered(known, lambda: _check(mission, allow_local_plugins), _valid).lines)


def _valid(last: Checked) -> bool:
    return last.quiet and all(file_hash(path) == found for path, found in last.files.items())


def _place(mission: MissionFile, index: int, key: str) -> str:
    """Return the place of a dotted key of a phase, or of the nearest one above it that the file gives."""
    return mission.source.where(("phases", index, *key.split(".")))


def _borrowed(mission: MissionFile, phases: Sequence[Phase], allow_local_plugins: bool) -> set[str]:
    """Check the policies of other folders and frameworks that fly phases; return the files on which that depends."""
    from mission.missionfile.phases import PolicyPhase, policy_folders

    folders, files = policy_folders(mission, phases), set()
    for k, phase in enumerate(phases):
        if isinstance(phase, PolicyPhase) and phase.name in folders:
            from mission.flight.onboard.flying import with_library
            from mission.storage.borrowed import borrowed_record

            folder, where = folders[phase.name], mission.source.where(("phases", k, "policy"))
            if with_library(phase, folder, where, allow_local_plugins).from_library:
                files |= {str(path) for path in ([folder] if folder.is_file() else folder.iterdir())}
                continue
            borrowed_record(folder, phase, where)
            files |= {str(path) for path in (folder / "policy").rglob("*") if path.is_file()}
    return files


def _check(mission: MissionFile, allow_local_plugins: bool) -> Checked:
    from mission.machine.devices import configure
    from mission.missionfile.contract import warn_of_settings
    from mission.missionfile.phases import TrainedPhase
    from mission.missionfile.resolve import digest, resolve_mission
    from mission.observers import Observers

    warnings = _Warnings(logging.WARNING)
    logging.getLogger("mission").addHandler(warnings)
    try:
        configure()
        phases = resolve_mission(mission, allow_local_plugins=allow_local_plugins)
        for index, phase in enumerate(phases):
            warn_of_settings(phase, partial(_place, mission, index))
        Observers(mission, Path())  # loads each of them
        borrowed = _borrowed(mission, phases, allow_local_plugins)
    finally:
        logging.getLogger("mission").removeHandler(warnings)
    found = digest([phase.configuration() for phase in phases])[:16]
    lines = [f"{mission.name}: {counted(len(phases), 'phase')}, seed {mission.seed}, digest {found}"]
    for phase in phases:
        env, entry = phase.environment, phase.entry
        trained = isinstance(phase, TrainedPhase)
        who = phase.pilot + (f", {entry.budget.env_steps:,} vehicle steps" if trained else "")
        if trained and phase.wide is not None:
            who += f", {phase.wide.share:.0%} of the training vehicles with wide dispersions"
        gate = f"gate: {entry.gate}" if entry.gate and trained else "no gate"
        sizes = f"{counted(len(env.observation_names), 'observation')}, {counted(len(env.action_names), 'action')}"
        lines += [f"  {phase.name}: {phase.origin}", f"    {who}; {gate}; {sizes}, {env.control_period_s} s steps"]
    files = sorted({path for phase in phases for path in phase.files} | borrowed)
    return Checked(tuple(lines), {path: file_hash(path) for path in files}, not warnings.heard)
