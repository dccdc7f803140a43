"""Missions by name, `python -m mission`, and the skeletons of `mission new`, in this process."""

from __future__ import annotations

import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from factory import CART, MISSION, fake_distribution
from typer.testing import CliRunner

from mission import compare, fly_mission, load_mission, resolve_mission, train_mission
from mission.cli import app, main
from mission.errors import InputError
from mission.missionfile.named import list_missions, mission_path, shipped_policies
from mission.missionfile.skeleton import next_steps, write_skeleton
from mission.storage.protection import READ_ONLY

GUIDED = MISSION.replace("./cart.py", "acme_cart").replace("    budget", "    policy: guide\n    budget")


@pytest.fixture
def acme(tmp_path, monkeypatch):
    """A distribution with a phase and the mission `trial`, the folder of its package, and an empty current folder."""
    site = tmp_path / "site"
    groups = {"mission.phases": {"acme_cart": "acme.cart"}, "mission.missions": {"acme": "acme"}}
    fake_distribution(site, "acme-flights", "1.2", groups, {})
    package = site / "acme"
    (package / "missions").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "cart.py").write_text(CART)
    (package / "missions" / "trial.yaml").write_text(GUIDED)
    (tmp_path / "here").mkdir()
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.chdir(tmp_path / "here")
    yield package
    for name in [name for name in sys.modules if name.split(".")[0] == "acme"]:
        del sys.modules[name]


def test_a_mission_is_found_by_name_without_an_import(acme):
    assert mission_path("trial") == mission_path("acme-flights:trial") == acme / "missions" / "trial.yaml"
    assert [one.distribution for one in list_missions() if one.name == "trial"] == ["acme-flights"]
    assert "acme" not in sys.modules
    assert load_mission("trial", ["seed=9"]).seed == 9


def test_plugins_lists_missions(acme):
    rows = json.loads(CliRunner().invoke(app, ["plugins", "--json"]).stdout)
    (row,) = (row for row in rows if row["name"] == "trial")
    assert (row["group"], row["distribution"], row["version"]) == ("mission.missions", "acme-flights", "1.2")
    assert row["target"] == str(acme / "missions" / "trial.yaml")
    assert "acme" not in sys.modules


def test_every_command_takes_a_name(acme, tmp_path):
    runner, here = CliRunner(), Path.cwd()

    def run(*arguments: str):
        result = runner.invoke(app, list(arguments))
        assert result.exit_code == 0, (result.output, result.exception)
        return result.stdout

    assert run("check", "trial").startswith("trial: 2 phases")
    run("train", "trial", "--baseline", "0")
    assert {path.name for path in (here / "checkpoints" / "trial").iterdir()} == {".lock", "first", "second"}
    assert json.loads(run("fly", "trial", "--flights", "20", "--json", "-"))["flights"] == 20
    run("fly", "trial", "--flights", "20", "--report", "r")
    assert run("report", "r", "--mission", "trial").splitlines()[0] == str(Path("r", "index.html"))
    assert json.loads(run("compare", "trial", "acme-flights:trial", "--flights", "20", "--json"))["flights"] == 20
    assert not (acme / "shipped").exists()


def test_a_file_comes_before_a_name_and_a_name_before_a_folder(acme):
    Path("trial").mkdir()
    assert mission_path("trial") == acme / "missions" / "trial.yaml"
    Path("trial").rmdir()
    Path("trial").write_text(GUIDED.replace("seed: 3", "seed: 77"))
    assert load_mission("trial").seed == 77


@pytest.mark.parametrize(
    ("reference", "found", "remedy"),
    [
        ("trail", "no such file or mission", 'did you mean "trial"'),
        ("missions/trial.yaml", "no such file", 'did you mean "trial"'),
        ("other:trial", "no such file or mission", "trial"),
        ("zzzz.yaml", "no such file", "give the path"),
        ("../trial", "no such file", "trial"),
    ],
)
def test_an_unknown_name_lists_the_missions(acme, reference, found, remedy):
    with pytest.raises(InputError) as caught:
        load_mission(reference)
    assert "trial" in caught.value.expected
    assert caught.value.found == found
    assert remedy in caught.value.remedy


def test_two_distributions_with_one_name(acme, tmp_path):
    other = tmp_path / "site" / "umbrella" / "missions"
    other.mkdir(parents=True)
    (other.parent / "__init__.py").touch()
    (other / "trial.yaml").write_text(GUIDED)
    fake_distribution(tmp_path / "site", "umbrella", "3", {"mission.missions": {"u": "umbrella"}}, {})
    with pytest.raises(InputError, match=r"several: acme-flights 1.2, umbrella 3"):
        load_mission("trial")
    assert mission_path("umbrella:trial") == other / "trial.yaml"


@pytest.mark.parametrize("target", ["nowhere", "json", "acme.deep", "..", "acme:thing"])
def test_an_entry_point_without_missions_harms_no_other(acme, tmp_path, target):
    fake_distribution(tmp_path / "site", "broken", "1", {"mission.missions": {"b": target}}, {})
    assert mission_path("acme-flights:trial") == acme / "missions" / "trial.yaml"
    assert {one.distribution for one in list_missions()} <= {"acme-flights", "broken", "mission-rocket"}


def test_shipped_policies_of_a_distribution_fly_anywhere_and_stay_as_they_are(acme, tmp_path, caplog):
    agent = [f"phases.first.{key}" for key in ("policy=agent", "budget.env_steps=1024", "bank.flights=100")]
    mission = load_mission("trial", agent)
    train_mission(mission, checkpoints=tmp_path / "ck", only=["first"], baseline_flights=0)
    shutil.copytree(tmp_path / "ck" / "trial", acme / "shipped" / "trial")
    (acme / "shipped" / READ_ONLY).touch()
    assert shipped_policies("trial") == (acme / "shipped" / "trial",)
    assert fly_mission(mission, flights=10).flights == 10
    assert compare(mission, mission, flights=10).success.difference == 0.0
    assert caplog.text.count("flying the shipped ones") == 1, "not for each side of a comparison"
    with pytest.raises(InputError, match="read-only"):
        train_mission(mission, checkpoints=acme / "shipped")
    with pytest.raises(Exception, match="a trained policy"):
        fly_mission(mission, flights=10, checkpoints=tmp_path / "none")


def test_python_m_mission(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["mission", "--version"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("mission", run_name="__main__")
    assert stopped.value.code == 0
    assert capsys.readouterr().out.startswith("mission ")


# mission new


def test_the_skeleton_s_mission_has_its_name_and_git_ignores_what_runs_write(tmp_path):
    folder = write_skeleton("parachute-descent", tmp_path / "demo")
    mission = load_mission(folder / "mission.yaml")
    assert (mission.name, mission.phases[0].name) == ("parachute-descent", "parachute-descent")
    ignored = (folder / ".gitignore").read_text().splitlines()
    assert {"/checkpoints/", "/runs/", "__pycache__/"} <= set(ignored)
    assert "__" not in (folder / "pyproject.toml").read_text() + (folder / "mission.yaml").read_text()


@pytest.mark.parametrize("pip", [True, False])
def test_the_printed_lines_name_this_environment(tmp_path, monkeypatch, pip):
    monkeypatch.setattr("mission.machine.shell.importlib.util.find_spec", lambda name: pip or None)
    monkeypatch.setenv("UV", "/opt/uv")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.delenv("UV_RUN_RECURSION_DEPTH", raising=False)
    install, train, fly, test = next_steps(Path("my demo"))
    tool, end = (f"{sys.executable} -m pip", "") if pip else ("/opt/uv pip", f" --python {sys.executable}")
    assert install == f"{tool} install -q -e './my demo[test]'{end}"
    assert train == f"{sys.executable} -m mission train 'my demo/mission.yaml'"
    assert fly == f"{sys.executable} -m mission fly 'my demo/mission.yaml'"
    assert test == f"{sys.executable} -m pytest './my demo'"


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """The folder of a chain of two, importable as an installed distribution."""
    folder = write_skeleton("two-stage", tmp_path_factory.mktemp("new") / "chain", ("tow", "stop-here"))
    fake_distribution(
        folder, "mission-two-stage", "0.1.0",
        {"mission.phases": {"tow": "two_stage.tow", "stop-here": "two_stage.stop_here"}}, {},
    )  # fmt: skip
    return folder


@pytest.fixture
def installed_chain(chain, monkeypatch):
    monkeypatch.syspath_prepend(str(chain))
    return chain


def test_a_chain_links_over_its_staging_and_its_guides_fly_it(installed_chain):
    mission = load_mission(installed_chain / "mission.yaml")
    assert [phase.name for phase in mission.phases] == ["tow", "stop-here"]
    tow, stop = resolve_mission(mission)
    assert type(tow.accepts) is not type(tow.leaves)
    assert type(tow.leaves) is type(stop.accepts)
    summary = fly_mission(mission, flights=100, policy="guide")
    assert summary.success.count == 100
    assert summary.phases[0].end["mass_kg"].min > 1.5 > summary.phases[1].end["mass_kg"].max


def test_the_tests_of_a_chain_pass(installed_chain):
    tests = runpy.run_path(str(installed_chain / "tests" / "test_two_stage.py"))
    tests["test_contract"]()
    tests["test_the_staging_keeps_the_position_and_adds_the_spring_s_push"]()


@pytest.mark.parametrize(
    ("phases", "part"),
    [
        ("tow", "two different names"),
        ("tow,stop,land", "two different names"),
        ("tow,tow", "two different names"),
        ("a-b,a_b", "two different names"),
        ("tow,", "a name like tow"),
        ("Tow,stop", "a name like tow"),
        ("class,stop", "'class'"),
        ("report,stop", "'report'"),
        ("handover,stop", "'handover'"),
        ("vertical_burn,stop", "'vertical_burn'"),
        ("", "two different names"),
    ],
)
def test_phases_that_cannot_be_written_are_refused(tmp_path, monkeypatch, capsys, phases, part):
    arguments = ["mission", "new", "demo", "--phases", phases, "--directory", str(tmp_path / "demo")]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert part in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize("phases", [(), ("tow", "stop")], ids=["one", "chain"])
def test_skeletons_are_clean_for_a_type_checker(tmp_path, phases):
    ty = Path(sys.executable).with_name("ty")
    if not ty.exists():
        pytest.skip("ty is not installed here")
    folder = write_skeleton("demo_phase", tmp_path / "demo", phases)
    command = [str(ty), "check", "--python", sys.prefix, "--error-on-warning", "."]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout
