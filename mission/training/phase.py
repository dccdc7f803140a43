"""Complete one phase of a mission: resume, train, fly the bank, write the policy."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from mission import __version__
from mission.errors import Interrupted, MachineError, StaleError
from mission.flight.batches import name_key
from mission.machine.devices import describe
from mission.missionfile.contract import warn_of_settings
from mission.missionfile.held_out import warn_of_repeated_starts
from mission.missionfile.models import MissionFile
from mission.missionfile.phases import Phase, PolicyPhase, TrainedPhase, policy_folders
from mission.missionfile.pilots import pilot_in_words
from mission.missionfile.resolve import digest, first_change
from mission.observers import Observers
from mission.observers.metrics import cut_metrics
from mission.storage.borrowed import borrowed_policy
from mission.storage.policies import finished_record, load_actor, refuse_other, warn_of_another_pilot
from mission.storage.protection import check_removable, refuse_links
from mission.storage.records import PolicyRecord, StepRecord, StoredRecord, plugin_records
from mission.storage.steps import PhaseFolder, read_tree
from mission.training.bank import TerminalBank, load_bank
from mission.training.checks import check_gradients
from mission.training.ending import Ending, TrainingSummary
from mission.training.loop import Run, begin, train_phase
from mission.training.memory import check_memory

log = logging.getLogger("mission")


@dataclasses.dataclass
class Trainer:
    """One call of `train_mission`, or one pass of a sweep over a chain.

    In a sweep, the phases train with the settings in `trained`, and records are those of `phases`. Each phase starts
    from the banks in the folder `banks`. `number` distinguishes the random keys of the passes, and `label` the names
    of their events.
    """

    mission: MissionFile
    phases: tuple[Phase, ...]
    root: Path
    seed: int
    observers: Observers
    stop: Callable[[], bool]
    init: dict[str, Path]
    checkpoint_every_s: float
    trained: tuple[Phase, ...] = ()  # empty: as they are
    banks: Path | None = None  # None: `root`
    number: int = 0
    label: str = ""

    def __post_init__(self) -> None:
        """Use the phases unchanged for training, unless a sweep sets others."""
        self.trained = self.trained or self.phases

    def train_all(self, chosen: list[int], fresh: bool) -> list[TrainingSummary]:
        """Complete the chosen phases (int, in order of flight); `fresh` removes their stored results first."""
        for k in chosen:
            done = self._folder(k).done and self._folder(k).holds("actor")
            if isinstance(phase := self.trained[k], TrainedPhase) and (fresh or not done):
                check_memory(self.mission, k, phase)
                check_gradients(phase, self.mission.source.where(("phases", k, "plugin")))
        # Everything is read and checked before anything is removed or renamed, so that a mistake destroys nothing.
        initial = {k: self._initial(k, fresh) for k in chosen}
        banks = {k: self._upstream(k) for k in chosen if k - 1 not in chosen}
        finished = {k: self._check(k, fresh) for k in chosen}
        for k in chosen if fresh else ():
            self._folder(k).clear()
        remedy = "the same command resumes from there" + (", without --fresh" if fresh else "")
        summaries: list[TrainingSummary] = []
        for k in chosen:
            summaries.append(self._train(k, finished[k], initial[k], banks.get(k), remedy))
            if not self._folder(k).done:
                break  # an observer has stopped the run
        return summaries

    def _check(self, index: int, fresh: bool) -> PolicyRecord | None:
        """Check the folder of a phase and change nothing; return the record of its policy if the phase is finished."""
        folder = self._folder(index)
        if fresh:
            check_removable(folder.path)
            return None
        folder.check_formats()
        trained = isinstance(self.phases[index], TrainedPhase)
        finished = finished_record(folder, trained)
        newest = folder.newest_training() if finished is None else None
        stored = newest[1] if newest is not None else finished
        if stored is not None:  # whether its bank is still the same is known once the phases before are finished
            refuse_other(folder.path, stored, self._made_under(index, stored.upstream), self.phases)
        if finished is not None and trained and not folder.holds("actor"):
            log.warning(
                "%s has no agent, since the phase was flown by %s: it is trained now, and its bank flown again, so that "
                "phases that were trained from it must be trained again",
                folder.path,
                pilot_in_words(finished.flown_by),
            )
            finished = None
        if finished is None:
            refuse_links(folder.path)
        return finished

    def _folder(self, index: int) -> PhaseFolder:
        return PhaseFolder(self.root / self.phases[index].name)

    def _folder_before(self, index: int) -> PhaseFolder:
        """Return the folder of the phase before, whose bank phase `index` starts from."""
        return PhaseFolder((self.banks or self.root) / self.phases[index - 1].name)

    def _train(
        self,
        index: int,
        stored: PolicyRecord | None,
        initial: Any | None,
        bank: tuple[TerminalBank | None, str] | None,
        remedy: str,
    ) -> TrainingSummary:
        """Complete one phase from its present state; `stored` is the record of its policy if it is finished."""
        phase, began, folder = self.trained[index], time.monotonic(), self._folder(index)
        upstream, upstream_id = bank or self._upstream(index)
        made = self._made_under(index, upstream_id)
        if stored is not None:
            refuse_other(folder.path, stored, made, self.phases)
            return TrainingSummary(
                name=phase.name,
                status="already trained",
                env_steps=stored.env_steps,
                success=stored.success,
                returns=stored.returns,
                gate=stored.gate,
                seconds=0.0,
            )
        if self.observers.stopped_by is not None:
            return self._stopped(phase, 0, began)
        warn_of_settings(phase, lambda key: f'phase "{phase.name}": {key}')
        if upstream is not None:
            warn_of_repeated_starts((self.phases[index - 1], phase))
            warn_of_another_pilot(self._folder_before(index), self.phases[index - 1], phase)
        folder.mark_undone()
        key = name_key(jax.random.key(self.seed), phase.name)
        if self.number:
            key = jax.random.fold_in(key, self.number)
        ending = Ending(self.trained, index, self.save, folder, upstream, key, initial)
        run = None
        if isinstance(phase, TrainedPhase):
            run, made = self._resume(folder, begin(phase, upstream, ending.key, initial), made)
        started = run.progress.env_steps if run is not None else 0
        data = {"budget": phase.entry.budget.env_steps, "folder": str(folder.path)}
        label = phase.name + self.label
        self.observers.emit("phase_start", label, started, data=data)
        if run is not None:
            emit = lambda kind, env_steps, **more: self.observers.emit(kind, label, env_steps, **more)  # noqa: E731
            train_phase(run, emit, lambda r: self.save(folder, r, made), self._must_stop, self.checkpoint_every_s)
        if self.stop():
            at = (
                f" at vehicle step {run.progress.env_steps}; state saved in {folder.training}"
                if run and run.progress.env_steps
                else ""
            )
            raise Interrupted(
                f'phase "{phase.name}"', expected="to run to its end", found=f"a signal{at}", remedy=remedy
            )
        if run is not None and not run.progress.finished:
            return self._stopped(phase, run.progress.env_steps, began)
        summary = ending.finish(run, made, began)
        self.observers.emit("phase_end", label, summary.env_steps, data=summary.model_dump(mode="json"))
        return summary

    def finish_jointly(self, index: int, actor: Any) -> None:
        """Write the policy of a phase that whole flights have trained (None: it has none), and fly its bank."""
        phase, folder, began = self.phases[index], self._folder(index), time.monotonic()
        folder.mark_undone()
        upstream, upstream_id = self._upstream(index)
        key = jax.random.fold_in(name_key(jax.random.key(self.seed), phase.name), self.number)
        ending = Ending(self.phases, index, self.save, folder, upstream, key, self._initial(index, True), actor)
        ending.finish(None, self._made_under(index, upstream_id), began)

    def _must_stop(self) -> bool:
        """Return whether a signal has arrived, or an observer has raised `StopTraining`."""
        return self.stop() or self.observers.stopped_by is not None

    def _stopped(self, phase: Phase, env_steps: int, began: float) -> TrainingSummary:
        """Return the summary of a phase that an observer stopped, or that was not begun because of it."""
        return TrainingSummary(
            name=phase.name,
            status=f'stopped by observer "{self.observers.stopped_by}"',
            env_steps=env_steps,
            success=None,
            returns=None,
            gate=None,
            seconds=time.monotonic() - began,
        )

    def _upstream(self, index: int) -> tuple[TerminalBank | None, str]:
        """Return the previous phase's bank and its content hash; (None, "start") if there is none."""
        if index == 0:
            return None, "start"
        before, folder = self.phases[index - 1], self._folder_before(index)
        folder.check_formats()
        stored = folder.policy_record() if folder.done else None
        if stored is None:
            log.warning(
                'phase "%s" has no bank of "%s" to start from: it trains from its own start',
                self.phases[index].name,
                before.name,
            )
            return None, "start"
        refuse_other(folder.path, stored, self._made_under(index - 1, stored.upstream), self.phases)
        bank = load_bank(folder, before, stored)
        if bank is None:  # exit code 2, as nothing has been trained in this run
            raise StaleError(
                str(folder.path),
                expected=f'a bank for "{self.phases[index].name}" to start from',
                found="too few successes when it was the last phase",
                remedy=f"train it again: --fresh --phase {before.name}",
            )
        return bank, stored.content_sha256

    def _made_under(self, index: int, upstream: str) -> StoredRecord:
        """Return the common part of the records of a phase for the current conditions."""
        phases = self.phases[: index + 1]
        configuration = [phase.configuration() for phase in phases]
        return StoredRecord(
            mission=self.mission.name,
            phase=phases[-1].name,
            seed=self.seed,
            digest=digest(configuration),
            configuration=tuple(configuration),
            given=tuple(phase.given for phase in phases),
            plugins=plugin_records(phases),
            upstream=upstream,
            init=str(self.init.get(phases[-1].name, "")) or None,
            engine=__version__,
            machine=describe(),
        )

    def _resume(self, folder: PhaseFolder, run: Run, made: StoredRecord) -> tuple[Run, StoredRecord]:
        """Continue from the newest readable training step, if there is one; also return the record of that run."""
        while True:
            newest = folder.newest_training()
            if newest is not None:
                refuse_other(folder.path, newest[1], made, self.phases)
            folder.skip_damaged()
            if newest is None:
                folder.metrics.unlink(missing_ok=True)
                return run, made
            step, stored = newest
            if stored.machine != made.machine:
                log.warning(
                    "%s was made on another machine (%s): the result may differ in its last bits",
                    step,
                    first_change(stored.machine.model_dump(), made.machine.model_dump()),
                )
            try:
                tree = read_tree(step, {"state": run.state, "best_actor": run.best_actor})
            except Exception as error:
                folder.skip(step, error)
                continue
            run.state, run.best_actor, run.progress = tree["state"], tree["best_actor"], stored.progress
            cut_metrics(folder.metrics, run.progress.env_steps)
            log.warning('phase "%s" resumes from vehicle step %d', run.phase.name, run.progress.env_steps)
            return run, made.model_copy(update={"init": stored.init})

    def _initial(self, index: int, fresh: bool) -> Any | None:
        """Return the policy with which --init starts a phase, or that of the folder that flies it.

        A phase that has already started needs none.
        """
        phase, own = self.phases[index], self._folder(index)
        source, flying = self.init.get(phase.name), policy_folders(self.mission, [phase]).get(phase.name)
        if flying is not None and isinstance(phase, PolicyPhase) and (fresh or not own.done):
            return borrowed_policy(flying, phase, self.mission.source.where(("phases", index, "policy")))
        if source is None or not isinstance(phase, TrainedPhase) or (not fresh and (own.done or own.steps())):
            return None
        folder = PhaseFolder(source)
        if folder.policy_record() is None:
            raise MachineError(
                str(source),
                expected="a phase's folder with a policy",
                found="none",
                remedy="--init NAME=DIR takes checkpoints/<mission>/<phase>",
            )
        return load_actor(folder, phase)

    def save(self, folder: PhaseFolder, run: Run, made: StoredRecord) -> None:
        """Write a training step and emit its event."""
        tree = {"state": run.state, "best_actor": run.best_actor}
        record = StepRecord(progress=run.progress, **made.model_dump())
        folder.save_training(run.progress.env_steps, tree, record)
        self.observers.emit(
            "checkpoint", run.phase.name + self.label, run.progress.env_steps, data={"folder": str(folder.training)}
        )
