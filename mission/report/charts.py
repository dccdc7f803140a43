"""SVG charts that follow the colours of the page, light or dark, and need no library in the browser.

A chart with a time axis gets the chosen flight and a cursor from the page's script (`data-` attributes).
Shapes: G points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mission.report.flight_records import FlightRecords, phase_ends
from mission.storage.markup import escape

WIDTH, HEIGHT = 420, 230
LEFT, RIGHT, TOP, BOTTOM = 58, 10, 22, 34
_FAR = 1e5  # of a coordinate in the SVG, far outside it
_KEYS = "arrow keys move the clock, plus and minus zoom, 0 shows everything"
_ZOOM_KEYS = "drag to zoom, 0 shows everything"
_MOST = 1e300  # of an axis, so that the width of its range is finite


def nice_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return round numbers in [low, high], at most `most` of them; only `low` if the range is empty."""
    raw = (high - low) / max(most - 1, 1)
    if not (math.isfinite(raw) and raw > 0.0 and math.isfinite(low / raw)):
        return [low]
    power = 10.0 ** math.floor(math.log10(raw))
    step = next((power * m for m in (1.0, 2.0, 2.5, 5.0, 10.0) if power * m >= raw * 0.999), raw)
    first = math.ceil(low / step - 1e-9)
    last = min(math.floor(high / step + 1e-9), first + most)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def shown_range(low: float, high: float) -> tuple[float, float]:
    """Return the range of an axis: the given one if it can be drawn, else the nearest one that can."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return 0.0, 1.0
    low, high = max(min(low, high), -_MOST), min(max(low, high), _MOST)
    least = 1e-9 * max(abs(low), abs(high), 1e-300)
    return (low, high) if high - low > least else (low, low + max(abs(low), 1.0) * 0.05)


def span(*values: object, pad: float = 0.05) -> tuple[float, float]:
    """Return a range a little wider than all finite values of arrays and numbers; it is never empty."""
    flat = np.concatenate([np.ravel(np.asarray(v, np.float64)) for v in values]) if values else np.zeros(0)
    flat = flat[np.isfinite(flat)].clip(-_MOST, _MOST)
    if flat.size == 0:
        return 0.0, 1.0
    low, high = float(flat.min()), float(flat.max())
    extra = (high - low) * pad if high > low else max(abs(high), 1.0) * 0.05
    return low - extra, high + extra


def number(value: float) -> str:
    """Format a number for display."""
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e12 else f"{value:,.4g}"


class Chart:
    """One chart; its methods add to it and return it, and `html` returns the SVG in a figure."""

    def __init__(
        self,
        title: str,
        x_label: str,
        y_label: str,
        x: tuple[float, float],
        y: tuple[float, float],
        equal: bool = False,
    ) -> None:
        """Set up axes with ranges in data units; `equal` gives both the same scale by widening one range.

        A range that is empty or not finite is replaced by one that can be drawn.
        """
        x, y = shown_range(*x), shown_range(*y)
        if equal:
            x, y = _equal(x, y)
        self.title, self.x_label, self.y_label, self.x, self.y = title, x_label, y_label, x, y
        self.parts: list[str] = []
        self.legend: list[tuple[str, str]] = []

    def px(self, value: np.ndarray | float) -> np.ndarray:
        """Return the horizontal coordinate in the SVG."""
        share = (np.asarray(value, np.float64) - self.x[0]) / (self.x[1] - self.x[0])
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def py(self, value: np.ndarray | float) -> np.ndarray:
        """Return the vertical coordinate in the SVG."""
        share = (np.asarray(value, np.float64) - self.y[0]) / (self.y[1] - self.y[0])
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    def line(self, x: np.ndarray, y: np.ndarray, css: str = "c0", label: str = "") -> Chart:
        """Add a line through [G] points, broken at NaN."""
        path = "".join("M" + "L".join(part) for part in self._runs(x, y))
        self.parts.append(f'<path class="line {css}" d="{path}"/>')
        return self.named(css, label)

    def band(self, x: np.ndarray, low: np.ndarray, high: np.ndarray, css: str = "c0", label: str = "") -> Chart:
        """Add the area between two lines [G]."""
        kept = np.flatnonzero(np.isfinite(x) & np.isfinite(low) & np.isfinite(high))
        for run in np.split(kept, np.flatnonzero(np.diff(kept) > 1) + 1):
            if run.size > 1:
                there, back = self._runs(x[run], high[run])[0], self._runs(x[run][::-1], low[run][::-1])[0]
                self.parts.append(f'<path class="band {css}" d="M{"L".join(there + back)}Z"/>')
        return self.named(css, label)

    def points(self, x: np.ndarray, y: np.ndarray, css: str = "c0", label: str = "") -> Chart:
        """Add dots, as one path."""
        dots = "".join(f"M{dot}h0" for run in self._runs(x, y) for dot in run)
        self.parts.append(f'<path class="dots {css}" d="{dots}"/>')
        return self.named(css, label)

    def bars(self, edges: np.ndarray, heights: np.ndarray, css: str = "c0", label: str = "") -> Chart:
        """Add a histogram: edges [G + 1], heights [G]."""
        heights = np.nan_to_num(np.asarray(heights, np.float64), posinf=self.y[1], neginf=self.y[0])
        path = f"M{self.px(edges[0]):.1f} {self.py(0):.1f}"
        for left, right, height in zip(edges[:-1], edges[1:], heights, strict=True):
            path += f"L{self.px(left):.1f} {self.py(height):.1f}L{self.px(right):.1f} {self.py(height):.1f}"
        self.parts.append(f'<path class="bars {css}" d="{path}L{self.px(edges[-1]):.1f} {self.py(0):.1f}"/>')
        return self.named(css, label)

    def cells(self, x: np.ndarray, y: np.ndarray, shares: Sequence[Sequence[float | None]], least: float) -> Chart:
        """Add a map of shares in [least, 1] between edges x and y [G + 1]: rows from below; None leaves a cell empty."""
        left, top = self.px(x), self.py(y)
        for j, row in enumerate(shares):
            for i, share in enumerate(row):
                if share is not None:
                    box = f'x="{left[i]:.1f}" y="{top[j + 1]:.1f}" width="{left[i + 1] - left[i]:.1f}"'
                    box += f' height="{top[j] - top[j + 1]:.1f}"'
                    lost = (1.0 - share) / max(1.0 - least, 1e-9)
                    self.parts.append(
                        f'<rect class="cell" {box}/><rect class="cell lost" {box} style="fill-opacity:{lost:.2f}">'
                        f"<title>{100 * share:.1f} %</title></rect>"
                    )
        return self

    def rule_x(self, value: float, label: str = "", css: str = "boundary", row: int = 0) -> Chart:
        """Add a vertical line over the whole height, with a label at its top."""
        if self.x[0] <= value <= self.x[1]:
            x, right = float(self.px(value)), float(self.px(value)) > WIDTH * 0.8
            self.parts.append(f'<path class="rule {css}" d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}"/>')
            anchor, dx = ("end", -3) if right else ("start", 3)
            if label:
                self.parts.append(
                    f'<text class="note {css}" x="{x + dx:.1f}" y="{TOP + 9 + 10 * row}" text-anchor="{anchor}">'
                    f"{escape(label)}</text>"
                )
        return self

    def name_x(self, low: float, high: float, label: str) -> Chart:
        """Add a label above a range of the horizontal axis; it is left out if it does not fit."""
        a, b = (float(v) for v in self.px(np.clip([low, high], *self.x)))
        if b - a > 5.4 * len(label):
            self.parts.append(
                f'<text class="note" x="{(a + b) / 2:.1f}" y="{TOP - 3}" text-anchor="middle">{escape(label)}</text>'
            )
        return self

    def rule_y(self, value: float, label: str = "", css: str = "limit") -> Chart:
        """Add a horizontal line over the whole width."""
        if self.y[0] <= value <= self.y[1]:
            y = float(self.py(value))
            above = y - 3 if y > TOP + 14 else y + 10
            self.parts.append(f'<path class="rule {css}" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
            self.parts.append(
                f'<text class="note {css}" x="{WIDTH - RIGHT - 2}" y="{above:.1f}" text-anchor="end">{escape(label)}</text>'
            )
        return self

    def mark(self, x: float, y: float, label: str, css: str = "mark") -> Chart:
        """Add a small cross with a tooltip."""
        if self.x[0] <= x <= self.x[1] and self.y[0] <= y <= self.y[1]:
            a, b = float(self.px(x)), float(self.py(y))
            self.parts.append(
                f'<path class="{css}" d="M{a - 4:.1f} {b:.1f}h8M{a:.1f} {b - 4:.1f}v8"><title>{escape(label)}</title></path>'
            )
        return self

    def named(self, css: str, label: str) -> Chart:
        """Add an entry to the legend."""
        if label and (css, label) not in self.legend:
            self.legend.append((css, label))
        return self

    def html(self, channels: Sequence[str] = (), x_channel: str = "time") -> str:
        """Return the figure; with `channels` the page draws the chosen flight over it, against time or another channel."""
        axes = [f'<path class="axis" d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/><g class="ticks">']
        for tick in nice_ticks(*self.x):
            x = float(self.px(tick))
            axes.append(f'<path class="grid" d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}"/>')
            axes.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 13}" text-anchor="middle">{number(tick)}</text>')
        for tick in nice_ticks(*self.y, most=5):
            y = float(self.py(tick))
            axes.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
            axes.append(f'<text x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{number(tick)}</text>')
        axes.append("</g>")
        middle = (LEFT + WIDTH - RIGHT) / 2
        axes.append(f'<text x="{middle}" y="{HEIGHT - 5}" text-anchor="middle">{escape(self.x_label)}</text>')
        axes.append(f'<text x="4" y="12" class="unit">{escape(self.y_label)}</text>')
        data = ""
        if channels:  # the page's script moves the clock and zooms, by pointer and by keys
            box = (LEFT, TOP, WIDTH - RIGHT, HEIGHT - BOTTOM, *self.x, *self.y)
            data = (
                f' data-box="{" ".join(f"{v:.7g}" for v in box)}" data-x="{escape(x_channel)}"'
                f' data-channels="{escape(" ".join(channels))}" tabindex="0"'
                f' aria-label="{escape(self.title)}: {_KEYS if x_channel == "time" else _ZOOM_KEYS}"'
            )
        keys = "".join(f'<span class="key {css}">{escape(label)}</span>' for css, label in self.legend)
        caption = f"<figcaption>{escape(self.title)}<span class=keys>{keys}</span></figcaption>"
        return (
            f'<figure class="chart"{data}>{caption}<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
            f'aria-label="{escape(self.title)}">{"".join(axes)}<g class="plot">{"".join(self.parts)}</g></svg></figure>'
        )

    def _runs(self, x: np.ndarray, y: np.ndarray) -> list[list[str]]:
        runs: list[list[str]] = [[]]
        finite = np.isfinite(x) & np.isfinite(y)
        across, up = (np.nan_to_num(side).clip(-_FAR, _FAR).tolist() for side in (self.px(x), self.py(y)))
        for a, b, drawn in zip(across, up, finite, strict=True):
            if drawn:
                runs[-1].append(f"{a:.1f} {b:.1f}")
            elif runs[-1]:
                runs.append([])
        return [run for run in runs if run]


def _equal(x: tuple[float, float], y: tuple[float, float]) -> tuple[tuple[float, float], tuple[float, float]]:
    scale_x = (x[1] - x[0]) / (WIDTH - LEFT - RIGHT)
    scale_y = (y[1] - y[0]) / (HEIGHT - TOP - BOTTOM)
    scale = max(scale_x, scale_y)

    def widen(side: tuple[float, float], pixels: float) -> tuple[float, float]:
        middle = (side[0] + side[1]) / 2
        return middle - scale * pixels / 2, middle + scale * pixels / 2

    return widen(x, WIDTH - LEFT - RIGHT), widen(y, HEIGHT - TOP - BOTTOM)


def time_chart(records: FlightRecords, channels: Sequence[str], title: str = "", y_label: str = "") -> str:
    """Return a chart of channels over time: bands, phase boundaries, limits, and the chosen flight on top.

    Args:
      records: the records of the report.
      channels: names of channels; unknown names are left out, and the result is empty if none is left.
      title: should name the unit; by default the name of the first channel.
      y_label: label above the axis, if the title does not name the unit.
    """
    bands = records.bands
    known = [name for name in channels if name in bands.channels]
    if not known:
        return ""
    flown = [
        track.channels[name]
        for flight in records.chosen
        if flight.role != "lost"
        for track in flight.tracks
        for name in known
        if name in track.channels
    ]
    edges = [edge for name in known for edge in (bands.of(name) or ())[::2]]
    limits = [(phase, limit) for name in known for phase, limit in records.limit(name)]
    low, high = span(*edges, *flown)
    near = [v for _, limit in limits for v in (limit.minimum, limit.maximum) if v is not None]
    room = high - low
    y = span(low, high, *[v for v in near if low - room <= v <= high + room], pad=0.02)
    chart = Chart(title or known[0], "time (s)", y_label, (0.0, float(bands.time_s[-1])), y)
    before = 0.0
    for name, ends in phase_ends(records.flights):
        after = float(np.median(ends)) if ends.size else before
        chart.rule_x(after).name_x(before, after, name)
        before = after
    for i, name in enumerate(known):
        p05, p50, p95 = bands.of(name) or (bands.time_s,) * 3
        chart.band(bands.time_s, p05, p95, f"c{i}", name if len(known) > 1 else "").line(
            bands.time_s, p50, f"c{i} median"
        )
    for phase, limit in limits:
        for bound, value in (("at least", limit.minimum), ("at most", limit.maximum)):
            if value is not None:
                chart.rule_y(value, f"{phase}: {bound} {number(value)}")
    return chart.html(known)


def histogram(
    title: str, x_label: str, samples: Sequence[tuple[str, np.ndarray]], limits: Sequence[float] = (), bins: int = 40
) -> str:
    """Return a chart of distributions, each as the share of its flights per bin, with limits as lines."""
    finite = [(label, np.asarray(values[np.isfinite(values)], np.float64)) for label, values in samples]
    kept = [(label, values) for label, values in finite if values.size]
    if not kept:
        return ""
    ends = [np.percentile(values, (0.1, 99.9)) for _, values in kept]
    low, high = span(*ends, *limits)
    edges = np.linspace(low, high, bins + 1)
    shares = [100.0 * np.histogram(values.clip(low, high), edges)[0] / len(values) for _, values in kept]
    chart = Chart(title, x_label, "% of flights", (low, high), (0.0, 1.08 * max(float(s.max()) for s in shares)))
    for i, ((label, _), share) in enumerate(zip(kept, shares, strict=True)):
        chart.bars(edges, share, f"c{i}", label)
    for limit in limits:
        chart.rule_x(limit, number(limit), "limit")
    return chart.html()
