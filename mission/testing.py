"""The checks for authors of phases: `check_phase(mission_phase())` in a test is enough."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mission.errors import PluginError
from mission.flight.gradients import check_step_gradients
from mission.machine.trees import finite_leaves, is_float, state_leaf_names, where_rows
from mission.missionfile.contract import first_difference, warn_of_settings
from mission.missionfile.models import PhaseEntry
from mission.missionfile.phases import Phase
from mission.missionfile.resolve import build_phase, check_record
from mission.missionfile.sources import UNKNOWN_SOURCE
from mission.phase import Environment, Outcome, PhaseSpec, PluginOrigin
from mission.training.bank import fit_density
from mission.training.restart import draw_noise

VEHICLES = 64
_SAME_OBSERVATION = 1e-5  # entries are of order one, and a channel may round once more than the state


def make_phase(spec: PhaseSpec, params: Any = None, name: str = "phase") -> Phase:
    """Return a phase from a record, without a plugin or a mission file.

    Args:
      spec: what `mission_phase()` returns.
      params: an instance of `spec.params`; None uses its defaults.
      name: name of the phase.
    """
    origin, where = PluginOrigin(name, "(this test)", "0", UNKNOWN_SOURCE), f'phase "{name}"'
    check_record(origin, spec, where)
    entry = PhaseEntry(name=name, plugin=name)
    return build_phase(entry, origin, spec, spec.params() if params is None else params, spec.sac, where, where)


def check_phase(
    spec: PhaseSpec, params: Any = None, *, steps: int = 200, largest_reward: float = 1e3, seed: int = 0
) -> None:
    """Check a phase against the contract; raise an error with the reason if it violates the contract.

    It checks shapes, dtypes and names; that state, observation, privileged values, reward and telemetry are finite under random actions
    until each vehicle has ended; that `observe_channels`, where the phase declares `observation_inputs`, returns the observation;
    that success implies termination and causes are in range; that rewards stay within
    `largest_reward` and the guide's actions within [-1, 1]; that the same keys give the same flight; that `step` is
    traced once; that what the phase leaves can be entered again if the trees agree; and that `enter` accepts starts with
    the noise of the restart mixture (`perturb`) or with new dispersions (`redraw`). It warns of a setting of the learner
    that cannot do what it says, such as a target that it cannot reach. With `sac.actor_horizon` above 0 it also checks the
    gradients of the control step, as `check_gradients` does.

    Args:
      spec: what `mission_phase()` returns.
      params: an instance of `spec.params`; None uses its defaults.
      steps: control steps to fly.
      largest_reward: bound on the sum of the reward terms of a step.
      seed: seed of keys and actions.

    Raises:
      PluginError: names what violates the contract.
    """
    phase = make_phase(spec, params)
    check = _Check(dataclasses.replace(phase, environment=phase.guide_environment), largest_reward)
    warn_of_settings(check.phase, lambda key: f"{check.where}: {key}")
    program = jax.jit(check.advance)
    frames, handoff, final = _fly(check.phase, program, steps, seed)
    if len(check.traces) != 1:
        raise check.traced_again()
    for number, frame in enumerate(frames, 1):
        check.frame(frame, f"step {number} under random actions")
    check.entered_again(handoff, final, seed)
    check.restarted(handoff, seed)
    again = _fly(check.phase, program, steps, seed)[0]
    for first, second in zip(jax.tree.leaves(frames[-1]), jax.tree.leaves(again[-1]), strict=True):
        if not np.array_equal(np.asarray(first), np.asarray(second), equal_nan=True):
            raise check.error("the same flight from the same keys", "another one: is there hidden state?")
    if spec.sac is not None and spec.sac.needs_gradients:
        check_gradients(spec, params, seed=seed)


def check_gradients(spec: PhaseSpec, params: Any = None, *, vehicles: int = 64, seed: int = 0) -> None:
    """Check that `jax.grad` of a control step is finite and agrees with finite differences.

    Vehicles fly under random actions and near the guide. Along their flights, in steps that end the phase, and in steps
    in which a flag of the state changes, the change of the state, the reward and the observation are differentiated with
    respect to the state and the action.

    Args:
      spec: what `mission_phase()` returns.
      params: an instance of `spec.params`; None uses its defaults.
      vehicles: number of vehicles to fly.
      seed: seed of keys and actions.

    Raises:
      PluginError: names an output and an input between which the gradient is missing, wrong or not finite.
    """
    phase = make_phase(spec, params)
    check_step_gradients(phase, f"check_gradients({type(phase.environment).__name__})", vehicles, seed)


class _Frame(NamedTuple):
    """One control step of VEHICLES vehicles; `live` are those that had not ended before it."""

    finite: Any  # bool [VEHICLES, L]
    obs: Any  # [VEHICLES, O]
    from_channels: Any  # [VEHICLES, O], the same by `observe_channels`, if the phase declares its inputs
    privileged: Any  # [VEHICLES, P]
    outcome: Outcome  # [VEHICLES]
    reward: Any  # [VEHICLES]
    telemetry: Any  # [VEHICLES, C]
    guided: Any  # [VEHICLES, A]
    live: Any  # bool [VEHICLES]


def _fly(phase: Phase, program: Callable[..., Any], steps: int, seed: int) -> tuple[list[_Frame], Any, Any]:
    """Fly VEHICLES vehicles under random actions; return the frames, the starts and the final states."""
    env = phase.environment
    start_key, enter_key, key = jax.random.split(jax.random.key(seed), 3)
    handoff = jax.vmap(env.start)(jax.random.split(start_key, VEHICLES))
    state = jax.tree.map(jnp.asarray, jax.vmap(env.enter)(jax.random.split(enter_key, VEHICLES), handoff))
    live, frames = jnp.ones(VEHICLES, bool), []
    for step in range(min(steps, env.max_steps)):
        state, live, frame = program(state, live, jax.random.fold_in(key, step))
        frames.append(jax.tree.map(np.asarray, frame))
        if not live.any():
            break
    return frames, handoff, state


def _observed_channels(env: Environment, state: Any) -> Any:
    """Return the observation of a state from its telemetry, [O], where the phase declares how; else from the state."""
    if not env.observation_inputs:
        return env.observe(state)
    channels = env.telemetry(state)
    return env.observe_channels({name: channels[name] for name in env.observation_inputs})


def _types(state: Any) -> dict[str, str]:
    """Return the type of each leaf of VEHICLES states; a weak one comes from a Python number."""
    return {
        "state" + jax.tree_util.keystr(path): f"{leaf.dtype}{list(leaf.shape[1:])}" + (" of weak type" * leaf.weak_type)
        for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]
    }


@dataclasses.dataclass
class _Check:
    """The phase under test, and the types of its state, by leaf, each time that its step was traced."""

    phase: Phase
    largest_reward: float
    traces: list[dict[str, str]] = dataclasses.field(default_factory=list)

    def advance(self, state: Any, live: Any, key: Any) -> tuple[Any, Any, _Frame]:
        """Advance every vehicle by one control step under random actions, and note that the step was traced."""
        self.traces.append(_types(state))
        env, reward = self.phase.environment, self.phase.reward
        act_key, step_key = jax.random.split(key)
        action = jax.random.uniform(act_key, (VEHICLES, len(env.action_names)), minval=-1.0, maxval=1.0)
        after = jax.vmap(env.step)(jax.random.split(step_key, VEHICLES), state, action)
        outcome = jax.vmap(env.outcome)(after)
        frame = _Frame(
            finite=finite_leaves(after, 1),
            obs=jax.vmap(env.observe)(after),
            from_channels=jax.vmap(_observed_channels, (None, 0))(env, after),
            privileged=jax.vmap(env.privileged)(after) if env.privileged is not None else jnp.zeros((VEHICLES, 0)),
            outcome=outcome,
            reward=jnp.zeros(VEHICLES)
            if reward is None
            else sum(jax.vmap(reward)(state, action, after, outcome).values()),
            telemetry=jnp.stack(list(jax.vmap(env.telemetry)(after).values()), axis=-1),
            guided=jax.vmap(env.guide)(after) if env.guide is not None else action,
            live=live,
        )
        return where_rows(live, after, state), live & ~outcome.terminated, frame

    def traced_again(self) -> PluginError:
        """Return the error for a step that was traced more than once; it names the leaves whose type changed."""
        first, second = self.traces[:2]
        changes = [
            f"{name} is {was} on entering, {second[name]} after" for name, was in first.items() if was != second[name]
        ]
        found = "; ".join(changes) or "a shape, dtype or weak type changes after a step"
        return self.error("step to be traced once", f"{len(self.traces)} traces: {found}")

    @property
    def where(self) -> str:
        """The place that messages name."""
        return f"check_phase({type(self.phase.environment).__name__})"

    def error(self, expected: str, found: object) -> PluginError:
        return PluginError(self.where, expected=expected, found=str(found), remedy="fix the phase")

    def frame(self, frame: _Frame, when: str) -> None:
        """Check the vehicles of one step that had not ended before it."""
        env, live = self.phase.environment, frame.live
        names = [*state_leaf_names(env), "state"]
        for leaf in np.flatnonzero(~frame.finite[live].all(axis=0)):
            raise self.error("a finite state", f"{names[leaf]} at {when}")
        parts = {
            "observation": frame.obs,
            "privileged value": frame.privileged,
            "reward": frame.reward,
            "guide": frame.guided,
            "telemetry": frame.telemetry,
        }
        for name, values in parts.items():
            if not np.isfinite(values[live]).all():
                raise self.error(f"a finite {name}", f"a non-finite one at {when}")
        self._outcome(frame, when)
        apart = np.abs(frame.obs - frame.from_channels)[live].max(initial=0.0)
        if apart > _SAME_OBSERVATION:
            found = f"a difference of {apart:g} at {when}"
            raise self.error("observe_channels to return what observe returns", found)
        largest = np.abs(frame.reward[live]).max(initial=0.0)
        if largest > self.largest_reward:
            raise self.error(f"rewards within {self.largest_reward:g} per step", f"{largest:g} at {when}")
        largest = np.abs(frame.guided[live]).max(initial=0.0)
        if env.guide is not None and largest > 1.0 + 1e-6:
            raise self.error("a guide within [-1, 1]", f"{largest:g} at {when}")

    def _outcome(self, frame: _Frame, when: str) -> None:
        live, causes = frame.live, self.phase.environment.causes
        terminated, success, cause = (values[live] for values in frame.outcome)
        if (success & ~terminated).any():
            raise self.error("success only where terminated", f"success of a flight that has not ended, at {when}")
        found = cause[terminated]
        if found.size and not (found.min() >= 0 and found.max() < len(causes)):
            raise self.error(f"causes from 0 to {len(causes) - 1}", f"{found.min()} to {found.max()} at {when}")
        if ((cause == 0) & terminated & ~success).any():
            raise self.error("cause 0 for successes only", f"a failure of cause 0 at {when}")
        if ((cause != 0) & success).any():
            raise self.error("cause 0 for each success", f"a success of cause {cause[success].max()} at {when}")

    def entered_again(self, handoff: Any, final: Any, seed: int) -> None:
        """Check that the phase accepts what it leaves, if both have the same tree."""
        env = self.phase.environment
        if first_difference(jax.eval_shape(jax.vmap(env.leave), final), handoff):
            return
        again = jax.vmap(env.enter)(jax.random.split(jax.random.key(seed), VEHICLES), jax.vmap(env.leave)(final))
        if not bool(finite_leaves(again, 1).all()):
            raise self.error("enter to accept what leave gives", "a non-finite state")

    def restarted(self, handoff: Any, seed: int) -> None:
        """Check that `enter` accepts starts as the restart mixture changes them: with noise, and drawn again."""
        env, rows = self.phase.environment, [leaf for leaf in jax.tree.leaves(handoff) if is_float(leaf)]
        _, factor = fit_density([np.asarray(leaf) for leaf in rows] or [np.zeros((VEHICLES, 0))])
        scale, keys = self.phase.entry.restart.noise_scale, jax.random.split(jax.random.key(seed), VEHICLES)
        noise = jax.vmap(lambda row, key: draw_noise(row, jnp.asarray(factor), scale, key))(handoff, keys)
        changed = {
            "perturb": jax.vmap(env.perturb)(handoff, noise),
            "redraw": jax.vmap(env.redraw)(keys, handoff),
        }
        for method, starts in changed.items():
            state = jax.tree.map(jnp.asarray, jax.vmap(env.enter)(keys, starts))
            for leaf in np.flatnonzero(~np.asarray(finite_leaves(state, 1)).all(axis=0)):
                name = [*state_leaf_names(env), "state"][leaf]
                raise self.error(f"a finite state of a restart after {method}", f"{name} is not finite")
            if not bool(jnp.isfinite(jax.vmap(env.observe)(state)).all()):
                raise self.error(f"a finite observation of a restart after {method}", "a non-finite one")
