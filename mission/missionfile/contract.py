"""What a phase must keep, checked by abstract evaluation: shapes, dtypes, names, and the links between phases."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mission.errors import LinkError, PluginError, guard
from mission.phase import NON_FINITE, TIME_OUT, Limit, Outcome, Phase


class Shapes(NamedTuple):
    """What a phase takes, gives and reports, as trees of shapes."""

    start: Any
    leave: Any
    telemetry: dict[str, Any]


def check_contract(phase: Phase) -> Shapes:
    """Shapes, dtypes and names of one phase, by abstract evaluation.

    Raises:
      PluginError: names the plugin, the method, what it gave and what the contract asks for.
    """
    env, where = phase.environment, f'phase "{phase.name}"'

    def refuse(expected: str, found: str, remedy: str = "mend the plugin") -> PluginError:
        return PluginError(where, expected=f"{phase.origin}: {expected}", found=found, remedy=remedy)

    def shaped(part: str, function: Callable[..., Any], *arguments: Any) -> Any:
        return guard(where, f"{phase.origin}: {part} to work", lambda: jax.eval_shape(function, *arguments))

    for attribute in ("observation_names", "action_names", "causes"):
        names = getattr(env, attribute, None)
        if not isinstance(names, tuple) or not all(isinstance(n, str) for n in names) or len(set(names)) != len(names):
            raise refuse(f"{attribute} to be a tuple of different words", repr(names))
    if len(env.causes) < 2:
        raise refuse("causes to name success and at least one failure", repr(env.causes))
    engines = {TIME_OUT, NON_FINITE} & set(env.causes)
    if engines:
        raise refuse(f"causes of its own: the engine adds {TIME_OUT} and {NON_FINITE}", ", ".join(sorted(engines)))
    period, steps = getattr(env, "control_period_s", None), getattr(env, "max_steps", None)
    if not (isinstance(period, int | float) and 0 < period < math.inf):
        raise refuse("control_period_s above 0", repr(period))
    if not (isinstance(steps, int) and steps > 0):
        raise refuse("max_steps to be a whole number above 0", repr(steps))

    key = jax.eval_shape(lambda: jax.random.key(0))
    handoff = shaped("start", env.start, key)
    state = shaped("enter", env.enter, key, handoff)
    action = jax.ShapeDtypeStruct((len(env.action_names),), jnp.float32)
    after = shaped("step", env.step, key, state, action)
    difference = first_difference(state, after)
    if difference:
        raise refuse("step to return a state like enter's", difference)
    _expect(refuse, "observe", shaped("observe", env.observe, state), (len(env.observation_names),), jnp.float32)
    outcome = shaped("outcome", env.outcome, state)
    if not isinstance(outcome, Outcome):
        raise refuse("outcome to return an Outcome", type(outcome).__name__)
    for field, dtype in (("terminated", jnp.bool_), ("success", jnp.bool_), ("cause", jnp.int32)):
        _expect(refuse, f"outcome's {field}", getattr(outcome, field), (), dtype)
    leave = shaped("leave", env.leave, state)
    channels = shaped("telemetry", env.telemetry, state)
    _expect_scalars(refuse, "telemetry", channels)
    for limit in phase.limits:
        if not isinstance(limit, Limit) or limit.channel not in channels:
            raise refuse("limits on telemetry channels", repr(limit), f"channels are {', '.join(channels)}")
        bounds = [bound for bound in (limit.minimum, limit.maximum) if bound is not None]
        if not bounds or not all(isinstance(bound, int | float) and math.isfinite(bound) for bound in bounds):
            raise refuse("finite numbers as bounds of a limit, at least one", repr(limit), "give float(...)")
    limited = [limit.channel for limit in phase.limits]
    if len(set(limited)) < len(limited):
        raise refuse("one limit a channel", ", ".join(limited), "give its minimum and maximum in one Limit")
    if phase.sac is not None and phase.sac.fill.policy == "guide" and env.guide is None:
        raise refuse("a guide, since sac.fill.policy is guide", "none", "set sac.fill.policy: random")
    if env.guide is not None:
        _expect(refuse, "guide", shaped("guide", env.guide, state), action.shape, jnp.float32)
    if phase.reward is not None:
        _expect_scalars(refuse, "reward", shaped("reward", phase.reward, state, action, after, outcome))
    return Shapes(handoff, leave, channels)


def _expect(refuse: Callable[..., PluginError], part: str, leaf: Any, shape: tuple[int, ...], dtype: Any) -> None:
    found = f"{getattr(leaf, 'dtype', type(leaf).__name__)}{list(getattr(leaf, 'shape', ()))}"
    if getattr(leaf, "shape", None) != shape or getattr(leaf, "dtype", None) != dtype:
        raise refuse(f"{part} to be {jnp.dtype(dtype).name}{list(shape)}", found)


def _expect_scalars(refuse: Callable[..., PluginError], part: str, terms: Any) -> None:
    if not isinstance(terms, dict) or not terms:
        raise refuse(f"{part} to return a dictionary of named scalars", repr(terms))
    for name, leaf in terms.items():
        if not isinstance(name, str) or getattr(leaf, "shape", None) != ():
            raise refuse(
                f'{part} "{name}" to be a scalar',
                f"{getattr(leaf, 'dtype', type(leaf).__name__)}{list(getattr(leaf, 'shape', ()))}",
            )


def first_difference(left: Any, right: Any) -> str:
    """The first leaf in which two trees of shapes differ; empty if none. Weak types do not count."""
    lefts, left_tree = jax.tree_util.tree_flatten_with_path(left)
    rights, right_tree = jax.tree_util.tree_flatten_with_path(right)
    for (path, a), (other, b) in zip(lefts, rights, strict=False):
        name, other_name = jax.tree_util.keystr(path), jax.tree_util.keystr(other)
        if name != other_name:
            return f"leaf {name or '(root)'} against leaf {other_name or '(root)'}"
        if a.shape != b.shape or a.dtype != b.dtype:
            return f"leaf {name or '(root)'}: {a.dtype}{list(a.shape)} against {b.dtype}{list(b.shape)}"
    if len(lefts) != len(rights):
        longer, side = (lefts, "the first") if len(lefts) > len(rights) else (rights, "the second")
        return f"leaf {jax.tree_util.keystr(longer[min(len(lefts), len(rights))][0])} exists on {side} only"
    return "" if left_tree == right_tree else f"tree {left_tree} against {right_tree}"


def check_links(phases: Sequence[Phase], shapes: Sequence[Shapes]) -> None:
    """What a phase leaves must be what the next one starts from, in tree, shape and dtype.

    Raises:
      LinkError: names both phases and the first leaf that differs.
    """
    for (before, left), (after, taken) in itertools.pairwise(zip(phases, shapes, strict=True)):
        difference = first_difference(left.leave, taken.start)
        if difference:
            raise LinkError(
                f'phases "{before.name}" -> "{after.name}"',
                expected=f"{before.origin} to leave what {after.origin} starts from",
                found=difference,
                remedy="put a phase between them that converts, or correct one of the two",
            )
