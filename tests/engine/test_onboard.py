"""`mission export` and `mission fly --policy-from`: from a trained phase to a compiled library that flies it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from factory import CART, MISSION, ROOT, run_cli, write_mission
from typer.testing import CliRunner

from mission import fly_mission, load_mission, train_mission
from mission.cli import app
from mission.errors import InputError, MachineError, MissionError, StaleError
from mission.flight.batches import program_identity
from mission.flight.chain import prepare_chain
from mission.flight.onboard.exporting import ExportSummary, check_target, export_flown
from mission.flight.onboard.interface import Interface, Parity, read_interface, sha256
from mission.flight.onboard.observations import flown_observations
from mission.missionfile.phases import LibraryPhase

pytest.importorskip("cffi")
if shutil.which("gcc") is None:
    pytest.skip("no gcc", allow_module_level=True)

SETTINGS = "sac: {history: 2, standardise: true, actor: {layer_norm: true, activation: silu}}"
SHORT = MISSION.replace("    budget: {env_steps: 3000}\n", "    policy: guide\n").replace(
    "    budget: {env_steps: 2500}", f"    {SETTINGS}\n    budget: {{env_steps: 1100}}"
)
CHANNELS = """
    observation_inputs = ("position_m", "velocity_m_s")
    def observe_channels(self, channels):
        return jnp.stack([channels["position_m"], channels["velocity_m_s"]])
    def observe(self, state):"""
PLUGIN = CART.replace("    def observe(self, state):", CHANNELS.strip("\n"), 1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A mission of two phases, and the policy of the second one exported to `c99`."""
    folder = tmp_path_factory.mktemp("onboard")
    write_mission(folder, SHORT, PLUGIN)
    mission = load_mission(folder / "mission.yaml")
    train_mission(mission, checkpoints=folder / "ck", allow_local_plugins=True, baseline_flights=0)
    exported(folder, "c99", folder / "c99")
    return folder


def chain(folder: Path, **options: Any) -> Any:
    mission = load_mission(folder / "mission.yaml")
    return prepare_chain(mission, checkpoints=folder / "ck", allow_local_plugins=True, **options)


def exported(folder: Path, name: str, output: Path) -> ExportSummary:
    return export_flown(chain(folder), "second", check_target(name, output), output, observations=1000)


def fly(folder: Path, **options: Any) -> Any:
    mission = load_mission(folder / "mission.yaml")
    common: dict[str, Any] = {"checkpoints": folder / "ck", "allow_local_plugins": True, "flights": 300}
    return fly_mission(mission, **common | options)


def test_a_folder_holds_what_is_promised(trained: Path) -> None:
    folder = trained / "c99"
    interface = read_interface(folder, "here")
    assert {path.name for path in folder.iterdir()} == {*interface.files, "interface.json"}
    assert {"policy.c", "policy.h", "golden_vectors.json", "parity.json", "LICENSE_NOTE.txt"} <= set(interface.files)
    assert (interface.phase, interface.history, interface.rate_hz) == ("second", 2, 10.0)
    names = [field.name for field in interface.observations]
    assert names == ["position", "velocity", "position[-1]", "velocity[-1]"]
    assert all(field.lowest < field.highest for field in interface.observations)
    assert [channel.name for channel in interface.channels] == ["position_m", "velocity_m_s"]
    assert [(field.name, field.minimum, field.maximum) for field in interface.actions] == [("acceleration", -1.0, 1.0)]
    parity = Parity.model_validate_json((folder / "parity.json").read_text())
    assert parity.largest_difference <= 1e-6
    assert parity.observation_difference is not None
    assert parity.observation_difference <= 1e-6
    assert parity.observations == 1000
    assert [one.build for one in parity.latency] == ["gcc -O2", "gcc -O3"]
    assert all(0.0 < one.undisturbed_us <= one.worst_us for one in parity.latency)
    golden = json.loads((folder / "golden_vectors.json").read_text())
    assert np.array(golden["observations"]).shape == (64, 4)
    assert np.array(golden["actions"]).shape == (64, 1)
    assert "Apache License" in (folder / "LICENSE_NOTE.txt").read_text()


def test_observations_come_from_flights(trained: Path) -> None:
    """Each stacked observation is that of a state on a flight: its older half is the newer half one step before."""
    one = chain(trained)
    seen = flown_observations(one, 1, 2000)
    assert seen.observations.shape == (2000, 4)
    np.testing.assert_allclose(seen.channels, seen.observations[:, :2], atol=1e-6)
    moved = seen.observations[:, 2] + 0.1 * seen.observations[:, 1]  # position, of the velocity after the step
    first = (seen.observations[:, :2] == seen.observations[:, 2:]).all(axis=1)
    assert 0 < first.sum() < 300
    np.testing.assert_allclose(moved[~first], seen.observations[~first, 0], atol=1e-5)
    again = flown_observations(one, 1, 2000)
    np.testing.assert_array_equal(again.observations, seen.observations)


def test_the_library_flies_as_the_policy_does(trained: Path) -> None:
    by_agent, by_library = fly(trained), fly(trained, policies={"second": trained / "c99"})
    assert [phase.flown_by for phase in by_library.phases] == ["guide", str(trained / "c99")]
    assert by_library.success == by_agent.success
    for agent, library in zip(by_agent.phases, by_library.phases, strict=True):
        assert (library.succeeded, library.causes) == (agent.succeeded, agent.causes)
        assert library.end["position_m"].mean == pytest.approx(agent.end["position_m"].mean, abs=1e-4)
        assert library.returns.mean == pytest.approx(agent.returns.mean, abs=1e-3)


def test_it_is_the_library_that_flies(trained: Path, tmp_path: Path) -> None:
    """A library that always brakes, with its hash and its golden vectors, flies otherwise."""
    folder = shutil.copytree(trained / "c99", tmp_path / "other")
    source = (folder / "policy.c").read_text()
    (folder / "policy.c").write_text(re.sub(r"action\[i\] = .*;", "action[i] = -1.0f;", source))
    subprocess.run(["make", "-C", folder, "-B", "libpolicy.so"], check=True, capture_output=True)
    golden = json.loads((folder / "golden_vectors.json").read_text())
    golden["actions"] = [[-1.0] for _ in golden["actions"]]
    (folder / "golden_vectors.json").write_text(json.dumps(golden))
    seal(folder)
    ends = [
        fly(trained, policies={"second": one}).phases[1].end["velocity_m_s"].mean for one in (trained / "c99", folder)
    ]
    assert ends[1] < ends[0] - 1.0


def seal(folder: Path) -> None:
    """Write the hashes of the present files."""
    data = json.loads((folder / "interface.json").read_text())
    data["files"] = {name: sha256((folder / name).read_bytes()) for name in data["files"]}
    (folder / "interface.json").write_text(json.dumps(data))


@pytest.mark.parametrize("name", ["libpolicy.so", "policy.c", "golden_vectors.json", "LICENSE_NOTE.txt"])
def test_altered_files_are_refused(trained: Path, tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(trained / "c99", tmp_path / "altered")
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(MachineError, match="another SHA-256"):
        fly(trained, policies={"second": folder})
    (folder / name).unlink()
    with pytest.raises(MachineError, match="No such file"):
        fly(trained, policies={"second": folder})


def test_other_weights_with_hashes_that_fit_are_refused(trained: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(trained / "c99", tmp_path / "weights")
    source = (folder / "policy.c").read_text()
    begin = source.index("bias_1[")
    number = re.compile(r"-?0x[0-9a-f.]+p[+-]\d+f").search(source, begin)
    assert number is not None
    (folder / "policy.c").write_text(source[: number.start()] + "0.5f" + source[number.end() :])
    subprocess.run(["make", "-C", folder, "-B", "libpolicy.so"], check=True, capture_output=True)
    seal(folder)
    with pytest.raises(MachineError, match="reproduces golden_vectors"):
        fly(trained, policies={"second": folder})


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("golden_vectors.json", lambda data: {}),
        ("golden_vectors.json", lambda data: data | {"actions": [["x"]] * 64}),
        ("golden_vectors.json", lambda data: data | {"observations": [[0.0]] * 64}),
        ("golden_vectors.json", lambda data: data | {"observations": [], "actions": []}),
        ("interface.json", lambda data: data | {"declarations": "void policy_action(\x1b[2J"}),
        ("interface.json", lambda data: data | {"declarations": "int other(void);"}),
    ],
)
def test_crafted_files_with_hashes_that_fit_are_refused(
    trained: Path, tmp_path: Path, name: str, change: Callable[[dict], dict]
) -> None:
    """Among them observations that are too short, which the library would read beyond their end."""
    folder = shutil.copytree(trained / "c99", tmp_path / "crafted")
    path = folder / name
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    seal(folder)
    with pytest.raises(MachineError, match="export the policy again") as caught:
        fly(trained, policies={"second": folder})
    assert "\x1b" not in str(caught.value)


def test_an_export_of_another_phase_is_refused(trained: Path) -> None:
    with pytest.raises(StaleError, match="observations"):
        fly(trained, policies={"first": trained / "c99"})


def test_a_damaged_interface_is_refused(trained: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(trained / "c99", tmp_path / "damaged")
    data = json.loads((folder / "interface.json").read_text())
    (folder / "interface.json").write_text(json.dumps(data | {"format": 9}))
    with pytest.raises(MissionError, match="format 9"):
        fly(trained, policies={"second": folder})
    (folder / "interface.json").write_text("{")
    with pytest.raises(MachineError, match="damaged JSON"):
        fly(trained, policies={"second": folder})
    assert Interface.model_validate(data | {"observations": (), "actions": (), "channels": ()}).history == 2


def test_programs_that_call_a_library_are_not_kept(trained: Path) -> None:
    one = chain(trained, policies={"second": trained / "c99"})
    assert isinstance(one.phases[1], LibraryPhase)
    assert program_identity(one.phases[1], "flight") is None
    assert one.policy_hashes()[1] not in (None, chain(trained).policy_hashes()[1])
    with pytest.raises(InputError, match="an exported policy"):
        export_flown(one, "second", check_target("npz", trained / "again"), trained / "again")


def test_reports_record_who_flew(trained: Path, tmp_path: Path) -> None:
    summary = fly(trained, policies={"second": trained / "c99"}, report=tmp_path / "report")
    assert summary.success == fly(trained).success
    stored = json.loads((tmp_path / "report" / "summary.json").read_text())
    assert f"--policy second={trained / 'c99'}" in stored["provenance"]["commands"][0]
    assert f"flown by the policy in {trained / 'c99'}" in (tmp_path / "report" / "index.html").read_text()


def test_a_cluster_is_refused(trained: Path) -> None:
    with pytest.raises(InputError, match="which is called on this machine"):
        fly(trained, policies={"second": trained / "c99"}, on="ray")


WIDE = """
import sys, jax, numpy as np
from pathlib import Path
from mission.flight.batches import compile_flight, flight_keys, fly_batch, nominal_starts
from mission.machine.devices import configure
from mission.missionfile.phases import LibraryPhase
sys.path.insert(0, sys.argv[1])
configure()
import dataclasses
from instruments import instruments
from mission.testing import make_phase
phase = make_phase(instruments(history=64))
fields = {field.name: getattr(phase, field.name) for field in dataclasses.fields(phase)}
called = []
def act(obs):
    called.append(obs.shape)
    return np.tanh(obs[:, :3])
library = LibraryPhase(**fields, act=act)
keys = flight_keys(jax.random.key(0), np.arange(1000))
flight = compile_flight(library)
for _ in range(5):
    flown = fly_batch(flight, None, nominal_starts(library, keys), keys, np.ones(1000, bool))
assert set(called) == {(250, 448)}, set(called)
print(len(called), flown.success.sum())
"""


def test_observations_that_are_large_do_not_stop_two_threads() -> None:
    """448 KB for each call; all threads of XLA's pool wait in callbacks at times, and none may need another one."""
    command = [sys.executable, "-c", WIDE, str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) >= 5 * 4 * 6


# The command line


def run(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_the_commands_from_export_to_flight(trained: Path, tmp_path: Path) -> None:
    common = ("--checkpoints", trained / "ck", "--allow-local-plugins")
    done = run_cli(
        "export", trained / "mission.yaml", "--phase", "second", "--format", "c99", "-o", tmp_path / "out",
        "--observations", 500, "--json", tmp_path / "parity.json", *common,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "parity: " in done.stdout
    assert f"next: mission fly {trained / 'mission.yaml'} --policy-from {tmp_path / 'out'}" in done.stdout
    assert json.loads((tmp_path / "parity.json").read_text())["largest_difference"] <= 1e-6
    flown = run_cli(
        "fly", trained / "mission.yaml", "--policy-from", tmp_path / "out", "--flights", 100, "--json", "-", *common
    )
    assert flown.returncode == 0, flown.stderr
    assert [phase["flown_by"] for phase in json.loads(flown.stdout)["phases"]] == ["guide", str(tmp_path / "out")]


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"--phase": "third"}, "first, second"),
        ({"--format": "fortran"}, "c99, onnx, stablehlo, npz"),
        ({"-o": "FOLDER"}, "a folder that is not empty"),
        ({"--policy": "second=guide"}, "one that its guide flies"),
        ({"--observations": "5"}, "--observations"),
    ],
)
def test_wrong_input_ends_before_the_work_begins(
    trained: Path, tmp_path: Path, changes: dict[str, str], part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mission.flight.onboard.exporting.flown_observations", lambda *_: pytest.fail("flew"))
    options = {
        "--phase": "second",
        "--format": "npz",
        "-o": str(tmp_path / "out"),
        "--checkpoints": str(trained / "ck"),
    }
    options |= {name: str(trained) if value == "FOLDER" else value for name, value in changes.items()}
    words = [word for option in options.items() for word in option]
    done = run("export", trained / "mission.yaml", *words, "--allow-local-plugins")
    text = str(done.exception) + done.output
    assert part in text
    assert getattr(done.exception, "exit_code", done.exit_code) == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "package", "found"),
    [("onnx", "onnxruntime", "[onnx]"), ("stablehlo", "flatbuffers", "[stablehlo]"), ("c99", "cffi", "[c]")],
)
def test_a_missing_package_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, package: str, found: str
) -> None:
    if name == "onnx":
        pytest.importorskip("onnx")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MachineError) as caught:
        check_target(name, tmp_path / "out")
    assert (caught.value.exit_code, package in caught.value.expected) == (3, True)
    assert f"mission-engine{found}" in caught.value.remedy


def test_a_missing_compiler_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match="gcc on the PATH") as caught:
        check_target("c99", tmp_path / "out")
    assert caught.value.exit_code == 3


def test_what_cannot_be_flown_is_refused(trained: Path, tmp_path: Path) -> None:
    exported(trained, "npz", tmp_path / "npz")
    file = trained / "mission.yaml"
    for words, part in (
        (("--policy-from", tmp_path / "npz"), "--format npz"),
        (("--policy-from", tmp_path), "no interface.json in it"),
        (("--policy-from", tmp_path / "none"), "no such folder"),
        (("--policy-from", trained / "c99", "--policy", "guide"), "without --policy guide"),
        (("--policy-from", trained / "c99", "--policy", "second=imitator"), "one pilot for second"),
    ):
        done = run("fly", file, *words, "--allow-local-plugins")
        assert part in str(done.exception)
        assert done.exception.exit_code == 2


def test_a_mission_file_may_name_an_export(trained: Path, tmp_path: Path) -> None:
    write_mission(
        tmp_path,
        SHORT.replace("plugin: ./cart.py\n    params", "plugin: ./cart.py\n    policy: ./c99\n    params"),
        PLUGIN,
    )
    shutil.copytree(trained / "c99", tmp_path / "c99")
    checked = run("check", tmp_path / "mission.yaml", "--allow-local-plugins")
    assert "./c99; " in checked.stdout
    flown = fly(tmp_path).phases[1]
    assert (flown.flown_by, flown.causes) == ("./c99", fly(trained).phases[1].causes)
    with pytest.raises(InputError, match="`mission fly` alone"):
        train_mission(load_mission(tmp_path / "mission.yaml"), checkpoints=tmp_path / "ck", allow_local_plugins=True)
    landing = (ROOT / "missions" / "landing_only.yaml").read_text()
    (tmp_path / "other.yaml").write_text(
        landing.replace("plugin: landing_burn", "plugin: landing_burn\n    policy: ./c99")
    )
    for command in ("check", "fly"):
        refused = run(command, tmp_path / "other.yaml").exception
        assert "--allow-local-plugins, because" in str(refused)
        assert refused.exit_code == 2
    (tmp_path / "c99" / "policy.c").write_text("")
    assert "another SHA-256" in str(run("check", tmp_path / "mission.yaml", "--allow-local-plugins").exception)


def test_a_learner_without_layers_is_refused(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mission.sac.learner.Sac.policy_layers", lambda self, policy: None)
    with pytest.raises(InputError, match=r"override Learner\.policy_layers"):
        exported(trained, "npz", tmp_path / "out")


def test_an_export_that_differs_is_not_written(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mission.flight.onboard.subject import Subject

    monkeypatch.setattr(Subject, "exact", property(lambda self: self.flown + 2e-6))
    with pytest.raises(MissionError, match="within 1e-06") as caught:
        export_flown(chain(trained), "second", check_target("npz", tmp_path / "o"), tmp_path / "o", observations=500)
    assert caught.value.exit_code == 1
    assert not list(tmp_path.iterdir())
    assert jax.config.jax_enable_x64 is False
