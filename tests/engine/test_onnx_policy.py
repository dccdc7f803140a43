"""`policy: {onnx: FILE}`: models of other frameworks fly a phase, repeatably, and what cannot fly says why."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from factory import MISSION, ROOT, write_mission
from typer.testing import CliRunner

from mission import fly_mission, load_mission, load_policy, resolve_mission, train_mission
from mission.cli import app
from mission.errors import InputError, MachineError
from mission.flight.chain import Chain, prepare_chain
from mission.flight.onboard.exporting import check_target, export_flown
from mission.missionfile.phases import LibraryPhase
from mission.missionfile.pilots import pilot_in_words
from mission.missionfile.resolve import digest
from mission.missionfile.schema import mission_schema
from mission.scale.best_file import write_mission_file

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

FLOAT, DOUBLE = TensorProto.FLOAT, TensorProto.DOUBLE
GUIDED = MISSION.replace("    budget: {env_steps: 3000}\n", "    policy: guide\n").replace(
    "    budget: {env_steps: 2500}\n", "    policy: {onnx: models/net.onnx}\n"
)
LAYERS = [(2, 8), (8, 1)]


def weights() -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(7)
    return [(rng.normal(size=size).astype(np.float32), rng.normal(size=size[1:]).astype(np.float32)) for size in LAYERS]


def expected(obs: np.ndarray) -> np.ndarray:
    """The network of `model` in float64."""
    (a, b), (c, d) = weights()
    return np.tanh(np.maximum(obs.astype(np.float64) @ a + b, 0.0) @ c + d)


def model(
    inputs: dict[str, tuple[int, list[Any]]],
    outputs: dict[str, list[Any]] | None = None,
    nodes: list[Any] | None = None,
    kind: int = FLOAT,
) -> Any:
    """A network of two layers, written by hand; `nodes` replace what makes "obs" of the inputs."""
    made = nodes or []
    body = []
    for at in range(len(LAYERS)):
        body += [
            helper.make_node("MatMul", ["obs" if at == 0 else "h", f"w{at}"], [f"m{at}"]),
            helper.make_node("Add", [f"m{at}", f"b{at}"], [f"z{at}"]),
        ]
        body.append(helper.make_node("Relu" if at == 0 else "Tanh", [f"z{at}"], ["h" if at == 0 else "action"]))
    dtype = np.float64 if kind == DOUBLE else np.float32
    constants = [
        numpy_helper.from_array(array.astype(dtype), name)
        for at, pair in enumerate(weights())
        for name, array in zip((f"w{at}", f"b{at}"), pair, strict=True)
    ]
    ports = [helper.make_tensor_value_info(name, *of) for name, of in inputs.items()]
    ends = [helper.make_tensor_value_info(n, kind, s) for n, s in (outputs or {"action": ["batch", 1]}).items()]
    graph = helper.make_graph([*made, *body], "net", ports, ends, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def plain() -> Any:
    return model({"obs": (FLOAT, ["batch", 2])})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A mission whose first phase is flown by its guide and whose second one by `models/net.onnx`."""
    write_mission(tmp_path, GUIDED)
    (tmp_path / "models").mkdir()
    onnx.save(plain(), tmp_path / "models" / "net.onnx")
    return tmp_path


def chain(folder: Path, *overrides: str, **options: Any) -> Chain:
    mission = load_mission(folder / "mission.yaml", overrides)
    return prepare_chain(mission, checkpoints=folder / "ck", allow_local_plugins=True, **options)


def act(folder: Path, made: Any) -> Any:
    onnx.save(made, folder / "models" / "net.onnx")
    phase = chain(folder).phases[1]
    assert isinstance(phase, LibraryPhase)
    return phase.act


def refused(folder: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        chain(folder)
    assert "mission.yaml:" in caught.value.where
    assert caught.value.exit_code == 2
    return caught.value


# What flies


def test_the_actions_are_those_of_the_network(folder: Path) -> None:
    phase = chain(folder).phases[1]
    obs = np.random.default_rng(0).normal(size=(250, 2)).astype(np.float32)
    assert isinstance(phase, LibraryPhase)
    np.testing.assert_allclose(phase.act(obs), expected(obs), atol=1e-6)


def test_a_flight_is_the_same_in_any_batch_and_on_any_number_of_cores(folder: Path) -> None:
    one = chain(folder)
    many, few = one.fly(np.arange(600)), one.fly(np.arange(40))
    alone, again = chain(folder, devices=1).fly(np.arange(300, 340)), chain(folder).fly(np.arange(40))
    for flights, rows in ((few, slice(0, 40)), (again, slice(0, 40)), (alone, slice(300, 340))):
        for now, all_of_them in zip(flights, many, strict=True):
            same = jax.tree.map(lambda a, b, rows=rows: np.array_equal(a, b[rows]), now, all_of_them)
            assert all(jax.tree.leaves(same))


def test_the_summary_names_the_model(folder: Path) -> None:
    flown = fly_mission(load_mission(folder / "mission.yaml"), flights=40, allow_local_plugins=True)
    assert [phase.flown_by for phase in flown.phases] == ["guide", "onnx:models/net.onnx"]
    assert pilot_in_words(flown.phases[1].flown_by) == "the ONNX policy models/net.onnx"


def test_the_report_and_the_table_name_the_model(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    words = ["fly", str(folder / "mission.yaml"), "--allow-local-plugins", "--flights", "40"]
    done = CliRunner().invoke(app, [*words, "--report", str(folder / "report")], catch_exceptions=False)
    assert "ONNX" in done.output
    assert "flown by the ONNX policy models/net.onnx" in (folder / "report" / "index.html").read_text()
    stored = json.loads((folder / "report" / "summary.json").read_text())
    assert "onnx:models/net.onnx" in json.dumps(stored)
    assert "Not a directory" not in caplog.text, "a file has nothing beside it that a folder would have"


def test_the_numbers_of_the_model_are_its_hash(folder: Path) -> None:
    before = chain(folder).policy_hashes()[1]
    other = plain()
    other.graph.initializer[0].CopyFrom(numpy_helper.from_array(2.0 * weights()[0][0], "w0"))
    onnx.save(other, folder / "models" / "net.onnx")
    assert before != chain(folder).policy_hashes()[1] is not None


def concatenated() -> Any:
    join = helper.make_node("Concat", ["position", "speed"], ["obs"], axis=1)
    return model({"position": (FLOAT, ["N", 1]), "speed": (FLOAT, ["N", 1])}, nodes=[join])


def several_outputs() -> Any:
    made = model({"obs": (FLOAT, ["batch", 2])}, {"value": ["batch", 8], "action": ["batch", 1]})
    made.graph.node.append(helper.make_node("Identity", ["h"], ["value"]))
    return made


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(model({"obs": (FLOAT, [2])}, {"action": [1]}), id="one at a time"),
        pytest.param(model({"obs": (FLOAT, ["batch", "width"])}), id="without a width"),
        pytest.param(model({"obs": (DOUBLE, [None, 2])}, kind=DOUBLE), id="float64"),
        pytest.param(concatenated(), id="in parts"),
        pytest.param(several_outputs(), id="the output that is named action"),
    ],
)
def test_other_forms_of_models_are_accepted(folder: Path, made: Any) -> None:
    obs = np.random.default_rng(0).normal(size=(250, 2)).astype(np.float32)
    np.testing.assert_allclose(act(folder, made)(obs), expected(obs), atol=1e-6)


def test_weights_beside_the_model_belong_to_it(folder: Path) -> None:
    before, path = chain(folder).policy_hashes()[1], folder / "models" / "net.onnx"
    onnx.save(plain(), path, save_as_external_data=True, location="net.data", size_threshold=0)
    obs = np.ones((250, 2), np.float32)
    phase = chain(folder).phases[1]
    assert isinstance(phase, LibraryPhase)
    np.testing.assert_allclose(phase.act(obs), expected(obs), atol=1e-6)
    data = folder / "models" / "net.data"
    data.write_bytes(bytes(reversed(data.read_bytes())))
    assert chain(folder).policy_hashes()[1] != before
    data.unlink()
    assert refused(folder).expected == "an ONNX model"


def test_our_own_export_lands_as_the_agent_does(tmp_path: Path) -> None:
    """vertical.yaml with `policy: {onnx: ...}` in the file, against the shipped agent on the same flights."""
    agent = prepare_chain(load_mission("vertical"))
    export_flown(agent, "burn", check_target("onnx", tmp_path / "out"), tmp_path / "out", observations=500)
    text = (ROOT / "missions" / "vertical.yaml").read_text()
    named = text.replace("plugin: vertical_burn\n", "plugin: vertical_burn\n    policy: {onnx: out/policy.onnx}\n")
    assert named != text
    (tmp_path / "vertical.yaml").write_text(named)
    other = prepare_chain(load_mission(tmp_path / "vertical.yaml"))
    assert (other.digest, other.phases[1].pilot) == (agent.digest, "onnx:out/policy.onnx")
    by_agent, by_model = (one.fly(np.arange(500))[1] for one in (agent, other))
    assert by_agent.success.sum() == 500
    for field in ("success", "cause"):
        np.testing.assert_array_equal(getattr(by_agent, field), getattr(by_model, field))
    assert np.abs(by_agent.steps - by_model.steps).max() <= 1, "float32 rounding may move the end by a step"
    for channel, apart in {"velocity_m_s": 0.05, "propellant_kg": 0.5}.items():
        np.testing.assert_allclose(by_agent.telemetry[channel], by_model.telemetry[channel], atol=apart)


def test_an_export_with_a_history_flies_in_two_parts(tmp_path: Path) -> None:
    short = MISSION.replace("    budget: {env_steps: 3000}\n", "    policy: guide\n").replace(
        "    budget: {env_steps: 2500}", "    sac: {history: 3}\n    budget: {env_steps: 1100}"
    )
    write_mission(tmp_path, short)
    mission = load_mission(tmp_path / "mission.yaml")
    train_mission(mission, checkpoints=tmp_path / "ck", allow_local_plugins=True, baseline_flights=0)
    agent = chain(tmp_path)
    export_flown(agent, "second", check_target("onnx", tmp_path / "out"), tmp_path / "out", observations=500)
    (tmp_path / "second.onnx").write_bytes((tmp_path / "out" / "policy.onnx").read_bytes())
    other = chain(tmp_path, policies={"second": f"onnx:{tmp_path / 'second.onnx'}"})
    first, second = (one.fly(np.arange(200))[1] for one in (agent, other))
    np.testing.assert_array_equal(first.cause, second.cause)
    np.testing.assert_allclose(first.telemetry["position_m"], second.telemetry["position_m"], atol=1e-4)


# What does not fly


def sampled() -> Any:
    noise = helper.make_node("RandomNormalLike", ["raw"], ["noise"])
    return model({"raw": (FLOAT, ["N", 2])}, nodes=[noise, helper.make_node("Add", ["raw", "noise"], ["obs"])])


def whole_numbers() -> Any:
    return model({"raw": (TensorProto.INT64, ["N", 2])}, nodes=[helper.make_node("Cast", ["raw"], ["obs"], to=FLOAT)])


def batch_normed() -> Any:
    """The order of the rows does not matter to it, their values do."""
    mean = helper.make_node("ReduceMean", ["raw"], ["mean"], axes=[0])
    return model({"raw": (FLOAT, ["N", 2])}, nodes=[mean, helper.make_node("Sub", ["raw", "mean"], ["obs"])])


def centred() -> Any:
    mean = helper.make_node("CumSum", ["raw", "axis"], ["obs"])
    made = model({"raw": (FLOAT, ["N", 2])}, nodes=[mean])
    made.graph.initializer.append(numpy_helper.from_array(np.array(0), "axis"))
    return made


@pytest.mark.parametrize(
    ("made", "parts"),
    [
        pytest.param(model({"obs": (FLOAT, [1, 2])}), ("batch size is dynamic", "obs float [1, 2]", "dynamic_axes"), id="one"),
        pytest.param(whole_numbers(), ("float32 [N, 2]", "raw int64 [N, 2]"), id="integers"),
        pytest.param(model({"obs": (FLOAT, ["N", 1, 2])}), ("float32 [N, 2]", "obs float [N, 1, 2]"), id="three axes"),
        pytest.param(
            model({"obs": (FLOAT, ["N", 2]), "memory": (FLOAT, ["N", 4])}),
            ('float32 [N, 2], the observation of phase "second"', "obs float [N, 2], memory float [N, 4]"),
            id="a memory",
        ),
        pytest.param(sampled(), ("the same action", "actions that differ by", "deterministic"), id="sampled"),
        pytest.param(centred(), ("the same action", "actions that differ by"), id="rows that depend on each other"),
        pytest.param(batch_normed(), ("the same action", "actions that differ by"), id="a batch norm in training"),
    ],
)  # fmt: skip
def test_a_model_that_does_not_fit_says_what_it_has(folder: Path, made: Any, parts: tuple[str, ...]) -> None:
    onnx.save(made, folder / "models" / "net.onnx")
    error = refused(folder)
    for part in parts:
        assert part in f"{error.expected} {error.found} {error.remedy}"
    assert "net.onnx" in error.found


def test_a_wrong_width_names_both(tmp_path: Path) -> None:
    """The model of the cart in a phase of the vertical mission, with 6 observations; and an output that is too wide."""
    path = tmp_path / "net.onnx"
    onnx.save(plain(), path)
    with pytest.raises(InputError) as caught:
        prepare_chain(load_mission("vertical"), policies={"burn": f"onnx:{path}"})
    assert 'float32 [N, 6], the observation of phase "burn"' in caught.value.expected
    assert "obs float [N, 2]" in caught.value.found
    write_mission(tmp_path, GUIDED.replace("models/", ""))
    wide = model({"obs": (FLOAT, ["batch", 2])}, {"h": ["batch", 8]})
    onnx.save(wide, path)
    error = refused(tmp_path)
    assert "1 actions for each observation" in error.expected
    assert "an output [250, 8]" in error.found


@pytest.mark.parametrize(
    ("content", "found"), [(None, "no such file"), (b"not a model", ""), (b"", ""), ("folder", "a folder")]
)
def test_a_file_that_is_no_model_is_an_input_error(folder: Path, content: Any, found: str) -> None:
    path = folder / "models" / "net.onnx"
    path.unlink()
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    error = refused(folder)
    assert error.expected == ("an ONNX file" if found else "an ONNX model")
    assert found in error.found


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_named_with_its_extra(folder: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MachineError, match=r'pip install "mission-engine\[onnx\]"'):
        chain(folder)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("{onnxx: models/net.onnx}", "{onnx: FILE}"),
        ("{onnx: 3}", "{onnx: FILE}"),
        ("{onnx: ''}", "{onnx: FILE}"),
        ("{onnx: a.onnx, guide: true}", "{onnx: FILE}"),
        ("'onnx:'", "the folder of a trained phase"),
        ("guarded:onnx:models/net.onnx", "without `guarded:`"),
    ],
)
def test_wrong_keys_are_input_errors(folder: Path, policy: str, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        load_mission(folder / "mission.yaml", [f"phases.second.policy={policy}"])
    assert expected in caught.value.expected
    assert "mission.yaml" in caught.value.where or "--set" in caught.value.where


# What it does not change


def test_the_model_is_no_part_of_the_trained_configuration(folder: Path) -> None:
    missions = [
        load_mission(folder / "mission.yaml", overrides)
        for overrides in ([], ["phases.second.policy=agent"], ["phases.second.policy=onnx:other.onnx"])
    ]
    resolved = [resolve_mission(one, allow_local_plugins=True) for one in missions]
    assert len({digest([phase.configuration() for phase in phases]) for phases in resolved}) == 1


def test_training_refuses_a_model_before_it_begins(folder: Path) -> None:
    with pytest.raises(InputError, match=r"the ONNX policy models/net\.onnx") as caught:
        train_mission(load_mission(folder / "mission.yaml"), checkpoints=folder / "ck", allow_local_plugins=True)
    assert "policy: agent" in caught.value.remedy
    assert not list((folder / "ck" / "trial").glob("*/policy"))
    with pytest.raises(InputError, match="the ONNX policy"):
        load_policy(load_mission(folder / "mission.yaml"), "second", allow_local_plugins=True)


def test_a_guard_leaves_a_model_alone(folder: Path) -> None:
    with pytest.raises(InputError, match="both an agent and a guide"):
        chain(folder, policy="guarded")


def test_a_cluster_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match=r"the ONNX policy models/net\.onnx, which is called on this machine"):
        fly_mission(load_mission(folder / "mission.yaml"), on="ray", allow_local_plugins=True)


def test_a_check_reads_the_model_and_flies_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mission.flight.chain.compile_flight", lambda *_: pytest.fail("flew"))
    words = ["check", str(folder / "mission.yaml"), "--allow-local-plugins"]
    done = CliRunner().invoke(app, words)
    assert "onnx:models/net.onnx; no gate" in done.output
    onnx.save(model({"obs": (FLOAT, [1, 2])}), folder / "models" / "net.onnx")
    assert "batch size is dynamic" in str(CliRunner().invoke(app, words).exception)


def test_files_are_relative_to_the_mission_file_or_to_the_caller(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder / "models")
    named = chain(folder, policies={"second": "onnx:net.onnx"})
    assert named.policy_hashes() == chain(folder).policy_hashes()
    with pytest.raises(InputError, match=r"to do: write \{onnx: FILE\}"):
        chain(folder, policies={"second": folder / "models" / "net.onnx"})


@pytest.mark.parametrize("policy", ["{onnx: models/net.onnx}", "onnx:models/net.onnx"])
def test_a_mission_file_that_is_written_elsewhere_names_the_same_model(folder: Path, policy: str) -> None:
    file, below = folder / "mission.yaml", folder / "below"
    file.write_text(GUIDED.replace("{onnx: models/net.onnx}", policy))
    below.mkdir()
    write_mission_file(below / "best.yaml", file, [], "best", allow_local_plugins=True)
    best = load_mission(below / "best.yaml")
    assert best.phases[1].policy == "onnx:../models/net.onnx"
    assert prepare_chain(best, allow_local_plugins=True).policy_hashes() == chain(folder).policy_hashes()


def test_the_schema_accepts_what_the_reader_accepts() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(mission_schema())
    for policy, valid in (({"onnx": "a.onnx"}, True), ("onnx:a.onnx", True), ("./a", True), ("a", False), ({}, False)):
        data = {"name": "trial", "phases": [{"name": "a", "plugin": "b", "policy": policy}]}
        assert validator.is_valid(data) is valid, policy
