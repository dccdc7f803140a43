"""Compare the gradient of a phase's control step with finite differences.

The value gradients of `sac.actor_horizon` are those of `jax.grad` through `step`, `observe` and the reward. They are
wrong where the code has no gradient although the motion depends on the input: rounding, a sign, a cast to an integer,
a stopped gradient, a table that is read by index. A gradient that is not finite also spoils the whole update.

A step that contains an event has a gradient too, as long as the same event happens. So differences across which a flag
or the outcome changes are left out.

Shapes: M control steps, D entries of the input (the float leaves of a state, then the action), I inputs (a leaf or one
action), K outputs, S step sizes, P points between the two ends of a difference.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from mission.errors import PluginError, run_plugin_code
from mission.flight.flown_steps import ALONG, FlownSteps, flown_steps
from mission.flight.step_function import StepFunction
from mission.missionfile.phases import Phase

SIZES = (0.3, 0.05, 0.01, 0.002, 0.0004)  # of an action, or times the standard deviation of a leaf over the flights
_AGREES = 0.05  # relative error up to which both agree
_SAME = 0.1  # relative difference up to which finite differences of two sizes agree
_CLEAR = 10.0  # a difference counts if it is so many times the rounding error
_FEW = 3  # control steps that see a jump before it counts
_MANY = 8  # control steps of an event that tell an exception from a rule
_HALF = 0.5  # share of the mean difference below which a gradient is looked at more closely
_NONE = 0.1  # share of it below which the gradient counts as missing
_SLIGHT = 1e-3  # a change counts if it is so large a share of the standard deviation of the output
_NEGLIGIBLE = 1e-5  # share of the standard deviation of the output below which a derivative is not compared
_JUMP = 0.1  # a jump counts if it is so large a share of the standard deviation of the output
_POINTS = 16
_SHAKEN = 4  # evaluations beside a step, from which its rounding error is estimated
_AT_ONCE = 256  # evaluations in one vectorised call
# the program runs once, so that compiling it is what takes time
_QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
_EPSILON = float(np.finfo(np.float32).eps)


def check_step_gradients(phase: Phase, where: str, vehicles: int = 64, seed: int = 0, backward: bool = True) -> None:
    """Check that the derivatives of a control step are finite and agree with finite differences.

    Args:
      phase: the resolved phase.
      where: its place, for the message.
      vehicles: number of vehicles that are flown, under random actions and near the guide; 2.25 times as many control
        steps are compared along the flights, and a quarter as many in each kind of event.
      seed: seed of the flights.
      backward: whether to check also that backpropagation gives the same derivatives, which takes most of the time.

    Raises:
      PluginError: names the output, the input and where in the flight the gradient fails.
    """
    expected = f"{phase.origin}: a control step that jax.grad can differentiate"
    remedy = 'make it differentiable ("Gradients" in docs/writing-a-phase.md), or set sac.actor_horizon: 0'
    found = run_plugin_code(
        where, expected, lambda: _fault(phase, flown_steps(phase, vehicles, seed), backward), remedy
    )
    if found:
        raise PluginError(where, expected=expected, found=found, remedy=remedy)


def _fault(phase: Phase, steps: FlownSteps, backward: bool) -> str:
    """Return what is wrong with a gradient; empty if nothing is."""
    comparison = _compare(phase, steps)
    jax.eval_shape(comparison.backward, comparison.table, steps.states, steps.keys)  # loops that only run forward
    return comparison.fault() or (comparison.fault_backward() if backward else "")


def _compare(phase: Phase, steps: FlownSteps) -> _Comparison:
    """Compute gradients and finite differences of M control steps."""
    function = StepFunction(phase, [leaf[0] for leaf in steps.states], steps.flags)
    table, ways = function.vector(steps.states, steps.actions), _ways(function, steps)
    sides = np.outer([1.0, -1.0], SIZES).astype(np.float32)  # [2, S]
    shakes = 1.0 + np.random.default_rng(1).choice([-2.0 * _EPSILON, 2.0 * _EPSILON], (_SHAKEN, table.shape[1]))

    forward = _goes_forward(function, table[0], [leaf[0] for leaf in steps.states], steps.keys[0])

    def one(row: tuple[Array, Array, list[Any], Array]) -> tuple[Array, Any]:
        entries, ways, leaves, key = row
        outputs = lambda entries: function(entries, leaves, key).outputs  # noqa: E731
        if forward:
            slopes = lax.map(lambda way: jax.jvp(outputs, (entries,), (way,))[1], ways, batch_size=_AT_ONCE)
        else:
            slopes = ways @ jax.jacrev(outputs)(entries).T
        moves = jnp.einsum("bs,id->bisd", sides, ways).reshape(-1, entries.size)
        points = jnp.concatenate([entries[None], entries[None] * shakes, entries[None] + moves])
        return slopes, lax.map(lambda point: function(point, leaves, key), points, batch_size=_AT_ONCE)

    run = jax.jit(lambda *arguments: lax.map(one, arguments), compiler_options=_QUICKLY)
    slopes, values = jax.tree.map(np.asarray, run(table, ways, steps.states, steps.keys))
    here, around, ends = np.split(values.outputs, [1, 1 + _SHAKEN], axis=1)
    noise = 8.0 * _EPSILON * values.magnitude[:, 0] + 4.0 * np.abs(around - here).max(axis=1)
    shape, size = (len(table), 2, ways.shape[1], len(SIZES)), np.asarray(SIZES, np.float32)[:, None]
    unchanged = (values.flags[:, 1 + _SHAKEN :] == values.flags[:, :1]).all(axis=-1)
    ahead, behind = np.moveaxis((ends - here).reshape(*shape, -1), 1, 0)
    return _Comparison(
        steps=steps,
        function=function,
        table=table,
        ways=ways,
        outputs=here[:, 0],
        slopes=slopes,
        ahead=ahead / size,
        behind=-behind / size,
        same=unchanged.reshape(shape).all(axis=1) & _inside(function, steps, ways),
        noise=noise[:, None] / size,
    )


def _goes_forward(function: StepFunction, entries: Any, leaves: list[Any], key: Array) -> bool:
    """Return whether derivatives can be computed forward, which compiles sooner; code with a `custom_vjp` cannot."""
    return "custom_vjp_call" not in str(jax.make_jaxpr(lambda at: function(at, leaves, key))(entries))


def _inside(function: StepFunction, steps: FlownSteps, ways: np.ndarray) -> np.ndarray:
    """Return which differences keep the action within [-1, 1], bool [M, I, S]."""
    moved = np.abs(ways[:, :, None, function.first_action :]) * np.asarray(SIZES, np.float32)[:, None]
    return (np.abs(steps.actions)[:, None, None] + moved <= 1.0).all(axis=-1)


def _ways(function: StepFunction, steps: FlownSteps) -> np.ndarray:
    """Return a direction for each input of M control steps [M, I, D]; zero for a leaf that is a flag or constant."""
    table = function.vector(steps.states, steps.actions)
    scale = np.ones(table.shape[1], np.float32)
    scale[: function.first_action] = table[:, : function.first_action].std(axis=0)
    signs = np.random.default_rng(0).choice([-1.0, 1.0], table.shape)
    ways = np.zeros((len(table), len(function.parts), table.shape[1]), np.float32)
    for i, part in enumerate(function.parts):
        if i >= len(function.floats) or function.floats[i] not in steps.flags:
            ways[:, i, part] = (signs * scale)[:, part]
    return ways


@dataclasses.dataclass(frozen=True)
class _Comparison:
    """Gradients and finite differences of M control steps; a difference is per unit of its size."""

    steps: FlownSteps
    function: StepFunction
    table: np.ndarray  # [M, D], the inputs
    ways: np.ndarray  # [M, I, D]
    outputs: np.ndarray  # [M, K]
    slopes: np.ndarray  # [M, I, K], derivatives along the ways
    ahead: np.ndarray  # [M, I, S, K]
    behind: np.ndarray  # [M, I, S, K]
    same: np.ndarray  # bool [M, I, S], whether the same flags came out at both ends
    noise: np.ndarray  # [M, S, K]

    def fault(self) -> str:
        """Return what is wrong with a gradient; empty if nothing is."""
        needed, reached = self._needed(), self._reached()
        for where, rows in self.steps.groups.items():
            for k in np.flatnonzero(needed):
                for i in np.flatnonzero(reached):
                    found = self._fault(rows, i, k)
                    if found:
                        output, source = self.function.outputs[k], self.function.inputs[i]
                        return f"the gradient of {output} with respect to {source} {found}, {where}"
        return ""

    def backward(self, table: Array, states: list[Any], keys: Array) -> Array:
        """Return the gradient of a weighted sum of the outputs, by backpropagation [M, D]."""

        def one(row: tuple[Array, list[Any], Array]) -> Array:
            entries, leaves, key = row
            return jax.grad(lambda entries: self.function(entries, leaves, key).outputs @ self._weights)(entries)

        return lax.map(one, (table, states, keys))

    @cached_property
    def _weights(self) -> np.ndarray:
        """Weights of the outputs that count, [K], of random sign and one over their standard deviation."""
        weights = np.where(self._needed(), 1.0 / np.maximum(self.outputs.std(axis=0), 1e-6), 0.0)
        return (weights * np.random.default_rng(2).choice([-1.0, 1.0], weights.shape)).astype(np.float32)

    def fault_backward(self) -> str:
        """Return where backpropagation gives different or non-finite derivatives; empty if nowhere."""
        run = jax.jit(self.backward, compiler_options=_QUICKLY)
        pulled = np.asarray(run(self.table, self.steps.states, self.steps.keys))
        for i, part in enumerate(self.function.parts):
            found, source = pulled[:, part], self.function.inputs[i]
            if not np.isfinite(found).all():
                return f"the gradient with respect to {source} is not finite, though its derivatives are"
            back = np.einsum("md,md->m", found, self.ways[:, i, part])
            ahead, size = self.slopes[:, i] @ self._weights, np.abs(self.slopes[:, i] * self._weights).sum(axis=1)
            if (np.abs(back - ahead) > _AGREES * size + 1e-3 * np.abs(ahead).mean()).mean() > _AGREES:
                return f"the gradient with respect to {source} is not the transpose of its derivatives"
        return ""

    @cached_property
    def _moved(self) -> np.ndarray:
        """Which inputs move which outputs noticeably, bool [I, K]."""
        slight = _SLIGHT * self.outputs.std(axis=0)
        with np.errstate(invalid="ignore"):
            clear = np.abs(self.ahead + self.behind) > 2.0 * np.maximum(_CLEAR * self.noise, slight)[:, None]
        return np.asarray((clear & self.same[..., None]).any(axis=(0, 2)))

    def _needed(self) -> np.ndarray:
        """Return which outputs count, bool [K]: observation, reward, and each leaf that either depends on noticeably.

        A leaf that carries the rounding errors of another, for example, does not count.
        """
        leaves = len(self.function.leaves)
        needed = np.arange(len(self.function.outputs)) >= leaves
        for _ in range(leaves):
            needed[:leaves] |= self._moved[:leaves, needed].any(axis=1)
        return needed

    def _reached(self) -> np.ndarray:
        """Return which inputs count, bool [I]: actions, and each leaf that they move, in the end.

        No gradient flows through the others, such as the state of a gust or a clock.
        """
        leaves = len(self.function.leaves)
        reached = np.arange(len(self.function.inputs)) >= leaves
        for _ in range(leaves):
            reached[:leaves] |= self._moved[reached, :leaves].any(axis=0)
        return reached

    def _fault(self, rows: np.ndarray, i: int, k: int) -> str:
        """Return what is wrong with the gradient of output k with respect to input i in these control steps."""
        if not np.isfinite(self.slopes[rows, i, k]).all():
            return "is not finite"
        if self.function.is_flag(k) and len(np.unique(self.outputs[:, k])) <= 2:
            return ""  # such as an observation that is 0 or 1
        gradient = self.slopes[rows, i, k]
        pair = _Pair(self.ahead[rows, i, :, k], self.behind[rows, i, :, k], gradient, self.noise[rows, :, k])
        with np.errstate(invalid="ignore"):
            pair = pair.where(self.same[rows, i] & (np.abs(self.ways[rows, i]).sum(axis=1) > 0.0)[:, None])
            wrong, jumps = pair.wrong(_NEGLIGIBLE * self.outputs[:, k].std()), pair.jumps()
            if wrong.sum() >= max(2, _AGREES * len(rows)):
                mean, true = np.abs(gradient[wrong]).mean(), np.abs(pair.central[wrong]).max(axis=1).mean()
                return f"is {mean:.3g}, but finite differences give {true:.3g} (means of {wrong.sum()} steps)"
        for s in np.flatnonzero(jumps) if self._is_alone(rows, i, k) else ():
            difference, summed = self._between(rows, i, k, s, pair)
            if summed < _NONE * difference and difference > _JUMP * self.outputs[:, k].std():
                return f"adds up to {summed:.3g}, but the output changes by {difference:.3g}: it jumps"
        return ""

    def _is_alone(self, rows: np.ndarray, i: int, k: int) -> bool:
        """Return whether these control steps decide alone if a gradient is missing.

        Those of an event do not if they are few, or if it is there along the flights: what jumps then is an exception, such
        as a change of a guidance law.
        """
        along = np.setdiff1d(self.steps.groups.get(ALONG, rows[:0]), rows)
        gradient = self.slopes[along, i, k]
        return bool(len(along) == 0 or (len(rows) >= _MANY and np.count_nonzero(gradient) < _FEW))

    def _between(self, rows: np.ndarray, i: int, k: int, s: int, pair: _Pair) -> tuple[float, float]:
        """Return the mean difference of size s, and the mean over P gradients between its ends, both along its sign.

        Steps between whose ends an event comes and goes, such as a touchdown, do not count.
        """
        points = np.float32(SIZES[s]) * ((np.arange(_POINTS, dtype=np.float32) + 0.5) / _POINTS * 2.0 - 1.0)
        differences, summed = [0.0], [0.0]
        for row in np.flatnonzero(pair.valid[:, s]):
            m, leaves = rows[row], [leaf[rows[row]] for leaf in self.steps.states]
            slope, same = self._mean_slope(self.table[m], self.ways[m, i], leaves, self.steps.keys[m], points, k)
            if same:
                central = float(pair.central[row, s])
                differences.append(abs(central))
                summed.append(float(np.nan_to_num(slope)) * np.sign(central))
        count = max(len(summed) - 1, 1)
        return sum(differences) / count, sum(summed) / count

    @cached_property
    def _mean_slope(self) -> Callable[..., tuple[Array, Array]]:
        """The compiled mean of the gradients of one output at P points along a direction, and whether no flag changes."""

        def mean_slope(
            entries: Array, way: Array, leaves: list[Any], key: Array, points: Array, k: Array
        ) -> tuple[Array, Array]:
            def at(point: Array) -> tuple[Array, Array]:
                there = entries + point * way
                slope = jax.grad(lambda entries: self.function(entries, leaves, key).outputs[k])(there) @ way
                return slope, self.function(there, leaves, key).flags

            slopes, flags = lax.map(at, points)
            return slopes.mean(), (flags == self.function(entries, leaves, key).flags[None]).all()

        return jax.jit(mean_slope)


@dataclasses.dataclass(frozen=True)
class _Pair:
    """One output against one input in M control steps: two-sided differences of S sizes, and the gradient."""

    ahead: np.ndarray  # [M, S]
    behind: np.ndarray  # [M, S]
    gradient: np.ndarray  # [M]
    noise: np.ndarray  # [M, S], rounding error of a difference
    valid: Any = True  # bool [M, S]

    def where(self, condition: np.ndarray) -> _Pair:
        """Return the same differences; those that are not finite or do not meet the condition [M, S] do not count."""
        return dataclasses.replace(self, valid=condition & np.isfinite(self.ahead) & np.isfinite(self.behind))

    @property
    def central(self) -> np.ndarray:
        """The central differences [M, S], 0 where they do not count."""
        return np.where(self.valid, 0.5 * (self.ahead + self.behind), 0.0)

    def wrong(self, least: float) -> np.ndarray:
        """Return where differences of two sizes agree with each other, and none with the gradient, bool [M].

        At a kink any slope between those of its two sides is a gradient. What is smaller than `least` does not count.
        """
        central, gradient = self.central, self.gradient[:, None]
        tolerance = _AGREES * np.maximum(np.abs(self.ahead), np.abs(self.behind)) + self.noise
        low, high = np.minimum(self.ahead, self.behind) - tolerance, np.maximum(self.ahead, self.behind) + tolerance
        agrees = (gradient >= low) & (gradient <= high) & self.valid
        clear = (np.maximum(np.abs(central), np.abs(gradient)) > np.maximum(_CLEAR * self.noise, least)) & self.valid
        first, second = central[:, :-1], central[:, 1:]
        same = np.abs(first - second) <= _SAME * np.maximum(np.abs(first), np.abs(second)) + self.noise[:, :-1]
        return ~agrees.any(axis=1) & (same & clear[:, 1:] & self.valid[:, :-1]).any(axis=1)

    def jumps(self) -> np.ndarray:
        """Return the sizes at which the output seems to jump, bool [S].

        The differences of a continuous function are means of its gradient, so theirs is no larger in the mean. Rounding
        errors look like jumps too, but their differences grow as the step shrinks.
        """
        slopes, count = np.abs(self.central), np.maximum(self.valid.sum(axis=0), 1)
        means = slopes.sum(axis=0) / count
        seen = (slopes > _CLEAR * self.noise).sum(axis=0) >= _FEW
        steady = np.append(means[:-1] >= 0.4 * means[1:], False)
        share = np.where(self.valid, np.abs(self.gradient)[:, None], 0.0).sum(axis=0) / count
        return seen & steady & (share < _HALF * means)
