"""Training one phase: the compiled programs, and the host loop around them.

Shapes: E vehicles, U updates a cycle, B batch, O observation, A action, L state leaves.
Everything that decides a result depends on counters, with keys folded from counters; so an
interrupted run continues to the same bits.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

from mission import replay as store
from mission.bank import TerminalBank, count
from mission.devices import AXIS, REPLICATED, mesh, replicate
from mission.errors import NonFiniteError
from mission.flying import Flight, compile_flight, fly_rows, name_key
from mission.networks import Networks, make_networks, sample_action
from mission.phase import Phase
from mission.replay import Replay
from mission.rollout import EnvBatch, PhaseFlight, Transition, guide_controller, start_envs, state_leaf_names, step_envs
from mission.sac import Agent, Batch, all_mean, create_agent, critic_loss, optimisers, td_target, update_agent, update_targets
from mission.sac_config import SacConfig
from mission.statistics import judge_gate

_TD_BLOCK = 4096


class TrainState(NamedTuple):
    """Everything on the device that a training run carries."""

    agent: Agent
    replay: Replay
    envs: EnvBatch
    iteration: Array  # int32 [], steps of every vehicle so far


@dataclasses.dataclass(frozen=True, eq=False)
class Programs:
    """The compiled functions of one phase; each is traced once."""

    init: Callable[[Array, Any], TrainState]
    fill: Callable[[TrainState, Any, Array], tuple[TrainState, Any]]
    warm_up: Callable[[TrainState, Array], tuple[TrainState, Array]]
    chunk: Callable[[TrainState, Any, Array], tuple[TrainState, Any]]
    flight: Flight


def _example(phase: Phase) -> Transition:
    obs, action = jnp.zeros(len(phase.environment.observation_names)), jnp.zeros(len(phase.environment.action_names))
    return Transition(obs, action, jnp.zeros(()), obs, jnp.zeros(()), jnp.zeros(()))


def sample_batch(config: SacConfig, example: Transition, replay: Replay, key: Array, size: int, updates: Array) -> tuple[Batch, Array]:
    """This device's share of a batch of n-step transitions, and the indices [size] of the whole batch."""
    beta = 1.0 - (1.0 - config.beta) * config.beta_decay ** updates.astype(jnp.float32)
    index, weight = store.sample(replay, key, size, beta)
    mine, weight = share(index), share(weight)
    window = store.gather_n_step(replay, mine, example, config.n_step, config.gamma, config.vehicles)
    discount = window.discount * (1.0 - window.last.terminated)
    return Batch(window.first.obs, window.first.action, window.reward, window.last.next_obs, discount, weight), index


def share(batch: Array, axis: int = 0) -> Array:
    """This device's part of a batch; the whole of it where it does not divide evenly."""
    devices = lax.axis_size(AXIS)
    if batch.shape[axis] % devices:
        return batch
    size = batch.shape[axis] // devices
    return lax.dynamic_slice_in_dim(batch, lax.axis_index(AXIS) * size, size, axis)


# Weights of shape [B] against errors of shape [B, 1] would broadcast to [B, B] in silence. The
# learner's code refuses that while it is traced; what plugins do in theirs is their own affair.
strict = jax.numpy_rank_promotion("raise")


def compile_programs(phase: Phase) -> Programs:
    """All programs of a phase: one `shard_map` each, everything replicated but the batches."""
    config, env = phase.sac, phase.environment
    assert config is not None
    actions, example = len(env.action_names), _example(phase)
    networks = make_networks(config, actions)
    capacity = config.buffer_size // config.vehicles * config.vehicles
    guide = guide_controller(phase)

    def collect(state: TrainState, bank: Any, key: Array, act: Callable[[Any, Array, Array], Array]) -> tuple[TrainState, Any]:
        act_key, noise_key, step_key = jax.random.split(jax.random.fold_in(key, state.iteration), 3)
        obs = jax.vmap(env.observe)(state.envs.state)
        action = act(state.envs.state, obs, act_key)
        if config.exploration_noise > 0:
            action = action + config.exploration_noise * jax.random.normal(noise_key, action.shape)
        if config.actor.head == "squashed":
            action = jnp.clip(action, -1.0, 1.0)
        envs, transition, end, terms, finite = step_envs(phase, bank, state.envs, obs, action, step_key)
        report = {
            "ended": end.ended.sum(),
            "success": end.success.sum(),
            "return": jnp.where(end.ended, end.returns, 0.0).sum(),
            "length": jnp.where(end.ended, end.steps, 0).sum(),
            "terms": {name: jnp.asarray(term, jnp.float32).mean() for name, term in terms.items()},
            "finite": finite,
        }
        after = TrainState(state.agent, store.append(state.replay, transition), envs, state.iteration + 1)
        return after, (report, action, transition.reward)

    def policy(agent: Agent) -> Callable[[Any, Array, Array], Array]:
        def act(states: Any, obs: Array, key: Array) -> Array:
            normal = networks.actor.apply(agent.actor, obs)
            return sample_action(config.actor.head, normal, jax.random.normal(key, (obs.shape[0], actions)))[0]

        return act

    def first_action(states: Any, obs: Array, key: Array) -> Array:
        if config.fill.policy == "guide":
            return guide(None, states, obs)
        return jax.random.uniform(key, (obs.shape[0], actions), minval=-1.0, maxval=1.0)

    def init(key: Array, bank: Any) -> TrainState:
        agent_key, env_key = jax.random.split(key)
        agent = create_agent(config, networks, agent_key, len(env.observation_names))
        replay = store.create(capacity, store.row_width(example), config.prioritised)
        return TrainState(agent, replay, start_envs(phase, bank, env_key, config.vehicles), jnp.int32(0))

    def fill(state: TrainState, bank: Any, key: Array) -> tuple[TrainState, Any]:
        state, (report, _, _) = lax.scan(lambda s, _: collect(s, bank, key, first_action), state, None, length=config.fill_iterations)
        return state, report["finite"]

    @strict
    def warm_up(state: TrainState, key: Array) -> tuple[TrainState, Array]:
        return _warm_up(config, networks, example, state, key)

    @strict
    def update(state: TrainState, key: Array) -> tuple[TrainState, Any]:
        sample_key, noise_key = jax.random.split(jax.random.fold_in(key, state.agent.updates))
        batch, index = sample_batch(config, example, state.replay, sample_key, config.batch_size, state.agent.updates)
        noise = share(jax.random.normal(noise_key, (2, config.batch_size, actions)), axis=1)
        agent, td, metrics = update_agent(config, networks, state.agent, batch, noise, AXIS)
        td = td[: config.batch_size]
        replay = store.update_priorities(state.replay, index, td, config.alpha, config.priority_epsilon)
        return state._replace(agent=agent, replay=replay), (metrics, td)

    def chunk(state: TrainState, bank: Any, key: Array) -> tuple[TrainState, Any]:
        collect_key, update_key, look_key = jax.random.split(key, 3)
        iterations, updates = config.update_cycle

        def cycle(state: TrainState, _: None) -> tuple[TrainState, Any]:
            state, (report, action, reward) = lax.scan(lambda s, _: collect(s, bank, collect_key, policy(s.agent)), state, None, length=iterations)
            state, (metrics, td) = lax.scan(lambda s, _: update(s, update_key), state, None, length=updates)
            return state, (report, metrics, action[-1], reward[-1], td[-1])

        state, (report, metrics, action, reward, td) = lax.scan(cycle, state, None, length=config.chunk_cycles)
        samples = {"Action": action[-1].ravel(), "Reward": reward[-1], "Critic/TDError": td[-1]}
        if state.replay.tree:
            looked = jax.random.randint(jax.random.fold_in(look_key, state.iteration), (512,), 0, state.replay.size)
            samples["Replay/Priority"] = state.replay.tree[-1].reshape(-1)[looked]
        return state, (report, metrics, samples)

    def replicated(function: Callable[..., Any], arguments: int, donate: bool) -> Callable[..., Any]:
        mapped = jax.shard_map(function, mesh=mesh(), in_specs=(REPLICATED,) * arguments, out_specs=REPLICATED, check_vma=False)
        return jax.jit(mapped, donate_argnums=0 if donate else ())

    return Programs(
        replicated(init, 2, False),
        replicated(fill, 3, True),
        replicated(warm_up, 2, True),
        replicated(chunk, 3, True),
        compile_flight(phase, agent=True),
    )


def _warm_up(config: SacConfig, networks: Networks, example: Transition, state: TrainState, key: Array) -> tuple[TrainState, Array]:
    """Critic-only updates with their own rate and batch, then real priorities for every row."""
    settings, actions = config.warm_up, networks.actor.actions
    size = settings.batch_size or config.batch_size
    optimiser = optimisers(config.model_copy(update={"critic_learning_rate": settings.learning_rate or config.critic_learning_rate}))[1]

    def step(carry: tuple[Agent, Any], number: Array) -> tuple[tuple[Agent, Any], Array]:
        agent, optimiser_state = carry
        sample_key, noise_key = jax.random.split(jax.random.fold_in(key, number))
        batch, _ = sample_batch(config, example, state.replay, sample_key, size, jnp.int32(0))
        target = td_target(config, networks, agent, batch, share(jax.random.normal(noise_key, (size, actions))))
        loss, grads = jax.value_and_grad(lambda p: critic_loss(networks, p, batch, target)[0])(agent.critic)
        grads, loss = all_mean((grads, loss), AXIS)
        changes, optimiser_state = optimiser.update(grads, optimiser_state)
        agent = update_targets(config, agent._replace(critic=optax.apply_updates(agent.critic, changes)))
        return (agent, optimiser_state), loss

    (agent, _), losses = lax.scan(step, (state.agent, optimiser.init(state.agent.critic)), jnp.arange(settings.steps))
    td = _all_td_errors(config, networks, example, agent, state.replay, jax.random.fold_in(key, settings.steps))
    replay = store.rebuild_priorities(state.replay, td, config.alpha, config.priority_epsilon)
    return state._replace(agent=agent, replay=replay), losses


def _all_td_errors(config: SacConfig, networks: Networks, example: Transition, agent: Agent, replay: Replay, key: Array) -> Array:
    """|TD error| [C] of every row, in blocks."""
    capacity = replay.rows.shape[0]

    def block(number: Array) -> Array:
        index = jnp.minimum(number * _TD_BLOCK + jnp.arange(_TD_BLOCK), capacity - 1)
        window = store.gather_n_step(replay, index, example, config.n_step, config.gamma, config.vehicles)
        batch = Batch(
            window.first.obs,
            window.first.action,
            window.reward,
            window.last.next_obs,
            window.discount * (1.0 - window.last.terminated),
            jnp.ones(_TD_BLOCK),
        )
        noise = jax.random.normal(jax.random.fold_in(key, number), (_TD_BLOCK, networks.actor.actions))
        return critic_loss(networks, agent.critic, batch, td_target(config, networks, agent, batch, noise))[1][0]

    return lax.map(block, jnp.arange(-(-capacity // _TD_BLOCK))).reshape(-1)[:capacity]


@dataclasses.dataclass
class Progress:
    """The host's side of a training run; plain JSON in a checkpoint."""

    env_steps: int = 0
    chunks: int = 0
    evaluations: int = 0
    best_score: list[float] = dataclasses.field(default_factory=list)
    best_env_steps: int = 0
    finished: str = ""  # "", "gate" or "budget"
    gate: dict[str, Any] | None = None
    evaluation: dict[str, Any] | None = None


@dataclasses.dataclass
class Run:
    """A phase in training: what `train_phase` works on and a checkpoint stores."""

    phase: Phase
    bank: TerminalBank | None
    key: Array
    programs: Programs
    state: TrainState
    best_actor: Any
    progress: Progress


def begin(phase: Phase, bank: TerminalBank | None, key: Array, initial: Any | None = None) -> Run:
    """A run before its first step; `initial` actor parameters replace the random ones."""
    programs = compile_programs(phase)
    key, bank = replicate(key), replicate(bank)
    state = programs.init(name_key(key, "init"), bank)
    if initial is not None:
        state = state._replace(agent=state.agent._replace(actor=replicate(initial)))
    return Run(phase, bank, key, programs, state, jax.tree.map(jnp.copy, state.agent.actor), Progress())


def fill_and_warm_up(run: Run, emit: Callable[..., None]) -> None:
    """First transitions and critic-only updates; both are short and not checkpointed in between."""
    config = run.phase.sac
    assert config is not None
    run.state, finite = run.programs.fill(run.state, run.bank, name_key(run.key, "fill"))
    _check_states(run, np.asarray(finite), 0)
    run.progress.env_steps = config.fill_iterations * config.vehicles
    if config.warm_up.steps:
        run.state, losses = run.programs.warm_up(run.state, name_key(run.key, "warm_up"))
        losses = np.asarray(losses)
        _check_losses(run, {"CriticWarmUp/Loss": losses})
        emit("warm_up", env_steps=run.progress.env_steps, data={"CriticWarmUp/Loss": losses})


def train_chunk(run: Run, emit: Callable[..., None]) -> None:
    """One compiled chunk, its finiteness check and its event."""
    config, progress = run.phase.sac, run.progress
    assert config is not None
    began = time.perf_counter()
    run.state, (report, metrics, samples) = run.programs.chunk(run.state, run.bank, name_key(run.key, "chunk"))
    report, metrics, samples = jax.tree.map(np.asarray, (report, metrics, samples))
    seconds = time.perf_counter() - began
    _check_states(run, report["finite"].reshape(-1, report["finite"].shape[-1]), progress.env_steps)
    _check_losses(run, metrics)
    progress.env_steps += config.chunk_steps
    progress.chunks += 1
    episodes = int(report["ended"].sum())
    updates = config.chunk_cycles * config.update_cycle[1]
    scalars = {name: float(values.mean()) for name, values in metrics.items()}
    scalars |= {f"Reward/{name}": float(values.mean()) for name, values in report["terms"].items()}
    scalars |= {
        "Episode/Count": float(episodes),
        "Speed/UpdatesPerSecond": updates / seconds,
        "Speed/EnvStepsPerSecond": config.chunk_steps / seconds,
    }
    if episodes:
        scalars |= {
            "Episode/Return": float(report["return"].sum()) / episodes,
            "Episode/Success": float(report["success"].sum()) / episodes,
            "Episode/Length": float(report["length"].sum()) / episodes,
        }
    emit("chunk", env_steps=progress.env_steps, scalars=scalars, histograms=samples, data={"budget": run.phase.entry.budget.env_steps})


def _check_states(run: Run, finite: np.ndarray, env_steps: int) -> None:
    if finite.all():
        return
    assert run.phase.sac is not None
    row, leaf = np.argwhere(~finite)[0]
    names = [*state_leaf_names(run.phase), "observation", "reward"] if finite.shape[1] > 2 else []
    raise NonFiniteError(
        f'phase "{run.phase.name}"',
        expected="finite states, observations and rewards",
        found=f"{names[leaf] if leaf < len(names) else 'a state leaf'} not finite at vehicle step {env_steps + (row + 1) * run.phase.sac.vehicles}",
        remedy="mend the plugin's physics, scales or reward; the last checkpoint is kept",
    )


def _check_losses(run: Run, metrics: dict[str, np.ndarray]) -> None:
    for name, values in metrics.items():
        if not np.isfinite(values).all():
            update = int(np.argwhere(~np.isfinite(values.reshape(-1)))[0, 0])
            raise NonFiniteError(
                f'phase "{run.phase.name}"',
                expected="finite losses",
                found=f"{name.split('/')[0]} network: {name} not finite at update {update} after vehicle step {run.progress.env_steps}",
                remedy="lower its learning rate, or clip its gradient (*_grad_max_norm); the last checkpoint is kept",
            )


def fly_evaluation(run: Run, actor: Any, held_out: bool) -> PhaseFlight:
    """Flights of a policy on stored starts: rows that were trained on, or held-out rows for the gate."""
    entry, number = run.phase.entry, run.progress.evaluations
    key = jax.random.fold_in(name_key(run.key, "gate" if held_out else "evaluation"), number)
    flights = entry.gate.flights if held_out and entry.gate is not None else entry.evaluation.flights
    if run.bank is None:
        return fly_rows(run.phase, run.programs.flight, actor, None, np.arange(flights), key)
    rows = run.bank.held_out if held_out else run.bank.rows
    if held_out:
        index = np.arange(flights) % count(rows)
    else:
        index = np.asarray(jax.random.randint(name_key(key, "rows"), (flights,), 0, count(rows)))
    return fly_rows(run.phase, run.programs.flight, actor, rows, index, key)


def evaluate(run: Run, emit: Callable[..., None]) -> None:
    """Fly the mean action; keep the policy if it is the best so far; stop early at the gate."""
    entry, progress = run.phase.entry, run.progress
    progress.evaluations += 1
    result = fly_evaluation(run, run.state.agent.actor, held_out=False)
    verdict = judge_gate(entry.gate, result.success, result.telemetry)
    score = [float(verdict["passed"]) if entry.gate is not None else 0.0, float(result.success.mean()), float(result.returns.mean())]
    if not progress.best_score or score > progress.best_score:
        progress.best_score, progress.best_env_steps = score, progress.env_steps
        progress.evaluation = {"success": score[1], "return": score[2], "flights": len(result.success)}
        run.best_actor = jax.tree.map(jnp.copy, run.state.agent.actor)
    scalars = {"Evaluation/Success": score[1], "Evaluation/Return": score[2], "Evaluation/Best": progress.best_score[1]}
    emit("evaluation", env_steps=progress.env_steps, scalars=scalars, data={"failures": verdict["failures"]})
    if entry.gate is not None and verdict["passed"] and fly_gate(run, emit)["passed"]:
        progress.finished = "gate"


def fly_gate(run: Run, emit: Callable[..., None]) -> dict[str, Any]:
    """The gate: the best policy so far on held-out starts."""
    progress = run.progress
    result = fly_evaluation(run, run.best_actor, held_out=True)
    progress.gate = judge_gate(run.phase.entry.gate, result.success, result.telemetry)
    emit("gate", env_steps=progress.env_steps, data=progress.gate)
    return progress.gate


def train_phase(
    run: Run,
    emit: Callable[..., None],
    save: Callable[[Run], None],
    interrupted: Callable[[], bool],
    checkpoint_every_s: float,
) -> bool:
    """Train until the gate is passed or the budget is spent; the caller's `save` writes a checkpoint.

    Args:
      run: new from `begin`, or restored.
      emit: kind, env_steps, scalars, histograms, data -> observers.
      save: writes a checkpoint of the run.
      interrupted: asked after each chunk.
      checkpoint_every_s: seconds between checkpoints. It decides when to write, never what.

    Returns:
      True when training has finished, False when it was interrupted; both are saved.
    """
    entry, progress, config = run.phase.entry, run.progress, run.phase.sac
    assert config is not None
    if progress.env_steps == 0:
        fill_and_warm_up(run, emit)
    if progress.finished == "budget" and progress.env_steps < entry.budget.env_steps:
        progress.finished = ""  # the budget was raised
    every = max(1, round(entry.evaluation.every_env_steps / config.chunk_steps))
    written = time.monotonic()
    while not progress.finished:
        if interrupted():
            save(run)
            return False
        train_chunk(run, emit)
        last = progress.env_steps >= entry.budget.env_steps
        if last or progress.chunks % every == 0:
            evaluate(run, emit)
        if last and not progress.finished:
            progress.finished = "budget"
            fly_gate(run, emit)
        if progress.finished or time.monotonic() - written >= checkpoint_every_s:
            save(run)
            written = time.monotonic()
    return True
