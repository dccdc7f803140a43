"""Fly the finished policies of a mission and store how every flight ended, as the baseline of `mission recertify`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mission import __version__
from mission.errors import Interrupted, MachineError
from mission.flight.batches import compile_flight, fly_batches
from mission.flight.chain import Chain
from mission.flight.fly import PhaseFlight
from mission.missionfile.changes import configuration_change
from mission.missionfile.models import MissionFile
from mission.missionfile.phases import Phase, PolicyPhase, TrainedPhase, policy_folders
from mission.observers import Observers
from mission.storage.baseline import (
    BASELINE,
    Baseline,
    BaselinePhase,
    BaselineRecord,
    PhaseOutcomes,
    read_baseline,
    write_baseline,
)
from mission.storage.borrowed import borrowed_policy
from mission.storage.policies import load_actor, part_of, plugin_change
from mission.storage.records import PolicyRecord
from mission.storage.steps import PhaseFolder

log = logging.getLogger("mission")
BASELINE_FLIGHTS = 10_000  # as many as `mission recertify --equivalent` needs


def record_baseline(
    mission: MissionFile,
    phases: Sequence[Phase],
    root: Path,
    seed: int,
    flights: int,
    observers: Observers,
    stop: Callable[[], bool],
) -> None:
    """Record the baseline of a mission whose phases are all done, unless one of the same policies exists.

    Args:
      mission, phases: the trained mission and its phases.
      root: the mission's folder; `baseline.npz` is written into it.
      seed: seed of the flights.
      flights: N; 0 records nothing.
      observers: receive an event `baseline` before the first and after each batch.
      stop: returns whether a signal has arrived; called after each batch.

    Raises:
      Interrupted: a signal arrived; the policies are complete, and the next run records the baseline.
    """
    records = _finished(phases, root) if flights else None
    if records is None or _has_baseline(root, records, flights):
        return
    stored = records[-1]
    change = configuration_change(stored.configuration, phases) or plugin_change(stored, phases)
    if change:
        log.warning("no baseline is recorded: the policies in %s are stale (%s)", root, change)
        return

    def progress(done: int, total: int) -> None:
        observers.emit("baseline", data={"flights": total, "done": done})
        if stop() and done < total:
            raise Interrupted(
                str(root / BASELINE),
                expected=f"{total} flights of the finished policies",
                found=f"a signal after {done}",
                remedy="the policies are complete; the same command records the baseline",
            )

    chain = load_chain(mission, phases, records, root, seed)
    observers.emit("baseline", data={"flights": flights, "done": 0})
    outcomes = outcomes_of(phases, fly_batches(flights, None, chain.fly, progress))
    record = BaselineRecord(
        mission=mission.name,
        seed=seed,
        flights=flights,
        engine=__version__,
        phases=tuple(
            BaselinePhase(name=phase.name, content_sha256=one.content_sha256, causes=phase.causes)
            for phase, one in zip(phases, records, strict=True)
        ),
    )
    write_baseline(root, Baseline(record, outcomes))


def load_chain(
    mission: MissionFile, phases: Sequence[Phase], records: Sequence[PolicyRecord], root: Path, seed: int
) -> Chain:
    """Return the mission with the policies of a folder, ready to fly.

    Each phase is flown by the pilot that flew its bank, so that the flights do not depend on the pilots in the mission
    file.
    """
    stored = [phase.flown_by(record.flown_by) for phase, record in zip(phases, records, strict=True)]
    folders = policy_folders(mission, stored)

    def policy_of(k: int, phase: Phase) -> Any:
        if isinstance(phase, TrainedPhase):
            return load_actor(PhaseFolder(root / phase.name), phase, part_of(phase))
        if isinstance(phase, PolicyPhase):
            return borrowed_policy(folders[phase.name], phase, mission.source.where(("phases", k, "policy")))
        return None

    return Chain(
        mission=mission,
        phases=tuple(stored),
        actors=tuple(policy_of(k, phase) for k, phase in enumerate(stored)),
        flights=tuple(compile_flight(phase) for phase in stored),
        seed=seed,
        policy="agent",
        root=root,
        folders=folders,
    )


def outcomes_of(phases: Sequence[Phase], results: Sequence[PhaseFlight]) -> tuple[PhaseOutcomes, ...]:
    """Return how N flights ended each phase; a phase that a flight did not enter counts as cause 0 after 0 steps."""
    entered, outcomes = np.ones(len(results[0].success), bool), []
    for phase, result in zip(phases, results, strict=True):
        success = result.success & entered
        cause, steps = (np.where(entered, values, 0) for values in (result.cause, result.steps))
        outcomes.append(PhaseOutcomes(phase.causes, success, cause, steps))
        entered = success
    return tuple(outcomes)


def _finished(phases: Sequence[Phase], root: Path) -> list[PolicyRecord] | None:
    """Return the record of each phase's policy; None if a phase is not done."""
    folders = [PhaseFolder(root / phase.name) for phase in phases]
    records = [folder.policy_record() for folder in folders if folder.done]
    found = [record for record in records if record is not None]
    return found if len(found) == len(phases) else None


def _has_baseline(root: Path, records: Sequence[PolicyRecord], flights: int) -> bool:
    """Return whether a baseline of these policies, with at least as many flights, is stored."""
    try:
        stored = read_baseline(root)
    except MachineError as error:
        log.warning("%s is recorded again: %s", error.where, error.found)
        return False
    policies = {record.phase: record.content_sha256 for record in records}
    return stored is not None and stored.record.policies() == policies and stored.record.flights >= flights
