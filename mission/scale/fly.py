"""`fly_mission`: fly a mission, here or on Ray, and summarise it; write a report if a folder is named."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path

from mission.errors import InputError
from mission.flight.batches import fly_batches
from mission.flight.chain import Chain, check_flights, prepare_chain
from mission.missionfile.models import Judge, MissionFile
from mission.missionfile.phases import LibraryPhase
from mission.missionfile.pilots import pilot_in_words
from mission.report.folder import check_target
from mission.report.recording import report_flights
from mission.report.summary import MissionSummary, mission_summary
from mission.scale.cluster import cluster, place_of
from mission.scale.flying import Fleet


def fly_mission(
    mission: MissionFile,
    *,
    checkpoints: str | Path | None = None,
    flights: int = 1000,
    until: float | None = None,
    seed: int | None = None,
    policy: str = "agent",
    policies: Mapping[str, str | Path] | None = None,
    report: str | Path | None = None,
    allow_stale: bool = False,
    allow_local_plugins: bool = False,
    progress: Callable[[int, int], None] | None = None,
    devices: int | None = None,
    first_flight: int = 0,
    on: str = "local",
    sensitivity: bool = False,
    judge: Judge | None = None,
) -> MissionSummary:
    """Fly N vehicles from the first phase to the last; the end states of each phase enter the next one.

    Args:
      mission, checkpoints: from `load_mission`; folder of `<mission>/<phase>/`; None: `checkpoints`, then the shipped policies.
      flights, until: the number of vehicles, N; stop before N once the half-width of the success interval is at most this.
      seed: of the flights; None: that of the mission file.
      policy: "agent" to fly as the mission file says, "guide" to fly every phase by its guide, "guarded" to guard every agent.
      policies: name of a phase -> "agent", "imitator", "guide", "guarded", or the folder of a phase ("guarded:DIR") or an export, "onnx:FILE".
      report: folder for records and page (docs/reports.md); an unfinished report is resumed.
      allow_stale, allow_local_plugins: fly policies of another configuration; permit `plugin: ./file.py`.
      progress: called with (flights done, flights).
      devices: the most CPU cores or accelerators that fly, on Ray the most workers; None: all. The results are the same.
      first_flight: number of the first vehicle, a multiple of 1,000; `merge_reports` joins reports of disjoint numbers.
      on: "local"; "ray" for a local Ray; or "ray:ADDRESS" for a cluster (docs/cluster.md). The results are the same.
      sensitivity: find out which dispersions losses and end states depend on.
      judge: "box" or "mission", what fails a flight at a hand-over; None: as the mission file says (`chain: {judge: ...}`).

    Raises:
      MissionError: wrong input or a stale policy (2); no readable policy, or a report of another format (3).
    """
    check_flights(flights, until, first_flight)
    place = place_of(on)
    chain = prepare_chain(
        mission,
        checkpoints=checkpoints,
        seed=seed,
        policy=policy,
        policies=policies,
        allow_stale=allow_stale,
        allow_local_plugins=allow_local_plugins,
        devices=devices,
        judge=judge,
    )
    folder = None if report is None else Path(report)
    if not place.ray:
        return _fly(chain, folder, flights, until, progress, first_flight, sensitivity)
    _refuse_libraries(chain, on)
    if folder is not None:
        check_target(folder, mission.name)  # before Ray starts
    with cluster(on, workers=devices) as workers:
        return _fly(chain, folder, flights, until, progress, first_flight, sensitivity, Fleet(workers, chain))


def _refuse_libraries(chain: Chain, on: str) -> None:
    """Reject exported policies on a cluster, whose machines may be of another kind."""
    for phase in chain.phases:
        if isinstance(phase, LibraryPhase):
            raise InputError(
                f"--on {on}",
                expected="phases that networks or guides fly",
                found=f'phase "{phase.name}" is flown by {pilot_in_words(phase.pilot)}, which is called on this machine',
                remedy="remove --on, or fly this phase with its agent",
            )


def _fly(
    chain: Chain,
    folder: Path | None,
    flights: int,
    until: float | None,
    progress: Callable[[int, int], None] | None,
    first: int,
    sensitive: bool,
    fleet: Fleet | None = None,
) -> MissionSummary:
    """Fly for a report if there is a folder, on the workers of a fleet if there is one."""
    if folder is not None:
        return report_flights(chain, folder, flights, until, progress, first, fleet, sensitive)
    with contextlib.nullcontext(chain.fly) if fleet is None else fleet.flying(flights, first) as fly:
        return mission_summary(chain, fly_batches(flights, until, fly, progress, first), until, first, sensitive)
