"""The sections that rockets add to the report page: `sections`, for `PhaseSpec.report`.

Each part draws only what the channels of a mission allow, so one function serves every phase.
"""

from __future__ import annotations

from mission import FlightRecords, Section
from mission_rocket.report.flight import flight
from mission_rocket.report.propellant import propellant
from mission_rocket.report.replay import replay
from mission_rocket.report.touchdown import touchdown


def sections(records: FlightRecords) -> tuple[Section, ...]:
    """Return replay, charts of the flight, touchdown and propellant, each if its channels exist."""
    return (*replay(records), *flight(records), *touchdown(records), *propellant(records))
