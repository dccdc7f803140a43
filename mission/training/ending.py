"""The end of a phase that has been trained or needs no training: its bank, its policy and its marker."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mission.errors import GateError
from mission.flight.batches import compile_flight, loss_causes, name_key
from mission.flight.fly import PhaseFlight
from mission.machine.trees import count
from mission.missionfile.gate import GateVerdict
from mission.missionfile.phases import Phase, TrainedPhase
from mission.missionfile.pilots import pilot_in_words
from mission.missionfile.statistics import distribution
from mission.storage.export import policy_files
from mission.storage.records import BankSize, PolicyRecord, RunProgress, StoredRecord
from mission.storage.steps import PhaseFolder, content_hash
from mission.storage.tables import Library, Table, html_table
from mission.strict import StrictModel
from mission.training.bank import TerminalBank, bank_flights, build_bank
from mission.training.loop import Run


class TrainingSummary(StrictModel):
    """The result of one phase of a training run; `success` and `returns` (the mean) are measured on its bank flights.

    A phase that an observer stopped has neither value; it is the last phase of its run.
    """

    name: str
    status: str  # "trained", "already trained", "flown by its guide" or a folder, 'stopped by observer "NAME"'
    env_steps: int
    success: float | None
    returns: float | None
    gate: GateVerdict | None
    seconds: float


class TrainingSummaries(tuple[TrainingSummary, ...]):
    """The results of a training run, one per phase in the order of flight; a tuple that a notebook shows as a table."""

    def to_frame(self, library: Library = "pandas") -> Any:
        """Return a frame with one row per phase: `phase`, `status`, `env_steps`, `success`, `returns`, `gate`, `seconds` (extra
        `data`).

        Args:
          library: "pandas" or "polars".

        Raises:
          MachineError: the library is not installed.
        """
        names = ("status", "env_steps", "success", "returns")
        columns = {"phase": [one.name for one in self]} | {name: [getattr(one, name) for one in self] for name in names}
        columns |= {"gate": [None if one.gate is None else one.gate.passed for one in self]}
        return Table(columns | {"seconds": [one.seconds for one in self]}).to_frame(library)

    def _repr_html_(self) -> str:
        heads = ("phase", "status", "vehicle steps", "success of its bank's flights", "mean return", "gate", "seconds")
        rows = [
            [
                one.name,
                one.status,
                f"{one.env_steps:,}",
                "-" if one.success is None else f"{100 * one.success:.2f} %",
                "-" if one.returns is None else f"{one.returns:.4g}",
                "-" if one.gate is None else one.gate.counted(),
                f"{one.seconds:.0f}",
            ]
            for one in self
        ]
        return html_table(heads, rows)


@dataclasses.dataclass
class Ending:
    """The end of one of the phases; `save` stores a run that is not finished, and its record."""

    phases: Sequence[Phase]
    index: int
    save: Callable[[PhaseFolder, Run, StoredRecord], None]
    folder: PhaseFolder
    upstream: TerminalBank | None
    key: Any
    initial: Any | None = None  # the policy that flies the phase, if it is that of another folder
    joint: Any | None = None  # the agent's policy, if whole flights of the chain have trained it

    def finish(self, run: Run | None, made: StoredRecord, began: float) -> TrainingSummary:
        """Fly the bank, write policy, bank and marker.

        Raises:
          GateError: the gate was missed, or too few flights succeeded for the next phase.
        """
        phase = self.phases[self.index]
        actor = run.best_actor if run is not None else self.joint
        flight = run.programs.flight if run is not None else compile_flight(phase)
        imitator = _imitator(run)
        policy = self.initial if actor is None else actor
        pilot = phase.pilot if actor is None else "agent"
        if phase.pilot == "imitator" and imitator is not None:
            policy, pilot = imitator, phase.pilot
        result, held_out = bank_flights(phase, flight, policy, self.upstream, name_key(self.key, "bank"))
        losses = loss_causes(phase.causes, result, np.ones(len(result.success), bool))
        progress = run.progress if run is not None else RunProgress()
        gate = progress.gate if phase.entry.gate is not None else None
        failed = gate is not None and not gate.passed
        bank = None
        try:
            settings, where = phase.entry.bank, f'phase "{phase.name}"'
            bank = build_bank(result.handoff, result.success, held_out, settings, where, losses, actor is not None)
        except GateError:
            last = self.index == len(self.phases) - 1
            if not last and not failed:
                if run is not None:
                    progress.finished = "budget"  # a passed gate is not enough: training resumes within the budget
                    self.save(self.folder, run, made)
                raise
        tree = {"actor": actor, "bank": bank} | ({} if imitator is None else {"imitator": imitator})
        record = PolicyRecord(
            **made.model_dump(),
            gate=gate,
            env_steps=progress.env_steps,
            best_env_steps=progress.best_env_steps,
            success=float(result.success.mean()),
            returns=_mean_return(phase, result),
            causes=losses,
            content_sha256=content_hash(tree),
            bank=None if bank is None else BankSize(rows=count(bank.rows), held_out=count(bank.held_out)),
            flown_by=pilot,
        )
        files = policy_files(phase, actor) if isinstance(phase, TrainedPhase) else {}
        self.folder.save_policy(tree, record, files)
        if gate is not None and not gate.passed:
            raise _missed(phase, gate, record)
        self.folder.mark_done()
        return TrainingSummary(
            name=phase.name,
            status="trained" if actor is not None else f"flown by {pilot_in_words(phase.pilot)}",
            env_steps=progress.env_steps,
            success=record.success,
            returns=record.returns,
            gate=gate,
            seconds=time.monotonic() - began,
        )


def _missed(phase: Phase, gate: GateVerdict, record: PolicyRecord) -> GateError:
    """Return the error of a phase that has missed its gate."""
    return GateError(
        f'phase "{phase.name}"',
        expected="its gate to be passed",
        found="; ".join(gate.failures),
        remedy=f"raise budget.env_steps (training resumes from {record.env_steps}), "
        f"or look at the failures: {record.causes}",
    )


def _imitator(run: Run | None) -> Any | None:
    """Return the imitator of a run; None if it has none."""
    return run.programs.learner.imitator(run.state.agent) if run is not None else None


def _mean_return(phase: Phase, result: PhaseFlight) -> float | None:
    """Return the mean return of flights, as far as it is finite; None without a reward."""
    return distribution(result.returns).mean if phase.reward is not None else None
