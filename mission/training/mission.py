"""Train a mission, phase by phase; called by the command line and by notebooks."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mission.errors import InputError
from mission.machine.devices import configure
from mission.missionfile.arguments import given_mission, given_path, given_seed, optional_path, whole_number
from mission.missionfile.models import MissionFile
from mission.missionfile.phases import Phase, TrainedPhase
from mission.missionfile.resolve import resolve_mission
from mission.observers import Functions, Observers
from mission.storage.lock import folder_lock
from mission.storage.policies import DEFAULT_CHECKPOINTS
from mission.storage.protection import refuse_read_only
from mission.training import baseline
from mission.training.configuration import run_configuration
from mission.training.ending import TrainingSummaries, TrainingSummary
from mission.training.phase import Trainer
from mission.training.signals import interruptible
from mission.training.sweeps.run import Sweeps
from mission.training.work import mission_work


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
    baseline_flights: int | None = None,
    sweeps: int | None = None,
    joint: bool = False,
    observers: Functions | None = None,
) -> TrainingSummaries:
    """Train every phase in order, each from the end states of the previous one; stored phases are resumed.

    Args:
      mission: from `load_mission`.
      checkpoints: folder that holds `<mission>/<phase>/`.
      only: phases to train; the others stay unchanged.
      init: phase -> folder of a trained phase, whose policy initialises the networks.
      fresh: discard the stored results of the phases to be trained and restart them.
      seed: replaces the seed of the mission file.
      log_dir: folder for the files of observers, with a subfolder for each checkpoint folder; default `runs`.
      allow_local_plugins: permit `plugin: ./file.py`.
      checkpoint_every_s: seconds between training checkpoints.
      baseline_flights: number of flights that record the baseline of `mission recertify` once all phases are done; 0:
        none, None: `mission.training.baseline.BASELINE_FLIGHTS`.
      sweeps: replaces `chain: {sweeps: N}` of the mission file.
      joint: train all agents together on whole flights after the sweeps, as `chain: {joint: {}}` does.
      observers: functions that receive each event, in a list or by name; one that raises `StopTraining` ends the run.

    Raises:
      MissionError: wrong input (2), gate missed (`GateError`) or non-finite (1), not writable or an unknown format (3).
      Interrupted: Ctrl-C, after the state was saved; it is a KeyboardInterrupt, not a MissionError.
    """
    seed = given_seed(given_mission(mission, "train_mission").seed if seed is None else seed)
    flights = _baseline_flights(baseline_flights)
    configure()
    mission = _with_chain(mission.unguarded(), sweeps, joint)  # agents learn from their own flights
    phases = resolve_mission(mission, allow_local_plugins=allow_local_plugins)
    chosen = [k for k, phase in enumerate(phases) if not only or phase.name in only]
    initial = _check_names(phases, chosen, only, init or {})
    _check_whole(mission, only)
    root = _mission_folder(checkpoints, mission)
    runs = _run_folder(log_dir, checkpoints)
    with folder_lock(root), Observers(mission, runs, observers) as sent, interruptible() as stop:
        trainer = Trainer(
            mission=mission,
            phases=phases,
            root=root,
            seed=seed,
            observers=sent,
            stop=stop,
            init=initial,
            checkpoint_every_s=checkpoint_every_s,
        )
        return TrainingSummaries(_run(trainer, chosen, fresh, flights))


def _with_chain(mission: MissionFile, sweeps: int | None, joint: bool) -> MissionFile:
    """Return the mission with the sweeps and the joint training of the command line."""
    mission = mission if sweeps is None else mission.swept(sweeps)
    return mission.trained_jointly() if joint else mission


def _run(trainer: Trainer, chosen: list[int], fresh: bool, flights: int) -> list[TrainingSummary]:
    """Train the chosen phases and the chain, and record a baseline of so many flights."""
    root, seed, sent = trainer.root, trainer.seed, trainer.observers
    names = [phase.name for phase in trainer.phases]
    work = mission_work(trainer.mission, trainer.phases, chosen, root, fresh)
    configuration = run_configuration(trainer.mission, trainer.phases, seed)
    start = {"phases": names, "checkpoints": str(root), "seed": seed, "fresh": fresh, "configuration": configuration}
    sent.emit("mission_start", data=start | {"work": work, "baseline_flights": flights})
    summaries = _train(trainer, chosen, fresh)
    parts: dict[str, Any] = {"root": root, "seed": seed, "observers": sent, "stop": trainer.stop}
    baseline.record_baseline(trainer.mission, trainer.phases, flights=flights, **parts)
    records = [summary.model_dump(mode="json") for summary in summaries]
    sent.emit("mission_end", data={"records": records, "status": "stopped" if sent.stopped_by else "finished"})
    return summaries


def _train(trainer: Trainer, chosen: list[int], fresh: bool) -> list[TrainingSummary]:
    """Train the chosen phases, then the chain as a whole if the mission says so; return how each phase was trained first."""
    chain = trainer.mission.chain
    if chain is None or not (chain.sweeps or chain.joint):
        return trainer.train_all(chosen, fresh)
    sweeps = Sweeps(trainer, chain, fresh)
    summaries = sweeps.train_first()
    if trainer.observers.stopped_by is None:
        sweeps.run()
    return summaries


def _baseline_flights(chosen: int | None) -> int:
    return baseline.BASELINE_FLIGHTS if chosen is None else whole_number(chosen, "--baseline", 0)


def _mission_folder(checkpoints: str | Path, mission: MissionFile) -> Path:
    """Return the folder to write to; one with shipped policies is refused."""
    root = given_path(checkpoints, "--checkpoints") / mission.name
    refuse_read_only(root, "--checkpoints")
    return root


def _check_whole(mission: MissionFile, only: Sequence[str]) -> None:
    """Reject sweeps and joint training over some of the phases."""
    if only and mission.chain is not None and (mission.chain.sweeps or mission.chain.joint):
        raise InputError(
            f"--phase {only[0]}",
            expected="every phase, since sweeps and joint training train the whole chain",
            found=f"{len(only)} of {len(mission.phases)}",
            remedy="remove --phase; or sweeps and joint of the mission file",
        )


def _run_folder(log_dir: str | Path | None, checkpoints: str | Path) -> Path:
    """Return the folder for observers that write: one per folder of checkpoints, so that two runs never share it."""
    place = os.path.realpath(checkpoints)
    folder = (
        optional_path(log_dir, "--log-dir") or Path("runs")
    ) / f"{Path(place).name}-{hashlib.sha256(place.encode()).hexdigest()[:8]}"
    refuse_read_only(folder, "--log-dir")
    return folder


def _check_names(
    phases: Sequence[Phase], chosen: Sequence[int], only: Sequence[str], init: Mapping[str, str | Path]
) -> dict[str, Path]:
    """Check that the phases named on the command line exist, and that an agent learns in those of --init; return its folders."""
    names = [phase.name for phase in phases]
    agents = [phases[k].name for k in chosen if isinstance(phases[k], TrainedPhase)]
    for option, given, known in (("--phase", only, names), ("--init", init, agents)):
        for name in given:
            if name not in known:
                raise InputError(
                    f"{option} {name}",
                    expected=f"one of {', '.join(known) or '(no agent is trained)'}",
                    found=name,
                    remedy="name a phase of the mission" + (" that an agent learns here" if option == "--init" else ""),
                )
    return {name: given_path(path, f"--init {name}") for name, path in init.items()}
