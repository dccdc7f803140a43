"""A foreign environment as a phase: Pendulum-v1 of gymnax, trained once.

Claim: after 20,000 steps, the mean action reaches a mean return of at least -200 over 100 episodes. Published results of SAC on
Pendulum-v1 lie about -150.

Command: python benchmarks/foreign.py [--seed N] [--json FILE]; needs `gymnax>=1.0.1`.

Reading it: the phase is `gymnax_phase("Pendulum-v1")`, which two lines of a plugin make; networks (2x256), batch (256) and one
update a step are those of `pendulum.py`, which trains the same pendulum as a phase of its own. Seconds include compilation.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import common

STEPS, CLAIM, PUBLISHED = 20_000, -200.0, -150.0


def train(seed: int, steps: int) -> dict[str, Any]:
    from mission.machine.devices import configure

    configure()
    import jax

    from mission import SacConfig
    from mission.adapters import gymnax_phase
    from mission.testing import make_phase
    from mission.training.loop import begin, fill_and_warm_up, fly_evaluation, train_chunk

    network = {"width": 256}
    settings: dict[str, Any] = {
        "actor": network,
        "critic": network,
        "batch_size": 256,
        "gamma": 0.99,
        "actor_learning_rate": 1e-3,
        "critic_learning_rate": 1e-3,
        "temperature_learning_rate": 1e-3,
        "temperature_initial": 1.0,
        "buffer_size": STEPS,
        "fill": {"env_steps": 1000},
        "vehicles": 1,
        "updates_per_step": 1.0,
        "chunk_env_steps": 500,
    }
    phase = make_phase(gymnax_phase("Pendulum-v1", sac=SacConfig(**settings))())
    evaluation = phase.entry.evaluation.model_copy(update={"flights": 100})
    phase = dataclasses.replace(phase, entry=phase.entry.model_copy(update={"evaluation": evaluation}))

    def emit(*arguments: Any, **keywords: Any) -> None:
        return None

    began = time.perf_counter()
    run = begin(phase, None, jax.random.key(seed))
    fill_and_warm_up(run, emit)
    while run.progress.env_steps < steps:
        train_chunk(run, emit)
    seconds = time.perf_counter() - began
    flown = fly_evaluation(run, run.state.agent.actor)
    return {
        "return": float(flown.returns.mean()),
        "worst": float(flown.returns.min()),
        "survived": float(flown.success.mean()),
        "seconds": seconds,
        "steps": run.progress.env_steps,
    }


def main() -> None:
    options = common.parser(__doc__, peer=False)
    options.add_argument("--seed", type=int, default=0, help="of the training (default: %(default)s)")
    options.add_argument("--steps", type=int, default=STEPS, help="vehicle steps (default: %(default)s)")
    arguments = options.parse_args()
    result = train(arguments.seed, arguments.steps)
    common.print_table(
        [
            ("mean return", "worst episode", "published, about", "claimed", "seconds"),
            (
                f"{result['return']:.1f}",
                f"{result['worst']:.1f}",
                f"{PUBLISHED:g}",
                f">= {CLAIM:g}",
                f"{result['seconds']:.0f}",
            ),
        ]
    )
    common.write_json(arguments.json, result)


if __name__ == "__main__":
    main()
