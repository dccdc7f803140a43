"""A policy in the folder of another trained phase, flown here: plugin and networks must agree, parameters may differ.

So a landing that begins in a measured state is flown by the networks of a mission that lands after an entry.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
from pydantic import ValidationError

from mission.errors import InputError, StaleError
from mission.missionfile.changes import read_settings
from mission.missionfile.phases import PolicyPhase
from mission.missionfile.pilots import pilot_in_words
from mission.missionfile.resolve import first_change
from mission.storage.export import DESCRIPTION, INTERFACE
from mission.storage.policies import load_actor, policy_shapes, warn_of_missed_gate
from mission.storage.records import PolicyRecord, plugin_records
from mission.storage.steps import PhaseFolder
from mission.storage.stored import json_mapping

log = logging.getLogger("mission")


def borrowed_policy(path: Path, phase: PolicyPhase, where: str) -> Any:
    """Return the policy in the folder of a trained phase, to fly another phase.

    Args:
      path: `<checkpoints>/<mission>/<phase>`.
      phase: the phase to fly.
      where: the place that names the folder, for messages.

    Raises:
      InputError: the folder holds no policy of an agent.
      StaleError: plugin, names of observations or actions, or networks differ.
      MachineError: the policy cannot be read.
    """
    if phase.from_library:
        raise InputError(
            where,
            expected="the policy of an agent, whose networks can be read",
            found=pilot_in_words(phase.pilot),
            remedy="fly it with `mission fly`; to train, set policy: agent, e.g. with --set phases.NAME.policy=agent",
        )
    record = borrowed_record(path, phase, where)
    change = first_change(record.plugins[-1].model_dump(), plugin_records([phase])[0].model_dump())
    if change:
        log.warning("%s was made with another version of its plugin: %s", path, change)
    warn_of_missed_gate(str(path), record)
    return load_actor(PhaseFolder(path), phase)


def pilots_of(folder: Path, names: Sequence[str]) -> dict[str, str | Path]:
    """Return phase -> folder, for the phases that have a policy in the folder of another mission.

    Raises:
      InputError: none of them has.
    """
    found: dict[str, str | Path] = {name: folder / name for name in names if (folder / name / "policy").is_dir()}
    if not found:
        raise InputError(
            f"--policy {folder}",
            expected=f"the folder of a mission with a policy for one of {', '.join(names)}",
            found=", ".join(sorted(path.name for path in folder.iterdir())[:5]) or "an empty folder",
            remedy="name CHECKPOINTS/MISSION; for one phase write --policy NAME=CHECKPOINTS/MISSION/PHASE",
        )
    return found


def borrowed_record(path: Path, phase: PolicyPhase, where: str) -> PolicyRecord:
    """Return the record of a policy that can fly a phase; for arguments and errors see `borrowed_policy`."""
    folder = PhaseFolder(path)
    record = folder.policy_record() if os.path.isdir(folder.policy) else None
    if record is None or not folder.holds("actor"):
        raise _no_policy(path, phase.name, where, record is not None)
    change = next(filter(None, _differences(folder.policy, record, phase)), "")
    if change:
        raise StaleError(
            where,
            expected=f'a policy of the plugin and the networks of phase "{phase.name}"',
            found=f"{change} ({path})",
            remedy="name the folder of such a policy; only the parameters of its phase may differ",
        )
    return record


def _no_policy(path: Path, name: str, where: str, guided: bool) -> InputError:
    """Return the error for a folder without the policy of an agent; `guided` if a guide or another folder flew it."""
    found, remedy = "no such folder", "name such a folder"
    if os.path.exists(path):
        found = "one that no agent was trained for" if guided else "no policy in it"
    if os.path.isfile(path / INTERFACE):
        found, remedy = "an exported policy, which `mission fly` alone can fly", "name the folder of the trained phase"
    if os.path.isdir(path / name / "policy"):
        remedy = f"write {path / name}"
    elif os.path.isfile(path / "meta.json"):
        remedy = f"write {path.parent}"
    if os.path.isfile(path) and path.suffix == ".onnx":
        remedy = "write {onnx: FILE} in a mission file, or onnx:FILE on the command line"
    expected = "agent, imitator, guide, guarded, or the folder of a trained phase, such as checkpoints/MISSION/PHASE"
    return InputError(where, expected=expected, found=f"{path}: {found}", remedy=remedy)


def _differences(policy: Path, record: PolicyRecord, phase: PolicyPhase) -> Iterator[str]:
    """Yield the differences that keep a stored policy from flying a phase, most general first; empty if equal."""
    plugin, origin, env = record.plugins[-1], phase.origin, phase.environment
    if (plugin.name, plugin.distribution) != (origin.name, origin.distribution):
        yield f"the plugin was {plugin.name} of {plugin.distribution}, is {origin.name} of {origin.distribution}"
    try:
        description = json_mapping((policy / DESCRIPTION).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        yield f"there is no {DESCRIPTION} that names its observations and actions; `mission recertify` writes it"
        return
    for what, names in (("observation", env.observation_names), ("action", env.action_names)):
        yield _other_names(f"{what}s", description.get(f"{what}_names"), names)
    try:
        learner = read_settings(type(phase.learner), record.configuration[-1].sac or {}, phase.folder)
    except ValidationError as error:
        yield f"the settings of its learner are not accepted any more: {error.errors()[0]['msg']}"
        return
    trained = dataclasses.replace(phase, learner=learner)
    yield first_change(_network(trained), _network(phase), "network")


def _other_names(what: str, stored: object, current: Sequence[str]) -> str:
    """Return how stored names differ from the current ones; empty if they do not."""
    names = [str(name) for name in stored] if isinstance(stored, list) else []
    if names == list(current):
        return ""
    gone, new = [name for name in names if name not in current], [name for name in current if name not in names]
    parts = [f"{label} {', '.join(some)}" for label, some in (("it had", gone), ("it had not", new)) if some]
    return f"its {what} differ: {'; '.join(parts) or 'another order'}"


def _network(phase: PolicyPhase) -> dict[str, Any]:
    """Return everything that determines the mean action of a phase's policy besides its parameters."""
    network = phase.build_learner().describe_policy()
    described = {} if network is None else network.model_dump(mode="json", exclude={"standard_deviation"})
    leaves = jax.tree_util.tree_flatten_with_path(policy_shapes(phase))[0]
    shapes = {jax.tree_util.keystr(at, simple=True, separator="/"): f"{x.dtype}{list(x.shape)}" for at, x in leaves}
    return {**described, "shapes": shapes}
