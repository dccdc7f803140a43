"""A policy as C99: plain scalar code without allocation, recursion or dependencies beyond the mathematical library.

Everything is computed in double from float weights. Shapes: I inputs and J outputs of a layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from mission.flight.onboard.c_expressions import c_statements
from mission.flight.onboard.subject import Subject
from mission.flight.onboard.texts import template
from mission.learner import Layer

TILE = 16  # outputs whose weights lie together and whose sums stay in registers
FUNCTIONS = frozenset({"exp", "expm1", "log", "log1p", "pow", "sin", "cos", "sqrt", "tanh", "fabs"})  # of libm
_PER_LINE = 8
_ACTIVATIONS = {
    "relu": "x < 0.0 ? 0.0 : x",
    "tanh": "tanh(x)",
    "elu": "x > 0.0 ? x : expm1(x)",
    "silu": "x / (1.0 + exp(-x))",
}


def c_files(subject: Subject, golden: Sequence[int], notice: str) -> dict[str, str]:
    """Return the sources of a policy, name -> content.

    Args:
      subject: what is exported.
      golden: the control steps whose inputs and outputs become golden vectors.
      notice: the licence note, as text.

    Raises:
      InputError: the observation uses an operation that has no translation to C.
    """
    comment = "/*\n" + "".join(f" * {_safe(line)}".rstrip() + "\n" for line in notice.splitlines()) + " */\n"
    header = comment + _filled("policy.h", subject, DECLARATIONS="\n".join(_declarations(subject)))
    return {
        "policy.h": header,
        "policy.c": comment + "\n".join(_source(subject)) + "\n",
        "golden_vectors.h": comment + "\n".join(_golden(subject, golden)) + "\n",
        "test_policy.c": comment + _filled("test_policy.c", subject, OBSERVE=_observation_test(subject)),
        "latency.c": comment + _filled("latency.c", subject),
        "Makefile": _filled("Makefile", subject),
    }


def declarations(subject: Subject) -> str:
    """Return the functions of the library as cffi reads them."""
    lines = ["void policy_action(const float *input, float *action);"]
    if subject.inputs_of_observation:
        lines.append("void policy_observe(const float *channel, float *observation);")
    if subject.history > 1:
        memory = f"typedef struct {{ float seen[{subject.inputs}]; int begun; }} policy_memory;"
        lines += [memory, "void policy_reset(policy_memory *memory);"]
        lines.append("void policy_step(policy_memory *memory, const float *observation, float *action);")
    return "\n".join(lines)


def _filled(name: str, subject: Subject, **more: str) -> str:
    words = {"PHASE": subject.phase.name, "MISSION": subject.mission, **more}
    return template(f"{name}.txt", {f"__{word}__": text for word, text in words.items()})


def _declarations(subject: Subject) -> Iterator[str]:
    env = subject.environment
    yield f"#define POLICY_OBSERVATIONS {subject.single} /* entries of one observation */"
    yield f"#define POLICY_HISTORY {subject.history} /* observations that the policy sees at once */"
    yield "#define POLICY_INPUTS (POLICY_OBSERVATIONS * POLICY_HISTORY)"
    yield f"#define POLICY_ACTIONS {subject.actions}"
    yield f"#define POLICY_PERIOD_S {env.control_period_s!r} /* seconds between two calls */"
    yield from _indices("OBSERVATION", env.observation_names)
    yield from _indices("ACTION", env.action_names)
    order = ": the newest first, then those of the steps before" if subject.history > 1 else ""
    yield f"\n/* Compute the action in [-1, 1] from the observations{order}. */"
    yield "void policy_action(const float input[POLICY_INPUTS], float action[POLICY_ACTIONS]);"
    if subject.history > 1:
        yield template("memory.h.txt", {}).rstrip()
    if subject.inputs_of_observation:
        yield f"\n#define POLICY_CHANNELS {len(subject.inputs_of_observation)}"
        yield from _indices("CHANNEL", subject.inputs_of_observation)
        yield "\n/* Compute the observation from the telemetry channels. */"
        yield "void policy_observe(const float channel[POLICY_CHANNELS], float observation[POLICY_OBSERVATIONS]);"


def _indices(kind: str, names: Sequence[str]) -> Iterator[str]:
    """Yield a comment that numbers names, which need not be valid C identifiers."""
    yield f"\n/* {kind.lower()}s:"
    yield from (f" *   {at:3d} {_safe(name)}" for at, name in enumerate(names))
    yield " */"


def _safe(text: str) -> str:
    """Return text that neither ends a comment nor begins one."""
    return text.replace("*/", "* /").replace("/*", "/ *").encode("unicode_escape").decode()


def _source(subject: Subject) -> Iterator[str]:
    policy = subject.layers
    yield '#include <math.h>\n\n#include "policy.h"\n'
    if policy.mean is not None:
        yield from _array("mean", policy.mean)
        yield from _array("deviation", policy.std)
    for at, layer in enumerate(policy.layers):
        yield from _array(f"kernel_{at}", _tiled(layer.kernel))
        yield from _array(f"bias_{at}", _padded(layer.bias))
        if layer.scale is not None:
            yield from _array(f"scale_{at}", layer.scale)
            yield from _array(f"shift_{at}", layer.shift)
    yield template("dense.c.txt", {"__TILE__": str(TILE)})
    if any(layer.scale is not None for layer in policy.layers):
        yield template("normalise.c.txt", {"__EPSILON__": float(policy.epsilon).hex()})
    for name in sorted({layer.activation for layer in policy.layers} & set(_ACTIVATIONS)):
        yield f"static double {name}_of(double x)\n{{\n    return {_ACTIVATIONS[name]};\n}}\n"
    yield from _action(subject)
    if subject.history > 1:
        yield template("memory.c.txt", {})
    if subject.inputs_of_observation:
        yield from _observe(subject)


def _action(subject: Subject) -> Iterator[str]:
    policy = subject.layers
    width = max(subject.inputs, *(len(_padded(layer.bias)) for layer in policy.layers))
    yield "void policy_action(const float input[POLICY_INPUTS], float action[POLICY_ACTIONS])\n{"
    yield f"    double even[{width}], odd[{width}];\n"
    yield "    for (int i = 0; i < POLICY_INPUTS; i++) {"
    if policy.mean is None:
        yield "        even[i] = (double)input[i];"
    else:
        standard = "((double)input[i] - (double)mean[i]) / (double)deviation[i]"
        yield f"        even[i] = within({standard}, {policy.most!r});"
    yield "    }"
    for at, layer in enumerate(policy.layers):
        source, target = ("even", "odd") if at % 2 == 0 else ("odd", "even")
        yield from _layer(at, layer, source, target)
    target = "odd" if len(policy.layers) % 2 else "even"
    yield "    for (int i = 0; i < POLICY_ACTIONS; i++) {"
    yield f"        action[i] = (float)within({target}[i], 1.0);\n    }}\n}}\n"


def _layer(at: int, layer: Layer, source: str, target: str) -> Iterator[str]:
    inputs, outputs = layer.kernel.shape
    tiles = len(_padded(layer.bias)) // TILE
    yield f"    dense({source}, {inputs}, {tiles}, kernel_{at}, bias_{at}, {target});"
    if layer.scale is not None:
        yield f"    normalise({target}, {outputs}, scale_{at}, shift_{at});"
    if layer.activation in _ACTIVATIONS:
        yield f"    for (int j = 0; j < {outputs}; j++) {{"
        yield f"        {target}[j] = {layer.activation}_of({target}[j]);\n    }}"


def _observe(subject: Subject) -> Iterator[str]:
    names, observe = subject.inputs_of_observation, subject.environment.observe_channels
    statements, results = c_statements(
        lambda *values: observe(dict(zip(names, values, strict=True))),
        [f"(double)channel[{at}]" for at in range(len(names))],
        f'observation of phase "{subject.phase.name}"',
    )
    yield "void policy_observe(const float channel[POLICY_CHANNELS], float observation[POLICY_OBSERVATIONS])\n{"
    yield from (f"    {line}" for line in statements)
    yield from (f"    observation[{at}] = (float)({result});" for at, result in enumerate(results))
    yield "}\n"


def _golden(subject: Subject, golden: Sequence[int]) -> Iterator[str]:
    yield f'#include "policy.h"\n\n#define GOLDEN {len(golden)}\n'
    rows = list(golden)
    yield from _array("golden_input", subject.observations[rows], inner="POLICY_INPUTS")
    yield from _array("golden_action", subject.exact[rows], inner="POLICY_ACTIONS", kind="double")
    if subject.inputs_of_observation:
        yield from _array("golden_channel", subject.input_channels[rows], inner="POLICY_CHANNELS")
        yield from _array(
            "golden_observation", subject.exact_observations[rows], inner="POLICY_OBSERVATIONS", kind="double"
        )


def _observation_test(subject: Subject) -> str:
    if not subject.inputs_of_observation:
        return ""
    return template("test_observe.c.txt", {}).rstrip("\n")


def _array(name: str, values: np.ndarray, inner: str = "", kind: str = "float") -> Iterator[str]:
    """Yield an array as exact hexadecimal numbers; one of rows if `inner` names their length."""
    size = f"[GOLDEN][{inner}]" if inner else f"[{values.size}]"
    yield f"static const {kind} {name}{size} = {{"
    suffix = "f" if kind == "float" else ""
    for row in values if inner else (values.reshape(-1),):
        numbers = [_number(value) + suffix for value in np.asarray(row, np.float64).tolist()]
        lines = [", ".join(numbers[at : at + _PER_LINE]) for at in range(0, len(numbers), _PER_LINE)]
        body = ",\n    ".join(lines)
        yield f"    {{{body}}}," if inner else f"    {body}"
    yield "};\n"


def _number(value: float) -> str:
    return float(value).hex() if value else "0.0"


def _padded(values: np.ndarray) -> np.ndarray:
    """Return the last axis [..., J] with zeros up to whole tiles."""
    missing = -values.shape[-1] % TILE
    return np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, missing)])


def _tiled(kernel: np.ndarray) -> np.ndarray:
    """Return a kernel [I, J] as [tiles, I, TILE]."""
    padded = _padded(kernel)
    return padded.reshape(len(kernel), -1, TILE).swapaxes(0, 1)
