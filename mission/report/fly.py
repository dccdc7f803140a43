"""`fly_mission`: fly a mission and summarise it, and write a report if a folder is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mission.flight.batches import fly_batches
from mission.flight.chain import check_flights, prepare_chain
from mission.missionfile.models import MissionFile
from mission.report.recording import report_flights
from mission.report.summary import MissionSummary, mission_summary


def fly_mission(
    mission: MissionFile,
    *,
    checkpoints: str | Path | None = None,
    flights: int = 1000,
    until: float | None = None,
    seed: int | None = None,
    policy: str = "agent",
    report: str | Path | None = None,
    allow_stale: bool = False,
    allow_local_plugins: bool = False,
    progress: Callable[[int, int], None] | None = None,
    devices: int | None = None,
) -> MissionSummary:
    """Fly N vehicles from the first phase to the last; the end states of each phase enter the next one.

    Args:
      mission: from `load_mission`.
      checkpoints: folder of `<mission>/<phase>/`; None: `checkpoints`, then the shipped policies.
      flights: the number of vehicles, N.
      until: stop before N once the half-width of the success interval is at most this.
      seed: seed of the flights; replaces that of the mission file. Training is not affected.
      policy: "agent" to fly as the mission file says, or "guide" to fly every phase by its guide.
      report: folder for records and page (docs/reports.md); an unfinished report is resumed.
      allow_stale: fly policies that were trained under another configuration, with a warning.
      allow_local_plugins: permit `plugin: ./file.py`.
      progress: called with (flights done, flights).
      devices: the most CPU cores or accelerators that fly; None: all. The results are the same for any number.

    Raises:
      MissionError: wrong input or a stale policy (2); no readable policy, or a report of another format (3).
    """
    check_flights(flights, until)
    chain = prepare_chain(
        mission,
        checkpoints=checkpoints,
        seed=seed,
        policy=policy,
        allow_stale=allow_stale,
        allow_local_plugins=allow_local_plugins,
        devices=devices,
    )
    if report is not None:
        return report_flights(chain, Path(report), flights, until, progress)
    return mission_summary(chain, fly_batches(flights, until, chain.fly, progress), until)
