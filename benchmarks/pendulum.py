"""Pendulum-v1 in 20,000 steps: the engine learns what SBX's SAC learns.

Claim: over 5 seeds, after 20,000 steps, the mean return of the mean action is at least -200, as that
of SBX SAC with the same networks (2x256), batch (256) and steps.

Command: python benchmarks/pendulum.py --peers-python PATH [--seeds N] [--json FILE]

Reading it: the physics, start and reward are gymnasium's Pendulum-v1, written as a phase; one vehicle
and one update a step, as SBX has. SBX keeps its defaults but for the networks and learns on gymnasium's
own environment. Each policy then flies its mean action (100 episodes here, 50 there). The spread is over seeds.
Seconds include compilation.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import common

STEPS, EPISODE, CLAIM = 20_000, 200, -200.0
SBX_EPISODES = 50


def engine(steps: int, overrides: dict[str, Any]) -> None:
    import dataclasses
    from typing import NamedTuple

    from mission.machine.devices import configure

    configure()
    import jax
    import jax.numpy as jnp
    from jax import Array
    from pydantic import BaseModel

    from mission.phase import Environment, Outcome, PhaseSpec
    from mission.sac.config import SacConfig
    from mission.testing import make_phase
    from mission.training.loop import begin, fill_and_warm_up, fly_evaluation, train_chunk

    gravity, mass, length, period, max_speed, max_torque = 10.0, 1.0, 1.0, 0.05, 8.0, 2.0

    class Nothing(BaseModel):
        """No parameters."""

    class Swing(NamedTuple):
        """Angle from upright and its rate."""

        angle: Array
        rate: Array

    @dataclasses.dataclass(frozen=True, eq=False)
    class Pendulum(Environment[Swing, Swing]):
        """gymnasium's PendulumEnv."""

        observation_names = ("cosine", "sine", "rate")
        action_names = ("torque",)
        causes = ("survived", "never")
        time_out_cause = "survived"
        control_period_s = period
        max_steps = EPISODE

        def start(self, key: Array) -> Swing:
            """Any angle, slow."""
            draw = jax.random.uniform(key, (2,), minval=-1.0) * jnp.array([jnp.pi, 1.0])
            return Swing(draw[0], draw[1])

        def enter(self, key: Array, handoff: Swing) -> Swing:
            """As handed over."""
            return handoff

        def step(self, key: Array, state: Swing, action: Array) -> Swing:
            """Semi-implicit Euler, speed clipped."""
            pull = (
                3.0 * gravity / (2.0 * length) * jnp.sin(state.angle)
                + 3.0 / (mass * length**2) * max_torque * action[0]
            )
            rate = jnp.clip(state.rate + pull * period, -max_speed, max_speed)
            return Swing(state.angle + rate * period, rate)

        def observe(self, state: Swing) -> Array:
            """As gymnasium, the rate unscaled."""
            return jnp.stack([jnp.cos(state.angle), jnp.sin(state.angle), state.rate])

        def outcome(self, state: Swing) -> Outcome:
            """Never ends before the time limit."""
            return Outcome(jnp.bool_(False), jnp.bool_(False), jnp.int32(0))

        def leave(self, state: Swing) -> Swing:
            """The state."""
            return state

        def telemetry(self, state: Swing) -> dict[str, Array]:
            """Angle."""
            return {"angle_rad": state.angle}

    def reward(state: Swing, action: Array, after: Swing, outcome: Outcome) -> dict[str, Array]:
        angle = (state.angle + jnp.pi) % (2.0 * jnp.pi) - jnp.pi
        return {"angle": -(angle**2), "rate": -0.1 * state.rate**2, "torque": -0.001 * (max_torque * action[0]) ** 2}

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
    } | overrides
    spec = PhaseSpec(
        params=Nothing, environment=lambda params: Pendulum(), reward=lambda params: reward, sac=SacConfig(**settings)
    )
    phase = make_phase(spec)
    phase = dataclasses.replace(
        phase,
        entry=phase.entry.model_copy(update={"evaluation": phase.entry.evaluation.model_copy(update={"flights": 100})}),
    )

    def emit(*arguments: Any, **keywords: Any) -> None:
        return None

    def measure(request: str) -> dict[str, Any]:
        began = time.perf_counter()
        run = begin(phase, None, jax.random.key(int(request)))
        fill_and_warm_up(run, emit)
        while run.progress.env_steps < steps:
            train_chunk(run, emit)
        seconds = time.perf_counter() - began
        returns = fly_evaluation(run, run.state.agent.actor, held_out=False).returns
        return {
            "return": float(returns.mean()),
            "worst": float(returns.min()),
            "seconds": seconds,
            "steps": run.progress.env_steps,
        }

    common.serve(measure)


def sbx(steps: int) -> None:
    import warnings

    warnings.filterwarnings("ignore")
    import gymnasium
    import numpy as np
    from sbx import SAC

    def measure(request: str) -> dict[str, Any]:
        seed = int(request)
        began = time.perf_counter()
        model = SAC("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [256, 256]}, batch_size=256, seed=seed)
        model.learn(steps)
        seconds = time.perf_counter() - began
        environment = gymnasium.make("Pendulum-v1")
        returns = []
        for episode in range(SBX_EPISODES):
            obs, _ = environment.reset(seed=1_000_000 + 1000 * seed + episode)
            total, ended = 0.0, False
            while not ended:
                action, _ = model.predict(obs, deterministic=True)
                obs, gain, terminated, truncated, _ = environment.step(action)
                total, ended = total + float(gain), terminated or truncated
            returns.append(total)
        return {"return": float(np.mean(returns)), "worst": float(np.min(returns)), "seconds": seconds, "steps": steps}

    common.serve(measure)


def main() -> None:
    import json

    options = common.parser(__doc__, peer=True)
    options.add_argument("--seeds", type=int, default=5, help="trainings of each (default: %(default)s)")
    options.add_argument("--first-seed", type=int, default=0, help="the others count up from it (default: %(default)s)")
    options.add_argument(
        "--steps", type=int, default=STEPS, help="vehicle steps, the first random ones included (default: %(default)s)"
    )
    options.add_argument("--sac", default="{}", metavar="JSON", help="overrides of the engine's settings, for a try")
    arguments = options.parse_args()
    if arguments.worker == "sbx":
        return sbx(arguments.steps)
    if arguments.worker:
        return engine(arguments.steps, json.loads(arguments.sac))

    pass_on = ("--steps", str(arguments.steps), "--sac", arguments.sac)
    workers = [common.Worker(__file__, "engine", options=pass_on)]
    if not common.peer_missing(arguments.peers_python, "SBX"):
        workers.append(common.Worker(__file__, "sbx", arguments.peers_python, pass_on))
    seen: dict[str, list[dict[str, Any]]] = {worker.name: [] for worker in workers}
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        for worker in workers:
            seen[worker.name].append(worker.round(str(seed)))
            last = seen[worker.name][-1]
            print(
                f"seed {seed}, {worker.name}: return {last['return']:.1f}, worst episode {last['worst']:.1f}, {last['seconds']:.0f} s",
                flush=True,
            )
    for worker in workers:
        worker.close()
    table = [("who", "mean return", "over seeds (least to most)", "seconds, median", "claimed")]
    for name, results in seen.items():
        returns = [result["return"] for result in results]
        seconds = statistics.median(result["seconds"] for result in results)
        claimed = f">= {CLAIM:g}" if name == "engine" else ""
        table.append((name, f"{statistics.mean(returns):.1f}", common.spread(returns, 1), f"{seconds:.0f}", claimed))
    common.print_table(table)
    common.write_json(arguments.json, {"steps": arguments.steps, "results": seen})


if __name__ == "__main__":
    main()
