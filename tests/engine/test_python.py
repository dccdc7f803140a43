"""Missions from Python: dicts and texts, phases that a program defines, observers that are functions, and Ctrl-C."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from factory import CART, MISSION, run_cli, write_mission
from jax import Array
from probes import Drift, DriftEnvironment, Nothing, probe_sac
from typer.testing import CliRunner

import mission
from mission import (
    Event,
    InputError,
    Interrupted,
    MissionError,
    PhaseSpec,
    PluginError,
    StaleError,
    StopTraining,
    check,
    compare,
    export_policy,
    fly_mission,
    load_mission,
    load_policy,
    resolve_mission,
    sweep,
    train_mission,
)
from mission.cli import app
from mission.missionfile.spec_sources import SpecSources


def local_spec(step: float = 0.1) -> PhaseSpec:
    """A phase whose classes exist only in this call: a particle that is to stay near the middle."""

    @dataclasses.dataclass(frozen=True, eq=False)
    class Stay(DriftEnvironment):
        until: int = 10

        def step(self, key: Array, state: Drift, action: Array) -> Drift:
            return state._replace(position=state.position + step * action, age=state.age + 1)

    def reward(params: Any) -> Any:
        return lambda state, action, after, outcome: {"near": -jnp.abs(after.position[0])}

    return PhaseSpec(Nothing, lambda params: Stay(), reward, sac=probe_sac(batch_size=32, fill={"env_steps": 256}))


def a_mission(spec: Any, **phase: Any) -> dict[str, Any]:
    settings = {"bank": {"flights": 100, "minimum": 4}, "evaluation": {"every_env_steps": 2048, "flights": 50}}
    entry = {"name": "stay", "plugin": spec, "budget": {"env_steps": 2048}}
    return {"name": "drifting", "seed": 3, "phases": [entry | settings | phase]}


@pytest.fixture(scope="module")
def spec() -> PhaseSpec:
    return local_spec()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, spec: PhaseSpec) -> Path:
    """The folder in which the local phase was trained and flown with a report."""
    folder = tmp_path_factory.mktemp("python")
    one = load_mission(a_mission(spec))
    (summary,) = train_mission(one, checkpoints=folder / "ck", baseline_flights=100)
    assert summary.status == "trained"
    assert summary.returns is not None
    fly_mission(one, checkpoints=folder / "ck", flights=100, report=folder / "report")
    return folder


# What a mission is given as


def test_file_text_and_dict_are_one_mission(tmp_path: Path) -> None:
    file = write_mission(tmp_path)
    data = yaml.safe_load(MISSION)
    data["phases"] = tuple(data["phases"])  # and numpy's numbers and paths, as a program has them
    data["phases"][0]["budget"] = {"env_steps": np.int64(3000)}
    data["phases"][0]["plugin"] = Path("./cart.py")
    data["seed"] = np.uint32(3)
    read = load_mission(file)
    for given in (MISSION, data, json.dumps(data, default=str).replace('"3"', "3").replace('"3000"', "3000")):
        found = load_mission(given)
        wanted = read.model_dump()
        wanted["phases"][0]["plugin"] = found.phases[0].plugin
        assert found.model_dump() == wanted
        assert found.phases[0].plugin in ("./cart.py", "cart.py")
    assert load_mission(MISSION, ["seed=4"]).seed == load_mission(data, ["seed=4"]).seed == 4
    assert data["seed"] == 3, "the caller's dict is not changed"
    phases = resolve_mission(load_mission(file), allow_local_plugins=True)
    assert [phase.name for phase in phases] == ["first", "second"]


def test_paths_of_a_dict_begin_at_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mission(tmp_path)
    monkeypatch.chdir(tmp_path)
    phases = resolve_mission(load_mission(yaml.safe_load(MISSION)), allow_local_plugins=True)
    assert phases[0].origin.distribution == "local file"


@pytest.mark.parametrize(
    ("change", "where", "part"),
    [
        ({"sede": 3}, "the dict: sede", 'did you mean "seed"'),
        ({"seed": "three"}, "the dict: seed", "'three'"),
        ({"name": None}, "the dict: name", "None"),
        ({"phases": []}, "the dict: phases", "at least 1 item"),
        ({"phases": [{"name": "a"}]}, 'the dict: phases[0] "a": plugin', 'add "plugin:"'),
        ({"phases": [{"name": "a", "plugin": DriftEnvironment}]}, "the dict: phases[0].plugin", "PhaseSpec"),
        ({"observers": [print]}, "the dict: observers[0]", "train_mission(observers=[...])"),
        ({"params": {1: 2}}, "the dict: params.1", "a word as key"),
        ({"params": {"spec": local_spec()}}, "the dict: params.spec", "only as the plugin"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_errors_of_a_dict_name_the_key(spec: PhaseSpec, change: dict[str, Any], where: str, part: str) -> None:
    with pytest.raises(InputError) as caught:
        load_mission(a_mission(spec) | change)
    assert caught.value.where == where
    assert part in str(caught.value)


def test_errors_of_resolving_a_dict_name_the_key(spec: PhaseSpec) -> None:
    for change, where in (
        ({"params": {"speed": 1}}, 'the dict: phases[0] "stay": params.speed'),
        ({"sac": {"gama": 0.9}}, 'the dict: phases[0] "stay": sac.gama'),
        ({"gate": {"success_low": 0.5, "channels": {"height": {"mean_max": 1}}}}, "gate.channels.height"),
    ):
        with pytest.raises(MissionError) as caught:
            resolve_mission(load_mission(a_mission(spec, **change)))
        assert where in caught.value.where


def test_errors_of_a_text_name_the_line() -> None:
    with pytest.raises(InputError) as caught:
        load_mission(MISSION.replace("budget: {env_steps: 3000}", "bugdet: {}"))
    assert caught.value.where.startswith("the text:6:5: phases[0]")
    with pytest.raises(InputError, match="write the mission to a file"):
        sweep(a_mission("cart"))  # ty: ignore[invalid-argument-type]
    endless: dict[str, Any] = {}
    endless["params"] = endless
    for wrong in (3, endless):
        with pytest.raises(InputError):
            load_mission(wrong)  # ty: ignore[invalid-argument-type]


# A phase that a program defines


def test_a_phase_of_this_process_is_recorded_as_local_source(trained: Path, spec: PhaseSpec) -> None:
    one = load_mission(a_mission(spec))
    (phase,) = resolve_mission(one)
    record = json.loads((trained / "ck/drifting/stay/policy/meta.json").read_text())
    assert record["plugins"] == [dataclasses.asdict(phase.origin)]
    assert phase.origin.distribution == "local source"
    assert phase.origin.version == phase.origin.source_sha256[:12]
    (again,) = train_mission(load_mission(a_mission(spec)), checkpoints=trained / "ck", baseline_flights=0)
    assert again.status == "already trained"
    policy = load_policy(one, "stay", trained / "ck")
    assert policy(np.zeros(4)).shape == (2,)
    header = json.loads((trained / "report/summary.json").read_text())
    assert header["phases"][0]["distribution"] == "local source"
    assert header["provenance"]["commands"][0].startswith("fly_mission(mission, flights=100, seed=3, report=")
    exported = export_policy(one, "stay", "npz", trained / "npz", checkpoints=trained / "ck", observations=200)
    assert exported.parity.largest_difference <= 1e-6


def test_an_edited_phase_makes_its_policy_stale(trained: Path) -> None:
    edited = load_mission(a_mission(local_spec(step=0.2)))
    with pytest.raises(StaleError, match=r"phases\.spec\.version was"):
        train_mission(edited, checkpoints=trained / "ck")
    same = load_mission(a_mission(local_spec()))
    assert fly_mission(same, checkpoints=trained / "ck", flights=20).flights == 20


def test_another_process_says_that_the_phase_is_not_there(trained: Path, spec: PhaseSpec) -> None:
    data = load_mission(a_mission(spec)).model_dump(mode="json", exclude_defaults=True)
    (trained / "written.yaml").write_text(yaml.safe_dump(data))
    for arguments, part in (
        (("fly", "written.yaml", "--checkpoints", "ck"), 'the PhaseSpec "spec", which exists only in the program'),
        (("recertify", "ck/drifting"), "PhaseSpecs that a program or a notebook had defined"),
    ):
        done = run_cli(*arguments, cwd=trained)
        assert (done.returncode, part in done.stderr) == (2, True), done.stderr
        assert "Traceback" not in done.stderr
    done = run_cli("report", "report", cwd=trained)  # needs no phase
    assert done.returncode == 0
    assert "was flown by a PhaseSpec" in done.stderr
    with pytest.raises(PluginError, match="write it to a file"):
        resolve_mission(load_mission(trained / "written.yaml"))
    with pytest.raises(InputError, match="a PhaseSpec of this process"):
        fly_mission(load_mission(a_mission(spec)), checkpoints=trained / "ck", on="ray")


def test_two_phases_of_one_name_are_told_apart() -> None:
    first, second = local_spec(), local_spec(0.2)
    entries = [{"name": name, "plugin": spec} for name, spec in (("a", first), ("b", second), ("c", first))]
    one = load_mission({"name": "three", "phases": entries})
    assert [entry.plugin for entry in one.phases] == ["spec:spec", "spec:spec-2", "spec:spec"]
    hashes = [phase.origin.source_sha256 for phase in resolve_mission(one)]
    assert hashes[0] == hashes[2] != hashes[1]


PROGRAM = """
import functools, sys
import jax, jax.numpy as jnp, numpy as np
sys.path.insert(0, sys.argv[1])
from probes import DriftEnvironment, Nothing, probe_sac
from mission import Limit, PhaseSpec
from mission.missionfile.spec_sources import SpecSources
GAIN = 1.0
TABLE = np.arange(3.0)
unused = 0
@jax.jit
def push(x):
    return GAIN * x + TABLE.sum()
class Base(DriftEnvironment):
    def observe(self, state):
        return super().observe(state)
class Mine(Base):
    def step(self, key, state, action, scale=1.0):
        return super().step(key, state, scale * push(action))
def reward(params, power=2):
    return lambda state, action, after, outcome: {"x": after.position[0] ** power}
spec = PhaseSpec(Nothing, lambda params: Mine(), reward, limits=functools.partial(lambda bound, params: (Limit("x_m", maximum=bound),), 5.0))
print(SpecSources(spec, "mine").hash())
"""


def test_the_hash_covers_what_a_phase_uses_and_nothing_else(tmp_path: Path) -> None:
    """Variants of a program, each as a file; the program itself also in a process of its own."""
    tests = str(Path(__file__).parent)

    def hash_of(*changes: tuple[str, str]) -> str:
        text = PROGRAM.replace("sys.argv[1]", repr(tests))
        for old, new in changes:
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        path = tmp_path / f"program_{len(list(tmp_path.iterdir()))}.py"
        path.write_text(text)
        return SpecSources(load_file(path).spec, "mine").hash()

    base = hash_of()
    command = [sys.executable, str(tmp_path / "program_0.py")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == base
    assert base == hash_of(("unused = 0", "unused = 1"))
    for change in (
        ("GAIN = 1.0", "GAIN = 2.0"),
        ("np.arange(3.0)", "np.arange(4.0)"),
        ("return GAIN * x", "return GAIN * -x"),
        ("scale=1.0", "scale=0.5"),
        ("return super().observe(state)", "return -super().observe(state)"),
        ("power=2", "power=4"),
        ("params: (Limit", "params, more=1: (Limit"),
        ("5.0))\nprint", "6.0))\nprint"),
    ):
        assert hash_of(change) != base, change


def load_file(path: Path) -> Any:
    found = importlib.util.spec_from_file_location(path.stem, path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_data_that_a_phase_reads_is_part_of_its_source(tmp_path: Path) -> None:
    """The environment reads a table when it is built."""
    path, specs = tmp_path / "table.txt", local_spec()

    def build(params: Any) -> Any:
        path.read_text()
        return specs.environment(params)

    spec = dataclasses.replace(specs, environment=build)
    hashes = []
    for text in ("1", "2", "1"):
        path.write_text(text)
        (phase,) = resolve_mission(load_mission(a_mission(spec)))
        hashes.append(phase.origin.source_sha256)
        assert str(path) in phase.files
    assert hashes[0] == hashes[2] != hashes[1]
    assert SpecSources(spec, "one").hash() != hashes[0]


# Observers and Ctrl-C


def test_functions_observe_and_end_a_run(spec: PhaseSpec, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []

    def watch(event: Event) -> None:
        seen.append(event.kind)

    def prune(event: Event) -> None:
        if event.kind == "evaluation":
            raise StopTraining("bad")

    one = load_mission(a_mission(spec, budget={"env_steps": 20_000}))
    (summary,) = train_mission(one, checkpoints=tmp_path, observers=[watch, watch, prune])
    assert summary.status == 'stopped by observer "prune"'
    assert summary.env_steps < 20_000
    assert (seen.count("mission_start"), seen.count("mission_end")) == (2, 2)
    assert "bad" in caplog.text
    resumed = train_mission(one, checkpoints=tmp_path, observers=prune, baseline_flights=0)  # one alone
    assert resumed[0].env_steps > summary.env_steps
    with pytest.raises(InputError, match="functions of an event"):
        train_mission(one, checkpoints=tmp_path, observers=["progress"])  # ty: ignore[invalid-argument-type]


def test_ctrl_c_passes_except_mission_error_and_keeps_the_state(spec: PhaseSpec, tmp_path: Path) -> None:
    """A loop over missions, as in a notebook; the signal arrives after the first evaluation."""

    def press(event: Event) -> None:
        if event.kind == "evaluation":
            os.kill(os.getpid(), signal.SIGINT)

    one, later = load_mission(a_mission(spec, budget={"env_steps": 200_000})), []

    def train_both() -> None:
        for name in ("first", "second"):
            try:
                train_mission(one, checkpoints=tmp_path / name, observers=[press])
            except MissionError as error:
                later.append(error)

    with pytest.raises(KeyboardInterrupt) as caught:
        train_both()
    assert not later
    assert isinstance(caught.value, Interrupted)
    assert not isinstance(caught.value, Exception)
    assert "state saved in" in str(caught.value)
    assert not (tmp_path / "second").exists()
    with pytest.raises(Interrupted) as again:
        train_mission(one, checkpoints=tmp_path / "first", observers=[press])
    assert again.value.found > caught.value.found  # resumed, not restarted


def test_every_error_is_public() -> None:
    from mission import errors

    kinds = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, errors.FourParts)]
    public = {name for name in mission.__all__ if isinstance(getattr(mission, name), type)}
    assert {one.__name__ for one in kinds} - {"FourParts"} <= public
    assert {one for one in kinds if not issubclass(one, MissionError)} == {errors.FourParts, Interrupted}


# The functions of the commands


def test_check_says_what_the_command_prints(tmp_path: Path) -> None:
    file = write_mission(tmp_path)
    printed = CliRunner().invoke(app, ["check", str(file), "--allow-local-plugins"]).output
    found = check(load_mission(file), allow_local_plugins=True)
    said, _, following = printed.rpartition("next: ")
    assert str(found) == said.rstrip("\n")
    assert "mission train " in following  # after `uv run` or the path of the interpreter, where the shell needs it
    with pytest.raises(InputError, match="--allow-local-plugins"):
        check(load_mission(file))


def test_missions_are_compared_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "cart.py").write_text(textwrap.dedent(CART))
    file = write_mission(tmp_path)
    guides = load_mission(file).all_guides()
    strict = load_mission(file, ["phases.first.params.tolerance_m=0.02"]).all_guides()
    found = compare(guides, strict, flights=100, allow_local_plugins=True)
    assert found.success.only_first > 0
    assert found.success.only_second == 0
    assert found.first.name == "trial"
    shown = found._repr_html_()
    assert f"<td>{found.success.only_first:,}</td>" in shown
