"""Compare two sets of policies, or two missions, on the same flights: `mission compare A B`.

Flight n of both has the same key in every phase of the same name, so starts and disturbances are the same.
Shapes: N flights.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mission.errors import InputError
from mission.flight.batches import fly_batches, loss_causes
from mission.flight.chain import Chain, check_flights, prepare_chain
from mission.flight.fly import PhaseFlight
from mission.missionfile.arguments import given_path
from mission.missionfile.models import MissionFile
from mission.missionfile.reading import load_mission
from mission.missionfile.statistics import PairedDifference, PairedMean, Rate, paired_difference, paired_mean
from mission.observers.progress import shown_progress
from mission.report.summary import mission_summary, phase_returns, total_returns
from mission.storage.tables import html_table
from mission.strict import StrictModel


class Side(StrictModel):
    """One of the two missions or sets of policies that are compared."""

    name: str
    mission: str
    digest: str
    success: Rate


class CauseCounts(StrictModel):
    """The number of flights on each side that failed by one cause."""

    first: int
    second: int


class PhaseComparison(StrictModel):
    """A phase that both missions have, paired over the flights that entered it in both; `end` over those that also
    succeeded in both."""

    name: str
    success: PairedDifference
    returns: PairedMean
    causes: dict[str, CauseCounts]
    end: dict[str, PairedMean]


class Comparison(StrictModel):
    """Two sets of policies on the same flights; the fields are those of `mission compare --json`."""

    first: Side
    second: Side
    flights: int
    seed: int
    success: PairedDifference
    returns: PairedMean
    phases: tuple[PhaseComparison, ...]

    def _repr_html_(self) -> str:
        heads = (
            "",
            "flights",
            "only the first succeeds",
            "only the second",
            "difference, points",
            "95 % interval",
            "p",
        )
        parts = [("whole mission", self.success), *((phase.name, phase.success) for phase in self.phases)]
        title = f"{self.first.name} and {self.second.name}: {self.flights:,} flights each, seed {self.seed}"
        return html_table(heads, [_cells(name, paired) for name, paired in parts], title)


def _cells(name: str, paired: PairedDifference) -> list[str]:
    """Return a row of the table that a notebook shows."""
    counts = [f"{count:,}" for count in (paired.flights, paired.only_first, paired.only_second)]
    difference = "-" if paired.difference is None else f"{100 * paired.difference:+.2f}"
    return [name, *counts, difference, f"{100 * paired.low:+.2f} to {100 * paired.high:+.2f}", f"{paired.p_value:.3g}"]


def compare(
    first: str | Path | MissionFile,
    second: str | Path | MissionFile,
    *,
    mission: MissionFile | None = None,
    checkpoints: str | Path | None = None,
    flights: int = 1000,
    seed: int | None = None,
    allow_stale: bool = False,
    allow_local_plugins: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Fly both sides and compare them flight by flight.

    Args:
      first, second: missions from `load_mission`, mission files or names, or folders of checkpoints, which need `mission`.
      mission: the mission of the policies in the folders.
      checkpoints: folder of the policies of mission files, as in `fly_mission`.
      flights, seed, allow_stale, allow_local_plugins, progress: as in `fly_mission`; both sides fly the same seed.

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
    with shown_progress(progress, flights) as show:
        flown = [fly_batches(flights, None, chain.fly, show) for chain in chains]
    return Comparison(
        first=_side(first, chains[0], flown[0]),
        second=_side(second, chains[1], flown[1]),
        flights=flights,
        seed=seed,
        success=paired_difference(flown[0][-1].success, flown[1][-1].success),
        returns=paired_mean(*(total_returns(chain.phases, part) for chain, part in zip(chains, flown, strict=True))),
        phases=tuple(_compare_phases(chains, flown)),
    )


def _locate(
    side: str | Path | MissionFile, mission: MissionFile | None, checkpoints: str | Path | None
) -> tuple[MissionFile, str | Path | None]:
    """Return the mission of one side and the folder of its policies."""
    if isinstance(side, MissionFile):
        return side, checkpoints
    path = given_path(side, "compare")
    if not path.is_dir():
        return load_mission(path), checkpoints
    if mission is None:
        raise InputError(
            str(side),
            expected="a mission file",
            found="a folder",
            remedy="add --mission FILE (mission=) to compare checkpoints",
        )
    return mission, path


def _side(side: str | Path | MissionFile, chain: Chain, flown: list[PhaseFlight]) -> Side:
    summary = mission_summary(chain, flown)
    name = side.name if isinstance(side, MissionFile) else os.fspath(side)
    return Side(name=name, mission=chain.mission.name, digest=summary.digest, success=summary.success)


def _compare_phases(chains: list[Chain], flown: list[list[PhaseFlight]]) -> list[PhaseComparison]:
    """Compare the phases that both missions have, by name."""
    sides = [_phase_flights(chain, results) for chain, results in zip(chains, flown, strict=True)]
    rows = []
    for name in [name for name in sides[0] if name in sides[1]]:
        first, second = sides[0][name], sides[1][name]
        entered = first.entered & second.entered
        succeeded = entered & first.flight.success & second.flight.success
        a, b = first.flight.telemetry, second.flight.telemetry
        rows.append(
            PhaseComparison(
                name=name,
                success=paired_difference(first.flight.success[entered], second.flight.success[entered]),
                returns=paired_mean(first.returns[entered], second.returns[entered]),
                causes={
                    cause: CauseCounts(first=first.causes.get(cause, 0), second=second.causes.get(cause, 0))
                    for cause in dict.fromkeys([*first.causes, *second.causes])
                },
                end={name: paired_mean(a[name][succeeded], b[name][succeeded]) for name in a if name in b},
            )
        )
    return rows


class _PhaseSide(NamedTuple):
    """One phase of one side: which flights entered it (bool [N]), how they flew, their returns [N], failures by cause."""

    entered: np.ndarray
    flight: PhaseFlight
    returns: np.ndarray
    causes: dict[str, int]


def _phase_flights(chain: Chain, results: list[PhaseFlight]) -> dict[str, _PhaseSide]:
    entered, sides = np.ones_like(results[0].success), {}
    for phase, flight in zip(chain.phases, results, strict=True):
        sides[phase.name] = _PhaseSide(
            entered, flight, phase_returns(phase, flight), loss_causes(phase.causes, flight, entered)
        )
        entered = flight.success
    return sides
