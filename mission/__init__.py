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
    from mission.errors import (
        DifferentFlightsError,
        FormatError,
        GateError,
        InputError,
        Interrupted,
        LinkError,
        MachineError,
        MissionError,
        NonFiniteError,
        ParityError,
        PluginError,
        StaleError,
        UnfinishedError,
    )
    from mission.flight.onboard.exporting import ExportSummary, export_policy
    from mission.learner import FillConfig, ImitationConfig, Learner, LearnerConfig
    from mission.machine.devices import configure
    from mission.missionfile.hooks import Event, StopTraining, TrajectoryFormat, hookimpl
    from mission.missionfile.models import MissionFile
    from mission.missionfile.phases import Phase
    from mission.missionfile.reading import load_mission, read_text, read_yaml
    from mission.missionfile.resolve import resolve_mission
    from mission.observers.metrics import Metrics, read_metrics
    from mission.phase import Environment, Limit, ObservationEntry, Outcome, PhaseSpec
    from mission.report.charts import Chart, histogram, time_chart
    from mission.report.checking import MissionCheck, check
    from mission.report.compare import Comparison, compare
    from mission.report.flight_records import FlightRecords, Section
    from mission.report.inline import ReportPage
    from mission.report.merging import merge_reports
    from mission.report.redraw import draw_report
    from mission.report.summary import MissionSummary, PhaseSummary
    from mission.report.tables import read_flights, read_tracks
    from mission.report.trajectories.formats import write_trajectories
    from mission.report.trajectories.record import Trajectory, TrajectoryEvent, TrajectoryPhase
    from mission.sac.config import ActorConfig, NetworkConfig, SacConfig, WarmUpConfig
    from mission.scale.fly import fly_mission
    from mission.scale.summary import SweepSummary
    from mission.scale.sweep import sweep
    from mission.scale.tune import TuneSummary, tune
    from mission.storage.markup import escape
    from mission.storage.tables import Table
    from mission.training.ending import TrainingSummaries, TrainingSummary
    from mission.training.mission import train_mission

__version__ = "0.1.0"

_HOME = {
    "ActorConfig": "sac.config",
    "Chart": "report.charts",
    "Comparison": "report.compare",
    "DifferentFlightsError": "errors",
    "EnvStep": "adapters.vehicles",
    "Environment": "phase",
    "Event": "missionfile.hooks",
    "ExportSummary": "flight.onboard.exporting",
    "FillConfig": "learner",
    "FlightRecords": "report.flight_records",
    "FormatError": "errors",
    "GateError": "errors",
    "ImitationConfig": "learner",
    "InputError": "errors",
    "Interrupted": "errors",
    "Learner": "learner",
    "LearnerConfig": "learner",
    "Limit": "phase",
    "LinkError": "errors",
    "MachineError": "errors",
    "Metrics": "observers.metrics",
    "MissionCheck": "report.checking",
    "MissionError": "errors",
    "MissionFile": "missionfile.models",
    "MissionSummary": "report.summary",
    "NetworkConfig": "sac.config",
    "NonFiniteError": "errors",
    "ObservationEntry": "phase",
    "Outcome": "phase",
    "ParityError": "errors",
    "Phase": "missionfile.phases",
    "PhaseEnv": "adapters.vehicles",
    "PhaseSpec": "phase",
    "PhaseSummary": "report.summary",
    "PluginError": "errors",
    "Policy": "adapters.policy",
    "ReportPage": "report.inline",
    "SacConfig": "sac.config",
    "Section": "report.flight_records",
    "StaleError": "errors",
    "StopTraining": "missionfile.hooks",
    "StoredBank": "adapters.policy",
    "SweepSummary": "scale.summary",
    "Table": "storage.tables",
    "TrainingSummaries": "training.ending",
    "TrainingSummary": "training.ending",
    "Trajectory": "report.trajectories.record",
    "TrajectoryEvent": "report.trajectories.record",
    "TrajectoryFormat": "missionfile.hooks",
    "TrajectoryPhase": "report.trajectories.record",
    "TuneSummary": "scale.tune",
    "UnfinishedError": "errors",
    "WarmUpConfig": "sac.config",
    "check": "report.checking",
    "compare": "report.compare",
    "configure": "machine.devices",
    "draw_report": "report.redraw",
    "escape": "storage.markup",
    "export_policy": "flight.onboard.exporting",
    "fly_mission": "scale.fly",
    "histogram": "report.charts",
    "hookimpl": "missionfile.hooks",
    "load_bank": "adapters.policy",
    "load_mission": "missionfile.reading",
    "load_policy": "adapters.policy",
    "make_env": "adapters.vehicles",
    "merge_reports": "report.merging",
    "read_flights": "report.tables",
    "read_metrics": "observers.metrics",
    "read_text": "missionfile.reading",
    "read_tracks": "report.tables",
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
    "Comparison",
    "DifferentFlightsError",
    "EnvStep",
    "Environment",
    "Event",
    "ExportSummary",
    "FillConfig",
    "FlightRecords",
    "FormatError",
    "GateError",
    "ImitationConfig",
    "InputError",
    "Interrupted",
    "Learner",
    "LearnerConfig",
    "Limit",
    "LinkError",
    "MachineError",
    "Metrics",
    "MissionCheck",
    "MissionError",
    "MissionFile",
    "MissionSummary",
    "NetworkConfig",
    "NonFiniteError",
    "ObservationEntry",
    "Outcome",
    "ParityError",
    "Phase",
    "PhaseEnv",
    "PhaseSpec",
    "PhaseSummary",
    "PluginError",
    "Policy",
    "ReportPage",
    "SacConfig",
    "Section",
    "StaleError",
    "StopTraining",
    "StoredBank",
    "SweepSummary",
    "Table",
    "TrainingSummaries",
    "TrainingSummary",
    "Trajectory",
    "TrajectoryEvent",
    "TrajectoryFormat",
    "TrajectoryPhase",
    "TuneSummary",
    "UnfinishedError",
    "WarmUpConfig",
    "check",
    "compare",
    "configure",
    "draw_report",
    "escape",
    "export_policy",
    "fly_mission",
    "histogram",
    "hookimpl",
    "load_bank",
    "load_mission",
    "load_policy",
    "make_env",
    "merge_reports",
    "read_flights",
    "read_metrics",
    "read_text",
    "read_tracks",
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
