"""Networks that were fitted to flights of a mission, in an `.npz` file with the conditions of their validity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mission.errors import MachineError
from mission.flight.feasibility.network import Weights, check_weights
from mission.missionfile.models import Judge, Name
from mission.missionfile.phases import Phase, PhaseConfiguration
from mission.missionfile.resolve import digest, first_change
from mission.storage.arrays import write_arrays
from mission.storage.records import Record
from mission.strict import Count, Seed, StrictModel


class PhaseConditions(StrictModel):
    """A phase of a mission when networks were fitted to its flights.

    `flown_by` and `policy_sha256` identify the pilot (None: its guide), and `configuration` holds the settings.
    """

    name: Name
    flown_by: str
    policy_sha256: str | None
    source_sha256: str
    configuration: PhaseConfiguration
    observation_names: tuple[str, ...]


class FittedRecord(Record):
    """The record of networks that were fitted to `flights` flights of a seed, from number 2^31 on."""

    mission: Name
    seed: Seed
    flights: Count
    judge: Judge
    engine: str


def conditions_of(phases: Sequence[Phase], policies: Sequence[str | None]) -> list[PhaseConditions]:
    """Return the phases of a chain as records; `policies` holds the hash of each policy, None for a guide."""
    return [
        PhaseConditions(
            name=phase.name,
            flown_by=phase.pilot,
            policy_sha256=policy_sha256,
            source_sha256=phase.origin.source_sha256,
            configuration=phase.configuration(),
            observation_names=tuple(phase.environment.observation_names),
        )
        for phase, policy_sha256 in zip(phases, policies, strict=True)
    ]


def conditions_change(
    judges: tuple[Judge, Judge], stored: Sequence[PhaseConditions], current: Sequence[PhaseConditions]
) -> str:
    """Return the first difference between the stored conditions and the current ones; empty if there is none.

    Args:
      judges: the criterion that fails flights at hand-overs, stored and current.
      stored, current: the phases.
    """
    if judges[0] != judges[1]:
        return f"hand-overs were judged by {judges[0]}, and now by {judges[1]}"
    names = [[phase.name for phase in phases] for phases in (stored, current)]
    if names[0] != names[1]:
        return first_change([{"name": name} for name in names[0]], [{"name": name} for name in names[1]])
    for before, now in zip(stored, current, strict=True):
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


def write_networks(path: Path, what: str, record: Record, networks: Mapping[str, Weights]) -> None:
    """Write networks by name with their record, atomically, into a folder that is made if it does not exist.

    Raises:
      MachineError: disk full or no permission; the previous file is kept. `what` names the content.
    """
    arrays = {
        f"{name}.{part}": np.asarray(value, np.float32)
        for name, weights in networks.items()
        for part, value in weights.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_arrays(path, what, record, arrays)


def network_in(arrays: Mapping[str, np.ndarray], name: str, observations: int, *, stacked: bool = False) -> Weights:
    """Return the network of a name, or several stacked ones, among the arrays of a file.

    Raises:
      ValueError: there is none, it is damaged, or it does not have that number of observations.
    """
    prefix = f"{name}."
    weights = {part.removeprefix(prefix): a for part, a in arrays.items() if part.startswith(prefix)}
    try:
        check_weights(weights, observations, stacked)
    except ValueError as error:
        raise ValueError(f"the network {name}: {error}") from None
    return weights


def damaged(path: Path, what: str, found: str, remedy: str) -> MachineError:
    """Return the error for a file whose networks cannot be used."""
    return MachineError(str(path), expected=f"readable {what}", found=found, remedy=remedy)
