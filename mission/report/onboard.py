"""Print the result of an export on the terminal."""

from __future__ import annotations

from typing import TextIO

from mission.errors import counted
from mission.flight.onboard.exporting import ExportSummary
from mission.report.terminal import Printer


def print_export(summary: ExportSummary, stream: TextIO) -> None:
    """Print the difference of an export from its policy, its speed, and its requirements."""
    parity, interface, printer = summary.parity, summary.interface, Printer(stream)
    printer.line(
        f'{interface.target} of phase "{interface.phase}": {counted(len(interface.observations), "observation")}, '
        f"{counted(len(interface.actions), 'action')}, {interface.rate_hz:g} Hz, in {summary.folder}"
    )
    printer.line(
        f"parity: {parity.largest_difference:.2g} at most (bound {parity.bound:g}) from {parity.compared_with}, "
        f"on {parity.observations:,} observations from flights"
    )
    printer.line(
        f"from the policy as it flies, in float32: {parity.from_flown:.2g}; that itself rounds by {parity.rounding_of_flown:.2g}"
    )
    if parity.observation_difference is not None:
        channels = ", ".join(channel.name for channel in interface.channels)
        printer.line(f"observation from {channels}: {parity.observation_difference:.2g} at most")
    rows = [
        [one.build, f"{one.median_us:.1f}", f"{one.undisturbed_us:.1f}", f"{one.worst_us:.1f}", f"{one.calls:,}"]
        for one in parity.latency
    ]
    columns = ["build", "median, us", "worst input, us", "worst call, us", "calls"]
    printer.table("latency of one control step", columns, ("build",), rows)
    if parity.stack_bytes is not None:
        symbols = ", ".join(parity.undefined_symbols or ()) or "nothing"
        printer.line(f"stack: {parity.stack_bytes:,} bytes at most; from other libraries: {symbols}")
