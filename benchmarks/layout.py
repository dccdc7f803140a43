"""How to lay out vectors for many vehicles: arrays of three, batch first or last, or a scalar per component.

Claim: scalars per component (a batch of each is one contiguous run) are the fastest layout for
rigid-body motion on the CPU; decision 5 rests on this.

Command: python benchmarks/layout.py [--rounds N] [--vehicles N] [--json FILE]

Reading it: nanoseconds of processor time a Runge-Kutta step and vehicle, on one device, for the same
motion (inverse-square gravity, rotation of the Earth, a force turned from body axes, Euler's
equations, quaternion kinematics) written three ways. Processor time, so that other load on the
machine counts little; the three take turns.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import common

from mission.machine.devices import configure

configure()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from mission_rocket.physics.gravity import Site, free_fall  # noqa: E402
from mission_rocket.physics.integrate import rk4_increment  # noqa: E402
from mission_rocket.physics.vector import Quaternion, Vector, quaternion_rate, rotate  # noqa: E402

STEPS = 50
SITE = Site(latitude=0.0)
INERTIA = (4e6, 4e6, 5e4)


class Scalars(NamedTuple):
    """A scalar per component."""

    position: Vector
    velocity: Vector
    attitude: Quaternion
    rates: Vector


class Arrays(NamedTuple):
    """[3] or [4] per quantity."""

    position: jax.Array
    velocity: jax.Array
    attitude: jax.Array
    rates: jax.Array


def scalar_rate(m: Scalars) -> Scalars:
    felt = rotate(m.attitude, Vector(0.1 * m.rates.x, 0.1 * m.rates.y, 20.0 - 1e-6 * m.velocity.z * m.velocity.z))
    r, (a, b, c) = m.rates, INERTIA
    turning = Vector((b - c) / a * r.y * r.z, (c - a) / b * r.z * r.x, (a - b) / c * r.x * r.y)
    return Scalars(m.velocity, felt + free_fall(SITE, m.position, m.velocity), quaternion_rate(m.attitude, r), turning)


def array_rate(m: Arrays) -> Arrays:
    u, w = m.attitude[1:], m.attitude[0]
    body = jnp.stack([0.1 * m.rates[0], 0.1 * m.rates[1], 20.0 - 1e-6 * m.velocity[2] * m.velocity[2]])
    twice = 2.0 * jnp.cross(u, body)
    felt = body + w * twice + jnp.cross(u, twice)
    centre = m.position + jnp.array([0.0, 0.0, SITE.radius])
    spin = jnp.array([0.0, SITE.rotation, 0.0])
    excess = (2.0 * SITE.radius * m.position[2] + m.position @ m.position) / SITE.radius**2
    pull = -SITE.surface_gravity / SITE.radius * centre / ((1.0 + excess) * jnp.sqrt(1.0 + excess))
    carried = -2.0 * jnp.cross(spin, m.velocity) - jnp.cross(spin, jnp.cross(spin, centre))
    inertia = jnp.array(INERTIA)
    turning = -jnp.cross(m.rates, inertia * m.rates) / inertia
    half = 0.5 * m.rates
    quaternion = jnp.concatenate([-(u @ half)[None], w * half + jnp.cross(u, half)])
    return Arrays(m.velocity, felt + pull + carried, quaternion, turning)


def program(rate: Any, axis: int) -> Any:
    def run(motion: Any) -> Any:
        def step(_: int, m: Any) -> Any:
            change = jax.vmap(lambda one: rk4_increment(rate, one, 0.05), axis, axis)(m)
            return jax.tree.map(lambda a, b: a + b, m, change)

        return jax.lax.fori_loop(0, STEPS, step, motion)

    return jax.jit(run)


def main() -> None:
    options = common.parser(__doc__, peer=False, rounds=9)
    options.add_argument("--vehicles", type=int, default=4096)
    arguments = options.parse_args()
    normal = jax.random.normal(jax.random.key(0), (4, 3, arguments.vehicles))
    attitude = jnp.concatenate([jnp.ones((1, arguments.vehicles)), 0.0 * normal[3]])
    last = Arrays(1e3 * normal[0], 1e2 * normal[1], attitude, 0.1 * normal[2])
    scalars = Scalars(Vector(*last.position), Vector(*last.velocity), Quaternion(*last.attitude), Vector(*last.rates))
    layouts = {
        "arrays, batch first": (program(array_rate, 0), jax.tree.map(jnp.transpose, last)),
        "arrays, batch last": (program(array_rate, -1), last),
        "a scalar per component": (program(scalar_rate, 0), scalars),
    }
    spent: dict[str, list[float]] = {name: [] for name in layouts}
    for number in range(arguments.rounds + 1):
        for name, (run, motion) in layouts.items():
            began = time.process_time()
            jax.block_until_ready(run(motion))
            if number:
                spent[name].append(1e9 * (time.process_time() - began) / (STEPS * arguments.vehicles))
    rows = [("layout", "ns a step", "over the last")]
    best = spent["a scalar per component"]
    rows += [
        (name, common.spread(found, 0), common.spread(common.ratios(found, best))) for name, found in spent.items()
    ]
    common.print_table(rows)
    array, scalar = (run(motion).position for run, motion in list(layouts.values())[1:])
    print(f"largest difference between the layouts' ends: {float(jnp.abs(array - jnp.stack(scalar)).max()):.2g} m")
    common.write_json(arguments.json, {"vehicles": arguments.vehicles, "ns": spent})


if __name__ == "__main__":
    main()
