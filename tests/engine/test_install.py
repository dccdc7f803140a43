"""The commands of docs/install.md and of `mission new` work outside the checkout, in a clean environment with built wheels."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from factory import ROOT, blocks

pytestmark = pytest.mark.wheels
PAGE = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
NO_NETWORK = re.compile("temporary failure|could not connect|dns error|no matching distribution", re.IGNORECASE)


def shell(commands: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run commands as a reader types them, in a folder whose `.venv` is active if there is one."""
    ours = (
        "PYTHONPATH",
        "VIRTUAL_ENV",
        "UV",
        "UV_RUN_RECURSION_DEPTH",
        "UV_PYTHON",
        "UV_PROJECT_ENVIRONMENT",
    )  # of the environment of these tests
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    environment["PATH"] = f"{folder}/.venv/bin:{os.environ['PATH']}"
    command = ["bash", "-c", f"set -e\n{commands}"]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False
    )


def succeed(commands: str, folder: Path) -> str:
    """Run commands that must end with 0; return what they print."""
    done = shell(commands, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def block(title: str, language: str = "bash") -> str:
    (found,) = blocks(PAGE, language, title)
    return found


@pytest.fixture(scope="module")
def flights(tmp_path_factory):
    """A folder beside the checkout, after the commands of that section; `output` holds what they printed."""
    folder = tmp_path_factory.mktemp("beside") / "flights"
    folder.mkdir()
    (folder.parent / "mission-engine").symlink_to(ROOT)
    done = shell(block("beside the clone"), folder)
    if done.returncode and NO_NETWORK.search(done.stderr):
        pytest.skip(f"no package index: {done.stderr[-200:]}")
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "output").write_text(done.stdout)
    return folder


def site(folder: Path) -> Path:
    (found,) = folder.glob(".venv/lib/python*/site-packages/mission_rocket")
    return found


def written(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if "__pycache__" not in path.parts}


def test_a_name_flies_the_shipped_policies_in_any_folder(flights):
    assert "success 1000 of 1000" in (flights / "output").read_text()
    assert succeed("python -m mission check vertical", flights).startswith("vertical: 2 phases")
    assert not (flights / "checkpoints").exists()
    for place in ("missions", "checkpoints/shipped"):
        ours = {path.relative_to(ROOT / place) for path in (ROOT / place).rglob("*") if path.name != ".lock"}
        packed = site(flights) / Path(place).name
        assert {path.relative_to(packed) for path in packed.rglob("*")} == ours


def test_shipped_policies_in_site_packages_are_not_trained_into(flights):
    before = written(site(flights))
    done = shell(f"mission train vertical --fresh --checkpoints {site(flights)}/shipped", flights)
    assert done.returncode == 2, done.stderr
    assert "read-only" in done.stderr
    assert written(site(flights)) == before


@pytest.fixture(scope="module")
def lines(flights):
    """The lines that `mission new` prints, the first of which was run."""
    lines = succeed(block("a phase"), flights).partition("next:\n")[2].splitlines()
    assert [re.findall(r" (install|train|fly|pytest) ", line)[0] for line in lines] == [
        "install",
        "train",
        "fly",
        "pytest",
    ]
    succeed(lines[0], flights)
    return lines


def test_the_lines_that_new_prints_work(flights, lines):
    """The guide flies here, because training takes longer; the next test trains."""
    trained = succeed(f"{lines[1]} --set phases.landing_leg.policy=guide --baseline 0", flights)
    assert "landing_leg: flown by its guide" in trained
    shutil.rmtree(flights / "checkpoints")
    assert "success 1000 of 1000" in succeed(f"{lines[2]} --policy guide", flights)
    assert "1 passed" in succeed(lines[3], flights)
    readme = (flights / "landing_leg" / "README.md").read_text()
    commands = [line.split()[1:] for line in readme.splitlines() if line.startswith("    python ")]
    assert [words[2] for words in commands[:3]] == ["install", "train", "fly"]
    assert commands[3] == ["-m", "pytest"]


@pytest.mark.slow
def test_the_lines_that_new_prints_train(flights, lines):
    output = [succeed(line, flights) for line in lines]
    assert "landing_leg: trained" in output[1]
    assert float(re.findall(r"success \d+ of 1000: ([\d.]+) %", output[2])[0]) > 95.0


def test_uvx_and_a_notebook(flights):
    assert succeed(block("uvx"), flights).startswith("vertical: 2 phases")
    (flights / "cell.py").write_text(block("a notebook", "python"))
    assert succeed("python cell.py", flights) == "coast 200 200\nburn 200 200\n1.0\n"


def test_both_wheels_have_licence_description_and_bounds(flights):
    requirements = {}
    for wheel in (flights / "wheels").glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            info = {Path(name).name: name for name in archive.namelist() if ".dist-info/" in name}
            metadata = Parser().parsestr(archive.read(info["METADATA"]).decode())
            assert archive.read(info["LICENSE"]) == (ROOT / "LICENSE").read_bytes()
        assert metadata["License-Expression"] == "Apache-2.0"
        assert len(metadata["Summary"]) > 40
        assert len(str(metadata.get_payload())) > 200
        assert wheel.stat().st_size < 10e6
        requirements[metadata["Name"]] = [re.sub(r"[ '\"]", "", text) for text in metadata.get_all("Requires-Dist")]
    assert "mission-engine<0.2,>=0.1" in requirements["mission-rocket"]
    assert "mission-rocket<0.2,>=0.1;extra==rocket" in requirements["mission-engine"]
