"""Stored policies: reading them, where to look for them, and whether they still fit the mission."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax import Array

from mission.errors import MachineError, StaleError
from mission.missionfile.models import MissionFile
from mission.missionfile.resolve import first_change
from mission.phase import Phase
from mission.sac.networks import make_networks
from mission.storage.steps import PhaseFolder
from mission.training.bank import TerminalBank, is_float

log = logging.getLogger("mission")
DEFAULT_CHECKPOINTS = Path("checkpoints")
SHIPPED = DEFAULT_CHECKPOINTS / "shipped"


def refuse_other(folder: Path, stored: dict[str, Any], current: dict[str, Any]) -> None:
    """A folder begun under another seed, configuration, plugin or start is not written to."""

    def refuse(expected: str, found: str) -> StaleError:
        return StaleError(
            str(folder),
            expected=expected,
            found=found,
            remedy="pass --fresh to begin anew, or choose another --checkpoints",
        )

    if stored["seed"] != current["seed"]:
        raise refuse(f"seed {stored['seed']}, which it was begun with", f"seed {current['seed']}")
    change = first_change(stored["configuration"], current["configuration"])
    if change:
        raise refuse("the configuration that it was made with", change)
    change = first_change(stored["plugins"], current["plugins"])
    if change:
        raise refuse("the plugins that it was made with", change)
    if stored["init"] != current["init"] and current["init"] is not None:
        raise refuse(f"--init {stored['init']}, which it was begun with", f"--init {current['init']}")
    if stored["upstream"] != current["upstream"]:
        raise refuse("the starts that it was trained from", "the phase before it was trained anew since")


def load_actor(folder: PhaseFolder, phase: Phase) -> Any:
    """Actor parameters of a stored phase."""
    env, config = phase.environment, phase.sac
    assert config is not None
    networks = make_networks(config, len(env.action_names))
    obs = jnp.zeros((1, len(env.observation_names)))
    return folder.load_policy({"actor": jax.eval_shape(networks.actor.init, jax.random.key(0), obs)})["actor"]


def load_bank(folder: PhaseFolder, phase: Phase, meta: dict[str, Any]) -> TerminalBank | None:
    """The bank of a stored phase; None where too few flights succeeded for one."""
    if meta["bank"] is None:
        return None
    rows, held_out = (
        jax.tree.map(
            lambda leaf, n=meta["bank"][part]: jax.ShapeDtypeStruct((n, *leaf.shape), leaf.dtype), phase.leaves
        )
        for part in ("rows", "held_out")
    )
    width = sum(leaf.size for leaf in jax.tree.leaves(phase.leaves) if is_float(leaf))
    mean, factor = (cast(Array, jax.ShapeDtypeStruct((width,) * rank, jnp.float32)) for rank in (1, 2))
    return folder.load_policy({"bank": TerminalBank(rows, held_out, mean, factor)})["bank"]


def find_policies(mission: MissionFile, phases: Sequence[Phase], checkpoints: str | Path | None) -> Path:
    """The folder that holds the mission's policies; the shipped ones where no folder was named.

    Raises:
      MachineError: a policy is missing.
    """
    chosen = Path(checkpoints) if checkpoints is not None else DEFAULT_CHECKPOINTS
    needed = [phase.name for phase in phases if phase.trained]
    missing = [name for name in needed if not (chosen / mission.name / name / "policy").is_dir()]
    shipped = all((SHIPPED / mission.name / name / "policy").is_dir() for name in needed)
    if missing and checkpoints is None and shipped:
        which = "this mission" if missing == needed else ", ".join(missing)
        log.warning("no policies of %s in %s: flying the shipped ones", which, chosen / mission.name)
        return SHIPPED / mission.name
    if missing:
        raise MachineError(
            str(chosen / mission.name),
            expected=f"a trained policy for each of {', '.join(needed)}",
            found=f"none for {', '.join(missing)}",
            remedy=f"run `mission train {mission.source.path}`, or fly with --policy guide",
        )
    return chosen / mission.name


def stored_actor(folder: PhaseFolder, phases: Sequence[Phase], index: int, allow_stale: bool) -> Any:
    """The stored actor of phase `index`, after checking what it was made under."""
    meta = folder.policy_meta()
    assert meta is not None
    change = first_change(meta["configuration"], [phase.configuration() for phase in phases[: index + 1]])
    if change and not allow_stale:
        raise StaleError(
            str(folder.path),
            expected="a policy of this configuration",
            found=change,
            remedy="train it again (--fresh), or pass --allow-stale",
        )
    if change:
        log.warning("%s is stale: %s", folder.path, change)
    origins = [dataclasses.asdict(phase.origin) for phase in phases[: index + 1]]
    change = first_change(meta["plugins"], origins)
    if change:
        log.warning("%s was made with other plugins: %s", folder.path, change)
    if meta["gate"] is not None and not meta["gate"]["passed"]:
        log.warning('phase "%s" did not pass its gate: %s', phases[index].name, "; ".join(meta["gate"]["failures"]))
    return load_actor(folder, phases[index])
