"""Check that the header of a report fits its arrays, and that no number was altered, before drawing.

Shapes: N flights, C channels of a phase, L limits of it, M training starts, G grid points, K channels, T samples.
"""

from __future__ import annotations

import math

import numpy as np

from mission.missionfile.statistics import Rate, rate
from mission.report.arrays import Arrays, flights_from
from mission.report.flight_records import Flights
from mission.report.header import PhaseHeader, ReportHeader
from mission.report.summary import MissionSummary

_BANDS = ("p05", "p50", "p95")


def check_fits(header: ReportHeader, arrays: Arrays) -> None:
    """Check the seal of the header, names, shapes and types of everything that a page reads, and the numbers in both.

    Raises:
      ValueError, KeyError: says what does not fit, or names an array that is missing.
    """
    phases = {phase.name: phase for phase in header.phases}
    _require(header.sha256 in ("", header.seal()), "the hash of the summary")
    _require(len(phases) == len(header.phases), "every phase once")
    _require(len(header.provenance.policies_sha256) == len(phases), "one policy per phase")
    for phase in header.phases:
        _check_names(phase)
    for summary, who in ((header.report, header.report.policy), (header.guide, "guide")):
        if summary is not None:
            for phase in header.phases:
                _check_flights(phase, arrays, who, header.report.flights)
            _check_summary(summary, flights_from(header.phases, arrays, who))
    _check_bands(header, arrays)
    for name in header.starts:
        values = arrays[f"starts/{name}"]
        _require(name in phases and _is(values, "f", (len(values), len(phases[name].channels))), f"starts of {name}")
    for shift in header.handovers:
        _require(shift.phase in phases and shift.channel in phases[shift.phase].channels, "channels of hand-overs")
    numbers = [flight.number for flight in header.chosen]
    known = range(header.first_flight, header.first_flight + header.report.flights)
    _require(len(set(numbers)) == len(numbers) and all(number in known for number in numbers), "chosen flights")
    for number in numbers:
        for phase in header.phases:
            _check_track(phase, arrays, f"flight/{number}/{phase.name}")


def _require(fits: bool, what: str) -> None:
    if not fits:
        raise ValueError(f"{what}: does not fit")


def _is(values: np.ndarray, kind: str, shape: tuple[int, ...]) -> bool:
    """Return whether an array has a kind of number ("b" bool, "i" integer, "f" float) and a shape."""
    return values.dtype.kind == kind and values.shape == shape


def _check_names(phase: PhaseHeader) -> None:
    limited = [limit.channel for limit in phase.limits]
    for names in (phase.channels, phase.causes, limited):
        _require(len(set(names)) == len(names), f"names of {phase.name}")
    _require(set(limited) <= set(phase.channels) and len(phase.channels) > 0, f"channels of {phase.name}")


def _check_flights(phase: PhaseHeader, arrays: Arrays, who: str, flights: int) -> None:
    channels, limits = len(phase.channels), len(phase.limits)
    fields = {
        "success": ("b", (flights,)),
        "cause": ("i", (flights,)),
        "returns": ("f", (flights,)),
        "duration_s": ("f", (flights,)),
        "enter": ("f", (flights, channels)),
        "end": ("f", (flights, channels)),
        "lowest": ("f", (flights, limits)),
        "highest": ("f", (flights, limits)),
    }
    for name, (kind, shape) in fields.items():
        at = f"{who}/{phase.name}/{name}"
        _require(_is(arrays[at], kind, shape), at)
    for name, kind in (("feasible", "f"), ("takeover", "i")):
        at = f"{who}/{phase.name}/{name}"
        _require(at not in arrays or _is(arrays[at], kind, (flights,)), at)
    causes = arrays[f"{who}/{phase.name}/cause"]
    _require(flights > 0 and causes.min() >= 0 and causes.max() < len(phase.causes), f"causes of {phase.name}")


def _check_summary(summary: MissionSummary, flights: Flights) -> None:
    """Check the counts of a summary, and the rates with their intervals, against the flights."""
    _require(_equal(summary.success, flights.rate()), "success")
    _require([one.name for one in summary.phases] == [one.name for one in flights.phases], "phases of the summary")
    for found, phase in zip(summary.phases, flights.phases, strict=True):
        entered, succeeded = int(phase.entered.sum()), int((phase.entered & phase.success).sum())
        counted = Rate(count=found.succeeded, rate=found.rate, low=found.low, high=found.high)
        fits = found.entered == entered and _equal(counted, rate(succeeded, entered))
        taken = None if phase.takeover is None else int((phase.entered & (phase.takeover >= 0)).sum())
        fits = fits and taken == (None if found.takeovers is None else found.takeovers.flights)
        _require(fits and found.causes == phase.losses(), f"numbers of {phase.name}")


def _equal(stored: Rate, counted: Rate) -> bool:
    """Return whether a stored rate is the one that was counted, but for rounding."""
    pairs = [(stored.rate or 0.0, counted.rate or 0.0), (stored.low, counted.low), (stored.high, counted.high)]
    return stored.count == counted.count and all(math.isclose(a, b, abs_tol=1e-9) for a, b in pairs)


def _check_bands(header: ReportHeader, arrays: Arrays) -> None:
    time_s, channels = arrays["bands/time_s"], len(header.bands.channels)
    _require(_is(time_s, "f", (len(time_s),)) and len(time_s) > 0 and bool(np.isfinite(time_s).all()), "time of bands")
    _require(_is(arrays["bands/count"], "i", time_s.shape), "count of bands")
    _require(len(set(header.bands.channels)) == channels, "channels of bands")
    for name in _BANDS:
        _require(_is(arrays[f"bands/{name}"], "f", (len(time_s), channels)), f"bands/{name}")


def _check_track(phase: PhaseHeader, arrays: Arrays, at: str) -> None:
    """Check a chosen flight in one phase, if it entered it."""
    if f"{at}/time_s" in arrays:
        time_s = arrays[f"{at}/time_s"]
        table = (len(time_s), len(phase.channels))
        _require(_is(time_s, "f", (len(time_s),)) and len(time_s) > 0 and _is(arrays[f"{at}/channels"], "f", table), at)
