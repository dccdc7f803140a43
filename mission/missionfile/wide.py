"""Wide training dispersions: parameters for the starts of a share of the training vehicles, and their check.

All vehicles use the phase's own environment for steps, observations and outcomes. So the other parameters may change
only what `start`, `redraw` and `enter` draw, and nothing that is computed from a state.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from pydantic import BaseModel

from mission.errors import InputError, run_plugin_code
from mission.missionfile.contract import first_difference
from mission.missionfile.history import with_history
from mission.missionfile.phases import Phase, WideDays
from mission.missionfile.plugins import build_environment
from mission.phase import Environment, PhaseSpec, Reward

_ATTRIBUTES = (
    "observation_names",
    "action_names",
    "causes",
    "control_period_s",
    "max_steps",
    "time_out_cause",
    "box_causes",
)


def merge_params(params: BaseModel, given: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `given` with nested changes, as data for the model of `params`.

    Args:
      params: the validated parameters; what they hold by default is the base of a change inside it.
      given: the parameters as the mission file states them.
      changes: `training_params`.
    """
    merged = dict(given)
    for key, change in changes.items():
        part, below = getattr(params, key, None), merged.get(key)
        if below is None and isinstance(part, BaseModel):
            below = part.model_dump(exclude_unset=True)
        if isinstance(change, Mapping) and isinstance(below, Mapping) and isinstance(part, BaseModel):
            merged[key] = merge_params(part, below, change)
        elif isinstance(change, Mapping) and isinstance(below, Mapping):
            merged[key] = {**below, **change}
        else:
            merged[key] = change
    return merged


def wide_days(where: str, phase: Phase, spec: PhaseSpec, params: BaseModel, share: float) -> WideDays:
    """Return the wide training dispersions of a phase for validated parameters.

    Raises:
      PluginError: the plugin cannot build an environment from them.
    """
    environment = build_environment(where, phase.origin, spec, params)
    return WideDays(params, _stacked(phase, environment, phase.reward)[0], share)


def _stacked(phase: Phase, environment: Environment, reward: Reward | None) -> tuple[Environment, Reward | None]:
    """Return an environment and a reward with as many observations at once as the agent of the phase sees."""
    return with_history(environment, reward, phase.learner.history if phase.learner is not None else 1)


def check_wide(where: str, phase: Phase, wide: WideDays, spec: PhaseSpec) -> None:
    """Check that two environments of a plugin differ only in the draws of `start`, `redraw` and `enter`.

    Args:
      where: place of `training_params`, for messages.
      phase: the phase.
      wide: the other parameters and their environment.
      spec: the plugin's record.

    Raises:
      InputError: names the methods that would compute something else.
      PluginError: the plugin does not work with the other parameters.
    """
    changed = list(_changed(where, phase, wide, spec))
    if changed:
        raise InputError(
            where,
            expected="training_params that change only what start, redraw and enter draw",
            found=f"they change {', '.join(changed)} of {phase.origin}",
            remedy="leave those parameters out: they belong in params, where they hold for all vehicles and flights",
        )


def _changed(where: str, phase: Phase, wide: WideDays, spec: PhaseSpec) -> Iterator[str]:
    """Yield what the parameters change beside the draws."""
    own, other = phase.guide_environment, wide.environment
    yield from (name for name in _ATTRIBUTES if getattr(own, name) != getattr(other, name))
    if tuple(spec.limits(wide.params)) != phase.limits:
        yield "limits"
    reward = _stacked(phase, other, spec.reward(wide.params) if spec.reward is not None else None)[1]
    key = jax.eval_shape(lambda: jax.random.key(0))
    handoff = phase.accepts
    state = jax.eval_shape(own.enter, key, handoff)
    action = jax.ShapeDtypeStruct((len(own.action_names),), jnp.float32)

    def other_shapes() -> tuple[Any, Any]:
        return jax.eval_shape(other.start, key), jax.eval_shape(other.enter, key, handoff)

    for name, mine, theirs in zip(
        ("what start returns", "what enter returns"),
        (handoff, state),
        run_plugin_code(where, f"{phase.origin}: start and enter to work", other_shapes),
        strict=True,
    ):
        if difference := first_difference(mine, theirs):
            yield f"{name} ({difference})"
            return
    calls: dict[str, tuple[Any, ...]] = {"step": (key, state, action)}
    calls |= dict.fromkeys(("observe", "outcome", "leave", "telemetry", "guide"), (state,))
    for name, arguments in calls.items():
        yield from _differs(name, getattr(own, name), getattr(other, name), arguments)
    outcome = jax.eval_shape(own.outcome, state)
    yield from _differs("reward", phase.reward, reward, (state, action, state, outcome))


def _differs(name: str, own: Any, other: Any, arguments: tuple[Any, ...]) -> Iterator[str]:
    """Yield the name if two functions are different programs; programs hold the constants that they were made with."""
    if (own is None) != (other is None) or (own is not None and _program(own, arguments) != _program(other, arguments)):
        yield name


def _program(function: Any, arguments: tuple[Any, ...]) -> str:
    return jax.jit(lambda *values: function(*values)).lower(*arguments).as_text()
