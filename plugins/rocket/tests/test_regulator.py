"""The landing's lateral regulator: its model against closed forms, its gains against the algebraic Riccati equation."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from mission_rocket.guides.regulator import Descent, Lateral, Weights, descend, design, linearise, regulate, time_key
from mission_rocket.physics.constants import DEGREE, STANDARD_GRAVITY_M_S2
from mission_rocket.physics.gravity import Site
from mission_rocket.physics.vehicle import mass_properties
from mission_rocket.vehicles import build_body, load_vehicle
from scipy.linalg import expm, solve_discrete_are

G0 = STANDARD_GRAVITY_M_S2
BODY = build_body(load_vehicle("falcon9_class"), carrying=False)
PERIOD = 0.2
WEIGHTS = Weights(
    position_m=2.0,
    velocity_m_s=0.5,
    tilt=1.0 * DEGREE,
    rate=1.0 * DEGREE,
    gimbal=7.0 * DEGREE,
    fins=15.0 * DEGREE,
    q_alpha=200e3 * DEGREE,
    disturbance_s=0.5,
    settle_s=1.0,
    settle=0.2,
)


def rows(height: float, speed: float, level: float, count: int = 1) -> Descent:
    return Descent(*(np.full(count, value) for value in (height, speed, level, 5000.0)))


def test_the_model_at_a_standstill_is_thrust_and_lags() -> None:
    slope = linearise(BODY, Site(), rows(100.0, 1e-3, 0.6))[0]
    assert BODY.rcs is not None
    engine, mass = BODY.engines[0], mass_properties(BODY, 1.0, jnp.float32(5000.0), BODY.rcs.propellant)
    thrust = 0.6 * engine.thrust - engine.exit_area * 100_129.0  # Pa at 100 m
    arm = mass.centre - BODY.gimbal.height
    assert slope[0, 1] == pytest.approx(1.0, abs=1e-3)
    assert slope[1, 2] == pytest.approx(float(thrust / mass.mass), rel=2e-3)
    assert abs(slope[1, 4]) == pytest.approx(float(thrust / mass.mass), rel=2e-3)
    assert abs(slope[3, 4]) == pytest.approx(float(thrust * arm / mass.inertia.y), rel=5e-3)
    # the base is pushed the other way than the nose turns
    assert slope[1, 4] * slope[3, 4] < 0.0
    assert slope[4, 4] == pytest.approx(-1.0 / BODY.gimbal.lag, rel=1e-3)
    assert slope[4, 6] == pytest.approx(1.0 / BODY.gimbal.lag, rel=1e-3)
    assert slope[5, 5] == pytest.approx(-1.0 / BODY.fins.lag, rel=1e-3)
    assert slope[:, 0] == pytest.approx(0.0, abs=1e-5)


def test_steering_reverses_with_dynamic_pressure() -> None:
    fast, slow = linearise(BODY, Site(), Descent(*np.array([[3000.0, 300.0, 0.4, 5000.0], [50.0, 10.0, 0.6, 5e3]]).T))
    # lift outweighs the thrust's side component while fast: leaning to one side pushes to the other
    assert fast[1, 2] < 0.0 < slow[1, 2]
    # and wind pushes along
    assert fast[1, 8] > 0.0
    assert slow[1, 8] > 0.0


def test_a_descent_keeps_its_own_equations() -> None:
    path = descend(BODY, G0, 0.85, 1.0, 0.05, 8000.0, (9.0, 4.0), 5000.0, 315.0)
    assert path.height[0] == 0.0
    assert path.speed[0] == 1.0
    flare = path.speed < 9.0
    # constant deceleration: v^2 = v0^2 + 2 a h
    assert path.speed[flare] ** 2 == pytest.approx(1.0 + 8.0 * path.height[flare], abs=0.5)
    burning = path.level > 0.0
    used = path.propellant[burning][-1] - path.propellant[0]
    flow = BODY.engines[0].flow * path.level[burning][:-1].sum() * 0.05
    assert used == pytest.approx(flow, rel=1e-6)
    assert path.speed[burning].max() == pytest.approx(315.0, abs=1.5)
    assert (np.diff(path.height) > 0.0).all()
    assert path.height[-1] > 7500.0


def test_gains_far_from_touchdown_solve_the_algebraic_riccati_equation() -> None:
    path = rows(50.0, 10.0, 0.6, 400)
    slopes = linearise(BODY, Site(), path)
    weights = WEIGHTS._replace(settle_s=1e9)
    found = design(slopes, path, weights, PERIOD).gains[-1]
    system = np.zeros((8, 8))
    system[:6, :6], system[:6, 6:] = slopes[0][:, :6], slopes[0][:, 6:8]
    step = expm(system * PERIOD)
    f, g = step[:6, :6], step[:6, 6:]
    bounds = np.array([weights.position_m, weights.velocity_m_s, weights.tilt, weights.rate])
    running = np.zeros((6, 6))
    running[range(4), range(4)] = PERIOD * weights.settle * bounds**-2.0
    lean = np.zeros(6)
    lean[[1, 2]] = 0.1, 1.0
    running += PERIOD * (0.5 * 1.219 * 100.0 / weights.q_alpha) ** 2 * np.outer(lean, lean)
    effort = PERIOD * np.diag([weights.gimbal**-2, weights.fins**-2])
    cost = solve_discrete_are(f, g, running, effort)
    gain = np.linalg.solve(effort + g.T @ cost @ g, g.T @ cost @ f)
    assert found[:, :6] == pytest.approx(gain, rel=2e-3, abs=2e-3 * np.abs(gain).max())


def test_the_loop_on_its_own_model_ends_at_the_pad() -> None:
    path = descend(BODY, G0, 0.85, 1.0, PERIOD, 8000.0, (9.0, 4.0), 5000.0, 315.0)
    slopes = linearise(BODY, Site(), path)
    regulator = design(slopes, path, WEIGHTS, PERIOD)
    lit = int((path.level > 0.0).sum())
    z = np.zeros(9)
    z[:2] = 150.0, -8.0
    largest = np.zeros(2)
    for at in range(lit - 1, 0, -1):
        command = -regulator.gains[at] @ z
        largest = np.maximum(largest, np.abs(command))
        system = np.zeros((11, 11))
        system[:6, :6], system[:6, 9:] = slopes[at][:, :6], slopes[at][:, 6:8]
        step = expm(system * PERIOD)
        z = step[:9, :9] @ z + step[:9, 9:] @ command
    assert abs(z[0]) < 2.0
    assert abs(z[1]) < 0.5
    assert abs(z[2]) < 1.0 * DEGREE
    assert abs(z[3]) < 1.5 * DEGREE
    assert largest[0] < BODY.gimbal.limit


def test_what_the_model_expects_is_not_steered_against() -> None:
    path = descend(BODY, G0, 0.85, 1.0, PERIOD, 8000.0, (9.0, 4.0), 5000.0, 315.0)
    regulator = design(linearise(BODY, Site(), path), path, WEIGHTS, PERIOD)
    key = time_key(jnp.asarray(path.height[40]), jnp.asarray(path.speed[40]))
    level, pressure = jnp.asarray(path.level[40]), jnp.asarray(regulator.pressure[40])
    tilted = Lateral(**(dict.fromkeys(Lateral._fields, 0.0) | {"tilt": 0.02}))
    force, angular = regulator.expected[40] @ np.array(tilted)
    measured = tilted._replace(specific_force=force, angular_acceleration=angular)
    command = regulate(regulator, key, level, pressure, measured)
    assert np.array(command) == pytest.approx(-regulator.gains[40] @ np.array(tilted), rel=1e-3)
    # twice the thrust: the same moment by half the angle
    strong = regulate(regulator, key, 2.0 * level, pressure, measured)
    assert float(strong[0]) == pytest.approx(0.5 * float(command[0]), rel=1e-3)
