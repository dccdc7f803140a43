"""Scores of predicted probabilities of success: proper scores, and the observed success by predicted probability.

Shapes: N flights.
"""

from __future__ import annotations

import numpy as np

from mission.missionfile.statistics import wilson
from mission.strict import Fraction01, Natural, StrictModel

_BINS = 10


class ReliabilityBin(StrictModel):
    """Flights with about the same probability: their mean probability, and the share that succeeded (95 % Wilson)."""

    flights: Natural
    predicted: Fraction01
    succeeded: Fraction01
    low: Fraction01
    high: Fraction01


class Scores(StrictModel):
    """Scores of probabilities over N flights.

    `brier` is the mean squared error (Brier 1950), `log_loss` the mean negative log-likelihood; both are proper, and smaller is
    better. `constant_*` are those of the share of successes as the probability of every flight. `calibration_error` is the
    mean distance of probability and share of successes over the bins, weighted by their flights (Naeini et al. 2015).
    """

    flights: Natural
    succeeded: Natural
    brier: float
    log_loss: float
    constant_brier: float
    constant_log_loss: float
    calibration_error: float
    bins: tuple[ReliabilityBin, ...]


def scores(probability: np.ndarray, success: np.ndarray) -> Scores | None:
    """Return the scores of probabilities [N] given the outcomes (bool [N]); None for no flights."""
    if not len(success):
        return None
    p = np.clip(np.asarray(probability, np.float64), 1e-12, 1.0 - 1e-12)
    share = success.mean()
    order = np.argsort(p, kind="stable")
    bins = []
    for rows in np.array_split(order, min(_BINS, len(order))):
        low, high = wilson(int(success[rows].sum()), len(rows))
        bins.append(
            ReliabilityBin(
                flights=len(rows),
                predicted=float(p[rows].mean()),
                succeeded=float(success[rows].mean()),
                low=low,
                high=high,
            )
        )
    return Scores(
        flights=len(success),
        succeeded=int(success.sum()),
        brier=float(((p - success) ** 2).mean()),
        log_loss=float(-np.where(success, np.log(p), np.log1p(-p)).mean()),
        constant_brier=float(share * (1.0 - share)),
        constant_log_loss=float(-sum(q * np.log(q) for q in (share, 1.0 - share) if q > 0.0)) + 0.0,  # not -0.0
        calibration_error=sum(one.flights * abs(one.predicted - one.succeeded) for one in bins) / len(success),
        bins=tuple(bins),
    )
