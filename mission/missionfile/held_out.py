"""Check from the settings that enough starts are held out for the gate of a phase."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence

from mission.errors import InputError
from mission.missionfile.models import MissionFile
from mission.missionfile.phases import Phase, TrainedPhase

log = logging.getLogger("mission")


def check_gate_starts(mission: MissionFile, phases: Sequence[Phase]) -> None:
    """Check that the starts that are held out for each gate are enough to show its success_low.

    Raises:
      InputError: a gate can never be passed.
    """
    for i, phase in enumerate(phases):
        gate, before = phase.entry.gate, mission.phases[i - 1] if i else None
        if gate is None or not isinstance(phase, TrainedPhase):
            continue
        rows = None if before is None else before.bank.held_out_flights
        starts = gate.number(rows) if rows is None else min(gate.number(rows), rows)
        if reason := gate.out_of_reach(starts):
            more = "" if before is None else f', or raise bank.flights or bank.held_out of "{before.name}"'
            raise InputError(
                mission.source.where(("phases", i, "gate", "success_low")),
                expected=reason,
                found=str(gate.success_low),
                remedy=f"lower it{more}",
            )


def warn_of_repeated_starts(phases: Sequence[Phase]) -> None:
    """Warn if a gate asks for more flights than flights of the bank before it are held out.

    It compares settings only, so settings that fit never warn, however many flights succeed.
    """
    for before, after in itertools.pairwise(phases):
        gate, rows = after.entry.gate, before.entry.bank.held_out_flights
        if isinstance(after, TrainedPhase) and gate is not None and gate.number(rows) > rows:
            log.warning(
                'phase "%s": %d gate flights start from at most %d held-out rows, and the interval of their success '
                'counts no more than these; raise bank.flights of "%s", or leave gate.flights out',
                after.name,
                gate.number(rows),
                rows,
                before.name,
            )
