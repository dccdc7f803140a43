"""The content of `<checkpoints>/<mission>/.sweeps/`: the policies after each sweep, and the ratings of the chain.

`.sweeps/0` holds the policies before the first sweep, `.sweeps/<n>` those after sweep n, and `.sweeps/joint` those after joint
training, each a mission's folder.
`.sweeps/<n>/.backwards` holds the policies of the backward pass, and `.sweeps/<n>/.feasibility/<phase>` the
feasibility of that phase.
A phase cannot have a name that begins with a dot.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from pydantic import Field, JsonValue, model_validator

from mission.errors import MachineError, StaleError, machine_errors
from mission.missionfile.models import MissionFile, Name
from mission.missionfile.resolve import first_change
from mission.storage.records import Record, Sha256, read_record
from mission.storage.steps import PhaseFolder
from mission.strict import Fraction01, Natural, Seed, StrictModel

FOLDER = ".sweeps"
JOINT = -1  # in place of the number of a sweep


class ChainRate(StrictModel):
    """How the chain flew after a sweep (0: before the first; -1: after joint training): flights that entered and ended each phase, and a 95 % interval.

    `by_boxes` counts the successes that the boxes of all phases pass.
    """

    sweep: int = Field(ge=JOINT)
    flights: Natural
    succeeded: Natural
    by_boxes: Natural
    low: Fraction01
    high: Fraction01
    phases: dict[Name, tuple[Natural, Natural]]
    seconds: float


class SweepsRecord(Record):
    """The sweeps of a mission so far, `sweeps.json`; `chosen` is the sweep of which the policies ship.

    `shipped` has the content hashes of the policies that the mission's folder was last given, by phase.
    """

    mission: Name
    seed: Seed
    settings: dict[str, JsonValue]
    rates: tuple[ChainRate, ...] = ()
    joint: ChainRate | None = None
    chosen: int = Field(0, ge=JOINT)
    shipped: dict[Name, Sha256] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _in_order(self) -> SweepsRecord:
        rates = [*self.rates, *([self.joint] if self.joint else [])]
        numbers = [*range(len(self.rates)), *([JOINT] if self.joint else [])]
        if [rate.sweep for rate in rates] != numbers:
            raise ValueError("its rates are not those of consecutive sweeps")
        if self.chosen not in (numbers or [0]):
            raise ValueError(f"sweep {self.chosen} was chosen, which has no rate")
        if any(not rate.by_boxes <= rate.succeeded <= rate.flights for rate in rates):
            raise ValueError("more flights succeeded than were flown")
        return self

    def rated(self, rate: ChainRate) -> SweepsRecord:
        """Return the record with one more rate, and the sweep after which most flights succeeded; the first of several.

        A further sweep restarts joint training.
        """
        joint = rate if rate.sweep == JOINT else None
        rates = self.rates if joint else (*self.rates, rate)
        best = max([*rates, *([joint] if joint else [])], key=lambda one: one.succeeded)
        return self.model_copy(update={"rates": rates, "joint": joint, "chosen": best.sweep})


def sweep_folder(root: Path, sweep: int) -> Path:
    """Return the folder of the policies after a sweep."""
    return root / FOLDER / ("joint" if sweep == JOINT else str(sweep))


def sweep_settings(mission: MissionFile) -> dict[str, Any]:
    """Return the settings that determine the result of a sweep, besides those of the phases."""
    chain = mission.chain
    if chain is None:
        return {}
    return {
        "terminal": None if chain.terminal is None else chain.terminal.model_dump(mode="json"),
        "flights": chain.flights,
        "joint": None if chain.joint is None else chain.joint.model_dump(mode="json"),
        "sweep": {entry.name: entry.sweep.model_dump(mode="json") for entry in mission.phases},
    }


def read_sweeps(root: Path) -> SweepsRecord | None:
    """Return the record of the sweeps of a mission's folder; None if there were none.

    Raises:
      MachineError: it is damaged.
      FormatError: it has a format that this version does not read.
    """
    path = root / FOLDER / "sweeps.json"
    try:
        return read_record(SweepsRecord, path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        remedy = f"restore it, or remove {path.parent}, which begins the sweeps again"
        raise MachineError(str(path), expected="readable sweeps", found=str(error), remedy=remedy) from None


def write_sweeps(root: Path, record: SweepsRecord) -> None:
    """Write the record, atomically.

    Raises:
      MachineError: disk full or no permission; the previous record is kept.
    """
    path = root / FOLDER / "sweeps.json"
    with machine_errors(path, "to write the record of the sweeps", "free disk space or correct the permissions"):
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(".tmp-sweeps.json")
        new.write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
        os.replace(new, path)


def check_sweeps(root: Path, stored: SweepsRecord, mission: MissionFile, seed: int) -> None:
    """Reject sweeps that were started with other settings.

    Raises:
      StaleError: the first difference.
      MachineError: the policies after a sweep are missing.
    """
    change = first_change(stored.settings, sweep_settings(mission), "chain")
    if stored.seed != seed:
        change = f"seed was {stored.seed}, is {seed}"
    for entry in mission.phases if stored.rates else ():
        # a run may have been killed while it copied the chosen policies
        known = (stored.shipped.get(entry.name), content_of(sweep_folder(root, stored.chosen) / entry.name))
        if (root / entry.name / "done").exists() and content_of(root / entry.name) not in known:
            change = change or f'phase "{entry.name}" was trained again since'
    ended = [*stored.rates[1:], *([stored.joint] if stored.joint else [])]
    for folder in (sweep_folder(root, rate.sweep) / entry.name for rate in ended for entry in mission.phases):
        if not change and not PhaseFolder(folder).done:
            raise _incomplete(folder)
    if change:
        raise StaleError(
            str(root / FOLDER),
            expected="the settings that its sweeps were begun with",
            found=change,
            remedy="pass --fresh, which trains the phases again too, or remove that folder, which begins the sweeps again",
        )


def _incomplete(phase: Path) -> MachineError:
    """Return the error for a sweep whose policies were removed."""
    return MachineError(
        str(phase),
        expected="the policy that a sweep has stored",
        found="none",
        remedy=f"restore it, or remove the folder {FOLDER} of the mission, which begins the sweeps again; nothing was changed",
    )


def content_of(phase: Path) -> str:
    """Return the content hash of the policy in a phase's folder; empty if there is none."""
    record = PhaseFolder(phase).policy_record()
    return "" if record is None else record.content_sha256


def copy_policies(source: Path, target: Path, names: list[str]) -> None:
    """Copy the finished policies of phases from one mission's folder to another, marker last; those there are replaced.

    Raises:
      MachineError: disk full or no permission; the same call then copies again.
    """
    for name in names:  # all of them, before any policy is replaced
        if not PhaseFolder(source / name).done:
            raise _incomplete(source / name)
    for name in names:
        old, new = PhaseFolder(source / name), PhaseFolder(target / name)
        if new.done and content_of(new.path) == content_of(old.path):
            continue
        new.clear()
        with machine_errors(new.path, "to copy a policy", "free disk space or correct the permissions"):
            new.path.mkdir(parents=True, exist_ok=True)
            for part in (old.policy, old.metrics):
                if part.is_dir():
                    shutil.copytree(part, new.path / part.name)
                elif part.is_file():
                    shutil.copy2(part, new.path / part.name)
        new.mark_done()


def remove_sweeps(root: Path) -> None:
    """Remove everything that sweeps keep.

    Raises:
      MachineError: some of it could not be removed.
    """
    with machine_errors(root / FOLDER, "to remove it", "correct the permissions"):
        if (root / FOLDER).exists():
            shutil.rmtree(root / FOLDER)
