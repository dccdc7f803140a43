"""Flown missions in memory: the data of a report folder, from which the page and the plugins' sections are drawn.

Shapes: N flights, C channels of a phase, L limits of it, T samples of a flight, G points of the common time grid,
K channels of the mission, M training starts.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from pydantic import JsonValue

from mission.flight.guard.counts import GuardComparison
from mission.missionfile.statistics import Rate, rate
from mission.phase import Limit
from mission.report.header import PhaseHeader, Provenance
from mission.report.sensitivity import Sensitivity


@dataclasses.dataclass(frozen=True, eq=False)
class FlownPhase:
    """One phase of N flights. The rows of flights that never entered it repeat the state in which they had ended."""

    name: str
    plugin: str
    params: dict[str, JsonValue]  # validated
    causes: tuple[str, ...]  # causes[0] names the success
    channels: tuple[str, ...]
    limits: tuple[Limit, ...]
    entered: np.ndarray  # bool [N]
    success: np.ndarray  # bool [N]
    cause: np.ndarray  # int32 [N]
    returns: np.ndarray  # [N] sums of rewards; NaN if the phase has no reward
    duration_s: np.ndarray  # [N]
    enter: np.ndarray  # [N, C] telemetry on entering
    end: np.ndarray  # [N, C] telemetry at the end
    lowest: np.ndarray  # [N, L] of the limited channels, in the order of `limits`
    highest: np.ndarray  # [N, L]
    takeover: np.ndarray | None = (
        None  # int32 [N], control step from which its guide flew, -1: none; None without a guard
    )
    feasible: np.ndarray | None = None  # [N] on entering: the probability that the mission succeeds; None if not known

    def at_end(self, channel: str) -> np.ndarray | None:
        """Return a channel at the end [N]; None if the phase has no such channel."""
        return self.end[:, self.channels.index(channel)] if channel in self.channels else None

    def at_enter(self, channel: str) -> np.ndarray | None:
        """Return a channel on entering [N]; None if the phase has no such channel."""
        return self.enter[:, self.channels.index(channel)] if channel in self.channels else None

    def outside(self) -> dict[str, int]:
        """Return the number of flights that went on outside of the phase's box, by cause; only causes that occur."""
        on = self.entered & self.success
        counts = {name: int((on & (self.cause == i)).sum()) for i, name in enumerate(self.causes) if i > 0}
        return {name: n for name, n in counts.items() if n}

    def losses(self) -> dict[str, int]:
        """Return the number of failures by cause; every cause is listed."""
        lost = self.entered & ~self.success
        return {name: int((lost & (self.cause == i)).sum()) for i, name in enumerate(self.causes) if i > 0}


@dataclasses.dataclass(frozen=True, eq=False)
class Flights:
    """N flights of a whole mission by one set of policies."""

    policy: str
    phases: tuple[FlownPhase, ...]

    @property
    def count(self) -> int:
        """The number of flights, N."""
        return len(self.phases[0].success)

    @property
    def success(self) -> np.ndarray:
        """bool [N], of the whole chain."""
        return self.phases[-1].success & self.phases[-1].entered

    @property
    def returns(self) -> np.ndarray:
        """[N], summed over the phases that a flight entered; NaN where none of them has a reward."""
        table = np.stack([np.where(phase.entered, phase.returns, np.nan) for phase in self.phases])
        rewarded = np.stack([phase.entered & ~np.isnan(phase.returns).all() for phase in self.phases])
        return np.where(rewarded.any(axis=0), np.where(rewarded, table, 0.0).sum(axis=0, dtype=float), np.nan)

    def rate(self) -> Rate:
        """Return the proportion of successes with its 95 % Wilson interval."""
        return rate(int(self.success.sum()), self.count)

    def outcome(self, number: int) -> str:
        """Return a description of how flight `number` ended."""
        for phase in self.phases:
            if not phase.success[number]:
                return f"lost in {phase.name}: {phase.causes[phase.cause[number]]}"
        last = self.phases[-1]
        return last.causes[last.cause[number]]


@dataclasses.dataclass(frozen=True, eq=False)
class Track:
    """One phase of one flight, evenly sampled (at every control step if they are few) and at the end."""

    phase: str
    time_s: np.ndarray  # [T] since the mission began
    channels: dict[str, np.ndarray]  # [T] each


@dataclasses.dataclass(frozen=True, eq=False)
class ChosenFlight:
    """A flight that is kept in full."""

    number: int
    role: str  # nominal, median, worst or lost
    outcome: str
    tracks: tuple[Track, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Bands:
    """Quantiles over the flights of the first batch that are still flying, on an even grid since the mission began."""

    flights: int
    time_s: np.ndarray  # [G]
    count: np.ndarray  # [G] flights in the air
    channels: tuple[str, ...]
    p05: np.ndarray  # [G, K]; NaN where too few flights have the channel
    p50: np.ndarray
    p95: np.ndarray

    def of(self, channel: str) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Return (5 %, 50 %, 95 %) of a channel, each [G]; None if no phase has it."""
        if channel not in self.channels:
            return None
        at = self.channels.index(channel)
        return self.p05[:, at], self.p50[:, at], self.p95[:, at]


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingStarts:
    """The states from which a phase was trained, as its telemetry on entering."""

    source: str  # in words
    values: np.ndarray  # [M, C] of the phase's channels


@dataclasses.dataclass(frozen=True, eq=False)
class FlightRecords:
    """All records of a report; a plugin's `PhaseSpec.report` receives them."""

    mission: str
    digest: str
    seed: int
    headers: tuple[PhaseHeader, ...]  # by phase: plugin and version, who flew it, stored benchmark
    flights: Flights
    guide: Flights | None
    starts: dict[str, TrainingStarts]  # by phase; the first phase has none
    bands: Bands
    chosen: tuple[ChosenFlight, ...]
    provenance: Provenance
    interval_note: str = ""  # what to know about the interval of the success rate
    sensitivity: Sensitivity | None = None  # what losses and end states depend on, if it was asked
    guard: GuardComparison | None = None  # the same flights with and without the guard that flew, if one did

    def channels(self) -> tuple[str, ...]:
        """Return every telemetry channel of the mission, in order of appearance."""
        return tuple(dict.fromkeys(name for phase in self.flights.phases for name in phase.channels))

    def limit(self, channel: str) -> tuple[tuple[str, Limit], ...]:
        """Return (phase, limit) for each limit on a channel."""
        return tuple((p.name, limit) for p in self.flights.phases for limit in p.limits if limit.channel == channel)


@dataclasses.dataclass(frozen=True)
class Section:
    """A section that a plugin adds to the page; the plugin escapes what it did not write itself (`mission.escape`).

    `html` is a fragment, `style` is CSS, `scripts` are classic JavaScript, each run once after the page's own.
    `notices` are the licences of libraries in the scripts, shown at the foot of the page.
    """

    title: str
    html: str
    style: str = ""
    scripts: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()


def phase_ends(flights: Flights) -> list[tuple[str, np.ndarray]]:
    """Return, for each phase, its name and the seconds since the mission began at which its successes ended."""
    clock = np.zeros(flights.count)
    ends = []
    for phase in flights.phases:
        clock = clock + phase.duration_s
        ends.append((phase.name, clock[phase.success & phase.entered]))
    return ends
