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
PLUGIN = ROOT / "plugins" / "rocket" / "mission_rocket"
SOURCES = sorted(ENGINE.rglob("*.py"))
# Families and files of the engine, from the bottom up: each imports only those before it, and itself.
ORDER = (
    "strict", "errors", "learner", "phase", "machine", "missionfile", "sac", "storage",
    "flight", "observers", "training", "adapters", "report", "testing", "scale", "cli", "__main__",
)  # fmt: skip


def module_name(path: Path) -> str:
    base = ROOT if path.is_relative_to(ENGINE) else PLUGIN.parent
    parts = path.relative_to(base).with_suffix("").parts
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
    """Dotted names that a file imports, also by `import_extra`; `from a import b` counts as a and a.b."""
    names: set[str] = set()
    for node in statements(ast.parse(path.read_text(encoding="utf-8")), everywhere):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            assert node.module is not None
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "import_extra":
            names |= {node.args[0].value} if isinstance(node.args[0], ast.Constant) else set()
    return names


def graph(sources: list[Path] = SOURCES, package: str = "mission") -> dict[str, set[str]]:
    """Module -> modules that it imports, also in functions and for type checkers; the lazy package is left out."""
    modules = {module_name(path): path for path in sources}
    return {name: (imported(path) & set(modules)) - {package} for name, path in modules.items() if name != package}


def family(module: str) -> str:
    return module.split(".")[1]


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
    assert "mission.learner" in graph()["mission.phase"]  # for type checkers
    assert "mission.report.terminal" in graph()["mission.cli.commands"]  # in a function


def test_only_steps_knows_orbax() -> None:
    users = {module_name(path) for path in SOURCES if any(name.split(".")[0] == "orbax" for name in imported(path))}
    assert users == {"mission.storage.steps"}


def test_only_the_study_knows_optuna() -> None:
    users = {module_name(path) for path in SOURCES if any(name.split(".")[0] == "optuna" for name in imported(path))}
    assert users == {"mission.scale.study"}


def test_replay_knows_nothing_of_the_engine() -> None:
    assert not [name for name in imported(ENGINE / "sac" / "replay.py") if name.split(".")[0] == "mission"]


def test_the_top_of_the_engine_fits_on_a_screen() -> None:
    entries = {path.stem for path in ENGINE.iterdir() if not path.name.startswith((".", "__pycache__"))}
    assert len(entries) <= 18
    assert entries == {*ORDER, "__init__"}


def test_imports_run_downwards() -> None:
    wrong = [
        f"{module} imports {used}"
        for module, uses in graph().items()
        for used in uses
        if ORDER.index(family(used)) > ORDER.index(family(module))
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("sources", "package"),
    [(SOURCES, "mission"), (sorted(PLUGIN.rglob("*.py")), "mission_rocket")],
    ids=["mission", "mission_rocket"],
)
def test_no_import_cycles(sources: list[Path], package: str) -> None:
    edges = graph(sources, package)
    assert not [name for name in edges if name in reachable(name, edges)]


def test_only_sac_knows_sac() -> None:
    """The name stands in the table of learners, in the public API, and for the settings in `PhaseSpec.sac`."""
    users = {name for name, uses in graph().items() if any(family(used) == "sac" for used in uses)}
    assert {family(user) for user in users} == {"sac"}, sorted(users)
    words = re.compile(r"(?<!Actor-)\b(critics?|actor_loss|temperature|entropy|twin)\b", re.IGNORECASE)
    for path in SOURCES:
        if path.is_relative_to(ENGINE / "sac") or path.parent.name == "templates":
            continue
        hits = [line for line in path.read_text(encoding="utf-8").splitlines() if words.search(line)]
        assert not hits, f"{path.relative_to(ROOT)}: {hits[0]}"


def test_training_and_flying_do_without_reports() -> None:
    below = ("flight", "storage", "observers", "training")
    users = {name for name, uses in graph().items() if any(family(used) == "report" for used in uses)}
    assert users
    assert not [name for name in users if family(name) in below]


@pytest.mark.parametrize("path", [*SOURCES, *sorted(PLUGIN.rglob("*.py"))], ids=lambda path: module_name(path))
def test_private_names_stay_in_their_file(path: Path) -> None:
    """Nobody imports `_name` or reads `module._name`; a name that begins so and is reached by `self` is the class's."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    own |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    own |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and _is_self(node.value)}
    public = {"_replace", "_fields", "_asdict", "_make", "_getframe", "_exit"}  # of named tuples, of sys and of os
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert not [alias.name for alias in node.names if re.match(r"_[a-z]", alias.name)], ast.unparse(node)
        if isinstance(node, ast.Attribute) and re.match(r"_[a-zA-Z]", node.attr) and node.attr not in public:
            assert _is_self(node.value) or node.attr in own, ast.unparse(node)


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def test_types_are_not_narrowed_by_assertions() -> None:
    for path in [*SOURCES, *PLUGIN.rglob("*.py")]:
        found = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Assert)]
        assert not found, f"{path.relative_to(ROOT)}: {ast.unparse(found[0])}"


def test_functions_are_short() -> None:
    for path in [*SOURCES, *PLUGIN.rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
                assert node.end_lineno - node.lineno < 60, f"{path.relative_to(ROOT)}: {node.name}"


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
    for path in PLUGIN.rglob("*.py"):
        names = {name for name in imported(path) if name.split(".")[0] == "mission"}
        allowed = public | {name for name in names if name.startswith("mission.testing.")}
        assert names <= allowed, f"{path.relative_to(ROOT)} imports {', '.join(sorted(names - allowed))}"


def test_physics_imports_jax_and_numpy_only() -> None:
    files = sorted((PLUGIN / "physics").glob("*.py"))
    assert len(files) > 10
    for path in files:
        others = {name for name in imported(path) if not name.startswith("mission_rocket.physics")}
        outside = {name.split(".")[0] for name in others} - set(sys.stdlib_module_names)
        assert outside <= {"jax", "numpy", "mission_rocket"}, f"{path.name} imports {', '.join(sorted(outside))}"
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
