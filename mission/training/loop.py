"""Train one phase on the host: chunks, evaluations, the gate, and when to save.

All results depend only on counters, and random keys are derived from counters, so a resumed run is bit-identical to an
uninterrupted one.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mission.flight.batches import fly_rows, name_key
from mission.flight.fly import PhaseFlight
from mission.machine.devices import replicate
from mission.machine.trees import count
from mission.missionfile.gate import Gate, GateVerdict, gate_verdict
from mission.missionfile.phases import TrainedPhase
from mission.missionfile.statistics import distribution
from mission.storage.records import EvaluationRecord, RunProgress
from mission.training.bank import TerminalBank
from mission.training.checks import check_causes, check_flights, check_metrics, check_networks, check_states
from mission.training.choice import is_best
from mission.training.programs import Programs, TrainState, compile_programs


@dataclasses.dataclass
class Run:
    """The state of a phase in training: `train_phase` advances it, and a checkpoint stores it."""

    phase: TrainedPhase
    bank: TerminalBank | None
    key: Array
    programs: Programs
    state: TrainState
    best_actor: Any
    progress: RunProgress


def begin(phase: TrainedPhase, bank: TerminalBank | None, key: Array, initial: Any | None = None) -> Run:
    """Return a run before its first step; an `initial` policy replaces the random one."""
    programs = compile_programs(phase)
    key, bank = replicate(key), replicate(bank)
    state = programs.init(name_key(key, "init"))
    if initial is not None:
        agent = programs.learner.with_policy(state.agent, replicate(initial))
        # The programs overwrite the state that they are given: an array that stands in two places would be freed twice.
        state = state._replace(agent=jax.tree.map(jnp.copy, agent))
    best = jax.tree.map(jnp.copy, programs.learner.policy(state.agent))
    return Run(phase=phase, bank=bank, key=key, programs=programs, state=state, best_actor=best, progress=RunProgress())


def fill_and_warm_up(run: Run, emit: Callable[..., None], interrupted: Callable[[], bool] = lambda: False) -> bool:
    """Imitate the guide, collect the first transitions and warm the learner up; nothing is saved in between."""
    if not imitate(run, emit, interrupted):
        return False
    config, learner = run.phase.learner, run.programs.learner
    for first in range(0, config.fill_cycles, config.chunk_cycles):
        run_chunk(run, "fill", min(config.chunk_cycles, config.fill_cycles - first), True)
        emit("fill", env_steps=run.progress.env_steps, data={"total": config.fill_cycles * config.cycle_steps})
    if learner.warm_up_steps or learner.prepares:
        run.state, losses = run.programs.warm_up(run.state, name_key(run.key, "warm_up"))
    if learner.warm_up_steps:
        series = {learner.warm_up_metric: np.asarray(losses)}
        check_metrics(run.phase, learner, series, run.progress.env_steps)
        emit("warm_up", env_steps=run.progress.env_steps, series=series)
    return True


def imitate(run: Run, emit: Callable[..., None], interrupted: Callable[[], bool] = lambda: False) -> bool:
    """Let the learner imitate the phase's guide, if its settings say so; one event per round.

    Returns False if it was interrupted, which discards its rounds.
    """
    settings, programs = run.phase.learner.imitation, run.programs
    if settings is None or programs.imitate is None or programs.no_labels is None:
        return True
    agent, work = run.state.agent, programs.no_labels()
    for number in range(settings.rounds):
        if interrupted():
            return False
        share = np.float32(settings.guide_shares[number] if number < len(settings.guide_shares) else 0.0)
        arguments = (run.bank, name_key(run.key, "imitate"), share, np.int32(number))
        agent, work, losses, flown = programs.imitate(agent, work, *arguments)
        check_states(run.phase, np.asarray(flown["finite"]), 0)
        series = {"Imitation/Loss": np.asarray(losses)}
        check_metrics(run.phase, programs.learner, series, 0)
        scalars = {
            "Imitation/Loss": float(series["Imitation/Loss"][-100:].mean()),
            "Imitation/GuideShare": float(share),
        }
        if flown["ended"] > 0:
            scalars["Imitation/Success"] = float(flown["success"] / flown["ended"])
        emit("imitation", env_steps=0, scalars=scalars, data={"round": number + 1, "rounds": settings.rounds})
    run.state = run.state._replace(agent=agent)
    return True


def run_chunk(run: Run, name: str, cycles: int, filling: bool) -> tuple[Any, Any, Any]:
    """Run cycles of the compiled chunk and check their values.

    Returns:
      statistics: leaves [cycles, iterations, ...].
      metrics: by name [cycles, updates]; empty while filling.
      samples: arrays for histograms.
    """
    learner, progress, config = run.programs.learner, run.progress, run.phase.learner
    arguments = (run.bank, name_key(run.key, name), np.int32(cycles), np.bool_(filling))
    run.state, results = run.programs.chunk(run.state, *arguments)
    stats, metrics, samples = jax.tree.map(np.asarray, results)
    stats = jax.tree.map(lambda rows: rows[:cycles], stats)
    metrics = {} if filling else {name: values[:cycles] for name, values in metrics.items()}
    # A non-finite network spoils the vehicles that it flies in the next cycle, so report whichever came first.
    finite = np.all([np.isfinite(values).all(axis=1) for values in metrics.values()] or [np.ones(cycles, bool)], axis=0)
    until = cycles if finite.all() else int(finite.argmin()) + 1
    check_states(run.phase, stats["finite"][:until].reshape(-1, stats["finite"].shape[-1]), progress.env_steps)
    check_metrics(run.phase, learner, metrics, progress.env_steps)
    check_networks(run.phase, learner, run.state.agent, progress.env_steps)
    check_causes(run.phase, stats["cause"].reshape(-1, 2), progress.env_steps)
    progress.env_steps += cycles * config.cycle_steps
    return stats, metrics, samples


def train_chunk(run: Run, emit: Callable[..., None]) -> None:
    """Run one compiled chunk, check that its values are finite, and emit its event."""
    config, learner, progress = run.phase.learner, run.programs.learner, run.progress
    began = time.perf_counter()
    stats, metrics, samples = run_chunk(run, "chunk", config.chunk_cycles, False)
    seconds = time.perf_counter() - began
    progress.chunks += 1
    scalars = {name: float(values.mean()) for name, values in metrics.items()}
    scalars |= {f"Reward/{name}": float(values.mean()) for name, values in stats["terms"].items()}
    scalars |= {
        "Episode/Count": float(stats["ended"].sum()),
        "Speed/UpdatesPerSecond": config.chunk_cycles * config.update_cycle[1] / seconds,
        "Speed/EnvStepsPerSecond": config.chunk_steps / seconds,
    }
    episodes = int(stats["ended"].sum())
    if episodes:
        scalars |= {
            "Episode/Return": float(stats["return"].sum()) / episodes,
            "Episode/Success": float(stats["success"].sum()) / episodes,
            "Episode/Length": float(stats["length"].sum()) / episodes,
        }
    shown = {label: scalars[name] for label, name in learner.shown.items() if name in scalars}
    data = {"budget": run.phase.entry.budget.env_steps, "shown": shown}
    emit("chunk", env_steps=progress.env_steps, scalars=scalars, histograms=samples, data=data)


def fly_evaluation(run: Run, actor: Any) -> PhaseFlight:
    """Fly a policy from starts that are also used for training. Every evaluation of the run flies the same starts with
    the same keys, so that differences between starts do not hide differences between policies.
    """
    flights, key = run.phase.entry.evaluation.flights, name_key(run.key, "evaluation")
    if run.bank is None:
        return fly_rows(run.phase, run.programs.flight, actor, None, np.arange(flights), key)
    drawn = jax.random.randint(name_key(key, "rows"), (flights,), 0, count(run.bank.rows))
    return fly_rows(run.phase, run.programs.flight, actor, run.bank.rows, np.asarray(drawn), key)


def fly_held_out(run: Run, gate: Gate) -> PhaseFlight:
    """Fly the best policy so far from held-out rows, each of them once before any is repeated; or from new starts.

    The keys belong to this look at the gate, as do the starts if there are more of them than flights.
    """
    key, rows = jax.random.fold_in(name_key(run.key, "gate"), run.progress.looks), None
    flights = gate.number(None if run.bank is None else count(run.bank.held_out))
    index = np.arange(flights)
    if run.bank is not None:
        rows, number = run.bank.held_out, count(run.bank.held_out)
        index = np.asarray(jax.random.permutation(name_key(key, "rows"), number))[index % number]
    return fly_rows(run.phase, run.programs.flight, run.best_actor, rows, index, key)


def evaluate(run: Run, emit: Callable[..., None]) -> None:
    """Fly the mean action; keep the policy if it is the best so far; stop early at the gate."""
    gate, progress = run.phase.entry.gate, run.progress
    progress.evaluations += 1
    policy = run.programs.learner.policy(run.state.agent)
    result = fly_evaluation(run, policy)
    check_flights(run.phase, result, progress.env_steps)
    verdict = gate_verdict(gate, result.success, result.telemetry, result.returns)
    success, returned = float(result.success.mean()), float(result.returns.mean())
    passed = gate is not None and verdict.passed
    found = EvaluationRecord(success=success, returns=returned, flights=len(result.success), passed=passed)
    if is_best(progress, found):
        run.best_actor = jax.tree.map(jnp.copy, policy)
    scalars = {
        "Evaluation/Success": success,
        "Evaluation/Return": returned,
        "Evaluation/Best": (progress.evaluation or found).success,
    }
    channels = {name: distribution(values[result.success]).mean for name, values in result.telemetry.items()}
    data = {"failures": list(verdict.failures), "channels": channels}
    emit("evaluation", env_steps=progress.env_steps, scalars=scalars, data=data)
    if gate is not None and gate.stop and _worth_a_look(run, gate, result) and fly_gate(run, gate, emit).passed:
        progress.finished = "gate"


def _worth_a_look(run: Run, gate: Gate, evaluated: PhaseFlight) -> bool:
    """Return whether an evaluation meets the bounds of the gate's next look; each look makes the ones after it stricter."""
    look = run.progress.looks + 1
    rows = None if run.bank is None else count(run.bank.held_out)
    starts = gate.number(rows) if rows is None else min(gate.number(rows), rows)
    if gate.out_of_reach(starts, look):
        return False
    return gate_verdict(gate, evaluated.success, evaluated.telemetry, evaluated.returns, looks=look).passed


def fly_gate(run: Run, gate: Gate, emit: Callable[..., None]) -> GateVerdict:
    """Test the best policy so far against the gate, on held-out starts."""
    progress = run.progress
    progress.looks += 1
    result = fly_held_out(run, gate)
    rows = count(run.bank.held_out) if run.bank is not None else len(result.success)
    starts = rows if rows < len(result.success) else None
    progress.gate = gate_verdict(gate, result.success, result.telemetry, result.returns, starts, progress.looks)
    emit("gate", env_steps=progress.env_steps, data=progress.gate.model_dump(mode="json"))
    return progress.gate


def train_phase(
    run: Run,
    emit: Callable[..., None],
    save: Callable[[Run], None],
    interrupted: Callable[[], bool],
    checkpoint_every_s: float,
) -> None:
    """Train until the gate is passed, the budget is spent, or a signal arrives; each of them is saved.

    Args:
      run: new from `begin`, or restored.
      emit: kind, env_steps, scalars, histograms, series, data -> observers.
      save: writes a checkpoint of the run.
      interrupted: called after each chunk and each round of the imitation.
      checkpoint_every_s: seconds between checkpoints. It decides when a checkpoint is written, never its content.
    """
    entry, progress, config = run.phase.entry, run.progress, run.phase.learner
    if not progress.finished:
        run.programs.prepare(run.state, run.bank, run.key)
    if progress.env_steps == 0:
        if not fill_and_warm_up(run, emit, interrupted):
            return  # nothing to save: the imitation begins again
        if config.imitation is not None:
            evaluate(run, emit)  # of the imitator
    tested = progress.gate.settings if progress.gate is not None else None
    if progress.finished and entry.gate is not None and tested != entry.gate:  # changed since
        passed = fly_gate(run, entry.gate, emit).passed
        progress.finished = "gate" if passed and entry.gate.stop else "budget"
        save(run)
    if progress.finished == "budget" and progress.env_steps < entry.budget.env_steps:
        progress.finished = ""  # the budget was raised
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
                fly_gate(run, entry.gate, emit)
        if progress.finished or time.monotonic() - written >= checkpoint_every_s:
            save(run)
            written = time.monotonic()
