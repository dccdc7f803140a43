"""Flights from a number on, and reports that were flown in parts and are joined."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factory import write_mission
from typer.testing import CliRunner

from mission import MissionSummary, fly_mission, load_mission, merge_reports
from mission.cli.commands import app
from mission.errors import InputError
from mission.report.redraw import read_report
from mission.storage.stored import seal

OVERRIDES = ["phases.first.params.tolerance_m=0.012", "phases.second.params.tolerance_m=0.0002"]
WHOLE = 2300


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One report of all flights, `whole`, and the same in parts, `a`, `b` and `c`."""
    folder = write_mission(tmp_path_factory.mktemp("merge")).parent
    fly(folder, "whole")
    for name, first, flights in (("a", 0, 1000), ("b", 1000, 1000), ("c", 2000, 300)):
        fly(folder, name, first_flight=first, flights=flights)
    return folder


def fly(folder: Path, name: str, overrides: tuple[str, ...] = (), **options: Any) -> MissionSummary:
    mission = load_mission(folder / "mission.yaml", [*OVERRIDES, *overrides])
    settings = {"flights": WHOLE, "policy": "guide", "allow_local_plugins": True, "report": folder / name}
    return fly_mission(mission, **(settings | options))


def parts(folder: Path, names: str) -> list[Path]:
    return [folder / name for name in names]


def test_joined_reports_are_the_report_of_one_run(folder: Path, tmp_path: Path) -> None:
    summary = merge_reports(parts(folder, "cab"), tmp_path / "out")
    header, arrays = read_report(folder / "whole")
    joined, joined_arrays = read_report(tmp_path / "out")
    assert summary == joined.report == header.report
    assert 0 < summary.success.count < WHOLE
    assert list(joined_arrays) == list(arrays)
    for name, values in arrays.items():
        np.testing.assert_array_equal(joined_arrays[name], values, err_msg=name)
    different = {"provenance", "sha256"}  # the commands
    assert joined.model_dump(exclude=different) == header.model_dump(exclude=different)
    assert joined.provenance.model_dump(exclude={"commands"}) == header.provenance.model_dump(exclude={"commands"})
    commands = joined.provenance.commands
    assert [command.split()[1] for command in commands] == ["fly", "fly", "fly", "merge", "report"]
    assert "--first-flight 2000" in commands[2]
    assert "2,300 flights" in (tmp_path / "out" / "index.html").read_text()


def test_parts_of_a_report_can_be_joined_step_by_step(folder: Path, tmp_path: Path) -> None:
    merge_reports(parts(folder, "bc"), tmp_path / "bc")
    merge_reports([tmp_path / "bc", folder / "a"], tmp_path / "out")
    whole, joined = (read_report(place)[0].flights_sha256 for place in (folder / "whole", tmp_path / "out"))
    assert joined == whole


def test_a_part_names_its_flights_by_their_numbers(folder: Path) -> None:
    header, arrays = read_report(folder / "b")
    assert (header.first_flight, header.report.flights) == (1000, 1000)
    assert {one.role for one in header.chosen} >= {"nominal", "lost"}
    assert all(1000 <= one.number < 2000 for one in header.chosen)
    assert f"flight/{header.chosen[0].number}/first/time_s" in arrays


def test_the_command_joins(folder: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["merge", *map(str, parts(folder, "abc")), "--report", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "trial: 2,300 flights by guide" in done.output
    assert read_report(tmp_path / "out")[0].report.flights == WHOLE


@pytest.mark.parametrize("first", [1, 999, 1500, 2**32 - 1000 + 1, 2**32])
def test_a_first_flight_within_a_batch_is_an_error(folder: Path, first: int) -> None:
    with pytest.raises(InputError, match="--first-flight") as caught:
        fly(folder, "none", first_flight=first, flights=2000)
    assert "multiple of 1,000" in caught.value.expected
    assert not (folder / "none").exists()


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ("ac", "flights 2,000 to 2,299"),
        ("aab", "flights 0 to 999"),
        (["whole", "b"], "flights 1,000 to 1,999"),
        ("a", "1"),
    ],
    ids=["gap", "twice", "overlap", "alone"],
)
def test_gaps_and_overlaps_are_errors(folder: Path, tmp_path: Path, names: Any, found: str) -> None:
    with pytest.raises(InputError) as caught:
        merge_reports(parts(folder, names), tmp_path / "out")
    assert found in caught.value.found
    assert not (tmp_path / "out").exists()


def test_a_report_is_not_joined_into_one_of_its_parts(folder: Path) -> None:
    before = (folder / "a" / "summary.json").read_bytes()
    with pytest.raises(InputError, match="--report"):
        merge_reports(parts(folder, "ab"), folder / "." / "a")
    assert (folder / "a" / "summary.json").read_bytes() == before


@pytest.mark.parametrize(
    ("overrides", "options", "found"),
    [
        ((), {"seed": 4}, "seed was 3, is 4"),
        (("phases.second.params.seconds=1.5",), {}, "seconds was 2.0, is 1.5"),
        (("name=other",), {}, 'mission was "trial", is "other"'),
        ((), {"until": 0.2, "flights": 1001}, "--until 0.2"),
    ],
    ids=["seed", "settings", "mission", "until"],
)
def test_reports_of_other_conditions_are_not_joined(
    folder: Path, tmp_path: Path, overrides: tuple[str, ...], options: dict[str, Any], found: str
) -> None:
    fly(folder, str(tmp_path / "b"), overrides, **{"first_flight": 1000, "flights": 10, **options})
    with pytest.raises(InputError) as caught:
        merge_reports([folder / "a", tmp_path / "b"], tmp_path / "out")
    assert found in caught.value.found
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"engine": "0.0.9"}, '"0.0.9"'),
        ({"jaxlib": "0.1"}, '"0.1"'),
        ({"xla_flags": "--other"}, '"--other"'),
        ({"policies_sha256": ["00", None]}, '"00"'),
    ],
)
def test_reports_of_other_versions_or_policies_are_not_joined(
    folder: Path, tmp_path: Path, change: dict[str, Any], found: str
) -> None:
    rewrite(folder / "b", tmp_path / "b", lambda data: data["provenance"].update(change))
    with pytest.raises(InputError, match=r"provenance|policies") as caught:
        merge_reports([folder / "a", tmp_path / "b"], tmp_path / "out")
    assert found in caught.value.found


def rewrite(folder: Path, copy: Path, edit: Any) -> None:
    """A copy of a report whose header was edited and sealed."""
    shutil.copytree(folder, copy)
    data = json.loads((copy / "summary.json").read_text())
    edit(data)
    data["sha256"] = seal({name: value for name, value in data.items() if name != "sha256"})
    (copy / "summary.json").write_text(json.dumps(data))


def as_format_3(data: dict[str, Any]) -> None:
    data["format"] = 3
    del data["first_flight"]
    for phase in data["phases"]:
        del phase["control_period_s"]
    for phase in data["report"]["phases"]:
        del phase["flown_by"]


def as_format_5(data: dict[str, Any]) -> None:
    data["format"] = 5
    for name in ("sensitivity", "judge", "by_boxes"):
        del data["report"][name]
    for phase in data["report"]["phases"]:
        del phase["outside"]


@pytest.mark.parametrize("earlier", [as_format_3, as_format_5])
def test_a_report_of_an_earlier_format_is_read(folder: Path, tmp_path: Path, earlier: Any) -> None:
    rewrite(folder / "a", tmp_path / "a", earlier)
    header, _ = read_report(tmp_path / "a")
    assert (header.format, header.first_flight) == (7, 0)
    assert [phase.flown_by for phase in header.report.phases] == [phase.flown_by for phase in header.phases]
    if earlier is as_format_3:
        with pytest.raises(InputError, match="earlier version"):
            merge_reports([tmp_path / "a", folder / "b"], tmp_path / "out")
    data = json.loads((tmp_path / "a" / "summary.json").read_text())
    (tmp_path / "a" / "summary.json").write_text(json.dumps(data | {"mission": "altered"}))
    with pytest.raises(InputError, match="hash"):
        read_report(tmp_path / "a")


def test_batches_of_an_unfinished_part_do_not_enter_another_report(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch that begins a report holds its bands; in another report the same flights hold none."""
    monkeypatch.setattr("mission.report.recording.write_report", lambda *arguments: None)  # all batches stay stored
    out = tmp_path / "out"
    fly(folder, str(out), first_flight=1000, flights=1000)
    monkeypatch.undo()
    fly(folder, str(out))
    assert read_report(out)[0].flights_sha256 == read_report(folder / "whole")[0].flights_sha256
