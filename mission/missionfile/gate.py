"""The gate of a phase: its settings in the mission file, and the verdict on a set of flights.

To gate on another metric, add a field to `Gate` or `ChannelGate` and test it in `gate_verdict`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from mission.errors import printable
from mission.missionfile.statistics import Z95, Distribution, distribution, wilson
from mission.strict import Count, Fraction01, Natural, StrictModel

NEW_STARTS = 1024  # gate flights of a phase that starts from no bank


class ChannelGate(StrictModel):
    """Bounds on a telemetry channel at the end of the successful gate flights.

    A field is named `<statistic>_<side>`: a statistic of `mission.missionfile.statistics.Distribution`, then `min` or `max`.
    """

    mean_min: float | None = Field(None, description="Lower bound of the mean.")
    mean_max: float | None = Field(None, description="Upper bound of the mean.")
    p05_min: float | None = Field(None, description="Lower bound of the 5th percentile.")
    p95_max: float | None = Field(None, description="Upper bound of the 95th percentile.")

    @model_validator(mode="after")
    def _can_be_met(self) -> ChannelGate:
        for low, high in (("mean_min", "mean_max"), ("p05_min", "p95_max")):
            least, most = getattr(self, low), getattr(self, high)
            if least is not None and most is not None and least > most:
                raise ValueError(f"{low} of at most {high}: no flights have both {least} and {most}")
        return self


class Gate(StrictModel):
    """The conditions that a phase must meet on held-out starts before the next phase is trained."""

    success_low: Fraction01 | None = Field(
        0.9,
        description="Smallest accepted lower bound of the 95 % Wilson interval of the success rate; later looks "
        "at the gate widen the interval. null: success is not tested, which is the default with "
        "return_mean_min.",
    )
    return_mean_min: float | None = Field(None, description="Smallest accepted mean return of all gate flights.")
    flights: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="Number of gate flights; null: one from each held-out row of the bank, or 1,024 from new starts if "
        "there is no bank.",
    )
    channels: dict[str, ChannelGate] = Field(
        default_factory=dict, description="Bounds on telemetry channels, by channel."
    )
    stop: bool = Field(True, description="Stop training when the gate is passed; false: use the whole budget.")

    @model_validator(mode="before")
    @classmethod
    def _success_only_if_set(cls, data: Any) -> Any:
        """Disable the default of success_low if a phase is judged by its return."""
        if isinstance(data, dict) and data.get("return_mean_min") is not None:
            return {"success_low": None} | data
        return data

    @model_validator(mode="after")
    def _can_be_passed(self) -> Gate:
        if self.flights is not None and (reason := self.out_of_reach(self.flights)):
            raise ValueError(reason)
        return self

    def number(self, rows: int | None) -> int:
        """Return the number of gate flights for so many held-out rows; None: the phase has no bank to start from."""
        if self.flights is not None:
            return self.flights
        return NEW_STARTS if rows is None else rows

    def out_of_reach(self, starts: int, look: int = 1) -> str:
        """Return why this number of different starts can never reach success_low at a look; empty if it can."""
        best = success_interval(starts, starts, looks=look)[0]
        if self.success_low is None or self.success_low <= best:
            return ""
        most, at = math.floor(1e4 * best) / 1e4, f" at look {look}" if look > 1 else ""
        return f"success_low of at most {most}: {starts} successes in {starts} flights show no more{at}"

    def __str__(self) -> str:
        bounds = [f"success >= {self.success_low}"] if self.success_low is not None else []
        bounds += [f"mean return >= {self.return_mean_min:g}"] if self.return_mean_min is not None else []
        bounds += [f"bounds on {', '.join(self.channels)}"] if self.channels else []
        flights = "one flight per held-out start" if self.flights is None else f"{self.flights} flights"
        return f"{', '.join(bounds) or 'no bound'} in {flights}"


class GateVerdict(StrictModel):
    """The result of a set of flights against a gate; `settings` are those of the gate.

    `starts` is the number of different starts of the flights, None if each flight has its own; `looks` is the number
    of tests of the phase against its gate, including this one (None: not recorded). The interval `low` to `high`
    accounts for both (`success_interval`). Verdicts of older versions hold the plain 95 % interval of all flights.

    It is stored inside other records and has the same format number as they have (`mission.storage.records`).
    """

    format: Literal[4] = 4
    passed: bool
    flights: Count
    count: Natural
    low: Fraction01
    high: Fraction01
    returns: Distribution | None = None
    failures: tuple[str, ...] = Field((), strict=False)
    channels: dict[str, Distribution] = Field(default_factory=dict)
    settings: Gate | None = None
    starts: Count | None = None
    looks: Natural | None = None

    def counted(self) -> str:
        """Return the numbers behind the interval."""
        return counted(self.count, self.flights, self.starts, self.looks)


def counted(count: int | None, flights: int | None, starts: int | None, looks: int | None) -> str:
    """Return the numbers behind an interval: successes, flights, different starts, looks at the gate (`GateVerdict`)."""
    repeated = f" from {starts} different starts" if starts is not None else ""
    again = f", look {looks} at the gate" if looks and looks > 1 else ""
    return f"{count} of {flights} flights{repeated}{again}"


def success_interval(
    count: int, total: int, starts: int | None = None, looks: int | None = None
) -> tuple[float, float]:
    """Return the Wilson interval of a success rate that is tested again and again until it is high enough.

    Flights that repeat a start add nothing: the interval is that of `starts` flights with the same rate. Each look may be
    wrong with a small probability, and those of all looks together are bounded (Bonferroni): the lower bound of the first
    look exceeds the true rate with a probability of 2.5 %, as in the 95 % interval, and that of look k > 1 with
    2.5 % / (k (k - 1)), which add up to 2.5 %. So a phase whose true rate is below the bound of its gate ever passes with a
    probability of at most 5 %, however often it is tested.

    Args:
      count, total: successes and flights.
      starts, looks: as in `GateVerdict`; None counts as one start per flight, and as the first look.
    """
    look, single = looks or 1, min(total, starts or total)
    error = 0.025 if look == 1 else 0.025 / (look * (look - 1))
    return wilson(count * single / total if total else 0, single, Z95 if look == 1 else -NormalDist().inv_cdf(error))


def gate_verdict(
    gate: Gate | None,
    success: np.ndarray,
    channels: Mapping[str, np.ndarray],
    returns: np.ndarray | None = None,
    starts: int | None = None,
    looks: int | None = None,
) -> GateVerdict:
    """Test flights against a gate.

    Args:
      gate: its settings; None always passes.
      success: bool [N].
      channels: telemetry at the end, [N] each; tested over the successful flights.
      returns: sums of rewards [N]; tested over all flights.
      starts, looks: as in `GateVerdict`.
    """
    count, total = int(success.sum()), len(success)
    low, high = success_interval(count, total, starts, looks)
    failures: list[str] = []
    tested: dict[str, Distribution] = {}
    if gate is not None:
        if gate.success_low is not None and low < gate.success_low:
            shown = counted(count, total, starts, looks)
            failures.append(f"success {shown}: lower bound {low:.4f}, min {gate.success_low}")
            if reason := gate.out_of_reach(min(total, starts or total), looks or 1):
                failures.append(f"this look cannot be passed; it takes a {reason}")
        if gate.return_mean_min is not None:
            values = np.full(total, np.nan) if returns is None else returns
            failures += _failures("return", {"mean_min": gate.return_mean_min}, values)
        for name, bounds in gate.channels.items():
            tested[name] = distribution(channels[name][success])
            failures += _failures(name, bounds.model_dump(), channels[name][success])
    return GateVerdict(
        passed=not failures,
        flights=total,
        count=count,
        low=low,
        high=high,
        returns=None if returns is None else distribution(returns),
        failures=tuple(failures),
        channels=tested,
        settings=gate,
        starts=starts,
        looks=looks,
    )


def _failures(name: str, bounds: Mapping[str, float | None], values: np.ndarray) -> list[str]:
    """Return the bounds that values [M] fail; a bound passes only if there are values and all of them are finite."""
    found, broken = distribution(values), int((~np.isfinite(values)).sum())
    failures = []
    for bound, limit in bounds.items():
        statistic, side = bound.split("_")
        value = getattr(found, statistic)
        if limit is not None and (broken or value is None or (value < limit if side == "min" else value > limit)):
            shown = f"{printable(name)}: {statistic} {value if value is None else round(value, 4)}, {side} {limit}"
            failures.append(shown + (f"; {broken} of {len(values)} values are not finite" if broken else ""))
    return failures
