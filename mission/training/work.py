"""Count the work of a training run before it begins, so that an observer can estimate its duration."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mission.missionfile.models import MissionFile
from mission.missionfile.named import shipped_policies
from mission.missionfile.phases import Phase, TrainedPhase
from mission.observers.forecast import PhaseWork
from mission.observers.metrics import MetricsLine, read_metrics
from mission.storage.policies import phase_record
from mission.storage.records import PolicyRecord
from mission.storage.steps import PhaseFolder
from mission.training.sweeps.phases import sweep_phases

_SPEED = "Speed/UpdatesPerSecond"


def mission_work(
    mission: MissionFile, phases: Sequence[Phase], chosen: Sequence[int], root: Path, fresh: bool
) -> list[dict[str, Any]]:
    """Return the work of the chosen phases, and of the passes of sweeps, in the order in which they are trained.

    A phase that is already done is left out. Earlier training runs of the phases, here or of the policies that an
    installed distribution ships, provide the vehicle steps that they needed and the speed of their updates.

    Returns:
      One `PhaseWork` each, as a dictionary.
    """
    first = [
        _phase_work(phase, phase.name, _earlier(mission, phase, root))
        for phase in (phases[k] for k in chosen)
        if fresh or not PhaseFolder(root / phase.name).done
    ]
    return [dataclasses.asdict(one) for one in (*first, *_sweeps(mission, phases, root))]


def _sweeps(mission: MissionFile, phases: Sequence[Phase], root: Path) -> Iterator[PhaseWork]:
    """Yield the work of every pass of the sweeps; a pass that is already done costs nothing and sends no events."""
    if mission.chain is None or not mission.chain.sweeps:
        return
    trained = sweep_phases(mission, phases)
    for sweep in range(1, mission.chain.sweeps + 1):
        backwards = [phase for phase in reversed(trained) if isinstance(phase, TrainedPhase)]
        for way, order in (("backwards", backwards), ("forwards", trained)):
            for phase in order:
                yield _phase_work(
                    phase, f"{phase.name}-sweep-{sweep}-{way}", _earlier(mission, phase, root, steps=False)
                )


def _phase_work(phase: Phase, label: str, earlier: tuple[int | None, float | None]) -> PhaseWork:
    bank = phase.entry.bank.flights
    if not isinstance(phase, TrainedPhase):
        return PhaseWork(name=label, bank_flights=bank)
    config, entry, learner = phase.learner, phase.entry, phase.build_learner()
    imitation, gate = config.imitation, entry.gate
    budget = entry.budget.env_steps
    stops = gate is not None and gate.stop
    steps, speed = earlier
    return PhaseWork(
        name=label,
        bank_flights=bank,
        budget=budget,
        expected=min(steps, budget) if stops and steps is not None else budget,
        may_stop=stops,
        rounds=0 if imitation is None else imitation.rounds,
        round_steps=0 if imitation is None else imitation.env_steps,
        round_updates=0 if imitation is None else imitation.updates,
        fill_steps=config.fill_cycles * config.cycle_steps,
        warm_up_updates=learner.warm_up_steps,
        chunk_steps=config.chunk_steps,
        chunk_updates=config.chunk_cycles * config.update_cycle[1],
        updates_per_s=speed,
        every=max(1, round(entry.evaluation.every_env_steps / config.chunk_steps)),
        evaluation_flights=entry.evaluation.flights,
        gate_flights=0 if gate is None else gate.number(round(bank * entry.bank.held_out)),
    )


def _earlier(mission: MissionFile, phase: Phase, root: Path, steps: bool = True) -> tuple[int | None, float | None]:
    """Return the vehicle steps and the updates per second of an earlier training of a phase by the same plugin."""
    for folder in (root, *shipped_policies(mission.name)):
        record = phase_record(PhaseFolder(folder / phase.name))
        metrics = folder / phase.name / "metrics.jsonl"
        if (
            not isinstance(record, PolicyRecord)
            or record.plugins[-1].name != phase.origin.name
            or not metrics.is_file()
        ):
            continue
        speeds = [speed for line in read_metrics(metrics) if (speed := _speed(line))]
        return (record.env_steps or None) if steps else None, statistics.median(speeds) if speeds else None
    return None, None


def _speed(line: MetricsLine) -> float | None:
    return line.scalar(_SPEED) if line.kind == "chunk" else None
