"""Intervals, distributions and gate verdicts; numpy only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from mission.missionfile.models import Z95, Gate


def wilson(count: int, total: int) -> tuple[float, float]:
    """95 % Wilson score interval of a proportion (Wilson 1927); (0, 1) for no trials."""
    if total == 0:
        return 0.0, 1.0
    p, z2 = count / total, Z95**2
    centre = (p + z2 / (2 * total)) / (1 + z2 / total)
    half = Z95 / (1 + z2 / total) * math.sqrt(p * (1 - p) / total + z2 / (4 * total**2))
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
    p05, p50, p95 = np.percentile(values, (5, 50, 95)).tolist()
    seen = {"mean": float(values.mean()), "sd": None, "p05": p05, "p50": p50, "p95": p95}
    seen |= {"min": float(values.min()), "max": float(values.max())}
    if values.size > 1:
        seen["sd"] = float(values.std(ddof=1))
    return {name: seen[name] for name in names}


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


def two_sample(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Kolmogorov-Smirnov distance of two samples and its asymptotic p-value; (0, 1) where one is empty."""
    from scipy.stats import ks_2samp

    first, second = (np.asarray(side)[np.isfinite(side)] for side in (first, second))
    if min(len(first), len(second)) == 0:
        return 0.0, 1.0
    result: Any = ks_2samp(first, second, method="asymp")
    return float(result.statistic), float(result.pvalue)


def paired_difference(first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
    """Success of the same N flights by two policies (bool [N] each): second minus first.

    McNemar's exact test on the flights that only one of them won, and the 95 % interval of Agresti and
    Min (2005, doi:10.1002/sim.1781), which adds half a flight to each of the four cells.

    Returns:
      `{flights, both, only_first, only_second, neither, difference, low, high, p_value}`.
    """
    from scipy.stats import binomtest

    both, neither = int((first & second).sum()), int((~first & ~second).sum())
    lost, won = int((first & ~second).sum()), int((~first & second).sum())
    total, b, c = len(first) + 2.0, lost + 0.5, won + 0.5
    centre = (c - b) / total
    half = Z95 * math.sqrt(b + c - (c - b) ** 2 / total) / total
    return {
        "flights": len(first),
        "both": both,
        "only_first": lost,
        "only_second": won,
        "neither": neither,
        "difference": (won - lost) / len(first) if len(first) else None,
        "low": max(-1.0, centre - half),
        "high": min(1.0, centre + half),
        "p_value": float(binomtest(won, won + lost, 0.5).pvalue) if won + lost else 1.0,
    }
