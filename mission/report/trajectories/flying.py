"""Fly chosen flights again and return them as trajectories."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from mission.flight.again import PhaseSteps, fly_again
from mission.flight.chain import Chain
from mission.missionfile.phases import Phase, json_of
from mission.report.summary import durations, phase_returns
from mission.report.trajectories.record import Trajectory, TrajectoryPhase

_CLOCK = "phase_time_s"


def fly_trajectories(
    chain: Chain, numbers: Sequence[int], progress: Callable[[int, int], None] | None = None
) -> tuple[Trajectory, ...]:
    """Return flights of the campaign of a chain, flown again, in the order of their numbers."""
    flown = fly_again(chain, numbers, progress)
    return tuple(_trajectory(chain, number, steps) for number, steps in flown.items())


def _trajectory(chain: Chain, number: int, flown: list[PhaseSteps]) -> Trajectory:
    phases: list[TrajectoryPhase] = []
    clock = 0.0
    for phase, steps in zip(chain.phases, flown, strict=False):
        phases.append(_phase(phase, steps, clock))
        clock = float(phases[-1].time_s[-1])
    return Trajectory(chain.mission.name, chain.digest, chain.seed, chain.policy, number, tuple(phases))


def _phase(phase: Phase, steps: PhaseSteps, clock: float) -> TrajectoryPhase:
    flight, table = steps
    seconds = np.arange(len(table)) * phase.environment.control_period_s
    if _CLOCK in phase.channels:
        told = table[:, phase.channels.index(_CLOCK)].astype(float)
        seconds = told if np.isfinite(told).all() and (np.diff(told) >= 0.0).all() else seconds
    elif len(table) > 1:
        seconds[-1] = durations(phase, flight)
    return TrajectoryPhase(
        name=phase.name,
        plugin=phase.origin.name,
        params=json_of(phase.params),
        success=bool(flight.success),
        cause=phase.causes[int(flight.cause)],
        returns=float(phase_returns(phase, flight)),
        time_s=clock + seconds,
        channels={name: table[:, at].copy() for at, name in enumerate(phase.channels)},
        takeover=int(flight.takeover),
    )
