"""Traced operations of one control step of every phase of a mission.

Claim: one control step with observation, outcome, telemetry and reward has at most 9,000 operations in any phase.

Command: python benchmarks/operations.py [MISSION] [--json FILE]

Counted are the equations of the jaxprs for one block of vehicles, those of a loop's body once and those of a nested function at
each of its calls, for the pilot that the mission names: by default a network, without the plan of a guide. The last column
is the whole program of a flight by the guide, with entering the phase.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import common
import jax
import jax.numpy as jnp

from mission import load_mission, resolve_mission
from mission.flight.batches import BLOCK
from mission.flight.fly import fly_phase, guide_controller
from mission.machine.devices import configure

MISSION = Path(__file__).resolve().parent.parent / "missions" / "return_to_launch_site.yaml"


def inner(equation: Any) -> Iterator[Any]:
    """Yield the jaxprs that an equation holds."""
    for value in equation.params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            jaxpr = getattr(part, "jaxpr", part)
            if hasattr(jaxpr, "eqns"):
                yield jaxpr


def count(jaxpr: Any) -> int:
    """Return the number of equations of a jaxpr and of all jaxprs inside it."""
    return sum(1 + sum(count(part) for part in inner(equation)) for equation in jaxpr.eqns)


def operations(function: Any, *arguments: Any) -> int:
    """Return the number of operations of a function that is vectorised over a block."""
    return count(jax.make_jaxpr(function)(*arguments).jaxpr)


def main() -> None:
    parser = common.parser(__doc__, peer=False)
    parser.add_argument("mission", nargs="?", default=str(MISSION))
    options = parser.parse_args()
    configure()
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), BLOCK))
    rows, numbers = [("phase", "step", "observe", "outcome", "telemetry", "reward", "together", "flight")], {}
    for phase in resolve_mission(load_mission(options.mission)):
        env, guided = phase.environment, phase.guided()
        flight = jax.eval_shape(jax.vmap(env.start), keys)
        state = jax.eval_shape(jax.vmap(env.enter), keys, flight)
        action = jax.ShapeDtypeStruct((BLOCK, len(env.action_names)), jnp.float32)
        outcome = jax.eval_shape(jax.vmap(env.outcome), state)
        parts = [operations(jax.vmap(env.step), keys, state, action)]
        parts += [operations(jax.vmap(method), state) for method in (env.observe, env.outcome, env.telemetry)]
        parts.append(operations(jax.vmap(phase.reward), state, action, state, outcome) if phase.reward else 0)
        whole = partial(fly_phase, guided, guide_controller(guided))
        program = operations(whole, None, flight, keys, jax.ShapeDtypeStruct((BLOCK,), bool))
        numbers[phase.name] = [*parts, sum(parts), program]
        rows.append((phase.name, *(f"{number:,}" for number in numbers[phase.name])))
    common.print_table(rows)
    common.write_json(options.json, numbers)


if __name__ == "__main__":
    main()
