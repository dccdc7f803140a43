"""`Sweeps`: after the phases of a chain are trained, train them again, backwards and then forwards.

A sweep has two passes. In the backward pass, from the last phase to the first, each phase trains from the end states
of the previous phase with its current policy. With `chain.terminal`, its reward includes the feasibility of the rest
of the mission with the current policies of the later phases. In the forward pass, each phase trains again from the new
end states of the phases before it. Lee et al.
2021 (arXiv:2111.07999) and Chen et al. 2023 (arXiv:2309.00987, section 4) train chains of skills in these two directions.

Every part has its own folder, which is done or can be resumed, and every random key is derived from the seed. So a run
that is killed at any time resumes and gives the same result. The policies after the sweep in which most flights
succeeded become those of the
mission; nothing is changed there before all sweeps have ended.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mission.errors import Interrupted, MachineError, StaleError
from mission.flight.batches import compile_flight, fly_batches, to_host
from mission.flight.chain import Chain
from mission.flight.feasibility.fitting import fit_feasibility
from mission.flight.feasibility.network import FeasibilitySettings, Weights
from mission.flight.feasibility.store import chain_feasibility
from mission.missionfile.models import ChainSettings, JointSettings
from mission.missionfile.phases import Phase, PolicyPhase, TrainedPhase, policy_folders
from mission.missionfile.statistics import wilson
from mission.storage.borrowed import borrowed_policy
from mission.storage.policies import load_actor, part_of
from mission.storage.protection import check_removable, refuse_links
from mission.storage.steps import PhaseFolder
from mission.training.ending import TrainingSummary
from mission.training.phase import Trainer
from mission.training.sweeps.joint import JointTraining
from mission.training.sweeps.phases import sweep_phases
from mission.training.sweeps.store import (
    FOLDER,
    JOINT,
    ChainRate,
    SweepsRecord,
    check_sweeps,
    content_of,
    copy_policies,
    read_sweeps,
    remove_sweeps,
    sweep_folder,
    sweep_settings,
    write_sweeps,
)
from mission.training.sweeps.terminal import with_terminal_value

log = logging.getLogger("mission")
_RATED = 5 << 29  # number of the first flight that rates the chain: fresh ones, which nobody asks `mission fly` for
_TOLD = ("update", "updates", "success")  # of an event of joint training
_ROUNDS = 1  # of split flights, when feasibility is fitted


@dataclasses.dataclass
class Sweeps:
    """The sweeps of a mission that `trainer` has trained or will continue."""

    trainer: Trainer
    settings: ChainSettings
    fresh: bool = False

    def __post_init__(self) -> None:
        """Check the settings, and the stored sweeps unless they restart; nothing is changed."""
        self.root, self.phases = self.trainer.root, self.trainer.phases
        self.trained = sweep_phases(self.trainer.mission, self.phases)
        refuse_links(self.root / FOLDER)  # what is behind a link belongs to somebody else
        if self.fresh:
            for name in (FOLDER, *(phase.name for phase in self.phases)):
                check_removable(self.root / name)
        stored = None if self.fresh else read_sweeps(self.root)
        if stored is not None:
            check_sweeps(self.root, stored, self.trainer.mission, self.trainer.seed)
        self.record = stored or SweepsRecord(
            mission=self.trainer.mission.name,
            seed=self.trainer.seed,
            settings=sweep_settings(self.trainer.mission),
        )

    @property
    def begun(self) -> bool:
        """Whether the policies before the first sweep are kept, so that those of the mission may have been replaced."""
        return bool(self.record.rates)

    def train_first(self) -> list[TrainingSummary]:
        """Train the phases before the first sweep, or check that what is kept of them still holds.

        Raises:
          StaleError: names what has changed since.
        """
        everything = list(range(len(self.phases)))
        if self.begun:
            return dataclasses.replace(self.trainer, root=sweep_folder(self.root, 0)).train_all(everything, fresh=False)
        if self.fresh:
            remove_sweeps(self.root)
        return self.trainer.train_all(everything, self.fresh)

    def run(self) -> SweepsRecord:
        """Run the remaining sweeps, and copy the best policies to the mission.

        Raises:
          MissionError: a phase cannot be trained, or a signal arrived; the same command resumes.
        """
        names = [phase.name for phase in self.phases]
        if not self.begun:
            copy_policies(self.root, sweep_folder(self.root, 0), names)
            self.record = self.record.model_copy(update={"shipped": self._shipped()})
            self._rate(0, time.monotonic())
        for sweep in range(1, self.settings.sweeps + 1):
            began = time.monotonic()
            if sweep < len(self.record.rates):
                continue
            if not (self._backwards(sweep) and self._forwards(sweep)):
                return self.record  # an observer has stopped the run
            self._rate(sweep, began)
        if self.settings.joint is not None and self.record.joint is None:
            self._jointly(self.settings.joint)
        copy_policies(sweep_folder(self.root, self.record.chosen), self.root, names)
        self.record = self.record.model_copy(update={"shipped": self._shipped()})
        write_sweeps(self.root, self.record)
        return self.record

    def _shipped(self) -> dict[str, str]:
        return {phase.name: content_of(self.root / phase.name) for phase in self.phases}

    def _backwards(self, sweep: int) -> bool:
        """Train each phase from its present starts, the last one first; return whether all are done."""
        before, folder = sweep_folder(self.root, sweep - 1), self._backward_folder(sweep)
        for k in reversed(range(len(self.phases))):
            if not isinstance(self.phases[k], TrainedPhase):
                continue
            init = {self.phases[k].name: before / self.phases[k].name}
            trainer = self._trainer(sweep, folder, "backwards", [k], init, before)
            trainer.train_all([k], fresh=False)
            if not PhaseFolder(folder / self.phases[k].name).done:
                return False
        return True

    def _forwards(self, sweep: int) -> bool:
        """Train each phase again from the new end states of the one before it; return whether all are done."""
        folder, back = sweep_folder(self.root, sweep), self._backward_folder(sweep)
        init = {phase.name: back / phase.name for phase in self.phases if isinstance(phase, TrainedPhase)}
        for k in range(len(self.phases)):
            self._trainer(sweep, folder, "forwards", [k], init, folder).train_all([k], fresh=False)
            if not PhaseFolder(folder / self.phases[k].name).done:
                return False
        return True

    def _jointly(self, settings: JointSettings) -> None:
        """Train all agents on whole flights, from the best policies so far, and rate the chain."""
        began, folder = time.monotonic(), sweep_folder(self.root, JOINT)
        start = sweep_folder(self.root, self.record.chosen)
        terminal = self.settings.terminal
        training = JointTraining(
            chain=self._chain([start] * len(self.phases), folder),
            phases=self.phases,
            settings=settings,
            without=() if terminal is None else terminal.replaces,
            folder=folder,
            progress=self._flew,
            tell=lambda *told: self.trainer.observers.emit("joint", data=dict(zip(_TOLD, told, strict=True))),
        )
        actors = training.run()
        trainer = dataclasses.replace(self.trainer, root=folder, number=2 * self.settings.sweeps + 1, init={})
        for k, phase in enumerate(self.phases):
            trainer.finish_jointly(k, actors[k] if isinstance(phase, TrainedPhase) else None)
        self._rate(JOINT, began)

    def _backward_folder(self, sweep: int) -> Path:
        return sweep_folder(self.root, sweep) / ".backwards"

    def _trainer(
        self, sweep: int, root: Path, way: str, chosen: list[int], init: dict[str, Path], banks: Path
    ) -> Trainer:
        """Return the trainer of one pass; `chosen` are the phases that it is about to train."""
        passes = {"backwards": 2 * sweep - 1, "forwards": 2 * sweep}
        phases = tuple(
            self._with_terminal_value(sweep, k) if k in chosen and not PhaseFolder(root / phase.name).done else phase
            for k, phase in enumerate(self.trained)
        )
        return dataclasses.replace(
            self.trainer,
            root=root,
            banks=banks,
            trained=phases,
            init=init,
            number=passes[way],
            label=f"-sweep-{sweep}-{way}",
        )

    def _with_terminal_value(self, sweep: int, index: int) -> Phase:
        """Return a phase as it trains; with `chain.terminal`, its reward includes the feasibility of the next phase."""
        phase = self.trained[index]
        if self.settings.terminal is None or index + 1 == len(self.phases) or not isinstance(phase, TrainedPhase):
            return phase
        network = self._feasibility(sweep, index + 1)
        return with_terminal_value(phase, self.phases[index + 1], network, self.settings.terminal)

    def _feasibility(self, sweep: int, index: int) -> Weights:
        """Return the feasibility of phase `index` with the policies of the backward pass in it and the later phases."""
        before, back = sweep_folder(self.root, sweep - 1), self._backward_folder(sweep)
        home = sweep_folder(self.root, sweep) / ".feasibility" / self.phases[index].name
        folders = [before if k < index else back for k in range(len(self.phases))]
        chain = self._chain(folders, home)
        try:
            found = chain_feasibility(chain)
        except (StaleError, MachineError) as error:
            log.warning("%s is fitted again: %s", error.where, error.found)
            found = None
        if found is None:
            fit_feasibility(chain, FeasibilitySettings(flights=self.settings.flights, rounds=_ROUNDS), self._flew)
            found = chain_feasibility(chain)
        if found is None:
            raise MachineError(
                str(home), expected="the feasibility that was written there", found="none", remedy="retry"
            )
        return found.weights[index]

    def _chain(self, folders: Sequence[Path], home: Path) -> Chain:
        """Return the chain with the policy of each phase from the given mission folder."""
        mission, borrowed = self.trainer.mission, policy_folders(self.trainer.mission, self.phases)

        def policy_of(k: int, phase: Phase) -> Any:
            if isinstance(phase, TrainedPhase):
                return to_host(load_actor(PhaseFolder(folders[k] / phase.name), phase, part_of(phase)))
            if isinstance(phase, PolicyPhase):
                where = mission.source.where(("phases", k, "policy"))
                return to_host(borrowed_policy(borrowed[phase.name], phase, where))
            return None

        return Chain(
            mission=mission,
            phases=self.phases,
            actors=tuple(policy_of(k, phase) for k, phase in enumerate(self.phases)),
            flights=tuple(compile_flight(phase) for phase in self.phases),
            seed=self.trainer.seed,
            policy="agent",
            root=folders[0],
            home=home,
            folders=borrowed,
        )

    def _flew(self, done: int, total: int) -> None:
        """Stop between two batches if a signal has arrived."""
        if self.trainer.stop() and done < total:
            raise Interrupted(
                str(self.root),
                expected="the flights of a sweep to end",
                found=f"a signal after {done} of {total}",
                remedy="the same command goes on from there",
            )

    def _rate(self, sweep: int, began: float) -> None:
        """Fly the chain after a sweep, and record how it flew."""
        folder = sweep_folder(self.root, sweep)
        chain = self._chain([folder] * len(self.phases), folder)
        flown = fly_batches(self.settings.flights, None, chain.fly, self._flew, first=_RATED)
        entered = inside = np.ones(self.settings.flights, bool)
        phases: dict[str, tuple[int, int]] = {}
        for phase, result in zip(self.phases, flown, strict=True):
            success = entered & result.success
            phases[phase.name] = (int(entered.sum()), int(success.sum()))
            inside, entered = inside & success & (result.cause == 0), success
        low, high = wilson(int(entered.sum()), len(entered))
        rate = ChainRate(
            sweep=sweep,
            flights=len(entered),
            succeeded=int(entered.sum()),
            by_boxes=int(inside.sum()),
            low=low,
            high=high,
            phases=phases,
            seconds=time.monotonic() - began,
        )
        self.record = self.record.rated(rate)
        write_sweeps(self.root, self.record)
        self.trainer.observers.emit("sweep", data=rate.model_dump(mode="json"))
