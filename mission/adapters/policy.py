"""A stored policy as a function of observations, and the bank of a phase, for use outside of the engine.

Shapes: N observations, O observation, A action, M rows to train from, K held-out rows, D float entries of a row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mission.errors import InputError, MachineError
from mission.flight.batches import to_host
from mission.learner import PolicyNetwork
from mission.machine.devices import configure
from mission.missionfile.arguments import given_mission, optional_path
from mission.missionfile.models import MissionFile
from mission.missionfile.named import shipped_policies
from mission.missionfile.phases import Phase, PolicyPhase, TrainedPhase, policy_folders
from mission.missionfile.resolve import resolve_mission
from mission.storage.borrowed import borrowed_policy
from mission.storage.policies import DEFAULT_CHECKPOINTS, find_policies, stored_actor
from mission.storage.steps import PhaseFolder
from mission.training import bank as banks


@dataclasses.dataclass(frozen=True, eq=False)
class Policy:
    """The policy that flies a phase, as a function: observations [O] or [N, O] -> actions [A] or [N, A] in [-1, 1].

    Attributes:
      phase: the resolved phase, with its environment.
      params: the parameters of the network, by their names in `actor.safetensors`; numpy arrays.
      description: how the parameters map an observation to an action, as in `policy.json`; None if the learner gives
        no description.
      actor: the same parameters as the pytree of the learner.
    """

    phase: PolicyPhase
    params: dict[str, np.ndarray]
    description: PolicyNetwork | None
    actor: Any = dataclasses.field(repr=False)

    @property
    def observation_names(self) -> tuple[str, ...]:
        """The O names of an observation."""
        return self.phase.environment.observation_names

    @property
    def action_names(self) -> tuple[str, ...]:
        """The A names of an action."""
        return self.phase.environment.action_names

    @property
    def scales(self) -> tuple[np.ndarray, np.ndarray]:
        """The mean and the standard deviation by which the network standardises an observation, float32 [O] each.

        Zeros and ones if it takes observations as they are.
        """
        size = len(self.observation_names)
        found = {name.rpartition("/")[2]: value for name, value in self.params.items() if "/standardise/" in f"/{name}"}
        zeros, ones = np.zeros(size, np.float32), np.ones(size, np.float32)
        return found.get("mean", zeros), found.get("std", ones)

    @cached_property
    def _act(self) -> Any:
        learner = self.phase.build_learner()
        return jax.jit(lambda actor, obs: jnp.clip(learner.mean_action(actor, obs), -1.0, 1.0))

    def __call__(self, obs: Any) -> np.ndarray:
        """Return the actions that a flight takes, float32 [A] or [N, A], for observations [O] or [N, O].

        Raises:
          InputError: the observations have another shape.
        """
        size = len(self.observation_names)
        try:
            rows = np.asarray(obs, np.float32)
        except ValueError:  # texts, or rows of different lengths
            rows = np.empty(())
        if rows.ndim not in (1, 2) or rows.shape[-1] != size:
            raise InputError(
                f'the policy of phase "{self.phase.name}"',
                expected=f"observations [{size}] or [N, {size}]: {', '.join(self.observation_names[:5])} ...",
                found=f"an array {list(rows.shape)}",
                remedy="pass what observe() or an environment of this phase returns",
            )
        action = np.array(self._act(self.actor, rows.reshape(-1, size)))
        return action if rows.ndim == 2 else action[0]

    def observe(self, state: Any) -> np.ndarray:
        """Return the observation of one state of the phase (leaves [...]), float32 [O].

        Args:
          state: of `phase.environment`, as `enter` and `step` return it.
        """
        return np.asarray(self.phase.environment.observe(state))


class StoredBank(NamedTuple):
    """The successful end states of a phase, from which the next phase is trained; numpy arrays.

    `rows` (leaves [M, ...]) and `held_out` (leaves [K, ...]; never used for training) are trees as `leave` returns
    them. `names` are the names of their leaves, in the order of `jax.tree.leaves`. `mean` [D] and `factor` [D, D]
    describe the Gaussian that is fitted to the float leaves of `rows`: covariance = factor @ factor.T.
    """

    names: tuple[str, ...]
    rows: Any
    held_out: Any
    mean: np.ndarray
    factor: np.ndarray

    def columns(self) -> dict[str, np.ndarray]:
        """Return the rows by name, [M, ...] each."""
        return dict(zip(self.names, jax.tree.leaves(self.rows), strict=True))


def load_policy(
    mission: MissionFile,
    phase: str,
    checkpoints: str | Path | None = None,
    *,
    allow_stale: bool = False,
    allow_local_plugins: bool = False,
) -> Policy:
    """Return the stored policy of one phase of a mission as a function of observations.

    Args:
      mission: from `load_mission`.
      phase: name of the phase in it.
      checkpoints: folder that holds `<mission>/<phase>/`; default: `checkpoints`; if it has no policy of the phase,
        the policies that an installed distribution ships.
      allow_stale: accept a policy of another configuration, with a warning.
      allow_local_plugins: permit `plugin: ./file.py`.

    Raises:
      InputError: there is no such phase, or its guide flies it.
      MachineError: there is no policy, or it cannot be read.
      StaleError: the policy was trained with another configuration.
    """
    configure()
    phases, at = _phases(mission, phase, "load_policy", allow_local_plugins)
    one = phases[at]
    if not isinstance(one, PolicyPhase):
        raise InputError(
            f'load_policy: phase "{phase}"',
            expected="a phase that a policy flies",
            found="one that its guide flies",
            remedy="set policy: agent in the mission file, or call phase.environment.guide(state)",
        )
    if isinstance(one, TrainedPhase):
        folder = PhaseFolder(find_policies(mission, [one], checkpoints) / phase)
        actor = to_host(stored_actor(folder, phases, at, allow_stale))
    else:
        where = mission.source.where(("phases", at, "policy"))
        actor = to_host(borrowed_policy(policy_folders(mission, [one])[phase], one, where))
    return Policy(one, _named(actor), one.build_learner().describe_policy(), actor)


def load_bank(
    mission: MissionFile, phase: str, checkpoints: str | Path | None = None, *, allow_local_plugins: bool = False
) -> StoredBank:
    """Return the end states of a phase, from which the next phase starts, for analyses or `make_env(bank=...)`.

    Args:
      mission: from `load_mission`.
      phase: name of the phase that ended in these states.
      checkpoints, allow_local_plugins: as for `load_policy`.

    Raises:
      InputError: there is no such phase.
      MachineError: the phase has no bank, or the bank cannot be read.
    """
    configure()
    phases, at = _phases(mission, phase, "load_bank", allow_local_plugins)
    folder = _bank_folder(mission, phases[at], checkpoints)
    record = folder.policy_record()
    bank = None if record is None else banks.load_bank(folder, phases[at], record)
    if bank is None:
        raise MachineError(
            str(folder.path),
            expected=f'a bank of phase "{phase}"',
            found="none" if record is None else "too few successes for one when the phase was trained",
            remedy=f"run {mission.source.command('train')}",
        )
    bank = to_host(bank)
    return StoredBank(tuple(_named(bank.rows)), *bank)


def _bank_folder(mission: MissionFile, phase: Phase, checkpoints: str | Path | None) -> PhaseFolder:
    """Return the folder of a phase: of its policy, or, if its guide flew the bank, where training stores it."""
    if isinstance(phase, TrainedPhase):
        return PhaseFolder(find_policies(mission, [phase], checkpoints) / phase.name)
    own = PhaseFolder((optional_path(checkpoints, "--checkpoints") or DEFAULT_CHECKPOINTS) / mission.name / phase.name)
    shipped = [PhaseFolder(folder / phase.name) for folder in shipped_policies(mission.name)]
    return next((one for one in (own, *shipped) if one.policy.is_dir()), own) if checkpoints is None else own


def _phases(mission: MissionFile, phase: str, where: str, allow_local: bool) -> tuple[Sequence[Phase], int]:
    """Return the resolved phases of a mission, and the index of one."""
    names = [entry.name for entry in given_mission(mission, where).phases]
    if phase not in names:
        expected = f"a phase of the mission: {', '.join(names)}"
        raise InputError(where, expected=expected, found=repr(phase), remedy="name one of them")
    return resolve_mission(mission, allow_local_plugins=allow_local), names.index(phase)


def _named(tree: Any) -> dict[str, np.ndarray]:
    """Return the leaves of a tree by their paths."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in leaves}
