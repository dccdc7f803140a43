"""Intervals, distributions and gate verdicts; numpy only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from mission.config import Gate

_Z95 = 1.959963984540054


def wilson(count: int, total: int) -> tuple[float, float]:
    """95 % Wilson score interval of a proportion (Wilson 1927); (0, 1) for no trials."""
    if total == 0:
        return 0.0, 1.0
    p, z2 = count / total, _Z95**2
    centre = (p + z2 / (2 * total)) / (1 + z2 / total)
    half = _Z95 / (1 + z2 / total) * math.sqrt(p * (1 - p) / total + z2 / (4 * total**2))
    low = 0.0 if count == 0 else max(0.0, centre - half)
    return low, (1.0 if count == total else min(1.0, centre + half))


def rate(count: int, total: int) -> dict[str, Any]:
    """`{count, rate, low, high}`; the rate of nothing is None."""
    low, high = wilson(count, total)
    return {"count": int(count), "rate": count / total if total else None, "low": low, "high": high}


def distribution(values: np.ndarray, extremes: bool = True) -> dict[str, float | None]:
    """mean, sd, p05, p50, p95, min, max of a sample; None where undefined."""
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    names = ("mean", "sd", "p05", "p50", "p95", "min", "max") if extremes else ("mean", "p05", "p50", "p95")
    if values.size == 0:
        return dict.fromkeys(names)
    p05, p50, p95 = np.percentile(values, (5, 50, 95))
    everything: dict[str, Any] = {
        "mean": values.mean(),
        "sd": values.std(ddof=1) if values.size > 1 else None,
        "p05": p05,
        "p50": p50,
        "p95": p95,
        "min": values.min(),
        "max": values.max(),
    }
    return {name: None if everything[name] is None else float(everything[name]) for name in names}


def judge_gate(gate: Gate | None, success: np.ndarray, channels: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Whether flights pass a gate, and what fails.

    Args:
      gate: None passes always.
      success: bool [N].
      channels: telemetry at the end, [N] each; judged over the successes.

    Returns:
      `{passed, flights, count, low, high, failures, channels, asked}`; `asked` is the gate itself.
    """
    count, total = int(success.sum()), len(success)
    low, high = wilson(count, total)
    failures: list[str] = []
    seen: dict[str, Any] = {}
    if gate is not None:
        if low < gate.success_low:
            failures.append(f"success {count} of {total}, lower bound {low:.4f} below {gate.success_low}")
        for name, bounds in gate.channels.items():
            seen[name] = distribution(channels[name][success])
            for bound, limit in bounds.model_dump().items():
                statistic, side = bound.split("_")
                value = seen[name][statistic]
                if limit is not None and (value is None or (value < limit if side == "min" else value > limit)):
                    failures.append(
                        f"{name}: {statistic} {value if value is None else round(value, 4)}, {side} {limit}"
                    )
    return {
        "passed": not failures,
        "flights": total,
        "count": count,
        "low": low,
        "high": high,
        "failures": failures,
        "channels": seen,
        "asked": gate.model_dump() if gate is not None else None,
    }
