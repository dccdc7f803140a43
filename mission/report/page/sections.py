"""What the engine says of any mission: headline, losses, margins, hand-overs, telemetry, provenance."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from mission.report.charts import histogram, number, time_chart
from mission.report.records import FlightRecords, Flights

if TYPE_CHECKING:
    from mission.report.handovers import Handover

_SHOWN = 12  # charts of differing channels a phase


def percent(value: float | None) -> str:
    """98.12 %, and a dash for nothing."""
    return "-" if value is None else f"{100 * value:.2f} %"


def headline(records: FlightRecords) -> str:
    """Success with its interval, by who flew."""
    pilots = sorted({phase["flown_by"] for phase in records.provenance["phases"]})
    cards = [_card(records.flights, "flown by " + " and ".join(f"{escape(pilot)}s" for pilot in pilots))]
    if records.guide is not None:
        cards.append(_card(records.guide, "flown by the guides, same seeds"))
        cards.append(_paired(records.flights, records.guide))
    return f'<div class="headline">{"".join(cards)}</div>'


def _card(flights: Flights, who: str) -> str:
    rate = flights.rate()
    bar = f'<i style="left:{100 * rate.low:.2f}%;right:{100 - 100 * rate.high:.2f}%"></i>'
    bar += f'<b style="left:{100 * (rate.rate or 0):.2f}%"></b>'
    return (
        f'<div class="card"><p class="soft">{who}</p><p class="big">{percent(rate.rate)}</p>'
        f"<p>{rate.count:,} of {flights.count:,} flights succeeded</p>"
        f'<div class="scale">{bar}</div>'
        f'<p class="soft">95 % Wilson interval {percent(rate.low)} to {percent(rate.high)}</p></div>'
    )


def _paired(flights: Flights, guide: Flights) -> str:
    from mission.statistics import paired_difference

    pair = paired_difference(guide.success, flights.success)
    return (
        f'<div class="card"><p class="soft">agents against guides, flight by flight</p>'
        f'<p class="big">{100 * (pair.difference or 0.0):+.2f} points</p>'
        f"<p>won by the agents alone {pair.only_second:,}, by the guides alone {pair.only_first:,}</p>"
        f'<p class="soft">95 % interval {100 * pair.low:+.2f} to {100 * pair.high:+.2f} points, '
        f"McNemar's p {pair.p_value:.2g}</p></div>"
    )


def losses(flights: Flights) -> str:
    """A waterfall: of all flights, who goes on after each phase, and what the others were lost to."""
    rows, total = [], flights.count
    for phase in flights.phases:
        entered, on = int(phase.entered.sum()), int((phase.entered & phase.success).sum())
        lost = {cause: n for cause, n in phase.losses().items() if n}
        parts = "".join(
            f'<b style="width:{100 * n / total:.3f}%" title="{escape(cause)}: {n:,}"></b>' for cause, n in lost.items()
        )
        words = ", ".join(f"{escape(cause)} {n:,}" for cause, n in lost.items())
        share = f" ({percent(on / entered)})" if entered else ""
        rows.append(
            f"<div><span>{escape(phase.name)}</span>"
            f'<span class="bar"><i style="width:{100 * on / total:.3f}%"></i>{parts}</span>'
            f"<span>{on:,} of {entered:,}{share}</span>"
            + (f"<small>lost to {words}</small>" if words else "")
            + "</div>"
        )
    return f'<div class="card fall">{"".join(rows)}</div>'


def margins(records: FlightRecords) -> str:
    """Every limit: the worst value, the usual ones, and how many flights pass it."""
    rows = []
    for phase in records.flights.phases:
        for at, limit in enumerate(phase.limits):
            lowest, highest = phase.lowest[phase.entered, at], phase.highest[phase.entered, at]
            for bound, value, seen, worst in (
                ("at least", limit.minimum, lowest, np.min),
                ("at most", limit.maximum, highest, np.max),
            ):
                finite = seen[np.isfinite(seen)]
                if value is None or not finite.size:
                    continue
                beyond = int((~np.isfinite(seen) | (seen < value if bound == "at least" else seen > value)).sum())
                p05, p95 = np.percentile(finite, (5, 95))
                verdict = f'<span class="{"bad" if beyond else "good"}">{beyond:,}</span>'
                rows.append(
                    f'<tr><td>{escape(phase.name)}</td><td class="left">{escape(limit.channel)}</td><td>{bound} {number(value)}</td>'
                    f"<td>{number(float(worst(finite)))}</td><td>{number(p05)} to {number(p95)}</td><td>{verdict}</td></tr>"
                )
    if not rows:
        return '<p class="soft">No phase states a limit.</p>'
    head = '<tr><th>phase</th><th class="left">channel</th><th>limit</th><th>worst</th><th>5 to 95 %</th><th>flights beyond</th></tr>'
    return f'<div class="scroll card"><table>{head}{"".join(rows)}</table></div>'


def handovers(records: FlightRecords, found: Sequence[Handover]) -> str:
    """Where flights enter each phase against where it was trained from, a warning first where they differ."""
    parts = [
        '<p class="soft">Each phase but the first: its own telemetry on entering, of the flights that reached it, '
        "against its training starts. The distance (Kolmogorov-Smirnov) is the largest gap between the two "
        "distribution functions: 0 the same, 1 apart.</p>"
    ]
    for phase in records.flights.phases:
        rows = [row for row in found if row.phase == phase.name]
        starts = records.starts.get(phase.name)
        if starts is None or not rows:
            continue
        far = [row for row in rows if row.differs]
        parts.append(f"<h3>{escape(phase.name)}</h3>")
        if far:
            words = ", ".join(f"{escape(row.channel)} ({row.distance:.2f})" for row in far)
            parts.append(
                f'<p class="warning">Flights enter {escape(phase.name)} elsewhere than it was trained: {words}.</p>'
            )
        else:
            parts.append(
                f'<p class="good">No channel differs: the largest distance is {max(r.distance for r in rows):.3f}.</p>'
            )
        parts.append(f'<p class="soft">Training starts: {escape(starts.source)}.</p>')
        shown = sorted(rows, key=lambda row: -row.distance)[: _SHOWN if far else 3]
        charts = []
        for row in shown:
            at = phase.channels.index(row.channel)
            pair = [("flown", phase.enter[phase.entered, at]), ("training starts", starts.values[:, at])]
            charts.append(histogram(f"{row.channel}, distance {row.distance:.3f}", row.channel, pair))
        body = f'<div class="charts">{"".join(charts)}</div>'
        parts.append(f"<details{' open' if far else ''}><summary>distributions</summary>{body}</details>")
    return "".join(parts) if len(parts) > 1 else '<p class="soft">A mission of one phase hands nothing over.</p>'


def telemetry(records: FlightRecords) -> str:
    """Every channel over time, folded away."""
    charts = "".join(time_chart(records, [name]) for name in records.channels())
    note = f"Bands hold 5 to 95 % of the flights still flying, out of the first {records.bands.flights:,}."
    return (
        f'<p class="soft">{note}</p><details id="all"><summary>all {len(records.channels())} channels</summary>'
        f'<div class="charts">{charts}</div></details>'
    )


def provenance(records: FlightRecords) -> str:
    """Where the numbers come from, and how to get them again."""
    seen: dict[str, Any] = {
        "mission digest": records.digest,
        "flight seed": records.seed,
        **{name.replace("_", " "): value for name, value in records.provenance.items()},
    }
    phases = seen.pop("phases")
    hashes = seen.pop("policies sha256", [])
    commands = "\n".join(seen.pop("commands", []))
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(str(value)) or '-'}</dd>" for name, value in seen.items())
    table = "".join(
        f'<tr><td>{escape(p["name"])}</td><td class="left">{escape(p["flown_by"])}</td>'
        f'<td class="left">{escape(p["plugin"])}</td><td class="left">{escape(p["distribution"])} {escape(p["version"])}</td>'
        f'<td class="left">{p["source_sha256"][:12]}</td><td class="left">{(sha or "-")[:12]}</td></tr>'
        for p, sha in zip(phases, hashes, strict=True)
    )
    names = ("phase", "flown by", "plugin", "distribution", "source", "policy")
    head = "".join(f'<th class="left">{name}</th>' for name in names)
    return f'<pre>{escape(commands)}</pre><div class="scroll card"><table><tr>{head}</tr>{table}</table></div><dl>{rows}</dl>'
