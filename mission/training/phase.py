"""Bringing one phase of a mission to its end: resume, train, fly the bank, write the policy."""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mission import __version__
from mission.devices import describe
from mission.errors import GateError, Interrupted, MachineError
from mission.flight.batches import bank_flights, compile_flight, loss_causes, name_key
from mission.missionfile.models import MissionFile
from mission.missionfile.resolve import digest, first_change
from mission.observers import Observers, read_metrics
from mission.phase import Phase
from mission.report.summary import TrainingRecord
from mission.storage.policies import load_actor, load_bank, refuse_other
from mission.storage.steps import PhaseFolder, content_hash, read_tree
from mission.training.bank import TerminalBank, build_bank, count
from mission.training.loop import Progress, Run, begin, train_phase

log = logging.getLogger("mission")


@dataclasses.dataclass
class Trainer:
    """One call of `train_mission`."""

    mission: MissionFile
    phases: tuple[Phase, ...]
    root: Path
    seed: int
    observers: Observers
    stop: Callable[[], bool]
    init: dict[str, str | Path]
    checkpoint_every_s: float

    def train_all(self, chosen: list[int], fresh: bool) -> list[TrainingRecord]:
        """Bring the chosen phases (int, in order of flight) to their ends; `fresh` removes what is stored of them."""
        # What they start from is read before anything is removed: a wrong word costs nothing.
        initial = {k: self._initial(self.phases[k], fresh) for k in chosen}
        banks = {k: self._upstream(k) for k in chosen if k - 1 not in chosen}
        for k in chosen if fresh else ():
            PhaseFolder(self.root / self.phases[k].name).clear()
        remedy = "the same command goes on from there" + (", without --fresh" if fresh else "")
        return [self._train(k, initial[k], banks.get(k), remedy) for k in chosen]

    def _train(
        self, index: int, initial: Any | None, bank: tuple[TerminalBank | None, str] | None, remedy: str
    ) -> TrainingRecord:
        """Bring one phase to its end, from wherever it stands."""
        phase, began = self.phases[index], time.monotonic()
        folder = PhaseFolder(self.root / phase.name)
        upstream, upstream_id = bank or self._upstream(index)
        meta = self._meta(index, upstream_id)
        if folder.done:
            stored = folder.policy_meta() or {}
            refuse_other(folder.path, stored, meta)
            return TrainingRecord(
                phase.name, "already trained", stored["env_steps"], stored["success"], stored["gate"], 0.0
            )
        key = name_key(jax.random.key(self.seed), phase.name)
        run = self._run(folder, phase, upstream, key, meta, initial) if phase.trained else None
        self.observers.emit(
            "phase_start",
            phase.name,
            run.progress.env_steps if run else 0,
            data={"budget": phase.entry.budget.env_steps, "folder": str(folder.path)},
        )
        if run is not None:
            emit = lambda kind, env_steps, **more: self.observers.emit(kind, phase.name, env_steps, **more)  # noqa: E731
            train_phase(run, emit, lambda r: self._save(folder, r, meta), self.stop, self.checkpoint_every_s)
        if self.stop():
            at = f" at vehicle step {run.progress.env_steps}; state saved in {folder.training}" if run else ""
            raise Interrupted(
                f'phase "{phase.name}"', expected="to run to its end", found=f"a signal{at}", remedy=remedy
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
        self,
        folder: PhaseFolder,
        phase: Phase,
        upstream: TerminalBank | None,
        key: Any,
        meta: dict[str, Any],
        initial: Any | None,
    ) -> Run:
        """A new run, or the newest readable one."""
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
                folder.skip(step, error)
                continue
            run.state, run.best_actor = tree["state"], tree["best_actor"]
            meta["init"] = stored["init"]
            run.progress = Progress(**stored["progress"])
            _cut_metrics(folder.metrics, run.progress.env_steps)
            log.warning('phase "%s" goes on from vehicle step %d', phase.name, run.progress.env_steps)
            return run

    def _initial(self, phase: Phase, fresh: bool) -> Any | None:
        """The actor that a phase begins with by --init; what has begun needs none."""
        source, own = self.init.get(phase.name), PhaseFolder(self.root / phase.name)
        if source is None or (not fresh and (own.done or own.steps())):
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
        result, held_out = bank_flights(phase, flight, actor, upstream, name_key(key, "bank"))
        losses = loss_causes(phase, result, np.ones(len(result.success), bool))
        gate = run.progress.gate if run is not None and phase.entry.gate is not None else None
        where, last = f'phase "{phase.name}"', index == len(self.phases) - 1
        failed = gate is not None and not gate["passed"]
        bank = None
        try:
            bank = build_bank(result.handoff, result.success, held_out, phase.entry.bank, where, losses)
        except GateError:
            if not last and not failed:
                if run is not None:
                    run.progress.finished = "budget"  # a passed gate is not enough: training goes on within the budget
                    self._save(folder, run, meta)
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
        kept = [json.dumps(line) + "\n" for line in read_metrics(path) if line["env_steps"] <= env_steps]
        temporary = path.with_name(f".tmp-{path.name}")
        temporary.write_text("".join(kept))
        temporary.replace(path)
