"""mission: train and fly chains of flight phases with Soft Actor-Critic.

Everything public is here and loads on first use, so that `import mission` stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mission.errors import MissionError
    from mission.hooks import Event, hookimpl
    from mission.missionfile.models import MissionFile
    from mission.missionfile.reading import load_mission
    from mission.missionfile.resolve import resolve_mission
    from mission.phase import Environment, Limit, Outcome, Phase, PhaseSpec
    from mission.report.charts import Chart, histogram, time_chart
    from mission.report.records import FlightRecords, Section
    from mission.report.summary import MissionReport, PhaseRecord, TrainingRecord
    from mission.sac.config import ActorConfig, FillConfig, NetworkConfig, SacConfig, WarmUpConfig
    from mission.training.mission import fly_mission, train_mission

__version__ = "0.1.0"

_HOME = {
    "Chart": "report.charts",
    "histogram": "report.charts",
    "time_chart": "report.charts",
    "MissionFile": "missionfile.models",
    "MissionError": "errors",
    "Event": "hooks",
    "hookimpl": "hooks",
    "load_mission": "missionfile.reading",
    "Environment": "phase",
    "Limit": "phase",
    "Outcome": "phase",
    "Phase": "phase",
    "PhaseSpec": "phase",
    "FlightRecords": "report.records",
    "Section": "report.records",
    "MissionReport": "report.summary",
    "PhaseRecord": "report.summary",
    "TrainingRecord": "report.summary",
    "resolve_mission": "missionfile.resolve",
    "fly_mission": "training.mission",
    "train_mission": "training.mission",
    "ActorConfig": "sac.config",
    "FillConfig": "sac.config",
    "NetworkConfig": "sac.config",
    "SacConfig": "sac.config",
    "WarmUpConfig": "sac.config",
}

__all__ = [
    "ActorConfig",
    "Chart",
    "Environment",
    "Event",
    "FillConfig",
    "FlightRecords",
    "Limit",
    "MissionError",
    "MissionFile",
    "MissionReport",
    "NetworkConfig",
    "Outcome",
    "Phase",
    "PhaseRecord",
    "PhaseSpec",
    "SacConfig",
    "Section",
    "TrainingRecord",
    "WarmUpConfig",
    "fly_mission",
    "histogram",
    "hookimpl",
    "load_mission",
    "resolve_mission",
    "time_chart",
    "train_mission",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'mission' has no attribute {name!r}")
    return getattr(importlib.import_module(f"mission.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
