"""What is stored stays usable: new options, policies without the engine, and everything that version 0.1 made."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from factory import ROOT, fake_distribution
from probes import drift
from pydantic import BaseModel, ConfigDict, Field, create_model, field_validator
from safetensors.numpy import load, load_file

from mission import ActorConfig, SacConfig, fly_mission, load_mission, resolve_mission, train_mission
from mission.learner import PhaseInterface, build_learner
from mission.machine.devices import describe
from mission.missionfile.changes import model_change, parameters_change
from mission.missionfile.hooks import PHASE_GROUP
from mission.missionfile.phases import TrainedPhase
from mission.storage.export import DESCRIPTION, TENSORS, policy_files
from mission.storage.steps import PhaseFolder
from mission.strict import CHANGES_RESULTS
from mission.testing import make_phase

SHIPPED = ROOT / "checkpoints" / "shipped"
POLICIES = sorted(path.parent for path in SHIPPED.glob("*/*/policy"))
OLD = Path(__file__).parent / "data" / "version_0_1"


class Tank(BaseModel):
    """A model inside another; it would ignore unknown keys."""

    volume_m3: float = 2.0


class Params(BaseModel):
    """Settings as they were when a policy was stored."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    speed_m_s: float = Field(3.0, le=10.0)
    span_m: tuple[float, float] = (1.0, 2.0)
    tank: Tank = Tank()
    tanks: tuple[Tank, ...] = (Tank(),)


STORED = json.loads(Params().model_dump_json())


def later(base: type[BaseModel] = Params, **fields: Any) -> BaseModel:
    """Today's settings: a model with more fields, all at their defaults."""
    return create_model("Later", __base__=base, **fields)()


def test_a_new_option_leaves_policies_valid_and_a_marked_one_does_not():
    assert model_change(STORED, Params(), "params") == ""
    assert model_change(STORED, later(engine_out_probability=(float, 0.0)), "params") == ""
    leaking = type(later(Tank, leak=(float, 0.0)))
    assert model_change(STORED, later(tank=(leaking, leaking())), "params") == ""
    marked = (float, Field(0.5, json_schema_extra=CHANGES_RESULTS))
    assert model_change(STORED, later(drag=marked), "params") == "params.drag is new and changes results; it is 0.5"
    below = type(later(Tank, leak=marked))
    changed = model_change(STORED, later(tanks=(tuple[below, ...], (below(),))), "params")
    assert changed == "params.tanks[0].leak is new and changes results; it is 0.5"
    assert model_change(STORED | {"drag": 0.5}, later(drag=marked), "params") == ""
    assert model_change(STORED | {"drag": 0.4}, later(drag=marked), "params") == "params.drag was 0.4, is 0.5"


def test_a_value_that_is_rejected_or_gone_names_its_key():
    slow = later(speed_m_s=(float, Field(1.0, le=2.0)))
    assert "params.speed_m_s was 3.0, which is not accepted any more: Input should be less" in model_change(
        STORED, slow, "params"
    )
    assert "params.mass_kg was 4, which is not accepted any more: Extra" in model_change(
        STORED | {"mass_kg": 4}, Params(), "params"
    )
    gone = STORED | {"tank": {"volume_m3": 2.0, "height_m": 1.0}}
    assert model_change(gone, Params(), "params") == "params.tank.height_m was 1.0, which is no option any more"
    required = create_model("Required", __base__=Params, need=(float, ...))
    assert model_change(STORED, required(need=1.0), "params") == "params.need is required today and was not stored"
    assert model_change(None, Params(), "sac").startswith("sac was null")
    assert model_change(STORED, Params(speed_m_s=4.0), "params") == "params.speed_m_s was 3.0, is 4.0"


def test_settings_are_read_as_the_model_of_today_reads_them():
    """A value that today's model writes in another way is no change."""

    class Rounded(Params):
        @field_validator("speed_m_s")
        @classmethod
        def _round(cls, value: float) -> float:
            return math.floor(value)

    assert model_change(STORED | {"speed_m_s": 3.2}, Rounded(), "params") == ""


def test_the_shipped_records_are_valid_with_new_options():
    """Of all three missions, without resolving them."""
    wider = type(later(SacConfig, new_option=(float, 0.0)))
    for folder in POLICIES:
        record = PhaseFolder(folder).policy_record()
        assert record is not None
        for one in record.configuration:
            assert one.sac is not None
            assert model_change(one.sac, wider.model_validate_json(json.dumps(one.sac)), "sac") == ""


def with_options(site: Path, mark: str = "") -> None:
    """Copies of the engine and of the plugin in which the learner and the dispersions have one more option each."""
    for name, source in (
        ("mission", ROOT / "mission"),
        ("mission_rocket", ROOT / "plugins" / "rocket" / "mission_rocket"),
    ):
        shutil.copytree(source, site / name, ignore=shutil.ignore_patterns("__pycache__"))
    config = site / "mission" / "sac" / "config.py"
    config.write_text(
        config.read_text().replace("    exploration_noise:", "    new_option: float = 0.0\n    exploration_noise:")
    )
    (dispersions,) = (
        path for path in (site / "mission_rocket").rglob("*.py") if "\nclass Dispersions(" in path.read_text()
    )
    field = f"    engine_out_probability: float = Field(0.0{mark})\n"
    head, name, body = dispersions.read_text().partition("\nclass Dispersions(")
    dispersions.write_text(
        head + name + body.replace("    thrust_percent: float", f"{field}    thrust_percent: float", 1)
    )
    assert "new_option" in config.read_text()
    assert "engine_out_probability" in dispersions.read_text()


def fly_shipped(name: str, site: Path) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "mission",
        "fly",
        ROOT / "missions" / f"{name}.yaml",
        "--checkpoints",
        SHIPPED,
        "--flights",
        "20",
    ]
    env = os.environ | {"PYTHONPATH": str(site)}
    return subprocess.run(
        list(map(str, command)), cwd=site, env=env, capture_output=True, text=True, timeout=500, check=False
    )


@pytest.mark.parametrize("name", ["vertical", "landing_only"])
def test_shipped_policies_fly_after_options_were_added(tmp_path, name):
    with_options(tmp_path)
    done = fly_shipped(name, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "stale" not in done.stderr
    assert "success 20 of 20" in done.stdout


def test_an_option_that_changes_results_makes_shipped_policies_stale(tmp_path):
    with_options(tmp_path, ', json_schema_extra={"changes_results": True}')
    done = fly_shipped("landing_only", tmp_path)
    assert done.returncode == 2
    assert "phases.landing.params.dispersions.engine_out_probability is new and changes results" in done.stderr


def test_parameters_of_a_report_are_compared_in_the_same_way():
    phase = make_phase(drift())
    assert parameters_change({"phase": {}}, [phase]) == ""
    assert parameters_change({"other": {}}, [phase]) == 'phases.other.name was "other", is "phase"'
    assert "gain" in parameters_change({"phase": {"gain": 1.0}}, [phase])


ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0.0),
    "tanh": np.tanh,
    "elu": lambda x: np.where(x > 0.0, x, np.expm1(np.minimum(x, 0.0))),
    "silu": lambda x: x / (1.0 + np.exp(-x)),
}


def mean_action(tensors: dict[str, np.ndarray], description: dict[str, Any], obs: np.ndarray) -> np.ndarray:
    """Mean actions [N, A] of observations [N, O], by what both files say."""
    order = [tensors[name] for name in description["tensors"]]
    x = obs
    if description.get("input", "observation") != "observation":  # older files have no key
        assert description["input"].startswith("clip((observation - mean) / std, -8, 8)")
        x = np.clip((x - order.pop(0)) / order.pop(0), -8.0, 8.0)
    for _ in description["hidden_sizes"]:
        x = x @ order.pop(0) + order.pop(0)
        if description["layer_norm"]:
            x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + description["layer_norm_epsilon"])
            x = order.pop(0) * x + order.pop(0)
        x = ACTIVATIONS[description["activation"]](x)
    mean = (x @ order.pop(0) + order.pop(0))[:, : len(description["action_names"])]
    assert not order
    return np.tanh(mean) if description["mean_action"].startswith("tanh(output[:A])") else mean


@pytest.mark.parametrize("folder", POLICIES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_a_shipped_policy_is_evaluated_with_numpy_alone(folder):
    policy = folder / "policy"
    description = json.loads((policy / DESCRIPTION).read_text())
    tensors = load_file(policy / TENSORS)
    obs = np.random.default_rng(1).normal(size=(64, len(description["observation_names"]))).astype(np.float32)
    record = PhaseFolder(folder).policy_record()
    assert record is not None
    config = SacConfig.model_validate_json(json.dumps(record.configuration[-1].sac))
    learner = build_learner(config, PhaseInterface(obs.shape[1], len(description["action_names"])))
    shapes = jax.eval_shape(lambda key: learner.policy(learner.init(key)), jax.random.key(0))
    actor = PhaseFolder(folder).load_policy({"actor": shapes})["actor"]
    np.testing.assert_allclose(mean_action(tensors, description, obs), learner.mean_action(actor, obs), atol=1e-5)


@pytest.mark.parametrize("layer_norm", [True, False], ids=["norm", "plain"])
@pytest.mark.parametrize("activation", ["tanh", "elu", "silu"])
@pytest.mark.parametrize("head", ["squashed", "bounded", "softplus"])
def test_the_files_of_a_policy_describe_every_head(head, activation, layer_norm):
    actor = ActorConfig(layers=(24, 16, 8), head=head, layer_norm=layer_norm, activation=activation)
    phase = make_phase(drift(SacConfig(actor=actor)))
    assert isinstance(phase, TrainedPhase)
    learner = phase.build_learner()
    policy = learner.policy(learner.init(jax.random.key(2)))
    policy = jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(jax.random.key(leaf.size), leaf.shape), policy)
    files = policy_files(phase, policy)
    description = json.loads(files[DESCRIPTION])
    assert description["observation_names"] == ["x", "y", "vx", "vy"]
    assert description["head"] == head
    obs = np.random.default_rng(3).normal(size=(32, 4)).astype(np.float32)
    expected = np.asarray(learner.mean_action(policy, obs))
    np.testing.assert_allclose(mean_action(load(files[TENSORS]), description, obs), expected, atol=1e-5)


LOAD = """
import os, sys
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:int(sys.argv[1])])
from mission.machine.devices import configure, mesh
configure()
from pathlib import Path
from mission import load_mission, resolve_mission
from mission.storage.policies import load_actor
from mission.storage.steps import PhaseFolder, content_hash
from mission.training.bank import load_bank
root = Path(sys.argv[2])
phase = resolve_mission(load_mission(root / "missions" / "vertical.yaml"))[1]
folder = PhaseFolder(root / "checkpoints" / "shipped" / "vertical" / "burn")
record = folder.policy_record()
tree = {"actor": load_actor(folder, phase), "bank": load_bank(folder, phase, record)}
print(mesh().size, content_hash(tree) == record.content_sha256)
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the number of cores is set by Linux")
@pytest.mark.parametrize("devices", [1, 2])
def test_a_policy_loads_on_any_number_of_devices(devices):
    if len(os.sched_getaffinity(0)) < devices:
        pytest.skip("too few cores")
    command = [sys.executable, "-c", LOAD, str(devices), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(devices), "True"]


@pytest.fixture
def old(tmp_path, monkeypatch):
    """A copy of what version 0.1 made, with its plugin installed."""
    shutil.copytree(OLD, tmp_path / "old")
    fake_distribution(
        tmp_path / "site", "mission-glide_slope", "0.1.0", {PHASE_GROUP: {"glide_slope": "glide_slope"}}, {}
    )
    shutil.move(tmp_path / "old" / "glide_slope", tmp_path / "site" / "glide_slope")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    yield tmp_path / "old"
    sys.modules.pop("glide_slope", None)


def test_a_half_trained_checkpoint_of_version_0_1_is_trained_to_its_end(old, caplog):
    folder, whole = (PhaseFolder(old / name / "try_it" / "glide_slope") for name in ("half", "whole"))
    newest, reference = folder.newest_training(), whole.policy_record()
    assert newest is not None
    assert reference is not None
    assert (newest[0].name, newest[1].engine) == ("2816", "0.1.0")
    (summary,) = train_mission(load_mission(old / "mission.yaml"), checkpoints=old / "half")
    assert "resumes from vehicle step 2816" in caplog.text
    assert (summary.status, summary.env_steps) == ("trained", 6400)
    record = folder.policy_record()
    assert record is not None
    assert (folder.policy / TENSORS).is_file()
    if newest[1].machine == describe():  # then the result is bit-identical to that of version 0.1
        assert record.content_sha256 == reference.content_sha256


def test_a_policy_of_version_0_1_flies_and_counts_as_trained(old, caplog):
    mission = load_mission(old / "mission.yaml")
    summary = fly_mission(mission, checkpoints=old / "whole", flights=100)
    assert summary.phases[0].entered == 100
    assert not [record for record in caplog.records if "stale" in record.message or "plugins" in record.message]
    (trained,) = train_mission(mission, checkpoints=old / "whole", baseline_flights=100)
    assert trained.status == "already trained"
    assert (old / "whole" / "try_it" / "baseline.npz").is_file()


def test_the_mission_file_and_the_plugin_of_version_0_1_resolve(old):
    (phase,) = resolve_mission(load_mission(old / "skeleton.yaml"))
    assert phase.origin.distribution == "mission-glide-slope"
    assert isinstance(phase, TrainedPhase)
