"""What guides and agents share: corrections of a guide, events that are overdue, lags and drag found in flight."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mission_rocket.flight import Dispersions, Flight, bounded, corrected, draw_day, uncorrected, view
from mission_rocket.guidance import found_drag, found_lag
from mission_rocket.phases import landing_burn

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


def test_an_overdue_event_can_be_put_off_but_not_for_ever() -> None:
    """-1 is now. Due now, the correction holds it back; overdue by more than its authority, it cannot."""
    put_off = jnp.ones(2)
    due, overdue = (corrected(bounded(jnp.array([0.0, at]), (1,)), 0.1, put_off)[1] for at in (-1.0, -1.2))
    assert float(due) > -0.95
    assert float(overdue) == -1.0


def at_level(level: float) -> Flight:
    env = landing_burn.environment(landing_burn.Params())
    flight = env.start(jax.random.key(0))
    motion = flight.state.motion
    levels = (jnp.float32(level), *motion.levels[1:])
    return flight._replace(state=flight.state._replace(motion=motion._replace(levels=levels)))


@pytest.mark.parametrize("lag", [0.2, 0.3, 0.45])
def test_the_lag_is_found_from_how_the_level_follows(lag: float) -> None:
    was, told, period = 0.9, 0.5, 0.2
    now = told + (was - told) * np.exp(-period / lag)
    before, lit = jnp.float32(0.3), jnp.bool_(True)
    found = found_lag(before, at_level(was), at_level(now), told, lit, period)
    assert float(found) == pytest.approx(lag, rel=1e-3)
    # nothing is learnt from an engine that is off, is starting, or has nothing to follow
    for args in (
        (at_level(was), at_level(now), told, jnp.bool_(False)),
        (at_level(0.0), at_level(0.2), told, lit),
        (at_level(told), at_level(told), told, lit),
    ):
        assert float(found_lag(before, *args, period)) == pytest.approx(0.3)


@pytest.mark.parametrize("share", [0.8, 1.0, 1.2])
def test_the_drag_is_found_from_what_the_fall_feels(share: float) -> None:
    env = landing_burn.environment(landing_burn.Params(dispersions=Dispersions(turbulence=0.0)))
    flight = env.start(jax.random.key(1))
    flight = flight._replace(dispersion=flight.dispersion._replace(drag=jnp.float32(share)))
    seen, drag = view(env.body, env.site, flight), jnp.ones(())
    for _ in range(40):
        drag = found_drag(env.body, seen, drag)
    assert float(drag) == pytest.approx(share, abs=0.02)


def test_an_engine_out_and_a_uniform_wind_are_the_same_in_every_flight() -> None:
    params = landing_burn.Params(dispersions=Dispersions(engine_out=4, uniform_wind_m_s=20.0))
    days = jax.vmap(lambda key: draw_day(params, key))(jax.random.split(jax.random.key(2), 8))
    np.testing.assert_array_equal(days.engine_out, 4.0)
    np.testing.assert_array_equal(days.wind.uniform, 20.0)
    assert len(np.unique(days.thrust)) == 8
