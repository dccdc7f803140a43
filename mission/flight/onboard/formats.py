"""The export formats: requirements, writing and loading of each.

Shapes: M observations, n O entries of an observation with its history, A action.
"""

from __future__ import annotations

import abc
import importlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

import jax
import numpy as np

from mission.flight.onboard import compiler
from mission.flight.onboard.c99 import c_files, declarations
from mission.flight.onboard.interface import FormatName, Latency
from mission.flight.onboard.library import Library
from mission.flight.onboard.numpy_policy import load_numpy_policy, numpy_files
from mission.flight.onboard.onnx_graph import onnx_model, onnx_session
from mission.flight.onboard.stablehlo import stablehlo_blob, stablehlo_function
from mission.flight.onboard.subject import Subject
from mission.machine.extras import import_extra

Act = Callable[[np.ndarray], np.ndarray]  # observations [M, n O] -> actions [M, A]
_CALLS, _WARM_UP_CALLS, _REPEATS = 1000, 20, 5


class Measured(NamedTuple):
    """The measurements of a format besides the actions."""

    latency: tuple[Latency, ...]
    observations: np.ndarray | None = None  # [M, O], from the channels
    stack_bytes: int | None = None
    undefined_symbols: tuple[str, ...] | None = None
    flags: str | None = None


class Target(abc.ABC):
    """One format. `float64` says in which arithmetic its actions are compared with JAX's."""

    name: ClassVar[FormatName]
    float64: ClassVar[bool] = True

    @abc.abstractmethod
    def check(self) -> None:
        """Check that what it needs is installed; raises a MachineError."""

    @abc.abstractmethod
    def write(self, subject: Subject, folder: Path, golden: Sequence[int], notice: str) -> None:
        """Write the files of the format."""

    @abc.abstractmethod
    def load(self, subject: Subject, folder: Path) -> Act:
        """Return the policy as it is read from these files."""

    @abc.abstractmethod
    def versions(self) -> dict[str, str]:
        """Return the versions of what takes part."""

    def declarations(self, subject: Subject) -> str:
        """Return the functions of a library in C; empty if it is none."""
        return ""

    def measure(self, subject: Subject, folder: Path, act: Act) -> Measured:
        """Measure one control step, called from Python."""
        return Measured((_python_latency(self.name, act, subject.observations),))


def _python_latency(name: str, act: Act, observations: np.ndarray) -> Latency:
    """Return the time of calls with one observation each."""

    def microseconds(row: np.ndarray) -> float:
        begin = time.perf_counter()
        act(row)
        return 1e6 * (time.perf_counter() - begin)

    rows = [observations[at : at + 1] for at in range(min(_CALLS, len(observations)))]
    for row in rows[:_WARM_UP_CALLS]:
        act(row)
    times = np.array([[microseconds(row) for _ in range(_REPEATS)] for row in rows])
    median, worst, undisturbed = np.median(times), times.max(), times.min(axis=1).max()
    figures = {"median_us": median, "worst_us": worst, "undisturbed_us": undisturbed}
    return Latency(build=f"{name} from Python", calls=times.size, **{k: round(float(v), 3) for k, v in figures.items()})


class C99(Target):
    """C sources, compiled with gcc and called through cffi."""

    name = "c99"

    def check(self) -> None:
        """Check for gcc and cffi."""
        compiler.check_compiler()
        import_extra("cffi", "mission-engine[c]", "mission export --format c99")

    def write(self, subject: Subject, folder: Path, golden: Sequence[int], notice: str) -> None:
        """Write and compile the sources, and run the golden test."""
        for name, text in c_files(subject, golden, notice).items():
            (folder / name).write_text(text, encoding="utf-8")
        compiler.compile_library(folder)
        compiler.run_golden_test(folder)

    def load(self, subject: Subject, folder: Path) -> Act:
        """Load the library."""
        return self._library(subject, folder).act

    def _library(self, subject: Subject, folder: Path) -> Library:
        return Library(folder, declarations(subject), subject.actions, subject.single)

    def versions(self) -> dict[str, str]:
        """Return those of gcc and cffi."""
        return {"gcc": compiler.compiler_version(), "cffi": importlib.import_module("cffi").__version__}

    def declarations(self, subject: Subject) -> str:
        """Return the functions of the library."""
        return declarations(subject)

    def measure(self, subject: Subject, folder: Path, act: Act) -> Measured:
        """Measure latency, stack, symbols, and the observation function where there is one."""
        observed = None
        if subject.inputs_of_observation:
            observed = self._library(subject, folder).observe(subject.input_channels)
        return Measured(
            latency=compiler.measure_latency(folder),
            observations=observed,
            stack_bytes=compiler.stack_bytes(folder),
            undefined_symbols=compiler.undefined_symbols(folder),
            flags=" ".join(compiler.FLAGS),
        )


class Onnx(Target):
    """An ONNX graph, run by onnxruntime."""

    name = "onnx"

    def check(self) -> None:
        """Check for onnx and onnxruntime."""
        for package in ("onnx", "onnxruntime"):
            import_extra(package, "mission-engine[onnx]", "mission export --format onnx")

    def write(self, subject: Subject, folder: Path, golden: Sequence[int], notice: str) -> None:
        """Write the graph, which onnx has checked."""
        (folder / "policy.onnx").write_bytes(onnx_model(subject, notice))

    def load(self, subject: Subject, folder: Path) -> Act:
        """Load it into onnxruntime."""
        session = onnx_session((folder / "policy.onnx").read_bytes())

        def act(observations: np.ndarray) -> np.ndarray:
            inputs = {"observation": observations[:, : subject.single]}
            if subject.history > 1:
                inputs["earlier"] = observations[:, subject.single :]
            return session.run(["action"], inputs)[0]

        return act

    def versions(self) -> dict[str, str]:
        """Return those of onnx and onnxruntime."""
        return {package: importlib.import_module(package).__version__ for package in ("onnx", "onnxruntime")}


class StableHlo(Target):
    """The function that flies, serialised by JAX."""

    name = "stablehlo"
    float64 = False

    def check(self) -> None:
        """Check for flatbuffers."""
        import_extra("flatbuffers", "mission-engine[stablehlo]", "mission export --format stablehlo")

    def write(self, subject: Subject, folder: Path, golden: Sequence[int], notice: str) -> None:
        """Write the serialised function."""
        (folder / "policy.stablehlo").write_bytes(stablehlo_blob(subject))

    def load(self, subject: Subject, folder: Path) -> Act:
        """Read it again."""
        function = stablehlo_function((folder / "policy.stablehlo").read_bytes())

        def act(observations: np.ndarray) -> np.ndarray:
            if subject.history == 1:
                return np.asarray(function(observations))
            return np.asarray(function(observations[:, : subject.single], observations[:, subject.single :])[0])

        return act

    def versions(self) -> dict[str, str]:
        """Return that of JAX, older ones of which cannot read the file."""
        return {"jax": jax.__version__}


class Npz(Target):
    """Arrays and a forward pass in numpy."""

    name = "npz"

    def check(self) -> None:
        """Need nothing."""

    def write(self, subject: Subject, folder: Path, golden: Sequence[int], notice: str) -> None:
        """Write the arrays and the forward pass."""
        for name, content in numpy_files(subject, notice).items():
            (folder / name).write_bytes(content)

    def load(self, subject: Subject, folder: Path) -> Act:
        """Import the forward pass."""
        return load_numpy_policy(folder).act

    def versions(self) -> dict[str, str]:
        """Return that of numpy."""
        return {"numpy": np.__version__}


TARGETS: dict[str, Target] = {target.name: target for target in (C99(), Onnx(), StableHlo(), Npz())}


def golden_text(subject: Subject, golden: Sequence[int]) -> str:
    """Return golden vectors as JSON: inputs, and the actions of the policy in float64."""
    rows = list(golden)
    vectors = {"observations": subject.observations[rows].tolist(), "actions": subject.exact[rows].tolist()}
    if subject.inputs_of_observation:
        vectors["channels"] = subject.input_channels[rows].tolist()
    return json.dumps(vectors, indent=1) + "\n"
