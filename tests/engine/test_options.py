"""Options of the command line that would have no effect are refused, by one rule for all commands."""

from __future__ import annotations

import json

import pytest
from factory import MISSION, write_mission
from typer.testing import CliRunner

from mission.cli import app
from mission.errors import InputError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A mission file, a folder of checkpoints, a folder of a training run, and a folder that holds a report."""
    folder = tmp_path_factory.mktemp("options")
    write_mission(folder, MISSION)
    for name in ("checkpoints", "training/first", "report"):
        (folder / name).mkdir(parents=True)
    line = {"kind": "chunk", "env_steps": 512, "Episode/Return": 1.0}
    (folder / "training" / "first" / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    (folder / "report" / "summary.json").write_text("{}")
    return folder


@pytest.mark.parametrize(
    ("command", "option", "when"),
    [
        ("compare mission.yaml mission.yaml --set nonsense", "--set", "--mission FILE"),
        ("compare mission.yaml mission.yaml --mission mission.yaml", "--mission", "a folder of checkpoints"),
        (
            "compare checkpoints checkpoints --mission mission.yaml --checkpoints checkpoints",
            "--checkpoints",
            "a mission file",
        ),
        ("report report --output page.html", "--output", "a training run"),
        ("report report -o page.html", "--output", "a training run"),
        ("report report --set seed=1", "--set", "--mission FILE"),
        ("report report --allow-local-plugins", "--allow-local-plugins", "--mission FILE"),
        ("report training --mission mission.yaml", "--mission", "a report"),
        ("report training --set seed=1", "--set", "a report"),
        ("report training --allow-local-plugins", "--allow-local-plugins", "a report"),
        ("recertify checkpoints --set seed=1", "--set", "--mission FILE"),
        ("recertify checkpoints --allow-local-plugins", "--allow-local-plugins", "--mission FILE"),
        ("fly mission.yaml --policy guide --allow-stale", "--allow-stale", "--policy agent"),
        ("fly mission.yaml --policy guide --checkpoints checkpoints", "--checkpoints", "--policy agent or --report"),
        ("fly mission.yaml --until 0.01", "--until", "--flights above 1,000"),
        ("train mission.yaml --log-dir runs", "--log-dir", "observers"),
    ],
)
def test_an_option_without_effect_is_refused(folder, monkeypatch, command, option, when):
    monkeypatch.chdir(folder)
    error = CliRunner().invoke(app, command.split()).exception
    assert isinstance(error, InputError)
    assert error.where == option
    assert when in error.expected
    assert error.exit_code == 2
    assert not (folder / "page.html").exists()


def test_options_that_apply_are_taken(folder, monkeypatch):
    monkeypatch.chdir(folder)
    done = CliRunner().invoke(app, ["report", "training", "-o", "curves.html"])
    assert done.exit_code == 0, done.output
    assert (folder / "curves.html").exists()
    for command in (
        "compare checkpoints checkpoints --mission mission.yaml --set nonsense",
        "check mission.yaml --set x",
    ):
        error = CliRunner().invoke(app, command.split()).exception
        assert isinstance(error, InputError)
        assert "KEY=VALUE" in error.expected
