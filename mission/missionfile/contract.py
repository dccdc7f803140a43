"""The contract of a phase, checked by abstract evaluation: shapes, dtypes, names, and the links between phases."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mission.errors import LinkError, PluginError, run_plugin_code
from mission.learner import LearnerConfig
from mission.missionfile.phases import Phase
from mission.phase import NON_FINITE, TIME_OUT, Environment, Limit, Outcome, PluginOrigin, Reward


class Shapes(NamedTuple):
    """What a phase accepts, hands over and reports, as trees of shapes."""

    start: Any
    leave: Any
    telemetry: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class _Checker:
    """One phase while it is checked; every failed check raises a PluginError that names the plugin."""

    where: str
    origin: PluginOrigin

    def error(self, expected: str, found: str, remedy: str = "fix the plugin") -> PluginError:
        return PluginError(self.where, expected=f"{self.origin}: {expected}", found=found, remedy=remedy)

    def evaluate(self, method: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return the shapes of what a method of the plugin returns."""
        expected = f"{self.origin}: {method} to work"
        return run_plugin_code(self.where, expected, lambda: jax.eval_shape(function, *arguments))

    def array(self, what: str, leaf: Any, shape: tuple[int, ...], dtype: Any) -> None:
        if getattr(leaf, "shape", None) != shape or getattr(leaf, "dtype", None) != dtype:
            raise self.error(f"{what} to be {jnp.dtype(dtype).name}{list(shape)}", _describe(leaf))

    def scalars(self, method: str, terms: Any) -> None:
        if not isinstance(terms, dict) or not terms:
            raise self.error(f"{method} to return a dictionary of named scalars", repr(terms))
        for name, leaf in terms.items():
            if not isinstance(name, str) or getattr(leaf, "shape", None) != ():
                raise self.error(f'{method} "{name}" to be a scalar', _describe(leaf))


def check_contract(
    name: str,
    origin: PluginOrigin,
    environment: Environment,
    reward: Reward | None,
    limits: Sequence[Limit],
    learner: LearnerConfig | None,
) -> Shapes:
    """Check the shapes, dtypes and names of one phase, by abstract evaluation.

    Raises:
      PluginError: names the plugin, the method, what it returned and what the contract requires.
    """
    check, env = _Checker(f'phase "{name}"', origin), environment
    _check_attributes(check, env)
    key = jax.eval_shape(lambda: jax.random.key(0))
    handoff = check.evaluate("start", env.start, key)
    state = check.evaluate("enter", env.enter, key, handoff)
    action = jax.ShapeDtypeStruct((len(env.action_names),), jnp.float32)
    after = check.evaluate("step", env.step, key, state, action)
    difference = first_difference(state, after)
    if difference:
        raise check.error("step to return a state like enter's", difference)
    check.array("observe", check.evaluate("observe", env.observe, state), (len(env.observation_names),), jnp.float32)
    outcome = check.evaluate("outcome", env.outcome, state)
    if not isinstance(outcome, Outcome):
        raise check.error("outcome to return an Outcome", type(outcome).__name__)
    for field, dtype in (("terminated", jnp.bool_), ("success", jnp.bool_), ("cause", jnp.int32)):
        check.array(f"outcome's {field}", getattr(outcome, field), (), dtype)
    leave = check.evaluate("leave", env.leave, state)
    channels = check.evaluate("telemetry", env.telemetry, state)
    check.scalars("telemetry", channels)
    _check_limits(check, limits, channels)
    if learner is not None and learner.fill.policy == "guide" and env.guide is None:
        raise check.error("a guide, since sac.fill.policy is guide", "none", "set sac.fill.policy: random")
    if env.guide is not None:
        check.array("guide", check.evaluate("guide", env.guide, state), action.shape, jnp.float32)
    if reward is not None:
        check.scalars("reward", check.evaluate("reward", reward, state, action, after, outcome))
    return Shapes(handoff, leave, channels)


def _check_attributes(check: _Checker, env: Environment) -> None:
    """Check the names, the period and the time limit of an environment."""
    for attribute in ("observation_names", "action_names", "causes"):
        names = getattr(env, attribute, None)
        if not isinstance(names, tuple) or not all(isinstance(n, str) for n in names) or len(set(names)) != len(names):
            raise check.error(f"{attribute} to be a tuple of different words", repr(names))
    if len(env.causes) < 2:
        raise check.error("causes to name success and at least one failure", repr(env.causes))
    engines = {TIME_OUT, NON_FINITE} & set(env.causes)
    if engines:
        raise check.error(
            f"causes without {TIME_OUT} and {NON_FINITE}, which the engine adds", ", ".join(sorted(engines))
        )
    survived = env.time_out_cause
    if survived is not None and (not isinstance(survived, str) or survived in (*env.causes[1:], NON_FINITE, "")):
        raise check.error("time_out_cause to be None or the name of a success", repr(survived))
    period, steps = getattr(env, "control_period_s", None), getattr(env, "max_steps", None)
    if not (isinstance(period, int | float) and 0 < period < math.inf):
        raise check.error("control_period_s above 0", repr(period))
    if not (isinstance(steps, int) and steps > 0):
        raise check.error("max_steps to be a whole number above 0", repr(steps))


def _check_limits(check: _Checker, limits: Sequence[Limit], channels: dict[str, Any]) -> None:
    """Check that limits are finite bounds on channels that exist, one per channel."""
    for limit in limits:
        if not isinstance(limit, Limit) or limit.channel not in channels:
            raise check.error("limits on telemetry channels", repr(limit), f"channels are {', '.join(channels)}")
        bounds = [bound for bound in (limit.minimum, limit.maximum) if bound is not None]
        if not bounds or not all(isinstance(bound, int | float) and math.isfinite(bound) for bound in bounds):
            raise check.error("finite numbers as bounds of a limit, at least one", repr(limit), "give float(...)")
    limited = [limit.channel for limit in limits]
    if len(set(limited)) < len(limited):
        raise check.error("one limit per channel", ", ".join(limited), "give its minimum and its maximum in one Limit")


def _describe(leaf: Any) -> str:
    return f"{getattr(leaf, 'dtype', type(leaf).__name__)}{list(getattr(leaf, 'shape', ()))}"


def first_difference(left: Any, right: Any) -> str:
    """Return the first leaf in which two trees of shapes differ; empty if none. Weak types do not count."""
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


def check_links(phases: Sequence[Phase]) -> None:
    """Check that each phase leaves what the next one starts from, in tree, shape and dtype.

    Raises:
      LinkError: names both phases and the first leaf that differs.
    """
    for before, after in itertools.pairwise(phases):
        difference = first_difference(before.leaves, after.accepts)
        if difference:
            raise LinkError(
                f'phases "{before.name}" -> "{after.name}"',
                expected=f"{before.origin} to leave what {after.origin} starts from",
                found=difference,
                remedy="put a phase between them that converts, or correct one of the two",
            )
