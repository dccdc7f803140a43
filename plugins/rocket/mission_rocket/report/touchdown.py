"""Touchdown: position, speed and tilt, compared with the success box of the landing phase.

Shapes: N touchdowns.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mission import Chart, FlightRecords, Section, histogram

_AT = (("position_x_m", "position_y_m"), ("downrange_m", "crossrange_m"))
_SHOWN = 2000
# channel, words in the name of the parameter that bounds its magnitude
_BOX = (
    ("velocity_m_s", ("speed",)),
    ("vertical_speed_m_s", ("vertical", "speed")),
    ("speed_m_s", ("speed",)),
    ("lateral_speed_m_s", ("lateral",)),
    ("tilt_deg", ("tilt",)),
    ("rate_deg_s", ("rate",)),
)
# parameters of this distribution's landing, each the bound of the channel of that name
_PLAIN = ("miss_m", "vertical_speed_m_s", "lateral_speed_m_s", "tilt_deg", "rate_deg_s")


def touchdown(records: FlightRecords) -> tuple[Section, ...]:
    """Return a scatter plot with ellipses, and distributions, of the flights that succeeded in the last phase."""
    last = records.flights.phases[-1]
    down = last.entered & last.success
    if not down.any():
        return ()
    parts = [scatter(records)]
    for channel, words in _BOX:
        values = last.at_end(channel)
        if values is not None:
            bound = number(last.params.get(channel)) if channel in _PLAIN else box_bound(last.params, words)
            lines = [] if bound is None else [bound] if values[down].min() >= 0 else [-bound, bound]
            parts.append(histogram(f"{channel} at touchdown", channel, [("succeeded", values[down])], lines))
    drawn = [part for part in parts if part]
    if not drawn:
        return ()
    note = f'<p class="soft">Of the {int(down.sum()):,} successful flights; red lines are the bounds of the success box where the phase has them as parameters.</p>'
    return (Section("Touchdown", f'{note}<div class="charts">{"".join(drawn)}</div>'),)


def number(value: object) -> float | None:
    """Return a parameter as a number; None if it is not a number."""
    return float(value) if isinstance(value, int | float) else None


def box_bound(params: Mapping[str, object], words: tuple[str, ...]) -> float | None:
    """Return the parameter `touchdown_<words>...` of the landing phase: the shortest name that has all words."""
    names = [name for name in params if name.startswith("touchdown") and all(word in name for word in words)]
    values = [number(params[name]) for name in sorted(names, key=len)]
    return next((value for value in values if value is not None), None)


def ellipse(points: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the outline of the Gaussian ellipse that holds a share of [N, 2] points, as two arrays of 73."""
    centre, covariance = points.mean(axis=0), np.cov(points.T)
    values, vectors = np.linalg.eigh(covariance)
    radius = np.sqrt(-2.0 * np.log(1.0 - share) * np.maximum(values, 0.0))  # chi-squared of two degrees
    angle = np.linspace(0.0, 2.0 * np.pi, 73)
    outline = centre + (np.stack([np.cos(angle), np.sin(angle)], axis=1) * radius) @ vectors.T
    return outline[:, 0], outline[:, 1]


def scatter(records: FlightRecords) -> str:
    """Return the touchdown points around the pad, with the ellipses of 50, 95 and 99 %."""
    last = records.flights.phases[-1]
    pair = next((p for p in _AT if set(p) <= set(last.channels)), None)
    down = last.entered & last.success
    if pair is None or down.sum() < 3:
        return ""
    x, y = (np.asarray(last.at_end(name), np.float64) for name in pair)
    points = np.stack([x[down], y[down]], axis=1)
    curves = [(share, ellipse(points, share)) for share in (0.5, 0.95, 0.99)]
    words = ("distance", "radius", "miss")
    bounds = (number(last.params.get("miss_m")), *(box_bound(last.params, (word,)) for word in words))
    bound = next(filter(None, bounds), None)
    reach = max(
        float(np.abs(np.concatenate(curves[-1][1])).max()), float(np.percentile(np.abs(points), 99.9)), bound or 0.0
    )
    chart = Chart(
        "touchdown points", pair[0], pair[1], (-1.1 * reach, 1.1 * reach), (-1.1 * reach, 1.1 * reach), equal=True
    )
    shown = points[:: max(1, len(points) // _SHOWN)]
    chart.points(shown[:, 0], shown[:, 1], "c0", f"{len(shown):,} flights")
    for i, (share, (a, b)) in enumerate(curves, 1):
        chart.line(a, b, f"c{i}", f"{100 * share:.0f} %")
    if bound is not None:
        angle = np.linspace(0.0, 2.0 * np.pi, 73)
        chart.line(bound * np.cos(angle), bound * np.sin(angle), "limit", "success box")
    chart.mark(0.0, 0.0, "pad")
    return chart.html()
