"""Exact value gradients: against automatic differentiation, and on a linear-quadratic problem with a known optimum."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear_quadratic import GAMMA, best_gain, regulator

from mission import ActorConfig, FillConfig
from mission.learner import PhaseInterface
from mission.sac.losses import create_agent
from mission.sac.networks import make_networks, sample_action
from mission.sac.value_gradient import ValueGradient
from mission.testing import make_phase
from mission.training.loop import begin, fill_and_warm_up, train_chunk


@pytest.mark.parametrize(("wall", "standardise"), [(100.0, False), (0.9, True)])
def test_the_gradient_is_that_of_the_unrolled_flights(wall, standardise):
    """Flights that end at the wall within the horizon have no value after it; one of the flights does not count."""
    horizon, flights, alpha = 6, 8, 0.3
    phase = make_phase(regulator(wall, actor_horizon=horizon, standardise=standardise))
    config, env = phase.learner, phase.environment
    networks = make_networks(config, 1)
    agent = create_agent(config, networks, jax.random.key(1), 1)
    key = jax.random.key(2)
    states = jax.vmap(env.start)(jax.random.split(jax.random.key(3), flights))
    valid = jnp.arange(flights) != 3

    def unrolled(actor):
        state, over, total = states, ~valid, jnp.zeros(flights)
        for t in range(horizon + 1):
            noise = jax.random.normal(jax.random.fold_in(key, 2 * t), (flights, 1))
            obs = jax.vmap(env.observe)(state)
            action, log_density = sample_action(config.actor.head, networks.normal(actor, obs), noise)
            if t == horizon:
                gain = networks.q(agent.critic, obs, action).min(axis=0) - alpha * log_density
            else:
                after = jax.vmap(env.step)(jax.random.split(key, flights), state, jnp.clip(action, -1.0, 1.0))
                gain = -after.cost - alpha * log_density
            total = total + jnp.where(over, 0.0, GAMMA**t * gain)
            if t < horizon:
                over, state = over | jax.vmap(env.outcome)(after).terminated, after
        return -total.sum() / valid.sum(), over

    (loss, over), grads = jax.value_and_grad(unrolled, has_aux=True)(agent.actor)
    assert (wall < 1.0) == bool(over[valid].any())
    assert not over[valid].all()
    interface = PhaseInterface(1, 1, 1.0, env, phase.reward)
    found = jax.jit(ValueGradient(config, networks, interface, GAMMA))(
        agent.actor, agent.critic, alpha, (states, valid), key
    )
    np.testing.assert_allclose(found.loss, loss, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(found.grads), jax.tree.leaves(grads), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6)


def test_a_flight_that_breaks_does_not_spoil_the_others():
    phase = make_phase(regulator(actor_horizon=4))
    networks = make_networks(phase.learner, 1)
    agent = create_agent(phase.learner, networks, jax.random.key(1), 1)
    states = jax.vmap(phase.environment.start)(jax.random.split(jax.random.key(3), 4))
    broken = states._replace(x=states.x.at[2].set(jnp.nan))
    gradient = ValueGradient(phase.learner, networks, PhaseInterface(1, 1, 1.0, phase.environment, phase.reward), GAMMA)
    every, three = jnp.ones(4, bool), jnp.arange(4) != 2
    with_it = gradient(agent.actor, agent.critic, 0.1, (broken, every), jax.random.key(2))
    without = gradient(agent.actor, agent.critic, 0.1, (states, three), jax.random.key(2))
    for a, b in zip(jax.tree.leaves(with_it.grads), jax.tree.leaves(without.grads), strict=True):
        np.testing.assert_allclose(a * 4 / 3, b, rtol=1e-4, atol=1e-6)


def test_a_limit_scales_down_the_flights_beyond_it_and_no_others():
    """The cost is quadratic, so lambda_t grows with x, and with 50 times the state a flight outweighs the others."""
    phase = make_phase(regulator(actor_horizon=4))
    networks, flights = make_networks(phase.learner, 1), jnp.arange(4)
    agent = create_agent(phase.learner, networks, jax.random.key(1), 1)
    states = jax.vmap(phase.environment.start)(jax.random.split(jax.random.key(3), 4))
    states = states._replace(x=states.x.at[2].multiply(50.0))

    def gradient(limit, valid):
        config = phase.learner.model_copy(update={"actor_flight_grad_max": limit})
        parts = ValueGradient(config, networks, PhaseInterface(1, 1, 1.0, phase.environment, phase.reward), GAMMA)
        found = parts(agent.actor, agent.critic, 0.0, (states, valid), jax.random.key(2))
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(found.grads)])

    free, limited = ([gradient(limit, flights == one) for one in range(4)] for limit in (None, 20.0))
    for one in (0, 1, 3):
        np.testing.assert_array_equal(limited[one], free[one])
    assert np.linalg.norm(free[2]) > 20.0 * max(np.linalg.norm(free[one]) for one in (0, 1, 3))
    assert np.linalg.norm(limited[2]) < 0.5 * np.linalg.norm(free[2])
    np.testing.assert_allclose(gradient(20.0, flights >= 0), np.mean(limited, axis=0), rtol=1e-4, atol=1e-5)
    tight, twice = gradient(0.01, flights == 2), gradient(0.02, flights == 2)
    closing = 2.0 * tight - twice  # of the critics at the horizon, which no limit holds for
    np.testing.assert_allclose(gradient(0.04, flights == 2), 4.0 * (tight - closing) + closing, rtol=1e-3, atol=1e-4)


def gain_error(horizon: int, chunks: int) -> float:
    """Return the largest error of the trained mean action on |x| <= 0.8, against the optimum."""
    settings = {"actor_horizon": horizon, "actor_batch": 32} if horizon else {}
    spec = regulator(
        actor=ActorConfig(width=32, depth=1, activation="tanh", log_std_max=-1.0),
        temperature_initial=1e-5,
        fill=FillConfig(env_steps=512),
        updates_per_step=1 / 16,
        chunk_env_steps=640,
        actor_learning_rate=5e-3,
        **settings,
    )
    run = begin(make_phase(spec), None, jax.random.key(0))
    silent = lambda *_, **__: None  # noqa: E731
    fill_and_warm_up(run, silent)
    for _ in range(chunks):  # of 40 updates
        train_chunk(run, silent)
    x = np.linspace(-0.8, 0.8, 17, dtype=np.float32)
    learner = run.programs.learner
    action = learner.mean_action(learner.policy(run.state.agent), jnp.asarray(x)[:, None])[:, 0]
    return float(np.abs(action - np.clip(-best_gain() * x, -1.0, 1.0)).max())


def test_a_horizon_finds_the_linear_quadratic_optimum_in_a_tenth_of_the_updates():
    exact = gain_error(horizon=10, chunks=5)
    assert exact < 0.15
    assert gain_error(horizon=0, chunks=50) > exact
