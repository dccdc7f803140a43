"""Results as data: flights, tracks, metrics and summaries as columns, Arrow, Parquet and frames; and what notebooks show."""

from __future__ import annotations

import copy
import html
import json
import pickle
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas
import polars
import pyarrow.parquet
import pytest
from factory import write_mission
from rich.text import Text

from mission import (
    InputError,
    MachineError,
    MissionSummary,
    SweepSummary,
    Table,
    TuneSummary,
    draw_report,
    fly_mission,
    load_mission,
    read_flights,
    read_metrics,
    read_tracks,
    train_mission,
)
from mission.errors import MissionError
from mission.missionfile.statistics import rate
from mission.observers import notebook
from mission.observers.progress import flight_bar, shown_progress
from mission.scale.summary import CombinationSummary, Spread, TrainingRow
from mission.scale.tune import TrialRow
from mission.training.ending import TrainingSummaries

FLIGHTS = 300
COMMON = {"success": "success", "steps": "steps", "duration_s": "duration_s", "returns": "returns"}


@pytest.fixture(scope="module")
def flown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, MissionSummary]:
    """A report folder of a chain of two phases that an untrained and a guiding policy fly, with losses; and its summary."""
    folder = tmp_path_factory.mktemp("tables")
    text = ["phases.first.params.tolerance_m=0.8", "phases.second.policy=guide", "phases.first.budget.env_steps=2000"]
    one = load_mission(write_mission(folder), text)
    training = train_mission(one, checkpoints=folder / "ck", allow_local_plugins=True, baseline_flights=0)
    (folder / "training.html").write_text(training._repr_html_())
    training.to_frame().to_json(folder / "training.json", orient="records")
    summary = fly_mission(
        one, checkpoints=folder / "ck", flights=FLIGHTS, report=folder / "report", allow_local_plugins=True
    )
    return folder, summary


def of_phase(folder: Path, who: str, phase: str) -> dict[str, np.ndarray]:
    """The arrays of one phase, read without the engine."""
    with np.load(folder / "report/flights.npz") as arrays:
        return {name.split("/")[2]: arrays[name] for name in arrays.files if name.startswith(f"{who}/{phase}/")}


def compare_with_arrays(frame: pandas.DataFrame, folder: Path, policies: tuple[str, ...] = ("agent", "guide")) -> None:
    """Each row of a frame of flights is the flight in the report's arrays; there is one for each phase entered."""
    header = json.loads((folder / "report/summary.json").read_text())
    count = 0
    for who in policies:
        alive = np.arange(FLIGHTS)
        for phase in header["phases"]:
            arrays = of_phase(folder, who, phase["name"])
            rows = frame[(frame["policy"] == who) & (frame["phase"] == phase["name"])]
            assert rows["flight"].tolist() == alive.tolist()
            for column, name in COMMON.items():
                np.testing.assert_array_equal(rows[column].to_numpy(), arrays[name][alive])
            causes = [phase["causes"][code] for code in arrays["cause"][alive]]
            assert rows["cause"].astype(str).tolist() == causes
            for when in ("enter", "end"):
                for i, channel in enumerate(phase["channels"]):
                    np.testing.assert_array_equal(rows[f"{when}/{channel}"].to_numpy(), arrays[when][alive, i])
            for i, limit in enumerate(phase["limits"]):
                for side in ("lowest", "highest"):
                    np.testing.assert_array_equal(rows[f"{side}/{limit['channel']}"], arrays[side][alive, i])
            alive = alive[arrays["success"][alive]]
            count += len(rows)
    assert len(frame) == count


def test_flights_are_the_report_s_in_every_form(flown: tuple[Path, MissionSummary], tmp_path: Path) -> None:
    folder, _ = flown
    table = read_flights(folder / "report")
    frame = table.to_frame()
    assert 0 < (frame["phase"] == "second").sum() < 2 * FLIGHTS, "some flights are lost before the second phase"
    compare_with_arrays(frame, folder)
    path = table.to_parquet(tmp_path / "new" / "flights.parquet")
    stored = pyarrow.parquet.read_table(path)  # an independent reader
    compare_with_arrays(stored.to_pandas(), folder)
    assert stored.column("takeover").null_count == table.rows, "nobody guards"
    compare_with_arrays(polars.read_parquet(path).to_pandas(), folder)
    compare_with_arrays(table.to_frame("polars").to_pandas(), folder)
    assert table["phase"].tolist() == frame["phase"].tolist()
    assert table["end/position_m"].dtype == np.float32


def test_a_summary_has_its_flights_in_the_process_that_flew_them(flown: tuple[Path, MissionSummary]) -> None:
    folder, summary = flown
    own = summary.flight_table()
    frame = own.to_frame()
    compare_with_arrays(frame, folder, ("agent",))
    of_report = read_flights(folder / "report").to_frame()
    pandas.testing.assert_frame_equal(frame, of_report[of_report["policy"] == "agent"], check_categorical=False)
    read = MissionSummary.model_validate_json(summary.to_json())
    assert read == summary, "the flights are no part of its value"
    for other in (read, pickle.loads(pickle.dumps(summary)), copy.deepcopy(summary)):
        with pytest.raises(InputError, match="read_flights"):
            other.flight_table()


def test_a_sweep_has_a_row_for_each_training() -> None:
    keys = ("phases.burn.sac.gamma", "phases.burn.sac.hidden", "phases.burn.params.mode")
    settings = ((0.9, [64, 64], "a"), (1, [32], 3))
    nothing = Spread(count=0)
    combinations = tuple(
        CombinationSummary(
            number=number, label="", values=dict(zip(keys, values, strict=True)), trainings=2, passed=rate(1, 2), failures=1,
            success=nothing, returns=nothing, seconds=nothing, best=None,
        )
        for number, values in enumerate(settings, 1)
    )  # fmt: skip
    rows = tuple(
        TrainingRow(
            combination=number, seed=seed, folder=f"combination-{number}/seed-{seed}", status="passed" if seed else "failed",
            exit_code=0 if seed else None, reason="", seconds=2.0, env_steps=100, success=0.5 if seed else None, returns=None,
        )
        for number in (2, 1)
        for seed in (0, 1)
    )  # fmt: skip
    summary = SweepSummary(
        mission="m", output="o", seeds=(0, 1), values={}, cores=1, combinations=combinations, trainings=rows
    )
    frame = summary.to_frame()
    assert list(frame.columns)[:5] == ["combination", *keys, "seed"]
    assert frame["combination"].tolist() == [2, 2, 1, 1]
    assert frame[keys[0]].tolist() == [1.0, 1.0, 0.9, 0.9]
    assert frame[keys[1]].tolist() == ["[32]", "[32]", "[64, 64]", "[64, 64]"], "lists are JSON"
    assert frame[keys[2]].tolist() == ["3", "3", '"a"', '"a"'], "and so are values of different types"
    assert frame["success"].isna().tolist() == [True, False, True, False]
    assert frame["returns"].isna().all()
    own = summary.to_frame("polars")
    for name in TrainingRow.model_fields:
        assert own[name].to_list() == [getattr(row, name) for row in rows]


def test_a_search_has_a_row_for_each_trial() -> None:
    trials = tuple(
        TrialRow(
            number=number, values={"phases.burn.sac.gamma": gamma}, state=state, objective=value, seconds=1.5, env_steps=9, reason="",
        )
        for number, gamma, state, value in ((0, 0.98, "complete", 0.7), (1, None, "failed", None))
    )  # fmt: skip
    summary = TuneSummary(
        mission="m", output="o", phase="burn", objective="success", direction="maximize", seeds=(0,), cores=1, trials=trials,
        best=0, mission_file=None, fresh=None,
    )  # fmt: skip
    frame = summary.to_frame("polars")
    assert frame.columns == ["trial", "phases.burn.sac.gamma", "state", "objective", "seconds", "env_steps", "reason"]
    assert frame["trial"].to_list() == [0, 1]
    assert frame["phases.burn.sac.gamma"].to_list() == [0.98, None]
    assert frame["objective"].to_list() == [0.7, None]
    assert summary.to_frame()["state"].tolist() == ["complete", "failed"]


def test_a_phase_without_a_channel_has_no_value_there() -> None:
    table = Table({"a": [1.0, None], "b": [None, "x"], "c": [True, False], "d": [None, None]})
    assert table.rows == 2
    assert np.ma.is_masked(table["a"][1])
    arrow = table.to_arrow()
    assert arrow.column("a").to_pylist() == [1.0, None]
    assert arrow.column("b").to_pylist() == [None, "x"]
    assert arrow.column("d").to_pylist() == [None, None]
    assert table.to_frame("polars")["a"].to_list() == [1.0, None]
    assert Table({}).rows == 0


def test_tracks_are_the_chosen_flights(flown: tuple[Path, MissionSummary]) -> None:
    folder, _ = flown
    frame = read_tracks(folder / "report").to_frame()
    header = json.loads((folder / "report/summary.json").read_text())
    assert set(zip(frame["flight"], frame["role"], strict=True)) == {
        (one["number"], one["role"]) for one in header["chosen"]
    }
    with np.load(folder / "report/flights.npz") as arrays:
        kept = [name.split("/")[1:3] for name in arrays.files if name.startswith("flight/") and name.endswith("time_s")]
        for number, phase in kept:
            rows = frame[(frame["flight"] == int(number)) & (frame["phase"] == phase)]
            np.testing.assert_array_equal(rows["time_s"], arrays[f"flight/{number}/{phase}/time_s"])
            table = rows[["position_m", "velocity_m_s"]].to_numpy()
            np.testing.assert_array_equal(table, arrays[f"flight/{number}/{phase}/channels"])


def test_summaries_have_a_row_per_phase(flown: tuple[Path, MissionSummary]) -> None:
    folder, summary = flown
    frame = summary.to_frame().set_index("phase")
    for phase in summary.phases:
        row = frame.loc[phase.name]
        assert (row["entered"], row["succeeded"], row["low"]) == (phase.entered, phase.succeeded, phase.low)
        assert row["lost/missed"] == phase.causes["missed"]
        assert row["end/position_m/p50"] == phase.end["position_m"].p50
        assert row["returns/mean"] == phase.returns.mean
    assert summary.to_frame("polars").shape == frame.reset_index().shape
    trained = json.loads((folder / "training.json").read_text())
    assert [row["phase"] for row in trained] == ["first", "second"]
    assert trained[0]["returns"] is not None
    assert trained[1]["status"] == "flown by its guide"


def test_metrics_are_the_lines_of_the_file(flown: tuple[Path, MissionSummary]) -> None:
    folder = flown[0] / "ck/trial/first"
    lines = [json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines()]
    for path in (folder, str(folder / "metrics.jsonl")):
        metrics = read_metrics(path)
        frame = metrics.to_frame()
        assert frame["kind"].tolist() == [line["kind"] for line in lines]
        for name in ("Evaluation/Success", "Episode/Return"):
            found = [None if value is None or np.isnan(value) else value for value in frame[name]]
            assert found == [line.get(name) for line in lines]
    assert "<table>" in metrics._repr_html_()
    with pytest.raises(InputError, match="no such file"):
        read_metrics(folder / "none.jsonl")


def test_what_is_missing_names_the_extra(flown: tuple[Path, MissionSummary], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, summary = flown
    table = read_flights(folder / "report")
    with pytest.raises(InputError, match="pandas or polars"):
        table.to_frame("duckdb")  # ty: ignore[invalid-argument-type]
    for module in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, module, None)
    for call in (table.to_arrow, table.to_frame, summary.to_frame, lambda: table.to_parquet(folder / "x.parquet")):
        with pytest.raises(MachineError, match=re.escape('pip install "mission-engine[data]"')):
            call()
    assert table["success"].any(), "columns need nothing"
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(MachineError, match='pip install "polars"'):
        table.to_frame("polars")


# What a notebook shows


def test_tables_show_numbers_and_escape_names(flown: tuple[Path, MissionSummary]) -> None:
    folder, summary = flown
    shown = summary._repr_html_()
    for phase in summary.phases:
        assert f"<td>{phase.entered:,}</td><td>{phase.succeeded:,}</td>" in shown
    bad = '<script>alert("x")</script>\x1b[2J'
    evil = summary.model_copy(update={"phases": (summary.phases[0].model_copy(update={"name": bad}),)})
    for text in (evil._repr_html_(), Table({bad: [bad]})._repr_html_()):
        assert "<script" not in text
        assert "\x1b" not in text
    assert "trained" in (folder / "training.html").read_text()
    assert "<tbody></tbody>" in TrainingSummaries()._repr_html_()
    rows = Table({"n": np.arange(1000)})._repr_html_()
    assert rows.count("<tr>") == 17
    assert "1,000 rows" in rows


def test_a_page_shows_in_a_frame_of_its_own(flown: tuple[Path, MissionSummary], tmp_path: Path) -> None:
    folder, _ = flown
    page = draw_report(folder / "report", load_mission(folder / "mission.yaml"), allow_local_plugins=True)
    assert Path(page) == page.path == folder / "report/index.html"
    assert str(page) == str(page.path)
    (frame,) = re.findall(r'^<iframe sandbox="allow-scripts" srcdoc="([^"]*)"', page._repr_html_())
    assert html.unescape(frame) == page.path.read_text()
    (alone,) = re.findall(r'srcdoc="([^"]*)"', page.section("Telemetry")._repr_html_())
    assert "main>:not(#telemetry){display:none}" in html.unescape(alone)
    with pytest.raises(InputError, match="Losses by phase and cause"):
        page.section("Replays")
    learning = draw_report(folder / "ck/trial", output=tmp_path / "curves.html")
    assert "<iframe" in learning._repr_html_()
    with pytest.raises(InputError, match="no output"):
        draw_report(folder / "report", output=tmp_path / "page.html")


class Cell:
    """The output of a cell: what was displayed, and every update."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def display(self, shown: Any, display_id: bool) -> Cell:
        assert display_id
        self.update(shown)
        return self

    def update(self, shown: Any) -> None:
        self.shown.append(shown._repr_html_())


def test_bars_show_in_a_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = Cell()
    shell = SimpleNamespace(kernel=object())
    display = SimpleNamespace(display=cell.display)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell, display=display))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    assert notebook.in_notebook()
    with shown_progress(None, 100) as show:
        assert show is not None
        show(40, 100)
        show(100, 100)
    assert "100 of 100" in cell.shown[-1]
    assert '<progress value="100" max="100">' in cell.shown[-1]
    count = len(cell.shown)
    with pytest.raises(MissionError), flight_bar(10):  # the last state stays, whatever happens
        raise InputError("here", expected="a", found="b", remedy="c")
    assert len(cell.shown) > count
    drawn = notebook.NotebookBars(Text("curves <1>"))
    drawn.say("a line")
    assert "curves &lt;1&gt;" in cell.shown[-1]
    assert "a line" in cell.shown[-1]
    assert repr(drawn) == "curves <1>\na line"
    shell.kernel = None
    assert not notebook.in_notebook(), "IPython on a terminal"
    with shown_progress(None, 100) as show:
        assert show is None
