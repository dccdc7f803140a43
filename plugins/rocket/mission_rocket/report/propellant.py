"""Propellant: what each phase uses and leaves, and the excess over the optimum if a phase reports it."""

from __future__ import annotations

import numpy as np

from mission import FlightRecords, Section, escape, histogram


def propellant(records: FlightRecords) -> tuple[Section, ...]:
    """Return a budget by phase, over the flights that succeeded in it."""
    rows = []
    for phase in records.flights.phases:
        ended = phase.entered & phase.success
        before, after = phase.at_enter("propellant_kg"), phase.at_end("propellant_kg")
        if before is None or after is None or not ended.any():
            continue
        cells = [_spread(before[ended]), _spread((before - after)[ended]), _spread(after[ended])]
        rows.append("".join(f"<td>{cell}</td>" for cell in (escape(phase.name), *cells)))
    if not rows:
        return ()
    head = "<tr><th>phase</th><th>on entering (kg)</th><th>used (kg)</th><th>left (kg)</th></tr>"
    table = f'<div class="scroll card" tabindex="0" role="region" aria-label="propellant over the optimum"><table>{head}{"".join(f"<tr>{row}</tr>" for row in rows)}</table></div>'
    return (Section("Propellant", f'<p class="soft">Median, and 5 to 95 %.</p>{table}{_regret(records)}'),)


def _spread(values: np.ndarray) -> str:
    p05, p50, p95 = np.percentile(values, (5, 50, 95))
    return f"{p50:,.0f} &nbsp; ({p05:,.0f} to {p95:,.0f})"


def _regret(records: FlightRecords) -> str:
    last, name = records.flights.phases[-1], "propellant_over_optimum_percent"
    values = last.at_end(name)
    if values is None:
        return _stored(records, name)
    pairs = [("chain", values[last.entered & last.success])]
    if records.guide is not None:
        other = records.guide.phases[-1]
        guided = other.at_end(name)
        if guided is not None:
            pairs.append(("guides", guided[other.entered & other.success]))
    chart = histogram("propellant over the optimum", "percent over the optimum", pairs)
    return f'<div class="charts" style="margin-top:12px">{chart}</div>'


def _stored(records: FlightRecords, name: str) -> str:
    """Return the result that `benchmarks/landing.py --store` stored with the policy of the landing, if there is one."""
    stored = records.headers[-1].benchmark
    if stored is None or stored.channel != name:
        return ""
    pairs = [(who, np.asarray(values, float)) for who, values in stored.values.items()]
    means = ", ".join(f"{who} {values.mean():.2f} % in the mean" for who, values in pairs)
    chart = histogram("propellant over the optimum", "percent over the optimum", pairs)
    note = f'<p class="soft">{escape(stored.note)}: {escape(means)}. {escape(stored.command)}</p>'
    return f'{note}<div class="charts" style="margin-top:12px">{chart}</div>'
