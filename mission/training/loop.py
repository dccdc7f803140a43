"""Training one phase on the host: chunks, evaluations, the gate, and when to save.

Everything that decides a result depends on counters, with keys folded from counters; so an
interrupted run continues to the same bits.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mission.devices import replicate
from mission.errors import NonFiniteError
from mission.flight.batches import fly_rows, name_key
from mission.flight.fly import PhaseFlight, finite_leaves, state_leaf_names
from mission.phase import Phase
from mission.statistics import judge_gate
from mission.training.bank import TerminalBank, count
from mission.training.programs import Programs, TrainState, compile_programs

log = logging.getLogger("mission")


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
    # A broken network breaks the vehicles that it flies in the next cycle: name what came first.
    broken = ~np.all([np.isfinite(values).all(axis=1) for values in metrics.values()], axis=0)
    until = int(broken.argmax()) + 1 if broken.any() else len(broken)
    _check_states(run, report["finite"][:until].reshape(-1, report["finite"].shape[-1]), progress.env_steps)
    _check_losses(run, metrics)
    _check_networks(run)
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
    emit(
        "chunk",
        env_steps=progress.env_steps,
        scalars=scalars,
        histograms=samples,
        data={"budget": run.phase.entry.budget.env_steps},
    )


def _check_states(run: Run, finite: np.ndarray, env_steps: int) -> None:
    if finite.all():
        return
    assert run.phase.sac is not None
    row, leaf = np.argwhere(~finite)[0]
    names = [*state_leaf_names(run.phase), "observation", "reward"]
    raise NonFiniteError(
        f'phase "{run.phase.name}"',
        expected="finite states, observations and rewards",
        found=f"{names[leaf]} not finite at vehicle step {env_steps + (row + 1) * run.phase.sac.vehicles}",
        remedy="mend the plugin's physics, scales or reward; the last checkpoint is kept",
    )


def _check_flights(run: Run, result: PhaseFlight) -> None:
    """An evaluation flight that broke the vehicle is not one more loss: its return is no number."""
    broken = (result.cause == len(run.phase.causes) - 1) | ~np.isfinite(result.returns)
    if not broken.any():
        return
    leaves = jax.tree_util.tree_flatten_with_path(result.handoff)[0]
    names = [jax.tree_util.keystr(path) for path, leaf in leaves if not finite_leaves({"": leaf}, 0).all()]
    raise NonFiniteError(
        f'phase "{run.phase.name}"',
        expected="finite states and rewards in its evaluation flights",
        found=f"{int(broken.sum())} of {len(broken)} not finite after vehicle step {run.progress.env_steps}"
        + (f"; of what they hand over: {', '.join(names)}" if names else ""),
        remedy="mend the plugin's physics or reward; the last checkpoint is kept",
    )


def _check_losses(run: Run, metrics: dict[str, np.ndarray]) -> None:
    """The earliest update counts; of one update, the loss that is computed first."""
    first = {
        name: int(np.isfinite(values.reshape(-1)).argmin())
        for name, values in metrics.items()
        if not np.isfinite(values).all()
    }
    if not first:
        return
    order = ("Critic/Loss", "Actor/Loss", "Temperature/Loss")
    name = min(first, key=lambda name: (first[name], order.index(name) if name in order else len(order)))
    raise NonFiniteError(
        f'phase "{run.phase.name}"',
        expected="finite losses",
        found=f"{name.split('/')[0]} network: {name} not finite at update {first[name]} after vehicle step {run.progress.env_steps}",
        remedy="lower its learning rate, or clip its gradient (*_grad_max_norm); the last checkpoint is kept",
    )


def _check_networks(run: Run) -> None:
    """After the last update of a chunk, whose losses were of the networks before it."""
    for name, network in (("Actor", run.state.agent.actor), ("Critic", run.state.agent.critic)):
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(network)):
            raise NonFiniteError(
                f'phase "{run.phase.name}"',
                expected="finite networks",
                found=f"{name} network: parameters not finite at the end of the chunk after vehicle step {run.progress.env_steps}",
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
    if held_out and flights > count(rows):
        log.warning(
            'phase "%s": %d gate flights begin at %d held-out rows, so the interval of their success is too narrow; '
            "raise bank.flights of the phase before, or lower gate.flights",
            run.phase.name,
            flights,
            count(rows),
        )
    drawn = jax.random.randint(name_key(key, "rows"), (flights,), 0, count(rows))
    index = np.arange(flights) % count(rows) if held_out else np.asarray(drawn)
    return fly_rows(run.phase, run.programs.flight, actor, rows, index, key)


def evaluate(run: Run, emit: Callable[..., None]) -> None:
    """Fly the mean action; keep the policy if it is the best so far; stop early at the gate."""
    entry, progress = run.phase.entry, run.progress
    progress.evaluations += 1
    result = fly_evaluation(run, run.state.agent.actor, held_out=False)
    _check_flights(run, result)
    verdict = judge_gate(entry.gate, result.success, result.telemetry)
    success, returned = float(result.success.mean()), float(result.returns.mean())
    # once successes suffice, their number is noise of the draw: the return tells more
    passed = entry.gate is not None and verdict["passed"]
    score = [1.0, returned, success] if passed else [0.0, success, returned]
    if not progress.best_score or score > progress.best_score:
        progress.best_score, progress.best_env_steps = score, progress.env_steps
        progress.evaluation = {"success": success, "return": returned, "flights": len(result.success)}
        run.best_actor = jax.tree.map(jnp.copy, run.state.agent.actor)
    assert progress.evaluation is not None
    best = progress.evaluation["success"]
    scalars = {"Evaluation/Success": success, "Evaluation/Return": returned, "Evaluation/Best": best}
    emit("evaluation", env_steps=progress.env_steps, scalars=scalars, data={"failures": verdict["failures"]})
    if entry.gate is not None and entry.gate.stop and passed and fly_gate(run, emit)["passed"]:
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
) -> None:
    """Train until the gate is passed, the budget spent, or a signal seen; each of them is saved.

    Args:
      run: new from `begin`, or restored.
      emit: kind, env_steps, scalars, histograms, data -> observers.
      save: writes a checkpoint of the run.
      interrupted: asked after each chunk.
      checkpoint_every_s: seconds between checkpoints. It decides when to write, never what.
    """
    entry, progress, config = run.phase.entry, run.progress, run.phase.sac
    assert config is not None
    if progress.env_steps == 0:
        fill_and_warm_up(run, emit)
    asked = progress.gate["asked"] if progress.gate is not None else None
    if progress.finished and entry.gate is not None and asked != entry.gate.model_dump():  # changed since
        passed = fly_gate(run, emit)["passed"]
        progress.finished = "gate" if passed and entry.gate.stop else "budget"
        save(run)
    if progress.finished == "budget" and progress.env_steps < entry.budget.env_steps:
        progress.finished = ""  # some of it is left
    every = max(1, round(entry.evaluation.every_env_steps / config.chunk_steps))
    written = time.monotonic()
    while not progress.finished:
        if interrupted():
            save(run)
            return
        train_chunk(run, emit)
        last = progress.env_steps >= entry.budget.env_steps
        if last or progress.chunks % every == 0:
            evaluate(run, emit)
        if last and not progress.finished:
            progress.finished = "budget"
            if entry.gate is not None:
                fly_gate(run, emit)
        if progress.finished or time.monotonic() - written >= checkpoint_every_s:
            save(run)
            written = time.monotonic()
