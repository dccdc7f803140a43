"""Tables on the terminal: the summary of a flown mission, and the comparison of two sides.

Names, causes and channels come from files and plugins, so everything is printed as text, without markup.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mission.errors import printable
from mission.flight.feasibility.store import FeasibilityRecord
from mission.flight.guard.counts import TakeOvers, guard_words
from mission.flight.guard.store import GuardRecord
from mission.flight.splitting import Splitting
from mission.missionfile.pilots import NAMED_PILOTS, onnx_file, pilot_in_words, unguarded
from mission.missionfile.statistics import PairedMean, Rate
from mission.report.compare import Comparison
from mission.report.envelope import Envelope
from mission.report.feasibility import ALARM, box_words, side_words
from mission.report.sensitivity import Odds, Sensitivity
from mission.report.summary import MissionSummary, PhaseSummary

_MOST_INPUTS, _FEW_INPUTS = 8, 3  # of the losses, and of an output
_LONGEST_WORD = 24  # characters of a name that a narrow table does not cut


class Printer:
    """Prints tables and lines to the stream of the results."""

    def __init__(self, stream: TextIO) -> None:
        self.console = Console(file=stream, width=None if stream.isatty() else 120)

    def table(self, title: str, columns: Sequence[str], left: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table; the columns `left` are aligned to the left."""
        table = Table(box=SIMPLE_HEAD, title=Text(printable(title)))
        for at, column in enumerate(columns):
            words = [word for row in rows for word in row[at].split()] if column in left else []
            table.add_column(
                column,
                justify="left" if column in left else "right",
                no_wrap="interval" in column,
                min_width=min(max(map(len, words), default=0), _LONGEST_WORD),
            )
        for row in rows:
            table.add_row(*(Text(printable(cell)) for cell in row))
        self.console.print(table)

    def line(self, text: str, style: str = "") -> None:
        """Print one line."""
        self.console.print(Text(printable(text), style=style))


def print_summary(report: MissionSummary, stream: TextIO) -> None:
    """Print pilots, success with intervals, mean returns, failures by cause, and the worst value of each limit."""
    printer = Printer(stream)
    columns = [
        "phase",
        "flown by",
        "entered",
        "succeeded",
        "rate given alive",
        "95 % interval",
        "failed by",
        "duration p50",
    ]
    rewarded = report.returns.mean is not None
    printer.table(
        f"{report.mission}: {report.flights:,} flights by {_pilots(report)}, seed {report.seed}",
        columns + ["mean return"] * rewarded,
        ("phase", "flown by", "failed by"),
        [_phase_cells(phase) + [_number(phase.returns.mean)] * rewarded for phase in report.phases],
    )
    for phase in report.phases:
        if phase.flown_by not in NAMED_PILOTS:
            printer.line(f"{phase.name}: flown by {pilot_in_words(phase.flown_by)}")
    for phase in report.phases:
        for name, limit in phase.limits.items():
            bounds = " and ".join(
                f"{side} {bound:g}"
                for side, bound in (("at least", limit.minimum), ("at most", limit.maximum))
                if bound is not None
            )
            printer.line(
                f"{phase.name}: {printable(name)} {bounds}; worst {_number(limit.worst)}; {limit.violated} flights beyond"
            )
    for phase in report.phases:
        if phase.outside:
            causes = ", ".join(f"{printable(cause)} {n}" for cause, n in phase.outside.items())
            printer.line(f"{phase.name}: went on outside of its box: {causes}")
    _print_takeovers(printer, report)
    if report.sensitivity is not None:
        _print_sensitivity(printer, report.sensitivity)
    success, returns = report.success, report.returns
    rates = tuple(100 * (value or 0.0) for value in (success.rate, success.low, success.high))
    printer.line(
        "success {} of {}: {:.2f} % ({:.2f} to {:.2f} %)".format(success.count, report.flights, *rates), "bold"
    )
    if report.by_boxes is not None:
        inside = report.by_boxes
        rates = tuple(100 * (value or 0.0) for value in (inside.rate, inside.low, inside.high))
        printer.line("by the boxes of all phases {}: {:.2f} % ({:.2f} to {:.2f} %)".format(inside.count, *rates))
    if rewarded:
        spread = f"{_number(returns.p05)} to {_number(returns.p95)}"
        printer.line(f"return {_number(returns.mean)} in the mean, {spread} in 90 % of the flights", "bold")
    if report.interval_note():
        printer.line(f"note: {report.interval_note()}")


def print_feasibility(record: FeasibilityRecord, stream: TextIO) -> None:
    """Print the scores of the feasibility of each phase on flights that were not used to fit it."""
    columns = ("entering", "flights", "succeeded", "Brier (constant)", "log loss (constant)", "calibration error")
    rows = []
    for phase in record.phases:
        if (one := phase.scores) is not None:
            pairs = (one.brier, one.constant_brier), (one.log_loss, one.constant_log_loss)
            brier, loss = (f"{value:.4f} ({constant:.4f})" for value, constant in pairs)
            rows.append([phase.name, f"{one.flights:,}", f"{one.succeeded:,}", brier, loss])
            rows[-1].append(f"{100 * one.calibration_error:.2f} points")
    title = (
        f"{record.mission}: feasibility from {record.flights:,} flights, seed {record.seed}, scores of a fifth of them"
    )
    Printer(stream).table(title, columns, ("entering",), rows)


def _print_takeovers(printer: Printer, report: MissionSummary) -> None:
    """Print how often guides took over, and what the guard saves and spoils."""
    for phase in report.phases:
        if phase.takeovers is not None:
            taken, succeeded = phase.takeovers.flights, phase.takeovers.succeeded
            printer.line(f"{phase.name}: its guide took over in {taken:,} flights; {succeeded:,} of these succeeded")
    if report.guard is not None:
        printer.line(guard_words(report.guard))


def print_guard(record: GuardRecord, stream: TextIO) -> None:
    """Print the take-overs of the guides and their effect, on flights that were not used to fit or choose the guard."""
    printer, found = Printer(stream), record.comparison
    for one in record.guards:
        where = f"margin {one.margin:.3g}" if one.margin is not None else f"off: {one.reason}"
        printer.line(f"{one.phase}: {where}")
    rows = [_takeover_cells(name, one) for name, one in [*found.phases.items(), ("any phase", found.any_phase)]]
    columns = (
        "phase",
        "lost without",
        "take-overs in them",
        "saved",
        "95 % interval",
        "false alarms",
        "95 % interval ",
        "spoiled",
    )
    title = f"{record.mission}: {found.flights:,} flights with and without guard, seed {found.seed}"
    printer.table(title, columns, ("phase",), rows)
    sides = [f"{one.count:,}, {_shares(one)}" for one in (found.without, found.guarded)]
    printer.line(f"success without guard {sides[0]}; with it {sides[1]}; p = {found.success.p_value:.2g}", "bold")


def _takeover_cells(name: str, one: TakeOvers) -> list[str]:
    saved, alarms = (f"{100 * share.low:.1f} to {100 * share.high:.1f} %" for share in (one.saved, one.false_alarms))
    share = f" ({100 * (one.false_alarms.rate or 0.0):.2f} %)"
    cells = [f"{one.lost:,}", f"{one.in_lost:,}", f"{one.saved.count:,}", saved, f"{one.false_alarms.count:,}{share}"]
    return [name, *cells, alarms, f"{one.spoiled:,}"]


def _shares(one: Rate) -> str:
    return "{:.2f} % ({:.2f} to {:.2f} %)".format(*(100 * (value or 0.0) for value in (one.rate, one.low, one.high)))


def print_splitting(found: Splitting, stream: TextIO) -> None:
    """Print the probability of a loss by phase and cause, its interval, and what splitting gained."""
    printer = Printer(stream)
    rows = [
        [phase.name, f"{phase.lanes:,}", f"{100 * sum(phase.lost.values()):.4g} %", causes or "-"]
        for phase in found.phases
        for causes in [", ".join(f"{printable(cause)} {100 * p:.3g} %" for cause, p in phase.lost.items() if p)]
    ]
    title = (
        f"{found.mission}: multilevel splitting, {found.batches} batches of {found.lanes:,} lanes, seed {found.seed}"
    )
    printer.table(title, ("phase", "lanes", "lost of all flights", "failed by"), ("phase", "failed by"), rows)
    printer.line(f"lost {100 * found.loss:.4g} % ({100 * found.low:.3g} to {100 * found.high:.3g} %)", "bold")
    if found.plain_flights is not None and found.gain is not None:
        printer.line(
            f"{found.plain_flights:,.0f} plain flights would give an interval as wide; these lanes took the steps of "
            f"{found.cost_flights:,.0f}, {found.gain:.3g} times fewer"
        )


def print_envelope(envelope: Envelope, stream: TextIO) -> None:
    """Print the largest box at each hand-over, and the alarms."""
    printer = Printer(stream)
    for one in envelope.handovers:
        error = "" if one.scores is None else f", calibration error {100 * one.scores.calibration_error:.2f} points"
        unlikely = f"{100 * one.unlikely:.2f} % entered with a feasibility below {ALARM:g}"
        printer.line(f"{one.phase}: {one.succeeded:,} of {one.flights:,} flights succeeded; {unlikely}{error}", "bold")
        printer.line(f"{one.phase}: {box_words(one.box)}")
        for side in one.box.sides:
            mark = ", which limits it" if side.channel == one.box.limiting else ""
            printer.line(f"  {side.channel}: {side_words(side)} ({100 * side.cut:.2f} % beyond{mark})")


def _print_sensitivity(printer: Printer, found: Sensitivity) -> None:
    """Print the inputs on which the losses depend, and for each output those that explain most of its variance."""
    title = f"odds of a loss ({found.lost:,} of {found.flights:,}), over those at the mean of a start value"
    clear = [one for one in found.losses if one.clarity() > 0.0]
    rows = [[one.name, _odds(one.below), _odds(one.above)] for one in clear[:_MOST_INPUTS]]
    if rows:
        columns = ("start value", "2 sd below, 95 % interval", "2 sd above, 95 % interval")
        printer.table(title, columns, ("start value",), rows)
    else:
        printer.line(f"{title}: none is clear")
    rows = []
    for output in dict.fromkeys(one.output for one in found.indices):
        of_output = [one for one in found.indices if one.output == output][:_FEW_INPUTS]
        rows += [
            [
                output if at == 0 else "",
                one.name,
                f"{100 * one.index:.1f} %",
                f"{100 * one.low:.1f} to {100 * one.high:.1f} %",
            ]
            for at, one in enumerate(of_output)
        ]
    if rows:
        columns = ("output", "start value", "share", "95 % interval")
        title = "share of the variance that one start value alone explains (Sobol, first order)"
        printer.table(title, columns, columns[:2], rows)


def _odds(one: Odds) -> str:
    return f"{one.ratio:.3g} ({one.low:.3g} to {one.high:.3g})"


def _pilots(report: MissionSummary) -> str:
    """Return the pilots of a mission, each once, in the order of flight."""
    return " and ".join(dict.fromkeys(map(_pilot, report.phases)))


def _pilot(phase: PhaseSummary) -> str:
    """Return the pilot of a phase, short enough for a table."""
    pilot = phase.flown_by
    if pilot in NAMED_PILOTS:
        return pilot
    if onnx_file(pilot) is not None:
        return "ONNX"
    return "folder" if unguarded(pilot) == pilot else "guarded folder"


def _phase_cells(phase: PhaseSummary) -> list[str]:
    failures = ", ".join(f"{printable(cause)} {n}" for cause, n in phase.causes.items() if n) or "-"
    seconds = phase.duration_s.p50
    return [
        phase.name,
        _pilot(phase),
        str(phase.entered),
        str(phase.succeeded),
        "-" if phase.rate is None else f"{100 * phase.rate:.2f} %",
        f"{100 * phase.low:.2f} to {100 * phase.high:.2f} %",
        failures,
        "-" if seconds is None else f"{seconds:.2f} s",
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def print_comparison(result: Comparison, stream: TextIO) -> None:
    """Print the paired success and return of the mission and of each phase, failures by cause, and the last end."""
    printer = Printer(stream)
    title = (
        f"{result.second.name} compared with {result.first.name}: {result.flights:,} flights each, seed {result.seed}"
    )
    rows = []
    for name, pair in [("mission", result.success), *((phase.name, phase.success) for phase in result.phases)]:
        counts = [str(count) for count in (pair.flights, pair.both, pair.only_first, pair.only_second)]
        change = "-" if pair.difference is None else f"{100 * pair.difference:+.2f} %"
        interval = f"{100 * pair.low:+.2f} to {100 * pair.high:+.2f} %"
        rows.append([name, *counts, change, interval, f"{pair.p_value:.2g}"])
    columns = ("", "flights", "both", "only first", "only second", "second - first", "95 % interval", "p")
    printer.table(title, columns, ("",), rows)
    for name, mean in [("mission", result.returns), *((phase.name, phase.returns) for phase in result.phases)]:
        if mean.mean is not None:
            printer.line(f"{name}: return {_difference(mean)} over {mean.flights} flights")
    for phase in result.phases:
        for cause, n in phase.causes.items():
            if n.first or n.second:
                printer.line(f"{phase.name}: {printable(cause)}: first {n.first}, second {n.second}")
    for phase in result.phases[-1:]:
        for channel, mean in phase.end.items():
            if mean.low is not None and mean.high is not None and not mean.low <= 0.0 <= mean.high:
                printer.line(f"{phase.name}: {printable(channel)} at the end {_difference(mean)}")


def _difference(mean: PairedMean) -> str:
    """Return a paired difference, the second minus the first, with its 95 % interval."""
    interval = "" if mean.low is None or mean.high is None else f" ({mean.low:+.4g} to {mean.high:+.4g})"
    return f"{mean.mean:+.4g}{interval}"
