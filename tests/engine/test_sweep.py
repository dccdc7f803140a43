"""Sweeps: each training in a process and a folder of its own, failures as rows, resumption, figures and page."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, chromium
from factory import CART, write_mission
from killing import results
from typer.testing import CliRunner

from mission import MissionError, MissionFile, sweep
from mission.cli import app
from mission.machine.devices import CORES_VARIABLE
from mission.missionfile.statistics import median_interval, wilson
from mission.scale.combinations import Combination, combinations, parse_seeds, parse_values
from mission.scale.jobs import Task, TrainingJob
from mission.scale.page import median_curve, sweep_page
from mission.scale.process import __file__ as WORKER
from mission.scale.summary import SweepSummary, TrainingRow, combination_summary

MISSION = """\
name: trial
seed: 3
phases:
  - name: only
    plugin: ./cart.py
    budget: {env_steps: 10240}
    evaluation: {every_env_steps: 2560, flights: 50}
    bank: {flights: 100, minimum: 4}
    gate: {success_low: 0.5, flights: 50, stop: false}
"""
# a parameter for which the process that trains dies, but not the one that checks the mission
DYING = """
import os, signal, sys
def build(params):
    if params.tolerance_m == 7.0 and sys.argv[0].endswith("process.py"):
        os.kill(os.getpid(), signal.SIGKILL)
    return Hold(params)
"""
PLUGIN = CART.replace("environment=Hold", "environment=build").replace("def reward", f"{DYING}\ndef reward")
KEY = "phases.only.params.tolerance_m"
VALUES = "5.0,1.0e-6,7.0,-1.0"  # passes, misses its gate, is killed, is refused by the plugin


def arguments(folder: Path, output: Path, *more: str) -> list[str]:
    command = ["sweep", str(folder / "mission.yaml"), "--seeds", "0-1", "--output", str(output)]
    return [*command, "--allow-local-plugins", *more]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("mission")
    write_mission(path, MISSION, PLUGIN)
    return path


@pytest.fixture(scope="module")
def swept(folder, tmp_path_factory):
    """A sweep of two workers: its exit, its summary and its folder."""
    output = tmp_path_factory.mktemp("sweep") / "out"
    done = CliRunner().invoke(
        app, arguments(folder, output, "--set", f"{KEY}={VALUES}", "--workers", "2", "--json", "-")
    )
    return done, SweepSummary.model_validate_json(done.stdout), output


def test_each_failure_is_a_row_and_stops_no_other_training(swept):
    done, summary, output = swept
    rows = [(row.combination, row.seed, row.status, row.exit_code) for row in summary.trainings]
    assert rows == [
        (1, 0, "passed", 0),
        (1, 1, "passed", 0),
        (2, 0, "gate missed", 1),
        (2, 1, "gate missed", 1),
        (3, 0, "failed", -9),
        (3, 1, "failed", -9),
        (4, 0, "failed", 2),
        (4, 1, "failed", 2),
    ]
    reasons = [row.reason for row in summary.trainings[::2]]
    assert reasons[0] == ""
    assert "success 0 of 50" in reasons[1]
    assert "SIGKILL" in reasons[2]
    assert "tolerance_m" in reasons[3]
    assert isinstance(done.exception, MissionError)
    assert done.exception.exit_code == 1
    assert "4 that did not; the first is combination-3/seed-0" in done.exception.found
    assert not (output / "combination-4").exists()


def test_the_statistics_are_those_of_the_rows(swept):
    _, summary, _ = swept
    first, second, third, _ = summary.combinations
    assert first.label == "tolerance_m=5.0"
    assert [one.passed.count for one in summary.combinations] == [2, 0, 0, 0]
    assert first.passed.low == pytest.approx(2 / (2 + 1.959963984540054**2))
    assert (first.failures, second.failures) == (0, 2)
    returns = [row.returns for row in summary.trainings[:2]]
    assert first.returns.median == pytest.approx(sum(returns) / 2)
    assert (first.returns.min, first.returns.max) == (min(returns), max(returns))
    assert first.best == int(returns[1] > returns[0])  # both succeed always
    assert (second.success.median, second.best) == (0.0, None)
    assert third.success.count == third.seconds.count == 0


def test_the_same_command_repeats_nothing_that_has_a_result(swept, folder):
    _, before, output = swept
    times = {path: path.stat().st_mtime_ns for path in output.glob("combination-[12]/*/training.json")}
    values = parse_values([f"{KEY}={VALUES}"])
    after = sweep(folder / "mission.yaml", seeds=(0, 1), values=values, output=output, allow_local_plugins=True)
    assert after == before
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_a_folder_takes_only_its_own_sweep(swept, folder, tmp_path):
    _, _, output = swept
    file = folder / "mission.yaml"
    with pytest.raises(MissionError, match=r"values\.phases\.only") as other:
        sweep(file, seeds=(0, 1), values={KEY: (5.0, 2.0)}, output=output, allow_local_plugins=True)
    assert other.value.exit_code == 2
    with pytest.raises(MissionError, match="seeds"):
        sweep(file, seeds=(1, 2), values=parse_values([f"{KEY}={VALUES}"]), output=output, allow_local_plugins=True)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(MissionError, match=r"notes\.txt"):
        sweep(file, seeds=(0,), output=tmp_path, allow_local_plugins=True)
    assert not (tmp_path / "sweep.json").exists()


def wait_for_chunks(output: Path, more_than: int) -> int:
    """Wait until the metrics in a folder grow; return their bytes."""
    deadline = time.monotonic() + 120.0
    while (size := sum(len(path.read_bytes()) for path in output.rglob("metrics.jsonl"))) <= more_than:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return size


def test_stopped_twice_it_ends_on_ray_with_the_same_bits(swept, folder, tmp_path):
    """First the parent dies, then a sweep of one worker is interrupted; the reference had two workers."""
    pytest.importorskip("ray", reason="the extra ray is not installed")
    _, _, reference = swept
    output = tmp_path / "out"
    training = output / "combination-1" / "seed-0"
    job = TrainingJob(
        mission_file=str(folder / "mission.yaml"),
        overrides=(f"{KEY}=5.0",),
        seed=0,
        folder=str(training),
        allow_local_plugins=True,
        checkpoint_every_s=0.0,
    )
    one_core = os.environ | {CORES_VARIABLE: "1"}  # as the sweep does
    orphan = subprocess.Popen(
        [sys.executable, WORKER], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=one_core
    )
    assert orphan.stdin is not None
    orphan.stdin.write(Task(jobs=(job,)).model_dump_json() + "\n")
    orphan.stdin.flush()
    size = wait_for_chunks(output, 0)
    orphan.stdin.close()  # as when the parent is killed
    assert orphan.wait(120) == 130
    (output / "sweep.json").write_text((reference / "sweep.json").read_text())
    command = arguments(folder, output, "--set", f"{KEY}={VALUES}", "--workers", "1", "--checkpoint-every", "0")
    parent = subprocess.Popen([sys.executable, "-m", "mission", *command], stderr=subprocess.PIPE, text=True)
    wait_for_chunks(output, size)
    parent.send_signal(signal.SIGINT)
    _, errors = parent.communicate(timeout=120)
    assert parent.returncode == 130, errors
    assert "the same command resumes" in errors
    assert not (training / "trial" / "only" / "done").exists()
    assert not [row for row in output.glob("*/*/training.json") if '"exit_code": 0' in row.read_text()]
    record = json.loads((output / "sweep.json").read_text())
    (output / "sweep.json").write_text(json.dumps(record | {"seeds": [0], "values": {KEY: [5.0]}}))
    options = {"values": {KEY: (5.0,)}, "output": output, "allow_local_plugins": True, "workers": 1}
    done = sweep(folder / "mission.yaml", seeds=(0,), on="ray", **options)
    assert [row.status for row in done.trainings] == ["passed"]
    assert results(training / "trial") == results(reference / "combination-1" / "seed-0" / "trial")


# The figures


def row(seed: int, status: str, success: float | None, seconds: float = 10.0) -> TrainingRow:
    codes = {"passed": 0, "gate missed": 1, "failed": 3}
    return TrainingRow(
        combination=1,
        seed=seed,
        folder=f"combination-1/seed-{seed}",
        status=status,
        exit_code=codes[status],
        reason="",
        seconds=seconds,
        env_steps=100,
        success=success,
        returns=None if success is None else 10.0 * success,
    )


def test_figures_by_hand():
    rows = [
        row(0, "passed", 0.8, 10.0),
        row(1, "passed", 0.9, 30.0),
        row(2, "gate missed", 0.2, 20.0),
        row(3, "failed", None, 99.0),
    ]
    found = combination_summary(Combination(1, "all", {}), rows)
    assert (found.passed.count, found.trainings, found.failures, found.best) == (2, 4, 2, 1)
    assert (found.passed.low, found.passed.high) == wilson(2, 4) == pytest.approx((0.15, 0.85), abs=0.001)
    assert (found.success.count, found.success.median, found.success.min, found.success.max) == (3, 0.8, 0.2, 0.9)
    assert (found.returns.median, found.seconds.median) == (8.0, 20.0)  # a training without a result took no time


@pytest.mark.parametrize("values", [(1.0, 2.0, 4.0), (0.1, 0.2, 0.2, 0.9), (1.0, 5.0, 6.0, 7.0, 20.0, 21.0)])
def test_the_interval_of_a_median_is_that_of_all_resamples(values):
    """There are few enough of them to enumerate."""
    medians = [np.median(resample) for resample in itertools.product(values, repeat=len(values))]
    low, high = median_interval(np.array(values))
    for share, found in ((0.025, low), (0.975, high)):
        near = np.quantile(medians, (share - 0.01, share + 0.01))
        assert near[0] <= found <= near[1]


def test_one_value_has_no_interval():
    assert median_interval(np.array([1.0])) is None


def test_a_median_curve_ends_where_the_last_curve_ends():
    curves = [(np.array([0.0, 10.0]), np.array([0.0, 10.0])), (np.array([0.0, 20.0]), np.array([0.0, 0.0]))]
    steps, values = median_curve(curves)
    assert steps.tolist() == [0.0, 10.0, 20.0]
    assert values.tolist() == [0.0, 5.0, 0.0]


# The command line


def test_values_are_separated_by_commas_outside_brackets_and_quotes():
    options = ["a.b=0.99,0.995", "c=[1, 2],[3]", "d={x: 1, y: 2}", "e='1,2',off", "f=1e-3,true,null"]
    assert parse_values(options) == {
        "a.b": (0.99, 0.995),
        "c": ([1, 2], [3]),
        "d": ({"x": 1, "y": 2},),
        "e": ("1,2", "off"),
        "f": (0.001, True, None),
    }


@pytest.mark.parametrize(
    ("option", "found"),
    [
        ("phases.a.b", "phases.a.b"),
        ("=1", "=1"),
        ("a=", "a="),
        ("a=1,,2", "expected"),
        ("a=[1", "expected"),
        ("a=1], [2", "expected"),
        ("a=1,1", "1 twice"),
        ("seed=1,2", "--seeds"),
        ("name=x,y", "name"),
    ],
)
def test_wrong_values_are_refused(option, found):
    with pytest.raises(MissionError) as error:
        parse_values([option])
    assert error.value.exit_code == 2
    assert found in str(error.value)


def test_a_key_is_given_once():
    with pytest.raises(MissionError, match="a twice"):
        parse_values(["a=1", "a=2"])


def test_seeds():
    assert parse_seeds("0-3") == (0, 1, 2, 3)
    assert parse_seeds("7, 0,3-4") == (0, 3, 4, 7)
    for text in ("", "3-1", "-1", "a", "1,1", "0-4294967296", "0-99999", "1.5"):
        with pytest.raises(MissionError) as error:
            parse_seeds(text)
        assert error.value.exit_code == 2


def test_combinations_are_labelled_by_what_differs():
    found = combinations({"phases.a.sac.gamma": (0.9, 0.99), "phases.b.sac.gamma": (0.9, 0.8), "observers": ([],)})
    assert [one.number for one in found] == [1, 2, 3, 4]
    assert found[1].label == "phases.a.sac.gamma=0.9, phases.b.sac.gamma=0.8"
    assert found[1].overrides()[2] == "observers=[]"
    assert combinations({})[0].label == "all"


def test_more_cores_than_there_are_is_refused(folder, tmp_path):
    with pytest.raises(MissionError, match="--cores"):
        sweep(folder / "mission.yaml", output=tmp_path / "s", cores=1000, allow_local_plugins=True)
    with pytest.raises(MissionError, match="--on"):
        sweep(folder / "mission.yaml", output=tmp_path / "s", on="cloud", allow_local_plugins=True)
    assert not (tmp_path / "s").exists()


def test_an_error_of_every_combination_ends_the_sweep(folder, tmp_path):
    with pytest.raises(MissionError, match="tolerance_m"):
        sweep(folder / "mission.yaml", values={KEY: (-1.0, -2.0)}, output=tmp_path / "s", allow_local_plugins=True)
    with pytest.raises(MissionError, match="allow-local-plugins"):
        sweep(folder / "mission.yaml", output=tmp_path / "s")
    assert not (tmp_path / "s").exists()


# The page


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")
def test_the_page_draws_a_curve_for_each_training(swept):
    _, summary, output = swept
    text = (output / "index.html").read_text()
    assert "default-src 'none'" in text
    with chromium() as page:
        page.look(1280)
        page.open(output / "index.html")
        assert page.run("document.querySelectorAll('.line.k1.thin').length") == 4  # two seeds, success and return
        assert page.run("document.querySelectorAll('.line.k2.thin').length") == 4
        assert page.run("document.querySelectorAll('.line.k3').length") == 0
        colours = [page.run(f"getComputedStyle(document.querySelector('.line.k{n}.bold')).stroke") for n in (1, 2)]
        assert colours[0] != colours[1]
        assert page.run("document.querySelectorAll('#trainings tr').length") == 1 + len(summary.trainings)
        assert not page.complaints


def test_names_of_others_cannot_leave_the_table(swept):
    _, summary, output = swept
    evil, page = "<script>window.evil = 1</script>", output / "evil.html"
    first = summary.combinations[0].model_copy(update={"label": evil})
    rows = [one.model_copy(update={"reason": evil}) for one in summary.trainings]
    stored = json.loads((output / "sweep.json").read_text())["mission"]
    changed = summary.model_copy(update={"combinations": (first,), "trainings": tuple(rows)})
    sweep_page(page, changed, {1: MissionFile.model_validate_json(json.dumps(stored))})
    assert "<script>" not in page.read_text()
    assert page.read_text().count("&lt;script&gt;") > len(rows)
