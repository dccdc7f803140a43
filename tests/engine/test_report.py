"""Reports: records, bands, chosen flights, resuming, errors, formats, escaping, comparison, learning curves."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from factory import CART, run_cli, write_mission
from mission_rocket.report.propellant import propellant
from synthetic import make_records

from mission import FlightRecords, MissionError, Section, fly_mission, load_mission
from mission.errors import FormatError, MachineError
from mission.flight.batches import flight_keys, fly_batch, nominal_starts
from mission.flight.chain import Chain, prepare_chain
from mission.missionfile.statistics import paired_difference, two_sample
from mission.observers.metrics import read_metrics
from mission.report import benchmark, header
from mission.report.benchmark import Benchmark, read_benchmark, write_benchmark
from mission.report.compare import compare
from mission.report.curves import chart_groups, is_training, learning_page
from mission.report.folder import UnfinishedReport, read_header
from mission.report.handovers import compare_handovers
from mission.report.header import ReportHeader, UnfinishedKey
from mission.report.page import inline_script, render_page
from mission.report.page.data import page_data
from mission.report.redraw import draw_report, read_records
from mission.report.tracks import SPAN, TelemetryRecorder
from mission.storage.lock import LOCK, folder_lock

OVERRIDES = ["phases.first.params.tolerance_m=0.012", "phases.second.params.tolerance_m=0.0002"]
FLIGHTS = 1300
EVIL = "<script>window.evil = 1</script>"


def load(folder: Path, overrides: list[str] | None = None):
    return load_mission(folder / "mission.yaml", OVERRIDES if overrides is None else overrides)


def fly(folder: Path, report: Path | None, **options):
    settings = {"flights": FLIGHTS, "policy": "guide", "allow_local_plugins": True, "checkpoints": folder / "none"}
    return fly_mission(load(folder), report=report, **(settings | options))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_mission(tmp_path_factory.mktemp("report")).parent


@pytest.fixture(scope="module")
def flown(folder):
    report = fly(folder, folder / "out")
    return report, *read_records(folder / "out")


def test_the_records_are_the_report(flown):
    report, stored, records = flown
    assert stored.report == report
    assert json.loads(stored.report.to_json()) == json.loads(report.to_json())
    assert records.flights.count == FLIGHTS
    assert int(records.flights.success.sum()) == report.success.count
    for phase, record in zip(records.flights.phases, report.phases, strict=True):
        assert int(phase.entered.sum()) == record.entered
        assert phase.losses() == record.causes
        assert phase.limits[0].maximum == 1.2
    assert 0 < report.success.count < FLIGHTS


def test_every_array_is_documented(flown, folder):
    page = (Path(__file__).parents[2] / "docs" / "reports.md").read_text()
    documented = {
        re.sub(r"WHO|PHASE|NUMBER", "*", name) for row in re.findall(r"^\| (`\w+/.*?) \|", page, re.M) for name in re.findall(r"`([^`]+)`", row)
    }  # fmt: skip
    with np.load(folder / "out" / "flights.npz") as stored:
        names = {
            re.sub(r"^(agent|guide)/\w+/", "*/*/", re.sub(r"^starts/\w+", "starts/*", re.sub(r"^flight/\d+/\w+", "flight/*/*", name)))
            for name in stored.files
        }  # fmt: skip
    assert names == documented


def test_a_chosen_flight_begins_and_ends_as_the_flights_say(flown):
    _, _, records = flown
    assert [flight.role for flight in records.chosen[:3]] == ["nominal", "median", "worst"]
    assert {"lost"} == {flight.role for flight in records.chosen[3:]}
    assert {f.outcome for f in records.chosen[3:]} == {"lost in first: missed", "lost in second: missed"}
    for flight in records.chosen:
        assert flight.outcome == records.flights.outcome(flight.number)
        for track, phase in zip(flight.tracks, records.flights.phases, strict=False):
            for channel, values in track.channels.items():
                at = phase.channels.index(channel)
                assert values[0] == pytest.approx(phase.enter[flight.number, at], abs=1e-6)
                assert values[-1] == pytest.approx(phase.end[flight.number, at], abs=1e-6)
            assert len(track.time_s) == (31 if phase.name == "first" else 21)
        assert flight.tracks[0].time_s[[0, -1]] == pytest.approx([0.0, 3.0])


def test_a_recorded_flight_is_the_unrecorded_one():
    """Half of the vehicles, in two whole blocks, never fly; the others end at different steps, in different blocks."""
    chain = prepare_chain(load_mission(Path(__file__).parents[2] / "missions" / "vertical.yaml"), policy="guide")
    phase, alive = chain.phases[1], np.arange(1000) >= 500
    keys = flight_keys(jax.random.key(5), np.arange(1000))
    starts = nominal_starts(phase, keys)
    recorded = TelemetryRecorder(chain).fly_one(1, starts, keys, alive)
    plain = fly_batch(chain.flights[1], None, starts, keys, alive)
    for name in ("success", "cause", "steps"):
        np.testing.assert_array_equal(getattr(recorded.flight, name), getattr(plain, name))
    steps = plain.steps
    assert steps[alive].min() < steps.max()
    assert steps.max() > SPAN
    assert not steps[~alive].any()
    table, rows = recorded.at(np.arange(steps.max() + 1), np.arange(1000))
    assert table.shape == (steps.max() + 1, 1000, len(phase.channels))
    np.testing.assert_array_equal(rows[-1], steps)
    for at, name in enumerate(phase.channels):
        channel = table[:, :, at]
        np.testing.assert_allclose(channel[-1], plain.telemetry[name], rtol=1e-4, atol=1e-3)
        np.testing.assert_array_equal(channel[steps, np.arange(1000)], channel[-1])
        assert (channel[:, ~alive] == channel[0, ~alive]).all()
    height = table[:, alive, phase.channels.index("height_m")]
    assert (np.diff(height, axis=0)[: steps[alive].min() - 1] < 0.0).all(), "they fall, row after row"
    few = np.array([503, 999, 7])
    np.testing.assert_array_equal(recorded.at(np.array([40, 70, 2]), few)[0], table[[40, 70, 2]][:, few])


def test_bands_are_quantiles_of_the_first_thousand(flown):
    _, _, records = flown
    phase, bands = records.flights.phases[0], records.bands
    low, middle, high = bands.of("position_m")
    start = np.quantile(phase.enter[:1000, 0], (0.05, 0.5, 0.95))
    assert [low[0], middle[0], high[0]] == pytest.approx(start, abs=1e-5)
    assert bands.count[0] == bands.flights == 1000
    before, after = bands.count[bands.time_s < 2.9], bands.count[(bands.time_s > 3.1) & (bands.time_s < 4.9)]
    assert set(before) == {1000}
    assert set(after) == {int(phase.success[:1000].sum())}
    assert bands.of("nothing_m") is None


def test_handovers_are_compared_with_the_phase_s_own_starts(flown):
    _, stored, records = flown
    assert "own starts of second" in records.starts["second"].source
    shifts = {shift.channel: shift for shift in stored.handovers}
    assert shifts["position_m"].differs, "flights enter at rest near 0, the own start spreads over 2 m"
    assert shifts["position_m"].distance > 0.4
    assert compare_handovers(records.flights, records.starts) == stored.handovers


def test_an_interrupted_report_is_resumed(folder, tmp_path, monkeypatch):
    class Stop(Exception):
        pass

    def stop(done: int, total: int) -> None:
        raise Stop

    with pytest.raises(Stop):
        fly(folder, tmp_path / "out", progress=stop)
    assert not (tmp_path / "out" / "index.html").exists()
    flown: list[int] = []
    original = Chain.fly
    monkeypatch.setattr(
        Chain, "fly", lambda self, numbers, *rest: flown.append(len(numbers)) or original(self, numbers, *rest)
    )
    report = fly(folder, tmp_path / "out")
    assert flown[0] == 300, "the first batch was stored"
    first, second = (np.load(path / "flights.npz") for path in (folder / "out", tmp_path / "out"))
    assert all(np.array_equal(first[name], second[name], equal_nan=True) for name in first.files)
    assert report.to_json() == fly(folder, None).to_json()
    assert not (tmp_path / "out" / ".flights").exists()


def test_a_batch_of_another_name_or_report_or_content_is_flown_again(tmp_path, caplog):
    """Name, key of the report and hash are inside each batch, so that a copied file is recognised."""

    def key(seed: int) -> UnfinishedKey:
        named = {"mission": "trial", "digest": "d", "policy": "agent", "engine": "1"}
        return UnfinishedKey(seed=seed, actors=(None,), plugins=("p",), **named)

    ours, other = UnfinishedReport(tmp_path / "ours", key(1)), UnfinishedReport(tmp_path / "other", key(2))
    for report in (ours, other):
        for name, first in (("agent-0-3", 0.0), ("agent-3-3", 3.0)):
            report.put(name, {"agent/a/end": first + np.arange(3.0), "agent/a/success": np.ones(3, bool)})
    stored = ours.get("agent-3-3")
    assert stored is not None
    np.testing.assert_array_equal(stored["agent/a/end"], [3.0, 4.0, 5.0])
    assert set(stored) == {"agent/a/end", "agent/a/success"}
    assert ours.get("agent-6-3") is None
    assert not caplog.records
    target = ours.folder / "agent-3-3.npz"
    label = np.load(target)["label"]
    for source in (ours.folder / "agent-0-3.npz", other.folder / "agent-3-3.npz"):
        shutil.copy(source, target)
        assert ours.get("agent-3-3") is None
    np.savez(target, **(stored | {"agent/a/end": np.zeros(3), "label": label}))
    assert ours.get("agent-3-3") is None
    np.savez(target, **stored)
    assert ours.get("agent-3-3") is None
    target.write_bytes(target.read_bytes()[:100])
    assert ours.get("agent-3-3") is None
    assert sum("this batch is flown again" in record.message for record in caplog.records) == 5


def test_until_stops_early_with_the_same_flights(folder):
    """What the interval counts is the only difference."""
    plain = {"until": None, "looks": None}
    whole = fly(folder, None, flights=3000)
    never = fly(folder, None, flights=3000, until=1e-6)
    assert (never.until, never.looks) == (1e-6, 3)
    assert never.model_copy(update=plain).to_json() == whole.to_json()
    early = fly(folder, None, flights=3000, until=0.2)
    assert (early.flights, early.looks) == (1000, 1)
    assert "too narrow" in early.interval_note()
    assert early.model_copy(update=plain).to_json() == fly(folder, None, flights=1000).to_json()


def spoil(out: Path, how: str) -> None:
    summary = json.loads((out / "summary.json").read_text())
    if how == "truncated arrays":
        data = (out / "flights.npz").read_bytes()
        (out / "flights.npz").write_bytes(data[: len(data) // 2])
    elif how == "no arrays":
        (out / "flights.npz").unlink()
    elif how == "truncated summary":
        (out / "summary.json").write_text((out / "summary.json").read_text()[:100])
    elif how == "a list":
        (out / "summary.json").write_text("[]")
    elif how == "something else":
        (out / "summary.json").write_text(json.dumps(summary | {"kind": "shopping list"}))
    elif how == "summary without a phase's fields":
        (out / "summary.json").write_text(json.dumps(summary | {"phases": [*summary["phases"], {}]}))
    elif how == "summary that does not fit":
        other = summary["phases"][0] | {"name": "other"}
        (out / "summary.json").write_text(json.dumps(summary | {"phases": [other, *summary["phases"][1:]]}))


def contents(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("how", "part"),
    [
        ("truncated arrays", "truncated or altered"),
        ("no arrays", "no such file"),
        ("truncated summary", "damaged JSON"),
        ("a list", "JSON without a mapping"),
        ("something else", "found: something else"),
        ("summary without a phase's fields", "phases.2.name: Field required"),
        ("summary that does not fit", "a summary that fits"),
    ],
)
def test_damaged_records_are_an_error_and_stay(flown, folder, tmp_path, how, part):
    out = tmp_path / "out"
    out.mkdir()
    for path in (folder / "out").iterdir():
        (out / path.name).write_bytes(path.read_bytes())
    spoil(out, how)
    before = contents(out)
    done = run_cli("report", out)
    assert done.returncode == 2, done.stderr
    assert part in done.stderr
    assert all(word in done.stderr for word in ("expected:", "found:", "to do:"))
    assert contents(out) == before


@pytest.mark.parametrize("kind", ["files", "another mission", "a file"])
def test_only_a_report_of_the_mission_is_replaced(flown, folder, tmp_path, kind):
    out = tmp_path / "out"
    if kind == "a file":
        out.write_text("mine")
    else:
        out.mkdir()
        (out / "notes.txt").write_text("mine")
    if kind == "another mission":
        other = read_header(folder / "out").model_copy(update={"mission": "other"})
        (out / "summary.json").write_text(other.model_dump_json())
    before = contents(out)
    with pytest.raises(MissionError) as caught:
        fly(folder, out, flights=10)
    assert caught.value.exit_code == 2
    assert contents(out) == before


# Formats


@pytest.mark.parametrize("found", [99, 0, "two", None])
def test_a_report_of_another_format_is_an_error_of_its_own(flown, folder, tmp_path, found):
    out = tmp_path / "out"
    out.mkdir()
    for path in (folder / "out").iterdir():
        (out / path.name).write_bytes(path.read_bytes())
    summary = json.loads((out / "summary.json").read_text())
    summary["provenance"]["engine"] = "7.8.9"
    (out / "summary.json").write_text(json.dumps(summary | {"format": found}))
    before = contents(out)
    done = run_cli("report", out)
    assert done.returncode == 3, done.stderr
    formats = f"format {header.OLDEST} to {header.FORMAT},"
    for part in (formats, f"found: format {found!r}, written by mission 7.8.9", "to do: "):
        assert part in done.stderr
    assert "nothing was changed" in done.stderr
    with pytest.raises(FormatError):
        fly(folder, out, flights=10)
    assert contents(out) == before


def test_batches_of_another_format_are_not_overwritten(folder, tmp_path):
    store = tmp_path / "out" / ".flights"
    store.mkdir(parents=True)
    (store / "key.json").write_text(json.dumps({"format": 6, "engine": "7.8.9", "pilot": "somebody"}))
    (store / "agent-0-1000.npz").write_text("flights")
    before = contents(store)
    with pytest.raises(FormatError, match=r"written by mission 7\.8\.9"):
        fly(folder, tmp_path / "out", flights=10)
    assert contents(store) == before


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 2}'])
def test_batches_with_a_damaged_key_are_flown_again(folder, tmp_path, caplog, text):
    store = tmp_path / "out" / ".flights"
    store.mkdir(parents=True)
    (store / "key.json").write_text(text)
    assert fly(folder, tmp_path / "out", flights=10).flights == 10
    assert "its batches are flown again" in caplog.text


def test_what_is_stored_has_a_fixed_form(flown, folder):
    """A change of these fields needs a new format number and a step in `upgrade`."""
    assert set(ReportHeader.model_fields) == {
        "kind", "format", "mission", "report", "guide", "first_flight", "phases", "provenance", "starts", "bands", "chosen",
        "handovers", "flights_bytes", "flights_sha256", "sha256",
    }  # fmt: skip
    assert set(UnfinishedKey.model_fields) == {
        "format", "mission", "digest", "seed", "policy", "actors", "plugins", "engine", "feasibility", "starts",
    }  # fmt: skip
    stored = json.loads((folder / "out" / "summary.json").read_text())
    assert set(stored) == set(ReportHeader.model_fields)
    assert (stored["kind"], stored["format"]) == ("mission report", 7)
    assert [phase["params"] for phase in stored["phases"]] == [
        {"tolerance_m": 0.012, "seconds": 3.0},
        {"tolerance_m": 0.0002, "seconds": 2.0},
    ]


def test_a_report_of_version_0_1_is_drawn_again(tmp_path):
    """`data/report_format_2` was written by mission 0.1: missions/vertical.yaml, 50 flights."""
    stored = Path(__file__).parent / "data" / "report_format_2"
    out = tmp_path / "out"
    out.mkdir()
    for name in ("summary.json", "flights.npz"):
        (out / name).write_bytes((stored / name).read_bytes())
    before = contents(out)
    done = run_cli("report", out)
    assert done.returncode == 0, done.stderr
    page = (out / "index.html").read_text()
    for part in ("vertical: 50 flights", "flown by the guides, same seeds", "stored end states of coast", "Touchdown"):
        assert part in page
    assert before.items() <= contents(out).items(), "the records stay as they are"
    read, records = read_records(out)
    assert read.format == header.FORMAT == 7
    assert read.report.returns.mean is None, "format 2 did not store it"
    assert np.isfinite(records.flights.returns).all()
    assert [phase.flown_by for phase in records.headers] == ["agent", "agent"]
    assert [[phase.flown_by for phase in side.phases] for side in (read.report, read.guide)] == [
        ["agent", "agent"],
        ["guide", "guide"],
    ]
    assert records.guide is not None
    assert {shift.phase for shift in read.handovers} == {"burn"}


def test_a_report_is_replaced_and_drawn_again(flown, folder, tmp_path):
    out = tmp_path / "out"
    fly(folder, out, flights=20)
    page = (out / "index.html").read_text()
    fly(folder, out, flights=30)
    assert read_header(out).report.flights == 30
    (out / "index.html").write_text("gone")
    draw_report(out, load(folder), allow_local_plugins=True)
    assert "30 flights" in (out / "index.html").read_text()
    assert "20 flights" in page
    other = load_mission(write_mission(tmp_path, (folder / "mission.yaml").read_text().replace("trial", "other")))
    with pytest.raises(MissionError, match="records of trial"):
        draw_report(out, other, allow_local_plugins=True)


def test_text_is_escaped(folder, tmp_path):
    plugin = CART.replace('causes = ("held", "missed")', f'causes = ("held", "missed {EVIL}")')
    path = write_mission(tmp_path, plugin=plugin)
    fly_mission(
        load_mission(path, OVERRIDES), flights=200, policy="guide", allow_local_plugins=True, report=tmp_path / "out"
    )
    page = (tmp_path / "out" / "index.html").read_text()
    assert EVIL not in page
    assert "missed &lt;script&gt;" in page
    assert "missed \\u003cscript>" in page, "the cause is in the data of a lost flight"
    assert inline_script("a</script>b") == "a<\\/script>b"


def test_flights_that_become_nan_are_drawn(tmp_path):
    lost = "velocity = jnp.where(state.cart.position_m > 0.9, jnp.nan, state.cart.velocity_m_s + 0.1 * action[0])"
    plugin = CART.replace("velocity = state.cart.velocity_m_s + 0.1 * action[0]", lost)
    path = write_mission(tmp_path, plugin=plugin)
    fly_mission(load_mission(path), flights=200, policy="guide", allow_local_plugins=True, report=tmp_path / "out")
    _, records = read_records(tmp_path / "out")
    assert records.flights.phases[0].losses()["non_finite"] > 0
    assert "lost in first: non_finite" in {flight.outcome for flight in records.chosen}
    drawings = re.findall(r"<svg.*?</svg>", (tmp_path / "out" / "index.html").read_text())
    assert len(drawings) >= 4
    assert not [drawing for drawing in drawings if re.search(r"\b(nan|inf)\b", drawing)]


def test_a_page_requests_nothing(flown, folder):
    page = (folder / "out" / "index.html").read_text()
    assert not re.findall(r"""(?:src|href)=["']?(?!["'#]|data:)""", page)
    assert "default-src 'none'" in page


def test_plugin_sections_are_drawn_once_and_failures_are_left_out(flown, caplog):
    _, _, records = flown
    calls = []

    def good(records: FlightRecords):
        calls.append(records)
        return (Section("Mine", "<b>here</b>", scripts=("one();",), notices=("LICENCE <x>",)),)

    def bad(records: FlightRecords):
        raise RuntimeError("broken drawing")

    page = render_page(records, (), {"a": good, "b": good, "c": bad, "d": None, "e": lambda records: ("no section",)})
    assert len(calls) == 1
    assert page.count("<b>here</b>") == page.count("one();") == 1
    assert "LICENCE &lt;x&gt;" in page
    assert "broken drawing" in caplog.text
    assert "tuple of Section" in caplog.text


def test_the_page_stays_small():
    records = make_records(60)
    records = dataclasses.replace(records, chosen=records.chosen * 3)
    assert len(page_data(records)) < 4.2e6
    whole = sum(t.time_s.size * (1 + len(t.channels)) for f in records.chosen for t in f.tracks)
    assert whole > 750_000, "this flight has to be thinned"


def test_a_synthetic_handover_that_was_moved_differs():
    records = make_records(300)
    far = {shift.phase for shift in compare_handovers(records.flights, records.starts) if shift.differs}
    assert far == {"landing_burn"}


# Statistics


def test_two_sample_distance():
    first = np.array([1.0, 2.0, 3.0, 4.0, np.nan])
    assert two_sample(first, np.array([3.5, 4.5]))[0] == 0.75
    assert two_sample(first, first)[0] == 0.0
    assert two_sample(first, np.array([])) == (0.0, 1.0)


def test_paired_difference():
    first = np.array([True] * 80 + [True] * 4 + [False] * 16)
    second = np.array([True] * 80 + [False] * 4 + [True] * 11 + [False] * 5)
    pair = paired_difference(first, second)
    assert (pair.both, pair.only_first, pair.only_second, pair.neither) == (80, 4, 11, 5)
    assert pair.difference == pytest.approx(0.07)
    assert pair.p_value == pytest.approx(0.11847, abs=1e-4)  # 2 P(X <= 4), X of 15 fair coins
    assert pair.low == pytest.approx(-0.0076, abs=1e-3)
    assert paired_difference(first, first).p_value == 1.0


def test_compare_pairs_flights(folder, tmp_path):
    strict = tmp_path / "strict.yaml"
    strict.write_text(
        (folder / "mission.yaml").read_text().replace("seconds: 2.0", "seconds: 2.0, tolerance_m: 0.0002")
    )
    for path in (folder, tmp_path):
        (path / "cart.py").write_text(CART)
    loose = tmp_path / "loose.yaml"
    loose.write_text((folder / "mission.yaml").read_text())
    for path in (strict, loose):
        path.write_text(path.read_text().replace("    plugin: ./cart.py", "    plugin: ./cart.py\n    policy: guide"))
    result = compare(loose, strict, flights=300, allow_local_plugins=True)
    assert result.success.only_second == 0
    assert result.success.only_first == result.phases[1].causes["missed"].second > 0
    assert result.phases[0].success.difference == 0.0
    assert result.phases[1].end["position_m"].mean == 0.0, "the same flights, under another success criterion"
    done = run_cli("compare", loose, strict, "--allow-local-plugins", "--flights", 300, "--json")
    assert json.loads(done.stdout)["success"] == result.success.model_dump()
    assert "only second" in run_cli("compare", loose, strict, "--allow-local-plugins", "--flights", 50).stdout


# Learning curves


def write_metrics(folder: Path, lines: list[dict]) -> Path:
    phase = folder / "trial" / "first"
    phase.mkdir(parents=True)
    (phase / "metrics.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    return phase / "metrics.jsonl"


def captions(page: str) -> list[str]:
    return re.findall(r"<figcaption>([^<]*)<", page)


def test_learning_curves(tmp_path):
    lines = [
        {"kind": "chunk", "env_steps": 100 * i, "Critic/Loss": 0.1 / 2**i, "Actor/Loss": -0.1 * i, "Episode/Return": i}
        for i in range(1, 9)
    ]
    evaluation = {"kind": "evaluation", "env_steps": 800, "Evaluation/Return": 3.0, "Evaluation/Success": 0.5}
    gate = {"kind": "gate", "env_steps": 800, "passed": False, "count": 3, "flights": 10}
    path = write_metrics(tmp_path, [*lines, evaluation, gate])
    path.write_text(path.read_text() + '\n{"kind": "chu')
    assert len(read_metrics(path)) == 10
    assert is_training(tmp_path / "trial")
    page = learning_page(tmp_path / "trial").read_text()
    assert captions(page) == ["Return", "Evaluation/Success", "Critic/Loss", "Actor/Loss"]
    assert "gate missed at vehicle step 800: 3 of 10" in page
    assert re.findall(r"log10 of [^<]*", page) == ["log10 of Critic/Loss"], "positive, over more than a decade"
    path.write_text("nothing")
    with pytest.raises(MissionError, match="no readable metrics"):
        learning_page(tmp_path / "trial")


def test_learning_curves_of_another_learner(tmp_path):
    """The page draws whatever a learner logs; its axis is chosen from the values."""
    lines = [
        {"kind": "chunk", "env_steps": 100 * i, "Policy/KL": 10.0**-i, "Value/Gap": -(10.0**i), "Value/Flat": 2.0}
        for i in range(1, 5)
    ]
    page = learning_page(write_metrics(tmp_path, lines).parents[1]).read_text()
    assert captions(page) == ["Policy/KL", "Value/Gap", "Value/Flat"]
    assert re.findall(r"log10 of [^<]*", page) == ["log10 of Policy/KL"]
    assert not re.search(r"\b(nan|inf)\b", page)


def test_metrics_that_belong_together_share_a_chart():
    names = ["Speed/Updates", "Replay/PriorityP50", "Replay/PriorityP95", "Value/LossP50", "Episode/Return"]
    assert chart_groups([*names, "Episode/Length", "Evaluation/Return"]) == {
        "Return": ("Episode/Return", "Evaluation/Return"),
        "Episode/Length": ("Episode/Length",),
        "Speed/Updates": ("Speed/Updates",),
        "Replay/Priority": ("Replay/PriorityP50", "Replay/PriorityP95"),
        "Value/LossP50": ("Value/LossP50",),
    }


# Benchmarks beside policies

STORED = Benchmark(
    channel="propellant_over_optimum_percent",
    note=f"2 {EVIL}",
    command="python benchmarks/landing.py",
    values={"agent": (4.0, 6.0), "guide": (8.0, 9.0)},
)


def test_a_benchmark_is_read_back_and_its_first_form_had_no_number(tmp_path):
    assert read_benchmark(tmp_path) is None
    write_benchmark(tmp_path, STORED)
    assert read_benchmark(tmp_path) == STORED
    data = STORED.model_dump(mode="json")
    assert data.pop("format") == benchmark.FORMAT == 1
    (tmp_path / "benchmark.json").write_text(json.dumps(data))
    assert read_benchmark(tmp_path) == STORED


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("{", "damaged JSON"),
        ('{"format": 1}', "channel: Field required"),
        ('{"format": 2, "unit": "percent"}', "expected format 1, which this version of mission reads, found format 2"),
    ],
)
def test_a_benchmark_that_cannot_be_used_is_left_out(tmp_path, caplog, text, part):
    (tmp_path / "benchmark.json").write_text(text)
    assert read_benchmark(tmp_path) is None
    assert "is left out of the report" in caplog.text
    assert part in caplog.text
    assert (tmp_path / "benchmark.json").read_text() == text


def test_shipped_benchmarks_can_be_read():
    shipped = list((Path(__file__).parents[2] / "checkpoints" / "shipped").rglob("benchmark.json"))
    assert shipped
    assert all(read_benchmark(path.parent) is not None for path in shipped)


def test_a_benchmark_is_drawn():
    records = make_records(50)
    last = records.flights.phases[-1]
    at = [i for i, name in enumerate(last.channels) if name != STORED.channel]
    last = dataclasses.replace(
        last, channels=tuple(last.channels[i] for i in at), end=last.end[:, at], enter=last.enter[:, at]
    )
    flights = dataclasses.replace(records.flights, phases=(*records.flights.phases[:-1], last))
    headers = (*records.headers[:-1], records.headers[-1].model_copy(update={"benchmark": STORED}))
    records = dataclasses.replace(records, flights=flights, headers=headers)
    html = "".join(section.html for section in propellant(records))
    assert "agent 5.00 % in the mean, guide 8.50 % in the mean" in html
    assert EVIL not in html


def test_two_runs_cannot_write_one_report(folder, flown):
    target = folder / "locked"
    fly(folder, target, flights=50)
    before = {path.name: path.read_bytes() for path in target.iterdir() if path.name != LOCK}
    with folder_lock(target, "--report"), pytest.raises(MachineError, match="choose another --report"):
        fly(folder, target, flights=60)
    assert {path.name: path.read_bytes() for path in target.iterdir() if path.name != LOCK} == before
    fly(folder, target, flights=60)
    assert read_header(target).report.flights == 60
