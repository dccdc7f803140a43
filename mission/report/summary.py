"""Plain records of training and flying, and their JSON."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np

from mission.flight.batches import loss_causes
from mission.flight.chain import Chain
from mission.flight.fly import PhaseFlight
from mission.phase import Limit, Phase
from mission.statistics import distribution, rate


@dataclasses.dataclass(frozen=True)
class PhaseRecord:
    """One phase of a flown mission; fields as in `mission fly --json`."""

    name: str
    plugin: str
    entered: int
    succeeded: int
    rate: float | None
    low: float
    high: float
    causes: dict[str, int]
    duration_s: dict[str, float | None]
    end: dict[str, dict[str, float | None]]
    limits: dict[str, dict[str, float | int | None]]


@dataclasses.dataclass(frozen=True)
class MissionReport:
    """N flights through a whole chain."""

    mission: str
    digest: str
    flights: int
    seed: int
    policy: str
    success: dict[str, Any]
    phases: tuple[PhaseRecord, ...]

    def to_json(self) -> str:
        """JSON without NaN, the same for the same policies, flights and seed."""
        return json.dumps(dataclasses.asdict(self), indent=2, allow_nan=False)


@dataclasses.dataclass(frozen=True)
class TrainingRecord:
    """One phase of a training run."""

    name: str
    status: str  # "trained", "already trained", "flown by its guide"
    env_steps: int
    success: float | None
    gate: dict[str, Any] | None
    seconds: float


def mission_report(chain: Chain, results: list[PhaseFlight]) -> MissionReport:
    """Statistics of N flights through a whole chain, one record of N flights a phase."""
    flights = len(results[0].success)
    entered = np.ones(flights, bool)
    records: list[PhaseRecord] = []
    for phase, result in zip(chain.phases, results, strict=True):
        records.append(phase_record(phase, result, entered))
        entered = entered & result.success
    whole = rate(int(entered.sum()), flights)
    return MissionReport(chain.mission.name, chain.digest, flights, chain.seed, chain.policy, whole, tuple(records))


def phase_record(phase: Phase, result: PhaseFlight, entered: np.ndarray) -> PhaseRecord:
    """Statistics of one phase over the flights that entered it (bool [N])."""
    success = result.success & entered
    proportion = rate(int(success.sum()), int(entered.sum()))
    seconds = durations(phase, result)
    return PhaseRecord(
        name=phase.name,
        plugin=phase.entry.plugin,
        entered=int(entered.sum()),
        succeeded=proportion.pop("count"),
        **proportion,
        causes=loss_causes(phase, result, entered),
        duration_s=distribution(seconds[success], extremes=False),
        end={name: distribution(values[success]) for name, values in result.telemetry.items()},
        limits={limit.channel: _margin(limit, result, entered) for limit in phase.limits},
    )


def durations(phase: Phase, result: PhaseFlight) -> np.ndarray:
    """Seconds [N] that each flight spent in a phase; exact where it reports `phase_time_s`."""
    return result.telemetry.get("phase_time_s", result.steps * phase.environment.control_period_s)


def _margin(limit: Limit, result: PhaseFlight, entered: np.ndarray) -> dict[str, float | int | None]:
    """The value that comes closest to its limit, or passes it furthest, and how many flights pass it."""
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
    return {"minimum": minimum, "maximum": maximum, "worst": worst, "violated": violated}
