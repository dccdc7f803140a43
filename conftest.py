"""Strict JAX flags, the two CPU devices of production, and `--runslow`."""

from __future__ import annotations

import pytest

from mission.machine.devices import configure

configure()

import jax  # noqa: E402

from mission.training import baseline  # noqa: E402

baseline.BASELINE_FLIGHTS = 0  # 10,000 flights after each training run of a test would take most of its time

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "standard")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--runslow", action="store_true", help="also run the tests that train for minutes")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: trains for minutes; runs with --runslow")
    config.addinivalue_line(
        "markers", "wheels: builds and installs wheels; about a minute, -m 'not wheels' leaves it out"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--runslow"):
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs --runslow"))
