"""`mission recertify`: equal flights renew the source hashes, different ones are named and nothing is written."""

from __future__ import annotations

import importlib
import json
import logging
import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from factory import CART, MISSION, fake_distribution, run_cli, write_mission
from test_records import snapshot

from mission import fly_mission, load_mission, train_mission
from mission.errors import DifferentFlightsError, InputError, Interrupted, MachineError, StaleError
from mission.missionfile.hooks import PHASE_GROUP
from mission.storage.baseline import BASELINE, PhaseOutcomes, read_baseline, write_baseline
from mission.storage.steps import PhaseFolder
from mission.training.outcomes import compare_outcomes
from mission.training.recertify import (
    EQUIVALENCE,
    EQUIVALENT_FLIGHTS,
    EquivalenceRecord,
    read_policies,
    recertify_mission,
    require_passed,
)

SHORT = MISSION.replace("env_steps: 3000", "env_steps: 1200").replace("env_steps: 2500", "env_steps: 1200")
FLIGHTS = 1200
TIGHT = CART.replace("tolerance_m: float = Field(5.0", "tolerance_m: float = Field(3.0")  # so that some flights fail


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two phases with a baseline, from a local plugin."""
    folder = tmp_path_factory.mktemp("trained")
    write_mission(folder, SHORT, TIGHT)
    train(folder, baseline_flights=FLIGHTS)
    return folder


def train(folder: Path, **options):
    mission = load_mission(folder / "mission.yaml")
    return train_mission(mission, checkpoints=folder / "ck", allow_local_plugins=True, **options)


def recertify(folder: Path, **options):
    mission = load_mission(folder / "mission.yaml")
    return recertify_mission(folder / "ck" / "trial", mission=mission, allow_local_plugins=True, **options)


def hashes(folder: Path) -> list[list[str]]:
    records = read_policies(folder / "ck" / "trial")
    return [[plugin.source_sha256 for plugin in record.plugins] for record in records]


def edit(folder: Path, old: str = "", new: str = "# edited\n") -> None:
    path = folder / "cart.py"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new) if old else text + new)


def test_training_records_a_baseline(trained):
    baseline = read_baseline(trained / "ck" / "trial")
    assert baseline is not None
    record, (first, second) = baseline.record, baseline.outcomes
    assert (record.mission, record.seed, record.flights) == ("trial", 3, FLIGHTS)
    assert record.policies() == {one.phase: one.content_sha256 for one in read_policies(trained / "ck" / "trial")}
    report = fly_mission(
        load_mission(trained / "mission.yaml"), checkpoints=trained / "ck", flights=FLIGHTS, allow_local_plugins=True
    )
    assert first.causes == ("held", "missed", "time_out", "non_finite")
    assert [int(side.success.sum()) for side in (first, second)] == [phase.succeeded for phase in report.phases]
    assert 0 < second.success.sum() < first.success.sum() < FLIGHTS
    assert not second.steps[~first.success].any()  # flights that never entered


def test_a_harmless_edit_renews_the_hashes(copy, caplog):
    before = hashes(copy)
    content = snapshot(copy / "ck" / "trial")
    edit(copy)
    mission = load_mission(copy / "mission.yaml")
    fly_mission(mission, checkpoints=copy / "ck", flights=1, allow_local_plugins=True)
    assert "other plugins" in caplog.text
    seen: list[tuple[int, int]] = []
    result = recertify(copy, progress=lambda done, total: seen.append((done, total)))
    require_passed(result)
    assert (result.verdict, result.outcomes.different, result.outcomes.flights) == ("equal", 0, FLIGHTS)
    assert seen == [(1000, FLIGHTS), (FLIGHTS, FLIGHTS)]
    after = hashes(copy)
    assert [len(one) for one in after] == [1, 2]
    assert len({sha for one in after for sha in one}) == 1
    assert after[0] != before[0]
    assert [change.now.source_sha256 for change in result.plugins] == after[1]
    caplog.clear()
    fly_mission(mission, checkpoints=copy / "ck", flights=1, allow_local_plugins=True)
    assert "other plugins" not in caplog.text
    assert [record.status for record in train(copy)] == ["already trained", "already trained"]
    changed = {name for name, sha in snapshot(copy / "ck" / "trial").items() if content.get(name) != sha}
    assert changed == {
        f"{phase}/policy/{name}" for phase in ("first", "second") for name in ("meta.json", "manifest.json")
    }


def test_other_flights_are_named_and_nothing_is_written(copy):
    edit(copy, "velocity = state.cart.velocity_m_s + 0.1", "velocity = state.cart.velocity_m_s + 0.09")
    before = snapshot(copy / "ck" / "trial")
    result = recertify(copy)
    assert result.verdict == "different"
    assert snapshot(copy / "ck" / "trial") == before
    outcomes = result.outcomes
    with pytest.raises(DifferentFlightsError) as caught:
        require_passed(result)
    assert caught.value.exit_code == 1
    assert caught.value.found.startswith(f"{outcomes.different:,} that do not; first, flight ")
    assert 0 < len(outcomes.differences) <= 5
    first = outcomes.differences[0]
    assert (first.before.cause, first.now.cause) in {("held", "missed"), ("missed", "held")}
    assert str(first) in caught.value.found


def test_the_command(copy):
    folder, options = copy / "ck" / "trial", ("--mission", copy / "mission.yaml", "--allow-local-plugins")
    edit(copy)
    refused = run_cli("recertify", folder)
    assert refused.returncode == 2
    assert "add --mission FILE --allow-local-plugins" in refused.stderr
    done = run_cli("recertify", folder, *options, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verdict"] == "equal"
    edit(copy, "+ 0.1 * velocity", "+ 0.08 * velocity")
    failed = run_cli("recertify", folder, *options, "--json")
    assert failed.returncode == 1
    assert json.loads(failed.stdout)["outcomes"]["different"] > 0
    assert "1,200 flights that end as in the baseline" in failed.stderr


def test_no_baseline_or_one_of_other_policies_is_refused(copy):
    folder = copy / "ck" / "trial"
    shutil.rmtree(folder / "second")
    shutil.copytree(folder / "first" / "policy", folder / "second" / "policy")
    with pytest.raises(MachineError, match="policies of first, first"):
        recertify(copy)
    shutil.rmtree(folder / "second")
    text = (copy / "mission.yaml").read_text()
    (copy / "mission.yaml").write_text(text.replace("seconds: 2.0}\n", "seconds: 2.0}\n    sac: {gamma: 0.8}\n"))
    train(copy)
    with pytest.raises(InputError, match="one of other policies") as caught:
        recertify(copy)
    assert caught.value.exit_code == 2
    (folder / BASELINE).unlink()
    with pytest.raises(InputError, match="mission train FILE --baseline 10000"):
        recertify(copy)
    with pytest.raises(MachineError, match="a folder of policies"):
        recertify_mission(copy / "nowhere")


def test_another_configuration_or_mission_is_refused(copy):
    mission = load_mission(copy / "mission.yaml", ["phases.second.params.seconds=2.5"])
    with pytest.raises(StaleError, match=r"phases\.second\.params\.seconds was 2.0, is 2.5"):
        recertify_mission(copy / "ck" / "trial", mission=mission, allow_local_plugins=True)
    mission = load_mission(copy / "mission.yaml", ["name=other"])
    with pytest.raises(StaleError, match="not of other"):
        recertify_mission(copy / "ck" / "trial", mission=mission, allow_local_plugins=True)


def test_equivalent_needs_a_large_baseline(copy):
    with pytest.raises(InputError, match=r"at least 10,000 flights for --equivalent\n  found: 1,200"):
        recertify(copy, equivalent=True)


def test_equivalent_accepts_rates_that_agree_and_stores_the_verdict(copy):
    train(copy, baseline_flights=EQUIVALENT_FLIGHTS)
    folder = copy / "ck" / "trial"
    before = hashes(copy)
    # the last bit of some positions: a handful of flights at the edge of the tolerance end in the other way
    edit(copy, "0.1 * velocity, velocity)", "0.10000001 * velocity, velocity)")
    result = recertify(copy, equivalent=True)
    require_passed(result)
    assert result.verdict == "equivalent"
    record = EquivalenceRecord.model_validate_json((folder / EQUIVALENCE).read_text())
    assert record.flights == EQUIVALENT_FLIGHTS
    assert record.policies == {one.phase: one.content_sha256 for one in read_policies(folder)}
    assert [change.before.source_sha256 for change in record.plugins] == before[1]
    assert [change.now.source_sha256 for change in record.plugins] == hashes(copy)[1]
    edit(copy, "0.10000001 * velocity, velocity)", "0.098 * velocity, velocity)")
    unchanged = snapshot(folder)
    result = recertify(copy, equivalent=True)
    assert result.verdict == "not equivalent"
    assert snapshot(folder) == unchanged
    with pytest.raises(DifferentFlightsError, match=r"first: [+-]\d+\.\d+ percentage points \("):
        require_passed(result)


def test_an_interrupted_baseline_loses_nothing_else(copy, monkeypatch):
    folder = copy / "ck" / "trial"
    (folder / BASELINE).unlink()
    before = snapshot(folder)
    monkeypatch.setattr(
        "mission.training.baseline.fly_batches",
        lambda flights, until, fly, progress: (os.kill(os.getpid(), signal.SIGINT), progress(1000, flights)),
    )
    with pytest.raises(Interrupted, match="the same command records the baseline"):
        train(copy, baseline_flights=FLIGHTS)
    assert snapshot(folder) == before
    monkeypatch.undo()
    train(copy, baseline_flights=FLIGHTS)
    assert (folder / BASELINE).is_file()


def test_a_baseline_is_recorded_once_all_phases_are_done_and_not_again(copy, monkeypatch, caplog):
    folder = copy / "ck" / "trial"
    at = (folder / BASELINE).stat().st_mtime_ns
    train(copy, baseline_flights=FLIGHTS - 100)
    assert (folder / BASELINE).stat().st_mtime_ns == at
    train(copy, baseline_flights=FLIGHTS + 100)
    baseline = read_baseline(folder)
    assert baseline is not None
    assert baseline.record.flights == FLIGHTS + 100
    (folder / BASELINE).unlink()
    (folder / "second" / "done").unlink()
    train(copy, baseline_flights=10, only=["first"])
    assert not (folder / BASELINE).exists()
    train(copy, baseline_flights=0)
    assert not (folder / BASELINE).exists()
    with pytest.raises(InputError, match="at least 0"):
        train(copy, baseline_flights=-1)


def test_an_installed_plugin_needs_no_mission_file(tmp_path, monkeypatch):
    """Parameters as the file gave them, the mission's own among them, and data that the plugin read for them."""
    plugin = CART.replace(
        "    seconds: float",
        "    @__import__('pydantic').field_validator('tolerance_m', mode='before')\n    def _read(cls, value):\n"
        "        return float(open(value).read()) if isinstance(value, str) else value\n    seconds: float",
    )
    (tmp_path / "tolerance.txt").write_text("4.0")
    fake_distribution(tmp_path / "site", "dock", "1.0", {PHASE_GROUP: {"dock": "dock_phase"}}, {"dock_phase": plugin})
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    text = SHORT.partition("  - name: second")[0].replace("./cart.py", "dock")
    text = text.replace("phases:", f"params: {{tolerance_m: {tmp_path / 'tolerance.txt'}}}\nphases:")
    write_mission(tmp_path, text + "    sac: {gamma: 0.8}\n")
    folder = tmp_path / "ck" / "trial"
    try:
        train(tmp_path, baseline_flights=50)
        before = snapshot(folder)
        assert recertify_mission(folder).verdict == "equal"
        assert snapshot(folder) == before  # the same hash as from the mission file
        info = next((tmp_path / "site").glob("dock-*")).rename(tmp_path / "site" / "dock-1.1.dist-info")
        (info / "METADATA").write_text((info / "METADATA").read_text().replace("1.0", "1.1"))
        importlib.invalidate_caches()
        moved = tmp_path / "another name"
        folder.rename(moved)
        assert recertify_mission(moved).verdict == "equal"
        assert read_policies(moved)[0].plugins[0].version == "1.1"
        (tmp_path / "tolerance.txt").write_text("3.0")
        with pytest.raises(StaleError, match=r"first\.params\.tolerance_m was 4.0, is 3.0"):
            recertify_mission(moved)
    finally:
        sys.modules.pop("dock_phase", None)


def outcomes(success: list[bool], cause: list[int], steps: list[int], causes=("won", "lost", "late")) -> PhaseOutcomes:
    return PhaseOutcomes(causes, np.array(success), np.array(cause), np.array(steps))


def test_outcomes_differ_by_success_cause_or_steps_and_each_flight_counts_once():
    before = (
        outcomes([True, True, True, False], [0, 0, 0, 1], [5, 5, 5, 5]),
        outcomes([True, True, False, False], [0, 0, 1, 0], [7, 7, 7, 0]),
    )
    same = compare_outcomes(["a", "b"], before, before)
    assert (same.different, same.differences, same.chain.difference) == (0, (), 0.0)
    now = (
        outcomes([True, False, True, False], [0, 1, 0, 2], [7, 5, 5, 5]),
        outcomes([True, False, False, False], [0, 0, 2, 0], [7, 0, 7, 0]),
    )
    found = compare_outcomes(["a", "b"], before, now)
    assert [(one.phase, one.flight) for one in found.differences] == [("a", 0), ("a", 1), ("a", 3), ("b", 2)]
    assert found.different == 4
    assert [rate.flights for rate in found.phases] == [4, 2]
    renamed = tuple(
        side._replace(causes=("won", "late", "lost"), cause=np.array([0, 2, 1])[side.cause]) for side in before
    )
    assert compare_outcomes(["a", "b"], before, renamed).different == 0  # causes go by their names


def test_a_baseline_survives_a_round_trip(copy):
    folder = copy / "ck" / "trial"
    baseline = read_baseline(folder)
    assert baseline is not None
    content = (folder / BASELINE).read_bytes()
    write_baseline(folder, baseline)
    assert (folder / BASELINE).read_bytes() == content
    assert not list(folder.glob(".tmp-*"))


@pytest.mark.slow
def test_the_shipped_policies_fly_as_their_baselines(tmp_path, caplog):
    root = Path(__file__).parents[2] / "checkpoints" / "shipped"
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        shutil.copytree(folder, tmp_path / folder.name)
        assert recertify_mission(tmp_path / folder.name).verdict == "equal", folder.name


def test_the_shipped_records_name_the_plugins_of_today(caplog):
    root = Path(__file__).parents[2]
    with caplog.at_level(logging.WARNING):
        fly_mission(
            load_mission(root / "missions" / "vertical.yaml"), checkpoints=root / "checkpoints" / "shipped", flights=1
        )
    assert "other plugins" not in caplog.text
    assert PhaseFolder(root / "checkpoints" / "shipped" / "vertical" / "burn").policy_record() is not None


def ends(steps: list[int], success: list[bool]) -> list[PhaseOutcomes]:
    """Flights of one phase; those that fail miss."""
    flown = np.array(success)
    return [
        PhaseOutcomes(
            causes=("held", "missed"),
            success=flown,
            cause=np.where(flown, 0, 1).astype(np.uint8),
            steps=np.array(steps, np.uint32),
        )
    ]


@pytest.mark.parametrize(
    ("change", "equal", "different", "rounded"),
    [
        ({}, True, 0, 0),
        ({"steps": {0: 31}}, True, 0, 1),
        ({"steps": {0: 31, 7: 29, 9: 31, 11: 31, 13: 29}}, True, 0, 5),
        ({"steps": dict.fromkeys(range(6), 31)}, False, 0, 6),  # more than 0.5 % of 1,000
        ({"steps": {3: 32}}, False, 1, 0),
        ({"success": {5: False}}, False, 1, 0),
        ({"success": {5: False}, "steps": {5: 31, 6: 31}}, False, 1, 1),
    ],
)
def test_rounding_shifts_a_few_flights_by_one_step(change, equal, different, rounded):
    before, now = [30] * 1000, [30] * 1000
    success = [True] * 1000
    for flight, value in change.get("steps", {}).items():
        now[flight] = value
    for flight, value in change.get("success", {}).items():
        success[flight] = value
    found = compare_outcomes(["only"], ends(before, [True] * 1000), ends(now, success))
    assert (found.equal, found.different, found.rounded) == (equal, different, rounded)
