"""The phases of a mission once they are resolved: plugin loaded, parameters validated, contract checked."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, JsonValue

from mission.learner import Learner, LearnerConfig, PhaseInterface, build_learner
from mission.missionfile.models import MissionFile, Name, PhaseEntry
from mission.missionfile.pilots import NAMED_PILOTS, onnx_file, unguarded
from mission.phase import NON_FINITE, TIME_OUT, Environment, Limit, PluginOrigin, Reward
from mission.strict import StrictModel


class PhaseConfiguration(StrictModel):
    """The settings that determine the result of training a phase, as stored in records, without budget, gate, seed and pilot.

    They are JSON in the shape that their models had at that time. `mission.missionfile.changes` reads them through the
    current models.
    """

    name: Name
    plugin: str
    params: dict[str, JsonValue]
    sac: dict[str, JsonValue] | None
    restart: dict[str, JsonValue]
    bank: dict[str, JsonValue]
    evaluation: dict[str, JsonValue]
    training_params: dict[str, JsonValue] | None = None
    training_share: float | None = None
    tolerated: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class WideDays:
    """Wide training dispersions: another environment, whose `start`, `redraw` and `enter` a share of the vehicles uses.

    Everything else is the phase's own, because the draws of these three methods are in the state.
    """

    params: BaseModel
    environment: Environment
    share: float


@dataclasses.dataclass(frozen=True, eq=False)
class RestOfMission:
    """The terminal value of a hand-over in training: `weight` times the probability that the rest of the mission succeeds.

    `network` gives that probability from the first observation of `phase`, the next one; `sha256` is the hash of its
    parameters.
    """

    phase: Phase
    network: dict[str, Any]
    sha256: str
    weight: float
    replaces: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Phase:
    """A phase that is flown by its guide. Its hash is its identity, so it can be a static argument.

    Attributes:
      name: label in the mission file.
      origin: where the plugin comes from.
      params: validated parameters of the plugin.
      environment: the phase itself, as its pilot needs it.
      guide_environment: the same phase with everything that its guide needs.
      reward: the reward function; None if the plugin provides none.
      limits: bounds on telemetry channels.
      learner: settings of an agent of this phase; None if the plugin provides none.
      entry: its entry in the mission file.
      report: function that returns the plugin's sections of the report page, or None.
      channels: names of its telemetry.
      accepts, leaves: shapes and dtypes of the hand-over that it receives and of the one that it returns, as trees.
      given: its parameters as written in the mission file, including those of the whole mission.
      folder: that of the mission file, the base of relative paths in parameters.
      files: the source files and the data files of its plugin.
      wide: wide training dispersions, with which a share of its training vehicles starts; None: all start from
        `environment`.
      tolerated: causes with which a flight continues to the next phase, because of `chain: {judge: mission}`.
      rest: the part of its reward for the rest of the mission, in the sweeps of a chain; None: no such part.
    """

    name: str
    origin: PluginOrigin
    params: BaseModel
    environment: Environment
    guide_environment: Environment
    reward: Reward | None
    limits: tuple[Limit, ...]
    learner: LearnerConfig | None
    entry: PhaseEntry
    report: Callable[[Any], tuple[Any, ...]] | None
    channels: tuple[str, ...]
    accepts: Any
    leaves: Any
    given: dict[str, JsonValue] = dataclasses.field(default_factory=dict)
    folder: Path = Path()
    files: tuple[str, ...] = ()
    wide: WideDays | None = None
    tolerated: tuple[str, ...] = ()
    rest: RestOfMission | None = None

    @property
    def causes(self) -> tuple[str, ...]:
        """The causes of the environment and the two of the engine."""
        own, survived = self.environment.causes, self.environment.time_out_cause
        return (*own, TIME_OUT if survived is None or survived in own else survived, NON_FINITE)

    @property
    def time_out(self) -> int:
        """The index into `causes` of a flight that reached the time limit."""
        own, survived = self.environment.causes, self.environment.time_out_cause
        return 0 if survived == own[0] else len(own)

    def configuration(self) -> PhaseConfiguration:
        """Return the settings that determine the result of training."""
        entry = self.entry
        return PhaseConfiguration(
            name=self.name,
            plugin=entry.plugin.rpartition(":")[2],  # the distribution is part of the origin
            params=json_of(self.params),
            sac=json_of(self.learner) if self.learner is not None else None,
            restart=json_of(entry.restart),
            bank=json_of(entry.bank),
            evaluation=json_of(entry.evaluation),
            tolerated=self.tolerated,
            **self._training(),
        )

    def _training(self) -> dict[str, Any]:
        """Return the wide training dispersions as a part of the configuration."""
        if self.wide is None:
            return {}
        return {"training_params": json_of(self.wide.params), "training_share": self.wide.share}

    def starts(self, wide: bool = False) -> Environment:
        """Return the environment whose `start`, `redraw` and `enter` a training vehicle uses."""
        if not wide or self.wide is None:
            return self.environment
        environment = self.wide.environment
        return environment if self.environment is self.guide_environment else environment.unguided()

    @property
    def pilot(self) -> str:
        """The pilot: "guide"; for networks "agent", "imitator", "guarded", or a folder as it was written."""
        return "guide"

    @property
    def guarded(self) -> bool:
        """Whether its guide takes over from the networks where that promises more."""
        return False

    @property
    def guardable(self) -> bool:
        """Whether it can have a guard: its agent flies it, or the policy in a folder, and it has a guide."""
        return False

    def flown_by(self, pilot: str) -> Phase:
        """Return the same phase with another pilot, as `PhaseEntry.policy` names them."""
        fields: dict[str, Any] = {field.name: getattr(self, field.name) for field in dataclasses.fields(Phase)}
        fields["entry"] = self.entry.model_copy(update={"policy": pilot})
        kind = phase_class(pilot, self.learner, self.reward)
        fields["environment"] = flown_environment(kind, self.guide_environment, self.learner, pilot)
        return kind(**fields)

    def guided(self) -> Phase:
        """Return the same phase, flown by its guide."""
        return self.flown_by("guide")


@dataclasses.dataclass(frozen=True, eq=False)
class PolicyPhase(Phase):
    """A phase that a policy flies; it always has a reward and a learner.

    The policy is not trained here but read from the folder that the mission names, except in a `TrainedPhase`.
    """

    reward: Reward
    learner: LearnerConfig

    @property
    def pilot(self) -> str:
        """The pilot of the phase."""
        return self.entry.policy

    @property
    def guarded(self) -> bool:
        """Whether its guide takes over from the networks where that promises more."""
        return unguarded(self.pilot) != self.pilot

    @property
    def guardable(self) -> bool:
        """Whether it can have a guard: its agent flies it, or the policy in a folder, and it has a guide."""
        return self.environment.guide is not None and self.pilot != "imitator" and not self.from_library

    @property
    def from_library(self) -> bool:
        """Whether an exported policy or an ONNX model flies it instead of the networks of its learner."""
        return onnx_file(self.pilot) is not None

    def build_learner(self) -> Learner:
        """Return the learning algorithm, with its settings, for this phase."""
        env = self.environment
        sizes, privileged = (len(env.observation_names), len(env.action_names)), len(env.privileged_names)
        return build_learner(self.learner, PhaseInterface(*sizes, env.control_period_s, env, self.reward, privileged))


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedPhase(PolicyPhase):
    """A phase that an agent is trained for; the agent flies it, or its imitator."""


@dataclasses.dataclass(frozen=True, eq=False)
class LibraryPhase(PolicyPhase):
    """A phase that an exported policy flies (docs/export.md), or an ONNX model.

    `act` maps observations [N, O] to actions [N, A], on the host; `sha256` is that of the library or of the model, uint8 [32].
    """

    act: Callable[[Any], Any] = dataclasses.field(kw_only=True)
    sha256: Any = dataclasses.field(kw_only=True, default=None)

    @property
    def from_library(self) -> bool:
        """Whether an exported policy or an ONNX model flies it."""
        return True


def phase_class(pilot: str, learner: LearnerConfig | None, reward: Reward | None) -> type[Phase]:
    """Return the class of a phase with this pilot; without a learner its guide flies it."""
    if pilot == "guide" or learner is None or reward is None:
        return Phase
    return TrainedPhase if pilot in NAMED_PILOTS else PolicyPhase


def flown_environment(
    kind: type[Phase], environment: Environment, learner: LearnerConfig | None, pilot: str
) -> Environment:
    """Return the environment that a phase of this class flies, without the guide's computations if it cannot take
    over.
    """
    needs_guide = learner is None or learner.fill.policy == "guide" or unguarded(pilot) != pilot
    return environment if kind is Phase or needs_guide else environment.unguided()


def policy_folders(mission: MissionFile, phases: Sequence[Phase], here: Collection[str] = ()) -> dict[str, Path]:
    """Return name of a phase -> folder, or file of an ONNX model, for the phases that are flown by another policy than their own.

    Both are relative to the mission file; those of the phases in `here`, to the working directory.
    """
    return {
        phase.name: (Path() if phase.name in here else mission.folder)
        / (onnx_file(phase.pilot) or unguarded(phase.pilot))
        for phase in phases
        if isinstance(phase, PolicyPhase) and not isinstance(phase, TrainedPhase)
    }


def json_of(model: BaseModel) -> dict[str, JsonValue]:
    """Return a model as plain JSON data."""
    return json.loads(model.model_dump_json())
