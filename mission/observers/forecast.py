"""Forecast the remaining time of a training run: measured seconds per unit of work times the remaining units.

Every event ends a span of time, which is charged to the kind of work that the event reports: a round of the imitation, a
part of the fill, the warm-up, a chunk, an evaluation, a gate, the end of a phase. The first span of a kind in a phase
also waits for a compiled program or a file; its additional time is a wait, which every phase has once. A kind without
a measurement in a phase costs as much as in the other phases, scaled by its size: updates and vehicle
steps of a round, flights of an evaluation; chunks by the speeds of an earlier training of both phases, if there is one. A
gate may end a phase before its budget is spent; if an earlier training says when it did, that many vehicle steps are expected.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from mission.missionfile.hooks import Event

_MORE = 1.1  # of the vehicle steps so far, when a phase needs more than the earlier training
_RECENT = 20  # spans of which a cost is the mean
# The kind of work that an event ends
_KINDS = {
    "imitation": "round",
    "fill": "fill",
    "warm_up": "warm_up",
    "chunk": "chunk",
    "evaluation": "evaluation",
    "gate": "gate",
    "phase_end": "bank",
}
_FLIGHTS = ("evaluation", "gate", "bank")  # kinds whose size is a number of flights
_BATCH = 1000  # flights of the baseline between two events
# Waits that no phase has shown yet, as shares of the wait for the first programs of the first phase. They only bridge the time
# until one is measured; they are those of the recorded runs in the tests.
_FIRST_WAITS = {"start": 0.2, "evaluation": 0.3, "gate": 0.1, "checkpoint": 0.2, "bank": 0.3, "baseline": 0.5}
_LEAST = 0.1  # of a first unit, when the guess of its wait is subtracted
_TRAINS = ("round", "fill", "chunk")  # of which the first one waits for the training programs


@dataclasses.dataclass(frozen=True)
class PhaseWork:
    """The counted work of one phase, or of one pass of a sweep over it; `mission_start` sends it as `data["work"]`.

    Attributes:
      name: of its events.
      bank_flights: flights at its end.
      budget, expected: vehicle steps, at most and as an earlier training took them; 0 if nothing is trained.
      may_stop: a passed gate ends the phase before its budget is spent.
      rounds, round_steps, round_updates: of the imitation.
      fill_steps, warm_up_updates: before the first update.
      chunk_steps, chunk_updates: of one chunk.
      updates_per_s: in the chunks of an earlier training, on whatever machine.
      every: chunks between two evaluations.
      evaluation_flights, gate_flights: of one evaluation, and of one look at the gate (0: there is none).
    """

    name: str
    bank_flights: int
    budget: int = 0
    expected: int = 0
    may_stop: bool = False
    rounds: int = 0
    round_steps: int = 0
    round_updates: int = 0
    fill_steps: int = 0
    warm_up_updates: int = 0
    chunk_steps: int = 1
    chunk_updates: int = 0
    updates_per_s: float | None = None
    every: int = 1
    evaluation_flights: int = 0
    gate_flights: int = 0

    def size(self, kind: str, relative: bool = False) -> float:
        """Return the size of one unit of a kind, by which its cost is carried over to other kinds and phases.

        `relative`: chunks by the speed of an earlier training, which all phases must have.
        """
        if kind == "chunk" and relative:
            # Speeds of another run hold other load of its machine too: trusted by half, on a logarithmic scale.
            return self.chunk_updates / math.sqrt(self.updates_per_s or 1.0)
        sizes = {
            "round": self.round_updates + self.round_steps / 64,  # a step of 64 vehicles costs about one update
            "fill": min(self.fill_steps, self.chunk_steps) / 64,
            "warm_up": self.warm_up_updates,
            "chunk": self.chunk_updates,
            "evaluation": self.evaluation_flights,
            "gate": self.gate_flights,
            "bank": self.bank_flights,
        }
        return float(sizes[kind])


class Remaining(NamedTuple):
    """The remaining time of a run: seconds, None before the first measurement; `at_most` if a gate may end it sooner."""

    seconds: float | None
    at_most: bool
    share: float | None  # of the work that is done, by time


@dataclasses.dataclass
class _Spans:
    """The spans of one kind in one phase, in seconds."""

    all: list[float] = dataclasses.field(default_factory=list)

    @property
    def later(self) -> float | None:
        """The median of the newest spans without the first; None if there is no second one."""
        recent = self.all[1:][-_RECENT:]
        return statistics.median(recent) if recent else None


class Forecast:
    """The forecast of one run; `note` takes its events in order, with the time of each."""

    def __init__(self, work: Sequence[Mapping[str, Any]], baseline: int, now: float) -> None:
        """Begin with the counted work.

        Args:
          work: of each phase in order, as `mission_start` has it.
          baseline: flights after the last phase.
          now: seconds.
        """
        self.work = [PhaseWork(**one) for one in work]
        self.began = self.last = now
        self.spans: dict[tuple[str, str], _Spans] = {}
        self.steps: dict[str, int] = {}
        self.started: set[str] = set()
        self.ended: set[str] = set()
        self.baseline, self.flown, self.joint = baseline, 0, (0, 0)

    def note(self, event: Event, now: float) -> None:
        """Charge the time since the last event to the kind of work that this one ends."""
        span, self.last = now - self.last, now
        if event.kind == "phase_start":
            self._add("start", event.phase, span)
            self.started.add(event.phase)
            self.steps[event.phase] = event.env_steps
        elif event.kind == "checkpoint":
            self._add("checkpoint", event.phase, span)
        elif event.kind == "baseline":
            done = event.data["done"]
            if done > self.flown:
                self._add("baseline", "", span * _BATCH / (done - self.flown))
            self.baseline, self.flown = event.data["flights"], done
        elif event.kind == "joint":
            done = event.data["update"]
            if done > self.joint[0]:
                self._add("joint", "", span / (done - self.joint[0]))
            self.joint = done, event.data["updates"]
        elif event.kind in _KINDS:
            self._add(_KINDS[event.kind], event.phase, span)
            if event.kind == "chunk":
                self.steps[event.phase] = event.env_steps
            if event.kind == "phase_end":
                self.ended.add(event.phase)

    def remaining(self, now: float) -> Remaining:
        """Return what is left at a time."""
        left = list(self._left())
        total = sum(self._phase(work) for work in left) + self._after()
        at_most = any(work.may_stop and work.expected >= work.budget for work in left)
        if not self._measured("chunk") and all(self._of("round", work.name).later is None for work in self.work):
            return Remaining(None, at_most, None)
        total = max(total - (now - self.last), 0.02 * total)
        spent = max(now - self.began, 1e-9)
        return Remaining(total, at_most, spent / (spent + total))

    def units(self, phase: str) -> tuple[int, int]:
        """Return the vehicle steps of a phase so far, and those that are expected of it."""
        work = next((one for one in self.work if one.name == phase), None)
        return self.steps.get(phase, 0), 0 if work is None else self._expected(work)

    def _add(self, kind: str, phase: str, seconds: float) -> None:
        self.spans.setdefault((phase, kind), _Spans()).all.append(seconds)

    def _of(self, kind: str, phase: str) -> _Spans:
        return self.spans.get((phase, kind)) or _Spans()

    def _left(self) -> Iterator[PhaseWork]:
        """Yield the phases that are not done. One that the run has passed over was done before."""
        names = [work.name for work in self.work]
        reached = max((names.index(name) for name in self.started if name in names), default=-1)
        for at, work in enumerate(self.work):
            if work.name not in self.ended and (at >= reached or work.name in self.started):
                yield work

    def _expected(self, work: PhaseWork) -> int:
        """Return the vehicle steps at which a phase is expected to end."""
        done = self.steps.get(work.name, 0)
        if work.expected < done < work.budget and work.may_stop:
            return min(work.budget, max(done + work.every * work.chunk_steps, int(_MORE * done)))
        return work.expected

    def _counts(self, work: PhaseWork) -> dict[str, int]:
        """Return how many units of each kind a phase still has."""
        done = self.steps.get(work.name, 0)
        seen = {kind: len(self._of(kind, work.name).all) for kind in _KINDS.values()}
        if not work.budget:
            return {"bank": 1}
        expected = self._expected(work)
        chunks = math.ceil(max(expected - done - (0 if done else work.fill_steps), 0) / work.chunk_steps)
        fills = 0 if done > 0 else max(0, math.ceil(work.fill_steps / work.chunk_steps) - seen["fill"])
        counts = {
            "round": 0 if done else work.rounds - seen["round"],
            "fill": fills,
            "warm_up": 0 if done or not work.warm_up_updates else 1 - seen["warm_up"],
            "chunk": chunks,
            "evaluation": math.ceil(chunks / work.every) + (1 if work.rounds and not done else 0),
            "gate": 1 if work.gate_flights else 0,
            "bank": 1,
        }
        if not chunks and seen["gate"]:
            counts["gate"] = 0
        return {kind: max(count, 0) for kind, count in counts.items()}

    def _phase(self, work: PhaseWork) -> float:
        """Return the seconds that a phase still takes: its units, and the waits that it has not had."""
        counts = {kind: count for kind, count in self._counts(work).items() if count}
        seconds = sum(count * self._unit(work, kind) for kind, count in counts.items())
        waits = [kind for kind in (*counts, "start", "checkpoint") if not self._of(kind, work.name).all]
        if work.name in self.started and any(self._of(kind, work.name).all for kind in _TRAINS):
            waits = [kind for kind in waits if kind not in _TRAINS]
        return seconds + sum(self._wait(kind) for kind in waits)

    def _measured(self, kind: str) -> list[PhaseWork]:
        """Return the phases that have shown a kind of work."""
        return [work for work in self.work if self._of(kind, work.name).all]

    def _unit(self, work: PhaseWork, kind: str) -> float:
        """Return the seconds of one unit of a kind in a phase, without waits: its own, or by size that of others."""
        own, scaled = self._seen(kind, work), self._scaled(work, kind)
        if own is None:
            return scaled or 0.0
        return own if self._of(kind, work.name).later is not None or scaled is None else min(own, scaled)

    def _seen(self, kind: str, work: PhaseWork) -> float | None:
        """Return the seconds of one unit that a phase has shown; if only once, without a guess of its wait."""
        spans = self._of(kind, work.name)
        if not spans.all or spans.later is not None:
            return spans.later
        first = spans.all[0]
        return max(first - _FIRST_WAITS.get(kind, 0.0) * self._first_wait(), _LEAST * first)

    def _scaled(self, work: PhaseWork, kind: str) -> float | None:
        """Return the seconds of a unit by the cost of others: of this phase if they are of the same sort, else of all."""
        if kind in _FLIGHTS:
            rate = self._flight(work)
            return None if rate is None else rate * work.size(kind)
        others = {one: cost for one in self.work if one is not work and (cost := self._seen(kind, one)) is not None}
        relative = all(one.updates_per_s for one in (work, *others))
        sizes = sum(one.size(kind, relative) for one in others)
        if sizes > 0.0:
            return work.size(kind, relative) * sum(others.values()) / sizes
        for name in ("chunk", "warm_up", "round"):
            cost = self._of(name, work.name).later
            if name != kind and cost is not None:
                return cost / work.size(name) * work.size(kind)
        return None

    def _flight(self, work: PhaseWork) -> float | None:
        """Return the seconds of one flight of a phase, or of the others: the least of its kinds, as others waited."""
        rates: dict[str, float] = {}
        for one in self.work:
            again = [kind for kind in _FLIGHTS if self._of(kind, one.name).later is not None]
            seen = [(self._seen(kind, one), one.size(kind)) for kind in again or _FLIGHTS]
            found = [cost / size for cost, size in seen if cost is not None and size]
            if found:
                rates[one.name] = min(found)
        return rates.get(work.name, sum(rates.values()) / len(rates) if rates else None)

    def _wait(self, kind: str) -> float:
        """Return how long a phase waits at its first unit of a kind: the mean of those that have, or a guess."""
        if kind in ("start", "checkpoint"):
            found = [self._of(kind, work.name).all[0] for work in self._measured(kind)]
            found = found[1:] if kind == "start" and len(found) > 1 else [] if kind == "start" else found
        else:
            found = [
                max(self._of(kind, work.name).all[0] - self._unit(work, kind), 0.0) for work in self._measured(kind)
            ]
        if found:
            return sum(found) / len(found)
        return _FIRST_WAITS.get(kind, 0.0) * self._first_wait()

    def _first_wait(self) -> float:
        """Return how long the first phase waited for its training programs."""
        found = [max((self._of(kind, work.name).all or [0.0])[0] for kind in _TRAINS) for work in self.work]
        return next((seconds for seconds in found if seconds), 0.0)

    def _after(self) -> float:
        """Return the seconds of joint training and of the baseline that are left."""
        joint = sum(self._of("joint", "").all[-_RECENT:]) / max(len(self._of("joint", "").all[-_RECENT:]), 1)
        seconds = joint * (self.joint[1] - self.joint[0])
        left, own = max(self.baseline - self.flown, 0), self._of("baseline", "")
        if not left:
            return seconds
        if own.later is not None:
            return seconds + own.later * left / _BATCH
        rates = sum(self._flight(work) or 0.0 for work in self.work)
        return seconds + rates * left + (0.0 if own.all else self._wait("baseline"))
