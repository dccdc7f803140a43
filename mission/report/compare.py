"""`mission compare A B`: two sets of policies, or two missions, on the same flights.

Flight n of both has the same key in every phase of the same name, so starts and disturbances are common.
Shapes: N flights.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mission.errors import InputError
from mission.flight.chain import Chain, check_flights, fly_chunks, prepare_chain
from mission.flight.fly import PhaseFlight
from mission.missionfile.models import Z95, MissionFile
from mission.missionfile.reading import load_mission
from mission.report.summary import MissionReport, mission_report
from mission.statistics import distribution, paired_difference


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
) -> dict[str, Any]:
    """Fly both and pair them, flight by flight.

    Args:
      first, second: mission files; or folders of checkpoints, which then need `mission`.
      mission: what the folders hold policies of.
      checkpoints: folder of the policies of mission files, as of `fly_mission`.
      flights, seed, allow_stale, allow_local_plugins, progress: as of `fly_mission`; one seed for both.

    Returns:
      JSON: success of each and of the pair, then by phase the pair, causes, and differences at its end.

    Raises:
      MissionError: wrong input or a stale policy (2), no readable policy (3).
    """
    check_flights(flights, None)
    sides = [_side(side, mission, checkpoints) for side in (first, second)]
    seed = sides[0][0].seed if seed is None else seed
    options: dict[str, Any] = {"allow_stale": allow_stale, "allow_local_plugins": allow_local_plugins, "seed": seed}
    chains = [prepare_chain(file, checkpoints=folder, **options) for file, folder in sides]
    flown = [fly_chunks(flights, None, chain.fly, progress) for chain in chains]
    reports = [mission_report(chain, results) for chain, results in zip(chains, flown, strict=True)]
    return {
        "first": _name(first, chains[0], reports[0]),
        "second": _name(second, chains[1], reports[1]),
        "flights": flights,
        "seed": seed,
        "success": paired_difference(flown[0][-1].success, flown[1][-1].success),
        "phases": _phases(chains, flown, reports),
    }


def _side(
    side: str | Path, mission: MissionFile | None, checkpoints: str | Path | None
) -> tuple[MissionFile, str | Path | None]:
    path = Path(side)
    if not path.is_dir():
        return load_mission(path), checkpoints
    if mission is None:
        raise InputError(
            str(side), expected="a mission file", found="a folder", remedy="add --mission FILE to compare checkpoints"
        )
    return mission, path


def _name(side: str | Path, chain: Chain, report: MissionReport) -> dict[str, Any]:
    return {"name": os.fspath(side), "mission": chain.mission.name, "digest": report.digest, "success": report.success}


def _phases(chains: list[Chain], flown: list[list[PhaseFlight]], reports: list[MissionReport]) -> list[dict[str, Any]]:
    """Phases that both missions have, by name; paired over the flights that entered them in both."""
    tables = [
        {phase.name: (result, record) for phase, result, record in zip(c.phases, f, r.phases, strict=True)}
        for c, f, r in zip(chains, flown, reports, strict=True)
    ]
    entered = [
        dict(zip(tables[k], [np.ones_like(f[0].success), *(r.success for r in f)], strict=False))
        for k, f in enumerate(flown)
    ]
    rows = []
    for name in [name for name in tables[0] if name in tables[1]]:
        (a, a_record), (b, b_record) = tables[0][name], tables[1][name]
        both = entered[0][name] & entered[1][name]
        landed = both & a.success & b.success
        shared = [channel for channel in a.telemetry if channel in b.telemetry]
        rows.append(
            {
                "name": name,
                "success": paired_difference(a.success[both], b.success[both]),
                "causes": {
                    cause: {"first": a_record.causes.get(cause, 0), "second": b_record.causes.get(cause, 0)}
                    for cause in dict.fromkeys([*a_record.causes, *b_record.causes])
                },
                "end": {c: _paired_mean(a.telemetry[c][landed], b.telemetry[c][landed]) for c in shared},
            }
        )
    return rows


def _paired_mean(first: np.ndarray, second: np.ndarray) -> dict[str, float | int | None]:
    """Second minus first over flights that succeeded in both: mean with its 95 % interval, and spread."""
    difference = np.asarray(second, np.float64) - first
    difference = difference[np.isfinite(difference)]
    seen = distribution(difference)
    half = None if seen["sd"] is None else Z95 * seen["sd"] / np.sqrt(len(difference))
    low, high = (None, None) if half is None or seen["mean"] is None else (seen["mean"] - half, seen["mean"] + half)
    return {"flights": len(difference), "mean": seen["mean"], "low": low, "high": high, "sd": seen["sd"]}
