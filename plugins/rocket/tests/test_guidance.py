"""What guides and agents share: corrections of a guide, events that are overdue, estimates in flight."""

from __future__ import annotations

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mission_rocket.controls import bounded, corrected, uncorrected
from mission_rocket.dispersions import Dispersions
from mission_rocket.guides.guidance import estimate_drag, estimate_lag, estimate_thrust, with_thrust
from mission_rocket.guides.landing import Gains
from mission_rocket.measurement import measure
from mission_rocket.phases.ascent import Ascent
from mission_rocket.phases.ascent import Params as AscentParams
from mission_rocket.phases.ballistic_arc import BallisticArc
from mission_rocket.phases.entry_burn import EntryBurn
from mission_rocket.phases.entry_burn import Params as EntryParams
from mission_rocket.phases.flip_boostback import FlipBoostback
from mission_rocket.phases.landing_burn import LandingBurn
from mission_rocket.phases.landing_burn import Params as LandingParams
from mission_rocket.physics.state import Handover

quick = settings(max_examples=60, deadline=None)
actions = st.lists(st.floats(-3.0, 3.0, width=32, allow_subnormal=False), min_size=3, max_size=3).map(
    lambda values: jnp.array(values, jnp.float32)
)


@quick
@given(actions, st.floats(0.01, 1.0))
def test_a_correction_stays_within_the_actuators_and_its_authority(guide: jax.Array, residual: float) -> None:
    planned = bounded(guide, (1,))
    full = corrected(planned, residual, jnp.ones(3))
    none = corrected(planned, residual, uncorrected(planned, residual))
    assert (np.abs(np.asarray(full)) <= 1.0).all()
    assert (np.asarray(full - none) <= residual + 1e-6).all()
    np.testing.assert_array_equal(np.asarray(none), np.clip(np.asarray(guide), -1.0, 1.0))


@quick
@given(actions)
def test_without_residual_the_agent_flies_alone(guide: jax.Array) -> None:
    agent = jnp.array([0.3, -0.4, 0.9])
    np.testing.assert_array_equal(corrected(guide, 0.0, agent), agent)
    assert (np.abs(np.asarray(uncorrected(guide, 0.0))) <= 1.0).all()


def test_an_overdue_event_can_be_postponed_but_not_indefinitely() -> None:
    """-1 is now. Due now, the correction holds it back; overdue by more than its authority, it cannot."""
    put_off = jnp.ones(2)
    due, overdue = (corrected(bounded(jnp.array([0.0, at]), (1,)), 0.1, put_off)[1] for at in (-1.0, -1.2))
    assert float(due) > -0.95
    assert float(overdue) == -1.0


def at_level(level: float, engines: float) -> Handover:
    env = LandingBurn.build(LandingParams())
    flight = env.start(jax.random.key(0))
    motion = flight.state.motion
    levels = (jnp.float32(level), jnp.float32(level if engines == 3.0 else 0.0), *motion.levels[2:])
    return flight._replace(state=flight.state._replace(motion=motion._replace(levels=levels)))


@pytest.mark.parametrize("lag", [0.2, 0.3, 0.45])
def test_the_lag_is_found_from_how_an_actuator_follows(lag: float) -> None:
    was, command, period = 0.9, 0.5, 0.2
    now = command + (was - command) * np.exp(-period / lag)
    before, free = jnp.float32(0.3), jnp.bool_(True)
    assert float(estimate_lag(before, was, now, command, free, period)) == pytest.approx(lag, rel=1e-3)
    # nothing is learnt from one that is not free to follow, or has nothing to follow
    assert float(estimate_lag(before, was, now, command, jnp.bool_(False), period)) == pytest.approx(0.3)
    assert float(estimate_lag(before, command, command, command, free, period)) == pytest.approx(0.3)


@pytest.mark.parametrize("engines", [1.0, 3.0])
@pytest.mark.parametrize("share", [0.97, 1.0, 1.03])
def test_the_thrust_is_found_from_what_the_engines_give(share: float, engines: float) -> None:
    env = LandingBurn.build(LandingParams())
    before = jnp.float32(0.9)

    def estimated(level: float) -> float:
        flight = at_level(level, engines)
        flight = flight._replace(dispersion=flight.dispersion._replace(thrust=jnp.float32(share)))
        return float(estimate_thrust(env.body, engines, measure(env.body, env.site, True, flight), before))

    assert estimated(0.8) == pytest.approx(share, abs=1e-4)
    assert estimated(0.2) == pytest.approx(0.9)  # starting: kept
    stronger = with_thrust(env.body, jnp.float32(share)).engines[0]
    assert float(stronger.thrust / stronger.flow) == pytest.approx(
        env.body.engines[0].thrust / env.body.engines[0].flow
    )
    assert float(stronger.thrust) == pytest.approx(share * env.body.engines[0].thrust)


def test_the_flare_is_the_path_of_its_own_deceleration() -> None:
    """v dv/dh is the deceleration at every height, and both ends are what the gains say."""
    gains = Gains()
    heights = jnp.linspace(0.0, gains.flare_m, 2001)
    speed, braking = (np.asarray(part, float) for part in gains.flare(heights))
    assert speed[0] == pytest.approx(gains.final_m_s)
    assert speed[-1] == pytest.approx(gains.flare_m_s, rel=1e-4)
    slope = np.gradient(0.5 * speed**2, np.asarray(heights, float))
    inner = np.abs(speed - gains.slow_m_s) > 0.05  # where both parts meet the difference quotient does not hold
    np.testing.assert_allclose(slope[inner][2:-2], braking[inner][2:-2], rtol=2e-2)
    # 4 cm of height at the ground are 6 cm/s, not a stop above it
    assert float(gains.flare(jnp.float32(0.04))[0] - speed[0]) < 0.1


@pytest.mark.parametrize("share", [0.8, 1.0, 1.2])
def test_the_drag_is_found_from_what_the_fall_feels(share: float) -> None:
    env = LandingBurn.build(LandingParams(dispersions=Dispersions(turbulence=0.0)))
    flight = env.start(jax.random.key(1))
    flight = flight._replace(dispersion=flight.dispersion._replace(drag=jnp.float32(share)))
    measured, drag = measure(env.body, env.site, True, flight), jnp.ones(())
    for _ in range(40):
        drag = estimate_drag(env.body, measured, drag)
    assert float(drag) == pytest.approx(share, abs=0.02)


def test_an_engine_out_and_a_uniform_wind_are_the_same_in_every_flight() -> None:
    dispersions = Dispersions(engine_out=4, uniform_wind_m_s=20.0)
    drawn = jax.vmap(dispersions.draw, (0, None))(jax.random.split(jax.random.key(2), 8), 9)
    np.testing.assert_array_equal(drawn.engine_out, 4.0)
    np.testing.assert_array_equal(drawn.wind.uniform, 20.0)
    assert len(np.unique(drawn.thrust)) == 8


def test_a_share_of_the_flights_loses_any_one_of_the_engines() -> None:
    """Frequencies of 4,000 draws, each within four standard deviations; the other dispersions stay as they were."""
    keys, dispersions = jax.random.split(jax.random.key(5), 4000), Dispersions(engine_out_percent=45.0)
    drawn = jax.vmap(dispersions.draw, (0, None))(keys, 9)
    counts = np.bincount(np.asarray(drawn.engine_out, int) + 1, minlength=10)
    assert counts[0] == pytest.approx(2200, abs=126)
    np.testing.assert_allclose(counts[1:], 200, atol=56)
    without = jax.vmap(Dispersions().draw, (0, None))(keys, 9)
    np.testing.assert_array_equal(without.engine_out, -1.0)
    jax.tree.map(np.testing.assert_array_equal, drawn._replace(engine_out=without.engine_out), without)
    two = jax.vmap(Dispersions(engine_out_percent=45.0, engines_out=(1, 7)).draw, (0, None))(keys, 9)
    counts = np.bincount(np.asarray(two.engine_out, int) + 1, minlength=10)
    np.testing.assert_allclose(counts[[2, 8]], 900, atol=106)
    assert counts[[0, 2, 8]].sum() == 4000


@pytest.mark.parametrize("phase", [Ascent, FlipBoostback, BallisticArc, EntryBurn, LandingBurn])
def test_no_command_makes_a_flight_that_is_not_a_number(phase: Any) -> None:
    """Random, full and held commands from the phase's own start: lost, but finite until they are."""
    env = phase.build(sys.modules[phase.__module__].Params(residual=0.0))
    count = len(env.action_names)

    def finite(tree: Any) -> jax.Array:
        return jnp.stack(
            [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree) if leaf.dtype == jnp.float32]
        ).all()

    def fly(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        start, enter, kind = jax.random.split(key, 3)
        held, way = jnp.sign(jax.random.normal(kind, (count,))), jax.random.randint(start, (), 0, 3)

        def step(carry: Any) -> Any:
            state, at, _, _ = carry
            here = jax.random.fold_in(key, at)
            drawn = jax.random.uniform(here, (count,), minval=-1.0, maxval=1.0)
            state = env.step(here, state, jnp.where(way == 0, drawn, jnp.where(way == 1, jnp.sign(drawn), held)))
            return state, at + 1, env.outcome(state).terminated, finite((state, env.observe(state)))

        begin = (env.enter(enter, env.start(start)), jnp.int32(0), jnp.bool_(False), jnp.bool_(True))
        state, _, over, fine = jax.lax.while_loop(lambda c: ~c[2] & c[3] & (c[1] < env.max_steps), step, begin)
        return fine, over & ~env.outcome(state).success

    fine, lost = jax.jit(jax.vmap(fly))(jax.random.split(jax.random.key(3), 512))
    assert bool(fine.all())
    assert float(lost.mean()) > 0.9


def test_with_an_engine_out_the_ascent_aims_slower_and_keeps_the_reserve() -> None:
    params = AscentParams(dispersions=Dispersions(engine_out=4))
    env = Ascent.build(params)

    def fly(key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        def step(carry: Any) -> Any:
            state, at, _ = carry
            state = env.step(jax.random.fold_in(key, at), state, jnp.clip(env.guide(state), -1.0, 1.0))
            return state, at + 1, env.outcome(state).terminated

        begin = (env.enter(key, env.start(key)), jnp.int32(0), jnp.bool_(False))
        state, _, _ = jax.lax.while_loop(lambda c: ~c[2] & (c[1] < env.max_steps), step, begin)
        return env.outcome(state).success, state.measured.speed, jnp.asarray(state.flight.state.motion.propellant)

    success, speed, left = (
        np.asarray(part) for part in jax.jit(jax.vmap(fly))(jax.random.split(jax.random.key(4), 256))
    )
    assert success.mean() > 0.6  # 16 % when it aimed at the nominal speed
    assert np.median(speed) < params.aim_speed_m_s - 15.0
    assert np.median(left) > params.reserve_kg


def test_the_entry_burn_of_a_heavy_vehicle_leaves_it_fast_enough_for_the_wind() -> None:
    """With 28 t the guide used to brake to 100 m/s at 38 km, where the final speed hardly falls but the wind carries on."""
    env = EntryBurn.build(EntryParams(residual=0.0))

    def fly(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        begin = env.start(key)
        motion = begin.state.motion._replace(propellant=jnp.float32(28e3))
        state = env.enter(key, begin._replace(state=begin.state._replace(motion=motion)))

        def step(carry: tuple[Any, jax.Array, jax.Array], number: jax.Array) -> tuple[Any, None]:
            state, ended, slowest = carry
            after = env.step(jax.random.fold_in(key, number), state, jnp.clip(env.guide(state), -1.0, 1.0))
            state = jax.tree.map(lambda old, new: jnp.where(ended, old, new), state, after)
            high = state.measured.altitude > 30e3
            slowest = jnp.where(high, jnp.minimum(slowest, state.measured.speed), slowest)
            return (state, ended | env.outcome(state).terminated, slowest), None

        start = (state, jnp.bool_(False), jnp.float32(1e4))
        (state, _, slowest), _ = jax.lax.scan(step, start, jnp.arange(1, env.max_steps))
        return slowest, state.measured.speed

    slowest, last = jax.jit(jax.vmap(fly))(jax.random.split(jax.random.key(0), 16))
    assert jnp.median(slowest) > 250.0
    assert (last < env.params.speed_m_s[1]).all()


@pytest.mark.parametrize(("phase", "steps"), [(Ascent, 100), (EntryBurn, 300)])
def test_the_offset_of_the_centre_of_mass_is_found_and_held(phase: Any, steps: int) -> None:
    """Gusts, lift and drag are drawn; without the estimate, 3 of 100 hard days ended in the ascent and 5 in the entry."""
    env = phase.build(sys.modules[phase.__module__].Params())
    offset = (0.3, -0.2)

    def fly(key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        begin = env.start(key)
        x, y = (jnp.float32(part) for part in offset)
        day = begin.dispersion._replace(centre_of_mass_x=x, centre_of_mass_y=y)
        state = env.enter(key, begin._replace(dispersion=day))

        def step(carry: tuple[Any, jax.Array], number: jax.Array) -> tuple[Any, None]:
            state, ended = carry
            after = env.step(jax.random.fold_in(key, number), state, jnp.clip(env.guide(state), -1.0, 1.0))
            state = jax.tree.map(lambda old, new: jnp.where(ended, old, new), state, after)
            return (state, ended | env.outcome(state).terminated), None

        (state, ended), _ = jax.lax.scan(step, (state, jnp.bool_(False)), jnp.arange(1, steps))
        found = state.estimate.offset
        return found.x, found.y, ~ended | env.outcome(state).success

    x, y, held = jax.jit(jax.vmap(fly))(jax.random.split(jax.random.key(5), 32))
    assert abs(float(jnp.median(x)) + offset[0]) < 0.05
    assert abs(float(jnp.median(y)) + offset[1]) < 0.05
    assert float(held.mean()) > 0.9
