"""The phases of a mission once they are resolved: plugin loaded, parameters validated, contract checked."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, JsonValue

from mission.learner import Learner, LearnerConfig, PhaseInterface, build_learner
from mission.missionfile.models import NAMED_PILOTS, MissionFile, Name, PhaseEntry
from mission.phase import NON_FINITE, TIME_OUT, Environment, Limit, PluginOrigin, Reward
from mission.strict import StrictModel


class PhaseConfiguration(StrictModel):
    """The settings that decide the trained result of a phase, as records store them; budget, gate, seed and pilot do not.

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


@dataclasses.dataclass(frozen=True, eq=False)
class Phase:
    """A phase that is flown by its guide. Its hash is its identity, so compiled functions can take it as static.

    Attributes:
      name: label in the mission file.
      origin: where the plugin comes from.
      params: validated parameters of the plugin.
      environment: the phase itself.
      reward: the reward function; None if the plugin provides none.
      limits: bounds on telemetry channels.
      learner: settings that an agent of this phase would have; None if the plugin provides none.
      entry: its entry in the mission file.
      report: what the plugin adds to the report page, or None.
      channels: names of its telemetry.
      accepts, leaves: shapes and dtypes of the hand-over that it receives and of the one that it returns, as trees.
      given: its parameters as written in the mission file, including those of the whole mission.
      folder: that of the mission file, the base of relative paths in parameters.
      files: the sources and the data files that decide its plugin.
    """

    name: str
    origin: PluginOrigin
    params: BaseModel
    environment: Environment
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
        """Return the settings that decide the trained result."""
        entry = self.entry
        return PhaseConfiguration(
            name=self.name,
            plugin=entry.plugin.rpartition(":")[2],  # the distribution is part of the origin
            params=json_of(self.params),
            sac=json_of(self.learner) if self.learner is not None else None,
            restart=json_of(entry.restart),
            bank=json_of(entry.bank),
            evaluation=json_of(entry.evaluation),
        )

    @property
    def pilot(self) -> str:
        """Who flies it: "guide"; if networks do "agent", "imitator", or a folder as it was written."""
        return "guide"

    def flown_by(self, pilot: str) -> Phase:
        """Return the same phase with another pilot, as `PhaseEntry.policy` names them."""
        fields: dict[str, Any] = {field.name: getattr(self, field.name) for field in dataclasses.fields(Phase)}
        fields["entry"] = self.entry.model_copy(update={"policy": pilot})
        return phase_class(pilot, self.learner, self.reward)(**fields)

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
        """Who flies it."""
        return self.entry.policy

    def build_learner(self) -> Learner:
        """Return the learning algorithm, with its settings, for this phase."""
        env = self.environment
        sizes = len(env.observation_names), len(env.action_names)
        return build_learner(self.learner, PhaseInterface(*sizes, env.control_period_s, env, self.reward))


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedPhase(PolicyPhase):
    """A phase that an agent is trained for; the agent flies it, or its imitator."""


def phase_class(pilot: str, learner: LearnerConfig | None, reward: Reward | None) -> type[Phase]:
    """Return the class of a phase with this pilot; without a learner its guide flies it."""
    if pilot == "guide" or learner is None or reward is None:
        return Phase
    return TrainedPhase if pilot in NAMED_PILOTS else PolicyPhase


def policy_folders(mission: MissionFile, phases: Sequence[Phase], here: Collection[str] = ()) -> dict[str, Path]:
    """Return name of a phase -> folder, for the phases that are flown by the policy in another folder.

    Folders are relative to the mission file; those of the phases in `here`, to the working directory.
    """
    return {
        phase.name: Path(phase.pilot) if phase.name in here else mission.folder / phase.pilot
        for phase in phases
        if isinstance(phase, PolicyPhase) and not isinstance(phase, TrainedPhase)
    }


def json_of(model: BaseModel) -> dict[str, JsonValue]:
    """Return a model as plain JSON data."""
    return json.loads(model.model_dump_json())
