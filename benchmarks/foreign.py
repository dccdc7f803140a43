"""Environments of other libraries as phases, each trained once: gymnax's pendulum, Brax's reacher, Playground's cart-pole.

Claims: the mean action reaches a mean return of at least -200 over 100 episodes of Pendulum-v1 (published results of SAC lie about
-150), at least -6 in 50 steps of the reacher (Fujimoto et al. 2018, arXiv:1802.09477, table 1: -4.4 by SAC, -3.6 by TD3, in MuJoCo's
Reacher-v1, which has the same reward), and at least 900 in 1,000 steps of CartpoleBalance (a return of 1,000 is the most that is
possible).

Command: python benchmarks/foreign.py [--only NAME] [--seed N] [--json FILE]; needs `gymnax>=1.0.1`, `brax` and `playground`; what is
not installed is skipped.

Reading it: each phase is what two lines of a plugin make, such as `gymnax_phase("Pendulum-v1")`, in a mission of one phase that the
public functions train and fly. Networks are 2x256, minibatches 256. Seconds include compilation and evaluations.
"""

from __future__ import annotations

import os
import tempfile
import time
from typing import Any, NamedTuple

import common


class Case(NamedTuple):
    """An environment, its time limit, how it trains, and the returns to compare with."""

    library: str  # "gymnax", "brax" or "playground"
    environment: str
    max_steps: int
    env_steps: int
    vehicles: int
    updates_per_step: float
    published: str
    claim: float


CASES = (
    Case("gymnax", "Pendulum-v1", 200, 20_000, 1, 1.0, "-150", -200.0),
    Case("brax", "reacher", 50, 100_000, 16, 0.25, "-4.4, -3.6", -6.0),
    Case("playground", "CartpoleBalance", 1000, 100_000, 16, 0.25, "at most 1,000", 900.0),
)
FLIGHTS = 100


def train(case: Case, seed: int) -> dict[str, Any]:
    """Train one environment and fly it; return what the table shows."""
    from mission import adapters, fly_mission, load_mission, train_mission

    hook = getattr(adapters, f"{case.library}_phase")(case.environment)
    learner = {
        "actor": {"width": 256},
        "critic": {"width": 256},
        "gamma": 0.99,
        "actor_learning_rate": 1e-3,
        "critic_learning_rate": 1e-3,
        "temperature_learning_rate": 1e-3,
        "temperature_initial": 1.0,
        "buffer_size": case.env_steps,
        "fill": {"env_steps": 1000 * case.vehicles},
        "vehicles": case.vehicles,
        "updates_per_step": case.updates_per_step,
        "chunk_env_steps": 500 * case.vehicles,
    }
    phase = {
        "name": "phase",
        "plugin": hook(),
        "params": {"max_steps": case.max_steps},
        "sac": learner,
        "budget": {"env_steps": case.env_steps},
        "evaluation": {"every_env_steps": case.env_steps // 5, "flights": FLIGHTS},
        "gate": {"success_low": 0.0, "stop": False},
    }
    mission = load_mission({"name": "foreign", "seed": seed, "phases": [phase]})
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        train_mission(mission, checkpoints=folder)
        seconds = time.perf_counter() - began
        flown = fly_mission(mission, checkpoints=folder, flights=FLIGHTS).phases[0]
    returns = flown.returns
    return {"return": returns.mean, "low": returns.p05, "seconds": seconds, "env_steps": case.env_steps}


def main() -> None:
    options = common.parser(__doc__, peer=False)
    options.add_argument("--only", choices=[case.environment for case in CASES], help="train this one alone")
    options.add_argument("--seed", type=int, default=0, help="of the trainings (default: %(default)s)")
    arguments = options.parse_args()
    # With the engine's fusions of several outputs, XLA aborts on the reacher.
    os.environ.setdefault(
        "XLA_FLAGS", "--xla_backend_extra_options=xla_cpu_small_while_loop_byte_threshold=1000000000000"
    )
    from mission import MachineError, configure

    configure()  # before a foreign library starts JAX

    results, rows = {}, []
    for case in CASES:
        if arguments.only not in (None, case.environment):
            continue
        try:
            found = results[case.environment] = train(case, arguments.seed)
        except MachineError as error:
            print(f"{case.environment}: skipped, {error}")
            continue
        shown = (f"{found['return']:.1f}", f"{found['low']:.1f}", case.published, f">= {case.claim:g}")
        rows.append((case.environment, f"{case.env_steps:,}", *shown, f"{found['seconds']:.0f}"))
    heading = ("environment", "vehicle steps", "mean return", "5th percentile", "published", "claimed", "seconds")
    common.print_table([heading, *rows])
    common.write_json(arguments.json, results)


if __name__ == "__main__":
    main()
