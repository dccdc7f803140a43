"""A private copy of what a module's `trained` fixture stored."""

from __future__ import annotations

import shutil

import pytest


@pytest.fixture
def copy(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"
