"""A phase as pure functions: vehicles that start, step, end and restart as they do in training.

Shapes: V vehicles, O observation, A action, L float leaves of a state.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from mission.adapters.chain import chain_phase
from mission.adapters.policy import StoredBank
from mission.errors import InputError, LinkError
from mission.machine.devices import configure
from mission.missionfile.contract import first_difference
from mission.missionfile.models import MissionFile, PhaseEntry, Source
from mission.missionfile.phases import Phase, TrainedPhase
from mission.missionfile.resolve import resolve_mission
from mission.training.bank import TerminalBank
from mission.training.restart import snapshot_steps, wide_vehicles
from mission.training.step import EnvBatch, keep_snapshots, start_waiting, step_envs, waiting_envs

_WHERE = "make_env"
_MOST_VEHICLES = 65_536  # as in training


class EnvStep(NamedTuple):
    """The result of one control step of V vehicles; episode fields are valid where `terminated | truncated`.

    `obs` and `next_obs` differ for vehicles that have restarted: `obs` is the observation for the next action, and
    `next_obs` is the last observation of the old episode, for the transition.
    """

    obs: Array  # float32 [V, O], after the restarts
    reward: Array  # float32 [V], the sum of the terms
    terminated: Array  # bool [V], physics or the goal ended the episode; no value is bootstrapped
    truncated: Array  # bool [V], the time limit ended it; the value of `next_obs` is bootstrapped
    next_obs: Array  # float32 [V, O], before any restart
    success: Array  # bool [V]
    cause: Array  # int32 [V], index into `PhaseEnv.causes`; 0 where the episode goes on
    returns: Array  # float32 [V], the sum of rewards of the episode so far
    steps: Array  # int32 [V], control steps of the episode so far
    terms: dict[str, Array]  # the terms of the reward by name, float32 [V] each
    finite: Array  # bool [L + 2], whether the leaves of the state, the observation and the reward are finite


@dataclasses.dataclass(frozen=True, eq=False)
class PhaseEnv:
    """V vehicles of a phase as pure functions, for use with `jax.jit` and `jax.lax.scan`; from `make_env`.

    Attributes:
      phase: the resolved phase, for `phase.environment`, `phase.params` and `phase.limits`.
      vehicles: V.
      bank: end states of the previous phase, from which vehicles start; None: they start from the phase's own start.
    """

    phase: TrainedPhase
    vehicles: int
    bank: TerminalBank | None = None

    @property
    def observation_names(self) -> tuple[str, ...]:
        """The O names of an observation."""
        return self.phase.environment.observation_names

    @property
    def action_names(self) -> tuple[str, ...]:
        """The A names of an action."""
        return self.phase.environment.action_names

    @property
    def causes(self) -> tuple[str, ...]:
        """The names of the ends of an episode, to which `EnvStep.cause` is an index; those of the engine are the last."""
        return self.phase.causes

    def init(self, key: Array) -> tuple[EnvBatch, Array]:
        """Start V vehicles.

        Args:
          key: typed key; consumed.

        Returns:
          state: state of all vehicles, a pytree with leaves [V, ...]; opaque except for `state.state`, which is the
            state of the phase.
          obs: float32 [V, O].
        """
        keys = jax.random.split(key, self.vehicles)
        state = begin(self.phase, self.bank, keys, wide_vehicles(self.phase))
        return state, self.observe(state)

    def step(self, key: Array, state: EnvBatch, action: Array) -> tuple[EnvBatch, EnvStep]:
        """Advance every vehicle by one control period and restart those whose episode ended.

        Args:
          key: typed key; consumed.
          state: from `init` or `step`.
          action: float32 [V, A]; clipped to [-1, 1].
        """
        start, move = jax.random.split(key, (2, self.vehicles))
        return advance(self.phase, self.bank, state, action, start, move, wide_vehicles(self.phase))

    def observe(self, state: EnvBatch) -> Array:
        """Return the observations of V vehicles, float32 [V, O]."""
        return jax.vmap(self.phase.environment.observe)(state.state)

    def started_from(self, bank: TerminalBank | None) -> PhaseEnv:
        """Return the same vehicles with another bank, which may be traced; it is not checked."""
        return dataclasses.replace(self, bank=bank)

    def guide(self, state: EnvBatch) -> Array:
        """Return the actions of the classical guidance law, float32 [V, A] in [-1, 1].

        Raises:
          InputError: the phase has no guide, or `make_env` was called without `guide=True`.
        """
        check_guide(self.phase)
        return jax.vmap(self.phase.environment.guide)(state.state)


def begin(phase: TrainedPhase, bank: TerminalBank | None, keys: Array, wide: Array | None) -> EnvBatch:
    """Start V vehicles, as `PhaseEnv.init` does, with a key for each of them; for the arguments see `advance`."""
    return start_waiting(phase, bank, waiting_envs(phase, keys.shape[0], snapshot_steps(phase, 0)), keys, wide)


def advance(
    phase: TrainedPhase,
    bank: TerminalBank | None,
    state: EnvBatch,
    action: Array,
    start: Array,
    move: Array,
    wide: Array | None,
) -> tuple[EnvBatch, EnvStep]:
    """Advance V vehicles, as `PhaseEnv.step` does, with a key for each of them.

    Args:
      phase, bank, state, action: as there.
      start: typed keys [V] of the restarts; consumed.
      move: typed keys [V] of the steps; consumed.
      wide: bool [V], which vehicles start with the phase's wide dispersions; None: none of them.
    """
    observe = jax.vmap(phase.environment.observe)
    moved = step_envs(phase, state, observe(state.state), action, move)
    after, end = moved.envs, moved.end
    if state.snapshots:
        horizon, key = snapshot_steps(phase, 0), jax.random.fold_in(start[0], 1)
        after = after._replace(snapshots=keep_snapshots(state.snapshots, state, end.ended, horizon, key))
    terminated = moved.transition.terminated > 0.0
    truncated = end.ended & ~terminated
    after = start_waiting(phase, bank, after, start, wide)
    result = EnvStep(
        obs=observe(after.state),
        reward=moved.transition.reward,
        terminated=terminated,
        truncated=truncated,
        next_obs=moved.transition.next_obs,
        success=end.success,
        cause=jnp.where(truncated, phase.time_out, end.cause),
        returns=end.returns,
        steps=end.steps,
        terms={name: jnp.asarray(term, jnp.float32) for name, term in moved.terms.items()},
        finite=moved.finite,
    )
    return after, result


def make_env(
    phase: Phase | str | Sequence[Phase],
    *,
    params: Mapping[str, Any] | None = None,
    bank: Any = None,
    vehicles: int = 1,
    guide: bool = False,
) -> PhaseEnv:
    """Return a phase as pure functions `init` and `step`, for V vehicles at once.

    Starts, restarts, clipping, time-outs and the sum of the reward terms are computed by the same code as in training:

        env = make_env("vertical_burn", vehicles=64)
        state, obs = jax.jit(env.init)(jax.random.key(0))
        state, step = jax.jit(env.step)(jax.random.key(1), state, jnp.zeros((64, 1)))

    Args:
      phase: a phase from `resolve_mission`, or the name of a plugin, which is used with its default parameters.
        Several consecutive phases form one chain: a vehicle that ends a phase with a success enters the next one in
        the same step,
        with observations and actions padded to the largest ones, and the number of the phase in the observation.
      params: other parameters, only with the name of a plugin.
      bank: bank of the previous phase, from `load_bank`: vehicles start from the restart mixture of the phase.
        Default: they start from the phase's own start.
      vehicles: V, 1 to 65,536.
      guide: whether `PhaseEnv.guide` will be called. This makes the steps of some phases more expensive.

    Raises:
      InputError: an argument is wrong, or the phase has no reward.
      LinkError: the hand-over in the bank is not the one that this phase accepts.
      PluginError: there is no such plugin, or it violates the contract.
    """
    configure()
    one = trained(phase, params)
    if isinstance(vehicles, bool) or not isinstance(vehicles, int) or not 1 <= vehicles <= _MOST_VEHICLES:
        expected, remedy = f"vehicles: a whole number from 1 to {_MOST_VEHICLES:,}", "correct the number"
        raise InputError(_WHERE, expected=expected, found=repr(vehicles), remedy=remedy)
    learner = one.learner.model_copy(update={"vehicles": vehicles})
    environment = one.guide_environment if guide else one.environment
    one = dataclasses.replace(one, learner=learner, environment=environment)
    if guide:
        check_guide(one)
    return PhaseEnv(one, vehicles, None if bank is None else _checked(bank, one))


def trained(phase: Phase | str | Sequence[Phase], params: Mapping[str, Any] | None = None) -> TrainedPhase:
    """Return a phase as an agent trains on it; for arguments and errors see `make_env`."""
    several = isinstance(phase, list | tuple) and len(phase) > 0 and all(isinstance(one, Phase) for one in phase)
    if not (several or isinstance(phase, Phase | str)) or (params and not isinstance(phase, str)):
        expected = "phases of resolve_mission, or the name of a plugin, and params only with a name"
        found = type(phase).__name__ + (" with params" if params else "")
        raise InputError(_WHERE, expected=expected, found=found, remedy="pass one of them")
    if isinstance(phase, list | tuple):
        return chain_phase(phase) if len(phase) > 1 else trained(phase[0])
    if isinstance(phase, str):
        mission = MissionFile(name="env", phases=(PhaseEntry(name="phase", plugin=phase, params=dict(params or {})),))
        source = Source(Path(f'{_WHERE}("{phase.replace("/", " ")}")'), {}, {0: phase})
        (phase,) = resolve_mission(mission.read_from(source))
    one = phase if isinstance(phase, TrainedPhase) else phase.flown_by("agent")
    if not isinstance(one, TrainedPhase):
        raise InputError(
            f'{_WHERE}: phase "{phase.name}"',
            expected="a phase that an agent can fly: with a reward and settings of a learner (sac)",
            found="one that only its guide flies",
            remedy="choose another phase, or give its PhaseSpec reward and sac",
        )
    return one


def check_guide(phase: Phase) -> None:
    """Check that the guide of a phase can be called in the environment that it flies.

    Raises:
      InputError: it cannot.
    """
    guided = phase.guide_environment
    if phase.environment.guide is None or phase.environment is not guided:
        found = "none" if guided.guide is None else "an environment that leaves out what only the guide needs"
        remedy = "choose a phase that has one" if guided.guide is None else "pass guide=True"
        raise InputError(f'{_WHERE}: phase "{phase.name}"', expected="a guide", found=found, remedy=remedy)


def _checked(bank: Any, phase: Phase) -> TerminalBank:
    """Return a bank whose rows the phase accepts."""
    if not isinstance(bank, StoredBank | TerminalBank):
        found = type(bank).__name__
        raise InputError(_WHERE, expected="bank: from load_bank", found=found, remedy="pass load_bank(mission, phase)")
    held = TerminalBank(bank.rows, bank.held_out, jnp.asarray(bank.mean), jnp.asarray(bank.factor))
    row = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), held.rows)
    difference = first_difference(row, phase.accepts)
    if difference:
        raise LinkError(
            f'{_WHERE}: phase "{phase.name}"',
            expected="a bank of a phase that leaves what this one starts from",
            found=difference,
            remedy="load the bank of the phase before it",
        )
    return jax.tree.map(jnp.asarray, held)
