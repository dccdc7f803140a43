"""What the messages of CCSDS share: header, metadata and times."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import Field

from mission_rocket.trajectories.course import Course, Leg, Place

FRAME = "ITRF2000"
ORIGINATOR = "MISSION-ROCKET"


class Message(Place):
    """The options of a CCSDS message."""

    object_name: str | None = Field(None, min_length=1, max_length=80, description="None: the mission's name.")
    object_id: str | None = Field(None, min_length=1, max_length=80, description="None: MISSION-SEED-NUMBER.")
    creation_date: Annotated[datetime | None, Field(description="None: now.")] = None

    def header(self, kind: str, version: str) -> list[str]:
        """Return the lines at the head of a message."""
        made = self.creation_date or datetime.now(UTC)
        made = made if made.tzinfo is None else made.astimezone(UTC)
        return [
            f"CCSDS_{kind}_VERS = {version}",
            f"CREATION_DATE = {made:%Y-%m-%dT%H:%M:%S}",
            f"ORIGINATOR = {ORIGINATOR}",
        ]

    def subject(self, course: Course, leg: Leg) -> list[str]:
        """Return the lines of metadata that name a flight and one of its phases."""
        flight = course.flight
        return [
            f"COMMENT flight {flight.number} of {flight.mission}, seed {flight.seed}: phase {leg.phase}",
            f"OBJECT_NAME = {self.object_name or flight.mission}",
            f"OBJECT_ID = {self.object_id or f'{flight.mission}-{flight.seed}-{flight.number}'}",
            "CENTER_NAME = EARTH",
        ]

    def span(self, leg: Leg) -> list[str]:
        """Return the lines of metadata with the time system and the ends of a phase."""
        return [
            "TIME_SYSTEM = UTC",
            f"START_TIME = {self.text(leg.time_s[0])}",
            f"STOP_TIME = {self.text(leg.time_s[-1])}",
        ]


def events_of(course: Course, leg: Leg) -> list[str]:
    """Return the events of a phase as comments."""
    return [
        f"COMMENT {course.place.text(event.time_s)} {event.name}"
        for event in course.rocket_events()
        if event.phase == leg.phase
    ]
