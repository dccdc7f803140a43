"""The landing's propellant over the optimum from the same states, with the same engine and the same drag.

Claim: guide and agent land for a few per cent more propellant than any controller could.

Command: python benchmarks/landing.py [--states N] [--seed N] [--checkpoints DIR/mission/phase] [--store] [--json FILE]

Starts of the landing phase of `missions/return_to_launch_site.yaml` are flown without dispersions and without wind, by the guide and, given its
folder, by the agent. For each start, `optimum.py` finds the least propellant from that state to rest on the pad. Read
the mean of (flown - least) / least over the flights that landed; a negative one would be a mistake. With `--store`
reports of the mission show it.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from mission_rocket.physics.atmosphere import atmosphere
from mission_rocket.physics.gravity import free_fall
from mission_rocket.physics.tables import lookup_grid
from mission_rocket.physics.vector import Vector
from optimum import Burn, Lander, optimum

from mission.machine.devices import configure
from mission.missionfile.models import MissionFile
from mission.missionfile.reading import load_mission
from mission.missionfile.resolve import resolve_mission
from mission.report.benchmark import Benchmark, write_benchmark
from mission.storage.policies import load_actor
from mission.storage.steps import PhaseFolder

MISSION = Path(__file__).resolve().parent.parent / "missions" / "return_to_launch_site.yaml"
CALM: dict[str, Any] = {
    "thrust_percent": 0.0,
    "specific_impulse_percent": 0.0,
    "propellant_percent": 0.0,
    "dry_mass_percent": 0.0,
    "drag_percent": 0.0,
    "lift_percent": 0.0,
    "centre_of_mass_m": 0.0,
    "actuator_lag_percent": 0.0,
    "attitude_deg": 0.0,
    "ignition_delay_s": [0.0, 0.0],
    "wind_percentile": [0.0, 0.0],
    "turbulence": 0.0,
}


def fly(phase: Any, keys: jax.Array, starts: Any, actor: Any) -> tuple[np.ndarray, np.ndarray]:
    """(landed [N], propellant used [N]) of the phase from those starts; the guide's without an actor."""
    env = phase.guide_environment if actor is None else phase.environment
    learner = phase.build_learner()

    def act(state: Any) -> jax.Array:
        if actor is None:
            return env.guide(state)
        return learner.mean_action(actor, env.observe(state)[None])[0]

    @jax.jit
    @jax.vmap
    def run(key: jax.Array, start: Any) -> Any:
        def step(carry: Any, number: jax.Array) -> tuple[Any, None]:
            state, ended = carry
            moved = env.step(jax.random.fold_in(key, number), state, act(state))
            state = jax.tree.map(lambda old, new: jnp.where(ended, old, new), state, moved)
            return (state, ended | env.outcome(state).terminated), None

        begin = (env.enter(key, start), jnp.bool_(False))
        (state, _), _ = jax.lax.scan(step, begin, jnp.arange(1, env.max_steps + 1))
        return env.outcome(state).success, env.telemetry(state)["propellant_used_kg"]

    landed, used = run(keys, starts)
    return np.asarray(landed), np.asarray(used, float)


def lander(env: Any) -> Lander:
    """The vehicle's engine and the air's drag on it, engines first and without incidence."""
    body, engine = env.body, env.body.engines[0]
    heights, machs = np.linspace(0.0, 10e3, 501), np.linspace(0.0, 5.0, 201)
    air = jax.jit(jax.vmap(atmosphere))(jnp.asarray(heights))
    density, pressure, sound = (np.asarray(part, float) for part in (air.density, air.pressure, air.sound_speed))
    polar = body.aerodynamics.engine_first.drag
    drag = np.asarray(jax.jit(jax.vmap(lambda mach: lookup_grid(polar, 0.0 * mach, mach)))(jnp.asarray(machs)), float)

    def at(height: np.ndarray, speed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        coefficient = np.interp(speed / np.interp(height, heights, sound), machs, drag)
        slow = 0.5 * np.interp(height, heights, density) * speed * body.aerodynamics.area * coefficient
        return slow, np.interp(height, heights, pressure)

    middle = free_fall(env.site, Vector(0.0, 0.0, jnp.asarray(3000.0)), Vector(0.0, 0.0, jnp.zeros(())))
    return Lander(
        float(engine.thrust),
        float(engine.thrust / engine.flow),
        float(engine.exit_area),
        float(engine.throttle_min),
        -float(middle.z),
        at,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--states", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoints", type=Path, help="a trained landing phase's folder")
    parser.add_argument("--store", action="store_true", help="for reports, beside the policy")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    configure()
    stored = load_mission(MISSION).phases[-1]
    entry = {"name": "landing", "plugin": stored.plugin, "params": {**stored.params, "dispersions": CALM}}
    (phase,) = resolve_mission(MissionFile.model_validate({"name": "calm", "phases": [entry]}))
    keys = jax.random.split(jax.random.key(options.seed), options.states)
    starts = jax.jit(jax.vmap(phase.environment.start))(keys)
    flown = {"guide": fly(phase, keys, starts, None)}
    if options.checkpoints:
        flown["agent"] = fly(phase, keys, starts, load_actor(PhaseFolder(options.checkpoints), phase))

    burn, motion = Burn(lander(phase.environment)), starts.state.motion
    place = np.stack([np.asarray(part, float) for part in motion.position], axis=1)
    speed = np.stack([np.asarray(part, float) for part in motion.velocity], axis=1)
    mass = phase.environment.body.dry_mass + np.asarray(motion.propellant + motion.rcs_propellant, float)
    least = np.empty(options.states)
    for at in range(options.states):
        least[at] = optimum(burn, place[at], speed[at], mass[at]).propellant
        print(f"\r{at + 1} of {options.states} optima", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    over_all: dict[str, list[float]] = {}
    report: dict[str, Any] = {"states": options.states, "seed": options.seed, "least_kg": float(least.mean())}
    print(f"{options.states} states, least propellant {least.mean():.0f} kg in the mean")
    for who, (landed, used) in flown.items():
        over = 100.0 * (used - least)[landed] / least[landed]
        over_all[who] = [round(float(value), 3) for value in over]
        report[who] = {
            "landed": int(landed.sum()),
            "mean_percent": float(over.mean()),
            "p95_percent": float(np.percentile(over, 95)),
            "least_percent": float(over.min()),
        }
        print(
            f"{who}: {landed.sum()} landed; over the least by {over.mean():.2f} % in the mean, "
            f"{np.percentile(over, 95):.2f} % at the 95th percentile, {over.min():.2f} % at least"
        )
    if options.store and options.checkpoints:
        command = f"python benchmarks/landing.py --states {options.states} --seed {options.seed} --checkpoints DIR"
        benchmark = Benchmark(
            channel="propellant_over_optimum_percent",
            note=f"{options.states} starts of the landing, flown without dispersions",
            command=command,
            values={who: tuple(over) for who, over in over_all.items()},
        )
        write_benchmark(options.checkpoints, benchmark)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
