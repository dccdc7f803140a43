"""Learners on probes: critics and actors against values known by hand, each program traced once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import probes
import pytest

from mission.testing import check_phase, make_phase
from mission.training.loop import Run, begin, fill_and_warm_up, train_chunk

SPECS = (
    probes.constant,
    probes.observed,
    probes.discounted,
    probes.acted,
    probes.observed_and_acted,
    probes.death,
    probes.time_out,
)


def quiet(*arguments: Any, **details: Any) -> None:
    pass


def train(spec: Any, chunks: int) -> Run:
    """A trained run; every program must have been traced exactly once."""
    run = begin(make_phase(spec), None, jax.random.key(5))
    fill_and_warm_up(run, quiet)
    train_chunk(run, quiet)
    traced = len(run.phase.environment.traced)  # type: ignore[attr-defined]
    for _ in range(chunks - 1):
        train_chunk(run, quiet)
    assert len(run.phase.environment.traced) == traced  # type: ignore[attr-defined]
    assert run.programs.chunk.variants == 1
    assert int(run.state.agent.updates) == chunks * 512
    return run


@pytest.mark.parametrize("case", probes.CASES.values(), ids=probes.CASES.keys())
def test_critics_and_actor_within_5_percent(case: probes.Case) -> None:
    errors = probes.largest_errors(case, train(case.spec(), case.chunks))
    assert all(error <= 0.05 for error in errors if error is not None)


@pytest.mark.parametrize("spec", [*SPECS, lambda: probes.drift(probes.probe_sac())], ids=lambda spec: spec.__name__)
def test_probes_keep_the_contract(spec: Callable[[], Any]) -> None:
    check_phase(spec())
