"""Observers that keep a run elsewhere: what TensorBoard, MLflow and Weights & Biases hold is read back by their own readers.

Nothing here reaches a network: W&B runs offline, and MLflow writes to a database of the test.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from factory import MISSION, write_mission

from mission import Event, StopTraining, load_mission, train_mission
from mission.errors import GateError, Interrupted, MachineError
from mission.observers import Observers, tensorboard
from mission.observers.runs import flat_settings, numbers_of, results_of

SHORT = MISSION.replace("env_steps: 3000", "env_steps: 1100").replace("env_steps: 2500", "env_steps: 1100")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a database whose tables exist already, because MLflow takes seconds to create them."""
    mlflow = pytest.importorskip("mlflow")
    folder = tmp_path_factory.mktemp("mlflow")
    address = f"sqlite:///{folder / 'runs.db'}"
    with contextlib.chdir(folder):  # MLflow keeps artifacts in the folder in which a store is opened first
        mlflow.MlflowClient(address).search_experiments()
    return address


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """W&B without a network, and with no files of its own outside of the test."""
    pytest.importorskip("wandb")
    for name, value in (("WANDB_MODE", "offline"), ("WANDB_CONFIG_DIR", str(tmp_path)), ("WANDB_CACHE_DIR", str(tmp_path))):  # fmt: skip
        monkeypatch.setenv(name, value)


@pytest.fixture
def at_store(store: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of MLflow, whose store is that of the test."""
    mlflow = import_module("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    return mlflow.MlflowClient(store)


def observer(name: str) -> Any:
    """The hook of an observer of the engine as a function of an event."""
    hook = import_module(f"mission.observers.{name}").mission_event
    return lambda event: hook(event=event)


def train(folder: Path, *observers: str, text: str = SHORT, **options: Any) -> Any:
    write_mission(folder, text)
    chosen = {name: observer(name) for name in observers} | options.pop("more", {})
    common: dict[str, Any] = {"checkpoints": folder / "ck", "log_dir": folder / "runs", "allow_local_plugins": True}
    return train_mission(
        load_mission(folder / "mission.yaml"), observers=chosen, baseline_flights=0, **common | options
    )


# Readers


def wandb_records(folder: Path) -> list[Any]:
    """The records of the offline runs in a folder, in order; a W&B file is a LevelDB log of protobuf messages."""
    proto = import_module("wandb.proto.wandb_internal_pb2")
    records = []
    for path in sorted(folder.glob("**/wandb/offline-run-*/*.wandb")):
        data, at, content = path.read_bytes(), 7, b""
        while at + 7 <= len(data):
            if 32768 - at % 32768 < 7:
                at += 32768 - at % 32768
                continue
            size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
            content += data[at + 7 : at + 7 + size]
            at += 7 + size
            if kind in (1, 4):  # a whole message, or its last part
                records.append(proto.Record.FromString(content))
                content = b""
    return records


def wandb_config(records: list[Any]) -> dict[str, Any]:
    updates = [update for record in records for update in record.run.config.update]
    return {update.key: json.loads(update.value_json) for update in updates}


def wandb_history(records: list[Any]) -> list[dict[str, Any]]:
    return [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.HasField("history")
    ]


def wandb_summary(records: list[Any]) -> dict[str, Any]:
    updates = [update for record in records for update in record.summary.update]
    return {"/".join(update.nested_key) or update.key: json.loads(update.value_json) for update in updates}


def wandb_exits(records: list[Any]) -> list[int]:
    return [record.exit.exit_code for record in records if record.HasField("exit")]


def hyperparameters(folder: Path) -> tuple[Any, Any, Any]:
    """What TensorBoard's own reader finds of the session in a folder: experiment, start and end."""
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    metadata = import_module("tensorboard.plugins.hparams.metadata")
    run = accumulators.EventAccumulator(str(folder)).Reload()
    contents = run.PluginTagToContent("hparams")
    return (
        metadata.parse_experiment_plugin_data(contents["_hparams_/experiment"]),
        metadata.parse_session_start_info_plugin_data(contents["_hparams_/session_start_info"]),
        metadata.parse_session_end_info_plugin_data(contents["_hparams_/session_end_info"])
        if "_hparams_/session_end_info" in contents
        else None,
    )


# One training, seen by all of them


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, store: str) -> Iterator[tuple[Path, list[Event], Any]]:
    """A training that the three observers have seen; its folder, its events and a client of MLflow."""
    pytest.importorskip("wandb")
    folder, events = tmp_path_factory.mktemp("observed"), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("MLFLOW_TRACKING_URI", store)
        text = SHORT.replace("name: trial", "name: seen")
        train(folder, "tensorboard", "wandb_runs", "mlflow_runs", text=text, more={"all": events.append})
        yield folder, events, import_module("mlflow").MlflowClient(store)


def only_run(client: Any, experiment: str) -> Any:
    (run,) = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    return run


def test_the_first_event_carries_the_resolved_configuration(trained) -> None:
    _, events, _ = trained
    start = events[0]
    configuration = start.data["configuration"]
    assert start.kind == "mission_start"
    assert json.loads(json.dumps(configuration)) == configuration, "plain data"
    assert (configuration["mission"], configuration["seed"], len(configuration["digest"])) == ("seen", 3, 64)
    second = configuration["phases"]["second"]
    assert second["params"]["seconds"] == 2.0
    assert second["sac"]["batch_size"] == 32, "a setting that only the plugin states"
    assert second["evaluation"] == {"every_env_steps": 1000, "flights": 100}
    assert (second["budget"], second["policy"], second["trained"]) == ({"env_steps": 1100}, "agent", True)
    assert second["gate"]["success_low"] == 0.0
    assert configuration["phases"]["first"]["gate"] is None


def test_wandb_holds_settings_numbers_and_results(trained) -> None:
    folder, events, _ = trained
    records = wandb_records(folder / "runs")
    assert wandb_config(records)["phases"] == events[0].data["configuration"]["phases"]
    history = wandb_history(records)
    for event in (event for event in events if event.kind == "evaluation"):
        line = next(
            one for one in history if one.get(f"{event.phase}/env_steps") == event.env_steps
            and f"{event.phase}/Evaluation/Success" in one
        )  # fmt: skip
        assert line[f"{event.phase}/Evaluation/Success"] == pytest.approx(event.scalars["Evaluation/Success"])
    axes = {record.metric.glob_name: record.metric.step_metric for record in records if record.HasField("metric")}
    assert axes == {f"{phase}/*": f"{phase}/env_steps" for phase in ("first", "second")}
    summary, results = wandb_summary(records), events[-1].data["records"]
    assert [summary[f"{one['name']}/success"] for one in results] == [one["success"] for one in results]
    assert (summary["second/gate_passed"], summary["second/status"], summary["status"]) == (1.0, "trained", "finished")
    assert wandb_exits(records) == [0]


def test_mlflow_holds_settings_numbers_and_results(trained) -> None:
    _, events, client = trained
    run = only_run(client, "seen")
    assert run.info.status == "FINISHED"
    settings = flat_settings(events[0].data["configuration"])
    assert run.data.params == {name: str(value) for name, value in settings.items()}
    assert run.data.params["phases/second/params/seconds"] == "2.0"
    sent = [
        (event.env_steps, event.scalars["Evaluation/Success"])
        for event in events
        if event.kind == "evaluation" and event.phase == "second"
    ]
    stored = client.get_metric_history(run.info.run_id, "second/Evaluation/Success")
    assert [(one.step, one.value) for one in stored] == sent
    results = {one["name"]: one for one in events[-1].data["records"]}
    assert run.data.metrics["second/success"] == results["second"]["success"]
    assert run.data.metrics["second/gate_passed"] == 1.0
    assert run.data.tags["status"] == "finished"


def test_tensorboard_holds_the_settings_as_hyperparameters(trained) -> None:
    folder, events, _ = trained
    (home,) = (folder / "runs").glob("ck-*/seen")
    experiment, start, end = hyperparameters(home)
    settings = flat_settings(events[0].data["configuration"])
    found = {name: getattr(value, value.WhichOneof("kind")) for name, value in start.hparams.items()}
    assert found == settings
    assert {info.name for info in experiment.hparam_infos} == set(settings)
    assert end.status == import_module("tensorboard.plugins.hparams.api_pb2").STATUS_SUCCESS
    accumulators = import_module("tensorboard.backend.event_processing.event_accumulator")
    for info in experiment.metric_infos:  # TensorBoard reads a metric from the folder of its group
        phase = accumulators.EventAccumulator(str(home / info.name.group)).Reload()
        assert phase.Scalars(info.name.tag)
    assert len(experiment.metric_infos) == 4


# Resumed, stopped and failed trainings


def halt(event: Event) -> None:
    if event.kind == "chunk" and event.phase == "first":
        raise StopTraining


def test_a_resumed_training_continues_its_run(tmp_path: Path, at_store: Any, offline: None) -> None:
    both, text = ("wandb_runs", "mlflow_runs"), SHORT.replace("name: trial", "name: resumed")
    train(tmp_path, *both, text=text, more={"halt": halt})
    run = only_run(at_store, "resumed")
    assert (run.info.status, run.data.tags["status"]) == ("FINISHED", "stopped")
    longer = text.replace("env_steps: 1100", "env_steps: 1200", 1)
    train(tmp_path, *both, text=longer)
    run = only_run(at_store, "resumed")
    assert run.data.metrics["second/success"] >= 0.0, "the same run has both phases"
    budget = "phases/first/budget/env_steps"
    assert (run.data.params[budget], run.data.tags[f"resumed/{budget}"]) == ("1100", "1200")
    records = wandb_records(tmp_path / "runs")
    identities = {record.run.run_id for record in records if record.HasField("run")}
    assert (len(identities), wandb_exits(records)) == (1, [0, 0])
    train(tmp_path, *both, text=text, fresh=True, only=["second"])
    runs = at_store.search_runs([at_store.get_experiment_by_name("resumed").experiment_id])
    identities = {record.run.run_id for record in wandb_records(tmp_path / "runs") if record.HasField("run")}
    assert (len(runs), len(identities)) == (2, 2), "--fresh begins another one"


def test_a_failed_training_is_marked_as_failed(tmp_path: Path, at_store: Any, offline: None) -> None:
    text = SHORT.replace("name: trial", "name: failed").replace("success_low: 0.0", "return_mean_min: 1.0e6")
    with pytest.raises(GateError):
        train(tmp_path, "tensorboard", "wandb_runs", "mlflow_runs", text=text)
    run, records = only_run(at_store, "failed"), wandb_records(tmp_path / "runs")
    assert (run.info.status, run.data.tags["status"]) == ("FAILED", "failed")
    assert run.data.tags["error"].startswith("GateError")
    assert run.data.metrics["second/gate_passed"] == 0.0
    assert (wandb_exits(records), wandb_summary(records)["status"]) == ([1], "failed")
    (home,) = (tmp_path / "runs").glob("ck-*/failed")
    end = hyperparameters(home)[2]
    assert end.status == import_module("tensorboard.plugins.hparams.api_pb2").STATUS_FAILURE


def interrupted_after(sent: Observers, start: dict[str, Any]) -> None:
    sent.emit("mission_start", data=start)
    raise Interrupted("here", expected="to run to its end", found="a signal", remedy="resume")


def test_an_interrupted_training_is_marked_as_interrupted(tmp_path: Path, at_store: Any) -> None:
    start = {"phases": [], "checkpoints": str(tmp_path), "seed": 0, "fresh": False, "configuration": {"seed": 0}}
    write_mission(tmp_path, SHORT.replace("name: trial", "name: interrupted"))
    mission = load_mission(tmp_path / "mission.yaml")
    with pytest.raises(Interrupted), Observers(mission, tmp_path / "runs", {"mlflow": observer("mlflow_runs")}) as sent:
        interrupted_after(sent, start)
    run = only_run(at_store, "interrupted")
    assert (run.info.status, run.data.tags["status"]) == ("KILLED", "interrupted")


def test_a_broken_observer_does_not_stop_the_training(
    tmp_path: Path, offline: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path}/nothing")  # MLflow refuses such stores

    def refuse(**options: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr("wandb.init", refuse)
    only = {"only": ["first"], "more": {}}
    (record,) = train(tmp_path, "wandb_runs", "mlflow_runs", **only)
    assert record.status == "trained"
    dropped = [one.message for one in caplog.records if "is dropped" in one.message]
    assert len(dropped) == 2
    assert any("no network" in message for message in dropped)


def test_without_a_named_store_runs_are_beside_the_folders_of_observers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    start = {"phases": [], "checkpoints": str(tmp_path), "seed": 0, "fresh": False, "log_dir": "runs/ck-0"}
    hook = observer("mlflow_runs")
    hook(Event("mission_start", "local", data=start | {"configuration": {"seed": 0}}))
    hook(Event("mission_end", "local", data={"status": "finished"}))
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}")
    run = only_run(client, "local")
    assert json.loads((Path(run.info.artifact_uri.removeprefix("file://")) / "configuration.json").read_text()) == {"seed": 0}  # fmt: skip
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "mlflow.run"}


# Before anything is trained


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_extra_is_named_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, f"mission.observers.{name}_runs", raising=False)
    write_mission(tmp_path, SHORT.replace("seed: 3", f"observers: [{name}]"))
    with pytest.raises(MachineError, match=rf'pip install "mission-engine\[{name}\]"'):
        train_mission(load_mission(tmp_path / "mission.yaml"), checkpoints=tmp_path / "ck", allow_local_plugins=True)
    assert not list(tmp_path.glob("ck/trial/*/"))


# Their parts


def test_settings_are_flattened_by_their_paths() -> None:
    nested = {"a": {"b": 1, "c": None, "d": {"e": True, "f": [1, 2]}}, "g": "text", "h": {}}
    assert flat_settings(nested) == {"a/b": 1, "a/d/e": True, "a/d/f": "1, 2", "g": "text"}


def test_the_numbers_of_events_have_the_name_of_their_phase() -> None:
    chunk = Event("chunk", "m", "burn", 5, {"Critic/Loss": 0.5, "Actor/Std": float("nan")}, series={"Warm": [3.0, 1.0]})
    assert numbers_of(chunk) == {"burn/Critic/Loss": 0.5, "burn/Warm": 1.0}
    sweep = Event("sweep", "m", data={"flights": 4, "succeeded": 3, "sweep": 1})
    assert numbers_of(sweep) == {"sweep/success": 0.75}
    gate = Event("gate", "m", "burn", data={"passed": False, "count": 1, "flights": 2})
    assert numbers_of(gate) == {"burn/gate_passed": 0.0, "burn/gate_success": 0.5}
    record = {"success": 0.5, "returns": None, "seconds": 2.0, "gate": {"passed": True}}
    assert results_of(record, "burn") == {"burn/success": 0.5, "burn/seconds": 2.0, "burn/gate_passed": 1.0}


def test_tensorboard_keeps_one_session_of_a_resumed_training(tmp_path: Path) -> None:
    data = {"log_dir": str(tmp_path), "phases": ["a"], "seed": 1}
    for status, rate in (("interrupted", 0.1), ("finished", 0.2)):
        settings = {"configuration": {"digest": "0" * 64, "rate": rate}}
        tensorboard.mission_event(event=Event("mission_start", "m", data=data | settings))
        tensorboard.mission_event(event=Event("mission_end", "m", data=data | {"status": status}))
    _, start, end = hyperparameters(tmp_path / "m")
    assert start.hparams["rate"].number_value == 0.2
    assert end.status == import_module("tensorboard.plugins.hparams.api_pb2").STATUS_SUCCESS
