"""Wilson intervals against published ones, distributions against numpy, gate verdicts."""

from __future__ import annotations

import numpy as np
import pytest

from mission.missionfile.gate import ChannelGate, Gate, gate_verdict
from mission.missionfile.statistics import distribution, rate, wilson


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    [
        (100, 100, 0.9630, 1.0),
        # Newcombe 1998, Statistics in Medicine 17, table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson(count: int, total: int, low: float, high: float) -> None:
    assert wilson(count, total) == pytest.approx((low, high), abs=5e-5)


def test_wilson_inverts_the_score_test() -> None:
    """At either end, (p - count / total)^2 = z^2 p (1 - p) / total."""
    for count, total in ((3, 17), (500, 1000), (999, 1000)):
        for p in wilson(count, total):
            assert (p - count / total) ** 2 == pytest.approx(1.959963984540054**2 * p * (1 - p) / total, rel=1e-9)


def test_wilson_at_the_edges() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 7)[0] == 0.0
    assert wilson(7, 7)[1] == 1.0


def test_rate() -> None:
    assert rate(3, 4).model_dump() == {
        "count": 3,
        "rate": 0.75,
        "low": pytest.approx(0.3006, abs=5e-5),
        "high": pytest.approx(0.9544, abs=5e-5),
    }
    assert rate(0, 0).model_dump() == {"count": 0, "rate": None, "low": 0.0, "high": 1.0}


def test_distribution() -> None:
    assert distribution(np.arange(1.0, 102.0)).model_dump() == pytest.approx(
        {"mean": 51.0, "sd": np.sqrt(101 * 102 / 12), "p05": 6.0, "p50": 51.0, "p95": 96.0, "min": 1.0, "max": 101.0}
    )
    assert distribution(np.array([4.0])).sd is None
    assert distribution(np.array([1.0, np.nan, 3.0, np.inf])).mean == 2.0
    assert all(type(value) is float for value in distribution(np.arange(3, dtype=np.float32)).model_dump().values())


@pytest.mark.parametrize("values", [np.array([]), np.array([np.nan, np.inf])])
def test_distribution_of_nothing(values: np.ndarray) -> None:
    assert distribution(values).model_dump() == dict.fromkeys(("mean", "sd", "p05", "p50", "p95", "min", "max"))


SUCCESS = np.arange(100) < 90
CHANNELS = {"x_m": np.where(SUCCESS, np.arange(100.0), 1e6), "y_m": np.ones(100)}


def gate(low: float = 0.5, **bounds: float) -> Gate:
    return Gate(success_low=low, flights=100, channels={"x_m": ChannelGate(**bounds)} if bounds else {})


def test_no_gate_passes() -> None:
    verdict = gate_verdict(None, np.zeros(10, bool), {})
    assert (verdict.passed, verdict.count, verdict.flights, verdict.failures) == (True, 0, 10, ())


def test_gate_judges_the_lower_bound() -> None:
    low = wilson(90, 100)[0]
    assert gate_verdict(gate(low), SUCCESS, CHANNELS).passed
    verdict = gate_verdict(gate(low + 1e-4), SUCCESS, CHANNELS)
    assert not verdict.passed
    assert "90 of 100" in verdict.failures[0]
    assert (verdict.low, verdict.high) == wilson(90, 100)


@pytest.mark.parametrize(
    ("bounds", "failing"),
    [
        ({"mean_min": 44.5, "mean_max": 44.5}, []),  # the mean of 0 to 89: only successes count
        ({"mean_min": 44.6}, ["mean"]),
        ({"mean_max": 44.4}, ["mean"]),
        ({"p05_min": 4.5}, ["p05"]),
        ({"p05_min": 4.4, "p95_max": 84.6}, []),
        ({"p95_max": 84.5}, ["p95"]),
        ({"mean_max": 1.0, "p05_min": 50.0, "p95_max": 60.0}, ["mean", "p05", "p95"]),
    ],
)
def test_gate_judges_channels_over_the_successes(bounds: dict[str, float], failing: list[str]) -> None:
    verdict = gate_verdict(gate(**bounds), SUCCESS, CHANNELS)
    assert verdict.passed == (not failing)
    assert len(verdict.failures) == len(failing)
    for text, statistic in zip(verdict.failures, failing, strict=True):
        assert text.startswith(f"x_m: {statistic} ")
    assert verdict.channels["x_m"].mean == 44.5


def test_gate_without_successes_fails_its_channels() -> None:
    verdict = gate_verdict(gate(0.0, mean_max=5.0), np.zeros(100, bool), CHANNELS)
    assert verdict.failures == ("x_m: mean None, max 5.0",)
