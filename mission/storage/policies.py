"""Stored policies: find them, load them, and check whether they still fit the mission."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jax

from mission.errors import FormatError, MachineError, StaleError
from mission.missionfile.arguments import optional_path
from mission.missionfile.changes import configuration_change
from mission.missionfile.models import MissionFile
from mission.missionfile.named import shipped_policies
from mission.missionfile.phases import Phase, PolicyPhase, TrainedPhase
from mission.missionfile.pilots import pilot_in_words
from mission.missionfile.resolve import first_change
from mission.phase import LOCAL_SOURCE
from mission.storage.records import PolicyRecord, StepRecord, StoredRecord, plugin_records, read_record
from mission.storage.steps import PhaseFolder

log = logging.getLogger("mission")
DEFAULT_CHECKPOINTS = Path("checkpoints")


def refuse_other(folder: Path, stored: StoredRecord, current: StoredRecord, phases: Sequence[Phase]) -> None:
    """Reject writing to a folder that was started with another seed, configuration, plugin or initial policy.

    Args:
      folder: folder of the phase, for the message.
      stored, current: the conditions under which the folder was made, and the present ones.
      phases: the mission's phases, at least up to this one; their models read the stored configuration.

    Raises:
      StaleError: the first difference.
    """

    def error(expected: str, found: str, more: str = "") -> StaleError:
        remedy = f"pass --fresh (fresh=True) to restart it, or choose another --checkpoints{more}"
        return StaleError(str(folder), expected=expected, found=found, remedy=remedy)

    if stored.seed != current.seed:
        raise error(f"seed {stored.seed}, which it was begun with", f"seed {current.seed}")
    change = configuration_change(stored.configuration, phases[: len(current.configuration)])
    if change:
        raise error("the configuration that it was made with", change)
    change = plugin_change(stored, phases[: len(current.configuration)])
    if change:
        defined = any(
            one.distribution == LOCAL_SOURCE for one in stored.plugins
        )  # by a program, which cannot recertify
        more = (
            ""
            if defined
            else f"; if its phases are done, `mission recertify {folder.parent}` accepts a change that alters no flight"
        )
        raise error("the plugins that it was made with", change, more)
    if stored.init != current.init and current.init is not None:
        raise error(f"--init {stored.init}, which it was begun with", f"--init {current.init}")
    if stored.upstream != current.upstream:
        raise error("the starts that it was trained from", "the previous phase was trained again since")


def plugin_change(stored: StoredRecord, phases: Sequence[Phase]) -> str:
    """Return the first difference between the stored origins of the plugins and the current ones; empty if none."""
    stored_origins, origins = ([one.model_dump() for one in side] for side in (stored.plugins, plugin_records(phases)))
    return first_change(stored_origins, origins)


def phase_record(folder: PhaseFolder) -> StoredRecord | None:
    """Return a record of a phase without checking the files beside it; None if none is readable."""
    for step, model in ((folder.policy, PolicyRecord), *((step, StepRecord) for step in folder.steps())):
        with contextlib.suppress(OSError, ValueError, FormatError):
            return read_record(model, (step / "meta.json").read_text(encoding="utf-8"), str(step))
    return None


def finished_record(folder: PhaseFolder, trained: bool) -> PolicyRecord | None:
    """Return the record of a finished phase; None, with a warning, if its policy is damaged and can be rebuilt.

    Args:
      folder: folder of the phase.
      trained: an agent flies the phase, so that a rebuild needs a training step.

    Raises:
      MachineError: the policy is damaged and cannot be rebuilt.
      FormatError: a record has a format that this version does not read.
    """
    if not folder.done:
        return None
    try:
        return folder.policy_record()
    except MachineError as error:
        if trained and folder.newest_training() is None:
            raise
        log.warning("%s is damaged (%s): it is rebuilt", folder.policy, error.found)
        return None


def load_actor(folder: PhaseFolder, phase: PolicyPhase, part: str = "actor") -> Any:
    """Return the stored policy of a phase, or that of its imitator."""
    return folder.load_policy({part: policy_shapes(phase)})[part]


def part_of(phase: PolicyPhase) -> str:
    """Return the part of a stored policy that flies the phase: its actor or its imitator."""
    return "imitator" if phase.pilot == "imitator" else "actor"


def policy_shapes(phase: PolicyPhase) -> Any:
    """Return the shapes of a policy that the learner of a phase flies."""
    learner = phase.build_learner()
    return jax.eval_shape(lambda key: learner.policy(learner.init(key)), jax.random.key(0))


def find_policies(mission: MissionFile, phases: Sequence[Phase], checkpoints: str | Path | None) -> Path:
    """Return the folder of the mission's policies; shipped ones if some are missing and no folder was named.

    Shipped policies are part of an installed distribution (`mission.missionfile.named`).

    Raises:
      MachineError: a policy is missing.
    """
    chosen = optional_path(checkpoints, "--checkpoints") or DEFAULT_CHECKPOINTS
    needed = [phase.name for phase in phases if isinstance(phase, TrainedPhase)]
    missing = _missing(chosen / mission.name, needed)
    for shipped in shipped_policies(mission.name) if missing and checkpoints is None else ():
        if not _missing(shipped, needed):
            which = "this mission" if missing == needed else ", ".join(missing)
            _warn_of_shipped(which, chosen / mission.name, shipped)
            return shipped
    if missing:
        raise MachineError(
            str(chosen / mission.name),
            expected=f"a trained policy for each of {', '.join(needed)}",
            found=f"none for {', '.join(missing)}",
            remedy=f"run {mission.source.command('train')}, or fly with --policy guide or --policy {missing[0]}=DIR",
        )
    return chosen / mission.name


@cache
def _warn_of_shipped(which: str, folder: Path, shipped: Path) -> None:
    """Warn once, also if both sides of a comparison fly them."""
    log.warning("no policies of %s in %s: flying the shipped ones", which, folder)


def _missing(folder: Path, needed: Sequence[str]) -> list[str]:
    return [name for name in needed if not (folder / name / "policy").is_dir()]


def stored_actor(folder: PhaseFolder, phases: Sequence[Phase], index: int, allow_stale: bool) -> Any:
    """Return the stored policy of the agent or imitator that flies phase `index`.

    Its configuration and plugins are checked.

    Raises:
      StaleError: it was made under another configuration, and that is not allowed.
      MachineError: there is none, or it cannot be read.
    """
    phase, record = phases[index], folder.policy_record()
    if record is None or not isinstance(phase, TrainedPhase):
        raise MachineError(
            str(folder.path), expected="a trained policy", found="none", remedy="train the phase, or fly with its guide"
        )
    part = part_of(phase)
    if not folder.holds(part):
        raise _without(folder, phase, part)
    change = configuration_change(record.configuration, phases[: index + 1])
    if change and not allow_stale:
        raise StaleError(
            str(folder.path),
            expected="a policy of this configuration",
            found=change,
            remedy="train it again (--fresh), or pass --allow-stale",
        )
    if change:
        log.warning("%s is stale: %s", folder.path, change)
    change = plugin_change(record, phases[: index + 1])
    if change:
        log.warning(
            "%s was made with other plugins: %s (does it matter? run `mission recertify %s`)",
            folder.path,
            change,
            folder.path.parent,
        )
    warn_of_missed_gate(f'phase "{phase.name}"', record)
    return load_actor(folder, phase, part)


def warn_of_another_pilot(folder: PhaseFolder, before: Phase, phase: Phase) -> None:
    """Warn if the bank from which a phase is trained was flown by another pilot than flies the phase before it now."""
    stored = folder.policy_record()
    if stored is not None and stored.flown_by != before.pilot:
        log.warning(
            'phase "%s" is trained from the bank that %s flew in "%s"; %s flies there now (--fresh --phase %s flies the '
            "bank again)",
            phase.name,
            pilot_in_words(stored.flown_by),
            before.name,
            pilot_in_words(before.pilot),
            before.name,
        )


def warn_of_missed_gate(what: str, record: PolicyRecord) -> None:
    """Warn if the gate of a stored policy was missed."""
    if record.gate is not None and not record.gate.passed:
        log.warning("%s did not pass its gate: %s", what, "; ".join(record.gate.failures))


def _without(folder: PhaseFolder, phase: TrainedPhase, part: str) -> MachineError:
    """Return the error for a policy that does not have the networks that are to fly."""
    others = " or ".join(pilot for pilot, has in (("agent", folder.holds("actor")), ("guide", True)) if has)
    train = "train it with sac.imitation" if part == "imitator" else "train the phase"
    return MachineError(
        str(folder.path),
        expected=f"a policy with {'an imitator' if part == 'imitator' else 'an agent'}",
        found="none in it",
        remedy=f"{train}, or fly with --policy {phase.name}={others}",
    )
