"""Stored files that somebody altered: refused, or read as before; the long run is `benchmarks/altered.py`."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from factory import ROOT

from mission.errors import InputError, MachineError, MissionError
from mission.missionfile.hooks import Event
from mission.observers.metrics import MetricsFile, cut_metrics, read_metrics
from mission.report.benchmark import read_benchmark
from mission.report.curves import learning_page
from mission.report.redraw import draw_report
from mission.storage.baseline import read_baseline
from mission.storage.steps import PhaseFolder
from mission.storage.stored import json_mapping

sys.path.insert(0, str(ROOT / "benchmarks"))
import altered
from alterations import make_hashes_fit


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    return altered.prepare(tmp_path_factory.mktemp("altered"))


@pytest.fixture
def copy(stored, tmp_path):
    shutil.copytree(stored.root, tmp_path / "copy")
    return tmp_path / "copy"


def test_alterations_raise_no_exception_and_change_no_number_silently(stored):
    files, findings = altered.run(stored, count=16, commands=0.0)
    assert files.total() == 16
    assert findings == []


def test_commands_that_read_alterations_end_with_a_documented_exit_code(stored):
    files, findings = altered.run(stored, count=3, seed=5, commands=1.0)
    assert files.total() == 3
    assert findings == []


def test_the_script_notices_a_number_that_differs(stored):
    wrong = stored._replace(before=dict.fromkeys((*altered.CHECKPOINT_READERS, "report reader"), ("another", 0)))
    assert {finding.kind for finding in altered.run(wrong, count=6, commands=0.0)[1]} == {"different"}


def rewrite(path: Path, change, manifest: bool = True) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    if manifest:
        sums = json.loads((path.parent / "manifest.json").read_text())
        sums[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
        (path.parent / "manifest.json").write_text(json.dumps(sums))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("configuration", []),
        ("plugins", []),
        ("given", [{}, {}]),
        ("phase", "second"),
        ("phase", "../first"),
        ("mission", "\x1b[2J"),
        ("seed", -1),
        ("seed", 2**40),
        ("env_steps", -5),
        ("success", 1.5),
        ("causes", {"missed": -1}),
        ("content_sha256", "0"),
        ("bank", {"rows": 10**12, "held_out": 3}),
        ("bank", {"rows": -2, "held_out": 3}),
        ("gate", {"format": 4}),
    ],
)
def test_a_crafted_record_of_a_policy_is_refused(copy, key, value):
    folder = PhaseFolder(copy / "checkpoints" / "trial" / "first")
    rewrite(folder.policy / "meta.json", lambda data: data.update({key: value}))
    with pytest.raises(MachineError, match=key if key != "phase" else "phase") as caught:
        folder.policy_record()
    assert "\x1b" not in str(caught.value)


def test_a_step_under_another_number_is_skipped(copy, caplog):
    folder = PhaseFolder(copy / "checkpoints" / "trial" / "first")
    newest = folder.steps()[0]
    newest.rename(newest.with_name("99999"))
    found = folder.newest_training()
    folder.skip_damaged()
    assert "skipped: it holds vehicle step" in caplog.text
    assert found is None or found[0].name != "99999"


CHANGES = {
    "a count": lambda data: data["report"]["success"].update(count=1),
    "a cause": lambda data: data["phases"][0].update(causes=["held"]),
    "no phases": lambda data: data.update(phases=[]),
    "a flight": lambda data: data["chosen"][0].update(number=10**6),
    "a channel": lambda data: data["phases"][0]["channels"].append("x_m"),
    "a hand-over": lambda data: data["handovers"].append(
        {"phase": "x", "channel": "y", "distance": 0.0, "p_value": 1.0, "differs": False}
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_summary_that_does_not_fit_its_arrays_is_refused_although_its_hash_fits(copy, change):
    path = copy / "report" / "summary.json"
    rewrite(path, CHANGES[change], manifest=False)
    make_hashes_fit(copy, path)
    with pytest.raises(InputError):
        draw_report(copy / "report")


LINE = {"kind": "chunk", "Episode/Return": 1.5}


@pytest.fixture
def metrics(tmp_path):
    """A metrics file of five lines."""
    file = MetricsFile(tmp_path / "metrics.jsonl")
    for number in range(1, 6):
        file.append(
            Event("chunk", "trial", "first", 100 * number, scalars={"Episode/Return": 1.5, "Speed/X": math.nan})
        )
    return file.path


WRONG = {
    "a number": (lambda lines: [lines[0], lines[1].replace("1.5", "1.6"), *lines[2:]], "line 2"),
    "no hash": (lambda lines: [lines[0], json.dumps({"env_steps": 200, **LINE}), *lines[2:]], "line 2 is left out"),
    "a line is missing": (lambda lines: [*lines[:2], *lines[3:]], "lines are missing before line 3"),
    "a copy": (lambda lines: [*lines[:2], *lines[1:]], "line 3 is left out"),
    "exchanged": (lambda lines: [lines[1], lines[0], *lines[2:]], "lines are missing before line 1"),
    "cut within a line": (lambda lines: [*lines[:4], lines[4][:30]], "line 5 is left out"),
    "one key twice": (lambda lines: [*lines[:4], lines[4][:-1] + ',"env_steps":500}'], "line 5 is left out"),
}


@pytest.mark.parametrize("way", WRONG)
def test_lines_of_metrics_that_were_altered_are_named_and_left_out(metrics, caplog, way):
    assert [line.env_steps for line in read_metrics(metrics)] == [100, 200, 300, 400, 500]
    assert not caplog.text
    change, part = WRONG[way]
    metrics.write_text("\n".join(change(metrics.read_text().splitlines())) + "\n")
    lines = read_metrics(metrics)
    assert {line.scalar("Episode/Return") for line in lines} == {1.5}
    assert part in caplog.text
    assert len(caplog.records) == 1
    text = metrics.read_text()
    cut_metrics(metrics, 10**9)
    assert set(metrics.read_text().splitlines()) <= set(text.splitlines())
    assert [line.env_steps for line in read_metrics(metrics)] == [line.env_steps for line in lines]


def test_lines_of_older_files_are_read_and_continued(metrics, caplog):
    old = "".join(json.dumps({"env_steps": 10 * i, **LINE}) + "\n" for i in range(3))
    metrics.write_text(old)
    MetricsFile(metrics).append(Event("chunk", "trial", "first", 40, scalars={"Episode/Return": 2.0}))
    lines = read_metrics(metrics)
    assert [(line.env_steps, line.line) for line in lines] == [(0, None), (10, None), (20, None), (40, 4)]
    cut_metrics(metrics, 20)
    assert metrics.read_text() == old
    assert not caplog.text


def test_curves_that_end_too_early_are_named(copy, caplog):
    path = copy / "checkpoints" / "trial" / "first" / "metrics.jsonl"
    learning_page(path.parents[1])
    assert not caplog.text
    path.unlink()
    MetricsFile(path).append(Event("chunk", "trial", "first", 512, scalars={"Episode/Return": 2.0}))
    learning_page(path.parents[1])
    assert "lines are missing" in caplog.text


def test_an_altered_benchmark_is_left_out(copy, caplog):
    folder = copy / "checkpoints" / "trial" / "first"
    assert read_benchmark(folder) is not None
    path = folder / "benchmark.json"
    path.write_text(path.read_text().replace("6.0", "5.0"))
    assert read_benchmark(folder) is None
    assert "its hash does not fit" in caplog.text


@pytest.mark.parametrize("name", ["first.success", "first.steps", "record"])
def test_an_altered_baseline_is_refused(copy, name):
    path = copy / "checkpoints" / "trial" / "baseline.npz"
    with np.load(path) as archive:
        arrays = dict(archive)
    values = arrays[name]
    arrays[name] = np.array(str(values).replace('"seed":3', '"seed":4')) if name == "record" else values + 1
    np.savez(path, **arrays)
    with pytest.raises(MachineError, match="its hash does not fit"):
        read_baseline(path.parent)
    np.savez(path, **{name: values for name, values in arrays.items() if name != "sha256"})
    assert read_baseline(path.parent) is not None, "files of mission 0.1 have no hash"


@pytest.mark.parametrize("sha256", [None, "", "0" * 64])
def test_an_altered_mean_is_refused_by_the_hash_of_the_summary(copy, sha256):
    def change(data) -> None:
        data["report"]["phases"][0]["end"]["position_m"].update(mean=9.0)
        data["sha256"] = data["sha256"] if sha256 is None else sha256

    rewrite(copy / "report" / "summary.json", change, manifest=False)
    with pytest.raises(InputError):
        draw_report(copy / "report")


@pytest.mark.parametrize("text", ['{"format": 3, "format": 3}', '{"a": NaN}', "[" * 9999, "1" * 9999, "[1]", '{"a": 1'])
def test_json_that_is_no_record_is_an_error(text):
    with pytest.raises(ValueError):  # noqa: PT011 - any message
        json_mapping(text)


def test_whatever_is_raised_is_an_error_of_the_engine(copy):
    (copy / "report" / "flights.npz").write_bytes(b"PK\x03\x04 no archive")
    make_hashes_fit(copy, copy / "report" / "flights.npz")
    with pytest.raises(MissionError):
        draw_report(copy / "report")


def test_metrics_that_do_not_exist_are_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the folder of a phase"):
        read_metrics(tmp_path / "checkpoints" / "phase")
