"""The least propellant of a landing: lossless convexification with drag.

A point mass falls unlit for a while, then burns within its throttle's bounds to rest on the pad. The burn is the
convex program of Acikmese and Ploen, "Convex Programming Approach to Powered Descent Guidance for Mars Landing",
JGCD 30(5), 2007, with acceleration linear between nodes; drag, back-pressure and mass in the thrust bounds are those
of the previous iterate, repeated to convergence. The two times, of the fall and of the burn, are found by search.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import cvxpy as cp
import numpy as np
from scipy.optimize import minimize_scalar

NODES = 31
_PENALTY = 50.0  # kg for each metre and m/s off the pad: more than reaching it costs


@dataclasses.dataclass(frozen=True)
class Lander:
    """Engine and air: thrust in vacuum [N], exhaust speed [m/s], exit area [m2], least level, gravity [m/s2].

    `air(height, speed)` gives (drag over speed [N s/m], ambient pressure [Pa]), both arrays.
    """

    thrust: float
    exhaust: float
    exit_area: float
    level_min: float
    gravity: float
    air: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Optimum:
    """Propellant [kg], seconds of the fall and of the burn, position and velocity at the nodes of the burn."""

    propellant: float
    coast_s: float
    burn_s: float
    position: np.ndarray
    velocity: np.ndarray


def vacuum(height: np.ndarray, speed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """No air."""
    return np.zeros_like(speed), np.zeros_like(speed)


class Burn:
    """The convex program, compiled once; `solve` is called for many states and times."""

    def __init__(self, lander: Lander) -> None:
        self.lander = lander
        self.r, self.v, self.u = (cp.Variable((NODES, 3)) for _ in range(3))
        self.z, self.s = cp.Variable(NODES), cp.Variable(NODES)
        self.step, self.square = cp.Parameter(nonneg=True), cp.Parameter(nonneg=True)
        self.r0, self.v0, self.z0 = cp.Parameter(3), cp.Parameter(3), cp.Parameter()
        self.pull_v, self.pull_r = cp.Parameter((NODES - 1, 3)), cp.Parameter((NODES - 1, 3))
        self.leak = cp.Parameter(NODES - 1)
        self.high, self.high_z, self.low, self.low_z = (cp.Parameter(NODES, nonneg=True) for _ in range(4))
        u, s = self.u, self.s
        off_r, off_v = cp.norm(self.r[-1]), cp.norm(self.v[-1])
        constraints = [
            self.r[0] == self.r0,
            self.v[0] == self.v0,
            self.z[0] == self.z0,
            self.v[1:] == self.v[:-1] + self.step / 2 * (u[:-1] + u[1:]) + self.pull_v,
            self.r[1:] == self.r[:-1] + self.step * self.v[:-1] + self.square * (u[:-1] / 3 + u[1:] / 6) + self.pull_r,
            self.z[1:] == self.z[:-1] - self.step / (2 * lander.exhaust) * (s[:-1] + s[1:]) - self.leak,
            cp.norm(u, axis=1) <= s,
            s <= self.high_z - cp.multiply(self.high, self.z),
            s >= self.low_z - cp.multiply(self.low, self.z),
        ]
        self.off = off_r + off_v
        self.problem = cp.Problem(cp.Minimize(-self.z[-1] + _PENALTY / 30e3 * self.off), constraints)

    def solve(self, r: np.ndarray, v: np.ndarray, mass: float, seconds: float, rounds: int) -> tuple[float, float]:
        """(propellant [kg], metres and m/s off the pad) of a burn of that length."""
        lander, share = self.lander, np.linspace(0.0, 1.0, NODES)[:, None]
        step = seconds / (NODES - 1)
        self.step.value, self.square.value = step, step * step
        self.r0.value, self.v0.value, self.z0.value = r, v, np.log(mass)
        path, speed, z = r * (1.0 - share), v * (1.0 - share), np.log(mass) - 0.15 * share[:, 0]
        for _ in range(rounds):
            slow, pressure = lander.air(np.maximum(path[:, 2], 0.0), np.linalg.norm(speed, axis=1))
            pull = -speed * (slow * np.exp(-z))[:, None]
            pull[:, 2] -= lander.gravity
            self.pull_v.value = step / 2 * (pull[:-1] + pull[1:])
            self.pull_r.value = step * step * (pull[:-1] / 3 + pull[1:] / 6)
            back = lander.exit_area * pressure
            lost = back * np.exp(-z) / lander.exhaust
            self.leak.value = step / 2 * (lost[:-1] + lost[1:])
            for level, slope, height in ((1.0, self.high, self.high_z), (lander.level_min, self.low, self.low_z)):
                bound = np.maximum(level * lander.thrust - back, 0.0) * np.exp(-z)
                slope.value, height.value = bound, bound * (1.0 + z)
            self.problem.solve(solver=cp.CLARABEL)
            path, speed, z = self.r.value, self.v.value, self.z.value
        return float(mass - np.exp(z[-1])), float(self.off.value)


def coast(lander: Lander, r: np.ndarray, v: np.ndarray, mass: float, seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """(position, velocity) after an unlit fall; Runge-Kutta steps of at most 0.1 s."""

    def rate(state: np.ndarray) -> np.ndarray:
        slow, _ = lander.air(np.maximum(state[2:3], 0.0), np.linalg.norm(state[3:], keepdims=True))
        pull = -state[3:] * slow[0] / mass
        pull[2] -= lander.gravity
        return np.concatenate([state[3:], pull])

    state, count = np.concatenate([r, v]), max(int(np.ceil(seconds / 0.1)), 1)
    step = seconds / count
    for _ in range(count):
        a = rate(state)
        b = rate(state + 0.5 * step * a)
        c = rate(state + 0.5 * step * b)
        d = rate(state + step * c)
        state = state + step / 6 * (a + 2 * b + 2 * c + d)
    return state[:3], state[3:]


def least_burn(burn: Burn, r: np.ndarray, v: np.ndarray, mass: float, rounds: int = 3) -> tuple[float, float]:
    """(propellant with the penalty for what is missed [kg], seconds) over the burn's length."""
    guess = 2.0 * r[2] / max(-v[2], 10.0)

    def cost(seconds: float) -> float:
        used, off = burn.solve(r, v, mass, seconds, rounds)
        return used + _PENALTY * off

    found = minimize_scalar(cost, bounds=(0.5 * guess, 1.6 * guess), method="bounded", options={"xatol": 0.05})
    return float(found.fun), float(found.x)


def optimum(burn: Burn, r: np.ndarray, v: np.ndarray, mass: float) -> Optimum:
    """The least propellant to rest at the origin from position [3] (z up), velocity [3] and mass.

    Raises:
      ValueError: if no landing was found.
    """
    lander = burn.lander

    def cost(seconds: float) -> float:
        at, going = coast(lander, r, v, mass, seconds)
        return least_burn(burn, at, going, mass)[0] if at[2] > 1.0 else 1e6

    # until it would hit the ground without air; what is missed when lit too late outweighs all propellant
    longest = (v[2] + np.sqrt(v[2] ** 2 + 2.0 * lander.gravity * r[2])) / lander.gravity
    wait = float(minimize_scalar(cost, bounds=(0.0, longest), method="bounded", options={"xatol": 0.03}).x)
    if cost(0.0) < cost(wait):
        wait = 0.0
    # the search ends at the edge of what can be landed: step back until it can
    for earlier in (0.0, 0.03, 0.1, 0.2, 0.4, 0.8):
        begin = max(wait - earlier, 0.0)
        at, going = coast(lander, r, v, mass, begin)
        _, seconds = least_burn(burn, at, going, mass, 6)
        used, off = burn.solve(at, going, mass, seconds, 8)
        if off < 0.05:
            return Optimum(used, begin, seconds, np.asarray(burn.r.value), np.asarray(burn.v.value))
    raise ValueError(f"no landing from {r} m, {v} m/s, {mass:.0f} kg: {off:.1f} m and m/s off the pad")
