"""Flight physics in bulk: vehicle steps a second, and RocketPy on the same flight in the same run.

Claim: at least a million vehicle steps a second at 8,192 vehicles on two CPU devices, at a cost per
vehicle that stays flat from 512 to 65,536 vehicles. One step is a control period of 0.1 s: two
Runge-Kutta steps of 0.05 s with engines, fins, RCS, steady wind, and one step of the turbulence; a
call flies 200 of them, about as many as a phase has.

Command: python benchmarks/physics.py [--rounds N] [--vehicles N ...] [--block N] [--json FILE]

Reading it: millions of vehicle steps a second by number of vehicles, median and range over rounds,
and processor nanoseconds a vehicle step (both devices together), which other load on the machine
disturbs less: 2,000 of them are a million steps a second on two free cores. Each device's share
runs in blocks of 1,024 vehicles (`--block`), one after the other, each for all steps, so that a block
stays in the cache. RocketPy (dependency group
`ref`; skipped without it) flies a passive rocket of 20 kg to its apogee, one at a time, with its own
choice of steps; 8,192 of the same rocket fly to that time here, in the same round, and the ratio is
that of flights a second. Both apogees are printed, so that one can see that it is the same flight.
"""

from __future__ import annotations

import importlib.util
import math
import time
from functools import partial
from typing import Any

import common

from mission.machine.devices import configure

configure()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from jax.sharding import AxisType, PartitionSpec  # noqa: E402
from mission_rocket.dispersions import Dispersions  # noqa: E402
from mission_rocket.physics.gravity import Site  # noqa: E402
from mission_rocket.physics.integrate import advance_twice, blow  # noqa: E402
from mission_rocket.physics.state import idle, nominal, start_state  # noqa: E402
from mission_rocket.physics.tables import Grid  # noqa: E402
from mission_rocket.physics.vector import Quaternion, Vector  # noqa: E402
from mission_rocket.physics.vehicle import Aerodynamics, Body, EngineGroup, Gimbal, Polar, Tank  # noqa: E402
from mission_rocket.vehicles import build_body, load_vehicle  # noqa: E402

BODY = build_body(load_vehicle("falcon9_class"), carrying=False)
SITE = Site()
STEPS = 200


def entering(key: jax.Array) -> tuple[Any, Any]:
    """A booster at 12 km and 500 m/s with errors of its own."""
    errors_key, gust_key = jax.random.split(key)
    upright = Quaternion(1.0, 0.0, 0.0, 0.0)
    state = start_state(BODY, Vector(-2000.0, 100.0, 12_000.0), Vector(-60.0, 5.0, -500.0), upright, 14_000.0, gust_key)
    return state, Dispersions().draw(errors_key, 9)


def control_step(state: Any, errors: Any, key: jax.Array) -> Any:
    """0.1 s with the centre engine, gimbal and fins at work."""
    command = idle(BODY)
    zero = jnp.zeros(())
    command = command._replace(
        throttle=(zero + 0.8, zero, zero),
        gimbal=Vector(zero + 0.01, zero + 0.02, zero),
        fins=Vector(zero + 0.05, zero, zero),
    )
    state = blow(SITE, errors, state, key, 0.1)
    return advance_twice(BODY, SITE, errors, state, (command, command), (jnp.float32(0.05), jnp.float32(0.05)))


def flight(states: Any, errors: Any, keys: jax.Array) -> Any:
    """STEPS control steps of vehicles [N]."""

    def step(states: Any, number: jax.Array) -> tuple[Any, None]:
        now = jax.vmap(partial(jax.random.fold_in, data=number))(keys)
        return jax.vmap(control_step)(states, errors, now), None

    return jax.lax.scan(step, states, jnp.arange(STEPS))[0]


def compiled(vehicles: int, block: int) -> tuple[Any, Any]:
    """(program, its arguments) for so many vehicles on all devices; `block` 0 flies a share at once."""
    devices = jax.device_count()
    share = vehicles // devices
    size = min(block, share) if block else share

    def blocks(states: Any, errors: Any, keys: jax.Array) -> Any:
        if size == share:
            return flight(states, errors, keys)
        split = jax.tree.map(lambda leaf: leaf.reshape(share // size, size, *leaf.shape[1:]), (states, errors, keys))
        return jax.tree.map(lambda leaf: leaf.reshape(share, *leaf.shape[2:]), jax.lax.map(lambda a: flight(*a), split))

    mesh = jax.make_mesh((devices,), ("vehicles",), axis_types=(AxisType.Auto,))
    part = PartitionSpec("vehicles")
    program = jax.jit(jax.shard_map(blocks, mesh=mesh, in_specs=(part,) * 3, out_specs=part, check_vma=False))
    states, errors = jax.jit(jax.vmap(entering))(jax.random.split(jax.random.key(0), vehicles))
    arguments = (states, errors, jax.random.split(jax.random.key(1), vehicles))
    jax.block_until_ready(program(*arguments))
    return program, arguments


def same_rocket(rocket: Any) -> Body:
    """RocketPy's rocket as a body: constant drag, linear lift at its centre of pressure, one solid tank."""
    slope = float(rocket.total_lift_coeff_der(0.3))
    angles = (0.0, math.radians(20.0), math.pi / 2.0)
    lift = Grid(angles, (0.0, 5.0), tuple((slope * min(angle, angles[1]),) * 2 for angle in angles))
    polar = Polar(lift, Grid(angles, (0.0, 5.0), ((0.45, 0.45),) * 3), *(float(rocket.cp_position(0.3)),) * 2)
    engine = EngineGroup("motor", ((0.0, 0.0),), 1800.0, 1.0, 0.0, 1.0, 1, 0.1)
    return BODY._replace(
        length=2.4,
        dry_mass=16.5,
        dry_centre=float(rocket.center_of_mass(3.0)),
        dry_transverse=float(rocket.I_11(3.0)),
        dry_axial=float(rocket.I_33(3.0)),
        propellant=3.0,
        tanks=(Tank(1.0, 0.05, 0.05, 800.0),),
        engines=(engine,),
        gimbal=Gimbal(0.0, 0.2, 0.0),
        fins=None,
        rcs=None,
        aerodynamics=Aerodynamics(math.pi * 0.0635**2, 0.127, polar, polar, 0.0, 0.0),
    )


class Peer:
    """RocketPy's passive rocket, and as many of the same here."""

    def __init__(self, vehicles: int) -> None:
        import rocketpy

        motor = rocketpy.GenericMotor(
            thrust_source=lambda t: 1800.0 if t <= 3.0 else 0.0,
            burn_time=3.0,
            chamber_radius=0.05,
            chamber_height=0.5,
            chamber_position=0.3,
            propellant_initial_mass=3.0,
            nozzle_radius=0.03,
            dry_mass=1.5,
            center_of_dry_mass_position=0.3,
            dry_inertia=(0.1, 0.1, 0.002),
        )
        self.rocket = rocketpy.Rocket(0.0635, 15.0, (6.0, 6.0, 0.035), 0.45, 0.45, 1.25)
        self.rocket.add_motor(motor, position=0.0)
        self.rocket.add_nose(length=0.55, kind="ogive", position=2.4)
        self.rocket.add_trapezoidal_fins(n=4, root_chord=0.12, tip_chord=0.06, span=0.12, position=0.15)
        self.environment = rocketpy.Environment(gravity=9.80665)
        self.flight = rocketpy.Flight
        self.vehicles = vehicles
        flown = self.fly()
        body, begin = same_rocket(self.rocket), flown.out_of_rail_time
        place, speed, turn = (
            [float(getattr(flown, name)(begin)) for name in names]
            for names in (("x", "y", "z"), ("vx", "vy", "vz"), ("e0", "e1", "e2", "e3"))
        )
        state = start_state(body, Vector(*place), Vector(*speed), Quaternion(*turn), 3.0 - begin)
        state = state._replace(motion=state.motion._replace(levels=(jnp.ones(()),)), lit_for=(jnp.ones(()),))
        flat = Site(surface_gravity=9.80665, rotation=0.0, constant_gravity=True)
        steps = math.ceil((flown.apogee_time - begin) / 0.1)

        def step(state: Any, _: None) -> tuple[Any, jax.Array]:
            on = jnp.where(state.time < 3.0 - begin - 0.01, 1.0, 0.0)
            command = idle(body)._replace(throttle=(on,))
            half = jnp.float32(0.05)
            after = advance_twice(body, flat, nominal(), state, (command, command), (half, half))
            return after, after.motion.position.z

        def bulk(states: Any) -> jax.Array:
            return jax.vmap(lambda one: jax.lax.scan(step, one, None, length=steps)[1].max())(states)

        mesh = jax.make_mesh((jax.device_count(),), ("vehicles",), axis_types=(AxisType.Auto,))
        part = PartitionSpec("vehicles")
        self.bulk = jax.jit(jax.shard_map(bulk, mesh=mesh, in_specs=part, out_specs=part, check_vma=False))
        self.states = jax.tree.map(lambda leaf: jnp.full((vehicles,), leaf), state)
        self.apogees = (float(flown.apogee - self.environment.elevation), float(self.bulk(self.states)[0]))

    def fly(self) -> Any:
        """One flight of RocketPy."""
        return self.flight(self.rocket, self.environment, 5.0, 84.0, 90.0, terminate_on_apogee=True)

    def round(self) -> tuple[float, float]:
        """Flights a second: RocketPy's, ours."""
        began = time.perf_counter()
        self.fly()
        middle = time.perf_counter()
        jax.block_until_ready(self.bulk(self.states))
        return 1.0 / (middle - began), self.vehicles / (time.perf_counter() - middle)


def main() -> None:
    options = common.parser(__doc__, peer=False, rounds=5)
    options.add_argument("--vehicles", type=int, nargs="+", default=[512, 2048, 8192, 32_768, 65_536])
    options.add_argument("--block", type=int, default=1024, help="vehicles a block on each device; 0: all at once")
    arguments = options.parse_args()
    programs = {vehicles: compiled(vehicles, arguments.block) for vehicles in arguments.vehicles}
    rates: dict[int, list[float]] = {vehicles: [] for vehicles in programs}
    processor: dict[int, list[float]] = {vehicles: [] for vehicles in programs}
    peer = Peer(8192) if importlib.util.find_spec("rocketpy") else None
    if peer is None:
        print("RocketPy: skipped, not installed (python3 -m uv sync --group ref)")
    flights: list[tuple[float, float]] = []
    for _ in range(arguments.rounds):
        for vehicles, (program, given) in programs.items():
            began, busy = time.perf_counter(), time.process_time()
            jax.block_until_ready(program(*given))
            rates[vehicles].append(vehicles * STEPS / (time.perf_counter() - began))
            processor[vehicles].append(1e9 * (time.process_time() - busy) / (vehicles * STEPS))
        if peer is not None:
            flights.append(peer.round())
    table = [("vehicles", "million steps a second", "processor ns a vehicle step")]
    for vehicles, found in rates.items():
        nanoseconds = common.spread(processor[vehicles], 0)
        table.append((f"{vehicles:,}", common.spread([rate / 1e6 for rate in found]), nanoseconds))
    common.print_table(table)
    if peer is not None:
        theirs, ours = ([pair[side] for pair in flights] for side in (0, 1))
        print(
            f"passive rocket to its apogee, flights a second: RocketPy {common.spread(theirs)}, ours {common.spread(ours, 0)}"
        )
        print(
            f"ratio {common.spread(common.ratios(ours, theirs), 0)}; apogees {peer.apogees[0]:.0f} and {peer.apogees[1]:.0f} m"
        )
    common.write_json(
        arguments.json, {"block": arguments.block, "rates": rates, "processor_ns": processor, "flights": flights}
    )


if __name__ == "__main__":
    main()
