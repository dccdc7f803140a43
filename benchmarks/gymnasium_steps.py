"""Vehicle steps per second of the Gymnasium adapter, beside the engine's own stepping.

Claims: `VectorEnv` of 256 vehicles does at least 100,000 steps a second of `vertical_burn` on two cores; with `landing_burn` and
2,048 vehicles it is at most 20 % slower than the engine's own stepping.

Command: python benchmarks/gymnasium_steps.py [--rounds N] [--json FILE]; needs the extra `gymnasium`.

Reading it: a step includes actions from the host, restarts, and observations, rewards, flags and reward terms on the host. The
engine steps the same vehicles in one compiled scan, as training does, with nothing on the host; its scan uses everything that a
step returns, so that the compiler leaves none of it out. Both take the same random actions and restart vehicles from the phase's
own start. The spread is over rounds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import common

CASES = {  # name of the case -> phase, vehicles, claim
    "vertical_burn, 256 vehicles": ("vertical_burn", 256, ">= 100,000"),
    "landing_burn, 256 vehicles": ("landing_burn", 256, ""),
    "landing_burn, 2,048 vehicles": ("landing_burn", 2048, "ratio >= 0.8"),
}
STEPS, POOL = 100, 16


def actions(vehicles: int, width: int) -> Any:
    """Random actions [POOL, V, A], the same for both."""
    import numpy as np

    return np.random.default_rng(0).uniform(-1.0, 1.0, (POOL, vehicles, width)).astype(np.float32)


def adapter() -> dict[str, Callable[[], float]]:
    from mission.adapters.gymnasium import VectorEnv

    def prepare(name: str, vehicles: int, _: str) -> Callable[[], float]:
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

    return {case: prepare(*settings) for case, settings in CASES.items()}


def engine() -> dict[str, Callable[[], float]]:
    import jax
    import jax.numpy as jnp

    from mission import make_env
    from mission.adapters.vehicles import advance
    from mission.machine.devices import REPLICATED, SPLIT, mesh

    def prepare(name: str, vehicles: int, _: str) -> Callable[[], float]:
        env = make_env(name, vehicles=vehicles)
        pool = jnp.asarray(actions(vehicles, len(env.action_names)))

        def steps(state: Any, key: Any, pool: Any) -> Any:
            count = pool.shape[1]

            def step(state: Any, i: Any) -> tuple[Any, Any]:
                start, move = jax.random.split(jax.random.fold_in(key, i), (2, count))
                state, result = advance(env.phase, None, state, pool[i % POOL], start, move, None)
                return state, jax.tree.map(jnp.mean, result)

            return jax.lax.scan(step, state, jnp.arange(STEPS))

        shared = jax.shard_map(
            steps,
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
            state, _ = jax.block_until_ready(program(state, jax.random.key(number), pool))
            return STEPS * vehicles / (time.perf_counter() - began)

        measure()
        return measure

    return {case: prepare(*settings) for case, settings in CASES.items()}


def main() -> None:
    options = common.parser(__doc__, peer=False, rounds=5)
    options.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = options.parse_args()
    if arguments.worker:
        measures = (adapter if arguments.worker == "gymnasium" else engine)()
        return common.serve(lambda request: {f"{arguments.worker}, {n}": measure() for n, measure in measures.items()})
    workers = [common.Worker(__file__, name) for name in ("gymnasium", "engine")]
    seen = common.take_turns(workers, arguments.rounds)
    for worker in workers:
        worker.close()
    table = [("case", "VectorEnv, steps per second", "engine, steps per second", "ratio", "claimed")]
    for case, (_, _, claim) in CASES.items():
        pair = seen[f"gymnasium, {case}"], seen[f"engine, {case}"]
        ratio = common.spread(common.ratios(*pair))
        table.append((case, *(common.spread(values, 0) for values in pair), ratio, claim))
    common.print_table(table)
    common.write_json(arguments.json, {"rounds": seen})


if __name__ == "__main__":
    main()
