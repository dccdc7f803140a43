"""Charts of the whole flight: paths and time histories with bands, limits, and events of real flights."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from mission import Chart, FlightRecords, Section, time_chart
from mission_rocket.report.marks import BOUNDARIES, MARKS

# title, channels of one chart
TIME_CHARTS = (
    ("altitude (m)", ("altitude_m",)),
    ("height (m)", ("height_m",)),
    ("speed (m/s)", ("speed_m_s",)),
    ("velocity (m/s)", ("velocity_m_s",)),
    ("dynamic pressure (Pa)", ("dynamic_pressure_pa",)),
    ("Mach", ("mach",)),
    ("throttle", ("throttle",)),
    ("gimbal (deg)", ("gimbal_pitch_deg", "gimbal_yaw_deg")),
    ("fins (deg)", ("fin_pitch_deg", "fin_yaw_deg", "fin_roll_deg")),
    ("tilt (deg)", ("tilt_deg",)),
    ("incidence (deg)", ("incidence_deg",)),
    ("dynamic pressure times incidence (Pa deg)", ("q_alpha_pa_deg",)),
    ("load (m/s2)", ("axial_load_m_s2", "lateral_load_m_s2")),
    ("rate (deg/s)", ("rate_deg_s",)),
    ("mass (kg)", ("mass_kg",)),
)


def flight(records: FlightRecords) -> tuple[Section, ...]:
    """Return every chart whose channels exist."""
    charts = [
        path_chart(records, "altitude over downrange", "downrange_m", "altitude_m"),
        path_chart(records, "speed over altitude", "altitude_m", "speed_m_s"),
        *(time_chart(records, channels, title) for title, channels in TIME_CHARTS),
    ]
    drawn = [chart for chart in charts if chart]
    if not drawn:
        return ()
    note = f'<p class="soft">Bands span the 5th to 95th percentile of the flights still flying, out of the first {records.bands.flights:,}; dotted is the median, solid the chosen flight, dashed the one to compare with.</p>'
    return (Section("Flight", f'{note}<div class="charts">{"".join(drawn)}</div>{_boundaries(records)}'),)


def path_chart(records: FlightRecords, title: str, x: str, y: str) -> str:
    """Return one channel over another: medians at equal times, all kept flights, and real flights as crosses."""
    across, up = records.bands.of(x), records.bands.of(y)
    if across is None or up is None:
        return ""
    tracks = [t for f in records.chosen for t in f.tracks if x in t.channels and y in t.channels]
    marks = [(getattr(m, x), getattr(m, y), f"{m.flight}, {m.event}") for m in MARKS if hasattr(m, x) and hasattr(m, y)]
    whole = "ascent" in {phase.plugin for phase in records.flights.phases}
    marks = marks if whole else [mark for mark in marks if "landing burn" in mark[2]] if tracks else []
    columns = [
        [side[1], *(t.channels[name] for t in tracks), *([mark[at] for mark in marks],) * bool(marks)]
        for at, (side, name) in enumerate(((across, x), (up, y)))
    ]
    x_range, y_range = (_range([float(np.nanmin(v)), float(np.nanmax(v))] for v in column) for column in columns)
    chart = Chart(title, x, y, x_range, y_range)
    chart.line(across[1], up[1], "c0 median", "median")
    for a, b, label in marks:
        chart.mark(a, b, label)
    if marks:
        chart.named("c3", "real flights")
    return chart.html([y], x)


def _range(ends: Iterable[list[float]]) -> tuple[float, float]:
    flat = np.ravel(list(ends))
    low, high = float(np.nanmin(flat)), float(np.nanmax(flat))
    extra = 0.04 * (high - low) or 1.0
    return low - extra, high + extra


def _boundaries(records: FlightRecords) -> str:
    """Return a table that compares the ends of phases with those of real flights."""
    rows = []
    for phase in records.flights.phases:
        ended = phase.entered & phase.success
        for boundary in BOUNDARIES:
            if boundary.plugin != phase.plugin or not ended.any():
                continue
            for channel, (low, high) in boundary.ranges.items():
                values = phase.at_end(channel)
                if values is not None:
                    p05, p50, p95 = np.percentile(values[ended], (5, 50, 95))
                    inside = "good" if low <= p50 <= high else "bad"
                    rows.append(
                        f'<tr><td>{boundary.event}</td><td class="left">{channel}</td><td class="{inside}">{p50:,.5g}</td>'
                        f"<td>{p05:,.5g} to {p95:,.5g}</td><td>{low:,.5g} to {high:,.5g}</td></tr>"
                    )
    if not rows:
        return ""
    head = '<tr><th>at</th><th class="left">channel</th><th>median</th><th>5 to 95 %</th><th>real flights</th></tr>'
    return f'<h3>Compared with real flights</h3><div class="scroll card" tabindex="0" role="region" aria-label="compared with real flights"><table>{head}{"".join(rows)}</table></div>'
