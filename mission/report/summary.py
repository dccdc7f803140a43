"""The summary of a flown mission: success, causes of failure, durations, end states and limits, phase by phase."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import jax
import numpy as np
from pydantic import Field, PrivateAttr

from mission.errors import InputError
from mission.flight.batches import BATCH, batches, concatenate, loss_causes
from mission.flight.fly import PhaseFlight
from mission.flight.guard.counts import GuardComparison
from mission.missionfile.models import Judge
from mission.missionfile.phases import Phase
from mission.missionfile.pilots import unguarded
from mission.missionfile.statistics import Distribution, Rate, distribution, rate
from mission.phase import Limit
from mission.report.sensitivity import Sensitivity, sensitivity
from mission.storage.markup import escape
from mission.storage.tables import Library, Table, html_table
from mission.strict import StrictModel

if TYPE_CHECKING:
    from mission.flight.chain import Chain  # a run-time import would load Orbax with `mission.FlightRecords`


class Margin(StrictModel):
    """A limit, the value closest to it or furthest beyond it, and the number of flights that violated it."""

    minimum: float | None
    maximum: float | None
    worst: float | None
    violated: int


class Described(Protocol):
    """A phase, or what a report says of one."""

    @property
    def name(self) -> str:
        """Return its label in the mission file."""
        ...

    @property
    def causes(self) -> tuple[str, ...]:
        """Return the causes of its ends; the first is the success."""
        ...

    @property
    def limits(self) -> tuple[Limit, ...]:
        """Return the bounds on its channels."""
        ...


class TakeOverCount(StrictModel):
    """The flights of a guarded phase that its guide took over, and those of them that succeeded in the phase."""

    flights: int
    succeeded: int


class PhaseSummary(StrictModel):
    """One phase of a flown mission; the fields are those of `mission fly --json`.

    `flown_by` is "agent", "imitator", "guide", "guarded", or the folder of a policy as it was given, with "guarded:"
    before it under guard. `returns` are the sums of rewards of the flights that entered; undefined if the phase has no
    reward.
    `outside` counts the flights that continued although the phase's own box would have failed them, by cause.
    `takeovers` is None
    without a guard.
    """

    name: str
    plugin: str
    flown_by: str
    entered: int
    succeeded: int
    rate: float | None
    low: float
    high: float
    causes: dict[str, int]
    outside: dict[str, int] = Field(default_factory=dict)
    takeovers: TakeOverCount | None = None
    duration_s: Distribution
    returns: Distribution
    end: dict[str, Distribution]
    limits: dict[str, Margin]


class _InMemory:
    """The flights of a summary in the process that flew them: no part of its value, and neither copied nor pickled."""

    def __init__(self, table: Callable[[], Table] | None = None) -> None:
        self.table = table

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _InMemory)

    def __hash__(self) -> int:
        return 0

    def __reduce__(self) -> tuple[type[_InMemory], tuple[()]]:
        return _InMemory, ()


_STATISTICS = ("mean", "p05", "p50", "p95")  # of a distribution, as columns


class MissionSummary(StrictModel):
    """N flights of a whole mission.

    `returns` are the sums over the phases that a flight entered. `until` is the half-width at which flying stops, and
    `looks` is the number of times that the interval was compared with it; both are None without --until. `sensitivity`
    is present with --sensitivity. With `judge: mission`, `by_boxes` counts the flights that the boxes of all phases
    pass. `guard` is the comparison from `mission guard` for the guard that flew: the same flights with and without it.
    """

    mission: str
    digest: str
    flights: int
    seed: int
    policy: str
    success: Rate
    returns: Distribution
    phases: tuple[PhaseSummary, ...]
    until: float | None = None
    looks: int | None = None
    sensitivity: Sensitivity | None = None
    judge: Judge = "box"
    by_boxes: Rate | None = None
    guard: GuardComparison | None = None

    _flown: _InMemory = PrivateAttr(default_factory=_InMemory)

    def interval_note(self) -> str:
        """Return a note on the interval of the success rate; empty if the interval is an ordinary one."""
        if self.until is None:
            return ""
        return (
            f"the interval is slightly too narrow for 95 %: --until {self.until:g} looked at it after each batch, "
            f"{self.looks} in all"
        )

    def to_json(self) -> str:
        """Return JSON without NaN, identical for the same policies, flights and seed."""
        return self.model_dump_json(indent=2)

    def to_frame(self, library: Library = "pandas") -> Any:
        """Return a frame with one row per phase (extra `data`).

        Its columns are `phase`, `plugin`, `flown_by`, `entered`, `succeeded`, `rate` with its interval `low` and `high`, the
        failures `lost/CAUSE`, and mean and percentiles of `duration_s/...`, `returns/...` and `end/CHANNEL/...`.

        Args:
          library: "pandas" or "polars".

        Raises:
          MachineError: the library is not installed.
        """
        rows = [_row(phase) for phase in self.phases]
        names = dict.fromkeys(name for row in rows for name in row)
        return Table({name: [row.get(name) for row in rows] for name in names}).to_frame(library)

    def flight_table(self) -> Table:
        """Return the flights, with the columns of `read_flights`; only in the process that flew them.

        Raises:
          InputError: the summary was read or copied, so it has no flights; `read_flights` reads the flights of a
            report.
        """
        if self._flown.table is None:
            raise InputError(
                "MissionSummary.flight_table",
                expected="a summary that fly_mission returned in this process",
                found="one without its flights",
                remedy='read them from a report: fly_mission(..., report="reports/NAME"), then read_flights("reports/NAME")',
            )
        return self._flown.table()

    def with_flights(self, table: Callable[[], Table]) -> MissionSummary:
        """Return this summary with its flights, which `table` gives on request."""
        self._flown = _InMemory(table)
        return self

    def _repr_html_(self) -> str:
        heads = (
            "phase",
            "flown by",
            "entered",
            "succeeded",
            "rate given alive",
            "95 % interval",
            "failed by",
            "mean return",
        )
        one = self.success
        title = f"{self.mission}: {self.flights:,} flights, seed {self.seed}"
        shares = " to ".join(f"{100 * value:.2f}" for value in (one.low, one.high))
        success = (
            f"success {one.count:,} of {self.flights:,}: {100 * (one.rate or 0.0):.2f} % (95 % interval {shares} %)"
        )
        note = f"<p>{escape(self.interval_note())}</p>" if self.until is not None else ""
        return html_table(heads, [_cells(phase) for phase in self.phases], title) + f"<p><b>{success}</b></p>{note}"


def _row(phase: PhaseSummary) -> dict[str, Any]:
    """Return a phase as a row of `MissionSummary.to_frame`."""
    named = ("plugin", "flown_by", "entered", "succeeded", "rate", "low", "high")
    row = {"phase": phase.name} | {name: getattr(phase, name) for name in named}
    row |= {f"lost/{cause}": count for cause, count in phase.causes.items()}
    spread = {"duration_s": phase.duration_s, "returns": phase.returns}
    spread |= {f"end/{channel}": one for channel, one in phase.end.items()}
    return row | {f"{name}/{key}": getattr(one, key) for name, one in spread.items() for key in _STATISTICS}


def _cells(phase: PhaseSummary) -> list[str]:
    """Return a phase as a row of the table that a notebook shows."""
    return [
        phase.name,
        phase.flown_by,
        f"{phase.entered:,}",
        f"{phase.succeeded:,}",
        "-" if phase.rate is None else f"{100 * phase.rate:.2f} %",
        f"{100 * phase.low:.2f} to {100 * phase.high:.2f} %",
        ", ".join(f"{cause} {count}" for cause, count in phase.causes.items() if count) or "-",
        "-" if phase.returns.mean is None else f"{phase.returns.mean:.4g}",
    ]


def mission_summary(
    chain: Chain, results: list[PhaseFlight], until: float | None = None, first: int = 0, sensitive: bool = False
) -> MissionSummary:
    """Summarise N flights through a whole chain, given one record of N flights per phase.

    Args:
      chain: the mission that was flown.
      results: one record of N flights per phase.
      until: the half-width at which the flights were to stop, if one was given.
      first: number of the first flight.
      sensitive: whether to find out what losses and end states depend on.
    """
    flights = len(results[0].success)
    entered, inside = np.ones(flights, bool), np.ones(flights, bool)
    phases: list[PhaseSummary] = []
    for phase, result in zip(chain.phases, results, strict=True):
        phases.append(phase_summary(phase, result, entered))
        entered = entered & result.success
        inside = inside & (result.cause == 0)
    judge = chain.mission.judge
    return MissionSummary(
        mission=chain.mission.name,
        digest=chain.digest,
        flights=flights,
        seed=chain.seed,
        policy=chain.policy,
        success=rate(int(entered.sum()), flights),
        returns=distribution(total_returns(chain.phases, results)),
        phases=tuple(phases),
        until=until,
        looks=None if until is None else math.ceil(flights / BATCH),
        judge=judge,
        by_boxes=rate(int((entered & inside).sum()), flights) if judge == "mission" else None,
        guard=chain.guard,
        sensitivity=_sensitivity(chain, results[-1], entered, first) if sensitive else None,
    )


def _sensitivity(chain: Chain, last: PhaseFlight, success: np.ndarray, first: int) -> Sensitivity:
    """Return what the success of the mission (bool [N]) and the end of its last phase depend on."""
    parts = [chain.starts(numbers) for numbers in batches(len(success), first)]
    return sensitivity(jax.tree.map(concatenate, *parts), success, last.telemetry)


def phase_summary(phase: Phase, result: PhaseFlight, entered: np.ndarray) -> PhaseSummary:
    """Summarise one phase over the flights that entered it (bool [N])."""
    seconds, returns = durations(phase, result), phase_returns(phase, result)
    return summarise(phase, phase.entry.plugin, phase.pilot, result, entered, seconds, returns)


def summarise(
    phase: Described,
    plugin: str,
    flown_by: str,
    result: PhaseFlight,
    entered: np.ndarray,
    seconds: np.ndarray,
    returns: np.ndarray,
) -> PhaseSummary:
    """Summarise one phase from its flights.

    Args:
      phase, plugin, flown_by: the phase, its plugin as the mission file names it, and its pilot.
      result: the flights.
      entered: bool [N], the flights that entered it.
      seconds, returns: [N], as `durations` and `phase_returns` give them.
    """
    success = result.success & entered
    proportion = rate(int(success.sum()), int(entered.sum()))
    return PhaseSummary(
        name=phase.name,
        plugin=plugin,
        flown_by=flown_by,
        entered=int(entered.sum()),
        succeeded=proportion.count,
        rate=proportion.rate,
        low=proportion.low,
        high=proportion.high,
        causes=loss_causes(phase.causes, result, entered),
        outside=_outside(phase.causes, result.cause[success]),
        takeovers=_takeovers(entered & (result.takeover >= 0), success) if unguarded(flown_by) != flown_by else None,
        duration_s=distribution(seconds[success]),
        returns=distribution(returns[entered]),
        end={name: distribution(values[success]) for name, values in result.telemetry.items()},
        limits={limit.channel: _margin(limit, result, entered) for limit in phase.limits},
    )


def phase_returns(phase: Phase, result: PhaseFlight) -> np.ndarray:
    """Return the sum of rewards [N] of each flight in a phase; NaN if the phase has no reward."""
    return result.returns if phase.reward is not None else np.full_like(result.returns, np.nan)


def total_returns(phases: Sequence[Phase], results: Sequence[PhaseFlight]) -> np.ndarray:
    """Return the sum of rewards [N] of each flight over the phases that it entered and that have a reward."""
    flights = len(results[0].success)
    entered, rewarded, total = np.ones(flights, bool), np.zeros(flights, bool), np.zeros(flights)
    for phase, result in zip(phases, results, strict=True):
        if phase.reward is not None:
            total[entered] += result.returns[entered]
            rewarded |= entered
        entered = entered & result.success
    return np.where(rewarded, total, np.nan)


def durations(phase: Phase, result: PhaseFlight) -> np.ndarray:
    """Return the seconds [N] that each flight spent in a phase; exact if the phase reports `phase_time_s`."""
    return timed(result, phase.environment.control_period_s)


def timed(result: PhaseFlight, control_period_s: float) -> np.ndarray:
    """Return the seconds [N] that each flight spent in a phase with that period, as `durations` does."""
    return result.telemetry.get("phase_time_s", result.steps * control_period_s)


def _takeovers(taken: np.ndarray, success: np.ndarray) -> TakeOverCount:
    """Count the flights with a take-over, and those of them that succeeded, bool [N] each."""
    return TakeOverCount(flights=int(taken.sum()), succeeded=int((taken & success).sum()))


def _outside(names: Sequence[str], causes: np.ndarray) -> dict[str, int]:
    """Return the number of flights that went on by cause, given the causes [M] of those that did not fail."""
    return {name: int((causes == at).sum()) for at, name in enumerate(names) if at > 0 and (causes == at).any()}


def _margin(limit: Limit, result: PhaseFlight, entered: np.ndarray) -> Margin:
    """Return the margin to a limit over the flights that entered (bool [N])."""
    minimum, maximum = limit.minimum, limit.maximum
    lowest, highest = (side[limit.channel][entered] for side in (result.lowest, result.highest))
    below = (minimum - lowest) if minimum is not None else np.full(lowest.shape, -np.inf)
    above = (highest - maximum) if maximum is not None else np.full(highest.shape, -np.inf)
    excess = np.maximum(below, above)
    finite = np.isfinite(lowest) & np.isfinite(highest)
    worst = None
    if finite.any():
        at = int(np.argmax(np.where(finite, excess, -np.inf)))
        worst = float(lowest[at] if below[at] >= above[at] else highest[at])
    violated = int(((excess > 0) | ~finite).sum())
    return Margin(minimum=minimum, maximum=maximum, worst=worst, violated=violated)
