"""Intervals, distributions and paired tests; they need numpy and scipy only."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mission.strict import StrictModel

Z95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution


class Rate(StrictModel):
    """A proportion with its 95 % Wilson interval; `rate` is None for no trials."""

    count: int
    rate: float | None
    low: float
    high: float


class Distribution(StrictModel):
    """Statistics of a sample; None where a value is undefined."""

    mean: float | None = None
    sd: float | None = None
    p05: float | None = None
    p50: float | None = None
    p95: float | None = None
    min: float | None = None
    max: float | None = None


class PairedDifference(StrictModel):
    """The paired success of two policies on the same flights; the difference is the second minus the first."""

    flights: int
    both: int
    only_first: int
    only_second: int
    neither: int
    difference: float | None
    low: float
    high: float
    p_value: float


class PairedMean(StrictModel):
    """The second minus the first of a quantity over the flights that have it in both: mean, 95 % interval and standard
    deviation."""

    flights: int
    mean: float | None
    low: float | None
    high: float | None
    sd: float | None


def wilson(count: float, total: int, z: float = Z95) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion (Wilson 1927), at 95 % unless z says otherwise; (0, 1) for no
    trials."""
    if total == 0:
        return 0.0, 1.0
    p, z2 = count / total, z**2
    centre = (p + z2 / (2 * total)) / (1 + z2 / total)
    half = z / (1 + z2 / total) * math.sqrt(p * (1 - p) / total + z2 / (4 * total**2))
    low = 0.0 if count == 0 else max(0.0, centre - half)
    return low, (1.0 if count == total else min(1.0, centre + half))


def rate(count: int, total: int) -> Rate:
    """Return `count` of `total` as a proportion with its interval."""
    low, high = wilson(count, total)
    return Rate(count=int(count), rate=count / total if total else None, low=low, high=high)


def distribution(values: np.ndarray) -> Distribution:
    """Summarise the finite values of a sample."""
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    if values.size == 0:
        return Distribution()
    p05, p50, p95 = np.percentile(values, (5, 50, 95)).tolist()
    return Distribution(
        mean=float(values.mean()),
        sd=float(values.std(ddof=1)) if values.size > 1 else None,
        p05=p05,
        p50=p50,
        p95=p95,
        min=float(values.min()),
        max=float(values.max()),
    )


def median_interval(values: np.ndarray) -> tuple[float, float] | None:
    """Return the 95 % bootstrap interval of the median of a sample; None for fewer than two values.

    It is the percentile interval of Efron (1979, doi:10.1214/aos/1176344552) with a fixed seed. With few values it is
    coarse: it cannot be wider than the sample.
    """
    from scipy.stats import bootstrap

    values = np.asarray(values, np.float64)
    if len(values) < 2:
        return None
    result: Any = bootstrap(
        (values,), np.median, n_resamples=9999, method="percentile", rng=np.random.default_rng(0), vectorized=True
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def two_sample(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Return the Kolmogorov-Smirnov distance of two samples and its asymptotic p-value; (0, 1) if one is empty."""
    from scipy.stats import ks_2samp

    first, second = (np.asarray(side)[np.isfinite(side)] for side in (first, second))
    if min(len(first), len(second)) == 0:
        return 0.0, 1.0
    result: Any = ks_2samp(first, second, method="asymp")
    return float(result.statistic), float(result.pvalue)


def paired_difference(first: np.ndarray, second: np.ndarray) -> PairedDifference:
    """Compare the success of the same N flights by two policies (bool [N] each).

    The p-value is McNemar's exact test on the flights in which only one of them succeeded; the 95 % interval is that of
    Agresti and Min (2005, doi:10.1002/sim.1781), which adds half a flight to each of the four cells.
    """
    from scipy.stats import binomtest

    both, neither = int((first & second).sum()), int((~first & ~second).sum())
    lost, won = int((first & ~second).sum()), int((~first & second).sum())
    total, b, c = len(first) + 2.0, lost + 0.5, won + 0.5
    centre = (c - b) / total
    half = Z95 * math.sqrt(b + c - (c - b) ** 2 / total) / total
    return PairedDifference(
        flights=len(first),
        both=both,
        only_first=lost,
        only_second=won,
        neither=neither,
        difference=(won - lost) / len(first) if len(first) else None,
        low=max(-1.0, centre - half),
        high=min(1.0, centre + half),
        p_value=float(binomtest(won, won + lost, 0.5).pvalue) if won + lost else 1.0,
    )


def paired_mean(first: np.ndarray, second: np.ndarray) -> PairedMean:
    """Return the mean of the second minus the first, [M] each, with its interval."""
    difference = np.asarray(second, np.float64) - first
    difference = difference[np.isfinite(difference)]
    spread = distribution(difference)
    low = high = None
    if spread.sd is not None and spread.mean is not None:
        half = Z95 * spread.sd / math.sqrt(len(difference))
        low, high = spread.mean - half, spread.mean + half
    return PairedMean(flights=len(difference), mean=spread.mean, low=low, high=high, sd=spread.sd)
