"""Gradient updates per second: the engine against a plain JAX loop, and against SBX.

Claims, on two CPU cores at batch 256:
  (a) 2x128 networks with LayerNorm, 6 observations, 2 actions: at least 1.5 times the updates of a
      plain loop. The plain loop is what the documentation of flax and optax shows: linen modules with
      nn.LayerNorm, optax.adam, one jitted lax.scan, uniform replay in separate arrays, the default
      single CPU device. Same losses, same batch.
  (b) 2x256 networks, Pendulum-v1's shapes (3, 1): at least 1.3 times the updates of SBX.

Command: python benchmarks/updates.py --peers-python PATH [--json FILE]

Reading it: the engine is measured whole, as `mission train` runs it, by chunks that fly 64 vehicles
of a trivial phase one step per 64 updates; with prioritised replay (the default) and uniform. SBX
twice: `model.train(gradient_steps=512)` alone, without any environment, and `model.learn`, one
update a step, whose counterpart is the engine with one vehicle and one update a step ("learn"). All
take turns; a ratio is the median over rounds, its least and most in brackets.
"""

from __future__ import annotations

import time
from typing import Any

import common

BATCH, ROWS = 256, 100_000
A_SHAPE, B_SHAPE = (6, 2), (3, 1)
A_CLAIM, B_CLAIM = 1.5, 1.3


def engine(name: str, chunk_updates: int) -> None:
    import jax
    from engine import updates_per_second

    part, replay = name.split("-")[:2]
    network = {"width": 128, "layer_norm": True} if part == "a" else {"width": 256}
    shape = A_SHAPE if part == "a" else B_SHAPE
    sac: dict[str, Any] = {
        "actor": network,
        "critic": network,
        "batch_size": BATCH,
        "prioritised": replay == "prioritised",
    }
    if name.endswith("-learn"):
        sac |= {"vehicles": 1, "per_step": 1.0, "fill": {"env_steps": 1000}}
    measure = updates_per_second(*shape, ROWS, chunk_updates, **sac)
    common.serve(lambda _: {name: measure()}, {"devices": len(jax.devices())})


def plain(updates: int) -> None:
    import flax.linen as nn
    import jax
    import jax.numpy as jnp
    import optax

    (observations, actions), gamma, tau, rate, entropy = A_SHAPE, 0.99, 0.005, 3e-4, -float(A_SHAPE[1])

    class Mlp(nn.Module):
        outputs: int

        @nn.compact
        def __call__(self, x: Any) -> Any:
            for _ in range(2):
                x = nn.relu(nn.LayerNorm()(nn.Dense(128)(x)))
            return nn.Dense(self.outputs)(x)

    class Twin(nn.Module):
        @nn.compact
        def __call__(self, obs: Any, action: Any) -> Any:
            x = jnp.concatenate([obs, action], -1)
            return Mlp(1, name="q1")(x)[:, 0], Mlp(1, name="q2")(x)[:, 0]

    actor, critic, adam = Mlp(2 * actions), Twin(), optax.adam(rate)

    def sample(params: Any, obs: Any, noise: Any) -> Any:
        mean, raw = jnp.split(actor.apply(params, obs), 2, -1)
        log_std = -5.0 + 3.5 * (jnp.tanh(raw) + 1.0)
        u = mean + jnp.exp(log_std) * noise
        squash = 2.0 * (jnp.log(2.0) - u - jax.nn.softplus(-2.0 * u))
        return jnp.tanh(u), (-0.5 * noise**2 - log_std - 0.5 * jnp.log(2 * jnp.pi) - squash).sum(-1)

    def critic_loss(
        critic_params: Any, target_params: Any, actor_params: Any, log_alpha: Any, batch: Any, noise: Any
    ) -> Any:
        obs, action, reward, next_obs, terminated = batch
        next_action, log_density = sample(actor_params, next_obs, noise)
        value = jnp.minimum(*critic.apply(target_params, next_obs, next_action)) - jnp.exp(log_alpha) * log_density
        target = jax.lax.stop_gradient(reward + gamma * (1 - terminated) * value)
        q1, q2 = critic.apply(critic_params, obs, action)
        return 0.5 * ((q1 - target) ** 2 + (q2 - target) ** 2).mean()

    def actor_loss(actor_params: Any, critic_params: Any, log_alpha: Any, obs: Any, noise: Any) -> Any:
        action, log_density = sample(actor_params, obs, noise)
        return (
            jnp.exp(log_alpha) * log_density - jnp.minimum(*critic.apply(critic_params, obs, action))
        ).mean(), log_density

    def step(carry: Any, key: Any) -> Any:
        (pa, pc, pt, la, sa, sc, sl), replay = carry
        index_key, critic_key, actor_key = jax.random.split(key, 3)
        index = jax.random.randint(index_key, (BATCH,), 0, ROWS)
        batch = jax.tree.map(lambda rows: rows[index], replay)
        loss_q, grads = jax.value_and_grad(critic_loss)(
            pc, pt, pa, la, batch, jax.random.normal(critic_key, (BATCH, actions))
        )
        changes, sc = adam.update(grads, sc)
        pc = optax.apply_updates(pc, changes)
        noise = jax.random.normal(actor_key, (BATCH, actions))
        (loss_pi, log_density), grads = jax.value_and_grad(actor_loss, has_aux=True)(pa, pc, la, batch[0], noise)
        changes, sa = adam.update(grads, sa)
        pa = optax.apply_updates(pa, changes)
        grad = jax.grad(lambda la: -la * jax.lax.stop_gradient(log_density.mean() + entropy))(la)
        change, sl = adam.update(grad, sl)
        la = optax.apply_updates(la, change)
        pt = optax.incremental_update(pc, pt, tau)
        return ((pa, pc, pt, la, sa, sc, sl), replay), (loss_q, loss_pi)

    key = jax.random.key(0)
    obs_0, action_0 = jnp.zeros((1, observations)), jnp.zeros((1, actions))
    pa, pc, la = actor.init(key, obs_0), critic.init(key, obs_0, action_0), jnp.log(jnp.float32(0.1))
    keys = jax.random.split(key, 4)
    replay = (
        jax.random.normal(keys[0], (ROWS, observations)),
        jax.random.uniform(keys[1], (ROWS, actions), minval=-1.0),
        -jnp.abs(jax.random.normal(keys[2], (ROWS,))),
        jax.random.normal(keys[3], (ROWS, observations)),
        jnp.zeros(ROWS),
    )
    state = ((pa, pc, jax.tree.map(jnp.copy, pc), la, adam.init(pa), adam.init(pc), adam.init(la)), replay)
    run = jax.jit(lambda state, key: jax.lax.scan(step, state, jax.random.split(key, updates)), donate_argnums=0)

    def measure(_: str) -> dict[str, float]:
        nonlocal state, key
        key, use = jax.random.split(key)
        began = time.perf_counter()
        state, losses = jax.block_until_ready(run(state, use))
        assert jnp.isfinite(losses[0]).all()
        return {"a-plain": updates / (time.perf_counter() - began)}

    measure("")
    common.serve(measure, {"devices": len(jax.devices())})


def sbx(updates: int) -> None:
    import warnings

    warnings.filterwarnings("ignore")
    import jax
    from sbx import SAC

    model = SAC(
        "MlpPolicy",
        "Pendulum-v1",
        policy_kwargs={"net_arch": [256, 256]},
        buffer_size=ROWS,
        batch_size=BATCH,
        learning_starts=1000,
        seed=0,
    )
    model.learn(1200)
    steps, block = updates // 2, 512

    def measure(_: str) -> dict[str, float]:
        # The step counter falls back to its start, so that learn takes `steps` more steps.
        began = time.perf_counter()
        for _number in range(updates // block):
            model.train(gradient_steps=block, batch_size=BATCH)
        jax.block_until_ready(model.policy.qf_state.params)
        middle = time.perf_counter()
        model.learn(steps, reset_num_timesteps=False)
        jax.block_until_ready(model.policy.qf_state.params)
        end = time.perf_counter()
        return {"b-sbx-train": updates // block * block / (middle - began), "b-sbx-learn": steps / (end - middle)}

    measure("")
    common.serve(measure, {"devices": len(jax.devices())})


def main() -> None:
    options = common.parser(__doc__, peer=True, rounds=7)
    options.add_argument(
        "--updates", type=int, default=2048, help="updates a round, at least 512 (default: %(default)s)"
    )
    options.add_argument("--part", choices=("a", "b"), help="only this claim")
    arguments = options.parse_args()
    updates = max(512, arguments.updates)
    if arguments.worker == "plain":
        return plain(updates)
    if arguments.worker == "sbx":
        return sbx(updates)
    if arguments.worker:
        return engine(arguments.worker, updates // 2 if arguments.worker.endswith("-learn") else updates)

    pass_on = ("--updates", str(updates))
    numbers: dict[str, Any] = {}
    table = [("claim", "engine", "against", "ratio", "claimed")]
    rates = [("updates per second", "median (least to most)")]

    def measure(names: list[str], peers: list[common.Worker], claims: list[tuple[str, str, str]]) -> None:
        workers = [common.Worker(__file__, name, options=pass_on) for name in names] + peers
        seen = common.take_turns(workers, arguments.rounds)
        devices = {worker.name: worker.about["devices"] for worker in workers}
        for worker in workers:
            worker.close()
        rates.extend((name, common.spread(values, 0)) for name, values in seen.items())
        numbers.setdefault("devices", {}).update(devices)
        numbers.setdefault("updates_per_second", {}).update(seen)
        for ours, theirs, claimed in claims:
            quotients = common.ratios(seen[ours], seen[theirs])
            table.append((ours[0], ours[2:], theirs[2:], common.spread(quotients), claimed))
            numbers.setdefault("ratios", {})[f"{ours} / {theirs}"] = quotients

    if arguments.part != "b":
        least = f">= {A_CLAIM}"
        claims = [("a-prioritised", "a-plain", least), ("a-uniform", "a-plain", least)]
        measure(["a-prioritised", "a-uniform"], [common.Worker(__file__, "plain", options=pass_on)], claims)
    if arguments.part != "a" and not common.peer_missing(arguments.peers_python, "SBX"):
        least = f">= {B_CLAIM}"
        claims = [
            ("b-prioritised", "b-sbx-train", least),
            ("b-uniform", "b-sbx-train", least),
            ("b-prioritised", "b-sbx-learn", least),
        ]
        claims += [("b-prioritised-learn", "b-sbx-learn", least)]
        peers = [common.Worker(__file__, "sbx", arguments.peers_python, pass_on)]
        measure(["b-prioritised", "b-uniform", "b-prioritised-learn"], peers, claims)
    common.print_table(rates)
    print()
    common.print_table(table)
    common.write_json(arguments.json, numbers)


if __name__ == "__main__":
    main()
