"""The search for settings, and observers that end a training run."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from pathlib import Path

import pytest
from factory import write_mission
from typer.testing import CliRunner

from mission import Event, MissionError, StopTraining, load_mission, resolve_mission, train_mission, tune
from mission.cli import app
from mission.machine import devices
from mission.scale import tune as tuning
from mission.scale.jobs import PhaseResult, TrainingRecord, TrialReport, write_training
from mission.scale.reporting import Reporter, objective_of, trained_value
from mission.scale.space import check_space, load_space
from mission.scale.study import Study
from mission.scale.training import run_task
from mission.scale.tune import TuneSummary

pytest.importorskip("optuna", reason="the extra tune is not installed")

MISSION = """\
# A comment that stays.
name: trial
seed: 1  # for which the sampler draws good, good, bad
phases:
  - name: only
    plugin: ./cart.py
    params: {tolerance_m: 1.0}
    budget: {env_steps: 200000}
    evaluation: {every_env_steps: 512, flights: 50}
    bank: {flights: 100, minimum: 4}
    gate: {success_low: 0.5, flights: 50}
"""
KEY = "phases.only.params.tolerance_m"
SPACE = {KEY: {"choices": [1.0e-6, 5.0]}}  # no flight succeeds with the first, every flight with the second


class InThisProcess:
    """Runs tasks one after another without a process of their own."""

    workers = 1

    def __init__(self, most: int = 100) -> None:
        self.most = most

    def run(self, tasks, stop, tick):
        for task in tasks:
            if self.most == 0:
                raise KeyboardInterrupt
            self.most -= 1
            yield task.model_copy(update={"cores": devices.visible_cores()}), run_task(task)


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """Trainings run here, with all cores; a test may set the number of tasks after which the search is interrupted."""
    place = InThisProcess()
    monkeypatch.setattr(tuning, "open_trainings", lambda *given: contextlib.nullcontext(place))
    return place


@pytest.fixture
def folder(tmp_path) -> Path:
    write_mission(tmp_path, MISSION)
    return tmp_path


def search(folder: Path, trials: int, **options) -> TuneSummary:
    given = {"space": SPACE, "output": folder / "out", "startup_trials": 1, "flights": 50, "allow_local_plugins": True}
    return tune(folder / "mission.yaml", trials=trials, **(given | options))


def test_a_search_finds_the_known_answer_and_continues_after_an_interruption(folder, in_this_process):
    in_this_process.most = 1
    with pytest.raises(KeyboardInterrupt):
        search(folder, 2)
    in_this_process.most = 100
    found = search(folder, 3)
    by_value = {5.0: set(), 1.0e-6: set()}
    for row in found.trials:
        by_value[row.values[KEY]].add((row.state, row.objective))
    assert len(found.trials) == 3
    assert by_value[5.0] == {("complete", 1.0)}
    assert by_value[1.0e-6] == {("pruned", None)}
    pruned = [row for row in found.trials if row.state == "pruned"]
    assert all(row.env_steps < 100000 for row in pruned)
    assert found.best is not None
    assert found.trials[found.best].values == {KEY: 5.0}
    assert found.fresh is not None
    assert (found.fresh.seed, found.fresh.success.count, found.fresh.objective) == (0, 50, 1.0)
    text = (folder / "out" / "best.yaml").read_text()
    assert "# A comment that stays." in text
    (phase,) = resolve_mission(load_mission(folder / "out" / "best.yaml"), allow_local_plugins=True)
    assert phase.given["tolerance_m"] == 5.0
    checked = CliRunner().invoke(app, ["check", str(folder / "out" / "best.yaml"), "--allow-local-plugins"])
    assert checked.exit_code == 0, checked.output
    in_this_process.most = 0  # nothing is trained again
    again = search(folder, 3)
    assert again == found
    with pytest.raises(MissionError, match=r"space"):
        search(folder, 3, space={KEY: {"low": 1.0, "high": 2.0}})


def test_an_interrupted_search_draws_the_values_that_an_uninterrupted_one_draws(tmp_path):
    space, _ = load_space({"a": {"low": 0.0, "high": 1.0}, "b": {"choices": ["x", "y"]}, "c": {"low": 1, "high": 9}})

    def drawn(path: Path, parts: list[int]) -> list[dict]:
        for trials in parts:
            study = Study(path, "maximize", "none", 2)
            for _ in range(trials):
                trial = study.begin(space, 7)
                study.end(trial.number, "complete", -abs(trial.values["a"] - 0.3))
        return [trial.values for trial in Study(path, "maximize", "none", 2).trials()]

    assert drawn(tmp_path / "a.log", [6]) == drawn(tmp_path / "b.log", [1, 3, 2])


def test_a_search_converges(tmp_path):
    """On a parabola, without training."""
    space, _ = load_space({"x": {"low": -10.0, "high": 10.0}})
    study = Study(tmp_path / "journal.log", "minimize", "none", 10)
    for _ in range(40):
        trial = study.begin(space, 0)
        study.end(trial.number, "complete", (trial.values["x"] - 3.0) ** 2)
    assert min(trial.objective for trial in study.trials()) < 0.05


def test_the_median_pruner_ends_a_bad_trial_only(tmp_path):
    space, _ = load_space({"x": {"low": 0.0, "high": 1.0}})
    study = Study(tmp_path / "journal.log", "maximize", "median", 2)
    for value in (0.5, 0.7):
        trial = study.begin(space, 0)
        assert not study.report(trial.number, 100, value)
        study.end(trial.number, "complete", value)
    for value, bad in ((0.9, False), (0.1, True)):
        assert study.report(study.begin(space, 0).number, 100, value) is bad


def test_the_pruner_sees_the_mean_over_the_seeds_of_a_trial(tmp_path):
    space, _ = load_space({"x": {"low": 0.0, "high": 1.0}})
    study = Study(tmp_path / "journal.log", "maximize", "none", 0)
    report = TrialReport(
        journal=str(tmp_path / "journal.log"), trial=study.begin(space, 0).number, direction="maximize", pruner="none",
        startup_trials=0, objective="success", phase="p", budget=1000,
    )  # fmt: skip
    reporter = Reporter(report)

    def fly(seed: str, values: dict[int, float]) -> Path:
        folder = tmp_path / seed
        folder.mkdir()
        receive = reporter.follow(folder)
        for steps, value in values.items():
            receive(Event("evaluation", "m", "p", steps, {"Evaluation/Success": value}))
            receive(Event("evaluation", "m", "before", steps, {"Evaluation/Success": 9.0}))
        phase = PhaseResult(name="p", env_steps=300, best_env_steps=200)
        write_training(folder, TrainingRecord(status="passed", seconds=1.0, exit_code=0, phases=(phase,)))
        return folder

    first, second = fly("a", {100: 0.4, 200: 0.8, 300: 0.6}), fly("b", {100: 0.2, 200: 0.4})
    assert (trained_value(first, "p"), trained_value(second, "p")) == (0.8, 0.4)  # of the stored policies
    (trial,) = study.study.trials
    assert trial.intermediate_values == pytest.approx({100: 0.4, 200: 0.8, 300: 0.6, 1100: 0.5, 1200: 0.6})


# Spaces and goals


def test_a_space_is_checked_against_the_mission_before_the_first_trial(folder):
    cases = {
        "phases.only.params.tolerance: {low: 1.0, high: 2.0}": "tolerance_m",
        "phases.other.sac.gamma: {low: 0.9, high: 0.99}": "NAME one of only",
        "phases.only.sac.batch_size: {low: 16.0, high: 32.5}": "integer",
        "phases.only.sac.gamma: {low: 0.9, high: 1.5}": "1.5",
        'phases.only.params.tolerance_m: {choices: [1.0, "wide"]}': "wide",
        "seed: {choices: [1, 2]}": "--seeds",
    }
    for line, found in cases.items():
        (folder / "space.yaml").write_text(f"# a space\n{line}\n")
        with pytest.raises(MissionError) as error:
            search(folder, 1, space=folder / "space.yaml")
        assert error.value.exit_code == 2
        assert "space.yaml:2:1" in error.value.where
        assert found in str(error.value)
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", "space.yaml"),
        ("{}", "space.yaml"),
        ("a: {low: 2, high: 1}", "space.yaml:1"),
        ("a: {low: 0, high: 1, log: true}", "space.yaml:1"),
        ("a: {low: 0, high: 1, step: 2}", "space.yaml:1"),
        ("a: {low: 1}", "space.yaml:1"),
        ("a: {choices: []}", "space.yaml:1"),
        ("a: {choices: [1, 1]}", "space.yaml:1"),
        ("a: {choices: [1, 2], low: 0}", "space.yaml:1"),
        ("a: {low: 0, hihg: 1}", "space.yaml:1:13"),
        ("a: 3", "space.yaml:1"),
        ("a: &x {low: 0, high: 1}", "space.yaml:1"),
        ("a: {low: .nan, high: 1}", "space.yaml:1"),
    ],
)
def test_wrong_spaces_are_refused(tmp_path, text, place):
    (tmp_path / "space.yaml").write_text(text)
    with pytest.raises(MissionError) as error:
        load_space(tmp_path / "space.yaml")
    assert error.value.exit_code == 2
    assert error.value.where.startswith(place)


def test_an_unknown_key_of_a_space_names_those_that_exist(tmp_path):
    (tmp_path / "space.yaml").write_text("a: {low: 0, hihg: 1}")
    with pytest.raises(MissionError, match=r'did you mean "high"'):
        load_space(tmp_path / "space.yaml")


def test_a_range_of_integers_is_one_of_floats_where_the_setting_takes_fractions():
    def accepts(override: str) -> None:
        key, _, value = override.partition("=")
        if key == "count" and "." in value:
            raise MissionError(key, expected="an integer", found=value, remedy="")

    given = {"low": 1, "high": 4}
    space, source = load_space({"count": given, "width": given, "steps": given | {"step": 1}})
    checked = check_space(space, source, accepts).root
    assert [checked[key].whole for key in ("count", "width", "steps")] == [True, False, True]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"phase": "landing"}, "landing"),
        ({"objective": "position"}, "position_m"),
        ({"objective": "position_m"}, "--direction"),
        ({"direction": "minimize"}, "success is maximised"),
        ({"pruner": "best"}, "median, halving, none"),
        ({"trials": 0}, "--trials"),
    ],
)
def test_wrong_goals_are_refused(folder, options, found):
    with pytest.raises(MissionError) as error:
        search(folder, options.pop("trials", 1), **options)
    assert error.value.exit_code == 2
    assert found in str(error.value)


def test_without_optuna_an_error_says_how_to_install_it(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissionError, match=r"mission-engine\[tune\]") as error:
        search(folder, 1)
    assert error.value.exit_code == 3


def test_objectives_of_an_evaluation():
    scalars = {"Evaluation/Success": 0.5, "Evaluation/Return": 2.0}
    event = Event("evaluation", "m", "p", 1, scalars, data={"channels": {"speed_m_s": 3.0, "height_m": None}})
    names = ("success", "return", "speed_m_s", "height_m")
    assert [objective_of(event, name) for name in names] == [0.5, 2.0, 3.0, None]


# Observers that end a training run

UNGATED = MISSION.replace("    gate: {success_low: 0.5, flights: 50}\n", "")


def test_an_observer_ends_a_training_run_and_it_resumes(folder, caplog):
    (folder / "mission.yaml").write_text(UNGATED)
    mission, seen, channels = load_mission(folder / "mission.yaml"), [], []

    def stop(event: Event) -> None:
        seen.append((event.kind, event.env_steps))
        if event.kind == "evaluation":
            channels.append(event.data["channels"])
            raise StopTraining("this is enough")

    options = {"checkpoints": folder / "ck", "allow_local_plugins": True, "baseline_flights": 0, "log_dir": folder}
    (summary,) = train_mission(mission, observers={"judge": stop}, **options)
    assert summary.status == 'stopped by observer "judge"'
    assert (summary.success, summary.returns, summary.gate) == (None, None, None)
    first = next(steps for kind, steps in seen if kind == "evaluation")
    assert first <= summary.env_steps < 200000
    phase = folder / "ck" / "trial" / "only"
    assert not (phase / "done").exists()
    assert (phase / "training" / str(summary.env_steps) / "meta.json").is_file()
    assert [kind for kind, _ in seen][-2:] == ["checkpoint", "mission_end"]
    assert "this is enough" in caplog.text
    assert set(channels[0]) == {"position_m", "velocity_m_s"}

    def slower(event: Event) -> None:
        if event.kind == "phase_start":
            assert event.env_steps == summary.env_steps  # it resumes
            raise StopTraining

    (again,) = train_mission(mission, observers={"other": slower}, **options)
    assert again.status == 'stopped by observer "other"'
    assert again.env_steps >= summary.env_steps


def test_an_observer_that_comes_too_late_ends_the_run_before_the_next_phase(folder):
    """The first phase needs no training, so it is complete before the observer has answered."""
    entry = MISSION.partition("phases:\n")[2].replace("plugin: ./cart.py", "plugin: ./cart.py\n    policy: guide")
    (folder / "mission.yaml").write_text(
        MISSION.replace("name: only", "name: second").replace("phases:\n", f"phases:\n{entry}")
    )

    def stop(event: Event) -> None:
        if event.kind == "phase_end":
            raise StopTraining
        if event.kind == "phase_start":
            time.sleep(0.1)

    first, second = train_mission(
        load_mission(folder / "mission.yaml"),
        checkpoints=folder / "ck",
        allow_local_plugins=True,
        log_dir=folder,
        baseline_flights=0,
        observers={"judge": stop},
    )
    assert first.status == "flown by its guide"
    assert second.status == 'stopped by observer "judge"'
    assert not (folder / "ck" / "trial" / "second" / "done").exists()


def test_json_of_a_search_is_the_summary(folder, monkeypatch):
    summary = TuneSummary(
        mission="trial", output="out", phase="only", objective="success", direction="maximize", seeds=(3,), cores=1,
        trials=(), best=None, mission_file=None, fresh=None,
    )  # fmt: skip
    monkeypatch.setattr(tuning, "tune", lambda file, **options: summary)
    command = ["tune", str(folder / "mission.yaml"), "--space", "space.yaml", "--trials", "1", "--json", "-"]
    done = CliRunner().invoke(app, command)
    assert json.loads(done.stdout) == json.loads(summary.to_json())
    assert isinstance(done.exception, MissionError)
    assert done.exception.exit_code == 1
