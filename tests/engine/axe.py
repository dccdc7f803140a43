"""The accessibility check of a page by axe-core, which the package `axe-core-python` brings; for tests only."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

_WEIGHTS = {"minor": 1, "moderate": 3, "serious": 7, "critical": 10, None: 1}
_RUN = """axe.run(document, {resultTypes: ['violations', 'passes']}).then(found => ({
    passes: found.passes.map(rule => rule.impact || (rule.nodes[0] && rule.nodes[0].impact) || null),
    violations: found.violations.map(rule => [rule.id, rule.impact, rule.nodes.slice(0, 3).map(node => node.html.slice(0, 200))])}))"""


def _results(page: Any) -> dict[str, Any]:
    spec = importlib.util.find_spec("axe_core_python")
    if spec is None or spec.origin is None:
        pytest.skip("no axe-core here: it is in the group `dev`, as axe-core-python")
    source = (Path(spec.origin).parent / "axe.min.js").read_text(encoding="utf-8")
    page.run(f"{source}; 0")
    return page.run(_RUN)


def checked(page: Any) -> tuple[list[Any], float]:
    """Return each rule that the page breaks, with its impact and up to three elements, and the score of the page.

    The score is 100 x the weights of the rules that pass over those of all that apply; a rule weighs more the graver its
    impact.
    """
    found = _results(page)
    passed = sum(_WEIGHTS[impact] for impact in found["passes"])
    failed = sum(_WEIGHTS[impact] for _, impact, _ in found["violations"])
    return found["violations"], 100.0 * passed / (passed + failed)
