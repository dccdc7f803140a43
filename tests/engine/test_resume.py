"""Interrupted anywhere, a run ends with the bits of an uninterrupted one; damage is noticed."""

from __future__ import annotations

import importlib
import json
import random
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import jax.numpy as jnp
import pytest
from factory import CART, MISSION, fake_distribution, run_cli, write_mission
from killing import finish, kill_once, results, start, train_command

from mission import fly_mission, load_mission, train_mission
from mission.errors import GateError, InputError, MachineError, NonFiniteError, StaleError
from mission.machine.devices import describe
from mission.missionfile.hooks import PHASE_GROUP
from mission.missionfile.phases import PhaseConfiguration
from mission.storage.records import PluginRecord, RunProgress, StepRecord
from mission.storage.steps import PhaseFolder, verify_step


def hashes(root: Path) -> list[str]:
    """Content of both policies with their banks."""
    return [
        json.loads((root / "trial" / name / "policy" / "meta.json").read_text())["content_sha256"]
        for name in ("first", "second")
    ]


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """A mission folder with an uninterrupted run in `ck`."""
    folder = tmp_path_factory.mktemp("reference")
    train_mission(
        load_mission(write_mission(folder)), checkpoints=folder / "ck", allow_local_plugins=True, checkpoint_every_s=0
    )
    return folder


@pytest.fixture
def copy(reference, tmp_path):
    """A private copy of the reference."""
    shutil.copytree(reference, tmp_path / "run")
    return tmp_path / "run"


def train(folder: Path, *overrides: str, **options):
    return train_mission(
        load_mission(folder / "mission.yaml", overrides), checkpoints=folder / "ck", allow_local_plugins=True, **options
    )


def step_record(step: int) -> StepRecord:
    configuration = PhaseConfiguration(name="p", plugin="p", params={}, sac={}, restart={}, bank={}, evaluation={})
    return StepRecord(
        mission="m",
        phase="p",
        seed=0,
        digest="0" * 64,
        configuration=(configuration,),
        plugins=(PluginRecord(name="p", distribution="d", version="1", source_sha256="0" * 64),),
        upstream="start",
        init=None,
        engine="0",
        machine=describe(),
        progress=RunProgress(env_steps=step),
    )


def command_of(folder: Path, checkpoints: Path, *more: str) -> list[str]:
    return train_command(folder / "mission.yaml", checkpoints, "--allow-local-plugins", "--baseline", "0", *more)


def test_kill_9_ends_with_the_same_bits(reference, tmp_path):
    command = command_of(reference, tmp_path / "ck")
    assert kill_once(command, tmp_path / "ck", 0.15)
    finish(command)
    assert results(tmp_path / "ck" / "trial") == results(reference / "ck" / "trial")


@pytest.mark.slow
def test_kill_9_a_dozen_times(reference, tmp_path):
    draw, command = random.Random(5), command_of(reference, tmp_path / "ck")
    assert sum(kill_once(command, tmp_path / "ck", draw.uniform(0.0, 0.5)) for _ in range(12)) >= 6
    finish(command)
    assert results(tmp_path / "ck" / "trial") == results(reference / "ck" / "trial")


@pytest.mark.parametrize(("number", "more"), [(signal.SIGINT, ()), (signal.SIGTERM, ("--fresh",))])
def test_signal_saves_and_says_where(reference, tmp_path, number, more):
    process = start(command_of(reference, tmp_path / "ck", *more))
    while not list((tmp_path / "ck").glob("*/first/metrics.jsonl")) and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130, stderr
    assert "state saved in" in stderr
    assert "the same command resumes" in stderr
    assert ("without --fresh" in stderr) == bool(more)
    train_mission(load_mission(reference / "mission.yaml"), checkpoints=tmp_path / "ck", allow_local_plugins=True)
    assert hashes(tmp_path / "ck") == hashes(reference / "ck")


def test_metrics_are_cut_back_and_end_the_same(reference, copy):
    folder = copy / "ck" / "trial" / "second"
    whole = (folder / "metrics.jsonl").read_text().splitlines()
    (folder / "done").unlink()
    shutil.rmtree(folder / "policy")
    newest = PhaseFolder(folder).steps()[0]
    shutil.rmtree(newest)
    train(copy)
    again = (folder / "metrics.jsonl").read_text().splitlines()
    clock = ("Speed", "sha256")  # the hash covers the speeds
    strip = lambda lines: [{k: v for k, v in json.loads(line).items() if not k.startswith(clock)} for line in lines]  # noqa: E731
    assert strip(again) == strip(whole)
    assert hashes(copy / "ck") == hashes(reference / "ck")


def test_done_phase_is_not_trained_again(copy):
    before = (copy / "ck" / "trial" / "first" / "done").stat().st_mtime_ns
    assert [record.status for record in train(copy)] == ["already trained", "already trained"]
    assert (copy / "ck" / "trial" / "first" / "done").stat().st_mtime_ns == before


@pytest.mark.parametrize("damage", ["flip", "truncate", "missing", "empty", "no_manifest"])
def test_damaged_newest_step_is_skipped_with_a_warning(reference, copy, caplog, damage):
    folder = PhaseFolder(copy / "ck" / "trial" / "second")
    (folder.path / "done").unlink()
    shutil.rmtree(folder.policy)
    newest = folder.steps()[0]
    largest = max((p for p in newest.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    if damage == "flip":
        data = bytearray(largest.read_bytes())
        data[len(data) // 2] ^= 1
        largest.write_bytes(data)
    elif damage == "truncate":
        largest.write_bytes(largest.read_bytes()[:-10])
    elif damage == "missing":
        largest.unlink()
    elif damage == "empty":
        (folder.training / "99999999").mkdir()
    else:
        (newest / "manifest.json").unlink()
    train(copy)
    assert sum("skipped" in record.message for record in caplog.records) == 1
    assert hashes(copy / "ck") == hashes(reference / "ck")


def test_a_new_step_outlives_damaged_ones_with_larger_numbers(tmp_path):
    folder = PhaseFolder(tmp_path)
    save = lambda step: folder.save_training(step, {"x": jnp.arange(3)}, step_record(step))  # noqa: E731
    for step in (9000, 9500):
        save(step)
        (folder.training / str(step) / "manifest.json").write_text("3")
    assert folder.newest_training() is None
    folder.skip_damaged()
    for step, kept in ((512, {"512"}), (1024, {"512", "1024"}), (1536, {"1024", "1536"})):
        save(step)
        found = PhaseFolder(tmp_path).newest_training()
        assert found is not None
        assert found[0].name == str(step)
        assert {p.name for p in folder.training.iterdir()} == {"9000.unreadable", "9500.unreadable"} | kept


def test_fresh_removes_nothing_before_it_has_read_what_it_needs(reference, copy):
    own = copy / "ck" / "trial" / "second"
    with pytest.raises(MachineError, match="with a policy"):
        train(copy, only=["second"], fresh=True, init={"second": copy / "none"})
    assert hashes(copy / "ck") == hashes(reference / "ck")
    (record,) = train(copy, only=["second"], fresh=True, init={"second": own})  # from itself
    assert record.status == "trained"
    assert hashes(copy / "ck")[1] != hashes(reference / "ck")[1]
    assert [record.status for record in train(copy, fresh=True)] == ["trained", "trained"]
    assert hashes(copy / "ck") == hashes(reference / "ck")


def test_init_is_for_agents_that_are_trained_here(copy):
    for overrides, options in (
        (("phases.first.policy=guide",), {"init": {"first": copy}}),
        ((), {"init": {"first": copy}, "only": ["second"]}),
    ):
        with pytest.raises(InputError, match="that an agent learns here"):
            train(copy, *overrides, **options)


def test_changed_configuration_names_the_field(copy):
    with pytest.raises(StaleError, match=r"phases.second.params.seconds was 2.0, is 2.5"):
        train(copy, "phases.second.params.seconds=2.5")
    with pytest.raises(StaleError, match=r"phases.first.sac.gamma was 0.9, is 0.8"):
        train(copy, "phases.first.sac.gamma=0.8")
    with pytest.raises(StaleError, match=r"seed 3, which it was begun with\n  found: seed 4"):
        train(copy, seed=4)
    inserted = (
        (copy / "mission.yaml")
        .read_text()
        .replace("  - name: second", "  - name: middle\n    plugin: ./cart.py\n  - name: second")
    )
    (copy / "longer.yaml").write_text(inserted)
    with pytest.raises(StaleError, match=r'phases was \["first", "second"\], is \["first", "middle", "second"\]'):
        train_mission(
            load_mission(copy / "longer.yaml"), checkpoints=copy / "ck", only=["second"], allow_local_plugins=True
        )
    (copy / "cart.py").write_text(CART + "\n# edited\n")
    with pytest.raises(StaleError, match="plugins that it was made with"):
        train(copy)


def test_budget_gate_and_observers_are_not_in_the_digest(copy):
    records = train(
        copy, "phases.second.budget.env_steps=9000", "phases.second.gate.success_low=0.01", "observers=[progress]"
    )
    assert [record.status for record in records] == ["already trained", "already trained"]


def test_stale_flight_is_refused_or_warned(copy):
    stale = (
        "fly",
        copy / "mission.yaml",
        "--checkpoints",
        copy / "ck",
        "--flights",
        20,
        "--allow-local-plugins",
        "--set",
        "phases.second.params.seconds=2.5",
    )
    refused = run_cli(*stale)
    assert refused.returncode == 2
    assert "phases.second.params.seconds was 2.0, is 2.5" in refused.stderr
    flown = run_cli(*stale, "--allow-stale", "--json", "-")
    assert flown.returncode == 0
    assert "is stale" in flown.stderr
    assert json.loads(flown.stdout)["phases"][1]["entered"] <= 20


def test_two_writers(copy):
    from mission.storage.lock import folder_lock

    with folder_lock(copy / "ck" / "trial"):
        done = run_cli("train", copy / "mission.yaml", "--checkpoints", copy / "ck", "--allow-local-plugins")
    assert done.returncode == 3
    assert "locked by process" in done.stderr


def test_retrained_upstream_makes_the_next_phase_stale(copy):
    shutil.rmtree(copy / "ck" / "trial" / "first")
    train(copy, "phases.first.budget.env_steps=1000", only=["first"])
    with pytest.raises(StaleError, match="trained again"):
        train(copy)


FAR = "phases.second.gate.channels={position_m: {mean_min: 1000.0}}"


def test_missed_gate_is_exit_1_and_a_raised_budget_goes_on(tmp_path, caplog):
    write_mission(tmp_path)
    with pytest.raises(GateError, match="position_m") as caught:
        train(tmp_path, FAR)
    assert caught.value.exit_code == 1
    assert not PhaseFolder(tmp_path / "ck" / "trial" / "second").done
    caplog.clear()
    with pytest.raises(GateError):
        train(tmp_path, FAR, "phases.second.budget.env_steps=3500")
    assert any("resumes from vehicle step 2560" in record.message for record in caplog.records)
    records = train(tmp_path, "phases.second.budget.env_steps=3500")
    assert [record.status for record in records] == ["already trained", "trained"]


def test_too_few_for_a_bank_after_a_passed_gate_train_on(tmp_path):
    """Up to the next gate that is passed, within the budget."""
    write_mission(tmp_path)
    few = ("phases.first.gate={success_low: 0.0, flights: 100}", "phases.first.bank.minimum=200")
    narrow = "phases.first.params={tolerance_m: 0.05}"
    folder, reached = PhaseFolder(tmp_path / "ck" / "trial" / "first"), [0]
    for _ in range(2):
        with pytest.raises(GateError, match="at least 200 successes"):
            train(tmp_path, *few, narrow)
        reached.append(int(folder.steps()[0].name))
    assert 0 < reached[1] < reached[2] <= 3000 + 512


@pytest.mark.parametrize("stop", [True, False])
def test_a_gate_that_is_passed_ends_training_unless_told_not_to(tmp_path, stop):
    write_mission(tmp_path)
    easy = ("phases.first.gate.success_low=0.0", "phases.first.budget.env_steps=4000")
    (record,) = train(tmp_path, *easy, f"phases.first.gate.stop={str(stop).lower()}", only=["first"])
    assert record.gate.passed
    assert (record.env_steps < 4000) == stop


def test_non_finite_state_stops_with_its_leaf_and_keeps_the_checkpoint(tmp_path):
    """One start in eighty breaks, which the keys of seed 3 have after the first chunks."""
    late = CART.replace(
        "        return State(handoff, jnp.zeros(()))",
        "        broken = jax.random.uniform(key) < 0.012\n"
        "        return State(handoff._replace(position_m=jnp.where(broken, jnp.nan, handoff.position_m)), jnp.zeros(()))",
    )
    write_mission(tmp_path, plugin=late)
    settings = ("evaluation.every_env_steps=100000", "budget.env_steps=20000")
    with pytest.raises(NonFiniteError) as caught:
        train(tmp_path, *(f"phases.first.{text}" for text in settings), checkpoint_every_s=0)
    assert caught.value.exit_code == 1
    assert 'phase "first"' in str(caught.value)
    assert "state.cart.position_m" in str(caught.value)
    (step,) = re.findall(r"at vehicle step (\d+)", str(caught.value))
    newest = PhaseFolder(tmp_path / "ck" / "trial" / "first").newest_training()
    assert newest is not None
    assert int(step) - 512 < int(newest[0].name) < int(step)


def test_non_finite_evaluation_names_what_it_hands_over(tmp_path):
    """Vehicles in training are three steps old when the first evaluation flies to the end."""
    late = CART.replace(
        "        return State(Cart(state",
        "        velocity = jnp.where(state.time_s > 1.0, jnp.nan, velocity)\n        return State(Cart(state",
    )
    write_mission(tmp_path, plugin=late)
    short = ("sac.chunk_env_steps=16", "sac.fill.env_steps=32", "evaluation.every_env_steps=16")
    with pytest.raises(NonFiniteError, match=r"100 of 100 not finite after vehicle step 48.*\.position_m"):
        train(tmp_path, *(f"phases.first.{text}" for text in short))


def test_non_finite_loss_names_the_network(tmp_path):
    write_mission(tmp_path)
    with pytest.raises(
        NonFiniteError, match=r"(Critic|Actor) network: (Critic|Actor)/Loss not finite at update \d+ after vehicle step"
    ):
        train(tmp_path, "phases.first.sac.critic_learning_rate=1e30")


def test_networks_that_break_in_a_chunk_s_last_update_are_not_saved(tmp_path):
    """One update a chunk, by a step that float32 cannot hold: its losses are of the networks before."""
    write_mission(tmp_path)
    once = ("chunk_env_steps=16", "updates_per_step=0.0625", "actor_learning_rate=1e39")
    with pytest.raises(NonFiniteError, match="Actor network: parameters not finite"):
        train(tmp_path, *(f"phases.first.sac.{text}" for text in once), checkpoint_every_s=0)
    assert not PhaseFolder(tmp_path / "ck" / "trial" / "first").steps()


def test_refused_write_is_exit_3_and_the_last_checkpoint_stays(reference, tmp_path):
    """A limit on the size of files stands for a full disk: the same system calls fail."""
    command = command_of(reference, tmp_path)
    limited = ["bash", "-c", 'ulimit -f 20; exec "$@"', "bash", *command]
    done = subprocess.run(limited, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    assert "checkpoint to be written" in done.stderr
    assert not list(tmp_path.glob("trial/first/training/[0-9]*"))
    train_mission(load_mission(reference / "mission.yaml"), checkpoints=tmp_path, allow_local_plugins=True)
    assert hashes(tmp_path) == hashes(reference / "ck")


def test_failed_save_keeps_the_step_before(tmp_path, monkeypatch):
    folder = PhaseFolder(tmp_path / "phase")
    folder.save_training(1, {"x": jnp.arange(3)}, step_record(1))
    monkeypatch.setattr(
        "mission.storage.steps._sha256", lambda path: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(MachineError, match="No space left"):
        folder.save_training(2, {"x": jnp.arange(3)}, step_record(2))
    monkeypatch.undo()
    assert [step.name for step in folder.steps()] == ["1"]
    assert verify_step(folder.steps()[0], StepRecord).phase == "p"


def test_another_version_of_a_plugin_is_stale_and_its_flights_warn(tmp_path, monkeypatch, caplog):
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    fake_distribution(site, "acme-cart", "1.0", {PHASE_GROUP: {"acme_cart": "acme_cart"}}, {"acme_cart": CART})
    write_mission(tmp_path, MISSION[: MISSION.index("  - name: second")].replace("./cart.py", "acme_cart"))
    train(tmp_path, "phases.first.budget.env_steps=600")
    old = site / "acme_cart-1.0.dist-info"
    (old / "METADATA").write_text((old / "METADATA").read_text().replace("1.0", "1.1"))
    old.rename(site / "acme_cart-1.1.dist-info")
    importlib.invalidate_caches()
    with pytest.raises(StaleError, match=r"version was \"1.0\", is \"1.1\""):
        train(tmp_path, "phases.first.budget.env_steps=600")
    flown = fly_mission(load_mission(tmp_path / "mission.yaml"), checkpoints=tmp_path / "ck", flights=20)
    assert flown.flights == 20
    assert any("other plugins" in record.message for record in caplog.records)


def test_phase_alone_trains_from_its_start_and_says_so(tmp_path, caplog):
    write_mission(tmp_path)
    records = train(tmp_path, only=["second"])
    assert [record.name for record in records] == ["second"]
    assert any("trains from its own start" in record.message for record in caplog.records)


def test_init_starts_from_an_existing_policy_and_is_recorded(copy):
    source = copy / "ck" / "trial" / "first"
    mission = load_mission(copy / "mission.yaml")
    train_mission(
        mission, checkpoints=copy / "other", only=["second"], init={"second": source}, allow_local_plugins=True
    )
    meta = json.loads((copy / "other" / "trial" / "second" / "policy" / "meta.json").read_text())
    assert meta["init"] == str(source)


def test_a_checkpoint_does_not_name_the_folder_that_it_was_written_in(reference):
    files = [path for path in (reference / "ck").rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if bytes(reference) in path.read_bytes()]
