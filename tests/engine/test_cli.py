"""The command line as a person meets it: help, exit codes, JSON, and a plugin of one's own."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys

import jsonschema
import pytest
from factory import ROOT, run_cli, write_mission
from ruamel.yaml import YAML

from mission import fly_mission, load_mission

GUIDED = ("--allow-local-plugins", "--policy", "guide")


@pytest.fixture(scope="module")
def mission_file(tmp_path_factory):
    return write_mission(tmp_path_factory.mktemp("cli"))


def test_help_teaches():
    text = run_cli("--help").stdout
    for command in ("plugins", "check", "schema", "train", "fly", "export", "report", "compare", "new"):
        assert command in text
        done = run_cli(command, "--help")
        assert done.returncode == 0
        assert len(done.stdout) > 100
    for option in ("--checkpoints", "--phase", "--init", "--fresh", "--seed", "--set", "--log-dir"):
        assert option in run_cli("train", "--help").stdout
    for option in (
        "--checkpoints",
        "--flights",
        "--seed",
        "--policy",
        "--allow-stale",
        "--json",
        "--until",
        "--report",
    ):
        assert option in run_cli("fly", "--help").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (("check", "none.yaml"), 2, "no such file"),
        (("train", "FILE"), 2, "--allow-local-plugins"),
        (("train", "FILE", "--allow-local-plugins", "--phase", "third"), 2, "first, second"),
        (("train", "FILE", "--allow-local-plugins", "--init", "first"), 2, "NAME=DIR"),
        (("train", "FILE", "--allow-local-plugins", "--set", "phases.first.sac.gamma=2"), 2, "less than or equal to 1"),
        (("train", "FILE", "--allow-local-plugins", "--checkpoints", "/proc/none"), 3, "folder to write"),
        (("fly", "FILE", "--allow-local-plugins", "--policy", "autopilot"), 2, "agent, guide or guarded"),
        (
            ("fly", "FILE", "--allow-local-plugins", "--checkpoints", "none"),
            3,
            "a trained policy for each of first, second",
        ),
        (("fly", "FILE", "--flights", "0"), 2, "--flights"),
        (("fly", "FILE", "--seed", "-1"), 2, "--seed"),
        (("fly", "FILE", "--until", "1"), 2, "below 1"),
        (("report", "none"), 2, "no such folder"),
        (("report", "."), 2, "an empty folder"),
        (("compare", ".", "FILE"), 2, "--mission FILE"),
        (("new", "Bad Name"), 2, "parachute_descent"),
        (("launch",), 2, "launch"),
    ],
)
def test_wrong_input_is_one_paragraph_and_an_exit_code(mission_file, tmp_path, arguments, code, part):
    done = run_cli(*[mission_file if a == "FILE" else a for a in arguments], cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert part in done.stderr
    assert "Traceback" not in done.stderr


def test_debug_shows_the_traceback(tmp_path):
    assert "Traceback" in run_cli("check", "none.yaml", "--debug", cwd=tmp_path).stderr


def test_check_prints_what_would_run(mission_file):
    text = run_cli("check", mission_file, "--allow-local-plugins").stdout
    assert all(
        part in text
        for part in ("trial: 2 phases", "first", "second", "2,500 vehicle steps", "gate: success >= 0.0 in 100")
    )


def test_fly_json_holds_what_is_promised_and_repeats(mission_file, tmp_path):
    done = run_cli(
        "fly",
        mission_file,
        *GUIDED,
        "--flights",
        120,
        "--seed",
        5,
        "--json",
        "-",
        "--set",
        "phases.first.params.tolerance_m=0.1",
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert {"mission", "digest", "flights", "seed", "policy", "success", "phases"} <= set(report)
    assert (report["mission"], report["flights"], report["seed"], report["policy"]) == ("trial", 120, 5, "guide")
    assert set(report["success"]) == {"count", "rate", "low", "high"}
    first, second = report["phases"]
    assert first["entered"] == 120
    assert second["entered"] == first["succeeded"]
    assert sum(first["causes"].values()) == first["entered"] - first["succeeded"]
    assert set(first["causes"]) == {"missed", "time_out", "non_finite"}
    assert set(first["duration_s"]) == {"mean", "sd", "p05", "p50", "p95", "min", "max"}
    assert set(first["end"]["position_m"]) == {"mean", "sd", "p05", "p50", "p95", "min", "max"}
    assert set(first["limits"]["position_m"]) == {"minimum", "maximum", "worst", "violated"}
    assert first["limits"]["position_m"]["maximum"] == 1.2
    assert math.isclose(first["duration_s"]["mean"], 3.0, abs_tol=0.01)
    overrides = ["phases.first.params.tolerance_m=0.1"]
    again = fly_mission(
        load_mission(mission_file, overrides),
        flights=120,
        seed=5,
        policy="guide",
        allow_local_plugins=True,
        checkpoints=tmp_path,
    )
    assert json.loads(again.to_json()) == report


def test_undefined_is_null(mission_file):
    done = run_cli(
        "fly", mission_file, *GUIDED, "--flights", 30, "--json", "-", "--set", "phases.first.params.tolerance_m=1e-9"
    )
    report = json.loads(done.stdout, parse_constant=lambda text: pytest.fail(f"{text} in JSON"))
    assert report["success"]["count"] == 0
    assert report["phases"][1]["entered"] == 0
    assert report["phases"][1]["rate"] is None
    assert report["phases"][1]["end"]["position_m"]["mean"] is None
    assert report["phases"][1]["limits"]["position_m"]["worst"] is None


def test_json_file_beside_the_table(mission_file, tmp_path):
    done = run_cli("fly", mission_file, *GUIDED, "--flights", 10, "--json", tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text())["flights"] == 10
    assert "success" in done.stdout
    refused = run_cli("fly", mission_file, *GUIDED, "--flights", 10, "--json", tmp_path / "no" / "r.json")
    assert refused.returncode == 3
    assert "a file in a folder that exists" in refused.stderr


def test_schema_accepts_shipped_missions_and_refuses_typos(tmp_path):
    run_cli("schema", "-o", tmp_path / "schema.json")
    schema = json.loads((tmp_path / "schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    for path in sorted((ROOT / "missions").glob("*.yaml")):
        data = YAML(typ="safe").load(path.read_text())
        jsonschema.validate(data, schema)
        data["phases"][0]["sac"] = {"gama": 0.9}
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(data, schema)


@pytest.mark.parametrize("name", ["class", "json", "tests-", "mission", "rocket", "vertical_burn", "Descent", "1st"])
def test_new_refuses_names_that_would_break_or_replace_something(tmp_path, name):
    done = run_cli("new", name, "--directory", tmp_path / "demo")
    assert done.returncode == 2
    assert repr(name) in done.stderr
    assert not (tmp_path / "demo").exists()


def test_new_with_a_word_of_yaml_for_a_name(tmp_path):
    assert run_cli("new", "true", "--directory", tmp_path / "demo").returncode == 0
    assert load_mission(tmp_path / "demo" / "mission.yaml").phases[0].name == "true"


def test_ctrl_c_outside_training_says_what_it_leaves(tmp_path):
    """`check` of a plugin that is slow to import."""
    write_mission(tmp_path, plugin="import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    command = [sys.executable, "-m", "mission", "check", str(tmp_path / "mission.yaml"), "--allow-local-plugins"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert process.stderr.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr.endswith("stopped; what was saved before is kept\n")


def test_progress_shows_every_figure_and_plain_lines_where_there_is_no_terminal(capsys):
    from mission.missionfile.hooks import Event
    from mission.observers import progress

    def send(kind, env_steps=0, **more):
        progress.mission_event(event=Event(kind, "trial", "first", env_steps, **more))

    send("mission_start", data={"phases": ["first"]})
    send("phase_start", data={"budget": 3000})
    scalars = {"Speed/UpdatesPerSecond": 512.0, "Episode/Return": 1.25, "Temperature/Value": 0.1}
    send("evaluation", 500, scalars={"Evaluation/Success": 0.5, "Evaluation/Return": 1.0}, data={"failures": ["low"]})
    send("chunk", 1000, scalars=scalars, data={"budget": 3000, "shown": {"temperature": 0.1}})
    send("gate", 1000, data={"passed": True, "count": 99, "flights": 100, "failures": []})
    send("mission_end", data={"status": "finished"})
    shown = capsys.readouterr().err
    assert "\x1b" not in shown
    for part in ("first: starts at vehicle step 0, budget 3,000", "first: 1,000/3,000 steps, 512 updates/s, return 1.25, "
                 "success 50.0 %, temperature 0.1, ", "success 50.0 %, return 1.00; low", "gate passed (99 of 100"):  # fmt: skip
        assert part in shown


@pytest.mark.parametrize(("steps", "part"), [(8192, "8,192/8,192 steps, "), (20480, "20,480 steps (budget 8,192, ")])
def test_steps_beyond_the_budget_are_no_share_of_it(capsys, steps, part):
    from mission.missionfile.hooks import Event
    from mission.observers import progress

    for kind, more in (
        ("mission_start", {"data": {"phases": ["first"]}}),
        ("chunk", {"scalars": {"Speed/UpdatesPerSecond": 512.0}, "data": {"budget": 8192}}),
        ("mission_end", {}),
    ):
        progress.mission_event(event=Event(kind, "trial", "first", steps, **more))
    assert f"first: {part}" in capsys.readouterr().err


def test_tensorboard_and_third_party_observers_see_the_run(mission_file, tmp_path):
    from factory import fake_distribution

    source = "from mission import hookimpl\n@hookimpl\ndef mission_event(event):\n    open('kinds.txt', 'a').write(event.kind + ' ')\n"
    fake_distribution(
        tmp_path, "acme-watch", "1", {"mission.observers": {"watch": "module_watch"}}, {"module_watch": source}
    )
    options = (
        "--set",
        "observers=[tensorboard, watch]",
        "--set",
        "phases.first.sac.warm_up.steps=20",
        "--log-dir",
        tmp_path / "tb",
        "--phase",
        "first",
    )
    done = run_cli(
        "train",
        mission_file,
        "--allow-local-plugins",
        "--checkpoints",
        tmp_path / "ck",
        *options,
        cwd=tmp_path,
        path=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    (events,) = (tmp_path / "tb").glob("ck-*/trial/first/events*")
    data = events.read_bytes()
    for name in (
        b"CriticWarmUp/Loss",
        b"Critic/Loss",
        b"Actor/Std",
        b"Temperature/Value",
        b"Replay/Priority",
        b"Evaluation/Success",
        b"Action",
        b"Reward",
        b"Critic/TDError",
    ):
        assert name in data
    kinds = (tmp_path / "kinds.txt").read_text().split()
    assert kinds[:2] == ["mission_start", "phase_start"]
    assert list(dict.fromkeys(kinds))[2:4] == ["fill", "warm_up"]
    assert kinds[-2:] == ["phase_end", "mission_end"]
    lines = [
        json.loads(line) for line in (tmp_path / "ck" / "trial" / "first" / "metrics.jsonl").read_text().splitlines()
    ]
    assert {line["kind"] for line in lines} == {"warm_up", "chunk", "evaluation"}  # this phase has no gate
