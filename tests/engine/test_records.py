"""Records on disk: typed, upgraded when older; a foreign format stops the command and changes nothing."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from factory import MISSION, run_cli, write_mission

from mission import fly_mission, load_mission, train_mission
from mission.errors import FormatError, MachineError
from mission.missionfile.gate import Gate, gate_verdict
from mission.storage.baseline import BASELINE, read_baseline
from mission.storage.records import FORMAT, PolicyRecord, StepRecord, read_record, upgrade
from mission.storage.steps import PhaseFolder

FIRST = MISSION.partition("  - name: second")[0].replace("env_steps: 3000", "env_steps: 1500")
FOREIGN = {"newer": 7, "missing": None, "word": "two", "fraction": 2.0, "truth": True, "zero": 0}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A mission of one phase, trained to its end, with two training steps and a small baseline."""
    folder = tmp_path_factory.mktemp("trained")
    write_mission(folder, FIRST)
    train(folder, checkpoint_every_s=0, baseline_flights=100)
    return folder


def train(folder: Path, **options):
    mission = load_mission(folder / "mission.yaml")
    return train_mission(mission, checkpoints=folder / "ck", allow_local_plugins=True, **options)


def fly(folder: Path):
    mission = load_mission(folder / "mission.yaml")
    return fly_mission(mission, checkpoints=folder / "ck", flights=10, allow_local_plugins=True)


def unfinished(copy: Path) -> PhaseFolder:
    """The phase of a copy without marker and policy, so that training resumes."""
    folder = PhaseFolder(copy / "ck" / "trial" / "first")
    (folder.path / "done").unlink()
    shutil.rmtree(folder.policy)
    return folder


def rewrite(step: Path, change, manifest: bool = True) -> None:
    """Change the JSON of a step's record; its manifest fits again if `manifest`."""
    meta = step / "meta.json"
    data = json.loads(meta.read_text())
    change(data)
    meta.write_text(json.dumps(data))
    if manifest:
        sums = json.loads((step / "manifest.json").read_text())
        sums["meta.json"] = hashlib.sha256(meta.read_bytes()).hexdigest()
        (step / "manifest.json").write_text(json.dumps(sums))


def set_format(value):
    def change(data) -> None:
        data.pop("format") if value is None else data.update(format=value)

    return change


def snapshot(root: Path) -> dict[str, str]:
    """Content of every file but locks."""
    files = (path for path in root.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("manifest", [True, False], ids=["whole", "manifest_of_before"])
@pytest.mark.parametrize("found", FOREIGN)
def test_a_foreign_newest_step_stops_training_although_an_older_one_is_readable(copy, found, manifest):
    folder = unfinished(copy)
    newest, older = folder.steps()
    rewrite(newest, set_format(FOREIGN[found]), manifest)
    before = snapshot(copy)
    with pytest.raises(FormatError) as caught:
        train(copy)
    assert caught.value.exit_code == 3
    assert f"format 1 to {FORMAT}" in caught.value.expected
    assert ("no format number" if FOREIGN[found] is None else f"format {FOREIGN[found]!r}") in caught.value.found
    assert snapshot(copy) == before
    assert folder.steps() == [newest, older]


def test_a_foreign_older_step_is_not_dropped_either(copy):
    folder = unfinished(copy)
    rewrite(folder.steps()[1], set_format(9))
    with pytest.raises(FormatError):
        train(copy)


@pytest.mark.parametrize("found", FOREIGN)
@pytest.mark.parametrize("done", [True, False], ids=["done", "not_done"])
def test_a_foreign_policy_stops_training_and_flying(copy, found, done):
    folder = PhaseFolder(copy / "ck" / "trial" / "first")
    rewrite(folder.policy, set_format(FOREIGN[found]))
    if not done:
        (folder.path / "done").unlink()
        shutil.rmtree(folder.training)
    before = snapshot(copy)
    for command in (train, fly):
        with pytest.raises(FormatError, match="nothing was changed"):
            command(copy)
    assert snapshot(copy) == before


def test_a_foreign_format_is_exit_3_of_the_commands(copy):
    folder = PhaseFolder(copy / "ck" / "trial" / "first")
    rewrite(folder.policy, set_format(7))
    options = ("--checkpoints", copy / "ck", "--allow-local-plugins")
    for command in ("train", "fly"):
        done = run_cli(command, copy / "mission.yaml", *options)
        assert done.returncode == 3, done.stderr
        assert f"format 1 to {FORMAT}" in done.stderr
        assert "format 7" in done.stderr


def test_a_verdict_of_a_foreign_format_is_one_too(copy):
    folder = unfinished(copy)
    verdict = gate_verdict(Gate(), np.ones(2000, bool), {}).model_dump(mode="json")
    rewrite(folder.steps()[0], lambda data: data["progress"].update(gate=verdict | {"format": 5}))
    with pytest.raises(FormatError, match=r"gate(.|\n)*format 5"):
        train(copy)


def test_a_baseline_of_a_foreign_format_is_not_recorded_again(copy):
    path = copy / "ck" / "trial" / BASELINE
    with np.load(path) as stored:
        arrays = dict(stored)
    arrays["record"] = np.array(json.dumps(json.loads(str(arrays["record"])) | {"format": 8}))
    np.savez_compressed(path, **arrays)
    before = snapshot(copy)
    with pytest.raises(FormatError, match="format 8"):
        train(copy, baseline_flights=100)
    assert snapshot(copy) == before


@pytest.mark.parametrize("damage", ["{", "[]", '{"format": 2}', "\xff"])
def test_a_damaged_record_is_put_aside_and_the_older_step_is_used(trained, copy, caplog, damage):
    folder = unfinished(copy)
    newest = folder.steps()[0]
    (newest / "meta.json").write_text(damage, encoding="latin-1")
    train(copy)
    assert sum("skipped" in record.message for record in caplog.records) == 1
    assert newest.with_name(f"{newest.name}.unreadable").is_dir()
    ours, theirs = (PhaseFolder(root / "ck" / "trial" / "first").policy_record() for root in (copy, trained))
    assert ours is not None
    assert theirs is not None
    assert ours.content_sha256 == theirs.content_sha256


def test_a_damaged_policy_is_no_foreign_one(copy):
    (copy / "ck" / "trial" / "first" / "policy" / "meta.json").write_text("{")
    with pytest.raises(MachineError, match="altered"):
        fly(copy)


def test_a_damaged_baseline_is_recorded_again_with_a_warning(copy, caplog):
    path = copy / "ck" / "trial" / BASELINE
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    with pytest.raises(MachineError, match="readable baseline"):
        read_baseline(path.parent)
    with caplog.at_level(logging.WARNING):
        train(copy, baseline_flights=100)
    assert "recorded again" in caplog.text
    assert path.read_bytes() == whole


def test_records_are_typed_and_survive_a_round_trip(copy):
    folder = PhaseFolder(copy / "ck" / "trial" / "first")
    policy, newest = folder.policy_record(), folder.newest_training()
    assert policy is not None
    assert newest is not None
    assert read_record(PolicyRecord, policy.model_dump_json(), "here") == policy
    assert read_record(StepRecord, newest[1].model_dump_json(), "here") == newest[1]
    assert policy.format == FORMAT
    assert policy.given == ({},)
    with pytest.raises(ValueError, match="seed"):
        read_record(PolicyRecord, policy.model_dump_json().replace('"seed":3', '"seed":"3"'), "here")


def test_format_1_is_upgraded():
    path = Path(__file__).parent / "data" / "version_0_1" / "half" / "try_it" / "glide_slope" / "training" / "2816"
    text = (path / "meta.json").read_text()
    assert json.loads(text)["format"] == 1
    record = read_record(StepRecord, text, "here")
    assert record.format == FORMAT
    assert record.given is None
    assert record.progress.evaluation is not None
    assert record.progress.evaluation.flights == 64
    old = {"format": 1, "engine": "0.1.0", "gate": {"passed": True, "asked": {"flights": 3}}}
    assert upgrade(old, "here")["gate"] == {"passed": True, "settings": {"flights": 3}, "format": FORMAT}
    assert "asked" in old["gate"]  # the argument stays as it is
