"""One flight at every control step, as Python sees it and as formats of trajectories receive it.

Shapes: T instants of a phase.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import NamedTuple

import numpy as np
from pydantic import JsonValue

_MOST_VALUES, _MOST_CHANGES = 32, 32  # of a channel that counts


class TrajectoryEvent(NamedTuple):
    """An event of a flight, `time_s` seconds after the mission began."""

    time_s: float
    phase: str
    name: str


@dataclasses.dataclass(frozen=True, eq=False)
class TrajectoryPhase:
    """One phase of one flight: its values at entry and after each control step."""

    name: str
    plugin: str
    params: dict[str, JsonValue]  # validated
    success: bool
    cause: str  # how it ended; that of a success, too
    returns: float  # sum of rewards; NaN without a reward
    time_s: np.ndarray  # float64 [T] since the mission began
    channels: dict[str, np.ndarray]  # float32 [T] each
    takeover: int = -1  # control step from which its guide flew; -1: none


@dataclasses.dataclass(frozen=True, eq=False)
class Trajectory:
    """One flight of a mission at every control step: flight `number` of the campaign with this seed."""

    mission: str
    digest: str
    seed: int
    policy: str
    number: int
    phases: tuple[TrajectoryPhase, ...]  # those that it entered

    @property
    def success(self) -> bool:
        """Whether every phase succeeded."""
        return all(phase.success for phase in self.phases)

    @property
    def outcome(self) -> str:
        """How the flight ended."""
        last = self.phases[-1]
        return last.cause if last.success else f"lost in {last.name}: {last.cause}"

    @property
    def duration_s(self) -> float:
        """The seconds from its start to its end."""
        return float(self.phases[-1].time_s[-1])

    def events(self) -> tuple[TrajectoryEvent, ...]:
        """Return the events in order of time: begin and end of phases, take-overs, and changes of integer channels.

        An integer channel is a channel that holds integers throughout the flight and changes seldom, such as a switch
          or a count.
        """
        found: list[TrajectoryEvent] = []
        counting = self._counting()
        before: dict[str, float] = {}
        for phase in self.phases:
            found.append(TrajectoryEvent(float(phase.time_s[0]), phase.name, f"{phase.name} begins"))
            if 0 <= phase.takeover < len(phase.time_s):
                found.append(TrajectoryEvent(float(phase.time_s[phase.takeover]), phase.name, "the guide takes over"))
            for name in counting & set(phase.channels):
                values = phase.channels[name]
                changed = [at for at, (a, b) in enumerate(itertools.pairwise(values), 1) if a != b]
                changed = [0, *changed] if before.get(name, values[0]) != values[0] else changed
                for at in changed:
                    old = values[at - 1] if at else before[name]
                    text = f"{name} from {old:g} to {values[at]:g}"
                    found.append(TrajectoryEvent(float(phase.time_s[at]), phase.name, text))
                before[name] = float(values[-1])
            found.append(TrajectoryEvent(float(phase.time_s[-1]), phase.name, f"{phase.name} ends: {phase.cause}"))
        return tuple(sorted(found, key=lambda event: event.time_s))  # stable

    def _counting(self) -> set[str]:
        """Return the channels that count."""
        found = set()
        for name in dict.fromkeys(name for phase in self.phases for name in phase.channels):
            values = np.concatenate([phase.channels[name] for phase in self.phases if name in phase.channels])
            if not np.isfinite(values).all() or (values != np.round(values)).any():
                continue
            changes = np.count_nonzero(np.diff(values))
            if 0 < changes <= _MOST_CHANGES and len(np.unique(values)) <= _MOST_VALUES:
                found.add(name)
        return found
