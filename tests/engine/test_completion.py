"""Completion on the command line for bash, zsh and fish, and the command that each command names as the next one."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from factory import ROOT, run_cli, write_mission

PROGRAM = "import sys; sys.argv = ['mission']; from mission.cli import main; main()"
HEAVY = ("jax", "numpy", "scipy", "orbax", "ruamel", "optax", "flax", "rich.live")
SHELLS = ("bash", "zsh", "fish")


def run(cwd: Path = ROOT, code: str = PROGRAM, **environment: str) -> str:
    paths = os.pathsep.join([str(ROOT), str(ROOT / "plugins" / "rocket")])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": paths} | environment,
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=60,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


def complete(line: str, cwd: Path = ROOT) -> list[str]:
    """What bash shows for a line that ends with the word to complete."""
    number = len(line.split(" ")) - 1
    return run(cwd, _MISSION_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(number)).split()


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_of_each_shell_is_produced(shell, tmp_path):
    script = run(_MISSION_COMPLETE=f"source_{shell}")
    assert "_MISSION_COMPLETE=complete_" in script
    assert {"bash": "complete -o", "zsh": "#compdef mission", "fish": "complete --command mission"}[shell] in script
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"no {shell} here to read the script")
    path = tmp_path / "script"
    path.write_text(script)
    subprocess.run([program, "-n", str(path)], check=True, timeout=30)


def test_bash_completes_with_its_script(tmp_path):
    """The whole way: bash calls the function of the script, which calls `mission`."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash here")
    program = tmp_path / "mission"
    program.write_text(f"#!/bin/sh\nexec {shlex.quote(sys.executable)} -c {shlex.quote(PROGRAM)}\n")
    program.chmod(0o755)
    (tmp_path / "script").write_text(run(_MISSION_COMPLETE="source_bash"))
    code = "source ./script; COMP_WORDS=(mission tra); COMP_CWORD=1; _mission_completion mission; echo ${COMPREPLY[@]}"
    paths = os.pathsep.join([str(ROOT), str(ROOT / "plugins" / "rocket")])
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": paths}
    done = subprocess.run([bash, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["train"], done.stderr


@pytest.mark.parametrize(
    ("words", "place", "completed"),
    [
        (["mission", "fly", "vertical", "--policy", "burn", "=", "gui"], 6, ["guide"]),
        (["mission", "check", "vertical", "--set", "phases.burn.plugin", "=", "vertical_b"], 6, ["vertical_burn"]),
        (["mission", "train", "vertical", "--init", "burn", "=", "docs/ph"], 6, ["docs/phases/"]),
        (["mission", "train", "vertical", "--set", "seed", "=", "1", "--phase", "b"], 8, ["burn"]),
    ],
)
def test_bash_takes_the_part_behind_an_equals_sign_for_a_word(words, place, completed):
    shown = run(_MISSION_COMPLETE="complete_bash", COMP_WORDS="\n".join(words), COMP_CWORD=str(place))
    assert shown.split() == completed


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_other_shells_get_the_same_words(shell):
    words = {"_TYPER_COMPLETE_ARGS": "mission train vertical --phase ", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    shown = run(_MISSION_COMPLETE=f"complete_{shell}", **words)
    assert re.findall(r"\b(coast|burn)\b", shown) == ["coast", "burn"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("mission wat", ["watch"]),
        ("mission train verti", ["vertical"]),
        ("mission fly missions/vert", ["missions/vertical.yaml"]),
        ("mission train missions/vertical.yaml --phase ", ["coast", "burn"]),
        ("mission train missions/vertical.yaml --phase b", ["burn"]),
        ("mission export vertical --format s", ["stablehlo"]),
        ("mission fly vertical --policy burn=gui", ["burn=guide"]),
        ("mission fly vertical --judge ", ["box", "mission"]),
        ("mission train vertical --init ", ["coast=", "burn="]),
        ("mission check vertical --set phases.burn.plugin=vertical", ["phases.burn.plugin=vertical_burn", "phases.burn.plugin=vertical_coast"]),
        ("mission check vertical --set observers=[pr", ["observers=[progress]"]),
        ("mission check vertical --set observers=", [f"observers=[{name}]" for name in ("mlflow", "progress", "tensorboard", "wandb")]),
        ("mission train no_such_mission --phase ", []),
        ("mission train --phase ", []),
    ],
)  # fmt: skip
def test_what_is_completed(line, words):
    assert complete(line) == words


def test_phases_of_a_file_in_any_layout(tmp_path):
    write_mission(tmp_path)
    (tmp_path / "flow.yaml").write_text('name: x\nphases: [{name: "one", plugin: a}, {plugin: b, name: two}]\n')
    (tmp_path / "torn.yaml").write_bytes(b"name: x\nphases:\n  - name: first\n    \xff\xfe")
    assert complete("mission train mission.yaml --phase ", tmp_path) == ["first", "second"]
    assert "one" in complete("mission train flow.yaml --phase ", tmp_path)
    assert complete("mission train torn.yaml --phase ", tmp_path) == []
    assert complete("mission train m", tmp_path) == ["mission.yaml"]


@pytest.mark.parametrize("line", ["mission tr", "mission train missions/vertical.yaml --phase ", "mission fly ver"])
def test_nothing_heavy_is_imported(line):
    """Every press of Tab starts a process."""
    number = str(len(line.split(" ")) - 1)
    code = "import atexit, sys; atexit.register(lambda: print('LOADED', *sorted(sys.modules)))\n" + PROGRAM
    shown = run(code=code, _MISSION_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=number)
    loaded = shown.partition("LOADED")[2].split()
    assert "mission.cli" in loaded
    assert not [name for name in HEAVY if name in loaded]


def test_the_options_are_in_the_help():
    shown = run_cli("--help").stdout
    assert "--install-completion" in shown
    assert "--show-completion" in shown


def last(done) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_each_command_names_the_next_one(tmp_path):
    mission = write_mission(tmp_path)
    common = (mission, "--allow-local-plugins")
    assert last(run_cli("plugins")).startswith("next: mission check ")
    assert last(run_cli("check", *common)).startswith(f"next: mission train {mission} --allow-local-plugins ")
    flown = last(run_cli("fly", *common, "--policy", "guide", "--flights", "20", cwd=tmp_path))
    same, local = f"next: mission fly {mission} --policy guide", "--allow-local-plugins"
    assert flown.startswith(f"{same} {local} --flights 20 --report reports/trial ")
    # those very flights, also in the next command
    chosen = ("--policy", "guide", "--seed", "5", "--only", "7")
    assert last(run_cli("fly", *common, *chosen, cwd=tmp_path)).startswith(
        f"{same} --seed 5 {local} --only 7 --trajectory flights/trial "
    )
    written = run_cli("fly", *common, *chosen, "--trajectory", tmp_path / "t", cwd=tmp_path)
    assert last(written).startswith(f"{same} --seed 5 {local} --report reports/trial ")
    report = ("--flights", "20", "--policy", "guide", "--report", tmp_path / "r")
    assert last(run_cli("fly", *common, *report, cwd=tmp_path)).startswith("next: mission train ")
    assert last(run_cli("report", tmp_path / "r", "--mission", *common)).startswith("next: open the page")
    assert "next:" in run_cli("new", "drop", "--directory", tmp_path / "drop").stdout


def test_json_holds_nothing_else(tmp_path):
    mission = write_mission(tmp_path)
    flown = run_cli(
        "fly", mission, "--allow-local-plugins", "--policy", "guide", "--flights", "20", "--json", "-", cwd=tmp_path
    )
    for done in (flown, run_cli("plugins", "--json"), run_cli("cache", "--json"), run_cli("schema")):
        assert done.returncode == 0
        assert "next:" not in done.stdout
