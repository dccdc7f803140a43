"""A chain of phases as one phase: it flies as its parts do."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import probes
import pytest

from mission import load_mission, make_env, resolve_mission
from mission.errors import LinkError
from mission.testing import make_phase


def drift(name: str = "drift", **fields: Any) -> Any:
    return make_phase(probes.drift(sac=probes.probe_sac(), **fields), name=name)


def test_a_chain_flies_as_the_phase_that_was_cut() -> None:
    whole, parts = drift(until=9), [drift("first", until=5), drift("second", until=9)]
    cut = make_env(parts, vehicles=8)
    assert cut.observation_names[-2:] == ("in first", "in second")
    assert cut.causes[0] == "flown"
    one = make_env(whole, vehicles=8)
    leg = jax.jit(cut.init)(jax.random.key(0))[0]
    state = jax.jit(one.init)(jax.random.key(0))[0]
    state = state._replace(state=jax.tree.map(jnp.asarray, leg.state.states[0]))
    steps = jax.jit(cut.step), jax.jit(one.step)
    for i in range(9):
        action = jax.random.uniform(jax.random.key(i), (8, 2), minval=-1.0, maxval=1.0)
        leg, flown = steps[0](jax.random.key(100 + i), leg, action)
        state, result = steps[1](jax.random.key(100 + i), state, action)
        np.testing.assert_allclose(flown.next_obs[:, :4], result.next_obs, atol=1e-6)
        np.testing.assert_array_equal(flown.next_obs[:, 4:], [[i < 4, i >= 4]] * 8)
        np.testing.assert_allclose(flown.reward, result.reward, atol=1e-6)
        np.testing.assert_array_equal(flown.terminated, result.terminated)
    assert flown.success.all()
    assert set(flown.terms) == {"first: x", "second: x"}
    np.testing.assert_allclose(flown.returns, result.returns, atol=1e-5)


def test_a_time_out_inside_a_chain_fails_the_mission() -> None:
    env = make_env([drift("first", until=3), drift("second", until=9, max_steps=2)], vehicles=4)
    state, step = jax.jit(env.init)(jax.random.key(0))[0], jax.jit(env.step)
    for i in range(5):
        state, result = step(jax.random.key(i), state, jnp.zeros((4, 2)))
    assert result.terminated.all()
    assert not result.truncated.any()
    assert not result.success.any()
    assert {env.causes[cause] for cause in result.cause} == {"second: time_out"}


def test_a_chain_pads_and_its_guides_fly_it() -> None:
    phases = resolve_mission(load_mission("vertical"))
    env = make_env(phases, vehicles=16, guide=True)

    def fly(state: Any, key: Any) -> Any:
        return env.step(key, state, env.guide(state))

    program = jax.jit(lambda key: jax.lax.scan(fly, env.init(key)[0], jax.random.split(key, 450))[1])
    results = program(jax.random.key(0))
    assert results.terminated.sum() >= 16
    np.testing.assert_array_equal(results.success, results.terminated)
    with pytest.raises(LinkError):
        make_env([phases[1], drift()])
