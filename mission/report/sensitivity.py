"""The dependence of losses and end states on the numbers with which flights start, from flights already flown.

Shapes: N flights, D inputs, M bins.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from mission.machine.trees import is_float
from mission.missionfile.statistics import Z95
from mission.strict import StrictModel

LOST = "lost"  # the output that is 1 for a lost flight and 0 for any other
_SAME = 0.999  # a correlation beyond which two inputs are one
_RESAMPLES = 200
_FEWEST = 100  # flights for an index
_PER_BIN, _BINS = 50, (5, 100)  # flights in a bin, and the least and the largest number of bins
_PRIOR_SD = 1.0  # of a coefficient, per standard deviation of its input


class Odds(StrictModel):
    """The odds of a loss over those at the mean of an input, with a 95 % interval."""

    ratio: float
    low: float
    high: float


class LossInput(StrictModel):
    """One input: the odds of a loss where it is two standard deviations below its mean, and above."""

    name: str
    below: Odds
    above: Odds

    def clarity(self) -> float:
        """Return how far the nearer end of the clearest interval is from 1, as a logarithm; negative if it holds 1."""
        return max(max(math.log(one.low), -math.log(one.high)) for one in (self.below, self.above))


class FirstOrder(StrictModel):
    """The share of the variance of an output that one input alone explains (Sobol's first-order index), 95 % interval."""

    output: str
    name: str
    index: float
    low: float
    high: float


class Sensitivity(StrictModel):
    """The dependence of losses and end states on the inputs of flights.

    `same` names the inputs that are left out because they are correlated with another one. `losses` has the clearest
    input first;
    it is empty if no flight was lost, or all were. `indices` holds those whose interval does not reach 0, by output, the
    largest first; the outputs are `lost` and the telemetry at the end of the mission's successes.
    """

    flights: int
    lost: int
    inputs: tuple[str, ...]
    same: dict[str, str]
    losses: tuple[LossInput, ...]
    indices: tuple[FirstOrder, ...]


def sensitivity(starts: Any, success: np.ndarray, end: dict[str, np.ndarray]) -> Sensitivity:
    """Return what losses and end states depend on.

    Args:
      starts: leaves [N, ...], the hand-overs that the flights of the first phase entered with.
      success: bool [N], of the mission.
      end: channel -> [N] at the end of the last phase; read where `success`.
    """
    names, table, same = inputs_of(starts)
    indices = [*first_order(names, table, LOST, ~success)] if 0 < success.sum() < len(success) else []
    for channel, values in end.items():
        known = success & np.isfinite(values)
        indices += first_order(names, table[known], channel, np.asarray(values[known], np.float64))
    return Sensitivity(
        flights=len(success),
        lost=int((~success).sum()),
        inputs=tuple(names),
        same=same,
        losses=loss_odds(names, table, ~success),
        indices=tuple(indices),
    )


def inputs_of(starts: Any) -> tuple[list[str], np.ndarray, dict[str, str]]:
    """Return the numbers that differ between flights: names [D], values [N, D], and left-out name -> name that it equals."""
    names: list[str] = []
    columns: list[np.ndarray] = []
    same: dict[str, str] = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(starts)[0]:
        if not is_float(leaf):
            continue
        flat = np.asarray(leaf, np.float64).reshape(len(leaf), -1)
        label = jax.tree_util.keystr(path).lstrip(".") or "start"
        for at, column in enumerate(flat.T):
            spread = column.std()
            if not np.isfinite(spread) or spread <= 1e-6 * np.abs(column).max():
                continue
            name, column = (f"{label}[{at}]" if flat.shape[1] > 1 else label), (column - column.mean()) / spread
            known = next(
                (n for n, c in zip(names, columns, strict=True) if abs(c @ column) > _SAME * len(column)), None
            )
            if known is not None:
                same[name] = known
                continue
            names.append(name)
            columns.append(column)
    return names, np.stack(columns, axis=1) if columns else np.zeros((len(jax.tree.leaves(starts)[0]), 0)), same


def loss_odds(names: Sequence[str], table: np.ndarray, lost: np.ndarray) -> tuple[LossInput, ...]:
    """Return how the odds of a loss depend on each input, the clearest first.

    Logistic regression on each standardised input and its square. A normal prior with standard deviation 1 on every
    coefficient keeps the estimate finite where few flights are lost (Gelman et al. 2008, doi:10.1214/08-AOAS191);
    intervals are those of the normal approximation at the maximum.

    Args:
      names: D.
      table: [N, D], with mean 0 and standard deviation 1.
      lost: bool [N].
    """
    if not 0 < lost.sum() < len(lost) or not names:
        return ()
    from scipy.optimize import minimize
    from scipy.special import expit

    count = len(names)
    design = np.concatenate([np.ones((len(table), 1)), table, table**2], axis=1)
    precision = np.full(design.shape[1], _PRIOR_SD**-2)
    precision[0] = 1e-6
    start = np.zeros(design.shape[1])
    start[0] = math.log(lost.mean() / (1.0 - lost.mean()))

    def objective(at: np.ndarray) -> float:
        line = design @ at
        return float(np.logaddexp(0.0, line).sum() - line[lost].sum() + 0.5 * (precision * at**2).sum())

    def slope(at: np.ndarray) -> np.ndarray:
        return design.T @ (expit(design @ at) - lost) + precision * at

    def curvature(at: np.ndarray) -> np.ndarray:
        share = expit(design @ at)
        return (design * (share * (1.0 - share))[:, None]).T @ design + np.diag(precision)

    found = np.asarray(minimize(objective, start, jac=slope, hess=curvature, method="trust-exact").x)
    covariance = np.linalg.inv(curvature(found))

    def odds(at: int, z: float) -> Odds:
        weights = np.zeros(len(found))
        weights[1 + at], weights[1 + count + at] = z, z**2
        mean, sd = float(weights @ found), math.sqrt(weights @ covariance @ weights)
        return Odds(**{key: math.exp(mean + k * sd) for key, k in (("ratio", 0.0), ("low", -Z95), ("high", Z95))})

    rows = [LossInput(name=name, below=odds(at, -2.0), above=odds(at, 2.0)) for at, name in enumerate(names)]
    return tuple(sorted(rows, key=LossInput.clarity, reverse=True))


def first_order(names: Sequence[str], table: np.ndarray, output: str, values: np.ndarray) -> list[FirstOrder]:
    """Return the first-order indices of an output whose intervals do not reach 0, the largest first.

    The variance of the conditional means over bins with equal numbers of flights (Plischke et al. 2013,
    doi:10.1016/j.ejor.2012.11.047), less what chance alone gives; bootstrap intervals over the flights.

    Args:
      names: D.
      table: [N, D].
      output: its name.
      values: [N].
    """
    flights = len(values)
    if flights < _FEWEST or np.std(values) == 0.0:
        return []
    values = (values - np.mean(values)) / np.std(values)
    rng, order = np.random.default_rng(0), np.argsort(np.argsort(table, axis=0, kind="stable"), axis=0)
    count = int(np.clip(flights // _PER_BIN, *_BINS))
    bins = order * count // flights
    every = np.arange(flights)
    draws = [every, *rng.integers(0, flights, (_RESAMPLES, flights))]
    shares = np.array([[_explained(bins[rows, at], values[rows]) for at in range(len(names))] for rows in draws])
    # the resampled index exceeds that of the sample by what the repeated flights explain: centre the interval
    low, high = np.percentile(shares[1:] - shares[1:].mean(axis=0), (2.5, 97.5), axis=0) if names else (shares, shares)
    found = [
        FirstOrder(output=output, name=name, index=float(at), low=float(at + down), high=float(min(at + up, 1.0)))
        for name, at, down, up in zip(names, shares[0], low, high, strict=True)
        if at + down > 0.0
    ]
    return sorted(found, key=lambda one: -one.index)


def _explained(bins: np.ndarray, values: np.ndarray) -> float:
    """Return the share of the variance between bins, less what chance gives (epsilon squared, Kelley 1935)."""
    counts, sums = np.bincount(bins), np.bincount(bins, values)
    total = ((values - values.mean()) ** 2).sum()
    between = (sums**2 / np.maximum(counts, 1)).sum() - values.sum() ** 2 / len(values)
    used = int((counts > 0).sum())
    within = (total - between) / (len(values) - used)
    return float(1.0 - within * (len(values) - 1) / total) if total > 0.0 else 0.0
