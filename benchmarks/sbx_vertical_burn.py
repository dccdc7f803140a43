"""SBX's SAC trains `vertical_burn` through the Gymnasium adapter.

Claim: none; it shows that a learner of another framework trains a phase, from the starts of the stored bank before it, and how
long that takes.

Command: python benchmarks/sbx_vertical_burn.py [--steps N] [--seed N] [--json FILE]; needs the extra `gymnasium`, sbx-rl and
stable-baselines3 in the same environment.

Reading it: SBX steps one vehicle and makes one update per step, with its defaults but for the networks (2x64). The trained policy
then lands 256 vehicles with its mean action; the guide and the stored policy of the mission fly the same phase.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import common

STEPS, EPISODES = 60_000, 256


def landed(env: Any, act: Callable[[Any, Any], Any]) -> float:
    """The share of successes among the first episode of each vehicle."""
    import numpy as np

    obs, infos = env.reset(seed=1_000)
    success, over = np.zeros(env.num_envs, bool), np.zeros(env.num_envs, bool)
    while not over.all():
        obs, _, terminated, truncated, infos = env.step(act(obs, infos))
        now = (terminated | truncated) & ~over
        if now.any():
            success[now], over[now] = infos["final_info"]["success"][now], True
    return float(success.mean())


def main() -> None:
    options = common.parser(__doc__, peer=False)
    options.add_argument("--steps", type=int, default=STEPS, help="vehicle steps (default: %(default)s)")
    options.add_argument("--seed", type=int, default=0, help="of the training (default: %(default)s)")
    arguments = options.parse_args()

    from mission import load_bank, load_mission, load_policy, resolve_mission
    from mission.adapters.gymnasium import Env, VectorEnv

    try:
        from sbx import SAC
    except ImportError as error:
        raise SystemExit(f"SBX: skipped, {error} (see benchmarks/README.md)") from None
    vertical = load_mission("vertical")
    phase, bank = resolve_mission(vertical)[1], load_bank(vertical, "coast")
    policy, test = load_policy(vertical, "burn"), VectorEnv(phase, EPISODES, bank=bank, guide=True)
    began = time.perf_counter()
    model = SAC("MlpPolicy", Env(phase, bank=bank), policy_kwargs={"net_arch": [64, 64]}, seed=arguments.seed)
    model.learn(arguments.steps)
    seconds = time.perf_counter() - began
    rates = {
        "SBX": landed(test, lambda obs, infos: model.predict(obs, deterministic=True)[0]),
        "stored policy": landed(test, lambda obs, infos: policy(obs)),
        "guide": landed(test, lambda obs, infos: infos["guide"]),
    }
    rows = [(name, f"{100 * rate:.1f} %") for name, rate in rates.items()]
    common.print_table([("who", f"landed, of {EPISODES}"), *rows])
    print(f"{arguments.steps:,} steps of SBX in {seconds:.0f} s")
    common.write_json(arguments.json, {"steps": arguments.steps, "seconds": seconds, "landed": rates})


if __name__ == "__main__":
    main()
