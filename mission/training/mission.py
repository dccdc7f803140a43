"""Train a mission phase by phase, and fly it: what the command line and a notebook call."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import signal
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mission.devices import configure
from mission.errors import InputError
from mission.flight.chain import check_flights, fly_chunks, prepare_chain
from mission.missionfile.models import MissionFile
from mission.missionfile.resolve import resolve_mission
from mission.observers import Observers
from mission.report.summary import MissionReport, TrainingRecord, mission_report
from mission.storage.lock import folder_lock
from mission.storage.policies import DEFAULT_CHECKPOINTS, SHIPPED
from mission.training.phase import Trainer

log = logging.getLogger("mission")


@contextlib.contextmanager
def interruptible() -> Generator[Callable[[], bool]]:
    """Turn SIGINT and SIGTERM into a flag; a second signal acts at once."""
    seen: list[int] = []

    def note(number: int, frame: Any) -> None:
        if seen:
            raise KeyboardInterrupt
        seen.append(number)
        log.warning("stopping at the end of this chunk; again to stop at once, unsaved")

    try:
        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: the caller keeps its own handlers
        before = {}
    try:
        yield lambda: bool(seen)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def train_mission(
    mission: MissionFile,
    *,
    checkpoints: str | Path = DEFAULT_CHECKPOINTS,
    only: Sequence[str] = (),
    init: Mapping[str, str | Path] | None = None,
    fresh: bool = False,
    seed: int | None = None,
    log_dir: str | Path | None = None,
    allow_local_plugins: bool = False,
    checkpoint_every_s: float = 30.0,
) -> tuple[TrainingRecord, ...]:
    """Train every phase in order, each from where the last one really ended; resumes what is there.

    Args:
      mission: from `load_mission`.
      checkpoints: folder that holds `<mission>/<phase>/`.
      only: phases to train; the others are left as they are.
      init: phase -> phase folder whose policy its networks start from.
      fresh: begin the phases to be trained anew.
      seed: instead of the mission file's.
      log_dir: for observers that write (TensorBoard); default `runs`.
      allow_local_plugins: permit `plugin: ./file.py`.
      checkpoint_every_s: seconds between training checkpoints.

    Raises:
      MissionError: wrong input (2), gate missed or non-finite (1), machine refused (3), interrupted (130).
    """
    configure()
    phases = resolve_mission(mission, allow_local_plugins=allow_local_plugins)
    names = [phase.name for phase in phases]
    chosen = [k for k, name in enumerate(names) if not only or name in only]
    agents = [phases[k].name for k in chosen if phases[k].trained]
    for option, given, known in (("--phase", only, names), ("--init", init or {}, agents)):
        for name in given:
            if name not in known:
                raise InputError(
                    f"{option} {name}",
                    expected=f"one of {', '.join(known) or '(no agent is trained)'}",
                    found=name,
                    remedy="name a phase of the mission" + (" that an agent learns here" if option == "--init" else ""),
                )
    root = Path(checkpoints) / mission.name
    if root.resolve().is_relative_to(SHIPPED.resolve()):
        raise InputError(
            str(root),
            expected="a folder to write to",
            found="the shipped policies, which are read-only",
            remedy="choose another --checkpoints",
        )
    seed = mission.seed if seed is None else seed
    with folder_lock(root), Observers(mission, Path(log_dir or "runs")) as observers, interruptible() as stop:
        trainer = Trainer(mission, phases, root, seed, observers, stop, dict(init or {}), checkpoint_every_s)
        observers.emit("mission_start", data={"phases": names, "checkpoints": str(root), "seed": seed})
        records = trainer.train_all(chosen, fresh)
        observers.emit("mission_end", data={"records": [dataclasses.asdict(r) for r in records]})
    return tuple(records)


def fly_mission(
    mission: MissionFile,
    *,
    checkpoints: str | Path | None = None,
    flights: int = 1000,
    until: float | None = None,
    seed: int | None = None,
    policy: str = "agent",
    report: str | Path | None = None,
    allow_stale: bool = False,
    allow_local_plugins: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> MissionReport:
    """Fly N vehicles from the first phase to the last, each phase's end states going straight on.

    Args:
      mission: from `load_mission`.
      checkpoints: folder of `<mission>/<phase>/`; None: `checkpoints`, then the shipped policies.
      flights: N.
      until: stop before N once the half-width of the success interval is at most this.
      seed: of the flights, instead of the mission file's; training is not touched.
      policy: "agent" as the mission file says, or "guide" for every phase.
      report: folder for records and page (docs/reports.md); an unfinished one is gone on with.
      allow_stale: fly policies made under another configuration, with a warning.
      allow_local_plugins: permit `plugin: ./file.py`.
      progress: called with (flights done, flights).

    Raises:
      MissionError: wrong input or a stale policy (2), no readable policy (3).
    """
    check_flights(flights, until)
    chain = prepare_chain(
        mission,
        checkpoints=checkpoints,
        seed=seed,
        policy=policy,
        allow_stale=allow_stale,
        allow_local_plugins=allow_local_plugins,
    )
    if report is not None:
        from mission.report.recording import report_flights

        return report_flights(chain, Path(report), flights, until, progress)
    return mission_report(chain, fly_chunks(flights, until, chain.fly, progress))
