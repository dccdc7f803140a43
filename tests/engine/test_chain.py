"""What fails a flight at a hand-over: the box of its phase, or only what ends the mission."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from factory import run_cli
from relay import write_relay

from mission import fly_mission, load_mission, resolve_mission
from mission.missionfile.changes import configuration_change

FLIGHTS = 4000


def fly(path: Path, **options: str) -> dict:
    mission = load_mission(path)
    return fly_mission(mission, flights=FLIGHTS, allow_local_plugins=True, **options).model_dump()


def test_the_box_fails_a_flight_unless_the_mission_judges(tmp_path: Path) -> None:
    """P(|x| <= 0.5) is 0.5; P(-0.99 <= x, |x + noise| <= 0.8) is 0.8 but for the tails, which cancel."""
    path = write_relay(tmp_path)
    boxed, judged = fly(path), fly(path, judge="mission")
    throw = boxed["phases"][0]
    assert abs(throw["rate"] - 0.5) < 0.03
    assert throw["outside"] == {}
    assert boxed["by_boxes"] is None
    throw = judged["phases"][0]
    assert abs(judged["success"]["rate"] - 0.8) < 0.03
    assert abs(throw["outside"]["wide"] / FLIGHTS - 0.495) < 0.03
    assert throw["causes"] == {
        "broken": boxed["phases"][0]["causes"]["broken"],
        "wide": 0,
        "time_out": 0,
        "non_finite": 0,
    }
    # the same flights: those that pass both boxes are the successes of the boxed mission
    assert judged["by_boxes"]["count"] == boxed["success"]["count"]


def test_the_last_box_and_what_breaks_a_vehicle_always_fail_it(tmp_path: Path) -> None:
    judged = fly(write_relay(tmp_path, "{judge: mission}"))
    assert judged["judge"] == "mission"
    assert judged["phases"][0]["causes"]["broken"] > 0
    assert judged["phases"][1]["causes"]["dropped"] > 0
    assert judged["phases"][1]["outside"] == {}


def test_the_option_overrules_the_file_and_the_report_says_so(tmp_path: Path) -> None:
    path, out = write_relay(tmp_path), tmp_path / "report"
    words = ["fly", str(path), "--allow-local-plugins", "--flights", "300", "--judge", "mission", "--report", str(out)]
    done = run_cli(*words)
    assert done.returncode == 0, done.stderr
    text = done.stdout
    assert "throw: went on outside of its box: wide" in text
    assert "by the boxes of all phases" in text
    page = (out / "index.html").read_text()
    assert "went on outside of its box: wide" in page
    assert "--judge mission" in json.loads((out / "summary.json").read_text())["provenance"]["commands"][0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("chain: {judge: crew}", "judge"),
        ("chain: {judge: mission, sweep: 1}", "sweep"),
    ],
)
def test_a_chain_that_cannot_be_is_refused_where_it_stands(tmp_path: Path, text: str, message: str) -> None:
    path = write_relay(tmp_path)
    path.write_text(path.read_text() + text + "\n")
    done = run_cli("check", str(path), "--allow-local-plugins")
    assert done.returncode == 2
    assert message in done.stderr
    assert "relay.yaml:7" in done.stderr


def test_a_mission_of_one_phase_has_no_chain(tmp_path: Path) -> None:
    path = write_relay(tmp_path)
    lines = [line for line in path.read_text().splitlines() if "throw" not in line]
    path.write_text("\n".join([*lines, "chain: {judge: mission}"]) + "\n")
    done = run_cli("check", str(path), "--allow-local-plugins")
    assert done.returncode == 2
    assert "at least two phases" in done.stderr
    path.write_text("\n".join(lines) + "\n")
    done = run_cli("fly", str(path), "--allow-local-plugins", "--judge", "mission")
    assert done.returncode == 2
    assert "at least two phases" in done.stderr


def test_a_chain_without_box_causes_cannot_be_judged(tmp_path: Path) -> None:
    path = write_relay(tmp_path, "{judge: mission}")
    plugin = tmp_path / "throw.py"
    plugin.write_text(plugin.read_text().replace('box_causes = ("wide",)', ""))
    done = run_cli("check", str(path), "--allow-local-plugins")
    assert done.returncode == 2
    assert "box_causes" in done.stderr


def test_box_causes_must_be_failures(tmp_path: Path) -> None:
    path = write_relay(tmp_path)
    plugin = tmp_path / "throw.py"
    for wrong in ('("thrown",)', '("other",)', '["wide"]'):
        plugin.write_text(plugin.read_text().replace('box_causes = ("wide",)', f"box_causes = {wrong}"))
        done = run_cli("check", str(path), "--allow-local-plugins")
        assert done.returncode == 2
        assert "box_causes to be a tuple of names among the failures" in done.stderr
        plugin.write_text(plugin.read_text().replace(f"box_causes = {wrong}", 'box_causes = ("wide",)'))


def test_flights_do_not_depend_on_who_judges(tmp_path: Path) -> None:
    """The end of a first phase is the same; only whether the flight goes on differs."""
    path = write_relay(tmp_path)
    ends = [fly(path, judge=judge)["phases"][0]["causes"]["broken"] for judge in ("box", "mission")]
    assert ends[0] == ends[1]
    assert np.isclose(ends[0] / FLIGHTS, 0.005, atol=0.005)


def test_who_judges_is_part_of_the_trained_configuration(tmp_path: Path) -> None:
    """Gates and banks count other flights, so that policies of the one are stale under the other."""
    missions = [load_mission(write_relay(tmp_path, text)) for text in ("", "{judge: mission}")]
    boxed, judged = (resolve_mission(mission, allow_local_plugins=True) for mission in missions)
    stored = [phase.configuration() for phase in boxed]
    assert configuration_change(stored, boxed) == ""
    change = configuration_change(stored, judged)
    assert "phases.throw: causes that do not fail it" in change
    assert "wide" in change
