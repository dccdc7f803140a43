"""Stored files that somebody altered: refused, or read as before; the long run is `benchmarks/altered.py`."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path

import pytest
from factory import ROOT

from mission.errors import InputError, MachineError, MissionError
from mission.report.redraw import report_again
from mission.storage.steps import PhaseFolder
from mission.storage.stored import json_mapping

sys.path.insert(0, str(ROOT / "benchmarks"))
import altered


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    return altered.prepare(tmp_path_factory.mktemp("altered"))


@pytest.fixture
def copy(stored, tmp_path):
    shutil.copytree(stored.root, tmp_path / "copy")
    return tmp_path / "copy"


def test_alterations_raise_no_exception_and_change_no_number_silently(stored):
    files, findings = altered.run(stored, count=16)
    assert files.total() == 16
    assert findings == []


def test_the_script_notices_a_number_that_differs(stored):
    wrong = stored._replace(before=dict.fromkeys(stored.before, "something else"))
    assert {finding.kind for finding in altered.run(wrong, count=6)[1]} == {"different"}


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
        ("gate", {"format": 3}),
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
    altered.make_hashes_fit(copy, path)
    with pytest.raises(InputError):
        report_again(copy / "report")


@pytest.mark.parametrize("sha256", [None, "", "0" * 64])
def test_an_altered_mean_is_refused_by_the_hash_of_the_summary(copy, sha256):
    def change(data) -> None:
        data["report"]["phases"][0]["end"]["position_m"].update(mean=9.0)
        data["sha256"] = data["sha256"] if sha256 is None else sha256

    rewrite(copy / "report" / "summary.json", change, manifest=False)
    with pytest.raises(InputError):
        report_again(copy / "report")


@pytest.mark.parametrize("text", ['{"format": 3, "format": 3}', '{"a": NaN}', "[" * 9999, "1" * 9999, "[1]", '{"a": 1'])
def test_json_that_is_no_record_is_an_error(text):
    with pytest.raises(ValueError):  # noqa: PT011 - any message
        json_mapping(text)


def test_whatever_is_raised_is_an_error_of_the_engine(copy):
    (copy / "report" / "flights.npz").write_bytes(b"PK\x03\x04 no archive")
    altered.make_hashes_fit(copy, copy / "report" / "flights.npz")
    with pytest.raises(MissionError):
        report_again(copy / "report")
