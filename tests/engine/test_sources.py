"""The hash of a plugin's sources: what it covers, and what it leaves out."""

from __future__ import annotations

import hashlib
import importlib
import sys
from pathlib import Path

import pytest
from factory import CART, fake_distribution, write_mission

from mission import load_mission, resolve_mission
from mission.errors import PluginError
from mission.missionfile.hooks import PHASE_GROUP
from mission.missionfile.sources import module_sources

FILES = {
    "__init__.py": "",
    "phase.py": "from shuttle import air\nfrom .deep.tank import size\ndef late():\n    import shuttle.lazy\n",
    "air.py": "density = 1.2\n",
    "lazy.py": "x = 1\n",
    "other_phase.py": "y = 1\n",
    "deep/__init__.py": "",
    "deep/tank.py": "from ..vehicle import mass\nsize = 2\n",
    "vehicle.py": "from shuttle.report import draw\nfrom pathlib import Path\n"
    "mass = Path(__file__).with_name('vehicle.yaml').read_text()\n",
    "report/__init__.py": "draw = 4\n",
    "vehicle.yaml": "mass: 3\n",
    "other.yaml": "mass: 4\n",
}
LEFT_OUT = {"other_phase.py", "report/__init__.py", "other.yaml"}


@pytest.fixture
def shuttle(tmp_path, monkeypatch):
    """A package on disk; what was imported of it is gone again afterwards."""
    write_files(tmp_path / "shuttle", FILES)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path / "shuttle"
    for name in [name for name in sys.modules if name.partition(".")[0] == "shuttle"]:
        del sys.modules[name]


def write_files(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def test_what_a_phase_imports_and_reads_is_followed_and_drawing_is_not(shuttle):
    sources = module_sources(importlib.import_module("shuttle.phase"))
    modules = sources.modules()
    found = {str(path.relative_to(shuttle)) for path in (*modules, *sources.data(modules))}
    assert found == set(FILES) - LEFT_OUT


@pytest.mark.parametrize("name", FILES)
def test_only_an_edit_that_can_change_a_flight_changes_the_hash(shuttle, name):
    sources = module_sources(importlib.import_module("shuttle.phase"))
    before = sources.hash()
    path = shuttle / name
    path.write_text(path.read_text() + "# edited\n")
    assert (sources.hash() != before) == (name not in LEFT_OUT)


def test_the_hash_of_one_file_is_that_of_version_0_1(tmp_path):
    path = write_mission(tmp_path, mission())
    (phase,) = resolve(path)
    expected = hashlib.sha256(b"cart.py\0" + CART.encode() + b"\0").hexdigest()
    assert phase.origin.source_sha256 == expected
    assert phase.origin.version == expected[:12]


def mission(*params: str, plugin: str = "./cart.py") -> str:
    """A mission file with one phase for each set of parameters."""
    lines = [f"  - {{name: p{i}, plugin: '{plugin}', params: {text}}}" for i, text in enumerate(params or ("{}",))]
    return "\n".join(["name: trial", "phases:", *lines, ""])


def resolve(path: Path):
    return resolve_mission(load_mission(path), allow_local_plugins=True)


def digest(path: Path, phase: int = 0) -> str:
    return resolve(path)[phase].origin.source_sha256


def test_files_beside_a_local_plugin_are_imported_and_covered(tmp_path):
    """Top-level names, packages, relative and late imports; edited within a second, to a text of the same length."""
    files = {
        "gains.py": "from lib.deep import factor\nPERIOD = 0.1 * factor\n",
        "lib/__init__.py": "",
        "lib/deep.py": "import table\nfactor = 1.0 * table.one\n",
        "table.py": "one = 1.0\n",
        "late.py": "limit = 1.0\n",
        "near.py": "zero = 0.0\n",
        "unused.py": "x = 1\n",
        "random.py": "raise RuntimeError('the standard library has this name')\n",
    }
    write_files(tmp_path, files)
    plugin = CART.replace(
        "\nclass Params", "\nimport random\nimport gains\nimport lib.deep as deep\nfrom . import near\nclass Params", 1
    )
    plugin = plugin.replace("control_period_s = 0.1", "control_period_s = gains.PERIOD * deep.factor")
    plugin = plugin.replace(
        "        velocity = state", "        from late import limit\n        velocity = limit * state", 1
    )
    path = write_mission(tmp_path, mission("{}", "{seconds: 2.0}"), plugin)
    before = digest(path)
    for name in files:
        text = (tmp_path / name).read_text()
        (tmp_path / name).write_text(text.replace("1", "2").replace("0.0", "5.0"))
        assert (digest(path) != before) == (name not in ("unused.py", "random.py", "lib/__init__.py")), name
        (tmp_path / name).write_text(text)
        assert digest(path) == before, name
    (tmp_path / "table.py").write_text("one = 3.0\n")
    first, second = resolve(path)
    assert first.environment.control_period_s == pytest.approx(0.9)  # 0.1 * 3, times 3: not the old module
    assert type(first.environment) is type(second.environment)


def test_two_missions_may_have_a_file_of_the_same_name_beside_them(tmp_path):
    for number in (1, 2):
        folder = tmp_path / str(number)
        write_files(folder, {"helper.py": f"PERIOD = {number}.0\n"})
        write_mission(
            folder,
            mission(),
            CART.replace("control_period_s = 0.1", "control_period_s = PERIOD").replace(
                "\nclass Params", "\nfrom helper import PERIOD\nclass Params", 1
            ),
        )
    periods = [resolve(tmp_path / name / "mission.yaml")[0].environment.control_period_s for name in "121"]
    assert periods == [1.0, 2.0, 1.0]
    assert "helper" not in sys.modules


def test_a_broken_file_beside_a_local_plugin_is_the_plugin_s_error(tmp_path):
    write_files(tmp_path, {"helper.py": "1 / 0\n"})
    with pytest.raises(PluginError, match="ZeroDivisionError"):
        resolve(write_mission(tmp_path, mission(), "import helper\n" + CART))


READERS = {
    "import": (
        "\nclass Params",
        "\nFACTOR = float(open(__file__.replace('cart.py', 'data.csv')).read())\nclass Params",
    ),
    "mission_phase": (
        "    small = ",
        "    from pathlib import Path\n    Path(__file__).with_name('data.csv').read_bytes()\n    small = ",
    ),
    "params": (
        "    seconds: float",
        "    @__import__('pydantic').field_validator('tolerance_m')\n    def _read(cls, value, info):\n"
        "        import numpy as np\n        np.loadtxt(info.context['folder'] / 'data.csv')\n        return value\n"
        "    seconds: float",
    ),
    "environment": (
        "environment=Hold",
        "environment=lambda p: (open(__file__.replace('cart.py', 'data.csv')), Hold(p))[1]",
    ),
    "reward": ("def reward(params):", "def reward(params):\n    open(__file__.replace('cart.py', 'data.csv')).close()"),
    "limits": ("limits=lambda params:", "limits=lambda params: open(__file__.replace('cart.py', 'data.csv')) and"),
    "contract": (
        "    def observe(self, state):",
        "    def observe(self, state):\n        open(__file__.replace('cart.py', 'data.csv')).close()",
    ),
}


@pytest.mark.parametrize("when", READERS)
def test_data_that_the_plugin_reads_are_covered(tmp_path, when):
    write_files(tmp_path, {"data.csv": "1.0\n", "other.csv": "1.0\n"})
    plugin = CART.replace(*READERS[when], 1)
    assert plugin != CART
    path = write_mission(tmp_path, mission("{tolerance_m: 4.0}", "{tolerance_m: 4.0, seconds: 2.0}"), plugin)
    before = [digest(path, phase) for phase in (0, 1)]
    (tmp_path / "other.csv").write_text("2.0\n")
    assert [digest(path, phase) for phase in (0, 1)] == before
    (tmp_path / "data.csv").write_text("2.0\n")
    assert not set(before) & {digest(path, phase) for phase in (0, 1)}
    (tmp_path / "data.csv").write_text("1.0\n")
    assert [digest(path, phase) for phase in (0, 1)] == before


def test_a_file_named_by_a_parameter_counts_for_that_phase_alone(tmp_path):
    for name in ("a", "b"):
        write_files(tmp_path / "elsewhere", {f"{name}.csv": "1.0\n"})
    plugin = CART.replace("    seconds: float", "    table: str = ''\n    seconds: float", 1)
    plugin = plugin.replace("environment=Hold", "environment=lambda p: (open(p.table), Hold(p))[1]")
    tables = [tmp_path / "elsewhere" / f"{name}.csv" for name in ("a", "b")]
    path = write_mission(tmp_path, mission(*(f"{{table: '{table}'}}" for table in tables)), plugin)
    before = [digest(path, phase) for phase in (0, 1)]
    tables[1].write_text("2.0\n")
    after = [digest(path, phase) for phase in (0, 1)]
    assert after[0] == before[0]
    assert after[1] != before[1]


def test_a_plugin_that_keeps_what_it_read_has_the_same_hash_when_it_is_resolved_again(tmp_path):
    write_files(tmp_path, {"data.csv": "1.0\n"})
    plugin = CART.replace(
        "\nclass Params",
        "\nimport functools\n@functools.cache\ndef table(p):\n    return open(p).read()\nclass Params",
        1,
    )
    plugin = plugin.replace(
        "environment=Hold", "environment=lambda p: (table(__file__.replace('cart.py', 'data.csv')), Hold(p))[1]"
    )
    path = write_mission(tmp_path, mission(), plugin)
    before = digest(path)
    assert digest(path) == before
    (tmp_path / "data.csv").write_text("2.0\n")
    assert digest(path) != before


def test_files_of_libraries_caches_and_the_system_do_not_count(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_files(tmp_path, {"cache/tool/state.json": "{}"})
    files = (
        tmp_path / "cache" / "tool" / "state.json",
        Path(pytest.__file__).with_name("py.typed"),
        Path("/proc/self/stat"),
    )
    reading = "".join(f"    open({str(file)!r}).close()\n" for file in files)
    (tmp_path / "written").write_text("")
    reading += (
        f"    open({str(tmp_path / 'written')!r}, 'a').write('x')\n    jnp.sin(jnp.ones(3)).block_until_ready()\n"
    )
    plugin = CART.replace("def reward(params):\n", f"def reward(params):\n{reading}", 1)
    path = write_mission(tmp_path, mission(), plugin)
    assert digest(path) == hashlib.sha256(b"cart.py\0" + plugin.encode() + b"\0").hexdigest()


def test_an_installed_module_covers_the_modules_beside_it(tmp_path, monkeypatch):
    helped = "from dock_helper import small\n" + CART
    entry = {PHASE_GROUP: {"dock": "dock_phase"}}
    fake_distribution(tmp_path, "dock", "1.0", entry, {"dock_phase": helped, "dock_helper": "small = 1\n"})
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "mission.yaml").write_text(mission(plugin="dock"))
    try:
        before = digest(tmp_path / "mission.yaml")
        (tmp_path / "dock_helper.py").write_text("small = 2\n")
        assert digest(tmp_path / "mission.yaml") != before
    finally:
        for name in ("dock_phase", "dock_helper"):
            sys.modules.pop(name, None)


def test_the_vertical_phases_do_not_rest_on_vehicle_files():
    root = Path(__file__).parents[2]
    for phase in resolve_mission(load_mission(root / "missions" / "vertical.yaml")):
        assert phase.origin.distribution == "mission-rocket"
    from mission.missionfile.resolve import load_installed

    sources = load_installed("mission-rocket:vertical_burn", "here").sources
    assert sources.modules()
    assert sources.data(sources.modules()) == []
