"""Fly the trained chain with one dispersion at a time far from nominal.

Claim: the success rates of the off-nominal table in docs/results.md.

Command: python benchmarks/off_nominal.py [--checkpoints DIR] [--flights N] [--seed N] [--policy agent|guide] [--json FILE]

In each row one dispersion is the same in every flight: 2 or 3 standard deviations to either side (uniform draws: at or
beyond their end); everything else is drawn as the mission file says. Further rows: an outer engine that never ignites
during the ascent, 20 m/s of crosswind in addition to the drawn wind at every altitude of the landing, and errors of
navigation in every component, constant over the flight or new in each control step.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from mission_rocket.dispersions import Dispersions
from mission_rocket.physics.constants import DEGREE
from mission_rocket.physics.state import Dispersion, Handover
from mission_rocket.physics.vector import Vector, quaternion_of_axis

from mission.flight.batches import fly_batch, fly_batches
from mission.flight.chain import prepare_chain
from mission.flight.fly import PhaseFlight
from mission.missionfile.reading import load_mission
from mission.missionfile.statistics import wilson

MISSION = Path(__file__).resolve().parent.parent / "missions" / "return_to_launch_site.yaml"
OUTER_ENGINE = 4
Change = Callable[[Dispersion], Dispersion]


def fixed(**values: float) -> Change:
    """The day with some of its errors at given values."""
    return lambda day: day._replace(**{name: jnp.full_like(getattr(day, name), v) for name, v in values.items()})


def windy(**values: float) -> Change:
    """The day with some of its wind at given values."""
    return lambda day: day._replace(
        wind=day.wind._replace(**{name: jnp.full_like(getattr(day.wind, name), v) for name, v in values.items()})
    )


def navigated(name: str, size: float) -> Change:
    """The day with one error of navigation of this size, in every component."""

    def change(day: Dispersion) -> Dispersion:
        error = jax.tree.map(lambda leaf: jnp.full_like(leaf, size), getattr(day.navigation, name))
        return day._replace(navigation=day.navigation._replace(**{name: error}))

    return change


NAVIGATION = (
    ("position", 3.0, 1.0, "m"),
    ("velocity", 0.3, 1.0, "m/s"),
    ("attitude", 0.3, DEGREE, "deg"),
    ("rates", 0.05, DEGREE, "deg/s"),
    ("position_noise", 1.0, 1.0, "m"),
    ("velocity_noise", 0.1, 1.0, "m/s"),
    ("attitude_noise", 0.1, DEGREE, "deg"),
    ("rate_noise", 0.1, DEGREE, "deg/s"),
)


def rows(spread: Dispersions) -> list[tuple[str, int, Change]]:
    """(name, phase index from which it holds, change) of every row."""
    names = ("thrust", "drag", "lift", "specific_impulse", "propellant", "dry_mass", "actuator_lag")
    factors = {name: getattr(spread, f"{name}_percent") / 100.0 for name in names}
    plain = {"centre_of_mass_x": spread.centre_of_mass_m, "tilt_x": spread.attitude_deg * DEGREE}
    table: list[tuple[str, int, Change]] = [("as the mission file says", 0, lambda day: day)]
    for middle, errors in ((1.0, factors), (0.0, plain)):
        for name, sigma in errors.items():
            for k in (2, -2, 3, -3):
                table.append((f"{name} {k:+d} sigma", 0, fixed(**{name: middle + k * sigma})))
    table += [(f"ignition_delay {seconds} s", 0, fixed(ignition_delay=seconds)) for seconds in (0.0, 0.4, 0.6)]
    table += [(f"wind of {percent} %", 0, windy(percentile=percent)) for percent in (97.7, 99.0)]
    table += [(f"turbulence x {scale:g}", 0, windy(turbulence=scale)) for scale in (2.0, 3.0)]
    table += [("one outer engine out on the way up", 0, fixed(engine_out=float(OUTER_ENGINE)))]
    table += [
        (f"error of {name} {size:g} {unit}", 0, navigated(name, size * si)) for name, size, si, unit in NAVIGATION
    ]
    return [*table, ("20 m/s of wind across at landing", -1, windy(uniform=20.0))]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--checkpoints", type=Path)
    parser.add_argument("--flights", type=int, default=1000)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--policy", choices=("agent", "guide"), default="agent")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    mission = load_mission(MISSION)
    chain = prepare_chain(mission, checkpoints=options.checkpoints, seed=options.seed, policy=options.policy)
    body = chain.phases[0].environment.body

    @jax.vmap
    def on_the_pad(flight: Handover) -> Handover:
        """Apply the dispersions of propellant and attitude, which act at the start."""
        day, motion = flight.dispersion, flight.state.motion
        attitude = quaternion_of_axis(Vector(day.tilt_x, day.tilt_y, jnp.sqrt(1.0 - day.tilt_x**2 - day.tilt_y**2)))
        motion = motion._replace(attitude=attitude, propellant=body.propellant * day.propellant)
        return flight._replace(state=flight.state._replace(motion=motion))

    report: list[dict[str, Any]] = []
    print("| error | landed | 95 % interval | lost in |")
    print("|---|---|---|---|")
    for name, first, change in rows(chain.phases[0].environment.params.dispersions):
        at = range(len(chain.phases))[first]

        def fly_one(
            index: int, handoff: Any, keys: Any, alive: np.ndarray, at: int = at, change: Change = change
        ) -> PhaseFlight:
            if index == at:
                handoff = handoff._replace(dispersion=change(handoff.dispersion))
                handoff = on_the_pad(handoff) if index == 0 else handoff
            return fly_batch(chain.flights[index], chain.actors[index], handoff, keys, alive)

        flown = fly_batches(options.flights, None, lambda numbers, fly_one=fly_one: chain.fly(numbers, fly_one))
        alive, lost = np.ones(options.flights, bool), {}
        for phase, result in zip(chain.phases, flown, strict=True):
            missing = int((alive & ~result.success).sum())
            alive = alive & result.success
            if missing:
                lost[phase.name] = missing
        landed = int(alive.sum())
        low, high = wilson(landed, options.flights)
        where = ", ".join(f"{phase} {n}" for phase, n in lost.items())
        print(
            f"| {name} | {100 * landed / options.flights:.1f} % | {100 * low:.1f} to {100 * high:.1f} % | {where} |",
            flush=True,
        )
        report.append(
            {"row": name, "flights": options.flights, "landed": landed, "low": low, "high": high, "lost": lost}
        )
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    print(f"{len(report)} rows", file=sys.stderr)


if __name__ == "__main__":
    main()
