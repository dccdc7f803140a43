"""Documentation agrees with the code: keys, options, metrics, hooks, commands, links and code blocks."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import inspect
import json
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import typer
from factory import blocks
from pydantic import BaseModel

import mission
from mission import Event, fly_mission, load_mission, train_mission
from mission.adapters.registration import register_phases
from mission.cli import app
from mission.errors import MissionError
from mission.flight.chain import prepare_chain
from mission.missionfile.hooks import ObserverHooks, PhaseHooks
from mission.missionfile.models import MissionFile, PhaseEntry
from mission.missionfile.phases import LibraryPhase
from mission.missionfile.plugins import hook_caller
from mission.missionfile.schema import mission_schema
from mission.sac.learner import Sac
from mission.scale.cluster import place_of
from mission.testing import check_phase

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SITE_PAGES = sorted(DOCS.rglob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *SITE_PAGES]


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


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """Return the pydantic models inside an annotation such as `tuple[PhaseEntry, ...]` or `Gate | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation, *(m for f in annotation.model_fields.values() for m in models_in(f.annotation))]
    return [model for argument in get_args(annotation) for model in models_in(argument)]


MODELS = list(dict.fromkeys(models_in(MissionFile)))
SETTINGS = [model for model in MODELS if model not in (MissionFile, PhaseEntry) and model.__name__ != "ChannelGate"]


# The mission file


def test_the_models_of_a_mission_file_are_found() -> None:
    names = {model.__name__ for model in MODELS}
    assert {"MissionFile", "PhaseEntry", "Budget", "Gate", "ChannelGate", "Restart", "Bank", "Evaluation"} <= names


@pytest.mark.parametrize("model", MODELS)
def test_every_key_is_documented(model: type[BaseModel]) -> None:
    page = read("mission-file.md")
    rows = dict(re.findall(r"^\| `(\w+)` \| (\S.*?) \|", page, re.MULTILINE))
    assert set(model.model_fields) <= set(rows)


@pytest.mark.parametrize("model", SETTINGS)
def test_documented_defaults_are_the_code_s(model: type[BaseModel]) -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\S.*?) \|", read("mission-file.md"), re.MULTILINE)
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        assert (name, f"`{json.dumps(default)}`") in rows


def test_schema_is_current() -> None:
    assert json.loads(read("mission.schema.json")) == mission_schema(), "run `make docs`"


def test_command_line_page_is_current() -> None:
    assert load_file(DOCS / "generate.py").command_line() == read("command-line.md"), "run `make docs`"


def test_python_api_page_is_current() -> None:
    page = read("python-api.md")
    assert load_file(DOCS / "generate.py").python_api() == page, "run `make docs`"
    described = set(re.findall(r"^### `(\w+)`$", page, re.MULTILINE))
    assert described == set(mission.__all__)


def test_every_public_name_has_a_docstring() -> None:
    for name in mission.__all__:
        value = getattr(mission, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__doc__, name


# SAC


def test_option_table_is_current() -> None:
    generate = load_file(DOCS / "generate.py")
    page = read("sac.md")
    assert generate.with_options(page) == page, "run `make docs`"
    options = generate.options(generate.SacConfig())
    assert len(options) > 40
    assert all(meaning for _, _, meaning in options), "an option without a meaning"
    assert not any("Seed:" in meaning for _, _, meaning in options)


def test_the_table_of_source_names_names_options() -> None:
    """The mapping to the source document is written by hand: every option in it exists, none twice."""
    page = read("sac.md").partition("## Names in the source document")[2]
    mapped = [
        name for cell in re.findall(r"^\| (`.*?`) \|", page, re.MULTILINE) for name in re.findall(r"`([\w.]+)`", cell)
    ]
    generate = load_file(DOCS / "generate.py")
    assert len(mapped) > 25
    assert len(mapped) == len(set(mapped))
    assert set(mapped) <= {name for name, _, _ in generate.options(generate.SacConfig())}


def emitted_metrics() -> set[str]:
    """Names of scalars and histograms: capitalised keys and subscripts, and prefixes such as `Reward/`."""
    names: set[str] = set()
    files = (path for family in ("sac", "training", "observers") for path in (ROOT / "mission" / family).glob("*.py"))
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
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
    networks = {"Actor", "Critic"}  # their names in messages, no metrics
    names |= {Sac.warm_up_metric, *Sac.metrics}
    quantiles = {f"{name}P{q}" for name in names if name.startswith("Replay/") for q in (50, 95)}  # in metrics.jsonl
    return (names | quantiles) - networks


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
    for group, page in ((PhaseHooks, "writing-a-phase.md"), (ObserverHooks, "observers.md")):
        hooks = [name for name, value in vars(group).items() if hasattr(value, "mission_spec")]
        assert hooks
        for name in hooks:
            assert re.search(rf"^## .*`{name}`", read(page), re.MULTILINE), f"{page} has no section on {name}"


def test_every_event_is_documented() -> None:
    sent = set()
    for path in (ROOT / "mission").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        sent |= set(re.findall(r"""emit\(\s*"(\w+)\"""", text))
    documented = set(re.findall(r"^\| `(\w+)` \|", read("observers.md"), re.MULTILINE))
    assert sent == documented
    assert Event.__doc__ is not None
    assert all(kind in Event.__doc__ for kind in sent)


def test_every_exit_code_is_documented() -> None:
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", read("checkpoints.md"), re.MULTILINE)}
    generate = load_file(DOCS / "generate.py")
    assert {error.exit_code for error in (MissionError, *generate.error_classes())} | {0} == documented


# Commands and links


def commands() -> list[tuple[str, str]]:
    """(page, command line) for each `mission ...` in code of the pages."""
    names = "|".join(typer.main.get_command(app).commands)  # ty: ignore[unresolved-attribute]
    found = []
    shorthand = (ROOT / "CHANGELOG.md", DOCS / "python-api.md")  # they name options without a value
    for page in (page for page in PAGES if page not in shorthand):
        text = page.read_text(encoding="utf-8")
        lines = re.findall(r"^    (\S.*)$", text, re.MULTILINE) + re.findall(r"`([^`\n]+)`", text)
        for part in (part.strip() for line in lines for part in line.split("&&")):
            words = part.removeprefix("python3 -m uv run ")
            if re.match(rf"mission ({names})\b", words) or (words.startswith("mission ") and part != words):
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


def test_the_readme_is_one_screen() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 120
    screen = text.partition("\n## ")[0]
    lines = re.findall(r"^    (\S.*)$", screen, re.MULTILINE)
    assert len(lines) == 3
    assert all(line.startswith("python3 -m pip install -q uv && python3 -m uv run ") for line in lines)
    assert len(re.findall(r"^ *python3 -m pip install .* run pytest$", text, re.MULTILINE)) == 1  # .ci/run runs it


def test_every_extra_is_documented_and_installed_by_one_command() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    section = read("install.md").partition("## Extras")[2].partition("\n## ")[0]
    listed = re.findall(r"`([a-z0-9]+)`", " ".join(re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)))
    assert sorted(listed) == sorted(set(project["optional-dependencies"]) - {"rocket"})
    commands = [
        line for page in SITE_PAGES for line in page.read_text(encoding="utf-8").splitlines() if "engine[" in line
    ]
    assert len([line for line in commands if "pip install" in line]) >= 4
    assert all('python3 -m uv pip install "mission-engine[' in line for line in commands if "pip install" in line)


def test_the_readme_s_mission_is_valid(tmp_path: Path) -> None:
    (block,) = blocks((ROOT / "README.md").read_text(encoding="utf-8"), "yaml")
    (tmp_path / "mission.yaml").write_text(block, encoding="utf-8")
    phases = mission.resolve_mission(load_mission(tmp_path / "mission.yaml"))
    assert [phase.name for phase in phases] == ["coast", "burn"]


def test_the_readme_s_python_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = blocks((ROOT / "README.md").read_text(encoding="utf-8"), "python")

    def trained(*arguments: Any, **options: Any) -> list[Any]:
        inspect.signature(train_mission).bind(*arguments, **options)
        return [SimpleNamespace(name="coast", status="trained", success=1.0)]

    def flown(*arguments: Any, **options: Any) -> Any:
        return fly_mission(*arguments, **{**options, "flights": 20})

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(mission, "train_mission", trained, raising=False)
    monkeypatch.setattr(mission, "fly_mission", flown, raising=False)
    exec(compile(block, "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "coast trained 1.0"
    assert [line.split()[0] for line in lines[2:]] == ["coast", "burn"]


def test_the_page_s_whole_phase_keeps_the_contract(tmp_path: Path) -> None:
    (block,) = blocks(read("writing-a-phase.md"), "python", "rail.py")
    head = "import dataclasses\nimport jax\nimport jax.numpy as jnp\nfrom typing import NamedTuple\nfrom pydantic import BaseModel\n"
    head += "from mission import Environment, Outcome, PhaseSpec, SacConfig, hookimpl\n\n\n"
    (tmp_path / "rail.py").write_text(head + block, encoding="utf-8")
    check_phase(load_file(tmp_path / "rail.py").mission_phase())
    code = [line for line in block.splitlines() if line.strip()]
    assert len(code) <= 36, "a page of it is enough"


def test_the_architecture_page_names_every_family() -> None:
    rows = set(re.findall(r"^\| `([\w./]+)` \|", read("architecture.md"), re.MULTILINE))
    for path in (ROOT / "mission").iterdir():
        if path.suffix == ".py" or (path.is_dir() and (path / "__init__.py").is_file()):
            name = path.name if path.suffix else f"{path.name}/"
            assert name in rows, f"{name} is not in the table of architecture.md"


# Pages, links and navigation


def test_every_page_is_reached_from_the_index() -> None:
    reached, waiting = set(), [DOCS / "index.md"]
    while waiting:
        page = waiting.pop()
        if page in reached:
            continue
        reached.add(page)
        for target in re.findall(r"\]\(([^)#\s]+\.md)[^)]*\)", page.read_text(encoding="utf-8")):
            waiting.append((page.parent / target).resolve())
    assert set(SITE_PAGES) <= reached


def test_every_page_is_in_the_navigation() -> None:
    def pages(entries: Any) -> list[str]:
        if isinstance(entries, str):
            return [entries]
        children = entries.values() if isinstance(entries, dict) else entries
        return [page for child in children for page in pages(child)]

    listed = pages(tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"])
    assert len(listed) == len(set(listed))
    assert set(listed) == {str(page.relative_to(DOCS)) for page in SITE_PAGES}


@pytest.mark.parametrize("page", SITE_PAGES, ids=lambda page: page.name)
def test_pages_of_the_site_link_inside_it(page: Path) -> None:
    """The site is built from docs/ alone, so a link to a file outside would be broken there."""
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).resolve().is_relative_to(DOCS), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_files_exist(page: Path) -> None:
    """Tests, benchmarks and missions that a page names in code."""
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"(?<![\w/])((?:tests|benchmarks|missions|plugins/rocket/tests)/[\w/]+\.(?:py|yaml))\b", text)
    for name in named:
        assert (ROOT / name).is_file(), name


def test_decisions_follow_one_template() -> None:
    index = read("decisions/index.md")
    decisions = sorted((DOCS / "decisions").glob("0*.md"))
    assert len(decisions) >= 12
    for number, path in enumerate(decisions, start=1):
        text = path.read_text(encoding="utf-8")
        assert text.startswith(f"# {number}. "), path.name
        assert re.search(r"^Status: (accepted|replaced|rejected)", text, re.MULTILINE), path.name
        assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences"], path.name
        assert f"| [{number}]({path.name}) |" in index, path.name


def test_results_begin_with_one_table() -> None:
    first = read("results.md").partition("\n## ")[0]
    rows = re.findall(r"^\| (?!result |---)(.*) \|$", first, re.MULTILINE)
    assert 10 <= len(rows) <= 15
    assert all(len(row.split(" | ")) == 3 for row in rows)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target


# The phase of docs/writing-a-phase.md


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("writing")
    page = read("writing-a-phase.md")
    for kind, name in (("python", "descent.py"), ("python", "test_descent.py"), ("yaml", "descent.yaml")):
        parts = blocks(page, kind, name)
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
    assert (brake.end["height_m"].min, brake.end["height_m"].max) == (60.0, 60.0)
    assert settle.end["height_m"].max == 0.0


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


def test_the_written_hand_over_may_change_its_type(written: Path) -> None:
    (block,) = blocks(read("writing-a-phase.md"), "python", "handover.py")
    descent = load_file(written / "descent.py")
    exec(compile(block, "handover.py", "exec"), vars(descent))
    spec = descent.mission_phase()
    landing = type("Landing", (descent.Descent,), {"leave": lambda self, state: descent.touch_down(state.capsule)})
    check_phase(dataclasses.replace(spec, environment=landing), descent.Params(floor_m=0.0))


def test_the_written_restarts_keep_the_contract(written: Path) -> None:
    """A scale outside of the motor's range comes from noise alone, and `redraw` draws within it."""
    (block,) = blocks(read("writing-a-phase.md"), "python", "restarts.py")
    descent = load_file(written / "descent.py")
    exec(compile("class Restarts:\n" + textwrap.indent(block, "    "), "restarts.py", "exec"), vars(descent))
    stored = type("Stored", (descent.Restarts, descent.Descent), {})
    check_phase(dataclasses.replace(descent.mission_phase(), environment=stored), steps=2)
    one = jax.tree.map(jnp.ones_like, stored(descent.Params()).start(jax.random.key(0)))
    moved = stored(descent.Params()).perturb(one, one)
    assert (moved.height_m, moved.velocity_m_s, moved.delta_v_m_s, moved.motor_scale) == (2.0, 2.0, 1.0, 1.0)
    scales = jax.vmap(lambda key: stored(descent.Params()).redraw(key, one).motor_scale)(
        jax.random.split(jax.random.key(1), 100)
    )
    assert 0.94 < scales.min() < 0.96
    assert 1.04 < scales.max() < 1.06


FOREIGN = """
import dataclasses
from types import SimpleNamespace
from typing import Any, NamedTuple
import jax, jax.numpy as jnp
from pydantic import BaseModel
from mission import Environment, Outcome, PhaseSpec, SacConfig, hookimpl

class Params(BaseModel):
    pass

def advance(state, action):
    after = state + 0.05 * jnp.stack([state[1], action[0]])
    reward, done = -jnp.abs(after[0]), (jnp.abs(after[0]) < 0.05) | (jnp.abs(after[0]) > 3.0)
    return after, after, reward, done

cart = SimpleNamespace(step=advance, observation=lambda state: state,
    reset=lambda key: jax.random.uniform(key, (2,), minval=-1.0, maxval=1.0))
"""


def test_the_written_foreign_reward_is_the_one_that_its_step_made(tmp_path: Path) -> None:
    (block,) = blocks(read("writing-a-phase.md"), "python", "foreign.py")
    hook = "\n\n@hookimpl\ndef mission_phase():\n    return PhaseSpec(Params, Foreign, reward, sac=SacConfig())\n"
    (tmp_path / "foreign.py").write_text(f"{FOREIGN}\n{block}{hook}", encoding="utf-8")
    foreign = load_file(tmp_path / "foreign.py")
    check_phase(foreign.mission_phase())
    phase, key = foreign.Foreign(foreign.Params()), jax.random.key(0)
    state = phase.enter(key, phase.start(key))
    after = phase.step(key, state, jnp.ones(1))
    terms = foreign.reward(None)(state, jnp.ones(1), after, phase.outcome(after))
    assert terms["foreign"] == foreign.cart.step(state.foreign, jnp.ones(1))[2] != 0.0


# The observers of docs/observers.md, the script of docs/cluster.md


def observer_hook(folder: Path, name: str) -> Any:
    (block,) = blocks(read("observers.md"), "python", name)
    (folder / name).write_text(block, encoding="utf-8")
    return hook_caller(load_file(folder / name), ObserverHooks, "mission_event", name, "here")


def test_the_written_observer_takes_events(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hook = observer_hook(tmp_path, "watch.py")
    hook(event=Event("evaluation", "descent", "brake", 4096, {"Evaluation/Success": 0.5}))
    assert capsys.readouterr().out == "brake at 4096: 50.0 %\n"


def test_the_written_export_of_sbx_is_its_network(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    (block,) = blocks(read("other-frameworks.md"), "python", "sbx_to_onnx.py")
    written: dict[str, Any] = {}
    exec(compile(block, "sbx_to_onnx.py", "exec"), written)
    rng, sizes = np.random.default_rng(0), [(6, 8), (8, 8), (8, 1), (8, 1)]
    layers = {
        f"Dense_{at}": {"kernel": rng.normal(size=size).astype("f4"), "bias": rng.normal(size=size[1:]).astype("f4")}
        for at, size in enumerate(sizes)
    }
    onnx.save(written["actor_model"](layers), tmp_path / "burn.onnx")
    chain = prepare_chain(load_mission("vertical"), policies={"burn": f"onnx:{tmp_path / 'burn.onnx'}"})
    obs = rng.normal(size=(250, 6)).astype(np.float32)
    expected = obs
    for at in range(3):
        expected = expected @ layers[f"Dense_{at}"]["kernel"] + layers[f"Dense_{at}"]["bias"]
        expected = np.tanh(expected) if at == 2 else np.maximum(expected, 0.0)
    phase = chain.phases[1]
    assert isinstance(phase, LibraryPhase)
    np.testing.assert_allclose(phase.act(obs), expected, atol=1e-5)


@pytest.mark.parametrize(("code", "requeued"), [(0, False), (1, False), (130, True)])
def test_the_sbatch_script_requeues_what_was_interrupted(tmp_path: Path, code: int, requeued: bool) -> None:
    (block,) = blocks(read("cluster.md"), "bash", "train.sbatch")
    (tmp_path / "train.sbatch").write_text(block, encoding="utf-8")
    for name, text in (("srun", f'echo "$@" > srun.txt; exit {code}'), ("scontrol", 'echo "$@" > scontrol.txt')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    ids = {"SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_JOB_ID": "77"}
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", **ids}
    done = subprocess.run(["bash", "train.sbatch"], cwd=tmp_path, env=environment, check=False, timeout=30)
    assert done.returncode == code
    assert (tmp_path / "scontrol.txt").exists() == requeued
    if requeued:
        assert (tmp_path / "scontrol.txt").read_text(encoding="utf-8") == "requeue 77_5\n"
    words = shlex.split((tmp_path / "srun.txt").read_text(encoding="utf-8"))
    assert words[:2] == [".venv/bin/mission", "train"]
    command = typer.main.get_command(app).commands["train"]  # ty: ignore[unresolved-attribute]
    context = command.make_context("train", words[2:])
    assert context.params["seed"] == 5
    assert str(context.params["checkpoints"]) == "checkpoints/seed-5"


def run_script(folder: Path, name: str, variables: dict[str, str]) -> list[list[str]]:
    """Run a script of docs/cluster.md without a cluster; return the commands that it gave to `srun`, as words."""
    (block,) = blocks(read("cluster.md"), "bash", name)
    (folder / name).write_text(block, encoding="utf-8")
    for tool, text in (("srun", 'echo "$@" >> srun.txt'), ("scontrol", "echo node1; echo node2")):
        (folder / tool).write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
        (folder / tool).chmod(0o755)
    environment = {"PATH": f"{folder}:/usr/bin:/bin"} | variables
    done = subprocess.run(["bash", name], cwd=folder, env=environment, check=False, timeout=30, capture_output=True)
    assert done.returncode == 0, done.stderr
    return [shlex.split(line) for line in (folder / "srun.txt").read_text(encoding="utf-8").splitlines()]


def fly_options(words: list[str]) -> dict[str, Any]:
    """The parsed options of the `mission fly` in a command."""
    at = words.index("fly")
    assert words[at - 1] == ".venv/bin/mission"
    command = typer.main.get_command(app).commands["fly"]  # ty: ignore[unresolved-attribute]
    return command.make_context("fly", words[at + 1 :]).params


def test_the_array_that_flies_covers_every_flight_once(tmp_path: Path) -> None:
    ((words),) = run_script(tmp_path, "fly.sbatch", {"SLURM_ARRAY_TASK_ID": "3"})
    options = fly_options(words)
    assert (options["first_flight"], options["flights"], options["report_dir"]) == (
        300000,
        100000,
        Path("reports/part-3"),
    )
    merge = typer.main.get_command(app).commands["merge"]  # ty: ignore[unresolved-attribute]
    assert "mission merge reports/part-* --report reports/million" in read("cluster.md")
    merge.make_context("merge", ["reports/part-0", "reports/part-1", "--report", "reports/million"])


def test_the_job_with_ray_starts_it_on_every_node_and_flies(tmp_path: Path) -> None:
    names = {"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_CPUS_PER_TASK": "16", "SLURM_JOB_NUM_NODES": "2"}
    head, other, flight = run_script(tmp_path, "ray.sbatch", names | {"RAY_WAIT_S": "0.2"})
    assert {"--nodelist=node1", "--head", "--num-cpus=16", "--disable-usage-stats"} <= set(head)
    assert {"--exclude=node1", "--nodes=1", "--address=node1:6379"} <= set(other)
    assert place_of(fly_options(flight)["on"]).address == "auto"


def test_the_commands_for_a_cluster_parse() -> None:
    (block,) = blocks(read("cluster.md"), "bash", "cluster.sh")
    (line,) = [line for line in block.splitlines() if line.startswith("mission ")]
    assert place_of(fly_options([".venv/bin/mission", *shlex.split(line)[1:]])["on"]).address == "10.0.0.1:6379"


# The programs of docs/other-frameworks.md


@pytest.mark.parametrize(
    ("name", "needs"),
    [("step.py", "jax"), ("gym.py", "gymnasium"), ("chain.py", "gymnasium"), ("functional.py", "jax")],
)
def test_the_written_programs_for_other_frameworks_run(
    name: str, needs: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    library = pytest.importorskip(needs, reason=f"needs the extra {needs}")
    if needs == "gymnasium" and "mission/vertical_burn-v0" not in library.envs.registry:
        with library.envs.registration.namespace("mission"):  # of a checkout that is not installed
            register_phases()
    (block,) = blocks(read("other-frameworks.md"), "python", name)
    monkeypatch.chdir(ROOT)
    exec(compile(block, name, "exec"), {})
    printed = capsys.readouterr().out
    if name == "gym.py":
        assert printed.startswith("True landed {")
    elif name != "functional.py":
        assert "landed" in printed


def test_the_written_pendulum_is_a_mission(tmp_path: Path) -> None:
    pytest.importorskip("gymnax", reason="needs gymnax")
    for kind, name in (("python", "pendulum.py"), ("yaml", "pendulum.yaml")):
        (block,) = blocks(read("other-frameworks.md"), kind, name)
        (tmp_path / name).write_text(block, encoding="utf-8")
        assert kind != "python" or len(block.split("\n\n")) == 2  # two lines of code
    (phase,) = mission.resolve_mission(load_mission(tmp_path / "pendulum.yaml"), allow_local_plugins=True)
    assert phase.causes == ("reached", "ended", "survived", "non_finite")
