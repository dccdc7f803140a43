"""How close critics and actors come to values that are known by hand.

Claim: within 5 % on every probe (constant reward, observation, discounting, action, both, time-out against death),
at a temperature fixed at 1e-3, for every head.

Command: python benchmarks/probes.py [--seeds N] [--json FILE]

Reading it: largest relative error over both critics and the probe's observations, and of the mean action where the best
one is known, for each seed. The probes are those of `tests/probes.py`, which the tests train with one seed.
"""

from __future__ import annotations

import sys
from pathlib import Path

import common

CLAIM = 5.0


def main() -> None:
    options = common.parser(__doc__, peer=False)
    options.add_argument("--seeds", type=int, default=5, help="training runs of each probe (default: %(default)s)")
    arguments = options.parse_args()
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "engine"))
    from mission.machine.devices import configure

    configure()
    import jax
    import probes

    from mission.testing import make_phase
    from mission.training.loop import begin, fill_and_warm_up, train_chunk

    table = [("probe", "critics %", "actor %", "claimed")]
    seen: dict[str, dict[str, list[float]]] = {}
    for name, case in probes.CASES.items():
        seen[name] = {"critics": [], "actor": []}
        for seed in range(arguments.seeds):
            run = begin(make_phase(case.spec()), None, jax.random.key(seed))
            fill_and_warm_up(run, lambda *_, **more: None)
            for _ in range(case.chunks):
                train_chunk(run, lambda *_, **more: None)
            for who, error in zip(("critics", "actor"), probes.largest_errors(case, run), strict=True):
                seen[name][who] += [100.0 * error] if error is not None else []
        parts = [common.spread(errors, 1) if errors else "-" for errors in seen[name].values()]
        table.append((name, *parts, f"<= {CLAIM:g}"))
    common.print_table(table)
    common.write_json(arguments.json, seen)


if __name__ == "__main__":
    main()
