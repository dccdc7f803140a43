"""The hash of a plugin's sources: what it covers, and what it leaves out."""

from __future__ import annotations

import importlib
import sys

import pytest

from mission.missionfile.sources import source_files, source_hash

FILES = {
    "__init__.py": "",
    "phase.py": "from shuttle import air\nfrom .deep.tank import size\ndef late():\n    import shuttle.lazy\n",
    "air.py": "density = 1.2\n",
    "lazy.py": "x = 1\n",
    "other_phase.py": "y = 1\n",
    "deep/__init__.py": "",
    "deep/tank.py": "from ..vehicle import mass\nsize = 2\n",
    "vehicle.py": "from shuttle.report import draw\nmass = 3\n",
    "report/__init__.py": "draw = 4\n",
    "vehicle.yaml": "mass: 3\n",
}


@pytest.fixture
def shuttle(tmp_path, monkeypatch):
    """A package on disk, imported; gone again afterwards."""
    for name, text in FILES.items():
        path = tmp_path / "shuttle" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path / "shuttle"
    for name in [name for name in sys.modules if name.partition(".")[0] == "shuttle"]:
        del sys.modules[name]


def test_what_a_phase_imports_is_followed_and_drawing_is_not(shuttle):
    found = {str(path.relative_to(shuttle)) for path in source_files(importlib.import_module("shuttle.phase"))}
    assert found == set(FILES) - {"other_phase.py", "report/__init__.py"}


@pytest.mark.parametrize("name", FILES)
def test_only_an_edit_that_can_change_a_flight_changes_the_hash(shuttle, name):
    module = importlib.import_module("shuttle.phase")
    before = source_hash(module)
    path = shuttle / name
    path.write_text(path.read_text() + "# edited\n")
    assert (source_hash(module) != before) == (name not in ("other_phase.py", "report/__init__.py"))
