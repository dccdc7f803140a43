"""Sweeps: a conflict between two phases is resolved, any interruption is made good, and stale parts are named."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from aim_and_catch import success, write_aim_and_catch

from mission import fly_mission, load_mission, train_mission
from mission.errors import InputError, MachineError, PluginError, StaleError
from mission.flight.chain import prepare_chain
from mission.flight.feasibility.network import FeasibilitySettings, fit, likely
from mission.missionfile.models import TerminalValue
from mission.missionfile.resolve import resolve_mission
from mission.storage.steps import PhaseFolder, content_hash
from mission.training.sweeps.joint import JointTraining
from mission.training.sweeps.phases import sweep_phases
from mission.training.sweeps.store import FOLDER, check_sweeps, copy_policies, read_sweeps
from mission.training.sweeps.terminal import TERM, with_terminal_value

PAID = "{sweeps: 1, flights: 1000, terminal: {weight: 4.0, replaces: [own]}}"
OPTIONS = {"allow_local_plugins": True, "baseline_flights": 0}


def contents(root: Path) -> dict[str, str]:
    """The content hash of every policy below a mission's folder, and the rates."""
    found = {
        str(path.parent.parent.relative_to(root)): json.loads(path.read_text())["content_sha256"]
        for path in root.rglob("policy/meta.json")
    }
    record = read_sweeps(root)
    return found | {f"rate {one.sweep}": f"{one.succeeded} of {one.flights}" for one in record.rates}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The mission file of a chain after one sweep, with its checkpoints in `ck`."""
    path = write_aim_and_catch(tmp_path_factory.mktemp("swept"), PAID)
    train_mission(load_mission(path), checkpoints=path.parent / "ck", **OPTIONS)
    return path


def test_a_sweep_lets_the_first_phase_throw_where_the_second_can_catch(swept: Path) -> None:
    """Both rates are those of the closed form, and the better policies are the mission's."""
    root = swept.parent / "ck" / "aim_and_catch"
    record = read_sweeps(root)
    before, after = (rate.succeeded / rate.flights for rate in record.rates)
    assert before == pytest.approx(success(-0.2), abs=0.06)
    assert after == pytest.approx(success(1.0), abs=0.01)
    assert record.chosen == 1
    kept = [PhaseFolder(path / "aim").policy_record().content_sha256 for path in (root, root / FOLDER / "1")]
    assert kept[0] == kept[1]
    flown = fly_mission(load_mission(swept), checkpoints=swept.parent / "ck", flights=1000, allow_local_plugins=True)
    assert flown.success.rate > 0.98


def test_without_a_terminal_value_a_sweep_does_not_know_the_second_phase(tmp_path: Path) -> None:
    path = write_aim_and_catch(tmp_path, "{sweeps: 1, flights: 1000}", "budget: {env_steps: 4096}")
    path.write_text(path.read_text().replace("    budget: {env_steps: 8192}\n", ""))
    train_mission(load_mission(path), checkpoints=tmp_path / "ck", **OPTIONS)
    rates = read_sweeps(tmp_path / "ck" / "aim_and_catch").rates
    assert [rate.succeeded / rate.flights for rate in rates] == [pytest.approx(success(-0.2), abs=0.08)] * 2


KILLER = """
import os, sys, threading
from mission import load_mission, train_mission
left = int(sys.argv[3])
def count(event):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), 9)
train_mission(load_mission(sys.argv[1]), checkpoints=sys.argv[2], allow_local_plugins=True, baseline_flights=0,
              checkpoint_every_s=0.0, observers={"killer": count})
"""


def test_a_run_that_is_killed_anywhere_goes_on_to_the_same_policies(swept: Path, tmp_path: Path) -> None:
    """Killed by its own observer after so many events, six times, then finished."""
    command = [sys.executable, "-c", KILLER, str(swept), str(tmp_path)]
    codes = [subprocess.run([*command, str(events)], check=False).returncode for events in (14, 9, 13, 4, 12, 9)]
    assert codes == [-9] * len(codes)
    assert subprocess.run([*command, "100000"], check=False).returncode == 0
    assert contents(tmp_path / "aim_and_catch") == contents(swept.parent / "ck" / "aim_and_catch")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("weight: 4.0", "weight: 5.0", "chain.terminal.weight was 4.0, is 5.0"),
        ("flights: 500", "flights: 400", "flights was 500, is 400"),
    ],
)
def test_changed_settings_name_the_stale_part(swept: Path, old: str, new: str, message: str) -> None:
    text = swept.read_text()
    swept.write_text(text.replace(old, new))
    try:
        with pytest.raises(StaleError, match=message):
            train_mission(load_mission(swept), checkpoints=swept.parent / "ck", **OPTIONS)
    finally:
        swept.write_text(text)


def test_policies_of_another_training_are_told_from_those_that_a_sweep_has_shipped(swept: Path) -> None:
    """Another sweep may have been chosen, but not yet copied; then the mission still has what was shipped before."""
    root, mission = swept.parent / "ck" / "aim_and_catch", load_mission(swept)
    record = read_sweeps(root)
    assert record.chosen == 1
    check_sweeps(root, record.model_copy(update={"chosen": 0}), mission, 3)
    others = record.model_copy(update={"chosen": 0, "shipped": dict.fromkeys(record.shipped, "0" * 64)})
    with pytest.raises(StaleError, match='"aim" was trained again since'):
        check_sweeps(root, others, mission, 3)


def test_joint_training_from_other_policies_begins_again(swept: Path, joint: Path) -> None:
    mission, place = load_mission(swept.parent / "joint.yaml"), joint / "aim_and_catch"
    nothing = {"progress": lambda done, total: None, "tell": lambda *told: None}
    updates = []
    for start in (place / FOLDER / "0", place):
        (joint / f"copy-{len(updates)}").mkdir()
        copy_policies(start, joint / f"copy-{len(updates)}" / "aim_and_catch", ["aim", "catch"])
        chain = prepare_chain(mission, checkpoints=joint / f"copy-{len(updates)}", allow_local_plugins=True)
        folder = place / FOLDER / "joint"
        updates.append(
            JointTraining(chain, chain.phases, mission.chain.joint, (), folder, **nothing)._restore().updates
        )
    assert updates == [60, 0]


@pytest.mark.parametrize("change", [lambda leaf: leaf[None], lambda leaf: leaf.astype(np.float16), None])
def test_altered_arrays_of_joint_training_are_refused(swept: Path, joint: Path, tmp_path: Path, change: Any) -> None:
    """Their hash fits; one has another shape or type, or is missing."""
    mission, place = load_mission(swept.parent / "joint.yaml"), joint / "aim_and_catch"
    copy_policies(place / FOLDER / "0", tmp_path / "aim_and_catch", ["aim", "catch"])
    with np.load(place / FOLDER / "joint" / "joint.npz") as stored:
        arrays = {name: leaf for name, leaf in stored.items() if name != "sha256"}
    first = arrays.pop("0")
    arrays |= {"0": change(first)} if change else {}
    np.savez(tmp_path / "joint.npz", **arrays, sha256=np.array(content_hash(arrays)))
    chain = prepare_chain(mission, checkpoints=tmp_path, allow_local_plugins=True)
    nothing = {"progress": lambda done, total: None, "tell": lambda *told: None}
    with pytest.raises(MachineError, match="arrays of other shapes"):
        JointTraining(chain, chain.phases, mission.chain.joint, (), tmp_path, **nothing)._restore()


def test_more_sweeps_go_on_from_the_last_one_and_fewer_change_nothing(swept: Path) -> None:
    root = swept.parent / "ck" / "aim_and_catch"
    before = contents(root)
    summaries = train_mission(load_mission(swept), checkpoints=swept.parent / "ck", sweeps=0, **OPTIONS)
    assert [one.status for one in summaries] == ["already trained"] * 2
    assert contents(root) == before


@pytest.mark.parametrize(
    ("chain", "more", "where", "message"),
    [
        ("{terminal: {weight: 1.0}}", (), "chain", "sweeps of at least 1"),
        ("{sweeps: 1, terminal: {weight: 1.0, replaces: [gain]}}", (), "terminal.replaces", "a reward term"),
        ("{sweeps: 1}", ("sweep: {sac: {actor: {width: 8}}}",), "sweep.sac", "keep the policy's network"),
        ("{sweeps: 1}", ("sweep: {sac: {gama: 0.9}}",), "sweep.sac", "gama"),
        ("{sweeps: 1, terminal: {weight: 0.0}}", (), "chain.terminal.weight", "greater than 0"),
    ],
)
def test_settings_that_cannot_hold_are_refused(
    tmp_path: Path, chain: str, more: tuple[str, ...], where: str, message: str
) -> None:
    path = write_aim_and_catch(tmp_path, chain, *more)
    with pytest.raises(InputError) as refused:
        train_mission(load_mission(path), checkpoints=tmp_path / "ck", **OPTIONS)
    assert where in refused.value.where
    assert message in str(refused.value)
    assert not (tmp_path / "ck" / "aim_and_catch" / "aim").exists()


def test_sweeps_need_every_phase_of_a_chain(swept: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="every phase"):
        train_mission(load_mission(swept), checkpoints=tmp_path, only=["aim"], **OPTIONS)
    alone = swept.read_text().split("  - {name: catch")[0]
    (swept.parent / "alone.yaml").write_text(alone)
    with pytest.raises(InputError, match="two phases"):
        train_mission(load_mission(swept.parent / "alone.yaml"), checkpoints=tmp_path, sweeps=1, **OPTIONS)


def test_value_gradients_over_a_link_without_one_are_refused(tmp_path: Path) -> None:
    path = write_aim_and_catch(tmp_path, PAID, "sweep: {sac: {actor_horizon: 2}}")
    mission = load_mission(path)
    sweep_phases(mission, resolve_mission(mission, allow_local_plugins=True))
    path.write_text(path.read_text().replace("plugin: ./catch.py", "plugin: ./catch.py, params: {loops: true}"))
    mission = load_mission(path)
    with pytest.raises(PluginError, match="over the link") as refused:
        sweep_phases(mission, resolve_mission(mission, allow_local_plugins=True))
    assert "phases[1]" in refused.value.where


@pytest.fixture(scope="module")
def joint(swept: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of joint training from the policies before any sweep."""
    folder, text = tmp_path_factory.mktemp("joint"), swept.read_text()
    (swept.parent / "joint.yaml").write_text(
        text.replace(PAID, "{joint: {updates: 60, flights: 64, learning_rate: 0.01, every: 20, choice_flights: 1000}}")
    )
    names, source = ["aim", "catch"], swept.parent / "ck" / "aim_and_catch" / FOLDER / "0"
    copy_policies(source, folder / "aim_and_catch", names)
    train_mission(load_mission(swept.parent / "joint.yaml"), checkpoints=folder, **OPTIONS)
    return folder


def test_joint_training_learns_across_the_link(joint: Path) -> None:
    """The second phase has no action and no policy; its reward alone teaches the first one to throw further."""
    record = read_sweeps(joint / "aim_and_catch")
    assert record.chosen == -1
    assert record.rates[0].succeeded / record.rates[0].flights < 0.2
    assert record.joint.succeeded / record.joint.flights > 0.7
    kept = [PhaseFolder(path / "aim").policy_record() for path in (joint / "aim_and_catch",)]
    assert kept[0].flown_by == "agent"


def test_the_gradient_of_whole_flights_is_that_of_differences(swept: Path, joint: Path) -> None:
    """Along its own direction, and along one of the policy's biases."""
    mission = load_mission(swept.parent / "joint.yaml")
    chain = prepare_chain(mission, checkpoints=joint, allow_local_plugins=True)
    nothing = {"progress": lambda done, total: None, "tell": lambda *told: None}
    training = JointTraining(chain, chain.phases, mission.chain.joint, (), joint, **nothing)
    keys = jax.random.split(jax.random.key(5), 32)
    grads, _ = training._block(chain.actors, keys)

    def earned(step: float, way: Any) -> float:
        moved = jax.tree.map(lambda leaf, d: leaf + step * d, chain.actors[0], way)
        return float(training._block([moved, None], keys)[1])

    size = float(jnp.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(grads[0]))))
    along = jax.tree.map(lambda leaf: leaf / size, grads[0])
    one = jax.tree.map(jnp.zeros_like, grads[0])
    bias = one["params"]["body"]["Dense_1"]["bias"]
    one["params"]["body"]["Dense_1"]["bias"] = bias.at[0].set(1.0)
    for way, slope in ((along, size), (one, float(grads[0]["params"]["body"]["Dense_1"]["bias"][0]))):
        difference = (earned(5e-3, way) - earned(-5e-3, way)) / 1e-2
        assert difference == pytest.approx(slope, rel=0.03)


def test_joint_training_needs_links_with_gradients(tmp_path: Path) -> None:
    path = write_aim_and_catch(tmp_path, "{joint: {}}")
    path.write_text(path.read_text().replace("plugin: ./catch.py", "plugin: ./catch.py, params: {loops: true}"))
    with pytest.raises(PluginError, match="over the link"):
        train_mission(load_mission(path), checkpoints=tmp_path / "ck", **OPTIONS)
    assert not (tmp_path / "ck" / "aim_and_catch" / "aim").exists()


def test_the_terminal_value_is_the_weighted_feasibility_and_has_its_gradient(tmp_path: Path) -> None:
    """Against the network itself, and against differences; a flight that does not go on earns nothing."""
    mission = load_mission(write_aim_and_catch(tmp_path, PAID))
    aim, catch = resolve_mission(mission, allow_local_plugins=True)
    x = np.random.default_rng(0).uniform(-1.0, 1.0, (4000, 1)).astype(np.float32)
    network = fit(x, x[:, 0] > 0.2, np.ones(len(x)), FeasibilitySettings(updates=400, width=16), 0)
    paid = with_terminal_value(aim, catch, network, TerminalValue(weight=3.0, replaces=("own",)))
    env = aim.environment
    begun = env.enter(jax.random.key(0), env.start(jax.random.key(0)))

    def earned(at: jax.Array) -> jax.Array:
        ended = begun._replace(x=at, steps=jnp.int32(1))
        terms = paid.reward(begun, jnp.zeros(1), ended, env.outcome(ended))
        assert set(terms) == {TERM}
        return terms[TERM]

    for at in (-0.4, 0.1, 0.2, 0.7):
        expected = 3.0 * likely(network, np.array([[at]], np.float32))[0]
        assert float(earned(jnp.float32(at))) == pytest.approx(expected, rel=1e-5)
        slope = (earned(jnp.float32(at + 1e-2)) - earned(jnp.float32(at - 1e-2))) / 2e-2
        assert float(jax.grad(earned)(jnp.float32(at))) == pytest.approx(float(slope), rel=0.05, abs=1e-3)
    assert float(earned(jnp.float32(4.0))) == 0.0
    assert float(jax.grad(earned)(jnp.float32(4.0))) == 0.0
    assert float(paid.reward(begun, jnp.zeros(1), begun, env.outcome(begun))[TERM]) == 0.0
