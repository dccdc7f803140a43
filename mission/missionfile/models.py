"""The models of a mission file: strict, frozen, with units in the names. `reading.py` reads the file itself."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, PrivateAttr, StringConstraints, model_validator

from mission.errors import InputError
from mission.missionfile.gate import Gate
from mission.missionfile.pilots import Pilot, guarded, read_pilot, unguarded
from mission.strict import Count, Fraction01, Positive, StrictModel

if TYPE_CHECKING:
    from mission.phase import PhaseSpec

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
Location = tuple[str | int, ...]  # a place in the document, such as ("phases", 0, "plugin")


class Budget(StrictModel):
    """The limit on the training of a phase."""

    env_steps: Count = Field(1_000_000, le=10**12, description="Vehicle steps, including the fill.")


class Restart(StrictModel):
    """The restart mixture of training vehicles; `stored`, `noisy` and `nominal` apply if there is a bank, and sum to
    1.
    """

    stored: Fraction01 = Field(0.7, description="Stored successes of the previous phase.")
    noisy: Fraction01 = Field(0.1, description="Stored rows with covariance-scaled noise.")
    nominal: Fraction01 = Field(0.2, description="The phase's own start.")
    noise_scale: Annotated[float, Field(ge=0)] = Field(
        0.3, description="Standard deviation of the noise, in units of the bank's fitted covariance."
    )
    visited: Fraction01 = Field(
        0.0,
        description="Share of all starts that are states which training vehicles visited at most `visited_steps` "
        "control steps before the end of an episode (Florensa et al. 2017, arXiv:1707.05300). The "
        "other fractions apply to the rest.",
    )
    visited_steps: Count = Field(50, description="Control steps; if sac.actor_horizon is larger, its value is used.")

    @model_validator(mode="after")
    def _sums_to_one(self) -> Restart:
        if not math.isclose(self.stored + self.noisy + self.nominal, 1.0, abs_tol=1e-6):
            raise ValueError("stored + noisy + nominal must be 1")
        return self


class Bank(StrictModel):
    """The stored end states of a phase, flown after training by the final policy."""

    flights: int = Field(5120, ge=1, le=10**6, description="Flights that fill the bank.")
    held_out: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.2, description="Fraction that is kept for the next phase's gate and never used for training."
    )
    minimum: int = Field(64, ge=2, description="Smallest number of successes; fewer are an error.")

    @model_validator(mode="after")
    def _can_be_filled(self) -> Bank:
        if self.minimum > self.flights:
            raise ValueError(f"minimum of at most flights: {self.flights} flights never give {self.minimum} successes")
        if self.held_out_flights >= self.flights:
            raise ValueError(
                f"held_out small enough to leave flights for training: {self.held_out} of {self.flights} flights "
                "is all of them"
            )
        return self

    @property
    def held_out_flights(self) -> int:
        """Number of flights that are held out, at least one."""
        return max(1, round(self.flights * self.held_out))


class Evaluation(StrictModel):
    """Flights with the mean action during training, with the same starts and keys each time; they select the policy."""

    every_env_steps: Count = Field(100_000, description="Vehicle steps between evaluations, rounded to whole chunks.")
    flights: int = Field(1000, ge=1, le=1_000_000, description="Flights of one evaluation.")


class SweepEntry(StrictModel):
    """Settings of a phase in the sweeps of a chain, where they differ from its first training."""

    budget: Budget | None = Field(
        None, description="Budget of the phase in each pass of a sweep. Default: the phase's own budget."
    )
    sac: dict[str, Any] = Field(
        default_factory=dict,
        description="Overrides of the phase's learner settings. A sweep starts from the previous policy, so the "
        "defaults are `imitation: null` and `fill: {policy: agent}`.",
    )


class PhaseEntry(StrictModel):
    """One entry of `phases:`."""

    name: Name = Field(description="Unique name of the phase.")
    plugin: Annotated[str, StringConstraints(min_length=1)] = Field(
        description='Entry point, "distribution:entry_point", or ./file.py with --allow-local-plugins.'
    )
    params: dict[str, Any] = Field(default_factory=dict, description="Parameters, validated by the plugin.")
    training_params: dict[str, Any] = Field(
        default_factory=dict,
        description="Parameters for the starts of a share of the training vehicles, merged over `params`; they "
        "may change only what `start`, `redraw` and `enter` draw.",
    )
    training_share: Fraction01 = Field(
        0.5, description="Share of the training vehicles that start with training_params."
    )
    sac: dict[str, Any] = Field(
        default_factory=dict, description="Overrides of the plugin's learner settings; `preset: seed` replaces them."
    )
    budget: Budget = Field(default_factory=Budget, description="Limit on the training of the phase.")
    policy: Pilot = Field(
        "agent",
        description="Pilot of the phase: its agent, its imitator, its guide, or the policy in the folder of a "
        "trained phase, relative to the mission file. With `guarded`, or `guarded:` before such a "
        "folder, the guide takes over when the mission is then more likely to succeed. `{onnx: FILE}` "
        "is an ONNX model of another framework. The pilot is not part of the trained configuration.",
    )
    gate: Gate | None = Field(
        None,
        description="Requirement on the phase. Without a gate, the phase trains for "
        "its whole budget and always passes.",
    )
    restart: Restart = Field(
        default_factory=Restart, description="The restart mixture: the sources of the starts of training vehicles."
    )
    bank: Bank = Field(default_factory=Bank, description="End states that are stored for the next phase.")
    evaluation: Evaluation = Field(default_factory=Evaluation, description="Flights that select the policy.")
    sweep: SweepEntry = Field(
        default_factory=SweepEntry, description="Training settings of the phase in the sweeps of a chain."
    )


Judge = Literal["box", "mission"]


class TerminalValue(StrictModel):
    """The reward of a phase for its hand-over, in the sweeps of a chain."""

    weight: Positive = Field(
        40.0, description="Reward of a hand-over from which the rest of the mission certainly succeeds."
    )
    replaces: tuple[str, ...] = Field(
        (),
        strict=False,
        description="Terms of the phases' own rewards that the terminal value replaces. The terms of the last "
        "phase are never replaced.",
    )


class JointSettings(StrictModel):
    """Joint training: all agents of a chain learn from whole flights, with gradients that cross the links."""

    updates: Count = Field(200, description="Number of updates of all agents.")
    flights: int = Field(64, ge=1, le=65536, description="Whole flights per update.")
    learning_rate: Positive = Field(1e-5, description="Learning rate of Adam.")
    every: Count = Field(25, description="Number of updates between two choices of the best policies.")
    choice_flights: int = Field(2000, ge=1000, le=1_000_000, description="Flights per choice.")
    flight_grad_max: Positive = Field(
        30.0, description="Largest gradient of the return with respect to the action of one control step of one flight."
    )


class ChainSettings(StrictModel):
    """Settings that concern several phases of a mission together."""

    judge: Judge = Field(
        "box",
        description="Criterion that fails a flight at a hand-over. `box`: the box of the phase. `mission`: only "
        "limits, the ground and the box of the last phase.",
    )
    sweeps: int = Field(
        0,
        ge=0,
        le=100,
        description="Number of sweeps after the training of the phases: backwards, then forwards, each phase "
        "from the states that it actually receives.",
    )
    terminal: TerminalValue | None = Field(
        None,
        description="Reward for a hand-over in sweeps, in proportion to the feasibility of the rest of the "
        "mission. None: no reward.",
    )
    joint: JointSettings | None = Field(
        None, description="Joint training of all agents on whole flights after the sweeps. None: no joint training."
    )
    flights: int = Field(
        4000,
        ge=1000,
        le=1_000_000,
        description="Number of flights that rate the chain after a sweep, and to which its feasibility is fitted.",
    )

    @model_validator(mode="after")
    def _has_feasibility(self) -> ChainSettings:
        if self.terminal is not None and not self.sweeps:
            raise ValueError("terminal with sweeps of at least 1, because feasibility is that of trained phases")
        return self


@dataclasses.dataclass(frozen=True)
class Source:
    """The path, the key positions and the phase names of a mission file, for messages that point at a line.

    A mission that is given as text or as a dict has no file; `path` says what it is. `specs` are the phases that a dict holds
    itself, by what stands for them under `plugin`.
    """

    path: Path
    positions: dict[Location, tuple[int, int] | str]
    names: dict[int, str]
    is_file: bool = True
    specs: Mapping[str, PhaseSpec] = dataclasses.field(default_factory=dict)

    def command(self, name: str) -> str:
        """Return how to run a command on this mission, for messages."""
        if self.is_file:
            return f"`mission {name} {self.path}`"
        return f"`{name}_mission`" if name in ("train", "fly") else f"`mission {name}` on this mission in a file"

    def where(self, location: Location) -> str:
        """Return `mission.yaml:6:7: phases[1] "landing": params.x` for a location in the document."""
        place = self.path.name
        for length in range(len(location), -1, -1):
            at = self.positions.get(location[:length])
            if at is not None:
                place = at if isinstance(at, str) else f"{self.path.name}:{at[0]}:{at[1]}"
                break
        if len(location) >= 2 and location[0] == "phases" and isinstance(location[1], int):
            name = self.names.get(location[1])
            label = f"phases[{location[1]}]" + (f' "{name}"' if name else "")
            rest = dotted(location[2:])
            return f"{place}: {label}" + (f": {rest}" if rest else "")
        return f"{place}: {dotted(location) or 'the document'}"


class MissionFile(StrictModel):
    """A whole mission: its phases in the order of flight."""

    name: Name = Field(description="Name of the mission and of its checkpoint folder.")
    seed: int = Field(0, ge=0, le=2**32 - 1, description="Seed of training and of flights.")
    observers: tuple[str, ...] = Field((), strict=False, description="Entry points of the observers.")
    params: dict[str, Any] = Field(default_factory=dict, description="Parameters of every phase that declares them.")
    phases: tuple[PhaseEntry, ...] = Field(
        strict=False, min_length=1, max_length=100, description="The phases in the order of flight."
    )
    chain: ChainSettings | None = Field(
        None, description="Settings that concern several phases together; for two or more phases."
    )

    _source: Source | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _unique_names(self) -> MissionFile:
        names = [phase.name for phase in self.phases]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"phase names must be unique; used twice: {', '.join(twice)}")
        return self

    @model_validator(mode="after")
    def _has_a_link(self) -> MissionFile:
        if self.chain is not None and len(self.phases) < 2:
            raise ValueError("chain: needs at least two phases, because it says how they depend on each other")
        return self

    @property
    def judge(self) -> Judge:
        """The criterion that fails a flight at a hand-over."""
        return self.chain.judge if self.chain is not None else "box"

    @property
    def source(self) -> Source:
        """The file from which the mission was read; a placeholder for missions that are built in Python."""
        return self._source or Source(Path("mission.yaml"), {}, {i: phase.name for i, phase in enumerate(self.phases)})

    def read_from(self, source: Source) -> MissionFile:
        """Return this mission with a record of the file from which it was read."""
        self._source = source
        return self

    @property
    def folder(self) -> Path:
        """The base folder of relative paths in parameters."""
        return self.source.path.parent

    def all_guides(self) -> MissionFile:
        """Return the mission with every phase flown by its classical guidance law."""
        entries = tuple(entry.model_copy(update={"policy": "guide"}) for entry in self.phases)
        return self.model_copy(update={"phases": entries})

    def guarded_in(self, names: Collection[str]) -> MissionFile:
        """Return the mission with a guard for the agent, or the policy in a folder, that flies each of these phases."""
        entries = tuple(
            entry.model_copy(update={"policy": guarded(entry.policy)}) if entry.name in names else entry
            for entry in self.phases
        )
        return self.model_copy(update={"phases": entries})

    def unguarded(self) -> MissionFile:
        """Return the mission without guards: the pilot of a guarded phase flies it alone."""
        entries = tuple(entry.model_copy(update={"policy": unguarded(entry.policy)}) for entry in self.phases)
        return self.model_copy(update={"phases": entries})

    def judged_by(self, judge: Judge) -> MissionFile:
        """Return the mission with another criterion for its hand-overs.

        Raises:
          InputError: it has none.
        """
        if judge == self.judge:
            return self
        if len(self.phases) < 2:
            raise InputError(
                f"--judge {judge}", expected="a mission of at least two phases", found="one", remedy="remove --judge"
            )
        chain = (self.chain or ChainSettings()).model_copy(update={"judge": judge})
        return self.model_copy(update={"chain": chain})

    def swept(self, sweeps: int) -> MissionFile:
        """Return the mission with another number of sweeps.

        Raises:
          InputError: it has one phase, or the number is negative.
        """
        if not isinstance(sweeps, int) or sweeps < 0:
            expected = "a whole number, at least 0"
            raise InputError("--sweeps", expected=expected, found=repr(sweeps), remedy="0 makes no sweeps")
        if sweeps and len(self.phases) < 2:
            raise InputError(
                f"--sweeps {sweeps}", expected="a mission of at least two phases", found="one", remedy="remove --sweeps"
            )
        if not sweeps and self.chain is None:
            return self
        # without sweeps there is no feasibility that could be paid
        change = {"sweeps": sweeps} | ({} if sweeps else {"terminal": None})
        return self.model_copy(update={"chain": (self.chain or ChainSettings()).model_copy(update=change)})

    def trained_jointly(self) -> MissionFile:
        """Return the mission with joint training after its sweeps.

        Raises:
          InputError: it has one phase.
        """
        if len(self.phases) < 2:
            raise InputError(
                "--joint", expected="a mission of at least two phases", found="one", remedy="remove --joint"
            )
        chain = self.chain or ChainSettings()
        return self.model_copy(update={"chain": chain.model_copy(update={"joint": chain.joint or JointSettings()})})

    def flown_by(self, policies: Mapping[str, str | Path]) -> MissionFile:
        """Return the mission with other pilots for some of its phases.

        Args:
          policies: name of a phase -> "agent", "imitator", "guide", "guarded", the folder of a trained phase, also with
            "guarded:" before it, or "onnx:FILE".

        Raises:
          InputError: there is no such phase or no such pilot.
        """
        entries, positions = list(self.phases), dict(self.source.positions)
        names = [entry.name for entry in entries]
        for name, pilot in policies.items():
            where = f"--policy {name}={pilot}"
            if name not in names:
                remedy = "name a phase of the mission"
                raise InputError(where, expected=f"one of {', '.join(names)}", found=name, remedy=remedy)
            at = names.index(name)
            entries[at] = entries[at].model_copy(update={"policy": read_pilot(pilot, where)})
            positions["phases", at, "policy"] = where
        changed = self.model_copy(update={"phases": tuple(entries)})
        return changed.read_from(dataclasses.replace(self.source, positions=positions))


def dotted(location: Location) -> str:
    """Return `a.b[0]` for ("a", "b", 0)."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else str(part))
    return text
