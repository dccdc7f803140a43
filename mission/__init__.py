"""mission: train and fly chains of flight phases with Soft Actor-Critic.

The public names are below. They load on first use, so that `import mission` stays light.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # the module `typing` takes half of the time until the command line can handle Ctrl-C
if TYPE_CHECKING:
    from typing import Any

    from mission.adapters.policy import Policy, StoredBank, load_bank, load_policy
    from mission.adapters.vehicles import EnvStep, PhaseEnv, make_env
    from mission.errors import MissionError
    from mission.learner import FillConfig, ImitationConfig, Learner, LearnerConfig
    from mission.missionfile.hooks import Event, StopTraining, TrajectoryFormat, hookimpl
    from mission.missionfile.models import MissionFile
    from mission.missionfile.phases import Phase
    from mission.missionfile.reading import load_mission, read_text, read_yaml
    from mission.missionfile.resolve import resolve_mission
    from mission.phase import Environment, Limit, ObservationEntry, Outcome, PhaseSpec
    from mission.report.charts import Chart, histogram, time_chart
    from mission.report.flight_records import FlightRecords, Section
    from mission.report.markup import escape
    from mission.report.merging import merge_reports
    from mission.report.summary import MissionSummary, PhaseSummary
    from mission.report.trajectories.formats import write_trajectories
    from mission.report.trajectories.record import Trajectory, TrajectoryEvent, TrajectoryPhase
    from mission.sac.config import ActorConfig, NetworkConfig, SacConfig, WarmUpConfig
    from mission.scale.fly import fly_mission
    from mission.scale.summary import SweepSummary
    from mission.scale.sweep import sweep
    from mission.scale.tune import TuneSummary, tune
    from mission.training.ending import TrainingSummary
    from mission.training.mission import train_mission

__version__ = "0.1.0"

_HOME = {
    "ActorConfig": "sac.config",
    "Chart": "report.charts",
    "EnvStep": "adapters.vehicles",
    "Environment": "phase",
    "Event": "missionfile.hooks",
    "FillConfig": "learner",
    "FlightRecords": "report.flight_records",
    "ImitationConfig": "learner",
    "Learner": "learner",
    "LearnerConfig": "learner",
    "Limit": "phase",
    "MissionError": "errors",
    "MissionFile": "missionfile.models",
    "MissionSummary": "report.summary",
    "NetworkConfig": "sac.config",
    "ObservationEntry": "phase",
    "Outcome": "phase",
    "Phase": "missionfile.phases",
    "PhaseEnv": "adapters.vehicles",
    "PhaseSpec": "phase",
    "PhaseSummary": "report.summary",
    "Policy": "adapters.policy",
    "SacConfig": "sac.config",
    "Section": "report.flight_records",
    "StopTraining": "missionfile.hooks",
    "StoredBank": "adapters.policy",
    "SweepSummary": "scale.summary",
    "TrainingSummary": "training.ending",
    "Trajectory": "report.trajectories.record",
    "TrajectoryEvent": "report.trajectories.record",
    "TrajectoryFormat": "missionfile.hooks",
    "TrajectoryPhase": "report.trajectories.record",
    "TuneSummary": "scale.tune",
    "WarmUpConfig": "sac.config",
    "escape": "report.markup",
    "fly_mission": "scale.fly",
    "histogram": "report.charts",
    "hookimpl": "missionfile.hooks",
    "load_bank": "adapters.policy",
    "load_mission": "missionfile.reading",
    "load_policy": "adapters.policy",
    "make_env": "adapters.vehicles",
    "merge_reports": "report.merging",
    "read_text": "missionfile.reading",
    "read_yaml": "missionfile.reading",
    "resolve_mission": "missionfile.resolve",
    "sweep": "scale.sweep",
    "time_chart": "report.charts",
    "train_mission": "training.mission",
    "tune": "scale.tune",
    "write_trajectories": "report.trajectories.formats",
}

__all__ = [
    "ActorConfig",
    "Chart",
    "EnvStep",
    "Environment",
    "Event",
    "FillConfig",
    "FlightRecords",
    "ImitationConfig",
    "Learner",
    "LearnerConfig",
    "Limit",
    "MissionError",
    "MissionFile",
    "MissionSummary",
    "NetworkConfig",
    "ObservationEntry",
    "Outcome",
    "Phase",
    "PhaseEnv",
    "PhaseSpec",
    "PhaseSummary",
    "Policy",
    "SacConfig",
    "Section",
    "StopTraining",
    "StoredBank",
    "SweepSummary",
    "TrainingSummary",
    "Trajectory",
    "TrajectoryEvent",
    "TrajectoryFormat",
    "TrajectoryPhase",
    "TuneSummary",
    "WarmUpConfig",
    "escape",
    "fly_mission",
    "histogram",
    "hookimpl",
    "load_bank",
    "load_mission",
    "load_policy",
    "make_env",
    "merge_reports",
    "read_text",
    "read_yaml",
    "resolve_mission",
    "sweep",
    "time_chart",
    "train_mission",
    "tune",
    "write_trajectories",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'mission' has no attribute {name!r}")
    return getattr(importlib.import_module(f"mission.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
