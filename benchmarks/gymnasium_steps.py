"""Vehicle steps per second of the Gymnasium adapter, beside the engine's own stepping.

Claims: `VectorEnv` of 256 vehicles does at least 100,000 steps a second of `vertical_burn` on two cores; with `landing_burn` it is
at most 20 % slower than the engine's own stepping.

Command: python benchmarks/gymnasium_steps.py [--rounds N] [--vehicles V] [--json FILE]; needs the extra `gymnasium`.

Reading it: a step includes actions from the host, restarts, and observations, rewards, flags and reward terms on the host. The
engine steps the same vehicles in one compiled scan, as training does, with nothing on the host. Both take the same random
actions and restart vehicles from the phase's own start. The spread is over rounds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import common

PHASES = ("vertical_burn", "landing_burn")
CLAIMS = {"vertical_burn": ">= 100,000", "landing_burn": "ratio >= 0.8"}
VEHICLES, STEPS, POOL = 256, 400, 16


def actions(vehicles: int, width: int) -> Any:
    """Random actions [POOL, V, A], the same for both."""
    import numpy as np

    return np.random.default_rng(0).uniform(-1.0, 1.0, (POOL, vehicles, width)).astype(np.float32)


def adapter(vehicles: int) -> dict[str, Callable[[], float]]:
    from mission.adapters.gymnasium import VectorEnv

    def prepare(name: str) -> Callable[[], float]:
        env = VectorEnv(name, vehicles)
        pool = actions(vehicles, env.single_action_space.shape[0])
        env.reset(seed=0)

        def measure() -> float:
            began = time.perf_counter()
            for step in range(STEPS):
                env.step(pool[step % POOL])
            return STEPS * vehicles / (time.perf_counter() - began)

        measure()
        return measure

    return {name: prepare(name) for name in PHASES}


def engine(vehicles: int) -> dict[str, Callable[[], float]]:
    import jax
    import jax.numpy as jnp

    from mission import make_env
    from mission.adapters.vehicles import advance
    from mission.machine.devices import REPLICATED, SPLIT, mesh

    def prepare(name: str) -> Callable[[], float]:
        env = make_env(name, vehicles=vehicles)
        pool = jnp.asarray(actions(vehicles, len(env.action_names)))

        def steps(state: Any, key: Any, pool: Any) -> Any:
            count = pool.shape[1]

            def step(state: Any, i: Any) -> tuple[Any, Any]:
                start, move = jax.random.split(jax.random.fold_in(key, i), (2, count))
                state, result = advance(env.phase, None, state, pool[i % POOL], start, move, None)
                return state, result.reward.mean()

            return jax.lax.scan(step, state, jnp.arange(STEPS))

        shared = jax.shard_map(
            lambda *arguments: steps(*arguments)[0],
            mesh=mesh(),
            in_specs=(SPLIT, REPLICATED, jax.sharding.PartitionSpec(None, *SPLIT)),
            out_specs=SPLIT,
            check_vma=False,
        )
        program = jax.jit(shared, donate_argnums=0)
        state, number = jax.jit(env.init)(jax.random.key(0))[0], 0

        def measure() -> float:
            nonlocal state, number
            began, number = time.perf_counter(), number + 1
            state = jax.block_until_ready(program(state, jax.random.key(number), pool))
            return STEPS * vehicles / (time.perf_counter() - began)

        measure()
        return measure

    return {name: prepare(name) for name in PHASES}


def main() -> None:
    options = common.parser(__doc__, peer=False, rounds=5)
    options.add_argument("--vehicles", type=int, default=VEHICLES, help="side by side (default: %(default)s)")
    options.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = options.parse_args()
    if arguments.worker:
        measures = (adapter if arguments.worker == "gymnasium" else engine)(arguments.vehicles)
        return common.serve(lambda request: {f"{arguments.worker}, {n}": measure() for n, measure in measures.items()})
    pass_on = ("--vehicles", str(arguments.vehicles))
    workers = [common.Worker(__file__, name, options=pass_on) for name in ("gymnasium", "engine")]
    seen = common.take_turns(workers, arguments.rounds)
    for worker in workers:
        worker.close()
    table = [("phase", "VectorEnv, steps per second", "engine, steps per second", "ratio", "claimed")]
    for name in PHASES:
        pair = seen[f"gymnasium, {name}"], seen[f"engine, {name}"]
        ratio = common.spread(common.ratios(*pair))
        table.append((name, *(common.spread(values, 0) for values in pair), ratio, CLAIMS[name]))
    common.print_table(table)
    common.write_json(arguments.json, {"vehicles": arguments.vehicles, "rounds": seen})


if __name__ == "__main__":
    main()
