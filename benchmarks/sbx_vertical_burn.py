"""SBX's SAC trains `vertical_burn` through the Gymnasium adapter, beside the engine's own SAC.

Claim: SBX's policy lands at least 99 % of 4,096 flights that neither training nor evaluations saw.

Command: python benchmarks/sbx_vertical_burn.py [--steps N] [--seed N] [--json FILE] [--picture FILE.png]; needs the extra
`gymnasium`, sbx-rl and stable-baselines3 in the same environment.

Reading it: both train on the starts of the phase itself, with the same vehicle steps, networks (2x64, LayerNorm in the critic),
learning rates, discount, minibatch, replay buffer, first temperature and target entropy, and 16 vehicles with one update per
vehicle step. What differs is the learner: the engine has prioritised replay and LayerNorm in the actor too, as the phase's
defaults have, and SBX samples uniformly. The curve is the share of landings of the mean action in 512 flights. Seconds are those
of the whole training, evaluations and compilation included.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import numpy as np

STEPS, EVERY, VEHICLES, EPISODES, FINAL = 64_000, 4_000, 16, 512, 4_096
RATE, GAMMA, BATCH, BUFFER, FILL, TEMPERATURE, ENTROPY = 1e-3, 0.99, 256, 100_000, 4_096, 0.05, -3.0


def landed(environment: Any, act: Callable[[np.ndarray], np.ndarray], seed: int) -> float:
    """The share of successes among the first episode of each vehicle."""
    obs, _ = environment.reset(seed=seed)
    success, over = np.zeros(environment.num_envs, bool), np.zeros(environment.num_envs, bool)
    while not over.all():
        obs, _, terminated, truncated, infos = environment.step(act(obs))
        now = (terminated | truncated) & ~over
        if now.any():
            success[now], over[now] = infos["final_info"]["success"][now], True
    return float(success.mean())


def vehicles_for_sb3() -> Any:
    """`VectorEnv` with the interface that Stable-Baselines3 and SBX train on."""
    from stable_baselines3.common.vec_env import VecEnv

    from mission.adapters.gymnasium import VectorEnv

    class Vehicles(VecEnv):
        def __init__(self, environment: Any) -> None:
            self.environment, self.actions, self.first_seed = environment, None, 0
            super().__init__(
                environment.num_envs, environment.single_observation_space, environment.single_action_space
            )

        def seed(self, seed: int | None = None) -> list[None]:
            self.first_seed = seed
            return [None] * self.num_envs

        def reset(self) -> np.ndarray:
            return self.environment.reset(seed=self.first_seed)[0]

        def step_async(self, actions: np.ndarray) -> None:
            self.actions = actions

        def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
            obs, rewards, terminated, truncated, infos = self.environment.step(self.actions)
            over, told = terminated | truncated, [{} for _ in range(self.num_envs)]
            for i in np.flatnonzero(over):
                late = bool(truncated[i] and not terminated[i])
                told[i] = {"terminal_observation": infos["final_obs"][i], "TimeLimit.truncated": late}
            return obs, rewards, over, told

        def close(self) -> None:
            self.environment.close()

        def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
            return [False] * self.num_envs

        def env_method(self, *_: Any, **__: Any) -> list[Any]:
            raise NotImplementedError

        def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
            return [getattr(self.environment, attr_name, None)] * self.num_envs

        def set_attr(self, *_: Any, **__: Any) -> None:
            raise NotImplementedError

    return Vehicles(VectorEnv("vertical_burn", VEHICLES))


def train_sbx(steps: int, seed: int) -> dict[str, Any]:
    """Train SBX's SAC; return its curve, its seconds and its final share of landings."""
    import flax.linen as nn
    from sbx import SAC

    from mission.adapters.gymnasium import VectorEnv

    test = VectorEnv("vertical_burn", EPISODES)
    began, curve = time.perf_counter(), []
    network = {"net_arch": [64, 64], "layer_norm": True, "activation_fn": nn.relu}
    model = SAC(
        "MlpPolicy",
        vehicles_for_sb3(),
        learning_rate=RATE,
        gamma=GAMMA,
        batch_size=BATCH,
        buffer_size=BUFFER,
        learning_starts=FILL,
        gradient_steps=VEHICLES,
        ent_coef=f"auto_{TEMPERATURE}",
        target_entropy=ENTROPY,
        policy_kwargs=network,
        seed=seed,
    )

    def act(obs: np.ndarray) -> np.ndarray:
        return model.predict(obs, deterministic=True)[0]

    while model.num_timesteps < steps:
        model.learn(EVERY, reset_num_timesteps=False)
        curve.append((model.num_timesteps, landed(test, act, 1_000)))
        print(f"SBX {model.num_timesteps:,} steps: {100 * curve[-1][1]:.1f} %", flush=True)
    seconds = time.perf_counter() - began
    return {"curve": curve, "seconds": seconds, "landed": landed(VectorEnv("vertical_burn", FINAL), act, 2_000)}


def train_engine(steps: int, seed: int) -> dict[str, Any]:
    """Train the engine's SAC on the same phase; return the same."""
    import mission
    from mission.adapters.gymnasium import VectorEnv

    network = {"width": 64, "layer_norm": True}
    learner = {
        "actor": network,
        "critic": network,
        "actor_learning_rate": RATE,
        "critic_learning_rate": RATE,
        "gamma": GAMMA,
        "batch_size": BATCH,
        "buffer_size": BUFFER,
        "fill": {"env_steps": FILL},
        "temperature_initial": TEMPERATURE,
        "target_entropy": ENTROPY,
        "vehicles": VEHICLES,
        "updates_per_step": 1.0,
        "chunk_env_steps": EVERY // 2,
    }
    burn = {
        "name": "burn",
        "plugin": "vertical_burn",
        "sac": learner,
        "budget": {"env_steps": steps},
        "evaluation": {"every_env_steps": EVERY, "flights": EPISODES},
        "gate": {"success_low": 0.0, "stop": False},
    }
    read = mission.load_mission({"name": "burn_alone", "seed": seed, "phases": [burn]})
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        mission.train_mission(read, checkpoints=folder)
        seconds = time.perf_counter() - began
        lines = mission.read_metrics(Path(folder) / read.name / "burn")
        curve = [(line.env_steps, line.scalar("Evaluation/Success")) for line in lines if line.kind == "evaluation"]
        policy = mission.load_policy(read, "burn", folder)
        rate = landed(VectorEnv("vertical_burn", FINAL), policy, 2_000)
    return {"curve": curve, "seconds": seconds, "landed": rate}


def draw(results: dict[str, Any], path: Path) -> None:
    """Draw both learning curves."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.subplots()
    for name, result in results.items():
        steps, rates = np.array(result["curve"]).T
        axes.plot(steps / 1000, 100 * rates, marker="o", markersize=3, label=name)
    axes.set(xlabel="vehicle steps, thousands", ylabel="landed, %", ylim=(-2, 102), title="vertical_burn")
    axes.legend(loc="lower right")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def main() -> None:
    options: argparse.ArgumentParser = common.parser(__doc__, peer=False)
    options.add_argument("--steps", type=int, default=STEPS, help="vehicle steps (default: %(default)s)")
    options.add_argument("--seed", type=int, default=0, help="of both trainings (default: %(default)s)")
    options.add_argument("--picture", type=Path, help="write the learning curves as PNG")
    arguments = options.parse_args()

    from mission.machine.devices import configure

    configure()
    try:
        results = {"SBX": train_sbx(arguments.steps, arguments.seed)}
    except ImportError as error:
        raise SystemExit(f"SBX: skipped, {error} (see benchmarks/README.md)") from None
    results["engine"] = train_engine(arguments.steps, arguments.seed)
    rows = [
        (name, f"{100 * result['landed']:.2f} %", f"{result['seconds']:.0f} s", ">= 99 %" if name == "SBX" else "")
        for name, result in results.items()
    ]
    common.print_table([("who", f"landed, of {FINAL:,}", "training", "claimed"), *rows])
    common.write_json(arguments.json, results | {"steps": arguments.steps, "seed": arguments.seed})
    if arguments.picture:
        draw(results, arguments.picture)


if __name__ == "__main__":
    main()
