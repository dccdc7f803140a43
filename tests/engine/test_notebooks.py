"""The notebooks of the documentation run, and hold no results."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from test_docs import load_file

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))
SHOWN = {
    "a-phase-of-your-own": ("<progress", "<iframe", 'stopped by observer &quot;watch&quot;', "bugdet", "local source"),
    "fly-and-analyse": ("<progress", "<iframe", "success 400 of 400", "True", "image/png", "throttle"),
}  # fmt: skip


def test_both_notebooks_are_here() -> None:
    assert {path.stem for path in NOTEBOOKS} == set(SHOWN)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_holds_no_results_and_its_page_is_current(path: Path) -> None:
    book = json.loads(path.read_text(encoding="utf-8"))
    for cell in book["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
    page = path.with_suffix(".md").read_text(encoding="utf-8")
    assert load_file(ROOT / "docs/generate.py").notebook_page(path) == page, "run `make docs`"
    assert str(ROOT) not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [str(ROOT), str(ROOT / "plugins/rocket"), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    book = nbformat.read(path, 4)
    NotebookClient(book, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in book.cells for output in cell.get("outputs", ())]
    text = json.dumps(outputs, ensure_ascii=False).replace('\\"', '"')
    for part in SHOWN[path.stem]:
        assert part in text, part
    warnings = "".join(output["text"] for output in outputs if output.get("name") == "stderr")
    assert "JAX was already running" not in warnings
    assert not re.findall(r"absl|Traceback|dropped", warnings), warnings
