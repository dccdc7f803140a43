"""Networks and sweeps that are stored: altered ones are refused, and nothing is removed for what is missing.

The hashes of the files are made to fit, as somebody could who wrote them with another program.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from relay import write_relay, write_unobserved

from mission import fly_mission, load_mission, train_mission
from mission.errors import MachineError
from mission.flight.chain import prepare_chain
from mission.flight.feasibility.fitting import fit_feasibility
from mission.flight.feasibility.network import FeasibilitySettings
from mission.flight.feasibility.store import FEASIBILITY, chain_feasibility, read_feasibility
from mission.flight.splitting import split_flights
from mission.missionfile.models import MissionFile
from mission.report.envelope import mission_envelope
from mission.report.feasibility import handover_feasibility
from mission.storage.steps import PhaseFolder, content_hash
from mission.training.sweeps.store import FOLDER, copy_policies, read_sweeps

QUICK = FeasibilitySettings(flights=400, rounds=1, updates=40, width=8)
Arrays = dict[str, np.ndarray]


def prepared(path: Path) -> Any:
    return prepare_chain(load_mission(path), checkpoints=path.parent, allow_local_plugins=True)


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_relay(tmp_path_factory.mktemp("relay"))
    fit_feasibility(prepared(path), QUICK)
    return path


def with_array(name: str, change: Callable[[np.ndarray], Any]) -> Callable[[Arrays], Arrays]:
    return lambda arrays: {**arrays, name: np.asarray(change(arrays[name]))}


ALTERED = {
    "no bias": lambda arrays: {name: array for name, array in arrays.items() if name != "catch.bias_1"},
    "one more layer": lambda arrays: {**arrays, "catch.kernel_3": np.ones((1, 1), np.float32)},
    "half a kernel": with_array("catch.kernel_1", lambda kernel: kernel[:, :4]),
    "several, stacked": lambda arrays: arrays | {n: a[None] for n, a in arrays.items() if n.startswith("catch.")},
    "text": with_array("catch.offset", lambda _: np.array("0.0")),
    "complex": with_array("catch.std", lambda std: std.astype(np.complex64)),
    "NaN": with_array("catch.mean", lambda mean: np.full_like(mean, np.nan)),
    "empty": with_array("catch.kernel_0", lambda _: np.zeros((0, 8), np.float32)),
}


@pytest.mark.parametrize("change", ALTERED)
def test_networks_that_cannot_be_evaluated_are_refused(relay: Path, tmp_path: Path, change: str) -> None:
    with np.load(relay.parent / "relay" / FEASIBILITY) as stored:
        arrays = ALTERED[change]({name: array for name, array in stored.items() if name != "sha256"})
    np.savez(tmp_path / FEASIBILITY, **arrays, sha256=np.array(content_hash(arrays)))
    with pytest.raises(MachineError, match="the network catch"):
        read_feasibility(tmp_path)


# States without a number


@pytest.fixture(scope="module")
def unobserved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_unobserved(tmp_path_factory.mktemp("unobserved"))
    fit_feasibility(prepared(path), QUICK)
    return path


def test_networks_are_fitted_to_the_flights_that_can_be_observed(unobserved: Path) -> None:
    weights = chain_feasibility(prepared(unobserved)).weights
    assert all(np.isfinite(array).all() for one in weights for array in one.values())


def test_a_state_that_is_nan_does_not_make_an_estimate_nan(unobserved: Path) -> None:
    """Throws from -0.5 to 0.3 are caught; the others are lost in the first phase, or because they are NaN."""
    chain = prepared(unobserved)
    found = split_flights(chain, chain_feasibility(chain), 2000)
    assert found.loss == pytest.approx(0.6, abs=0.06)
    assert 0.0 < found.low < found.loss < found.high < 1.0


def test_an_envelope_and_a_report_leave_out_what_is_no_number(unobserved: Path, tmp_path: Path) -> None:
    found = mission_envelope(prepared(unobserved), 1000)
    assert [one.phase for one in found.handovers] == ["throw", "catch"]
    assert found.handovers[1].flights == found.handovers[1].succeeded == found.succeeded > 300
    assert "never" not in found.to_html()
    mission = load_mission(unobserved)
    fly_mission(
        mission, checkpoints=unobserved.parent, flights=300, allow_local_plugins=True, report=tmp_path / "report"
    )
    assert "feasibility below 0.5" in (tmp_path / "report" / "index.html").read_text()


def test_a_hand_over_without_any_number_is_described_too() -> None:
    nothing, success = np.full((20, 2), np.nan), np.zeros(20, bool)
    for enter, starts in ((nothing, nothing), (np.eye(20, 2), nothing), (nothing, np.eye(20, 2))):
        found = handover_feasibility("a", ("x", "y"), enter, np.full(20, np.nan), success, starts=starts)
        assert (found.flights, found.unlike, found.scores, found.box.sides) == (0, None, None, ())


# Sweeps


def rate(sweep: int, **changes: Any) -> dict[str, Any]:
    return {
        "sweep": sweep, "flights": 10, "succeeded": 5, "by_boxes": 4, "low": 0.1, "high": 0.9,
        "phases": {"throw": [10, 5], "catch": [5, 5]}, "seconds": 1.0,
    } | changes  # fmt: skip


RECORD = {
    "format": 3,
    "mission": "relay",
    "seed": 3,
    "settings": {},
    "rates": [rate(0), rate(1)],
    "joint": None,
    "chosen": 1,
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chosen": 7}, "sweep 7 was chosen"),
        ({"chosen": -1}, "sweep -1 was chosen"),
        ({"rates": [], "chosen": 1}, "sweep 1 was chosen"),
        ({"rates": [rate(0), rate(2)]}, "consecutive"),
        ({"joint": rate(3)}, "consecutive"),
        ({"rates": [rate(0), rate(1, succeeded=11)]}, "more flights succeeded"),
        ({"shipped": {"\x1b[2J": "0" * 64}}, "shipped"),
    ],
)
def test_a_crafted_record_of_sweeps_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / FOLDER / "sweeps.json"
    path.parent.mkdir()
    path.write_text(json.dumps(RECORD))
    assert read_sweeps(tmp_path).chosen == 1
    path.write_text(json.dumps(RECORD | changes))
    with pytest.raises(MachineError, match=message) as caught:
        read_sweeps(tmp_path)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("lost", ["1", "1/catch/done"])
def test_policies_are_not_removed_when_those_of_the_chosen_sweep_are_missing(tmp_path: Path, lost: str) -> None:
    """A sweep's folder was removed, to save disk space, or its copy was not complete."""
    path = write_relay(tmp_path, "{sweeps: 1, flights: 1000}")
    mission: MissionFile = load_mission(path)
    options: dict[str, Any] = {"checkpoints": tmp_path, "allow_local_plugins": True, "baseline_flights": 0}
    train_mission(mission, **options)
    record = tmp_path / "relay" / FOLDER / "sweeps.json"
    record.write_text(record.read_text().replace('"chosen": 0', '"chosen": 1'))
    gone = tmp_path / "relay" / FOLDER / lost
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    before = {str(one): one.stat().st_mtime_ns for one in tmp_path.rglob("*") if one.is_file() and one.name != ".lock"}
    with pytest.raises(MachineError, match="nothing was changed"):
        train_mission(mission, **options)
    with pytest.raises(MachineError, match="nothing was changed"):
        copy_policies(tmp_path / "relay" / FOLDER / "1", tmp_path / "relay", ["throw", "catch"])
    assert {
        str(one): one.stat().st_mtime_ns for one in tmp_path.rglob("*") if one.is_file() and one.name != ".lock"
    } == before
    assert PhaseFolder(tmp_path / "relay" / "throw").done


@pytest.mark.parametrize(
    ("link", "fresh"), [("throw", True), ("catch", True), (FOLDER, True), (FOLDER, False), (f"{FOLDER}/1", False)]
)
def test_links_are_refused_before_anything_is_removed(tmp_path: Path, link: str, fresh: bool) -> None:
    """The folder behind a link, and the sweeps beside it, stay as they are."""
    path = write_relay(tmp_path, "{sweeps: 1, flights: 1000}")
    root, foreign = tmp_path / "relay", tmp_path / "foreign"
    for folder in (foreign, root / FOLDER / "0", root / "throw"):
        folder.mkdir(parents=True)
        (folder / "kept").touch()
    place = root / link
    if place.is_dir():
        shutil.rmtree(place)
    place.symlink_to(foreign)
    before = sorted(str(one) for one in tmp_path.rglob("*") if one.name != ".lock")
    with pytest.raises(MachineError, match="a link to"):
        train_mission(load_mission(path), checkpoints=tmp_path, fresh=fresh, allow_local_plugins=True)
    assert sorted(str(one) for one in tmp_path.rglob("*") if one.name != ".lock") == before
