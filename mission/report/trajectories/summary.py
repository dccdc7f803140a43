"""How single flights ended: on the terminal, and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, TextIO

from mission.report.terminal import Printer
from mission.report.trajectories.record import Trajectory


def print_trajectories(trajectories: Sequence[Trajectory], stream: TextIO) -> None:
    """Print each phase of each flight."""
    first, printer = trajectories[0], Printer(stream)
    rows = [
        [
            str(flight.number),
            phase.name,
            phase.cause if phase.success else f"lost: {phase.cause}",
            f"{len(phase.time_s) - 1:,}",
            *(f"{phase.time_s[at]:.2f}" for at in (0, -1)),
        ]
        for flight in trajectories
        for phase in flight.phases
    ]
    columns = ["flight", "phase", "outcome", "control steps", "from (s)", "to (s)"]
    printer.table(f"{first.mission}: single flights, seed {first.seed}", columns, ("phase", "outcome"), rows)
    for flight in trajectories:
        printer.line(f"flight {flight.number}: {flight.outcome}", "bold")


def trajectories_json(trajectories: Sequence[Trajectory]) -> str:
    """Return how flights ended, with their last telemetry, as JSON without NaN."""
    first = trajectories[0]
    flights = [
        {
            "number": flight.number,
            "success": flight.success,
            "outcome": flight.outcome,
            "duration_s": _finite(flight.duration_s),
            "phases": [
                {
                    "name": phase.name,
                    "success": phase.success,
                    "cause": phase.cause,
                    "steps": len(phase.time_s) - 1,
                    "returns": _finite(phase.returns),
                    "end": {name: _finite(values[-1]) for name, values in phase.channels.items()},
                }
                for phase in flight.phases
            ],
            "events": [event._asdict() for event in flight.events()],
        }
        for flight in trajectories
    ]
    head = {"mission": first.mission, "digest": first.digest, "seed": first.seed, "policy": first.policy}
    return json.dumps(head | {"flights": flights}, indent=2)


def _finite(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None
