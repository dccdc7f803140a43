"""Environments of other libraries as phases: gymnax, Brax and MuJoCo Playground.

Their `step` computes the reward and the end of an episode; the state of the phase carries both to `reward` and
`outcome`. Their time limits, vectorisation and automatic resets are not used, because the engine has its own.

Shapes: O observation, A action.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from pydantic import Field, create_model

from mission.adapters.extras import GYMNAX
from mission.errors import MissionError, PluginError, exception_text
from mission.learner import LearnerConfig, config_class
from mission.machine.devices import flags_without_fusion
from mission.machine.extras import import_extra
from mission.machine.trees import drop_weak_types
from mission.missionfile.hooks import hookimpl
from mission.phase import Environment, Outcome, PhaseSpec
from mission.strict import StrictModel

log = logging.getLogger("mission")
Hook = Callable[[], PhaseSpec]
_BRAX_STEPS = 1000  # the length of an episode in the literature on Brax


class Seen(NamedTuple):
    """Hand-over: the last observation, float32 [O]. A foreign episode begins with its own reset and ignores it."""

    observation: Array


class State(NamedTuple):
    """A foreign environment's state, and what its last step returned."""

    foreign: Any
    observation: Array  # float32 [O]
    reward: Array  # float32 []
    done: Array  # bool [], by the dynamics; its time limit is left out


class Library(NamedTuple):
    """A foreign environment as pure functions of one vehicle, with its numbers."""

    reset: Callable[[Array], State]  # of a key
    step: Callable[[Array, Any, Array], State]  # of a key, the foreign state and an action [A] in [-1, 1]
    observations: int
    actions: int
    period_s: float
    max_steps: int


@dataclasses.dataclass(frozen=True, eq=False)
class Foreign(Environment[Seen, State]):
    """A foreign environment. Its `done` is a loss and its time limit a success; with a goal, it is the reverse."""

    library: Library
    max_steps: int
    goal: bool

    causes = ("reached", "ended")

    @property
    def observation_names(self) -> tuple[str, ...]:
        """O names."""
        return tuple(f"observation_{i}" for i in range(self.library.observations))

    @property
    def action_names(self) -> tuple[str, ...]:
        """A names."""
        return tuple(f"action_{i}" for i in range(self.library.actions))

    @property
    def control_period_s(self) -> float:
        """The seconds between two actions."""
        return self.library.period_s

    @property
    def time_out_cause(self) -> str | None:
        """The cause of a time-out, which is a success if the environment has no other goal."""
        return None if self.goal else "survived"

    def start(self, key: Array) -> Seen:
        """Return a hand-over, which `enter` ignores."""
        return Seen(jnp.zeros(self.library.observations))

    def enter(self, key: Array, handoff: Seen) -> State:
        """Reset the foreign environment."""
        return drop_weak_types(self.library.reset(key))

    def step(self, key: Array, state: State, action: Array) -> State:
        """Step the foreign environment."""
        return drop_weak_types(self.library.step(key, state.foreign, action))

    def observe(self, state: State) -> Array:
        """Return its observation, float32 [O], as it is."""
        return state.observation

    def outcome(self, state: State) -> Outcome:
        """Return whether its dynamics ended the episode."""
        cause = jnp.int32(0 if self.goal else 1)
        return Outcome(state.done, state.done & self.goal, cause)

    def leave(self, state: State) -> Seen:
        """Return the last observation."""
        return Seen(state.observation)

    def telemetry(self, state: State) -> dict[str, Array]:
        """Return the reward of the last step, which has no unit."""
        return {"reward_1": state.reward}


def gymnax_phase(name: str, *, goal: bool = False, sac: LearnerConfig | None = None) -> Hook:
    """Return the hook of a plugin that is an environment of gymnax 1.0.1 or later.

    A plugin is then two lines:

        from mission.adapters import gymnax_phase
        mission_phase = gymnax_phase("Pendulum-v1")

    Its one parameter is `max_steps`, by default the environment's time limit. Actions in [-1, 1] are scaled to the bounds
    of its action space.

    Args:
      name: as `gymnax.make` takes it. Its actions must be continuous.
      goal: whether its `done` means that the goal was reached. Otherwise it is a loss, and reaching `max_steps` is a success
        (`time_out_cause`), as in tasks that are judged by their return alone.
      sac: settings of the agent; default: those of `SacConfig()`.

    Raises:
      MachineError: gymnax is not installed; when the hook is called, as the next.
      PluginError: there is no such environment, or its actions are discrete.
    """

    def load(where: str) -> Library:
        gymnax = import_extra("gymnax", GYMNAX, where)
        env, params = gymnax.make(name)
        actions, observations = env.action_space(params), env.observation_space(params)
        if not hasattr(actions, "low") or not hasattr(observations, "low"):
            raise _not_a_box(where, f"actions {actions!r}, observations {observations!r}")
        low, high = (np.broadcast_to(np.asarray(b, np.float32), actions.shape) for b in (actions.low, actions.high))
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise _not_a_box(where, f"actions {actions!r}")

        def state(foreign: Any, obs: Array, reward: Any, done: Any) -> State:
            # Gymnax counts time in a Python number at a reset.
            return State(jax.tree.map(jnp.asarray, foreign), _flat(obs), jnp.float32(reward), jnp.asarray(done, bool))

        def reset(key: Array) -> State:
            obs, foreign = env.reset_env(key, params)
            return state(foreign, obs, 0.0, False)

        def step(key: Array, foreign: Any, action: Array) -> State:
            scaled = low + 0.5 * (action.reshape(actions.shape) + 1.0) * (high - low)
            obs, after, reward, done, _ = env.step_env(key, foreign, scaled, params)
            return state(after, obs, jnp.reshape(reward, ()), done)

        sizes = int(np.prod(observations.shape)), int(np.prod(actions.shape))
        return Library(reset, step, *sizes, float(getattr(params, "dt", 1.0)), int(params.max_steps_in_episode))

    return _hook(f'gymnax_phase("{name}")', load, goal, sac)


def brax_phase(name: str, *, backend: str | None = None, goal: bool = False, sac: LearnerConfig | None = None) -> Hook:
    """Return the hook of a plugin that is an environment of Brax (extra `brax`); its `max_steps` is 1000 by default.

    Args:
      name: as `brax.envs.get_environment` takes it.
      backend: of its physics; default: the environment's own choice.
      goal, sac: as in `gymnax_phase`, which also shows how to use it.

    Raises:
      MachineError: the extra is missing; when the hook is called, as the next.
      PluginError: there is no such environment, or it observes more than one array.
    """

    def load(where: str) -> Library:
        envs = import_extra("brax.envs", "mission-engine[brax]", where)
        _warn_of_fusion()
        env = envs.get_environment(name, **({} if backend is None else {"backend": backend}))
        return _of_brax(where, env, _BRAX_STEPS)

    return _hook(f'brax_phase("{name}")', load, goal, sac)


def playground_phase(name: str, *, goal: bool = False, sac: LearnerConfig | None = None) -> Hook:
    """Return the hook of a plugin that is an environment of MuJoCo Playground (extra `playground`).

    Args:
      name: as `mujoco_playground.registry.load` takes it; `max_steps` is the length of its episodes by default.
      goal, sac: as in `gymnax_phase`, which also shows how to use it.

    Raises:
      MachineError: the extra is missing; when the hook is called, as the next.
      PluginError: there is no such environment, or it observes more than one array.
    """

    def load(where: str) -> Library:
        registry = import_extra("mujoco_playground", "mission-engine[playground]", where).registry
        config = registry.get_default_config(name)
        # The states of its other implementation, Warp, hold arrays that `jax.vmap` does not batch.
        env = registry.load(name, config_overrides={"impl": "jax"} if "impl" in config else None)
        return _of_brax(where, env, int(config.episode_length))

    return _hook(f'playground_phase("{name}")', load, goal, sac)


@cache
def _warn_of_fusion() -> None:
    """Warn that the XLA of JAX 0.10 aborts the process on programs of some Brax environments, `reacher` among them."""
    flags = flags_without_fusion()
    if flags is not None:
        log.warning(
            "XLA may abort with 'Check failed: GetNumDims()' while it compiles a phase of Brax; if it does, run the command with "
            "XLA_FLAGS=%s in its environment",
            flags,
        )


def _of_brax(where: str, env: Any, max_steps: int) -> Library:
    """Return an environment with the interface of Brax, which Playground shares."""
    if not isinstance(env.observation_size, int):
        raise _not_a_box(where, f"observations {env.observation_size!r}")

    def state(foreign: Any) -> State:
        return State(foreign, _flat(foreign.obs), jnp.float32(foreign.reward), foreign.done > 0)

    def reset(key: Array) -> State:
        return state(env.reset(jax.random.key_data(key)))  # they keep keys of the old kind in their states

    def step(key: Array, foreign: Any, action: Array) -> State:
        return state(env.step(foreign, action))

    # an environment that is not made of Brax's physics has no period
    return Library(reset, step, env.observation_size, env.action_size, float(getattr(env, "dt", 1.0)), max_steps)


def _hook(where: str, load: Callable[[str], Library], goal: bool, sac: LearnerConfig | None) -> Hook:
    """Return a plugin's hook; the library is imported when the hook is called."""

    def reward(params: Any) -> Callable[..., dict[str, Array]]:
        return lambda state, action, after, outcome: {"foreign": after.reward}

    @hookimpl
    def mission_phase() -> PhaseSpec:
        """Return the record of the phase."""
        try:
            library = load(where)
        except MissionError:
            raise
        except Exception as error:  # each library raises its own kinds for a name that it does not know
            found, remedy = exception_text(error), "correct the name, or install a version that has it"
            raise PluginError(where, expected="an environment to load", found=found, remedy=remedy) from error
        field = Field(library.max_steps, ge=1, le=10**9, description="Time limit in control steps.")
        params = create_model("Params", __base__=StrictModel, max_steps=(int, field))
        return PhaseSpec(
            params=params,
            environment=lambda given: Foreign(library, given.max_steps, goal),
            reward=reward,
            sac=sac or config_class("sac")(),
        )

    return mission_phase


def _flat(observation: Any) -> Array:
    return jnp.ravel(jnp.asarray(observation, jnp.float32))


def _not_a_box(where: str, found: str) -> PluginError:
    expected = "one array of observations and one of bounded, continuous actions"
    return PluginError(where, expected=expected, found=found, remedy="choose another environment")
