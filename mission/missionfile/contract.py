"""The contract of a phase, checked by abstract evaluation: shapes, dtypes, names, and the links between phases."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeGuard

import jax
import jax.numpy as jnp

from mission.errors import LinkError, PluginError, run_plugin_code
from mission.learner import LearnerConfig
from mission.missionfile.declarations import MOST_ENTRIES, check_learner, check_observation, check_signs_and_events
from mission.missionfile.phases import Phase, TrainedPhase
from mission.phase import NON_FINITE, TIME_OUT, Environment, Limit, Outcome, PluginOrigin, Reward

log = logging.getLogger("mission")
_MOST_CAUSES = 254  # with the two of the engine, a baseline stores them in one byte
_MOST_STEPS = 10**9  # step counters are int32
_REAL = (jnp.floating, jnp.integer, jnp.bool_)
_SHORTEST_S, _LONGEST_S = 1e-6, 1e9  # times are float32


class Shapes(NamedTuple):
    """The shapes of the hand-overs and channels of a phase, as trees."""

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
            if not isinstance(name, str) or not name or getattr(leaf, "shape", None) != () or not _is_a(leaf, *_REAL):
                raise self.error(f'{method} "{name}" to be a real scalar with a name', _describe(leaf))

    def tree(self, method: str, tree: Any) -> None:
        """Check that a hand-over or a state consists of arrays of real numbers or typed keys."""
        leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
        if not leaves:
            raise self.error(f"{method} to return at least one array", f"{type(tree).__name__} without arrays")
        for path, leaf in leaves:
            if not _is_a(leaf, *_REAL, jax.dtypes.prng_key):
                expected = f"{method} to return real numbers, truth values or typed keys"
                raise self.error(expected, f"leaf {_label(path)}: {_describe(leaf)}")

    def handoff(self, method: str, tree: Any) -> None:
        """Check that a hand-over can be stored as a bank: arrays that hold something, and not too many floats."""
        self.tree(method, tree)
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
            if leaf.size == 0:
                raise self.error(
                    f"{method} to return arrays that are not empty", f"leaf {_label(path)}: {_describe(leaf)}"
                )
        floats = sum(leaf.size for leaf in jax.tree.leaves(tree) if _is_a(leaf, jnp.floating))
        if floats > MOST_ENTRIES:
            expected = f"{method} to return at most {MOST_ENTRIES:,} floats, whose covariance the bank holds"
            raise self.error(expected, f"{floats:,}")


def check_contract(
    where: str,
    origin: PluginOrigin,
    environment: Environment,
    reward: Reward | None,
    limits: Sequence[Limit],
    learner: LearnerConfig | None,
) -> Shapes:
    """Check the shapes, dtypes, names and numbers of one phase, by abstract evaluation.

    Args:
      where: place of the plugin, for messages.
      origin: origin of the plugin.
      environment, reward, limits, learner: what the plugin's record gave for the parameters of the phase.

    Raises:
      PluginError: names the plugin, the method, what it returned and what the contract requires.
    """
    check, env = _Checker(where, origin), environment
    _check_attributes(check, env)
    if learner is not None:
        _check_sizes(check, env)
        check_learner(check.error, env, learner)
    key = jax.eval_shape(lambda: jax.random.key(0))
    handoff = check.evaluate("start", env.start, key)
    check.handoff("start", handoff)
    for method, arguments in (("perturb", (handoff, handoff)), ("redraw", (key, handoff))):
        difference = first_difference(handoff, check.evaluate(method, getattr(env, method), *arguments))
        if difference:
            raise check.error(f"{method} to return a hand-over like start's", difference)
    state = check.evaluate("enter", env.enter, key, handoff)
    check.tree("enter", state)
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
    check.handoff("leave", leave)
    channels = check.evaluate("telemetry", env.telemetry, state)
    check.scalars("telemetry", channels)
    _check_limits(check, limits, channels)
    _check_observation(check, env, channels)
    if learner is not None and learner.fill.policy == "guide" and env.guide is None:
        raise check.error("a guide, since sac.fill.policy is guide", "none", "set sac.fill.policy: random")
    if learner is not None and learner.imitation is not None and env.guide is None:
        raise check.error("a guide, since sac.imitation is set", "none", "set sac.imitation: null")
    if env.guide is not None:
        check.array("guide", check.evaluate("guide", env.guide, state), action.shape, jnp.float32)
    _check_privileged(check, env, state, learner)
    if reward is not None:
        check.scalars("reward", check.evaluate("reward", reward, state, action, after, outcome))
    return Shapes(handoff, leave, channels)


def _check_attributes(check: _Checker, env: Environment) -> None:
    """Check the names, the period and the time limit of an environment."""
    for attribute, most in (
        ("observation_names", MOST_ENTRIES),
        ("action_names", MOST_ENTRIES),
        ("causes", _MOST_CAUSES),
        ("privileged_names", MOST_ENTRIES),
    ):
        names = getattr(env, attribute, None)
        if (
            not isinstance(names, tuple)
            or not all(isinstance(n, str) and n for n in names)
            or len({*names}) < len(names)
        ):
            raise check.error(f"{attribute} to be a tuple of different words", repr(names))
        if len(names) > most:
            raise check.error(f"{attribute} to hold at most {most:,} names", f"{len(names):,}")
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
    if not isinstance(env.box_causes, tuple) or not {*env.box_causes} <= {*env.causes[1:]}:
        raise check.error("box_causes to be a tuple of names among the failures in causes", repr(env.box_causes))
    check_signs_and_events(check.error, env)
    period, steps = getattr(env, "control_period_s", None), getattr(env, "max_steps", None)
    if not (_is_number(period) and _SHORTEST_S <= period <= _LONGEST_S):
        raise check.error(f"control_period_s above 0, from {_SHORTEST_S:g} to {_LONGEST_S:g} s", repr(period))
    if not (_is_number(steps) and isinstance(steps, int) and 1 <= steps <= _MOST_STEPS):
        raise check.error(f"max_steps to be a whole number above 0, at most {_MOST_STEPS:,}", repr(steps))


def _check_observation(check: _Checker, env: Environment, channels: dict[str, Any]) -> None:
    """Check the declarations of a phase about its observation, besides the names."""
    check_observation(check.error, env, channels)
    if env.observation_inputs:
        seen = {name: channels[name] for name in env.observation_inputs}
        values = check.evaluate("observe_channels", env.observe_channels, seen)
        check.array("observe_channels", values, (len(env.observation_names),), jnp.float32)


def _check_privileged(check: _Checker, env: Environment, state: Any, learner: LearnerConfig | None) -> None:
    """Check that privileged values have names and the names have values, and that a learner that sees them has some."""
    names = env.privileged_names
    if bool(names) != (env.privileged is not None):
        found = f"{len(names)} names, and " + ("no method" if env.privileged is None else "a method")
        raise check.error("privileged_names and privileged together, or neither", found)
    if names:
        values = check.evaluate("privileged", env.privileged, state)
        check.array("privileged", values, (len(names),), jnp.float32)
    elif learner is not None and learner.sees_privileged:
        remedy = "set sac.privileged_critic: false"
        raise check.error("privileged values, since sac.privileged_critic is set", "none", remedy)


def _check_sizes(check: _Checker, env: Environment) -> None:
    """Check that a phase with an agent has observations and actions."""
    for attribute in ("observation_names", "action_names"):
        if not getattr(env, attribute):
            expected = f"at least one name in {attribute}, since sac is given"
            raise check.error(expected, "none", "set sac=None in the PhaseSpec: the phase is then never trained")


def _check_limits(check: _Checker, limits: Sequence[Limit], channels: dict[str, Any]) -> None:
    """Check that limits are finite bounds on channels that exist, one per channel."""
    for limit in limits:
        if not isinstance(limit, Limit) or limit.channel not in channels:
            raise check.error("limits on telemetry channels", repr(limit), f"channels are {', '.join(channels)}")
        bounds = [bound for bound in (limit.minimum, limit.maximum) if bound is not None]
        if not bounds or not all(_is_number(bound) and math.isfinite(bound) for bound in bounds):
            raise check.error("finite numbers as bounds of a limit, at least one", repr(limit), "give float(...)")
        if len(bounds) == 2 and bounds[0] > bounds[1]:
            raise check.error("a limit whose minimum is not above its maximum", repr(limit), "exchange the bounds")
    limited = [limit.channel for limit in limits]
    if len(set(limited)) < len(limited):
        raise check.error("one limit per channel", ", ".join(limited), "give its minimum and its maximum in one Limit")


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_a(leaf: Any, *kinds: Any) -> bool:
    """Return whether the dtype of a leaf is of one of these kinds."""
    return any(jnp.issubdtype(leaf.dtype, kind) for kind in kinds)


def _label(path: Any) -> str:
    return jax.tree_util.keystr(path) or "(root)"


def _describe(leaf: Any) -> str:
    return f"{getattr(leaf, 'dtype', type(leaf).__name__)}{list(getattr(leaf, 'shape', ()))}"


def first_difference(left: Any, right: Any) -> str:
    """Return the first leaf in which two trees of shapes differ; empty if none. Weak types do not count."""
    lefts, left_tree = jax.tree_util.tree_flatten_with_path(left)
    rights, right_tree = jax.tree_util.tree_flatten_with_path(right)
    for (path, a), (other, b) in zip(lefts, rights, strict=False):
        name, other_name = _label(path), _label(other)
        if name != other_name:
            return f"leaf {name} against leaf {other_name}"
        if a.shape != b.shape or a.dtype != b.dtype:
            return f"leaf {name}: {_describe(a)} against {_describe(b)}"
    if len(lefts) != len(rights):
        longer, side = (lefts, "the first") if len(lefts) > len(rights) else (rights, "the second")
        return f"leaf {_label(longer[min(len(lefts), len(rights))][0])} exists on {side} only"
    if left_tree == right_tree:
        return ""
    return _node_difference(left_tree, right_tree) or f"tree {left_tree} against {right_tree}"


def _node_difference(left: Any, right: Any) -> str:
    """Return the first node whose type or static data differ, of two trees with the same leaves; empty if none."""
    (kind, static), (other_kind, other_static) = left.node_data() or (None, None), right.node_data() or (None, None)
    if kind is not other_kind:
        return f"{_module_and_name(kind)} against {_module_and_name(other_kind)}"
    if static != other_static:
        return f"{_module_and_name(kind)} with {static!r} against {other_static!r}"
    parts = zip(left.children(), right.children(), strict=False)
    return next(filter(None, (_node_difference(*part) for part in parts)), "")


def _module_and_name(kind: Any) -> str:
    """Return a class with its module and file, which tells two classes of the same name apart."""
    if kind is None:
        return "an array"
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    return f"{kind.__qualname__} of module {kind.__module__}" + (f" ({file})" if file else "")


def check_links(phases: Sequence[Phase]) -> None:
    """Check that the hand-over of each phase has the tree, shapes and dtypes that the next phase accepts.

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


def warn_of_settings(phase: Phase, place: Callable[[str], str]) -> None:
    """Warn about each setting of a phase's learner that cannot have its effect; `place` names the place of a setting."""
    if isinstance(phase, TrainedPhase):
        for key, text in phase.build_learner().warnings():
            log.warning("%s: %s", place(f"sac.{key}"), text)
