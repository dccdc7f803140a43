"""Train a mission phase by phase, and fly it: what the command line and a notebook call."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mission import __version__
from mission.bank import TerminalBank, build_bank, count
from mission.checkpoint import PhaseFolder, content_hash, folder_lock, read_tree
from mission.config import MissionFile
from mission.devices import configure, describe, replicate
from mission.errors import GateError, InputError, Interrupted, MachineError
from mission.flying import (
    bank_flights,
    chunks,
    compile_flight,
    flight_keys,
    fly_chunk,
    loss_causes,
    name_key,
    nominal_starts,
)
from mission.observers import Observers
from mission.phase import Phase
from mission.policies import (
    DEFAULT_CHECKPOINTS,
    SHIPPED,
    find_policies,
    load_actor,
    load_bank,
    refuse_other,
    stored_actor,
)
from mission.report import MissionReport, PhaseRecord, TrainingRecord, phase_record
from mission.resolve import digest, first_change, resolve_mission
from mission.rollout import PhaseFlight
from mission.statistics import rate
from mission.train import Progress, Run, begin, train_phase

log = logging.getLogger("mission")


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Turn SIGINT and SIGTERM into a flag; a second signal acts at once."""
    seen: list[int] = []

    def note(number: int, frame: Any) -> None:
        if seen:
            raise KeyboardInterrupt
        seen.append(number)
        log.warning("stopping at the end of this chunk; again to stop at once, unsaved")

    try:
        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: the caller keeps its own handlers
        before = {}
    try:
        yield lambda: bool(seen)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def train_mission(
    mission: MissionFile,
    *,
    checkpoints: str | Path = DEFAULT_CHECKPOINTS,
    only: Sequence[str] = (),
    init: Mapping[str, str | Path] | None = None,
    fresh: bool = False,
    seed: int | None = None,
    log_dir: str | Path | None = None,
    allow_local_plugins: bool = False,
    checkpoint_every_s: float = 30.0,
) -> tuple[TrainingRecord, ...]:
    """Train every phase in order, each from where the last one really ended; resumes what is there.

    Args:
      mission: from `load_mission`.
      checkpoints: folder that holds `<mission>/<phase>/`.
      only: phases to train; the others are left as they are.
      init: phase -> phase folder whose policy its networks start from.
      fresh: begin the phases to be trained anew.
      seed: instead of the mission file's.
      log_dir: for observers that write (TensorBoard); default `runs`.
      allow_local_plugins: permit `plugin: ./file.py`.
      checkpoint_every_s: seconds between training checkpoints.

    Raises:
      MissionError: wrong input (2), gate missed or non-finite (1), machine refused (3), interrupted (130).
    """
    configure()
    phases = resolve_mission(mission, allow_local_plugins=allow_local_plugins)
    names = [phase.name for phase in phases]
    for name in (*only, *(init or {})):
        if name not in names:
            raise InputError(
                f"--phase or --init {name}",
                expected=f"one of {', '.join(names)}",
                found=name,
                remedy="name a phase of the mission",
            )
    root = Path(checkpoints) / mission.name
    if SHIPPED in root.resolve().parts:
        raise InputError(
            str(root),
            expected="a folder to write to",
            found="the shipped policies, which are read-only",
            remedy="choose another --checkpoints",
        )
    seed = mission.seed if seed is None else seed
    with folder_lock(root), Observers(mission, Path(log_dir or "runs")) as observers, interruptible() as stop:
        trainer = _Trainer(mission, phases, root, seed, observers, stop, dict(init or {}), checkpoint_every_s)
        observers.emit("mission_start", data={"phases": names, "checkpoints": str(root), "seed": seed})
        records = [trainer.train(k, fresh) for k, name in enumerate(names) if not only or name in only]
        observers.emit("mission_end", data={"records": [dataclasses.asdict(r) for r in records]})
    return tuple(records)


@dataclasses.dataclass
class _Trainer:
    """One call of `train_mission`."""

    mission: MissionFile
    phases: tuple[Phase, ...]
    root: Path
    seed: int
    observers: Observers
    stop: Callable[[], bool]
    init: dict[str, str | Path]
    checkpoint_every_s: float

    def train(self, index: int, fresh: bool) -> TrainingRecord:
        """Bring one phase to its end, from wherever it stands."""
        phase, began = self.phases[index], time.monotonic()
        folder = PhaseFolder(self.root / phase.name)
        if fresh:
            folder.clear()
        upstream, upstream_id = self._upstream(index)
        meta = self._meta(index, upstream_id)
        if folder.done:
            stored = folder.policy_meta() or {}
            refuse_other(folder.path, stored, meta)
            return TrainingRecord(
                phase.name, "already trained", stored["env_steps"], stored["success"], stored["gate"], 0.0
            )
        key = name_key(jax.random.key(self.seed), phase.name)
        run = self._run(folder, phase, upstream, key, meta) if phase.trained else None
        self.observers.emit(
            "phase_start",
            phase.name,
            run.progress.env_steps if run else 0,
            data={"budget": phase.entry.budget.env_steps, "folder": str(folder.path)},
        )
        if run is not None:
            emit = lambda kind, env_steps, **more: self.observers.emit(kind, phase.name, env_steps, **more)  # noqa: E731
            finished = train_phase(run, emit, lambda r: self._save(folder, r, meta), self.stop, self.checkpoint_every_s)
            if not finished:
                raise Interrupted(
                    f'phase "{phase.name}"',
                    expected="to run to its end",
                    found=f"a signal at vehicle step {run.progress.env_steps}; state saved in {folder.training}",
                    remedy="the same command goes on from there",
                )
        record = self._finish(folder, phase, index, upstream, key, run, meta, time.monotonic() - began)
        self.observers.emit("phase_end", phase.name, record.env_steps, data=dataclasses.asdict(record))
        return record

    def _upstream(self, index: int) -> tuple[TerminalBank | None, str]:
        """The previous phase's bank and its content hash; (None, "start") where there is none."""
        if index == 0:
            return None, "start"
        before = self.phases[index - 1]
        folder = PhaseFolder(self.root / before.name)
        if not folder.done:
            log.warning(
                'phase "%s" has no bank of "%s" to start from: it trains from its own start',
                self.phases[index].name,
                before.name,
            )
            return None, "start"
        meta = folder.policy_meta() or {}
        refuse_other(folder.path, meta, self._meta(index - 1, meta["upstream"]))
        bank = load_bank(folder, before, meta)
        if bank is None:
            raise GateError(
                str(folder.path),
                expected=f'a bank for "{self.phases[index].name}" to start from',
                found="too few successes when it was the last phase",
                remedy=f"train it again: --fresh --phase {before.name}",
            )
        return bank, meta["content_sha256"]

    def _meta(self, index: int, upstream: str) -> dict[str, Any]:
        configuration = [phase.configuration() for phase in self.phases[: index + 1]]
        return {
            "mission": self.mission.name,
            "phase": self.phases[index].name,
            "seed": self.seed,
            "digest": digest(configuration),
            "configuration": configuration,
            "plugins": [dataclasses.asdict(phase.origin) for phase in self.phases[: index + 1]],
            "upstream": upstream,
            "init": str(self.init.get(self.phases[index].name, "")) or None,
            "engine": __version__,
            "machine": describe(),
        }

    def _run(
        self, folder: PhaseFolder, phase: Phase, upstream: TerminalBank | None, key: Any, meta: dict[str, Any]
    ) -> Run:
        """A new run, or the newest readable one."""
        initial = self._initial(phase)
        run = begin(phase, upstream, key, initial)
        while True:
            newest = folder.newest_training()
            if newest is None:
                folder.metrics.unlink(missing_ok=True)
                return run
            step, stored = newest
            refuse_other(folder.path, stored, meta)
            if stored["machine"] != meta["machine"]:
                log.warning(
                    "%s was made on another machine (%s): the result may differ in its last bits",
                    step,
                    first_change(stored["machine"], meta["machine"]),
                )
            try:
                tree = read_tree(step, {"state": run.state, "best_actor": run.best_actor})
            except Exception as error:
                log.warning("%s skipped: %s", step, error)
                step.rename(step.with_name(f".tmp-unreadable-{step.name}"))
                continue
            run.state, run.best_actor = tree["state"], tree["best_actor"]
            run.progress = Progress(**stored["progress"])
            _cut_metrics(folder.metrics, run.progress.env_steps)
            log.warning('phase "%s" goes on from vehicle step %d', phase.name, run.progress.env_steps)
            return run

    def _initial(self, phase: Phase) -> Any | None:
        source = self.init.get(phase.name)
        if source is None:
            return None
        folder = PhaseFolder(Path(source))
        meta = folder.policy_meta()
        if meta is None:
            raise MachineError(
                str(source),
                expected="a phase's folder with a policy",
                found="none",
                remedy="--init NAME=DIR takes checkpoints/<mission>/<phase>",
            )
        return load_actor(folder, phase)

    def _save(self, folder: PhaseFolder, run: Run, meta: dict[str, Any]) -> None:
        tree = {"state": run.state, "best_actor": run.best_actor}
        folder.save_training(run.progress.env_steps, tree, {**meta, "progress": dataclasses.asdict(run.progress)})
        self.observers.emit("checkpoint", run.phase.name, run.progress.env_steps, data={"folder": str(folder.training)})

    def _finish(
        self,
        folder: PhaseFolder,
        phase: Phase,
        index: int,
        upstream: TerminalBank | None,
        key: Any,
        run: Run | None,
        meta: dict[str, Any],
        seconds: float,
    ) -> TrainingRecord:
        """Fly the bank, write policy, bank and marker; raise if the gate was missed."""
        actor = run.best_actor if run is not None else None
        flight = run.programs.flight if run is not None else compile_flight(phase, agent=False)
        result, held_out = bank_flights(phase, flight, actor, replicate(upstream), name_key(key, "bank"))
        losses = loss_causes(phase, result, np.ones(len(result.success), bool))
        gate = run.progress.gate if run is not None else None
        where, last = f'phase "{phase.name}"', index == len(self.phases) - 1
        failed = gate is not None and not gate["passed"]
        bank = None
        try:
            bank = build_bank(result.handoff, result.success, held_out, phase.entry.bank, where, losses)
        except GateError:
            if not last and not failed:
                raise
        tree = {"actor": actor, "bank": bank}
        success = float(result.success.mean())
        env_steps = run.progress.env_steps if run is not None else 0
        full = {
            **meta, "gate": gate, "env_steps": env_steps, "success": success, "causes": losses, "content_sha256": content_hash(tree),
            "bank": None if bank is None else {"rows": count(bank.rows), "held_out": count(bank.held_out)},
            "best_env_steps": run.progress.best_env_steps if run is not None else 0,
        }  # fmt: skip
        folder.save_policy(tree, full)
        if failed:
            assert gate is not None
            raise GateError(
                where,
                expected="its gate to be passed",
                found="; ".join(gate["failures"]),
                remedy=f"raise budget.env_steps (training goes on from {env_steps}), or look at the losses: {losses}",
            )
        folder.mark_done()
        status = "trained" if run is not None else "flown by its guide"
        return TrainingRecord(phase.name, status, env_steps, success, gate, seconds)


def _cut_metrics(path: Path, env_steps: int) -> None:
    """Drop the lines of `metrics.jsonl` that a resumed run will write again."""
    if path.is_file():
        kept = []
        for line in path.read_text().splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                if json.loads(line)["env_steps"] <= env_steps:
                    kept.append(line + "\n")
        path.write_text("".join(kept))


def fly_mission(
    mission: MissionFile,
    *,
    checkpoints: str | Path | None = None,
    flights: int = 1000,
    seed: int | None = None,
    policy: str = "agent",
    allow_stale: bool = False,
    allow_local_plugins: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> MissionReport:
    """Fly N vehicles from the first phase to the last, each phase's end states going straight on.

    Args:
      mission: from `load_mission`.
      checkpoints: folder of `<mission>/<phase>/`; None: `checkpoints`, then the shipped policies.
      flights: N.
      seed: of the flights, instead of the mission file's; training is not touched.
      policy: "agent" as the mission file says, or "guide" for every phase.
      allow_stale: fly policies made under another configuration, with a warning.
      allow_local_plugins: permit `plugin: ./file.py`.
      progress: called with (flights done, flights).

    Raises:
      MissionError: wrong input or a stale policy (2), no readable policy (3).
    """
    configure()
    if flights < 1:
        raise InputError("--flights", expected="at least 1", found=str(flights), remedy="fly at least one")
    seed = mission.seed if seed is None else seed
    if policy == "guide":
        mission = _all_guides(mission)
    phases = resolve_mission(mission, allow_local_plugins=allow_local_plugins)
    root = find_policies(mission, phases, checkpoints)
    actors = [
        stored_actor(PhaseFolder(root / phase.name), phases, k, allow_stale) if phase.trained else None
        for k, phase in enumerate(phases)
    ]
    compiled = [compile_flight(phase, agent=phase.trained) for phase in phases]
    key = name_key(jax.random.key(seed), "flights of")  # no phase can have this name
    results: list[list[PhaseFlight]] = [[] for _ in phases]
    for numbers in chunks(flights):
        keys = flight_keys(key, numbers)
        handoff, alive = None, np.ones(len(numbers), bool)
        for k, phase in enumerate(phases):
            phase_keys = jax.vmap(name_key, (0, None))(keys, phase.name)
            if handoff is None:
                handoff = nominal_starts(phase, phase_keys)
            result = fly_chunk(compiled[k], actors[k], handoff, phase_keys, alive)
            results[k].append(result._replace(handoff=()))
            handoff, alive = result.handoff, result.success
        if progress is not None:
            progress(int(numbers[-1]) + 1, flights)
    return _report(mission, phases, results, flights, seed, policy)


def _all_guides(mission: MissionFile) -> MissionFile:
    entries = tuple(entry.model_copy(update={"policy": "guide"}) for entry in mission.phases)
    changed = mission.model_copy(update={"phases": entries})
    changed._source = mission._source
    return changed


def _report(
    mission: MissionFile,
    phases: Sequence[Phase],
    results: list[list[PhaseFlight]],
    flights: int,
    seed: int,
    policy: str,
) -> MissionReport:
    entered = np.ones(flights, bool)
    records: list[PhaseRecord] = []
    for phase, parts in zip(phases, results, strict=True):
        result = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
        records.append(phase_record(phase, result, entered))
        entered = entered & result.success
    whole = digest([phase.configuration() for phase in phases])
    return MissionReport(mission.name, whole, flights, seed, policy, rate(int(entered.sum()), flights), tuple(records))
