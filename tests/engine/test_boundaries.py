"""Who may import whom, and what the engine must not know; by reading the sources."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mission

ROOT = Path(__file__).parents[2]
ENGINE = ROOT / "mission"
SOURCES = sorted(ENGINE.rglob("*.py"))
LAYERS = (
    ("errors", "config", "phase", "hooks", "registry"),
    ("networks", "sac", "train"),
    ("phase", "bank", "rollout", "flying", "runner", "cli"),
)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def statements(tree: ast.Module, everywhere: bool) -> Iterator[ast.AST]:
    """Nodes of a module: all of them, or those that run at import and are not for type checkers."""
    stack: list[ast.AST] = list(tree.body)
    while stack:
        node = stack.pop()
        yield node
        if everywhere or not (
            is_type_checking(node) or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        ):
            stack.extend(ast.iter_child_nodes(node))


def imported(path: Path, everywhere: bool = True) -> set[str]:
    """Dotted names that a file imports; `from a import b` counts as a and a.b."""
    names: set[str] = set()
    for node in statements(ast.parse(path.read_text(encoding="utf-8")), everywhere):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            assert node.module is not None
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def graph() -> dict[str, set[str]]:
    """Engine module -> engine modules that importing it imports; `mission` itself is lazy and left out."""
    modules = {module_name(path): path for path in SOURCES}
    return {name: (imported(path, everywhere=False) & set(modules)) - {"mission"} for name, path in modules.items()}


def reachable(start: str, edges: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    stack = list(edges[start])
    while stack:
        name = stack.pop()
        if name not in seen:
            seen.add(name)
            stack.extend(edges[name])
    return seen


def test_the_reader_sees_imports() -> None:
    assert "mission.errors" in graph()["mission.missionfile.plugins"]
    assert "mission.sac.config" not in graph()["mission.phase"]  # for type checkers only
    assert "mission.sac.config" in imported(ENGINE / "phase.py")


def test_only_checkpoint_knows_orbax() -> None:
    users = {path.name for path in SOURCES if any(name.split(".")[0] == "orbax" for name in imported(path))}
    assert users == {"checkpoint.py"}


def test_replay_knows_nothing_of_the_engine() -> None:
    assert not [name for name in imported(ENGINE / "replay.py") if name.split(".")[0] == "mission"]


@pytest.mark.parametrize("layers", LAYERS, ids=lambda layers: " < ".join(layers))
def test_imports_go_one_way(layers: tuple[str, ...]) -> None:
    edges = graph()
    for at, lower in enumerate(layers):
        above = {f"mission.{name}" for name in layers[at + 1 :]}
        assert not reachable(f"mission.{lower}", edges) & above, f"{lower} reaches up"


def test_no_import_cycles() -> None:
    edges = graph()
    assert not [name for name in edges if name in reachable(name, edges)]


def test_training_and_flying_do_without_reports() -> None:
    users = {name for name, uses in graph().items() if any(used.startswith("mission.reports") for used in uses)}
    assert users
    assert all(name.startswith("mission.reports") for name in users), sorted(users)


def test_the_engine_knows_no_vehicle() -> None:
    words = re.compile("rocket|booster|thrust|throttle|propellant|altitude|parafoil|nozzle", re.IGNORECASE)
    files = [path for path in ENGINE.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    hits = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in files
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if words.search(line)
    ]
    assert not hits, "\n".join(hits)


def test_plugins_import_the_public_surface_only() -> None:
    public = {"mission", "mission.testing", *(f"mission.{name}" for name in mission.__all__)}
    for path in (ROOT / "plugins").rglob("*.py"):
        names = {name for name in imported(path) if name.split(".")[0] == "mission"}
        allowed = public | {name for name in names if name.startswith("mission.testing.")}
        assert names <= allowed, f"{path.relative_to(ROOT)} imports {', '.join(sorted(names - allowed))}"


def test_physics_imports_jax_only() -> None:
    physics = ROOT / "plugins" / "rocket" / "mission_rocket" / "physics"
    files = sorted(physics.glob("*.py"))
    assert len(files) > 10
    for path in files:
        others = {name for name in imported(path) if not name.startswith("mission_rocket.physics")}
        outside = {name.split(".")[0] for name in others} - set(sys.stdlib_module_names)
        assert outside <= {"jax", "mission_rocket"}, f"{path.name} imports {', '.join(sorted(outside))}"
        assert "mission_rocket" not in others, f"{path.name} imports beyond physics"


def test_the_public_surface_exists() -> None:
    for name in mission.__all__:
        assert getattr(mission, name) is not None
    assert set(mission.__all__) == set(mission._HOME)


@pytest.mark.parametrize(
    "code",
    ["import mission, mission.cli", "import sys, mission.cli; sys.argv = ['mission', 'plugins']; mission.cli.main()"],
    ids=["import", "mission plugins"],
)
def test_jax_stays_out(code: str) -> None:
    report = "import atexit, sys; atexit.register(lambda: print('JAX' if 'jax' in sys.modules else 'LIGHT'))"
    done = subprocess.run([sys.executable, "-c", f"{report}\n{code}"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "LIGHT"


def test_no_source_is_kept_from_git_and_from_wheels() -> None:
    """Builds leave out what `.gitignore` names, linters too."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    files = [str(path.relative_to(ROOT)) for path in (*ENGINE.rglob("*.py"), *(ROOT / "plugins").rglob("*.py"))]
    command = ["git", "check-ignore", "--no-index", *files]
    ignored = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ignored.returncode, ignored.stdout) == (1, "")
