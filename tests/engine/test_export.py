"""Exported policies: every option of the actor in every format against JAX, and the code that is written."""

from __future__ import annotations

import dataclasses
import functools
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from instruments import Instruments, actor, instruments, random_subject
from jax import Array

from mission.errors import InputError, MachineError, ParityError, PluginError
from mission.flight.onboard import compiler
from mission.flight.onboard.c99 import declarations
from mission.flight.onboard.c_expressions import c_statements
from mission.flight.onboard.exporting import BOUND, compare, in_blocks
from mission.flight.onboard.formats import TARGETS, Target
from mission.flight.onboard.library import Library
from mission.flight.onboard.subject import Subject
from mission.testing import check_phase, make_phase

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc")
PACKAGES = {"c99": ("cffi",), "onnx": ("onnx", "onnxruntime"), "stablehlo": ("flatbuffers",), "npz": ()}
FORMATS = [pytest.param(name, marks=needs_gcc if name == "c99" else ()) for name in TARGETS]
# every activation with and without LayerNorm, and every head, width and standardisation among them
NETWORKS: list[dict[str, Any]] = [
    {"actor": actor(activation="relu")},
    {"actor": actor(activation="relu", layer_norm=True, head="bounded"), "standardise": True},
    {"actor": actor(activation="tanh", head="softplus"), "standardise": True},
    {"actor": actor(activation="tanh", layer_norm=True, layers=(5, 16, 33)), "history": 3},
    {"actor": actor(activation="elu", head="bounded", layers=(40,))},
    {"actor": actor(activation="elu", layer_norm=True, head="softplus"), "standardise": True, "history": 2},
    {"actor": actor(activation="silu", width=1, depth=1), "history": 5},
    {"actor": actor(activation="silu", layer_norm=True, width=256), "standardise": True},
    {"actor": actor(head="bounded", width=50, depth=15)},  # of the preset `seed`
    {"actor": actor(layer_norm=True), "actor_average": 0.1},
]


@functools.cache
def network(number: int, seed: int | None = None) -> Subject:
    return random_subject(number if seed is None else seed, **NETWORKS[number])


def target(name: str) -> Target:
    for package in PACKAGES[name]:
        pytest.importorskip(package)
    return TARGETS[name]


def written(name: str, subject: Subject, folder: Path) -> Target:
    folder.mkdir(exist_ok=True)
    chosen = target(name)
    chosen.write(subject, folder, range(0, len(subject.observations), 20), "a licence\nnote */ with an end")
    return chosen


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("number", range(len(NETWORKS)))
def test_every_option_of_the_actor(name: str, number: int, tmp_path: Path) -> None:
    subject = network(number)
    chosen = written(name, subject, tmp_path)
    got = in_blocks(chosen.load(subject, tmp_path), subject.observations)
    wanted = subject.exact if chosen.float64 else subject.flown
    assert got.dtype == np.float32
    assert got.shape == (len(subject.observations), 3)
    assert np.abs(got - wanted).max() <= BOUND
    assert np.abs(got - subject.flown).max() <= 1e-4
    assert got.std() > 0.01


def test_the_float64_policy_is_the_policy() -> None:
    """What exports are compared with is the policy that flies, without its rounding."""
    subject = network(1)
    assert subject.exact.dtype == np.float64
    assert 0.0 < np.abs(subject.exact - subject.flown).max() < 1e-5


@needs_gcc
def test_golden_vectors_compile_run_and_notice_other_weights(tmp_path: Path) -> None:
    subject = network(7)
    written("c99", subject, tmp_path)
    passed = subprocess.run(["make", "-C", tmp_path, "test"], capture_output=True, text=True, check=False)
    assert passed.returncode == 0, passed.stderr
    assert "25 golden vectors, 0 wrong" in passed.stdout
    assert "warning" not in passed.stderr
    text = (tmp_path / "policy.c").read_text()
    weight = text.index("0x", text.index("kernel_1")) + 4
    (tmp_path / "policy.c").write_text(text[:weight] + ("f" if text[weight] != "f" else "0") + text[weight + 1 :])
    failed = subprocess.run(["make", "-C", tmp_path, "test"], capture_output=True, text=True, check=False)
    assert failed.returncode != 0
    assert " 0 wrong" not in failed.stdout


@pytest.mark.parametrize("name", FORMATS)
def test_another_policy_is_noticed(name: str, tmp_path: Path) -> None:
    """The parity check fails if what was written is not the policy."""
    subject, other = network(1), network(1, seed=2)
    chosen = written(name, other, tmp_path)
    with pytest.raises(ParityError, match="within 1e-06"):
        compare(dataclasses.replace(subject, observations=other.observations), chosen, tmp_path)


@needs_gcc
@pytest.mark.parametrize("number", [0, 5, 7])
def test_code_needs_no_memory_and_little_stack(number: int, tmp_path: Path) -> None:
    subject = network(number)
    written("c99", subject, tmp_path)
    widest = max(subject.inputs, *(len(layer.bias) + 15 for layer in subject.layers.layers))
    assert compiler.stack_bytes(tmp_path) <= 16 * widest + 1000  # two rows of doubles
    symbols = compiler.undefined_symbols(tmp_path)
    assert set(symbols) <= {"exp", "expm1", "log1p", "sqrt", "tanh", "memcpy", "memset", "memmove"}
    assert not list(tmp_path.glob("*.o"))
    source = (tmp_path / "policy.c").read_text()
    (tmp_path / "policy.c").write_text(
        source + "#include <stdlib.h>\nvoid *more(void);\nvoid *more(void) { return malloc(8); }\n"
    )
    compiler.stack_bytes(tmp_path)
    with pytest.raises(MachineError, match="malloc"):
        compiler.undefined_symbols(tmp_path)
    (tmp_path / "policy.c").write_text(
        source + "double more(int n);\ndouble more(int n) { double x[n]; x[0] = 1.0; return sin(x[n - 1]); }\n"
    )
    with pytest.raises(MachineError, match="more"):
        compiler.stack_bytes(tmp_path)


@needs_gcc
def test_a_warning_of_the_compiler_is_an_error(tmp_path: Path) -> None:
    written("c99", network(0), tmp_path)
    with (tmp_path / "policy.c").open("a") as file:
        file.write("static int unused;\n")
    with pytest.raises(MachineError, match="unused"):
        compiler.compile_library(tmp_path)


@needs_gcc
def test_the_library_keeps_the_history_as_the_engine_does(tmp_path: Path) -> None:
    """The observations of a flight one by one give the actions of the stacked ones."""
    pytest.importorskip("cffi")
    subject = network(3)
    written("c99", subject, tmp_path)
    library = Library(tmp_path, declarations(subject), subject.actions, subject.single)
    env: Any = subject.phase.environment
    state = env.enter(jax.random.key(0), env.start(jax.random.key(1)))
    stacked, single = [], []
    for number in range(6):
        stacked.append(np.asarray(env.observe(state)))
        single.append(np.asarray(subject.environment.observe(state.now)))
        state = env.step(jax.random.key(number), state, jnp.full(3, 0.1 * number))
    np.testing.assert_array_equal(library.follow(np.stack(single)), library.act(np.stack(stacked)))
    assert len(np.unique(library.act(np.stack(stacked)), axis=0)) == 6


@pytest.mark.parametrize("name", ["onnx", "stablehlo"])
def test_a_history_comes_back_for_the_next_step(name: str, tmp_path: Path) -> None:
    subject = network(3)
    written(name, subject, tmp_path)
    now, earlier = subject.observations[:, :7], subject.observations[:, 7:]
    if name == "onnx":
        from mission.flight.onboard.onnx_graph import onnx_session

        session = onnx_session((tmp_path / "policy.onnx").read_bytes())
        _, after = session.run(None, {"observation": now, "earlier": earlier})
    else:
        from mission.flight.onboard.stablehlo import stablehlo_function

        _, after = stablehlo_function((tmp_path / "policy.stablehlo").read_bytes())(now, earlier)
    np.testing.assert_array_equal(np.asarray(after), subject.observations[:, :14])


def test_an_onnx_model_is_valid_and_takes_any_batch(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    chosen = written("onnx", network(7), tmp_path)
    subject = network(7)
    model = onnx.load(tmp_path / "policy.onnx")
    onnx.checker.check_model(model, full_check=True)
    act = chosen.load(subject, tmp_path)
    assert act(subject.observations[:1]).shape == (1, 3)
    assert act(subject.observations[:7]).shape == (7, 3)


def test_the_numpy_policy_needs_neither_engine_nor_jax(tmp_path: Path) -> None:
    subject = network(5)
    written("npz", subject, tmp_path)
    lines = (tmp_path / "policy.py").read_text().splitlines()
    assert len(lines) < 50
    imports = {line for line in lines if line.startswith(("import", "from"))}
    assert imports == {"from pathlib import Path", "import numpy as np"}


@needs_gcc
def test_the_observation_is_computed_from_telemetry(tmp_path: Path) -> None:
    pytest.importorskip("cffi")
    subject = network(0)
    written("c99", subject, tmp_path)
    library = Library(tmp_path, declarations(subject), subject.actions, subject.single)
    got = library.observe(subject.input_channels)
    np.testing.assert_allclose(got, subject.observations, atol=1e-6)
    assert compare(subject, TARGETS["c99"], tmp_path).observation_difference <= 1e-6
    assert "   0 speed_m_s" in (tmp_path / "policy.h").read_text()


def test_operations_that_c_lacks_are_named() -> None:
    with pytest.raises(InputError, match="erf"):
        c_statements(lambda x: jnp.stack([jax.scipy.special.erf(x)]), ["x"], "here")


def compiled(function: Any, values: np.ndarray, tmp_path: Path) -> np.ndarray:
    """Evaluate the C of a function of two scalars at values [M, 2]."""
    cffi = pytest.importorskip("cffi")
    lines, results = c_statements(function, ["x[0]", "x[1]"], "here")
    body = "".join(f"{line}\n" for line in lines) + "".join(f"y[{at}] = {text};\n" for at, text in enumerate(results))
    source = (
        f"#include <math.h>\nvoid f(const double *x, double *y);\nvoid f(const double *x, double *y) {{ {body} }}\n"
    )
    (tmp_path / "f.c").write_text(source)
    flags = [*compiler.FLAGS, "-Werror", "-fPIC", "-shared"]
    subprocess.run(["gcc", *flags, "f.c", "-o", "f.so", "-lm"], cwd=tmp_path, check=True)
    ffi = cffi.FFI()
    ffi.cdef("void f(const double *x, double *y);")
    library, got = ffi.dlopen(str(tmp_path / "f.so")), np.empty((len(values), len(results)))
    for row, out in zip(np.ascontiguousarray(values, np.float64), got, strict=True):
        library.f(ffi.from_buffer("double[]", row), ffi.from_buffer("double[]", out, require_writable=True))
    return got


@needs_gcc
def test_every_operation_agrees_with_jax(tmp_path: Path) -> None:
    def function(x: Array, y: Array) -> Array:
        pair = jnp.stack([x, y])
        return jnp.concatenate([
            jnp.stack([x + y, x - y, x * y, x / (2.0 + y * y), -x, jnp.maximum(x, y), jnp.minimum(x, y), jnp.abs(x)]),
            jnp.stack([jnp.sign(x), jnp.sqrt(jnp.abs(y)), jax.lax.rsqrt(1.0 + x * x), jnp.square(y), jnp.exp(x)]),
            jnp.stack([jnp.expm1(y), jnp.log(1.5 + x * x), jnp.log1p(y * y), jnp.tanh(x), jnp.sin(y), jnp.cos(x)]),
            jnp.stack([jnp.power(2.0 + x, y), x**2, y**3, x**4, jnp.clip(y, -0.5, 0.5)]),
            jnp.stack([jnp.where((x < y) | ~(x <= 0.3), x, y), jnp.where((x > y) & (y >= -0.3), y, -x)]),
            jnp.where(pair == pair[::1], pair, 0.0) * jnp.array([1.0, 2.0]),
            jnp.stack([jax.lax.stop_gradient(x), jnp.float32(0.1) * y, jax.nn.softplus(x), jnp.where(x != y, 1.0, 2.0)]),
        ])  # fmt: skip

    values = np.random.default_rng(0).uniform(-1.9, 1.9, (200, 2))
    got = compiled(function, values, tmp_path)
    with jax.enable_x64(True):
        wanted = np.asarray(jax.vmap(function)(*jnp.asarray(values).T))
    np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-12)


# The contract of a phase that declares where its observation comes from


@dataclasses.dataclass(frozen=True, eq=False)
class Wrong(Instruments):
    def observe_channels(self, channels: dict[str, Array]) -> Array:
        return super().observe_channels(channels | {"speed_m_s": 1.001 * channels["speed_m_s"]})

    def observe(self, state: Any) -> Array:
        return super().observe_channels({"height_m": state.height_m, "speed_m_s": state.speed_m_s})


def test_check_phase_compares_the_observation_with_the_telemetry() -> None:
    check_phase(instruments())
    with pytest.raises(PluginError, match="observe_channels to return what observe returns"):
        check_phase(instruments(Wrong()))


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"observation_inputs": ("height_m", "depth_m")}, "telemetry channels"),
        ({"observation_inputs": ["height_m"]}, "a tuple"),
        ({"observation_entries": ("height",)}, "7 of mission.ObservationEntry"),
        ({"observe": lambda self, state: jnp.zeros(7), "observe_channels": lambda self, channels: jnp.zeros(3)}, "7"),
    ],
)
def test_declarations_are_checked(changes: dict[str, Any], part: str) -> None:
    with pytest.raises(PluginError, match=part):
        make_phase(instruments(type("Changed", (Instruments,), changes)()))


@needs_gcc
def test_names_cannot_end_a_comment(tmp_path: Path) -> None:
    env = type("Named", (Instruments,), {"action_names": ("*/ int x; /*", "new\nline", "ok")})()
    subject = random_subject(0, environment=env, **NETWORKS[0])
    written("c99", subject, tmp_path)  # which compiles it
    assert "int x;" not in re.sub(r"/\*.*?\*/", "", (tmp_path / "policy.h").read_text(), flags=re.DOTALL)
