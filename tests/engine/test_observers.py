"""Observers cannot harm a run: one that fails, blocks or is too slow is dropped with one warning."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import numpy as np
import pytest

from mission import observers as family
from mission.missionfile.hooks import Event
from mission.missionfile.reading import load_mission
from mission.observers import Observers, tensorboard

PATIENCE_S = 0.3


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A function that sends events to one hook, and returns the seconds that training waited."""
    path = tmp_path / "mission.yaml"
    path.write_text("name: trial\nobservers: [watch]\nphases: [{name: a, plugin: b}]\n")
    monkeypatch.setattr(family, "PATIENCE_S", PATIENCE_S)

    def send(hook, events: int) -> float:
        monkeypatch.setattr(family, "load_observer", lambda name, where: hook)
        began = time.monotonic()
        with Observers(load_mission(path), tmp_path) as sent:
            for number in range(events):
                sent.emit("chunk", env_steps=number)
        return time.monotonic() - began

    return send


def dropped(caplog) -> list[str]:
    return [record.message for record in caplog.records if "is dropped" in record.message]


def test_events_arrive_in_order_and_all_of_them(run, caplog):
    seen = []
    run(lambda event: seen.append(event.env_steps), 500)
    assert seen == list(range(500))
    assert not dropped(caplog)


@pytest.mark.parametrize("error", [ValueError("boom"), SystemExit(0), KeyboardInterrupt()])
def test_an_observer_that_raises_is_dropped(run, caplog, error):
    def hook(event):
        raise error

    run(hook, 20)
    (message,) = dropped(caplog)
    assert f"raised {type(error).__name__}" in message


def test_an_observer_that_blocks_is_dropped(run, caplog):
    never = threading.Event()
    assert run(lambda event: never.wait(), 500) < 3.0 * PATIENCE_S
    (message,) = dropped(caplog)
    assert "blocked training" in message
    never.set()


def test_training_waits_for_a_slow_observer_no_longer_than_stated(run, caplog):
    assert run(lambda event: time.sleep(0.02), 500) < 3.0 * PATIENCE_S  # 10 s for all of them
    assert len(dropped(caplog)) == 1


def test_an_observer_that_blocks_on_the_last_event_is_dropped(run, caplog):
    never = threading.Event()
    assert run(lambda event: never.wait(), 1) < 3.0 * PATIENCE_S
    (message,) = dropped(caplog)
    assert "did not finish" in message
    never.set()


def tensorboard_events(folder: Path, started: int = 0):
    data = {"log_dir": str(folder)}
    yield Event("phase_start", "trial", "first", started, data=data)
    for step in range(started + 1, started + 60):
        histograms = {"Action": np.linspace(-1.0, 1.0, 300)}
        yield Event("chunk", "trial", "first", step, {"Critic/Loss": 0.5}, histograms, {"Warm": [1.0]}, data=data)
    yield Event("phase_end", "trial", "first", started + 60, data=data)


def write(events: Iterable[Event]) -> None:
    for event in events:
        tensorboard.mission_event(event=event)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_tensorboard_says_that_the_disk_is_full(tmp_path, monkeypatch):
    """Its library's own writer would block training instead."""
    files = []

    def open_file(path: str) -> IO[bytes]:
        files.append(Path("/dev/full").open("wb"))  # noqa: SIM115
        return files[-1]

    monkeypatch.setattr("tensorboardX.record_writer.open_file", open_file)
    sent = tensorboard_events(tmp_path)
    with pytest.raises(OSError, match="No space left"):
        write(sent)
    write(sent)  # nothing is open any more
    for file in files:  # Python 3.13 warns of a file that cannot write its buffer when it is collected
        with contextlib.suppress(OSError):
            file.close()


def test_tensorboard_purges_what_a_resumed_phase_writes_again(tmp_path):
    from tensorboardX.proto.event_pb2 import Event as Record

    write(tensorboard_events(tmp_path, started=40))
    (path,) = (tmp_path / "trial" / "first").iterdir()
    data, records = path.read_bytes(), []
    while data:
        size = int.from_bytes(data[:8], "little")
        records.append(Record.FromString(data[12 : 12 + size]))
        data = data[16 + size :]
    assert [record.step for record in records if record.session_log.status] == [41]
    values = [value for record in records for value in record.summary.value]
    assert {value.tag for value in values} == {"Critic/Loss", "Action", "Warm"}
    assert {value.histo.num for value in values if value.tag == "Action"} == {300.0}
    assert {value.simple_value for value in values if value.tag == "Critic/Loss"} == {0.5}
