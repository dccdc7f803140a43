"""Mutated mission and vehicle files, a bounded run of `benchmarks/mutations.py`: refused with a message, and quickly."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))

import mutations


def test_mutations_are_accepted_or_refused(tmp_path: Path) -> None:
    mutations.warm_up()
    results = list(mutations.run(tmp_path, count=160))
    assert [result for *_, result in results if result.traceback] == []
    assert max(result.seconds for *_, result in results) < mutations.LONGEST_S
    ends = {result.how for *_, result in results}
    assert {"accepted", "InputError"} <= ends


@pytest.mark.parametrize("name", ["vertical.yaml", "small_booster.yaml"])
def test_a_file_taken_apart_and_written_again_is_the_same(name: str) -> None:
    (path,) = [path for path in mutations.SHIPPED if path.name == name]
    tree = mutations.tree_of(mutations.content(path))
    assert mutations.YAML(typ="safe", pure=True).load(mutations.text_of(tree)) == mutations.content(path)


def test_a_number_names_a_mutation() -> None:
    path = mutations.VEHICLES[0]
    assert mutations.mutated(path, 7) == mutations.mutated(path, 7) != mutations.mutated(path, 8)
