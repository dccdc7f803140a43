"""What training and reports may write to, remove and rename, and in which order they read phases."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from pathlib import Path

import pytest
from factory import ROOT, write_mission

from mission import load_mission, train_mission
from mission.cli import main
from mission.errors import InputError, MachineError, StaleError
from mission.report.curves import learning_page
from mission.report.redraw import draw_report
from mission.storage.lock import folder_lock
from mission.storage.protection import READ_ONLY, refuse_read_only
from mission.storage.steps import PhaseFolder

# In the order of the alphabet, the first phase would be the last.
MISSION = """\
name: trial
seed: 3
phases:
  - {name: zeta, plugin: ./cart.py, budget: {env_steps: 1024}, bank: {flights: 100, minimum: 4}}
  - {name: coast, plugin: ./cart.py, policy: guide, bank: {flights: 100, minimum: 4}}
  - {name: alpha, plugin: ./cart.py, budget: {env_steps: 1536}, bank: {flights: 100, minimum: 4}}
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    write_mission(folder, MISSION)
    train(folder, checkpoint_every_s=0)
    return folder


def train(folder: Path, **options):
    mission = load_mission(folder / "mission.yaml")
    chosen = {"checkpoints": folder / "ck", "log_dir": folder / "runs", "baseline_flights": 0} | options
    return train_mission(mission, allow_local_plugins=True, **chosen)


def snapshot(root: Path) -> dict[str, str]:
    """Kind and content of every path but locks."""
    found = {}
    for path in root.rglob("*"):
        if path.name != ".lock":
            content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
            found[str(path.relative_to(root))] = f"{path.is_symlink()} {path.is_dir()} {content}"
    return found


def policies(folder: Path) -> list[str]:
    records = [PhaseFolder(folder / "ck" / "trial" / name).policy_record() for name in ("zeta", "coast", "alpha")]
    return [record.content_sha256 for record in records if record is not None]


def flip(path: Path) -> None:
    """Change one bit in the largest file of a folder."""
    largest = max((file for file in path.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)


# The marker of shipped policies


def test_the_shipped_policies_hold_the_marker():
    assert (ROOT / "checkpoints" / "shipped" / READ_ONLY).is_file()


@pytest.mark.parametrize("way", ["folder", "below", "link", "link_of_the_mission", "relative"])
def test_marked_folders_are_not_trained_into_from_anywhere(tmp_path, monkeypatch, way):
    write_mission(tmp_path, MISSION)
    shipped = tmp_path / "checkout" / "checkpoints" / "shipped"
    shipped.mkdir(parents=True)
    (shipped / READ_ONLY).touch()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    if way == "link":
        (elsewhere / "ck").symlink_to(shipped)
    elif way == "link_of_the_mission":
        (elsewhere / "ck").mkdir()
        (elsewhere / "ck" / "trial").symlink_to(shipped / "trial")
    monkeypatch.chdir(elsewhere)
    places = {"folder": shipped, "below": shipped / "trial", "relative": Path("../checkout/checkpoints/shipped")}
    before = snapshot(tmp_path)
    with pytest.raises(InputError, match="read-only") as caught:
        train(tmp_path, checkpoints=places.get(way, Path("ck")), fresh=True)
    assert "--checkpoints" in caught.value.remedy
    assert snapshot(tmp_path) == before


def test_observers_and_reports_do_not_write_there_either(copy):
    (copy / "ck" / READ_ONLY).touch()
    with pytest.raises(InputError, match="--log-dir"):
        train(copy, checkpoints=copy / "other", log_dir=copy / "ck" / "runs")
    with pytest.raises(InputError, match="--output"):
        learning_page(copy / "ck" / "trial")
    with pytest.raises(InputError, match="read-only"):
        draw_report(copy / "ck" / "trial")
    assert learning_page(copy / "ck" / "trial", copy / "page.html").is_file()
    refuse_read_only(copy / "other", "--checkpoints")  # beside it


def test_a_report_into_a_marked_folder_is_exit_2(tmp_path, monkeypatch, capsys):
    write_mission(tmp_path, MISSION)
    (tmp_path / READ_ONLY).touch()
    options = ["--allow-local-plugins", "--policy", "guide", "--flights", "1", "--report"]
    monkeypatch.setattr("sys.argv", ["mission", "fly", str(tmp_path / "mission.yaml"), *options, str(tmp_path / "r")])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert "read-only" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


# Links, permissions and files of others


def link(path: Path, target: Path) -> None:
    """Move what is at a path to the target, and link to it."""
    path.rename(target)
    path.symlink_to(target)


@pytest.mark.parametrize("linked", ["zeta", "alpha", "alpha/training", "alpha/policy", "alpha/metrics.jsonl"])
def test_fresh_refuses_links_before_it_removes_anything(copy, linked):
    link(copy / "ck" / "trial" / linked, copy / "elsewhere")
    before = snapshot(copy)
    with pytest.raises(MachineError, match=r"a link to .*elsewhere") as caught:
        train(copy, fresh=True)
    assert caught.value.where.endswith(linked)
    assert snapshot(copy) == before


@pytest.mark.parametrize("linked", ["alpha", "alpha/training", "alpha/training/1536"])
def test_an_unfinished_phase_with_links_renames_nothing_behind_them(copy, linked):
    folder = PhaseFolder(copy / "ck" / "trial" / "alpha")
    (folder.path / "done").unlink()
    flip(folder.steps()[0])
    link(copy / "ck" / "trial" / linked, copy / linked.replace("/", "-"))
    before = snapshot(copy)
    with pytest.raises(MachineError, match="a link to"):
        train(copy)
    assert snapshot(copy) == before


def test_a_finished_phase_may_be_a_link(copy):
    link(copy / "ck" / "trial" / "zeta", copy / "elsewhere")
    assert [summary.status for summary in train(copy)] == ["already trained"] * 3


def test_a_linked_lock_does_not_empty_the_file_behind_it(tmp_path):
    (tmp_path / "letter").write_text("mine")
    (tmp_path / "ck").mkdir()
    (tmp_path / "ck" / ".lock").symlink_to(tmp_path / "letter")
    with pytest.raises(MachineError), folder_lock(tmp_path / "ck"):
        pass
    assert (tmp_path / "letter").read_text() == "mine"


def test_fresh_keeps_files_of_others(copy):
    note = copy / "ck" / "trial" / "zeta" / "notes" / "note.txt"
    note.parent.mkdir()
    note.write_text("mine")
    before = policies(copy)
    assert [summary.status for summary in train(copy, fresh=True, only=["zeta"])] == ["trained"]
    assert note.read_text() == "mine"
    assert policies(copy) == before


def test_fresh_checks_permissions_before_it_removes_anything(copy, monkeypatch):
    locked = copy / "ck" / "trial" / "alpha" / "training"
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != locked and access(path, mode))
    before = snapshot(copy)
    with pytest.raises(MachineError, match="no permission") as caught:
        train(copy, fresh=True)
    assert caught.value.where == str(locked)
    assert snapshot(copy) == before


def test_a_stale_later_phase_is_refused_before_an_earlier_one_trains(copy):
    shutil.rmtree(copy / "ck" / "trial" / "zeta")
    path = copy / "mission.yaml"
    path.write_text(MISSION.replace("name: alpha,", "name: alpha, params: {seconds: 2.5},"))
    before = snapshot(copy)
    with pytest.raises(StaleError, match=r"phases.alpha.params.seconds"):
        train(copy)
    assert snapshot(copy) == before


def test_a_damaged_step_is_not_renamed_in_a_run_that_is_refused(copy):
    folder = PhaseFolder(copy / "ck" / "trial" / "alpha")
    (folder.path / "done").unlink()
    assert len(folder.steps()) == 2
    flip(folder.steps()[0])
    before = snapshot(copy)
    with pytest.raises(StaleError, match="seed 3"):
        train(copy, seed=4, only=["alpha"], init={})
    assert snapshot(copy) == before


# Damaged policies of finished phases


@pytest.mark.parametrize(
    ("name", "damage"),
    [("zeta", "flip"), ("coast", "flip"), ("coast", "meta"), ("alpha", "manifest"), ("alpha", "empty")],
)
def test_a_damaged_policy_of_a_finished_phase_is_rebuilt(trained, copy, caplog, name, damage):
    policy = copy / "ck" / "trial" / name / "policy"
    if damage == "flip":
        flip(policy)
    elif damage == "meta":
        (policy / "meta.json").write_text("{")
    elif damage == "manifest":
        (policy / "manifest.json").unlink()
    else:
        shutil.rmtree(policy)
        policy.mkdir()
    statuses = {summary.name: summary.status for summary in train(copy)}
    assert statuses.pop(name) == ("flown by its guide" if name == "coast" else "trained")
    assert set(statuses.values()) == {"already trained"}
    assert sum("it is rebuilt" in record.message for record in caplog.records) == 1
    assert policies(copy) == policies(trained)


def test_a_damaged_policy_without_training_steps_is_an_error(copy):
    folder = PhaseFolder(copy / "ck" / "trial" / "alpha")
    flip(folder.policy)
    shutil.rmtree(folder.training)
    before = snapshot(copy)
    with pytest.raises(MachineError, match="altered") as caught:
        train(copy)
    assert caught.value.exit_code == 3
    assert "--fresh" in caught.value.remedy
    assert snapshot(copy) == before


# Learning curves and TensorBoard


def test_learning_curves_are_in_the_order_of_the_mission(copy):
    root = copy / "ck" / "trial"
    (root / "beta").mkdir()  # killed before its first checkpoint
    shutil.copy(root / "alpha" / "metrics.jsonl", root / "beta" / "metrics.jsonl")
    for age, name in enumerate(("zeta", "beta", "alpha")):
        os.utime(root / name / "metrics.jsonl", (age, 10 - age))
    shutil.rmtree(root / "alpha" / "policy")  # a training step also tells the order
    page = learning_page(root).read_text()
    assert re.findall(r"<h2[^>]*>(\w+)", page) == ["zeta", "alpha", "beta"]


def test_runs_of_two_folders_of_checkpoints_do_not_share_a_folder(tmp_path):
    write_mission(tmp_path, MISSION.replace("seed: 3", "seed: 3\nobservers: [tensorboard]"))
    for checkpoints in (tmp_path / "a" / "ck", tmp_path / "b" / "ck", tmp_path / "a" / ".." / "a" / "ck"):
        train(tmp_path, checkpoints=checkpoints, only=["coast"], fresh=True)
    events = sorted(tmp_path.glob("runs/ck-*/trial/coast/events*"))
    assert len(events) >= 2
    assert len({path.parent for path in events}) == 2
