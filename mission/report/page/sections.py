"""The sections that the page has for any mission: headline, losses, sensitivity, take-overs, feasibility, margins, hand-overs, telemetry, provenance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mission.flight.guard.counts import guard_words
from mission.missionfile.pilots import NAMED_PILOTS, pilot_in_words, unguarded
from mission.missionfile.statistics import distribution, paired_difference, paired_mean
from mission.report.charts import histogram, number, time_chart
from mission.report.feasibility import feasibility_html, handover_feasibility
from mission.report.flight_records import FlightRecords, Flights, FlownPhase
from mission.report.header import ChannelShift
from mission.storage.markup import escape, wide_table

_MOST_CHARTS = 12  # per phase whose hand-over differs
_MOST_INPUTS, _FEW_INPUTS = 12, 4  # of the losses, and of an output
_FEW_CHARTS = 3  # per phase whose hand-over does not


def percent(value: float | None) -> str:
    """Format a proportion for display: 98.12 %, or a dash for None."""
    return "-" if value is None else f"{100 * value:.2f} %"


def headline(records: FlightRecords) -> str:
    """Return the success of the flights and of the guides, with intervals, and their paired difference."""
    pilots = sorted({_several(phase.flown_by) for phase in records.headers})
    cards = [_card(records.flights, f"flown by {' and '.join(pilots)}", records.interval_note)]
    if records.guide is not None:
        cards.append(_card(records.guide, "flown by the guides, same seeds"))
        cards.append(_paired(records.flights, records.guide))
    return f'<div class="headline">{"".join(cards)}</div>'


def _several(pilot: str) -> str:
    """Return the pilots of a kind: agents, imitators, guides; or the policy in a folder; and whether under guard."""
    flies = unguarded(pilot)
    words = f"{flies}s" if flies in NAMED_PILOTS else pilot_in_words(flies)
    return words if flies == pilot else f"{words} under guard"


def _card(flights: Flights, who: str, note: str = "") -> str:
    rate = flights.rate()
    notes = "".join(f'<p class="soft">{escape(text)}</p>' for text in (_returns(flights), note) if text)
    bar = f'<i style="left:{100 * rate.low:.2f}%;right:{100 - 100 * rate.high:.2f}%"></i>'
    bar += f'<b style="left:{100 * (rate.rate or 0):.2f}%"></b>'
    return (
        f'<div class="card"><p class="soft">{escape(who)}</p><p class="big">{percent(rate.rate)}</p>'
        f"<p>{rate.count:,} of {flights.count:,} flights succeeded</p>"
        f'<div class="scale">{bar}</div>'
        f'<p class="soft">95 % Wilson interval {percent(rate.low)} to {percent(rate.high)}</p>{notes}</div>'
    )


def _returns(flights: Flights) -> str:
    """Return the mean return with the range of most flights; empty if the mission has no reward."""
    spread = distribution(flights.returns)
    if spread.mean is None or spread.p05 is None or spread.p95 is None or not flights.returns.any():
        return ""
    return f"mean return {number(spread.mean)}, {number(spread.p05)} to {number(spread.p95)} in 90 % of the flights"


def _paired(flights: Flights, guide: Flights) -> str:
    pair, mean = paired_difference(guide.success, flights.success), paired_mean(guide.returns, flights.returns)
    returns = ""
    if mean.mean is not None and mean.low is not None and mean.high is not None and (mean.mean or mean.sd):
        interval = f"{number(mean.low)} to {number(mean.high)}"
        returns = f'<p class="soft">return {number(mean.mean)} higher in the mean, 95 % interval {interval}</p>'
    return (
        f'<div class="card"><p class="soft">policies compared with guides, flight by flight</p>'
        f'<p class="big">{100 * (pair.difference or 0.0):+.2f} points</p>'
        f"<p>{pair.only_second:,} succeeded with the policies only, {pair.only_first:,} with the guides only</p>"
        f'<p class="soft">95 % interval {100 * pair.low:+.2f} to {100 * pair.high:+.2f} points, '
        f"McNemar's p {pair.p_value:.2g}</p>{returns}</div>"
    )


def losses(records: FlightRecords) -> str:
    """Return a waterfall: who flew each phase, how many flights succeed in it, and by which causes the others fail."""
    flights = records.flights
    rows, total = [], flights.count
    for phase, header in zip(flights.phases, records.headers, strict=True):
        entered, succeeded = int(phase.entered.sum()), int((phase.entered & phase.success).sum())
        failures = {cause: n for cause, n in phase.losses().items() if n}
        parts = "".join(
            f'<b style="width:{100 * n / total:.3f}%" title="{escape(cause)}: {n:,}"></b>'
            for cause, n in failures.items()
        )
        words = ", ".join(f"{escape(cause)} {n:,}" for cause, n in failures.items())
        on = ", ".join(f"{escape(cause)} {n:,}" for cause, n in phase.outside().items())
        words = f"{'; failed by ' if words else ''}{words}{'; went on outside of its box: ' if on else ''}{on}"
        share = f" ({percent(succeeded / entered)})" if entered else ""
        rows.append(
            f"<div><span>{escape(phase.name)}</span>"
            f'<span class="bar"><i style="width:{100 * succeeded / total:.3f}%"></i>{parts}</span>'
            f"<span>{succeeded:,} of {entered:,}{share}</span>"
            + f"<small>flown by {escape(pilot_in_words(header.flown_by))}{words}</small>"
            + "</div>"
        )
    return f'<div class="card fall">{"".join(rows)}</div>'


def margins(records: FlightRecords) -> str:
    """Return a table of the limits: the worst value, the 5 to 95 % range, and how many flights were beyond."""
    rows = []
    for phase in records.flights.phases:
        for at, limit in enumerate(phase.limits):
            lowest, highest = phase.lowest[phase.entered, at], phase.highest[phase.entered, at]
            for bound, value, extremes, worst in (
                ("at least", limit.minimum, lowest, np.min),
                ("at most", limit.maximum, highest, np.max),
            ):
                finite = extremes[np.isfinite(extremes)]
                if value is None or not finite.size:
                    continue
                outside = extremes < value if bound == "at least" else extremes > value
                beyond = int((~np.isfinite(extremes) | outside).sum())
                p05, p95 = np.percentile(finite, (5, 95))
                verdict = f'<span class="{"bad" if beyond else "good"}">{beyond:,}</span>'
                rows.append(
                    f'<tr><td>{escape(phase.name)}</td><td class="left">{escape(limit.channel)}</td><td>{bound} {number(value)}</td>'
                    f"<td>{number(float(worst(finite)))}</td><td>{number(p05)} to {number(p95)}</td><td>{verdict}</td></tr>"
                )
    if not rows:
        return '<p class="soft">No phase states a limit.</p>'
    head = '<tr><th>phase</th><th class="left">channel</th><th>limit</th><th>worst</th><th>5 to 95 %</th><th>flights beyond</th></tr>'
    return wide_table("margins to limits", head + "".join(rows))


def handovers(records: FlightRecords, shifts: Sequence[ChannelShift]) -> str:
    """Return how flights enter each phase compared with its training starts, with a warning if they differ."""
    parts = []
    for phase in records.flights.phases:
        rows = [shift for shift in shifts if shift.phase == phase.name]
        if phase.name in records.starts and rows:
            parts.append(_handover(records, phase, rows))
    if not parts:
        return '<p class="soft">There is no hand-over to compare.</p>'
    note = (
        "For each phase except the first, the telemetry of the flights that entered it is compared with that of its "
        "training starts. The distance (Kolmogorov-Smirnov) is the largest difference between the two distribution "
        "functions: 0 if they are equal, 1 if they do not overlap."
    )
    return f'<p class="soft">{note}</p>{"".join(parts)}'


def dependence(records: FlightRecords) -> str:
    """Return the dependence of losses and end states: a table of odds, and bars of first-order indices by output."""
    found = records.sensitivity
    if found is None:
        return ""
    odds = lambda one: f"<td>{one.ratio:.3g}</td><td>{one.low:.3g} to {one.high:.3g}</td>"  # noqa: E731
    rows = [
        f"<tr><td>{escape(one.name)}</td>{odds(one.below)}{odds(one.above)}</tr>" for one in found.losses[:_MOST_INPUTS]
    ]
    head = (
        "<tr><th>start value</th><th>2 sd below its mean</th><th>95 %</th><th>2 sd above</th><th>95 %</th></tr>"
        if rows
        else ""
    )
    table = "<h3>Odds of a loss, over those at the mean</h3>" + wide_table("odds of a loss", head + "".join(rows))
    bars = []
    for output in dict.fromkeys(one.output for one in found.indices):
        inner = "".join(
            f'<div><span>{escape(one.name)}</span><span class="bar"><i style="width:{100 * one.index:.2f}%"></i></span>'
            f"<span>{100 * one.index:.1f} % ({100 * one.low:.1f} to {100 * one.high:.1f})</span></div>"
            for one in [one for one in found.indices if one.output == output][:_FEW_INPUTS]
        )
        bars.append(f'<h3>{escape(output)}</h3><div class="card fall">{inner}</div>')
    note = (
        f"{len(found.inputs)} numbers differ between the starts of {found.flights:,} flights, of which {found.lost:,} were lost. "
        "Odds are from a logistic regression on each number and its square; bars show the share of an output's variance that "
        "one number alone explains (Sobol's first-order index, 95 % bootstrap interval)."
    )
    folded = (
        f"<details open><summary>shares of the variance, by output</summary>{''.join(bars)}</details>" if bars else ""
    )
    return f'<p class="soft">{note}</p>{table if rows else ""}{folded}'


def takeovers(records: FlightRecords) -> str:
    """Return the take-overs by the guide of each guarded phase, and the flights that the guard saves and spoils."""
    rows, success = [], records.flights.success
    for phase in records.flights.phases:
        if phase.takeover is not None:
            taken = phase.entered & (phase.takeover >= 0)
            cells = (f"{int(count):,}" for count in (phase.entered.sum(), taken.sum(), (taken & success).sum()))
            rows.append(f"<tr><td>{escape(phase.name)}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    head = "<tr><th>phase</th><th>entered</th><th>taken over</th><th>of these ended the mission</th></tr>"
    table = wide_table("take-overs", head + "".join(rows))
    return f'{table}<p class="soft">{escape(guard_words(records.guard))}</p>' if records.guard is not None else table


def feasibility(records: FlightRecords) -> str:
    """Return the feasibility of the rest of the mission at entry to each phase, and the box from which it succeeds."""
    parts = []
    for phase in records.flights.phases:
        if phase.feasible is None or not phase.entered.any():
            continue
        starts, rows = records.starts.get(phase.name), phase.entered
        found = handover_feasibility(
            phase.name,
            phase.channels,
            phase.enter[rows],
            phase.feasible[rows].astype(np.float64),
            records.flights.success[rows],
            starts=None if starts is None else starts.values,
        )
        parts.append(f"<h3>{escape(phase.name)}</h3>{feasibility_html(found)}")
    return "".join(parts)


def _handover(records: FlightRecords, phase: FlownPhase, rows: Sequence[ChannelShift]) -> str:
    """Return the comparison for one phase: a verdict, and the distributions of the channels that moved most."""
    starts, name = records.starts[phase.name], escape(phase.name)
    far = [row for row in rows if row.differs]
    if far:
        words = ", ".join(f"{escape(row.channel)} ({row.distance:.2f})" for row in far)
        verdict = f'<p class="warning">Flights enter {name} in states unlike its training starts: {words}.</p>'
    else:
        largest = max(row.distance for row in rows)
        verdict = f'<p class="good">No channel differs: the largest distance is {largest:.3f}.</p>'
    charts = []
    for row in sorted(rows, key=lambda row: -row.distance)[: _MOST_CHARTS if far else _FEW_CHARTS]:
        at = phase.channels.index(row.channel)
        pair = [("flown", phase.enter[phase.entered, at]), ("training starts", starts.values[:, at])]
        charts.append(histogram(f"{row.channel}, distance {row.distance:.3f}", row.channel, pair))
    return (
        f'<h3>{name}</h3>{verdict}<p class="soft">Training starts: {escape(starts.source)}.</p>'
        f"<details{' open' if far else ''}><summary>distributions</summary>"
        f'<div class="charts">{"".join(charts)}</div></details>'
    )


def telemetry(records: FlightRecords) -> str:
    """Return every channel over time, folded."""
    charts = "".join(time_chart(records, [name]) for name in records.channels())
    note = f"Bands span the 5th to 95th percentile of the first {records.bands.flights:,} flights, while they fly."
    undrawn = [f"flight {flight.number} ({flight.outcome})" for flight in records.chosen if not flight.tracks]
    if undrawn:
        note += f" Without a clock that is finite, these cannot be drawn: {', '.join(undrawn)}."
    note = escape(note)
    return (
        f'<p class="soft">{note}</p><details id="all"><summary>all {len(records.channels())} channels</summary>'
        f'<div class="charts">{charts}</div></details>'
    )


def two_flights(records: FlightRecords) -> str:
    """Return the table of differences between two chosen flights, which the page's script fills."""
    if sum(bool(flight.tracks) for flight in records.chosen) < 2:
        return '<p class="soft">There are no two chosen flights to compare.</p>'
    groups = '<tr><td></td><th scope="colgroup" colspan="3">at the clock</th><th></th>'.replace(
        "<th></th>", "<td></td>"
    )
    groups += '<th scope="colgroup" colspan="3">at the end of each</th></tr>'
    names = ("channel", "A", "B", "B &minus; A", "largest difference", "A", "B", "B &minus; A")
    head = groups + "<tr>" + "".join(f'<th scope="col">{name}</th>' for name in names) + "</tr>"
    return (
        '<p id="compare-none" class="soft">Choose a second flight under &ldquo;compare with&rdquo; in the bar at the bottom: '
        "charts and replay show it too, and the differences are listed here.</p>"
        '<div id="compare-table" hidden><p id="compare-who"></p><div class="scroll card" tabindex="0" role="region" '
        f'aria-label="differences between two flights"><table id="differences"><thead>{head}</thead><tbody></tbody></table>'
        "</div></div>"
    )


def provenance(records: FlightRecords) -> str:
    """Return where the numbers come from, and the commands that reproduce them."""
    origin = records.provenance
    facts = {
        "mission digest": records.digest,
        "flight seed": records.seed,
        "mission file": origin.mission_file,
        "engine": origin.engine,
        "training seed": origin.training_seed,
        "python": origin.python,
        "numpy": origin.numpy,
        "platform": origin.platform,
        "devices": origin.devices,
        "cores": origin.cores,
        "jax": origin.jax,
        "jaxlib": origin.jaxlib,
        "xla flags": origin.xla_flags,
    }
    rows = "".join(f"<dt>{name}</dt><dd>{escape(str(value)) or '-'}</dd>" for name, value in facts.items())
    table = "".join(
        f'<tr><td>{escape(phase.name)}</td><td class="left">{escape(phase.flown_by)}</td>'
        f'<td class="left">{escape(phase.plugin)}</td>'
        f'<td class="left">{escape(phase.distribution)} {escape(phase.version)}</td>'
        f'<td class="left">{escape(phase.source_sha256[:12])}</td><td class="left">{escape((policy or "-")[:12])}</td></tr>'
        for phase, policy in zip(records.headers, origin.policies_sha256, strict=True)
    )
    names = ("phase", "flown by", "plugin", "distribution", "source", "policy")
    head = "".join(f'<th class="left">{name}</th>' for name in names)
    commands = escape("\n".join(origin.commands))
    return f'<pre tabindex="0">{commands}</pre>{wide_table("plugins and policies", f"<tr>{head}</tr>{table}")}<dl>{rows}</dl>'
