"""Translate a small JAX function of scalars to C99 statements; it computes an observation from telemetry.

The function is traced in float64, and each operation on a scalar becomes one statement.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mission.errors import InputError

# operation of JAX -> expression of C in its operands
_SCALAR: dict[str, str] = {
    "add": "{0} + {1}",
    "add_any": "{0} + {1}",
    "sub": "{0} - {1}",
    "mul": "{0} * {1}",
    "div": "{0} / {1}",
    "neg": "-{0}",
    "max": "{0} > {1} ? {0} : {1}",
    "min": "{0} < {1} ? {0} : {1}",
    "abs": "fabs({0})",
    "sign": "(double)(({0} > 0.0) - ({0} < 0.0))",
    "sqrt": "sqrt({0})",
    "rsqrt": "1.0 / sqrt({0})",
    "square": "{0} * {0}",
    "exp": "exp({0})",
    "expm1": "expm1({0})",
    "log": "log({0})",
    "log1p": "log1p({0})",
    "tanh": "tanh({0})",
    "sin": "sin({0})",
    "cos": "cos({0})",
    "pow": "pow({0}, {1})",
    "lt": "{0} < {1}",
    "le": "{0} <= {1}",
    "gt": "{0} > {1}",
    "ge": "{0} >= {1}",
    "eq": "{0} == {1}",
    "ne": "{0} != {1}",
    "and": "{0} && {1}",
    "or": "{0} || {1}",
    "not": "!{0}",
    "select_n": "{0} ? {2} : {1}",
    "clamp": "{1} < {0} ? {0} : ({1} > {2} ? {2} : {1})",
    "stop_gradient": "{0}",
    "copy": "{0}",
}
_VARIABLE = re.compile(r"\bv\d+\b")
_INNER = ("jaxpr", "call_jaxpr")  # the parameter of an operation that calls a function


@dataclasses.dataclass
class _Translator:
    """Evaluates a function on arrays of C expressions; `lines` are the statements so far."""

    where: str
    lines: list[str] = dataclasses.field(default_factory=list)

    def run(self, closed: Any, arguments: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the results of a function as arrays of expressions."""
        known = dict(zip(closed.jaxpr.invars, arguments, strict=True))
        known |= zip(closed.jaxpr.constvars, map(_constants, closed.consts), strict=True)
        for equation in closed.jaxpr.eqns:
            values = [self._value(known, atom) for atom in equation.invars]
            results = self._apply(equation, values)
            known |= zip(equation.outvars, results, strict=True)
        return [self._value(known, atom) for atom in closed.jaxpr.outvars]

    def _value(self, known: dict[Any, np.ndarray], atom: Any) -> np.ndarray:
        return _constants(atom.val) if hasattr(atom, "val") else known[atom]

    def _apply(self, equation: Any, values: list[np.ndarray]) -> list[np.ndarray]:
        name, params = equation.primitive.name, equation.params
        inner = next((params[key] for key in _INNER if key in params), None)
        if inner is not None:
            return self.run(inner, values)
        moved = _moved(name, params, values)
        if moved is not None:
            return [moved]
        pattern = self._pattern(name, params, equation.outvars[0].aval.dtype)
        boolean = equation.outvars[0].aval.dtype == bool
        rows = np.broadcast_arrays(*values)
        result = np.empty(rows[0].shape, object)
        for at in np.ndindex(result.shape):
            result[at] = self._define(pattern.format(*(row[at] for row in rows)), boolean)
        return [result]

    def _pattern(self, name: str, params: dict[str, Any], dtype: Any) -> str:
        if name == "integer_pow" and 1 <= params["y"] <= 4:
            return " * ".join(["{0}"] * params["y"])
        if name == "convert_element_type":
            return {"float32": "(double)(float){0}", "bool": "{0} != 0"}.get(dtype.name, "(double){0}")
        if name not in _SCALAR:
            raise InputError(
                self.where,
                expected=f"operations that C has: {', '.join(sorted(_SCALAR))}",
                found=name,
                remedy="write observe_channels without it, or leave observation_inputs empty",
            )
        return _SCALAR[name]

    def _define(self, expression: str, boolean: bool) -> str:
        name = f"v{len(self.lines)}"
        self.lines.append(f"const {'int' if boolean else 'double'} {name} = {expression};")
        return name


def _moved(name: str, params: dict[str, Any], values: list[np.ndarray]) -> np.ndarray | None:
    """Return the result of an operation that only moves scalars; None if it is another one."""
    match name:
        case "concatenate":
            return np.concatenate(values, axis=params["dimension"])
        case "stack":
            return np.stack(values, axis=params["axis"])
        case "reshape":
            return values[0].reshape(params["new_sizes"])
        case "squeeze":
            return np.squeeze(values[0], axis=params["dimensions"])
        case "broadcast_in_dim":
            sizes = [1] * len(params["shape"])
            for axis, place in enumerate(params["broadcast_dimensions"]):
                sizes[place] = values[0].shape[axis]
            return np.broadcast_to(values[0].reshape(sizes), params["shape"])
        case "slice":
            strides = params["strides"] or [1] * values[0].ndim
            bounds = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
            return values[0][tuple(slice(*bound) for bound in bounds)]
    return None


def _constants(value: Any) -> np.ndarray:
    """Return an array of numbers as C literals."""
    array = np.asarray(value)
    result = np.empty(array.shape, object)
    for at in np.ndindex(array.shape):
        number = array[at].item()
        result[at] = str(int(number)) if array.dtype == bool else f"({float(number).hex()})"
    return result


def c_statements(function: Callable[..., Any], arguments: Sequence[str], where: str) -> tuple[list[str], list[str]]:
    """Return the statements that compute a function, and the expressions of its results.

    Args:
      function: of as many scalars as there are arguments; returns an array [O].
      arguments: C expressions of type double.
      where: what the function is, for messages.

    Raises:
      InputError: it uses an operation that has no translation.
    """
    translator = _Translator(where)
    with jax.enable_x64(True):
        closed = jax.make_jaxpr(function)(*(jax.ShapeDtypeStruct((), jnp.float64) for _ in arguments))
        inputs = [np.array(text, object).reshape(()) for text in arguments]
        (result,) = translator.run(closed, inputs)
    results = [str(text) for text in result]
    return _needed(translator.lines, results), results


def _needed(lines: Sequence[str], results: Sequence[str]) -> list[str]:
    """Return the statements on which results depend, in order; a compiler would warn of the others."""
    needed = {name for text in results for name in _VARIABLE.findall(text)}
    kept: list[str] = []
    for line in reversed(lines):
        name, _, expression = line.partition(" = ")
        if name.split()[-1] in needed:
            needed.update(_VARIABLE.findall(expression))
            kept.append(line)
    return kept[::-1]
