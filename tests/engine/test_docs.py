"""Documentation says what the code does: keys, options, metrics, hooks, commands and code blocks."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType

import pytest
import typer
from pydantic import BaseModel

from mission import Event, fly_mission, load_mission, train_mission
from mission.cli import app
from mission.errors import MissionError
from mission.gate import ChannelGate, Gate
from mission.hooks import ObserverHooks, PhaseHooks
from mission.missionfile.models import Bank, Budget, Evaluation, MissionFile, PhaseEntry, Restart
from mission.missionfile.plugins import hook_caller
from mission.missionfile.schema import mission_schema
from mission.testing import check_phase

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")])


def read(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def load_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def blocks(page: str, kind: str) -> list[str]:
    """Contents of the fenced blocks whose info string is `kind`."""
    return re.findall(rf"^```{re.escape(kind)}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


# The mission file


@pytest.mark.parametrize("model", [MissionFile, PhaseEntry, Budget, Gate, ChannelGate, Restart, Bank, Evaluation])
def test_every_key_is_documented(model: type[BaseModel]) -> None:
    page = read("mission-file.md")
    rows = dict(re.findall(r"^\| `(\w+)` \| (\S.*?) \|", page, re.MULTILINE))
    assert set(model.model_fields) <= set(rows)


@pytest.mark.parametrize("model", [Budget, Gate, Restart, Bank, Evaluation])
def test_documented_defaults_are_the_code_s(model: type[BaseModel]) -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\S.*?) \|", read("mission-file.md"), re.MULTILINE)
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        assert (name, f"`{json.dumps(default)}`") in rows


def test_schema_is_current() -> None:
    assert json.loads(read("mission.missionfile.schema.json")) == mission_schema(), "run `make docs`"


def test_command_line_page_is_current() -> None:
    assert load_file(DOCS / "generate.py").command_line() == read("command-line.md"), "run `make docs`"


# SAC


def test_option_table_is_current() -> None:
    generate = load_file(DOCS / "generate.py")
    page = read("sac.md")
    assert generate.with_options(page) == page, "run `make docs`"
    assert all(meaning for _, _, meaning, _ in generate.options(generate.SacConfig())), (
        "an option without a meaning and a seed"
    )


def emitted_metrics() -> set[str]:
    """Names of scalars and histograms: capitalised keys and subscripts, and prefixes such as `Reward/`."""
    names: set[str] = set()
    for file in ("sac.py", "train.py", "programs.py"):
        for node in ast.walk(ast.parse((ROOT / "mission" / file).read_text(encoding="utf-8"))):
            found: list[ast.expr | None] = []
            if isinstance(node, ast.Dict):
                found = list(node.keys)
            elif isinstance(node, ast.Subscript):
                found = [node.slice]
            elif isinstance(node, ast.DictComp):
                found = [node.key]
            for key in found:
                text = key.values[0] if isinstance(key, ast.JoinedStr) else key
                if (
                    isinstance(text, ast.Constant)
                    and isinstance(text.value, str)
                    and re.match(r"[A-Z]\w*(/\w*)?$", text.value)
                ):
                    names.add(text.value)
    return names


def test_every_metric_is_explained() -> None:
    names = emitted_metrics()
    assert {
        "Critic/Loss",
        "Reward/",
        "Reward",
        "Speed/UpdatesPerSecond",
        "CriticWarmUp/Loss",
        "Replay/Priority",
    } <= names
    rows = set(re.findall(r"^\| `([A-Z][\w/]*)(?:<term>)?` \| \S", read("sac.md"), re.MULTILINE))
    assert names == rows


# Hooks, events, exit codes


def test_every_hook_is_documented() -> None:
    page = read("writing-a-phase.md")
    hooks = [
        name
        for group in (PhaseHooks, ObserverHooks)
        for name, value in vars(group).items()
        if hasattr(value, "mission_spec")
    ]
    assert len(hooks) >= 2
    for name in hooks:
        assert re.search(rf"^## .*`{name}`", page, re.MULTILINE), f"no section on {name}"


def test_every_event_is_documented() -> None:
    sent = set()
    for path in (ROOT / "mission").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        sent |= set(re.findall(r"""emit\(\s*"(\w+)\"""", text))
    documented = set(re.findall(r"^\| `(\w+)` \|", read("writing-a-phase.md"), re.MULTILINE))
    assert sent == documented
    assert Event.__doc__ is not None
    assert all(kind in Event.__doc__ for kind in sent)


def test_every_exit_code_is_documented() -> None:
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", read("checkpoints.md"), re.MULTILINE)}
    assert {MissionError.exit_code, *(child.exit_code for child in MissionError.__subclasses__())} | {0} == documented


# Commands and links


def commands() -> list[tuple[str, str]]:
    """(page, command line) for every `mission ...` in code of the pages."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        lines = re.findall(r"^    (\S.*)$", text, re.MULTILINE) + re.findall(r"`([^`\n]+)`", text)
        for part in (part.strip() for line in lines for part in line.split("&&")):
            words = part.removeprefix("python3 -m uv run ")
            if re.match(r"mission (train|fly|check|plugins|schema|new|report|compare)\b", words) or (
                words.startswith("mission ") and part != words
            ):
                found.append((page.name, words))
    return sorted(set(found))


@pytest.mark.parametrize(("page", "line"), commands())
def test_commands_parse(page: str, line: str) -> None:
    group = typer.main.get_command(app)
    name, *arguments = shlex.split(line)[1:]
    command = group.commands[name]  # ty: ignore[missing-attribute]
    with pytest.raises(typer.Exit) as stopped:
        command.make_context(name, ["--help"])
    assert stopped.value.exit_code == 0
    if arguments:
        command.make_context(name, arguments)
    for path in (word for word in arguments if word.startswith("missions/")):
        assert (ROOT / path).is_file()
    for path in (word for word in arguments if word.startswith("checkpoints/shipped/")):
        assert (ROOT / path).is_dir()


def test_the_first_screen_has_three_commands() -> None:
    screen = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## ")[0]
    lines = re.findall(r"^    (\S.*)$", screen, re.MULTILINE)
    assert len(lines) == 3
    assert all(line.startswith("python3 -m pip install -q uv && python3 -m uv run ") for line in lines)


def test_the_readme_s_phase_keeps_the_contract(tmp_path: Path) -> None:
    (block,) = blocks((ROOT / "README.md").read_text(encoding="utf-8"), "python rail.py")
    head = "import dataclasses\nimport jax\nimport jax.numpy as jnp\nfrom typing import NamedTuple\nfrom pydantic import BaseModel\n"
    head += "from mission import Environment, Outcome, PhaseSpec, SacConfig, hookimpl\n\n\n"
    (tmp_path / "rail.py").write_text(head + block, encoding="utf-8")
    check_phase(load_file(tmp_path / "rail.py").mission_phase())
    code = [line for line in block.splitlines() if line.strip()]
    assert len(code) <= 36, "a page of it is enough"


def test_the_map_names_every_engine_file() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in (ROOT / "mission").glob("*.py"):
        assert re.search(rf"`(mission/)?{path.name}`", text), f"{path.name} is not on the map"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target


# The phase of docs/writing-a-phase.md


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("writing")
    page = read("writing-a-phase.md")
    for kind, name in (
        ("python", "descent.py"),
        ("python", "test_descent.py"),
        ("python", "watch.py"),
        ("yaml", "descent.yaml"),
    ):
        parts = blocks(page, f"{kind} {name}")
        assert parts, f"no block {name}"
        (folder / name).write_text("\n\n".join(parts), encoding="utf-8")
    return folder


def test_the_written_phase_keeps_the_contract(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(written))
    load_file(written / "test_descent.py").test_contract()


def test_the_written_phase_stops_at_its_floor(written: Path) -> None:
    report = fly_mission(load_mission(written / "descent.yaml"), flights=200, policy="guide", allow_local_plugins=True)
    brake, settle = report.phases
    assert (brake.succeeded, settle.succeeded) == (200, 200)
    assert (brake.end["height_m"]["min"], brake.end["height_m"]["max"]) == (60.0, 60.0)
    assert settle.end["height_m"]["max"] == 0.0


def test_the_written_mission_trains(written: Path, tmp_path: Path) -> None:
    small = ["sac.chunk_env_steps=4096", "budget.env_steps=8192", "bank.flights=100"]
    overrides = [
        "phases.brake.policy=guide",
        *(f"phases.{phase}.{key}" for phase in ("brake", "settle") for key in small),
    ]
    mission = load_mission(written / "descent.yaml", [*overrides, "observers=[]"])
    brake, settle = train_mission(mission, checkpoints=tmp_path, log_dir=tmp_path / "runs", allow_local_plugins=True)
    assert (brake.status, settle.status) == ("flown by its guide", "trained")
    report = fly_mission(mission, checkpoints=tmp_path, flights=50, allow_local_plugins=True)
    assert report.phases[0].succeeded == report.phases[1].entered == 50


def test_the_written_observer_takes_events(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hook = hook_caller(load_file(written / "watch.py"), ObserverHooks, "mission_event", "watch", "here")
    hook(event=Event("evaluation", "descent", "brake", 4096, {"Evaluation/Success": 0.5}))
    assert capsys.readouterr().out == "brake at 4096: 50.0 %\n"
