"""The gate of a phase: its settings in the mission file, and the verdict on a set of flights.

To gate on another metric, add a field to `Gate` or `ChannelGate` and test it in `gate_verdict`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from mission.statistics import Z95, Distribution, distribution, wilson
from mission.strict import Fraction01, StrictModel


class ChannelGate(StrictModel):
    """Bounds on a telemetry channel at the end of the successful gate flights.

    A field is named `<statistic>_<side>`: a statistic of `mission.statistics.Distribution`, then `min` or `max`.
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

    success_low: Fraction01 = Field(0.9, description="Lower bound of the 95 % Wilson interval of the success rate.")
    flights: int = Field(1024, ge=1, le=1_000_000, description="Number of gate flights.")
    channels: dict[str, ChannelGate] = Field(default_factory=dict, description="Bounds by telemetry channel.")
    stop: bool = Field(True, description="Stop training when the gate is passed; false: use the whole budget.")

    @model_validator(mode="after")
    def _can_be_passed(self) -> Gate:
        best = self.flights / (self.flights + Z95**2)
        if self.success_low > best:
            raise ValueError(
                f"success_low of at most {math.floor(1e4 * best) / 1e4}: "
                f"{self.flights} successes in {self.flights} flights show no more"
            )
        return self


class GateVerdict(StrictModel):
    """The result of a set of flights against a gate; `settings` are those of the gate.

    It is stored inside other records and has the same format number as they have (`mission.storage.records`).
    """

    format: Literal[2] = 2
    passed: bool
    flights: int
    count: int
    low: float
    high: float
    failures: tuple[str, ...] = Field((), strict=False)
    channels: dict[str, Distribution] = Field(default_factory=dict)
    settings: Gate | None = None


def gate_verdict(gate: Gate | None, success: np.ndarray, channels: Mapping[str, np.ndarray]) -> GateVerdict:
    """Test flights against a gate.

    Args:
      gate: its settings; None always passes.
      success: bool [N].
      channels: telemetry at the end, [N] each; tested over the successful flights.
    """
    count, total = int(success.sum()), len(success)
    low, high = wilson(count, total)
    failures: list[str] = []
    tested: dict[str, Distribution] = {}
    if gate is not None:
        if low < gate.success_low:
            failures.append(f"success {count} of {total}, lower bound {low:.4f} below {gate.success_low}")
        for name, bounds in gate.channels.items():
            tested[name] = distribution(channels[name][success])
            failures += _channel_failures(name, bounds, tested[name])
    return GateVerdict(
        passed=not failures,
        flights=total,
        count=count,
        low=low,
        high=high,
        failures=tuple(failures),
        channels=tested,
        settings=gate,
    )


def _channel_failures(name: str, bounds: ChannelGate, found: Distribution) -> list[str]:
    failures = []
    for bound in type(bounds).model_fields:
        limit, (statistic, side) = getattr(bounds, bound), bound.split("_")
        value = getattr(found, statistic)
        if limit is not None and (value is None or (value < limit if side == "min" else value > limit)):
            failures.append(f"{name}: {statistic} {value if value is None else round(value, 4)}, {side} {limit}")
    return failures
