"""Stepping, restarting and flying: what is stored, what restarts where, and what a flight depends on."""

from __future__ import annotations

import dataclasses
import os
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import probes
import pytest
from jax import Array
from probes import Drift

from mission.flight.batches import BATCH, BLOCK, compile_flight, flight_keys, fly_batch, fly_rows, nominal_starts
from mission.flight.fly import fly_phase, guide_controller
from mission.machine.devices import configure
from mission.machine.trees import state_leaf_names
from mission.missionfile.models import Restart
from mission.missionfile.phases import Phase
from mission.testing import make_phase
from mission.training.bank import TerminalBank, fit_density
from mission.training.restart import draw_start
from mission.training.step import WAITING, EnvBatch, start_waiting, step_envs, waiting_envs

E = 64


def drift_phase(**fields: Any) -> Phase:
    return make_phase(probes.drift(**fields))


def trained_phase(**fields: Any) -> Phase:
    """The same with a learner."""
    return drift_phase(sac=probes.probe_sac(), **fields)


def drifts(count: int, age: int = 0) -> Drift:
    """Handoffs with labels 0, 1, 2, ..."""
    position = jax.random.uniform(jax.random.key(9), (count, 2), minval=-1.0, maxval=1.0)
    return Drift(position, jnp.zeros((count, 2)), jnp.full(count, age, jnp.int32), jnp.arange(count, dtype=jnp.int32))


def advance(phase: Phase, envs: EnvBatch, key: int, action: Array | None = None) -> Any:
    """One step under the guide, or under these actions."""
    obs = jax.vmap(phase.environment.observe)(envs.state)
    action = jax.vmap(phase.environment.guide)(envs.state) if action is None else action
    keys = jax.random.split(jax.random.key(key), len(obs))
    return jax.jit(partial(step_envs, phase))(envs, obs, action, keys), obs, action


def started(phase: Phase, envs: EnvBatch, key: int = 0, bank: TerminalBank | None = None) -> EnvBatch:
    """The same vehicles after those that wait have started."""
    return jax.jit(partial(start_waiting, phase, bank))(envs, jax.random.split(jax.random.key(key), len(envs.steps)))


def test_a_step_is_stored_before_the_restart() -> None:
    """Half the vehicles end on this step; the stored observation is the old episode's."""
    phase = trained_phase(until=5)
    age = jnp.where(jnp.arange(E) % 2 == 0, 4, 1)
    envs = EnvBatch(drifts(E)._replace(age=age), jnp.full(E, 3, jnp.int32), jnp.arange(E, dtype=jnp.float32))
    action = 3.0 * jax.random.normal(jax.random.key(1), (E, 2))
    (after, stored, end, terms, finite), obs, _ = advance(phase, envs, 2, action)
    clipped = np.clip(np.asarray(action, np.float64), -1.0, 1.0)
    position = np.asarray(envs.state.position, np.float64)
    velocity = 0.1 * (clipped - np.sin(3.0 * position))
    moved = position + 0.1 * velocity
    np.testing.assert_array_equal(stored.obs, obs)
    np.testing.assert_array_equal(stored.action, action)
    np.testing.assert_allclose(stored.next_obs, np.concatenate([moved, velocity], axis=1), atol=1e-6)
    np.testing.assert_allclose(stored.reward, moved[:, 0], atol=1e-6)
    np.testing.assert_allclose(terms["x"], stored.reward)
    even = np.arange(E) % 2 == 0
    np.testing.assert_array_equal(stored.terminated, even)
    np.testing.assert_array_equal(stored.ended, even)
    np.testing.assert_array_equal(end.success, even)
    np.testing.assert_allclose(end.returns, np.arange(E) + moved[:, 0], atol=1e-5)
    np.testing.assert_array_equal(end.steps, 4)
    np.testing.assert_array_equal(after.steps, np.where(even, WAITING, 4))
    after = started(phase, after)
    np.testing.assert_array_equal(after.steps, np.where(even, 0, 4))
    np.testing.assert_allclose(after.returns, np.where(even, 0.0, end.returns), atol=1e-6)
    # A start of its own has label -1.
    np.testing.assert_array_equal(after.state.label, np.where(even, -1, np.arange(E)))
    np.testing.assert_array_equal(after.state.age, np.where(even, 0, 2))
    np.testing.assert_allclose(after.state.position[~even], moved[~even], atol=1e-6)
    assert finite.all()


def test_a_time_out_ends_but_does_not_terminate() -> None:
    phase = trained_phase(until=50, max_steps=3)
    envs = started(phase, waiting_envs(phase, E))
    for step in range(1, 7):
        (envs, stored, end, _, _), _, _ = advance(phase, envs, step)
        assert not stored.terminated.any()
        assert not end.success.any()
        assert bool(stored.ended.all()) == (step % 3 == 0) == bool(stored.ended.any())
        envs = started(phase, envs, step)
        np.testing.assert_array_equal(envs.steps, step % 3)


def test_death_on_the_last_step_is_terminated() -> None:
    phase = trained_phase(until=3, max_steps=3)
    envs = started(phase, waiting_envs(phase, E))
    for step in range(3):
        (envs, stored, _, _, _), _, _ = advance(phase, envs, step)
    assert stored.terminated.all()
    assert stored.ended.all()


def test_every_restart_is_a_fresh_start() -> None:
    phase = trained_phase(until=1)
    envs = started(phase, waiting_envs(phase, E))
    seen = [np.asarray(envs.state.position)]
    for step in range(5):
        (envs, stored, _, _, _), _, _ = advance(phase, envs, step)
        assert stored.ended.all()
        envs = started(phase, envs, step + 1)
        seen.append(np.asarray(envs.state.position))
    positions = np.concatenate(seen).reshape(-1, 2)
    assert len(np.unique(positions, axis=0)) == 6 * E


def bank_of(count: int) -> TerminalBank:
    """Rows near x = 100 + label, ages of 7."""
    rows = drifts(count, age=7)
    rows = rows._replace(position=jnp.stack([100.0 + jnp.arange(count), jnp.zeros(count)], axis=1))
    return TerminalBank(rows, rows, *map(jnp.asarray, fit_density(rows)))


@pytest.mark.parametrize("shares", [(0.7, 0.1, 0.2), (0.2, 0.5, 0.3), (0.0, 0.0, 1.0)])
def test_restart_mix(shares: tuple[float, float, float]) -> None:
    phase, bank, draws = drift_phase(), bank_of(50), 20_000
    restart = Restart(stored=shares[0], noisy=shares[1], nominal=shares[2])
    phase = dataclasses.replace(phase, entry=phase.entry.model_copy(update={"restart": restart}))
    starts = jax.jit(jax.vmap(lambda key: draw_start(phase, bank, key)))(jax.random.split(jax.random.key(0), draws))
    label, x = np.asarray(starts.label), np.asarray(starts.position[:, 0], np.float64)
    nominal = label == -1
    stored = ~nominal & (x == 100.0 + label)
    noisy = ~nominal & ~stored
    found = np.array([stored.mean(), noisy.mean(), nominal.mean()])
    assert (np.abs(found - shares) <= 4.5 * np.sqrt(np.array(shares) * (1 - np.array(shares)) / draws)).all()
    assert (np.asarray(starts.age)[~nominal] == 7).all()
    if shares[0] > 0.5:
        counts = np.bincount(label[stored], minlength=50)
        assert np.abs(counts - stored.sum() / 50).max() < 4.5 * np.sqrt(stored.sum() / 50)
    if noisy.any():
        shift = x[noisy] - 100.0 - label[noisy]
        sd = restart.noise_scale * np.arange(50).std()
        assert abs(shift.mean()) < 4.5 * sd / np.sqrt(noisy.sum())
        np.testing.assert_allclose(shift.std(), sd, rtol=0.1 if noisy.sum() < 3000 else 0.05)
        np.testing.assert_allclose(starts.position[noisy, 1], 0.0, atol=1e-6)  # a constant entry gets no noise


def test_training_restarts_from_the_bank() -> None:
    phase, bank = trained_phase(until=8), bank_of(50)
    envs = started(phase, waiting_envs(phase, 512), 0, bank)
    (after, *_), _, _ = advance(phase, envs, 1, jnp.zeros((512, 2)))
    after = started(phase, after, 2, bank)
    # Of 0.8 that came from the bank, all ended at age 8; 0.8 of those came from it again.
    for state, share in ((envs.state, 0.8), (after.state, 0.64)):
        assert abs((np.asarray(state.label) >= 0).mean() - share) < 4.5 * np.sqrt(share * (1 - share) / 512)
    ended = np.asarray(envs.state.age) == 7
    assert (np.asarray(after.steps) == np.where(ended, 0, 1)).all()


def fly(phase: Phase, handoff: Any, alive: np.ndarray | None = None, key: int = 0) -> Any:
    count = handoff.label.shape[0]
    alive = np.ones(count, bool) if alive is None else alive
    return fly_batch(compile_flight(phase), None, handoff, flight_keys(jax.random.key(key), np.arange(count)), alive)


def test_causes_and_frozen_vehicles() -> None:
    """Label 2 turns into NaN at age 3, label 4 is lost before, label 1 comes in too young to arrive in time."""
    phase = drift_phase(until=12, broken=2, max_steps=10)
    starts = drifts(6)._replace(age=jnp.array([5, 0, 0, 5, 5, 12], jnp.int32))
    alive = np.arange(6) != 4
    result = fly(phase, starts, alive)
    assert phase.causes == ("arrived", "lost", "time_out", "non_finite")
    np.testing.assert_array_equal(result.success, [True, False, False, True, False, True])
    np.testing.assert_array_equal(result.cause[[0, 1, 2, 3, 5]], [0, 2, 3, 0, 0])
    np.testing.assert_array_equal(result.steps, [7, 10, 3, 7, 0, 0])
    np.testing.assert_array_equal(result.handoff.age, [12, 10, 3, 12, 5, 12])
    np.testing.assert_array_equal(result.handoff.position[4], starts.position[4])
    assert np.isnan(result.handoff.position[2]).any()
    assert np.isfinite(np.asarray(result.handoff.position)[[0, 1, 3, 4, 5]]).all()
    assert state_leaf_names(phase.environment) == ("state.position", "state.velocity")


def track(starts: Drift, steps: int) -> np.ndarray:
    """Positions [steps + 1, N, 2] under the guide, float64."""
    position, velocity = np.asarray(starts.position, np.float64), np.asarray(starts.velocity, np.float64)
    frames = [position]
    for _ in range(steps):
        action = np.clip(np.cos(2.0 * position) - 0.3 * velocity, -1.0, 1.0)
        velocity = velocity + 0.1 * (action - np.sin(3.0 * position))
        position = position + 0.1 * velocity
        frames.append(position)
    return np.stack(frames)


def test_extremes_and_returns_against_numpy() -> None:
    starts = drifts(30)
    result = fly(drift_phase(until=40), starts)
    x = track(starts, 40)[:, :, 0]
    np.testing.assert_allclose(result.telemetry["x_m"], x[-1], atol=1e-4)
    np.testing.assert_allclose(result.lowest["x_m"], x.min(axis=0), atol=1e-4)
    np.testing.assert_allclose(result.highest["x_m"], x.max(axis=0), atol=1e-4)
    np.testing.assert_allclose(result.returns, x[1:].sum(axis=0), atol=2e-3)
    np.testing.assert_allclose([result.lowest["age_s"], result.highest["age_s"]], [[0.0] * 30, [4.0] * 30], atol=1e-5)
    assert (x.max(axis=0) > x[-1]).any()


def test_a_chain_is_the_uncut_flight() -> None:
    """Cut in two and in three places, nothing changes but the bookkeeping of the parts."""
    starts = drifts(40)
    whole = fly(drift_phase(until=40), starts)
    handoff, returns, steps = starts, 0.0, 0
    for until in (13, 14, 40):
        part = fly(drift_phase(until=until), handoff)
        handoff, returns, steps = part.handoff, returns + part.returns, steps + part.steps
        assert part.success.all()
    for found, wanted in zip(handoff, whole.handoff, strict=True):
        np.testing.assert_array_equal(found, wanted)
    np.testing.assert_allclose(returns, whole.returns, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(steps, whole.steps)


def test_a_flight_does_not_depend_on_how_many_fly() -> None:
    """Random starts and winds; 1,500 flights are two batches, 700 are part of one."""
    phase = drift_phase(wind=0.2)
    flight = compile_flight(phase)
    key = jax.random.key(3)
    many, few = (fly_rows(phase, flight, None, None, np.arange(count), key) for count in (1500, 700))
    assert len(many.success) == 1500 > BATCH
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[:700], b), many, few)
    assert len(np.unique(np.asarray(many.handoff.position[:, 0]))) > 1490
    alone = np.array([1200])
    keys = flight_keys(key, alone)
    one = fly_batch(flight, None, nominal_starts(phase, keys), keys, np.ones(1, bool))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[1200:1201], b), many, one)
    # no program runs for them between two flights (docs/decisions/0008-rows-on-the-host.md)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(one))


def test_compiled_flight_is_fly_phase() -> None:
    """Padding and division into blocks change nothing."""
    phase, starts = drift_phase(wind=0.1), drifts(7)
    keys = flight_keys(jax.random.key(0), np.arange(7))
    plain = jax.jit(partial(fly_phase, phase, guide_controller(phase)))(None, starts, keys, jnp.ones(7, bool))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), plain, fly(phase, starts))


def test_a_flight_is_one_kernel() -> None:
    """XLA would otherwise call its small kernels one by one (docs/decisions/0010-loops-as-one-kernel.md)."""
    phase = drift_phase(until=5)
    keys = flight_keys(jax.random.key(0), np.arange(BLOCK))
    arguments = (None, drifts(BLOCK), keys, np.ones(BLOCK, bool))
    compiled = jax.jit(partial(fly_phase, phase, guide_controller(phase))).lower(*arguments).compile().as_text()
    entry = compiled[compiled.index("\nENTRY") :]
    assert " while(" not in entry
    assert 'xla_cpu_small_call="true"' in entry


@pytest.mark.parametrize(
    ("given", "added"),
    [
        ("", 2),
        ("--xla_cpu_enable_fast_math=false", 2),
        ("--xla_cpu_multi_thread_eigen=true", 1),
        ("--xla_cpu_multi_thread_eigen=true --xla_backend_extra_options=xla_cpu_optimize_for_size=1", 0),
    ],
)
def test_flags_of_the_user_stay(monkeypatch: pytest.MonkeyPatch, given: str, added: int) -> None:
    monkeypatch.setenv("XLA_FLAGS", given)
    configure()
    flags = os.environ["XLA_FLAGS"].split()
    assert flags[: len(flags) - added] == given.split()
    assert len({flag.split("=")[0] for flag in flags}) == len(flags)
