"""What prioritised replay costs: in a whole update, and alone against flashbax.

Claims, on two CPU cores with 500,000 rows, all filled:
  (a) a whole update of 2x64 networks at batch 256 takes at most 10 % longer with priorities than
      without;
  (b) sampling, importance weights and setting the priorities, inside one compiled scan on one
      device, are at least 10 times as fast as flashbax's prioritised buffer at batch 256, and at
      least 2 times at batch 2048.

Command: python benchmarks/replay.py --peers-python PATH [--json FILE]

Reading it: (a) compares seconds per update, two processes that take turns. In (b) both sides do the
same per iteration: stratified sample, gather of the rows (16 floats), weights (size P)^-beta over
their maximum, new priorities from fresh random errors; the rows' sum is an output, so that no gather
is optimised away. flashbax: `make_prioritised_trajectory_buffer` with sequences of length 1, whose
state is carried by a jitted lax.scan and donated, as ours is (its flat buffer is no faster). Ratios are medians over rounds, least
and most in brackets.
"""

from __future__ import annotations

import time
from typing import Any

import common

ROWS, VEHICLES = 499_968, 64
OBSERVATIONS, ACTIONS = 6, 2
ALPHA, BETA, EPSILON = 0.6, 0.4, 1e-3
A_CLAIM, B_CLAIMS = 10.0, {256: 10.0, 2048: 2.0}


def whole_update(name: str, updates: int) -> None:
    from engine import updates_per_second

    network = {"width": 64}
    sac: dict[str, Any] = {"actor": network, "critic": network, "batch_size": 256, "prioritised": name == "prioritised"}
    measure = updates_per_second(OBSERVATIONS, ACTIONS, ROWS, updates, **sac)
    common.serve(lambda _: {name: 1e6 / measure()})


def alone(name: str, batch: int, iterations: int) -> None:
    """The scan over sample, weights and priorities; the two sides differ in `prepare` only."""
    import jax
    import jax.numpy as jnp

    state, step = (ours if name == "ours" else flashbax)(batch)
    run = jax.jit(lambda state, key: jax.lax.scan(step, state, jax.random.split(key, iterations)), donate_argnums=0)
    key = jax.random.key(1)

    def measure(_: str) -> dict[str, float]:
        nonlocal state, key
        key, use = jax.random.split(key)
        began = time.perf_counter()
        state, sums = jax.block_until_ready(run(state, use))
        seconds = time.perf_counter() - began
        assert bool(jnp.isfinite(sums).all())
        return {f"{name}-{batch}": 1e6 * seconds / iterations}

    measure("")
    common.serve(measure, {"devices": len(jax.devices())})


def _transitions(leading: tuple[int, ...]) -> dict[str, Any]:
    import jax
    import jax.numpy as jnp

    obs_key, action_key, reward_key = jax.random.split(jax.random.key(0), 3)
    obs = jax.random.normal(obs_key, (*leading, OBSERVATIONS))
    action = jax.random.uniform(action_key, (*leading, ACTIONS), minval=-1.0)
    reward = jax.random.normal(reward_key, leading)
    return {"obs": obs, "action": action, "reward": reward, "next_obs": obs + 0.1, "terminated": jnp.zeros(leading)}


def ours(batch: int) -> tuple[Any, Any]:
    from mission.machine.devices import configure

    configure()  # XLA's flags as training has them; one of the two devices works
    import jax

    from mission.sac import replay as store

    fill = _transitions((ROWS,))
    example = jax.tree.map(lambda leaf: leaf[0], fill)
    state = jax.jit(store.append)(store.create(ROWS, store.row_width(example)), fill)

    def step(replay: Any, key: Any) -> Any:
        sample_key, error_key = jax.random.split(key)
        index, weight = store.sample(replay, sample_key, batch, BETA)
        drawn = store.unpack(replay.rows[index], example)
        total = sum((leaf.reshape(batch, -1).sum(axis=1) * weight).sum() for leaf in jax.tree.leaves(drawn))
        error = jax.random.normal(error_key, (batch,))
        return store.update_priorities(replay, index, error, ALPHA, EPSILON), total

    return state, step


def flashbax(batch: int) -> tuple[Any, Any]:
    import flashbax as peer
    import jax
    import jax.numpy as jnp

    buffer = peer.make_prioritised_trajectory_buffer(
        add_batch_size=VEHICLES,
        sample_batch_size=batch,
        sample_sequence_length=1,
        period=1,
        min_length_time_axis=1,
        max_length_time_axis=ROWS // VEHICLES,
        priority_exponent=ALPHA,
        device="cpu",
    )
    fill = _transitions((VEHICLES, ROWS // VEHICLES))
    state = jax.jit(buffer.add, donate_argnums=0)(buffer.init(jax.tree.map(lambda leaf: leaf[0, 0], fill)), fill)

    def step(state: Any, key: Any) -> Any:
        sample_key, error_key = jax.random.split(key)
        drawn = buffer.sample(state, sample_key)
        weight = (ROWS * jnp.maximum(drawn.probabilities, 1e-12)) ** -BETA
        weight = weight / weight.max()
        total = sum((leaf.reshape(batch, -1).sum(axis=1) * weight).sum() for leaf in jax.tree.leaves(drawn.experience))
        error = jax.random.normal(error_key, (batch,))
        return buffer.set_priorities(state, drawn.indices, jnp.abs(error) + EPSILON), total

    return state, step


def main() -> None:
    options = common.parser(__doc__, peer=True, rounds=7)
    options.add_argument("--updates", type=int, default=4096, help="updates a round of (a) (default: %(default)s)")
    options.add_argument(
        "--iterations", type=int, default=1000, help="iterations a round of (b), at batch 256 (default: %(default)s)"
    )
    options.add_argument("--part", choices=("a", "b"), help="only this claim")
    arguments = options.parse_args()
    if arguments.worker:
        name, _, batch = arguments.worker.partition("-")
        if batch:
            return alone(name, int(batch), max(1, arguments.iterations * 256 // int(batch)))
        return whole_update(name, arguments.updates)

    pass_on = ("--updates", str(arguments.updates), "--iterations", str(arguments.iterations))
    numbers: dict[str, Any] = {"microseconds": {}, "ratios": {}}
    table = [("claim", "measured", "median (least to most)", "claimed")]

    def measure(workers: list[common.Worker]) -> common.Rounds:
        seen = common.take_turns(workers, arguments.rounds)
        for worker in workers:
            worker.close()
        numbers["microseconds"].update(seen)
        return seen

    if arguments.part != "b":
        seen = measure([common.Worker(__file__, name, options=pass_on) for name in ("prioritised", "uniform")])
        extra = [100.0 * (ratio - 1.0) for ratio in common.ratios(seen["prioritised"], seen["uniform"])]
        numbers["ratios"]["extra_percent"] = extra
        table += [
            ("a", f"microseconds an update, {name}", common.spread(values, 0), "") for name, values in seen.items()
        ]
        table.append(("a", "prioritised takes longer by %", common.spread(extra, 1), f"<= {A_CLAIM:g}"))
    if arguments.part != "a":
        skipped = common.peer_missing(arguments.peers_python, "flashbax")
        for batch, claimed in B_CLAIMS.items():
            workers = [common.Worker(__file__, f"ours-{batch}", options=pass_on)]
            if not skipped:
                workers.append(common.Worker(__file__, f"flashbax-{batch}", arguments.peers_python, pass_on))
            seen = measure(workers)
            table += [
                ("b", f"microseconds an iteration, {name}", common.spread(values, 0), "")
                for name, values in seen.items()
            ]
            if not skipped:
                quotients = common.ratios(seen[f"flashbax-{batch}"], seen[f"ours-{batch}"])
                numbers["ratios"][f"flashbax / ours, batch {batch}"] = quotients
                table.append(("b", f"flashbax / ours, batch {batch}", common.spread(quotients, 1), f">= {claimed:g}"))
    common.print_table(table)
    common.write_json(arguments.json, numbers)


if __name__ == "__main__":
    main()
