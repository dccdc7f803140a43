"""Fly the newest policies of a training run for the page: `python -m mission.report.watch.flight ROOT REPORT`.

It runs in a process of its own with the lowest priority, reads the run's folder and writes a report elsewhere. The phases that
are done fly their stored policies, and the phase that trains flies its best policy so far; those after it are not flown.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mission.errors import InputError, MissionError
from mission.flight.batches import compile_flight, to_host
from mission.flight.chain import Chain
from mission.machine.devices import configure
from mission.missionfile.models import MissionFile
from mission.missionfile.phases import Phase, PolicyPhase, TrainedPhase, policy_folders
from mission.missionfile.reading import load_mission
from mission.missionfile.resolve import resolve_mission
from mission.report.curves import training_files
from mission.report.recording import report_flights
from mission.storage.borrowed import borrowed_policy
from mission.storage.policies import load_actor, part_of, policy_shapes
from mission.storage.records import PolicyRecord, StoredRecord
from mission.storage.steps import PhaseFolder, read_tree
from mission.training.recertify import mission_of


def newest_records(root: Path) -> list[tuple[StoredRecord, Path]]:
    """Return the record of each phase that has a policy, in the order of flight, and the folder of that policy.

    The list ends before the first phase that has none.
    """
    found: dict[int, tuple[StoredRecord, Path]] = {}
    names = [path.parent for path in training_files(root)] or []
    others = [one for one in root.glob("*") if (one / "done").is_file() and one not in names]
    for path in (*names, *others):
        folder = PhaseFolder(path)
        with contextlib.suppress(MissionError, ValueError, OSError):
            record = folder.policy_record() if folder.done else None
            place = folder.policy
            if record is None and (newest := folder.newest_training()) is not None:
                place, record = newest
            if record is not None:
                found[len(record.configuration)] = (record, place)
    records = []
    for count in range(1, len(found) + 1):
        if count not in found:
            break
        records.append(found[count])
    return records


def newest_chain(root: Path, mission: MissionFile | None = None, allow_local_plugins: bool = False) -> Chain:
    """Return the phases that can be flown now, with their newest policies.

    Args:
      root: `checkpoints/<mission>`.
      mission: the mission that is trained; None: as the records describe it.
      allow_local_plugins: permit `plugin: ./file.py`.

    Raises:
      InputError: no phase has a policy yet, or the records do not suffice to know the mission.
    """
    records = newest_records(root)
    if not records:
        raise InputError(
            str(root), expected="a policy or a training checkpoint", found="none yet", remedy="wait for the first one"
        )
    configure()
    chosen = (mission or mission_of(root, [record for record, _ in records])).unguarded()
    chosen = chosen.model_copy(
        update={"phases": chosen.phases[: len(records)], "chain": chosen.chain if len(records) > 1 else None}
    )
    phases = resolve_mission(chosen, allow_local_plugins=allow_local_plugins)
    folders = policy_folders(chosen, phases)
    actors = tuple(_actor(chosen, phases, k, record, place, folders) for k, (record, place) in enumerate(records))
    return Chain(
        mission=chosen,
        phases=phases,
        actors=actors,
        flights=tuple(compile_flight(phase) for phase in phases),
        seed=chosen.seed,
        policy="agent",
        root=root,
        devices=1,
        folders=folders,
    )


def _actor(
    mission: MissionFile, phases: Sequence[Phase], k: int, record: StoredRecord, place: Path, folders: Any
) -> Any:
    """Return the policy that flies a phase; None for a guide."""
    phase = phases[k]
    if isinstance(phase, TrainedPhase) and isinstance(record, PolicyRecord):
        return to_host(load_actor(PhaseFolder(place.parent), phase, part_of(phase)))
    if isinstance(phase, TrainedPhase):
        return to_host(read_tree(place, {"best_actor": policy_shapes(phase)})["best_actor"])
    if isinstance(phase, PolicyPhase):
        return to_host(borrowed_policy(folders[phase.name], phase, mission.source.where(("phases", k, "policy"))))
    return None


def main(root: str, report: str, flights: str, file: str = "", local: str = "") -> None:
    """Fly and write the report; all arguments are text, as they come from the command line."""
    os.nice(19)  # training comes first
    mission = load_mission(Path(file)) if file else None
    chain = newest_chain(Path(root), mission, bool(local))
    report_flights(chain, Path(report), int(flights), None, None)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except MissionError as error:
        print(error.found, file=sys.stderr)
        sys.exit(error.exit_code)
