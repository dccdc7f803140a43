"""`split_mission`: the probability of a rare loss by multilevel splitting."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from mission.flight.chain import check_flights, prepare_chain
from mission.flight.feasibility.store import chain_feasibility
from mission.flight.splitting import Splitting, check_splitting, split_flights
from mission.missionfile.models import Judge, MissionFile


def split_mission(
    mission: MissionFile,
    *,
    checkpoints: str | Path | None = None,
    flights: int = 10_000,
    seed: int | None = None,
    policy: str = "agent",
    policies: Mapping[str, str | Path] | None = None,
    judge: Judge | None = None,
    allow_stale: bool = False,
    allow_local_plugins: bool = False,
    progress: Callable[[int, int], None] | None = None,
    devices: int | None = None,
) -> Splitting:
    """Estimate the probability that a mission is lost; its feasibility must be fitted (`mission feasibility`).

    The estimate is unbiased whatever the feasibility says (`mission.flight.splitting`).

    Args:
      flights: lanes of every phase in all, in batches of 1,000; at least 2,000.
      mission, checkpoints, seed, policy, policies, judge, allow_stale, allow_local_plugins, progress, devices: as for
        `fly_mission`.

    Raises:
      MissionError: wrong input, stale policies or feasibility, or no feasibility (2); no readable policy (3).
    """
    check_flights(flights, None)
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
    feasibility = check_splitting(chain, chain_feasibility(chain), flights)
    return split_flights(chain, feasibility, flights, progress)
