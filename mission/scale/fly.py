"""`fly_mission`: fly a mission, here or on Ray, and summarise it; write a report if a folder is named."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

from mission.errors import InputError
from mission.flight.again import check_again
from mission.flight.batches import fly_batches
from mission.flight.chain import MOST_FLIGHTS, Chain, check_flights, prepare_chain
from mission.missionfile.arguments import given_mission, optional_path, whole_number
from mission.missionfile.models import Judge, MissionFile
from mission.missionfile.phases import LibraryPhase
from mission.missionfile.pilots import pilot_in_words
from mission.observers.progress import shown_progress
from mission.phase import LOCAL_SOURCE
from mission.report.folder import check_target
from mission.report.recording import report_flights
from mission.report.summary import MissionSummary, mission_summary
from mission.report.tables import with_flights
from mission.report.trajectories.flying import fly_trajectories
from mission.report.trajectories.record import Trajectory
from mission.scale.cluster import cluster, place_of
from mission.scale.flying import Fleet

FLIGHTS = 1000  # of a campaign whose number is not given


@overload
def fly_mission(
    mission: MissionFile,
    *,
    checkpoints: str | Path | None = None,
    flights: int | None = None,
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
    starts: str | Path | None = None,
) -> MissionSummary: ...


@overload
def fly_mission(
    mission: MissionFile,
    *,
    checkpoints: str | Path | None = None,
    flights: Sequence[int],
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
    starts: str | Path | None = None,
) -> tuple[Trajectory, ...]: ...


def fly_mission(
    mission: MissionFile,
    *,
    checkpoints: str | Path | None = None,
    flights: int | Sequence[int] | None = None,
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
    starts: str | Path | None = None,
) -> MissionSummary | tuple[Trajectory, ...]:
    """Fly N vehicles from the first phase to the last; the end states of each phase enter the next one.

    Args:
      mission, checkpoints: from `load_mission`; folder of `<mission>/<phase>/`; None: `checkpoints`, then the shipped policies.
      flights: N (default: 1,000, or all rows of `starts`); or flight numbers, which are repeated bit-identically, in full.
      until: stop before N when the half-width of the success interval is at most this value.
      seed: seed of the flights; None: that of the mission file.
      policy: "agent": the pilots of the mission file; "guide": every phase by its guide; "guarded": a guard for every agent.
      policies: name of a phase -> "agent", "imitator", "guide", "guarded", or the folder of a phase ("guarded:DIR") or an export, "onnx:FILE".
      report: folder for records and page (docs/reports.md); an unfinished report is resumed.
      allow_stale, allow_local_plugins: fly policies of another configuration; permit `plugin: ./file.py`.
      progress: called with (flights done, flights); None: bars in a notebook, nothing elsewhere.
      devices: largest number of CPU cores or accelerators, on Ray of workers; None: all. The results are the same.
      first_flight: number of the first vehicle, a multiple of 1,000; `merge_reports` joins reports of disjoint numbers.
      on: "local"; "ray" for a local Ray; or "ray:ADDRESS" for a cluster (docs/cluster.md). The results are the same.
      sensitivity: analyse on which dispersions losses and end states depend.
      judge: "box" or "mission", the criterion at hand-overs; None: as the mission file says (`chain: {judge: ...}`).
      starts: table (CSV or Parquet) of your own starts, flown row by row (docs/trajectories.md).

    Returns:
      The summary; for flight numbers their trajectories at every control step, in the order of the numbers.

    Raises:
      MissionError: wrong input or a stale policy (2); no readable policy, or a report of another format (3).
    """
    pilots: dict[str, Any] = {
        "checkpoints": checkpoints,
        "policy": policy,
        "policies": policies,
        "allow_stale": allow_stale,
    }
    order = _order(mission, flights, until, first_flight, on, report, sensitivity, starts)
    more: dict[str, Any] = {
        "seed": seed,
        "allow_local_plugins": allow_local_plugins,
        "devices": devices,
        "judge": judge,
    }
    return order.fly(prepare_chain(mission, **pilots, **more), progress)


def _order(mission: Any, flights: Any, until: Any, first: Any, *where: Any) -> _Order:
    """Return what is to be flown, once it is checked."""
    given_mission(mission, "fly_mission")
    order = _Order(_number_or_numbers(flights), until, whole_number(first, "--first-flight", 0), *where)
    order.check()
    return order


@dataclasses.dataclass(frozen=True)
class _Order:
    """The flights to fly, and where; the fields are arguments of `fly_mission`."""

    flights: int | tuple[int, ...] | None
    until: float | None
    first: int
    on: str
    report: str | Path | None
    sensitive: bool
    starts: str | Path | None

    @property
    def numbers(self) -> tuple[int, ...] | None:
        """The flights to fly again."""
        return self.flights if isinstance(self.flights, tuple) else None

    def check(self) -> None:
        """Reject invalid arguments before anything is read."""
        place_of(self.on)
        for name, path in (("--report", self.report), ("--starts", self.starts)):
            optional_path(path, name)
        if self.numbers is not None:
            check_again(self.numbers, None)
        elif self.starts is None:
            check_flights(self.flights if isinstance(self.flights, int) else FLIGHTS, self.until, self.first)
        given = {"--until": self.until, "--report": self.report, "--sensitivity": self.sensitive}
        given |= {"--first-flight": self.first, "--on": self.on != "local"}
        alone = [name for name, value in given.items() if value]
        if self.numbers is not None and alone:
            raise _excluded(alone[0], "flights that are flown again")
        also = [name for name in alone if name in ("--first-flight", "--on")]
        if self.starts is not None and also:
            raise _excluded(also[0], "a table of starts (--starts)")
        if self.starts is not None and isinstance(self.flights, int):
            raise _excluded("--flights", "a table of starts (--starts), of which each row is a flight")

    def fly(self, chain: Chain, progress: Callable[[int, int], None] | None) -> MissionSummary | tuple[Trajectory, ...]:
        """Fly a chain."""
        place = place_of(self.on)
        chain = chain if self.starts is None else chain.starting_from(Path(self.starts))
        if self.numbers is not None:
            campaign = None if chain.given is None else chain.given.count
            with shown_progress(progress, len(self.numbers)) as shown:
                return fly_trajectories(chain, check_again(self.numbers, campaign), shown)
        flights = self.flights if isinstance(self.flights, int) else FLIGHTS
        flights = flights if chain.given is None else chain.given.count
        check_flights(flights, self.until, self.first)
        folder = None if self.report is None else Path(self.report)
        if not place.ray:
            return _fly(chain, folder, flights, self.until, progress, self.first, self.sensitive)
        _refuse_own(chain, self.on)
        if folder is not None:
            check_target(folder, chain.mission.name)  # before Ray starts
        with cluster(self.on, workers=chain.devices) as workers:
            fleet = Fleet(workers, chain)
            return _fly(chain, folder, flights, self.until, progress, self.first, self.sensitive, fleet)


def _number_or_numbers(flights: Any) -> int | tuple[int, ...] | None:
    """Return the number of flights, or the numbers of those to fly again, as Python's integers."""
    if flights is None:
        return None
    several = isinstance(flights, Iterable) and getattr(flights, "shape", None) != () and not isinstance(flights, str)
    if several:
        return tuple(whole_number(one, "flights", 0, MOST_FLIGHTS - 1) for one in flights)
    return whole_number(flights, "--flights", 1)


def _excluded(option: str, what: str) -> InputError:
    """Return the error for an option that has no meaning with another."""
    found, remedy = f"both {option} and {what}", f"remove {option}"
    return InputError(option, expected=f"no {option} with {what}", found=found, remedy=remedy)


def _refuse_own(chain: Chain, on: str) -> None:
    """Reject on a cluster exported policies, whose machines may be of another kind, and PhaseSpecs of this process."""
    for phase in chain.phases:
        if phase.origin.distribution == LOCAL_SOURCE:
            raise InputError(
                f"--on {on}",
                expected="phases that the workers can import",
                found=f'phase "{phase.name}" is a PhaseSpec of this process',
                remedy="write it to a file beside a mission file (plugin: ./FILE.py), or fly it here",
            )
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
    with shown_progress(progress, flights) as show:
        if folder is not None:
            return report_flights(chain, folder, flights, until, show, first, fleet, sensitive)
        with contextlib.nullcontext(chain.fly) if fleet is None else fleet.flying(flights, first) as fly:
            results = fly_batches(flights, until, fly, show, first)
            summary = mission_summary(chain, results, until, first, sensitive)
    return with_flights(summary, chain, results, first)
