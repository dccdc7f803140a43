"""`mission compare A B`: two sets of policies, or two missions, on the same flights.

Flight n of both has the same key in every phase of the same name, so starts and disturbances are common.
Shapes: N flights.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mission.errors import InputError
from mission.flight.chain import Chain, check_flights, fly_batches, prepare_chain
from mission.flight.fly import PhaseFlight
from mission.missionfile.models import MissionFile
from mission.missionfile.reading import load_mission
from mission.report.summary import mission_summary
from mission.statistics import Z95, PairedDifference, Rate, distribution, paired_difference
from mission.strict import StrictModel


class Side(StrictModel):
    """One of the two that are compared."""

    name: str
    mission: str
    digest: str
    success: Rate


class CauseCounts(StrictModel):
    """How many flights each side lost to one cause."""

    first: int
    second: int


class PairedMean(StrictModel):
    """The second minus the first over flights that succeeded in both: mean with its 95 % interval, and spread."""

    flights: int
    mean: float | None
    low: float | None
    high: float | None
    sd: float | None


class PhaseComparison(StrictModel):
    """One phase that both missions have, paired over the flights that entered it in both."""

    name: str
    success: PairedDifference
    causes: dict[str, CauseCounts]
    end: dict[str, PairedMean]


class Comparison(StrictModel):
    """Two sets of policies on the same flights; the fields are those of `mission compare --json`."""

    first: Side
    second: Side
    flights: int
    seed: int
    success: PairedDifference
    phases: tuple[PhaseComparison, ...]


def compare_missions(
    first: str | Path,
    second: str | Path,
    *,
    mission: MissionFile | None = None,
    checkpoints: str | Path | None = None,
    flights: int = 1000,
    seed: int | None = None,
    allow_stale: bool = False,
    allow_local_plugins: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Fly both and pair them, flight by flight.

    Args:
      first, second: mission files; or folders of checkpoints, which then need `mission`.
      mission: what the folders hold policies of.
      checkpoints: folder of the policies of mission files, as of `fly_mission`.
      flights, seed, allow_stale, allow_local_plugins, progress: as of `fly_mission`; one seed for both.

    Raises:
      MissionError: wrong input or a stale policy (2), no readable policy (3).
    """
    check_flights(flights, None)
    sides = [_locate(side, mission, checkpoints) for side in (first, second)]
    seed = sides[0][0].seed if seed is None else seed
    chains = [
        prepare_chain(
            file, checkpoints=folder, seed=seed, allow_stale=allow_stale, allow_local_plugins=allow_local_plugins
        )
        for file, folder in sides
    ]
    flown = [fly_batches(flights, None, chain.fly, progress) for chain in chains]
    return Comparison(
        first=_side(first, chains[0], flown[0]),
        second=_side(second, chains[1], flown[1]),
        flights=flights,
        seed=seed,
        success=paired_difference(flown[0][-1].success, flown[1][-1].success),
        phases=tuple(_compare_phases(chains, flown)),
    )


def _locate(
    side: str | Path, mission: MissionFile | None, checkpoints: str | Path | None
) -> tuple[MissionFile, str | Path | None]:
    """Return the mission of one side and the folder of its policies."""
    path = Path(side)
    if not path.is_dir():
        return load_mission(path), checkpoints
    if mission is None:
        raise InputError(
            str(side), expected="a mission file", found="a folder", remedy="add --mission FILE to compare checkpoints"
        )
    return mission, path


def _side(side: str | Path, chain: Chain, flown: list[PhaseFlight]) -> Side:
    summary = mission_summary(chain, flown)
    return Side(name=os.fspath(side), mission=chain.mission.name, digest=summary.digest, success=summary.success)


def _compare_phases(chains: list[Chain], flown: list[list[PhaseFlight]]) -> list[PhaseComparison]:
    """Compare the phases that both missions have, by name."""
    tables = [
        {phase.name: result for phase, result in zip(chain.phases, results, strict=True)}
        for chain, results in zip(chains, flown, strict=True)
    ]
    causes = [
        {phase.name: phase.causes for phase in mission_summary(chain, results).phases}
        for chain, results in zip(chains, flown, strict=True)
    ]
    entered = [
        dict(zip(table, [np.ones_like(results[0].success), *(r.success for r in results)], strict=False))
        for table, results in zip(tables, flown, strict=True)
    ]
    rows = []
    for name in [name for name in tables[0] if name in tables[1]]:
        a, b = tables[0][name], tables[1][name]
        both = entered[0][name] & entered[1][name]
        landed = both & a.success & b.success
        shared = [channel for channel in a.telemetry if channel in b.telemetry]
        rows.append(
            PhaseComparison(
                name=name,
                success=paired_difference(a.success[both], b.success[both]),
                causes={
                    cause: CauseCounts(first=causes[0][name].get(cause, 0), second=causes[1][name].get(cause, 0))
                    for cause in dict.fromkeys([*causes[0][name], *causes[1][name]])
                },
                end={c: _paired_mean(a.telemetry[c][landed], b.telemetry[c][landed]) for c in shared},
            )
        )
    return rows


def _paired_mean(first: np.ndarray, second: np.ndarray) -> PairedMean:
    difference = np.asarray(second, np.float64) - first
    difference = difference[np.isfinite(difference)]
    seen = distribution(difference)
    low = high = None
    if seen.sd is not None and seen.mean is not None:
        half = Z95 * seen.sd / math.sqrt(len(difference))
        low, high = seen.mean - half, seen.mean + half
    return PairedMean(flights=len(difference), mean=seen.mean, low=low, high=high, sd=seen.sd)
