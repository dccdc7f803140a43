"""The pluggy hooks: `mission_phase` and `mission_trajectory` (one typed record per plugin), `mission_event` (observers)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from pydantic import BaseModel

    from mission.phase import PhaseSpec

PROJECT = "mission"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

PHASE_GROUP = "mission.phases"
OBSERVER_GROUP = "mission.observers"
MISSION_GROUP = "mission.missions"  # packages with mission files
TRAJECTORY_GROUP = "mission.trajectories"


@dataclasses.dataclass(frozen=True)
class Event:
    """A message to observers, sent between two compiled chunks.

    `kind` is one of mission_start, phase_start, imitation, fill, warm_up, chunk, evaluation, checkpoint, gate, phase_end,
    sweep, joint, baseline, mission_end.
    `scalars` are named as in docs/sac.md, `histograms` are flat float arrays, `series` are arrays with one value per
    update, and `data` holds everything else (budget, folders, causes).
    """

    kind: str
    mission: str
    phase: str = ""
    env_steps: int = 0
    scalars: dict[str, float] = dataclasses.field(default_factory=dict)
    histograms: dict[str, Any] = dataclasses.field(default_factory=dict)
    series: dict[str, Any] = dataclasses.field(default_factory=dict)
    data: dict[str, Any] = dataclasses.field(default_factory=dict)


class StopTraining(Exception):
    """Raise this from `mission_event` to end the training run after its chunk; the message gives the reason.

    The state is saved, and the phase is not marked as done: the same command resumes it. It is not an error.
    """


@dataclasses.dataclass(frozen=True)
class TrajectoryFormat:
    """A file format for trajectories; the record that the hook `mission_trajectory` returns.

    Attributes:
      files: (trajectories, options) -> name of a file -> its content, for a tuple of `mission.Trajectory` of one mission.
      options: the model of its options, which `--format-set KEY=VALUE` sets; every one has a default. None: no options.
      channels: sets of telemetry channels; a phase that has none of these sets is refused before anything is flown. Empty:
        any phase will do.
    """

    files: Callable[[Any, Any], Mapping[str, str | bytes]]
    options: type[BaseModel] | None = None
    channels: tuple[tuple[str, ...], ...] = ()


class PhaseHooks:
    """Specification of the hook of a phase plugin."""

    @hookspec
    def mission_phase(self) -> PhaseSpec:
        """Return the phase that this module offers.

        An entry point in the group `mission.phases` names a module with one such function; the
        entry point's name is the plugin's name in mission files:

            from mission import PhaseSpec, hookimpl

            @hookimpl
            def mission_phase() -> PhaseSpec:
                return PhaseSpec(params=Params, environment=MyPhase, reward=reward, sac=SacConfig())

        Returns:
          One PhaseSpec. Any other value or an exception raises a PluginError that names this plugin.
        """
        raise NotImplementedError


class ObserverHooks:
    """Specification of the hook of an observer."""

    @hookspec
    def mission_event(self, event: Event) -> None:
        """Receive an event; called on the host, in a thread of the observer's own, in the order of the events.

        An entry point in the group `mission.observers` names the module; a mission file lists it under `observers:`.
        An observer that raises `StopTraining` ends the training run after the chunk that is under way. One that raises
        anything else, blocks or is too slow is reported once and dropped:

            from mission import Event, hookimpl

            @hookimpl
            def mission_event(event: Event) -> None:
                if event.kind == "evaluation":
                    print(event.phase, event.scalars["Evaluation/Success"])
        """


class TrajectoryHooks:
    """Specification of the hook of a format of trajectories."""

    @hookspec
    def mission_trajectory(self) -> TrajectoryFormat:
        """Return a format in which `mission fly --only N --trajectory DIR --format NAME` writes flights.

        An entry point in the group `mission.trajectories` names a module with one such function; the entry point's name
        is that of the format:

            from mission import TrajectoryFormat, hookimpl

            def files(trajectories, options):
                return {f"flight-{one.number}.txt": one.outcome + "\n" for one in trajectories}

            @hookimpl
            def mission_trajectory() -> TrajectoryFormat:
                return TrajectoryFormat(files)

        A format that cannot write a flight raises a `mission.MissionError` that says why.

        Returns:
          One TrajectoryFormat.
        """
        raise NotImplementedError
