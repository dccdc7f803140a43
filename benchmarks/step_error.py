"""Fly each phase of the booster with its own integration steps, and with steps half as long.

Claim: the errors by step in docs/physics.md.

Command: python benchmarks/step_error.py [--phases NAME ...] [--flights N] [--json FILE]

The guide flies from the phase's own start, with the dispersions and the turbulence of the mission; both flights have the
same draws. The table shows how far apart they end. It holds the whole error of the step: what the integrator loses, and
what the guide then does differently. Flights of which only one succeeds are counted separately.
"""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import parser as options_parser
from common import print_table, write_json
from mission_rocket.phases import ascent, ballistic_arc, entry_burn, flip_boostback, landing_burn

PHASES = {
    "ascent": (ascent, ascent.Ascent),
    "flip_boostback": (flip_boostback, flip_boostback.FlipBoostback),
    "ballistic_arc": (ballistic_arc, ballistic_arc.BallisticArc),
    "entry_burn": (entry_burn, entry_burn.EntryBurn),
    "landing_burn": (landing_burn, landing_burn.LandingBurn),
}


def finer(phase: Any) -> Any:
    """Return a phase whose integration steps are half as long."""
    base = type(phase)

    def fly(self: Any, *arguments: Any, steps_each: int = 1, **more: Any) -> Any:
        return base.fly(self, *arguments, steps_each=2 * steps_each, **more)

    fields = {field.name: getattr(phase, field.name) for field in dataclasses.fields(phase)}
    return type(base.__name__, (base,), {"fly": fly})(**fields)


def flights(phase: Any, count: int, seed: int = 5) -> dict[str, np.ndarray]:
    """Fly `count` vehicles by the guide: position [count, 3], velocity [count, 3], success [count] at the end."""

    def one(key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        start_key, enter_key, step_key = jax.random.split(key, 3)
        state = phase.enter(enter_key, phase.start(start_key))

        def flying(carry: tuple[Any, jax.Array]) -> jax.Array:
            return ~phase.outcome(carry[0]).terminated & (carry[1] < phase.max_steps)

        def step(carry: tuple[Any, jax.Array]) -> tuple[Any, jax.Array]:
            state, at = carry
            return phase.step(jax.random.fold_in(step_key, at), state, phase.guide(state)), at + 1

        state, _ = jax.lax.while_loop(flying, step, (state, jnp.int32(0)))
        motion = state.flight.state.motion
        return jnp.stack(motion.position), jnp.stack(motion.velocity), phase.outcome(state).success

    keys = jax.random.split(jax.random.key(seed), count)
    position, velocity, success = (np.asarray(part) for part in jax.jit(jax.vmap(one))(keys))
    return {"position": position, "velocity": velocity, "success": success}


def main() -> None:
    options: argparse.ArgumentParser = options_parser(__doc__, peer=False)
    options.add_argument("--phases", nargs="+", choices=PHASES, default=list(PHASES))
    options.add_argument("--flights", type=int, default=256)
    chosen = options.parse_args()
    rows = [
        ("phase", "period s", "both", "one", "position m: median, 95 %, worst", "velocity m/s: median, 95 %, worst")
    ]
    numbers: dict[str, Any] = {}
    for name in chosen.phases:
        module, kind = PHASES[name]
        phase = kind.build(module.Params())
        coarse, fine = (flights(one, chosen.flights) for one in (phase, finer(phase)))
        both = coarse["success"] & fine["success"]
        apart = {part: np.linalg.norm(coarse[part] - fine[part], axis=1)[both] for part in ("position", "velocity")}
        shown = [" ".join(f"{np.quantile(off, share):.3g}" for share in (0.5, 0.95, 1.0)) for off in apart.values()]
        alone = int((coarse["success"] ^ fine["success"]).sum())
        rows.append((name, str(phase.control_period_s), str(int(both.sum())), str(alone), *shown))
        numbers[name] = {part: [float(x) for x in np.sort(off)] for part, off in apart.items()} | {"one": alone}
        print(rows[-1], flush=True)
    print_table(rows)
    write_json(chosen.json, numbers)


if __name__ == "__main__":
    main()
