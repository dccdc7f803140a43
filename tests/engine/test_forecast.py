"""The forecast of a training run, on the events of real trainings with their times; and the table that shows it.

`events_vertical.jsonl` is `missions/vertical.yaml` as it is; `events_five_phases.jsonl` is the mission of five phases
`return_to_launch_site`, with 5 rounds of imitation each, without gates, and with a budget of 163,840 vehicle steps of the last
phase. Both were trained on two cores and compiled every program.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from factory import ROOT
from rich.console import Console

from mission.missionfile.hooks import Event
from mission.missionfile.reading import load_mission
from mission.missionfile.resolve import resolve_mission
from mission.observers import table
from mission.observers.forecast import Forecast, PhaseWork, Remaining
from mission.observers.table import LiveTable, duration, left_in_words, sparkline
from mission.training.work import mission_work

DATA = Path(__file__).parent / "data"
RECORDINGS = ("vertical", "five_phases")


def recorded(name: str) -> list[tuple[float, Event]]:
    rows = [json.loads(line) for line in (DATA / f"events_{name}.jsonl").read_text().splitlines()]
    return [(row.pop("time_s"), Event(mission=name, **row)) for row in rows]


def begin(events) -> Forecast:
    time_s, first = events[0]
    assert first.kind == "mission_start"
    return Forecast(first.data["work"], first.data["baseline_flights"], time_s)


def replay(name: str) -> list[tuple[float, float, Remaining]]:
    """(share of the time, seconds that were really left, forecast) after each event."""
    events = recorded(name)
    forecast, end, found = begin(events), events[-1][0], []
    for time_s, event in events[1:-1]:
        forecast.note(event, time_s)
        found.append((time_s / end, end - time_s, forecast.remaining(time_s)))
    return found


@pytest.mark.parametrize("name", RECORDINGS)
def test_the_forecast_after_a_tenth_of_the_run_is_right_within_a_factor(name):
    shown = [(left, found.seconds) for share, left, found in replay(name) if share >= 0.1 and found.seconds is not None]
    left, seconds = shown[0]
    assert left / 1.5 < seconds < left * 1.5
    right = [left / 1.5 < seconds < left * 1.5 for left, seconds in shown]
    assert sum(right[: len(right) // 2]) > 0.9 * (len(right) // 2), "and for the first half of what follows"


@pytest.mark.parametrize("name", RECORDINGS)
def test_the_forecast_by_work_after_a_tenth_of_the_vehicle_steps(name):
    events = recorded(name)
    forecast, end = begin(events), events[-1][0]
    whole = sum(one["expected"] for one in events[0][1].data["work"])
    for time_s, event in events[1:]:
        forecast.note(event, time_s)
        if sum(forecast.steps.values()) >= 0.1 * whole and forecast.remaining(time_s).seconds is not None:
            break
    assert (end - time_s) / 1.5 < forecast.remaining(time_s).seconds < (end - time_s) * 1.5


def test_it_counts_down_between_events_and_never_below_nothing():
    events = recorded("vertical")
    forecast = begin(events)
    for time_s, event in events[1:20]:
        forecast.note(event, time_s)
    now = forecast.remaining(time_s).seconds
    assert forecast.remaining(time_s + 1.0).seconds == pytest.approx(now - 1.0)
    assert 0.0 < forecast.remaining(time_s + 1e4).seconds < now


def synthetic(**changes) -> Forecast:
    """Two phases of 100 chunks, of which the second costs twice as much as an earlier training has shown."""
    first = PhaseWork(
        "a", 1000, 1000, 1000, chunk_steps=10, chunk_updates=4, updates_per_s=4.0, every=10, evaluation_flights=100
    )
    second = dataclasses.replace(first, name="b", updates_per_s=1.0)
    works = [dataclasses.replace(one, **changes) for one in (first, second)]
    return Forecast([dataclasses.asdict(one) for one in works], 0, 0.0)


def chunks(forecast: Forecast, phase: str, first: int, last: int, seconds: float, now: float) -> float:
    for number in range(first, last + 1):
        now += seconds
        forecast.note(Event("chunk", "m", phase, 10 * number), now)
    return now


def test_nothing_is_said_before_anything_is_measured():
    forecast = synthetic()
    forecast.note(Event("phase_start", "m", "a"), 1.0)
    assert forecast.remaining(2.0) == Remaining(None, False, None)
    assert left_in_words(forecast.remaining(2.0)) == "remaining time not known yet"


def test_costs_of_phases_not_begun_follow_the_earlier_training():
    forecast = synthetic(evaluation_flights=0, bank_flights=0)
    forecast.note(Event("phase_start", "m", "a"), 0.0)
    now = chunks(forecast, "a", 1, 50, 1.0, 0.0)
    # 50 chunks of 1 s, and 100 chunks of twice as much: the root of the four times that the earlier training shows
    assert forecast.remaining(now).seconds == pytest.approx(50 + 200, rel=0.02)
    equal = synthetic(evaluation_flights=0, bank_flights=0, updates_per_s=None)
    equal.note(Event("phase_start", "m", "a"), 0.0)
    now = chunks(equal, "a", 1, 50, 1.0, 0.0)
    assert equal.remaining(now).seconds == pytest.approx(50 + 100, rel=0.02)


def test_evaluations_are_counted_and_measured():
    forecast = synthetic(bank_flights=0)
    forecast.note(Event("phase_start", "m", "a"), 0.0)
    now = chunks(forecast, "a", 1, 20, 1.0, 0.0)
    without = forecast.remaining(now).seconds
    for _ in range(3):
        now += 5.0
        forecast.note(Event("evaluation", "m", "a", 200), now)
    assert forecast.remaining(now).seconds - without == pytest.approx(5.0 * (8 + 10), rel=0.05)


def test_a_gate_that_may_stop_gives_at_most_until_an_earlier_training_says_when():
    forecast = synthetic(may_stop=True)
    forecast.note(Event("phase_start", "m", "a"), 0.0)
    now = chunks(forecast, "a", 1, 5, 1.0, 0.0)
    assert forecast.remaining(now).at_most
    assert left_in_words(forecast.remaining(now)).startswith("at most ")
    known = synthetic(may_stop=True, expected=100, bank_flights=0, evaluation_flights=0)
    known.note(Event("phase_start", "m", "a"), 0.0)
    now = chunks(known, "a", 1, 5, 1.0, 0.0)
    assert not known.remaining(now).at_most
    assert known.remaining(now).seconds == pytest.approx(5 + 20, rel=0.1)
    now = chunks(known, "a", 6, 15, 1.0, now)
    assert known.units("a") == (150, 250), "it needs more than the earlier one: one evaluation more is expected"


def test_a_resumed_phase_neither_imitates_nor_fills_again():
    forecast = synthetic(rounds=50, round_updates=100, fill_steps=500, bank_flights=0, evaluation_flights=0)
    forecast.note(Event("phase_start", "m", "b", 500), 0.0)
    now = chunks(forecast, "b", 51, 60, 1.0, 0.0)
    assert forecast.remaining(now).seconds == pytest.approx(40, rel=0.02), "phase a was done before: it sent no event"


def test_two_phases_with_one_chunk_each_are_no_circle():
    forecast = synthetic()
    for phase in "ab":
        forecast.note(Event("phase_start", "m", phase), 0.0)
        chunks(forecast, phase, 1, 1, 1.0, 0.0)
    assert forecast.remaining(2.0).seconds > 0.0


def test_the_work_of_a_mission_is_counted(tmp_path):
    mission = load_mission(ROOT / "missions" / "vertical.yaml", ["chain={sweeps: 1}"])
    phases = resolve_mission(mission)
    coast, burn, *passes = mission_work(mission, phases, [0, 1], tmp_path, False)
    config = phases[0].learner
    assert coast["chunk_updates"] == config.chunk_cycles * config.update_cycle[1]
    assert (coast["budget"], burn["budget"]) == (1_500_000, 3_000_000)
    assert coast["expected"] == 69_632, "as the shipped policies were trained"
    assert [one["name"] for one in passes] == [
        "burn-sweep-1-backwards", "coast-sweep-1-backwards", "coast-sweep-1-forwards", "burn-sweep-1-forwards"
    ]  # fmt: skip
    assert {one["expected"] for one in passes} == {1_500_000, 3_000_000}, "a sweep has no gate"
    assert [one["name"] for one in mission_work(mission.swept(0), phases, [1], tmp_path, False)] == ["burn"]


def test_sparklines():
    assert sparkline([]) == ""
    assert sparkline([1.0]) == "▄"
    assert sparkline(list(range(8)), 8) == "▁▂▃▄▅▆▇█"
    assert len(sparkline(list(range(1000)), 18)) == 18
    assert sparkline([0.0, 1.0], blocks="_#") == "_#"


@pytest.mark.parametrize(("seconds", "text"), [(5, "5 s"), (89, "89 s"), (600, "10 min"), (3 * 3600 + 65, "181 min"), (8000, "2 h 13 min")])  # fmt: skip
def test_durations(seconds, text):
    assert duration(seconds) == ("3 h 01 min" if text == "181 min" else text)


@pytest.mark.parametrize("width", [120, 80])
@pytest.mark.parametrize("name", RECORDINGS)
def test_the_table_shows_every_phase(name, width, monkeypatch):
    events = recorded(name)
    console = Console(width=width, force_terminal=True, color_system=None, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    forecast = begin(events)
    shown = LiveTable(console, events[0][1].data["phases"], forecast)
    for time_s, event in events[1 : 2 * len(events) // 3]:
        forecast.note(event, time_s)
        shown.note(event)
    monkeypatch.setattr(table.time, "monotonic", lambda: time_s)
    console.print(shown)
    text = console.export_text()
    for phase in events[0][1].data["phases"]:
        assert phase in text
    assert "% done, about" in text
    assert "▶" in text
    assert all(len(line.rstrip()) <= width for line in text.splitlines())
    console.file.close()


def test_a_terminal_gets_the_table_and_the_results(monkeypatch):
    """On a pseudo-terminal: the cursor goes back over a table that is redrawn, and results stay above it."""
    from mission.observers import progress

    events, output = recorded("vertical"), open("/dev/null", "w")  # noqa: SIM115
    console = Console(width=110, force_terminal=True, record=True, file=output)
    monkeypatch.setattr(progress, "Console", lambda stderr: console)
    for _, event in events:
        if event.kind in ("mission_start", "phase_start", "chunk", "phase_end", "mission_end"):
            progress.mission_event(event=event)
    text = console.export_text()
    assert "coast: trained in 31 s" in text
    assert "updates/s" in text
    assert "at most 1,500,000" not in text, "the lines of other outputs are not for terminals"
    output.close()
