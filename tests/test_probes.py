"""Learners on probes: critics and actors against values known by hand, each program traced once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import probes
import pytest
from probes import GAMMA

from mission import NetworkConfig
from mission.networks import make_networks, mean_action
from mission.testing import check_phase, make_phase
from mission.train import Run, begin, fill_and_warm_up, train_chunk

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
    assert [program._cache_size() for program in (run.programs.init, run.programs.fill, run.programs.chunk)] == [
        1,
        1,
        1,
    ]
    assert int(run.state.agent.updates) == chunks * 512
    return run


def critics(run: Run, obs: list[list[float]], action: list[list[float]]) -> np.ndarray:
    networks = make_networks(run.phase.sac, 1)
    return np.asarray(networks.q(run.state.agent.critic, np.array(obs, np.float32), np.array(action, np.float32)))


def actions(run: Run, obs: list[list[float]]) -> np.ndarray:
    networks = make_networks(run.phase.sac, 1)
    return np.asarray(
        mean_action(run.phase.sac.actor.head, networks.normal(run.state.agent.actor, np.array(obs, np.float32)))
    )[:, 0]


BOTH = [[1.0, 0.0], [-1.0, 0.0]]


@pytest.mark.parametrize(
    ("spec", "chunks", "obs", "values"),
    [
        (probes.constant, 5, BOTH, [1.0, 1.0]),
        (lambda: probes.observed(prioritised=False), 5, BOTH, [1.0, -1.0]),
        (lambda: probes.discounted(n_step=2), 6, [[1.0, 0.0], [1.0, 1.0]], [GAMMA, 1.0]),
        (probes.death, 6, [[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]], [1.0 + GAMMA + GAMMA**2, 1.0 + GAMMA, 1.0]),
        (probes.time_out, 10, BOTH, [1.0 / (1.0 - GAMMA)] * 2),
    ],
    ids=["constant", "observed, uniform", "discounted, two steps at once", "death", "time-out"],
)
def test_value(spec: Callable[[], Any], chunks: int, obs: list[list[float]], values: list[float]) -> None:
    run = train(spec(), chunks)
    q = critics(run, obs, [[float(a)] for a in actions(run, obs)])
    np.testing.assert_allclose(q, np.tile(values, (2, 1)), rtol=0.05)


# Where the action counts: two layers, and noise that keeps the critic's data from narrowing to a point.
WIDE: dict[str, Any] = {
    "critic": NetworkConfig(width=32, activation="silu"),
    "exploration_noise": 0.1,
    "actor_learning_rate": 5e-4,
}


def test_action() -> None:
    """The squashed head."""
    run = train(probes.acted(**WIDE), 24)
    np.testing.assert_allclose(actions(run, BOTH), 0.5, rtol=0.05)
    np.testing.assert_allclose(critics(run, BOTH, [[0.5], [0.5]]), 1.0, rtol=0.05)


@pytest.mark.parametrize("head", ["bounded", "softplus"])
def test_observation_and_action(head: str) -> None:
    spec = probes.observed_and_acted(
        actor=probes.probe_sac().actor.model_copy(update={"head": head}), max_std=0.5, **WIDE
    )
    run = train(spec, 24)
    np.testing.assert_allclose(actions(run, BOTH), [0.5, -0.5], rtol=0.05)
    np.testing.assert_allclose(critics(run, BOTH, [[0.5], [-0.5]]), 1.0, rtol=0.05)


@pytest.mark.parametrize("spec", [*SPECS, lambda: probes.drift(probes.probe_sac())], ids=lambda spec: spec.__name__)
def test_probes_keep_the_contract(spec: Callable[[], Any]) -> None:
    check_phase(spec())
