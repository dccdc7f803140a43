"""A newcomer's first hour: printed lines that can be copied, and messages that say where in the own code to look."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from factory import CART, MISSION, run_cli, write_mission

from mission import MissionError, load_mission, resolve_mission
from mission.cli import main
from mission.cli.flying import Again, fly_campaign
from mission.cli.output import Command
from mission.errors import exception_text
from mission.machine import shell
from mission.machine.extras import import_extra
from mission.sac.config import SacConfig

BIN = Path(sys.executable).parent


def program(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """The `bin` folder of an environment with a python3 and a mission, which is not on the search path."""
    folder = tmp_path / "env" / "bin"
    monkeypatch.setattr(sys, "executable", str(program(folder, "python3")))
    program(folder, "mission")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.delenv("UV_RUN_RECURSION_DEPTH", raising=False)
    return folder


# Lines to copy


def test_an_environment_on_the_search_path_has_short_names(environment, monkeypatch):
    monkeypatch.setenv("PATH", f"{environment}:/usr/bin:/bin")
    assert (shell.mission_command(), shell.python_command()) == ("mission", "python3")


def test_without_it_the_lines_name_the_interpreter(environment):
    assert shell.python_command() == str(environment / "python3")
    assert shell.mission_command() == f"{environment / 'python3'} -m mission"


def test_another_mission_on_the_search_path_is_not_this_one(environment, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(program(tmp_path / "other", "mission").parent))
    assert shell.mission_command() == f"{environment / 'python3'} -m mission"


def test_a_link_to_the_command_as_pipx_makes_it_is_this_one(environment, tmp_path, monkeypatch):
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "mission").symlink_to(environment / "mission")
    monkeypatch.setenv("PATH", str(tmp_path / "links"))
    assert shell.mission_command() == "mission"
    assert shell.python_command() == str(environment / "python3")


def test_under_uv_run_the_search_path_is_not_that_of_the_shell(environment, tmp_path, monkeypatch):
    monkeypatch.setenv("UV_RUN_RECURSION_DEPTH", "1")
    monkeypatch.setenv("PATH", str(environment))
    assert shell.mission_command() == "python3 -m uv run mission"
    assert shell.python_command() == str(environment / "python3")
    monkeypatch.setenv("PATH", f"{environment}:{program(tmp_path / 'tools', 'uv').parent}")
    assert shell.mission_command() == "uv run mission"


@pytest.mark.parametrize("on_the_path", [True, False])
def test_the_next_line_of_a_command_runs_as_it_is_printed(tmp_path, on_the_path):
    write_mission(tmp_path)
    env = {**os.environ, "PATH": f"{BIN}:/usr/bin:/bin" if on_the_path else "/usr/bin:/bin"}
    env.pop("UV_RUN_RECURSION_DEPTH", None)
    command = [sys.executable, "-m", "mission", "check", "mission.yaml", "--allow-local-plugins"]
    shown = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True).stdout
    printed = shown.splitlines()[-1].removeprefix("next: ").partition("  (")[0]
    assert " train mission.yaml --allow-local-plugins" in printed
    again = printed.replace(" train ", " check ")
    assert subprocess.run(["sh", "-c", again], cwd=tmp_path, env=env, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("pip", [True, False])
def test_a_missing_package_is_installed_into_this_environment(environment, monkeypatch, pip):
    monkeypatch.setattr("mission.machine.shell.importlib.util.find_spec", lambda name: pip or None)
    monkeypatch.setenv("UV", "/opt/uv")
    with pytest.raises(MissionError) as caught:
        import_extra("no_such_package", "mission-engine[data]", "to_arrow")
    tool, end = (f"{environment / 'python3'} -m", "") if pip else ("/opt/uv", f" --python {environment / 'python3'}")
    assert caught.value.remedy == f'install it: {tool} pip install "mission-engine[data]"{end}'


def test_the_next_command_keeps_the_options_of_the_flights(capsys, monkeypatch):
    monkeypatch.setattr("mission.scale.fly.fly_mission", lambda *_, **__: None)
    monkeypatch.setattr("mission.report.terminal.print_summary", lambda *_: None)
    again = Again(Path("a.yaml"), ["--seed", "5"], ["--starts", "s.csv"], ["--allow-local-plugins"], guides=True)
    mission = load_mission({"name": "a", "seed": 1, "phases": [{"name": "b", "plugin": "c", "policy": "guide"}]})
    options = {"starts": Path("s.csv"), "flights": None}
    fly_campaign(mission, options | {"report": None}, None, again)
    fly_campaign(mission, options | {"report": Path("r")}, None, again)
    first, second = [line for line in capsys.readouterr().out.splitlines() if line.startswith("next: ")]
    assert " fly a.yaml --seed 5 --starts s.csv --report reports/a " in first
    assert " train a.yaml --allow-local-plugins " in second


def test_a_flight_with_options_names_them_in_the_next_line(tmp_path):
    mission = write_mission(tmp_path)
    flown = run_cli("fly", mission, "--policy", "guide", "--seed", "9", "--flights", "20", "--allow-local-plugins")
    assert shlex.split(flown.stdout.splitlines()[-1])[3:9] == [
        str(mission), "--policy", "guide", "--seed", "9", "--allow-local-plugins",
    ]  # fmt: skip


# Ends of the process


def test_a_library_that_replaces_exit_does_not_turn_success_into_an_error(monkeypatch, capsys):
    """Weights & Biases does so to learn the exit code."""
    end = sys.exit
    monkeypatch.setattr(sys, "exit", lambda code=0: end(code))
    monkeypatch.setattr(sys, "argv", ["mission", "plugins", "--json"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 0
    assert "error" not in capsys.readouterr().err


def test_the_list_of_commands_shows_whole_sentences():
    shown = " ".join(run_cli("--help").stdout.split())
    assert "..." not in shown.partition("Commands:")[2]
    command = Command("a", help="One sentence that is long enough to be cut at the usual limit. Another.")
    assert command.get_short_help_str(20) == "One sentence that is long enough to be cut at the usual limit."


def test_the_columns_of_the_plugins_are_aligned():
    rows = [line for line in run_cli("plugins").stdout.splitlines() if line.startswith("mission.")]
    listed = json.loads(run_cli("plugins", "--json").stdout)
    assert {row.index(one["name"], 15) for row, one in zip(rows, listed, strict=True)} == {21}


def test_one_thing_is_counted_in_the_singular(tmp_path):
    text = MISSION.partition("  - name: second")[0]
    shown = run_cli("check", write_mission(tmp_path, text), "--allow-local-plugins").stdout
    assert shown.startswith("trial: 1 phase, seed 3")
    assert "; 2 observations, 1 action, " in shown


# Messages


def refused(folder: Path, text: str = MISSION, plugin: str = CART) -> MissionError:
    with pytest.raises(MissionError) as caught:
        resolve_mission(load_mission(write_mission(folder, text, plugin)), allow_local_plugins=True)
    return caught.value


def test_an_exception_of_a_plugin_names_its_line(tmp_path):
    plugin = CART.replace("after.cart.position_m", "after.cart.height_m")
    line = next(i for i, row in enumerate(plugin.splitlines(), 1) if "after.cart.height_m" in row)
    error = refused(tmp_path, plugin=plugin)
    assert error.found == f"AttributeError: 'Cart' object has no attribute 'height_m' (cart.py, line {line}, in terms)"


def test_the_line_is_the_innermost_one_of_the_plugin(tmp_path):
    (tmp_path / "drag.py").write_text("def drag(speed):\n    return speed.shape[3]\n")
    plugin = CART.replace("import dataclasses", "import dataclasses\nfrom drag import drag", 1)
    plugin = plugin.replace("velocity = state", "drag(state.time_s)\n        velocity = state")
    assert refused(tmp_path, plugin=plugin).found.endswith("(drag.py, line 2, in drag)")


@pytest.mark.parametrize(
    "code", ["if state.time_s > 1.0: pass", "import math; math.sin(state.time_s)", "range(state.time_s.astype(int))"]
)
def test_python_on_traced_values_is_explained(tmp_path, code):
    plugin = CART.replace("velocity = state", f"{code}\n        velocity = state")
    error = refused(tmp_path, plugin=plugin)
    assert error.remedy.startswith("write jnp.where for `if`")
    assert "in step)" in error.found


def test_a_wrong_setting_in_a_plugin_names_the_setting(tmp_path):
    error = refused(tmp_path, plugin=CART.replace("gamma=0.9", "gama=0.9"))
    assert error.found.startswith("ValidationError: SacConfig.gama: Extra inputs are not permitted (cart.py, line ")
    with pytest.raises(ValueError, match="2 validation errors") as caught:
        SacConfig.model_validate({"actor": {"width": -1}, "gamma": "x"})
    assert exception_text(caught.value).startswith("ValidationError: SacConfig.actor.width: ")


@pytest.mark.parametrize("name", ["cart", "./cart", "cart.py", "crt", "carts.py"])
def test_a_file_beside_the_mission_file_is_suggested(tmp_path, name):
    write_mission(tmp_path, MISSION.replace("./cart.py", name))
    with pytest.raises(MissionError) as caught:
        resolve_mission(load_mission(tmp_path / "mission.yaml"))
    assert './cart.py"' in caught.value.remedy or "--allow-local-plugins" in caught.value.remedy


@pytest.mark.parametrize(
    ("text", "expected", "found", "remedy"),
    [
        ("", "a mapping with keys of: chain, name,", "nothing", "write lines `KEY: VALUE` there"),
        ("- name: a\n", "a mapping with keys of: chain, name,", "[{'name': 'a'}]", "write lines"),
        (MISSION.replace("{env_steps: 3000}", "3000"), "a mapping with keys of: env_steps", "3000", "write lines"),
        (MISSION.replace("seed: 3", 'seed: "3"'), "a valid integer", "'3'", "write 3 without quotes"),
        (MISSION.replace("0.0, flights", '"0.5", flights'), "a valid number", "'0.5'", "write 0.5 without quotes"),
        (MISSION.replace("seed: 3", "seed: three"), "a valid integer", "'three'", "change the value"),
        (MISSION.replace("seed: 3", "\tseed: 3"), "YAML 1.2", "cannot start any token", "indent with spaces, not with tabs"),
    ],
)  # fmt: skip
def test_common_slips_in_a_mission_file(tmp_path, text, expected, found, remedy):
    path = tmp_path / "mission.yaml"
    path.write_text(textwrap.dedent(text))
    with pytest.raises(MissionError) as caught:
        load_mission(path)
    error = caught.value
    assert error.expected.startswith(expected)
    assert found in error.found
    assert error.remedy.startswith(remedy)
