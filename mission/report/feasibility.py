"""The feasibility of the rest of a mission at its hand-overs: scores, alarms, largest box and maps, as data and page.

Shapes: N flights that entered a phase, C channels, M training starts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mission.flight.feasibility.envelope import Box, Map, Side, feasibility_map, largest_box, telling_channels
from mission.flight.feasibility.scores import Scores, scores
from mission.report.charts import Chart, number
from mission.storage.markup import escape, wide_table
from mission.strict import Fraction01, Natural, StrictModel

ALARM = 0.5  # feasibility below which a hand-over is an alarm
_MAPPED, _BOXED = 4, 8  # telling channels of the maps and of the box, if none are named
_TAIL = 0.995  # of the training starts; a flight further out than these is unlike them


class HandoverFeasibility(StrictModel):
    """The flights that entered one phase: the feasibility of the rest, its scores, and the box from which it succeeds.

    `unlikely` is the share of flights that entered with a feasibility below 0.5; `unlike` the share that entered further from the mean of
    the training starts than 99.5 % of these (Mahalanobis distance), None if those are not known.
    """

    phase: str
    flights: Natural
    succeeded: Natural
    scores: Scores | None
    unlikely: Fraction01
    unlike: Fraction01 | None
    box: Box
    maps: tuple[Map, ...]


def handover_feasibility(
    phase: str,
    channels: Sequence[str],
    enter: np.ndarray,
    feasible: np.ndarray,
    success: np.ndarray,
    *,
    probability: float = 0.99,
    confidence: float = 0.95,
    chosen: Sequence[str] = (),
    starts: np.ndarray | None = None,
) -> HandoverFeasibility:
    """Return the analysis of one hand-over.

    Args:
      phase: the phase that is entered.
      channels, enter: C names, and their values [N, C] on entering.
      feasible: [N], from the network.
      success: bool [N], of the mission.
      probability, confidence: of the box.
      chosen: channels of the maps, and of the box; empty: the most telling ones, at most four and eight.
      starts: [M, C], what the phase was trained from; None if unknown.
    """
    # a channel that is NaN in most flights says nothing about a hand-over, and would leave no flight
    known = [at for at in range(len(channels)) if 2 * np.isfinite(enter[:, at]).sum() >= len(enter)]
    channels, enter = [channels[at] for at in known], enter[:, known]
    starts = None if starts is None else starts[:, known]
    finite = np.isfinite(enter).all(axis=1) & np.isfinite(feasible)
    enter, feasible, success = enter[finite], feasible[finite], success[finite]
    moving = [
        at
        for at in range(len(channels) if len(enter) else 0)
        if enter[:, at].std() > 1e-9 * max(1.0, np.abs(enter[:, at]).max())
    ]
    names = [channels[at] for at in moving if not chosen or channels[at] in chosen]

    def columns(wanted: Sequence[str]) -> np.ndarray:
        return enter[:, [channels.index(name) for name in wanted]].astype(np.float64)

    table = columns(names)
    telling = [*chosen] or telling_channels(names, table, feasible)
    mapped, boxed = telling[:_MAPPED], [name for name in telling[:_BOXED] if name in names]
    pairs = [(a, b) for i, a in enumerate(mapped) for b in mapped[i + 1 :] if {a, b} <= set(names)]
    return HandoverFeasibility(
        phase=phase,
        flights=len(success),
        succeeded=int(success.sum()),
        scores=scores(feasible, success),
        unlikely=float((feasible < ALARM).mean()) if len(feasible) else 0.0,
        unlike=None if starts is None or not len(enter) else _unlike(enter[:, moving], starts[:, moving]),
        box=largest_box(boxed, columns(boxed), feasible, success, probability, confidence),
        maps=tuple(
            feasibility_map((a, b), table[:, names.index(a)], table[:, names.index(b)], feasible) for a, b in pairs
        ),
    )


def _unlike(enter: np.ndarray, starts: np.ndarray) -> float | None:
    """Return the share of flights [N, C] further from the mean of the starts [M, C] than 99.5 % of these; None without any."""
    starts = starts[np.isfinite(starts).all(axis=1)].astype(np.float64)
    if not starts.size:
        return None
    mean, spread = starts.mean(axis=0), starts.std(axis=0)
    scale = np.where(spread > 0.0, spread, 1.0)
    centred = (starts - mean) / scale
    values, vectors = np.linalg.eigh(centred.T @ centred / len(centred))
    kept = values > 1e-6 * values.max()
    root = vectors[:, kept] / np.sqrt(values[kept])
    own, others = (((rows @ root) ** 2).sum(axis=1) for rows in (centred, (enter - mean) / scale))
    return float((others > np.quantile(own, _TAIL)).mean())


def feasibility_html(found: HandoverFeasibility) -> str:
    """Return the HTML of one hand-over."""
    charts = [_reliability(found.scores)] if found.scores is not None else []
    charts += [_map_chart(one, found.box) for one in found.maps]
    return (
        f'<p class="soft">{escape(_sentence(found))}</p>'
        + _box_table(found.box)
        + f'<div class="charts">{"".join(charts)}</div>'
    )


def _sentence(found: HandoverFeasibility) -> str:
    share = 100 * found.succeeded / max(found.flights, 1)
    text = f"{found.succeeded:,} of {found.flights:,} flights that entered ended the mission ({share:.2f} %). "
    text += f"{100 * found.unlikely:.2f} % entered with a feasibility below {ALARM:g}."
    if found.unlike is not None:
        text += f" {100 * found.unlike:.2f} % entered unlike the training starts (0.50 % would be chance)."
    if found.scores is not None:
        one = found.scores
        text += (
            f" Brier score {one.brier:.4f} (a constant: {one.constant_brier:.4f}), log loss {one.log_loss:.4f} "
            f"({one.constant_log_loss:.4f}), calibration error {100 * one.calibration_error:.2f} points."
        )
    return text


def box_words(box: Box) -> str:
    """Return a sentence on the largest box and its probability."""
    if not box.holds and not box.sides:
        return f"no box over these channels has a probability of {100 * box.probability:g} %"
    verdict = "" if box.holds else f", so that {100 * box.probability:g} % is not shown"
    return (
        f"{100 * box.share:.1f} % of the flights enter inside of it; {box.succeeded:,} of the {box.flights:,} that did not shape it "
        f"succeed, at least {100 * box.low:.2f} % at {100 * box.confidence:g} % confidence{verdict}"
    )


def side_words(side: Side) -> str:
    """Return the bounds of one channel."""
    if side.low is None or side.high is None:
        return f"at most {number(side.high)}" if side.high is not None else f"at least {number(side.low or 0.0)}"
    return f"{number(side.low)} to {number(side.high)}"


def _box_table(box: Box) -> str:
    rows = "".join(
        f"<tr><td>{escape(one.channel)}{' (limits it)' if one.channel == box.limiting else ''}</td>"
        f"<td>{escape(side_words(one))}</td><td>{100 * one.cut:.2f} %</td></tr>"
        for one in box.sides
    )
    head = "<tr><th>channel</th><th>inside</th><th>flights beyond</th></tr>" if rows else ""
    note = f'<p class="soft">The largest box: {escape(box_words(box))}.{"" if rows else " It bounds nothing."}</p>'
    return f"{note}{wide_table(f'the largest box: {box_words(box)}', head + rows)}<p></p>" if rows else note


def _reliability(found: Scores) -> str:
    """Return the reliability diagram: how often flights succeed by the probability that they had."""
    predicted = np.array([one.predicted for one in found.bins])
    share, low, high = (np.array([getattr(one, name) for one in found.bins]) for name in ("succeeded", "low", "high"))
    least = max(0.0, min(float(predicted.min()), float(low.min())) - 0.02)
    chart = Chart("reliability", "feasibility on entering", "share that succeeded", (least, 1.0), (least, 1.0))
    chart.line(np.array([least, 1.0]), np.array([least, 1.0]), "c3 median", "perfect")
    for at, bottom, top in zip(predicted, low, high, strict=True):
        chart.line(np.array([at, at]), np.array([bottom, top]), "c0", "95 %")
    return chart.points(predicted, share, "c0 few", "flights").html()


def _map_chart(one: Map, box: Box) -> str:
    """Return a map of feasibility over two channels, with the sides of the box."""
    x, y = (np.array(edges) for edges in one.edges)
    least = min(share for row in one.cells for share in row if share is not None)
    first, second = one.channels
    chart = Chart(f"{second} over {first}", first, second, (x[0], x[-1]), (y[0], y[-1])).cells(x, y, one.cells, least)
    for side in box.sides:
        for value in (side.low, side.high):
            if value is not None and side.channel == first:
                chart.rule_x(value, css="limit")
            if value is not None and side.channel == second:
                chart.rule_y(value)
    return chart.named("c2", "100 %").named("limit", f"{100 * least:.0f} %, and box").html()
