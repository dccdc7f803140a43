"""The feasibility networks of a mission, `feasibility.npz` beside its policies, and whether they still hold."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from mission.errors import MachineError, StaleError, exception_text
from mission.flight.chain import Chain
from mission.flight.feasibility.network import Weights
from mission.flight.feasibility.scores import Scores
from mission.missionfile.models import Judge, Name
from mission.missionfile.phases import Phase, PhaseConfiguration
from mission.missionfile.resolve import digest, first_change
from mission.storage.arrays import read_arrays, write_arrays
from mission.storage.records import Record
from mission.strict import Count, Seed, StrictModel

FEASIBILITY = "feasibility.npz"


class FeasibilityPhase(StrictModel):
    """A phase of a mission when its feasibility was fitted.

    `flown_by` and `policy_sha256` say who flew it (None: its guide), `configuration` under which settings; `scores` are
    those of its network on flights that were not used to fit it, None if no such flight entered the phase.
    """

    name: Name
    flown_by: str
    policy_sha256: str | None
    source_sha256: str
    configuration: PhaseConfiguration
    observation_names: tuple[str, ...]
    scores: Scores | None


class FeasibilityRecord(Record):
    """The record of the feasibility networks of a mission, fitted to `flights` flights of a seed, from number 2^31 on."""

    mission: Name
    seed: Seed
    flights: Count
    judge: Judge
    engine: str
    phases: tuple[FeasibilityPhase, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Feasibility:
    """The networks of a mission: one for each phase, in the order of flight; the first phase's is of its own start."""

    record: FeasibilityRecord
    weights: tuple[Weights, ...]


def write_feasibility(folder: Path, feasibility: Feasibility) -> None:
    """Write `feasibility.npz` into a mission's folder, atomically.

    Raises:
      MachineError: disk full or no permission; the previous file is kept.
    """
    arrays = {
        f"{phase.name}.{name}": np.asarray(value, np.float32)
        for phase, weights in zip(feasibility.record.phases, feasibility.weights, strict=True)
        for name, value in weights.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_arrays(folder / FEASIBILITY, "feasibility", feasibility.record, arrays)


def read_feasibility(folder: Path) -> Feasibility | None:
    """Return the feasibility networks in a mission's folder; None if there are none.

    Raises:
      FormatError: they have a format that this version does not read.
      MachineError: they are damaged.
    """
    path, remedy = folder / FEASIBILITY, "restore the file, or run `mission feasibility FILE` again"
    found = read_arrays(path, "feasibility", FeasibilityRecord, remedy)
    if found is None:
        return None
    record, arrays = found
    weights = []
    for phase in record.phases:
        prefix = f"{phase.name}."
        weights.append({name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)})
        try:
            fits = weights[-1]["kernel_0"].shape[0] == len(phase.observation_names)
        except (KeyError, IndexError) as error:
            raise _damaged(path, exception_text(error), remedy) from None
        if not fits:
            raise _damaged(path, f"the network of {phase.name} does not fit its observations", remedy)
    return Feasibility(record, tuple(weights))


def _damaged(path: Path, found: str, remedy: str) -> MachineError:
    return MachineError(str(path), expected="readable feasibility", found=found, remedy=remedy)


def chain_feasibility(chain: Chain) -> Feasibility | None:
    """Return the feasibility networks that are stored for a chain; None if there are none.

    Raises:
      StaleError: a phase from which they say how the mission goes on has changed since, or who judges.
      FormatError, MachineError: see `read_feasibility`.
    """
    found = read_feasibility(chain.home)
    if found is not None:
        change = feasibility_change(found.record, chain)
        if change:
            raise StaleError(
                str(chain.home / FEASIBILITY),
                expected="feasibility that was fitted to these phases and policies",
                found=change,
                remedy="fit it again: `mission feasibility FILE`, with the same pilots",
            )
    return found


def feasibility_change(record: FeasibilityRecord, chain: Chain) -> str:
    """Return the first difference between a chain and the one that feasibility was fitted to; empty if none."""
    if record.judge != chain.mission.judge:
        return f"hand-overs were judged by {record.judge}, and now by {chain.mission.judge}"
    current = feasibility_phases(chain)
    names = [[phase.name for phase in phases] for phases in (record.phases, current)]
    if names[0] != names[1]:
        return first_change([{"name": name} for name in names[0]], [{"name": name} for name in names[1]])
    for before, now in zip(record.phases, current, strict=True):
        if before.observation_names != now.observation_names:
            return f'the observations of phase "{now.name}" have changed'
        if before.policy_sha256 != now.policy_sha256:
            return f'phase "{now.name}" was flown by another policy ({before.flown_by}; now {now.flown_by})'
        if before.source_sha256 != now.source_sha256:
            return f'the plugin of phase "{now.name}" has changed'
        if digest([before.configuration]) != digest([now.configuration]):
            pair = [one.configuration.model_dump(mode="json") for one in (before, now)]
            return first_change(pair[0], pair[1], f"phases.{now.name}")
    return ""


def feasibility_phases(chain: Chain) -> list[FeasibilityPhase]:
    """Return the phases of a chain as a record of its feasibility has them, without scores."""
    pairs = zip(chain.phases, chain.policy_hashes(), strict=True)
    return [_described(phase, policy_sha256) for phase, policy_sha256 in pairs]


def _described(phase: Phase, policy_sha256: str | None) -> FeasibilityPhase:
    return FeasibilityPhase(
        name=phase.name,
        flown_by=phase.pilot,
        policy_sha256=policy_sha256,
        source_sha256=phase.origin.source_sha256,
        configuration=phase.configuration(),
        observation_names=tuple(phase.environment.observation_names),
        scores=None,
    )
