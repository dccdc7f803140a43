"""Fly a phase with the ONNX model of any framework: observations go in as `mission.adapters.gymnasium.Env` gives them.

onnxruntime computes the actions of a whole block on the host. docs/other-frameworks.md says what a model must look like, and
docs/decisions/0019-policies-on-board.md why it is called and not converted. Shapes: N flights of a block, n O entries of an
observation with its history, A action.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mission.errors import InputError, MissionError
from mission.flight.batches import BLOCK
from mission.flight.onboard.onnx_graph import onnx_session
from mission.machine.extras import import_extra
from mission.missionfile.phases import PolicyPhase

_FLOATS = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}
_ACTION_NAMES = ("action", "actions")  # the output with one of these names, else the first one
_APART = 1e-5  # of an action, for the same observation in another row


class OnnxPolicy(NamedTuple):
    """An ONNX model as a function from observations [N, n O] to actions [N, A], float32, and the SHA-256 of its content."""

    act: Callable[[Any], np.ndarray]
    sha256: str


class _Refusal:
    """The errors of one model; each names the file and the phase."""

    def __init__(self, where: str, path: Path, phase: PolicyPhase) -> None:
        self.where, self.path = where, path
        env = phase.environment
        self.observed, self.acted = len(env.observation_names), len(env.action_names)
        self.phase = phase.name

    def __call__(self, expected: str, found: str, remedy: str) -> MissionError:
        """Return the error."""
        return InputError(self.where, expected=expected, found=f"{found} ({self.path})", remedy=remedy)


def onnx_policy(path: Path, phase: PolicyPhase, where: str) -> OnnxPolicy:
    """Return the policy in an ONNX file, once it has acted on a block of observations.

    Args:
      path: of the file; weights that are stored beside it are read, too.
      phase: that it is to fly.
      where: the place that names it, for messages.

    Raises:
      InputError: there is no such file, it is no ONNX model, its inputs and outputs do not fit the phase, or the same
        observation gives different actions.
      MachineError: onnx or onnxruntime is not installed.
    """
    refusal = _Refusal(where, path, phase)
    content = _read(path, refusal)
    try:
        session = onnx_session(content)
    except Exception as error:  # what onnxruntime raises has no common base
        version = importlib.import_module("onnxruntime").__version__
        remedy = "export it with an opset that this version knows, or install a newer onnxruntime"
        raise refusal(f"a model that onnxruntime {version} can run", _first_line(error), remedy) from None
    act = _actions_of(session, refusal)
    _check_actions(act, refusal)
    return OnnxPolicy(act, hashlib.sha256(content).hexdigest())


def _read(path: Path, refusal: _Refusal) -> bytes:
    """Return a model as one piece, with the weights that large exports store in a file beside it."""
    onnx = import_extra("onnx", "mission-engine[onnx]", refusal.where)
    import_extra("onnxruntime", "mission-engine[onnx]", refusal.where)
    try:
        found = "a folder" if path.is_dir() else "" if path.is_file() else "no such file"
    except OSError as error:  # a name that is too long
        found = str(error.strerror)
    if found:
        raise refusal("an ONNX file", found, "name the file that the export wrote, relative to the mission file")
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
        return model.SerializeToString()
    except Exception as error:  # protobuf's DecodeError, onnx's ValidationError, a missing file of weights
        raise refusal("an ONNX model", _first_line(error), "export the policy again as ONNX") from None


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0].strip()[:200] if lines else type(error).__name__


def _actions_of(session: Any, refusal: _Refusal) -> Callable[[Any], np.ndarray]:
    """Return the model as a function of observations [N, n O], after checking what it says of its inputs and outputs."""
    inputs, one_by_one = session.get_inputs(), _takes_one(session, refusal)
    widths = [_width(value) for value in inputs]
    if len(widths) == 1 and widths[0] is None:
        widths = [refusal.observed]
    if any(width is None for width in widths) or sum(w or 0 for w in widths) != refusal.observed:
        raise _wrong_inputs(inputs, refusal)
    bounds = list(accumulate((width or 0 for width in widths), initial=0))
    output = next((one.name for one in session.get_outputs() if one.name.lower() in _ACTION_NAMES), None)
    output = output or session.get_outputs()[0].name
    parts = [(one.name, slice(*bound), _FLOATS[one.type]) for one, bound in zip(inputs, pairwise(bounds), strict=True)]

    def run(rows: np.ndarray) -> np.ndarray:
        feed = {name: np.ascontiguousarray(rows[..., part], kind) for name, part, kind in parts}
        return session.run([output], feed)[0]

    def act(observations: Any) -> np.ndarray:
        rows = np.asarray(observations, np.float32)
        actions = np.stack([run(row) for row in rows]) if one_by_one else run(rows)
        return np.asarray(actions, np.float32)

    return act


def _takes_one(session: Any, refusal: _Refusal) -> bool:
    """Return whether a model takes one observation [n O] at a time instead of a batch [N, n O]."""
    inputs = session.get_inputs()
    ranks = {len(value.shape) for value in inputs}
    if any(value.type not in _FLOATS for value in inputs) or ranks not in ({1}, {2}):
        raise _wrong_inputs(inputs, refusal)
    fixed = [value for value in inputs if len(value.shape) == 2 and isinstance(value.shape[0], int)]
    if fixed:
        raise refusal(
            "a model whose batch size is dynamic, since flights are flown in blocks",
            f"the input {_described(fixed[0])}, which takes {fixed[0].shape[0]} at a time",
            "export it with a dynamic first axis, e.g. dynamic_shapes or dynamic_axes of torch.onnx.export",
        )
    return ranks == {1}


def _width(value: Any) -> int | None:
    return value.shape[-1] if isinstance(value.shape[-1], int) else None


def _described(value: Any) -> str:
    """Return an input or output with its type and shape: `obs float [N, 6]`."""
    shape = ", ".join(str(size) if isinstance(size, int) else "N" for size in value.shape)
    return f"{value.name} {value.type.removeprefix('tensor(').removesuffix(')')} [{shape}]"


def _wrong_inputs(inputs: Any, refusal: _Refusal) -> MissionError:
    return refusal(
        f'an input float32 [N, {refusal.observed}], the observation of phase "{refusal.phase}", or several inputs that are '
        "its consecutive parts",
        ", ".join(_described(value) for value in inputs) or "no input",
        "export the policy of this phase; it must know no state but the observation",
    )


def _check_actions(act: Callable[[Any], np.ndarray], refusal: _Refusal) -> None:
    """Act on observations of a block, twice, in another order, and among others: a batch norm in training mode sees those."""
    rng = np.random.default_rng(0)
    observations = rng.standard_normal((BLOCK, refusal.observed), np.float32)
    half, others = BLOCK // 2, observations.copy()
    others[half:] = 3.0 * observations[half:] + 1.0
    try:
        actions, again, turned = act(observations), act(observations), act(observations[::-1])[::-1]
        among = act(others)
    except Exception as error:
        remedy = "export it with a dynamic first axis"
        raise refusal(f"a model that takes {BLOCK} observations at a time", _first_line(error), remedy) from None
    if actions.shape != (BLOCK, refusal.acted):
        raise refusal(
            f'{refusal.acted} actions for each observation, those of phase "{refusal.phase}"',
            f"an output {list(actions.shape)} for {BLOCK} observations",
            'export the policy of this phase; of several outputs the one named "action" is taken, else the first',
        )
    among = np.concatenate([among[:half], actions[half:]])
    close = all(np.allclose(actions, other, atol=_APART, equal_nan=True) for other in (turned, among))
    if not (close and np.array_equal(actions, again, equal_nan=True)):
        largest = np.nanmax(np.abs([actions - again, actions - turned, actions - among]))
        raise refusal(
            "the same action for the same observation, so that flights can be repeated",
            f"actions that differ by {largest:.3g}",
            "export the deterministic policy: the mean action, without sampling, in evaluation mode",
        )
