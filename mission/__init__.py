"""mission: train and fly chains of flight phases with Soft Actor-Critic.

Everything public is here and loads on first use, so that `import mission` stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mission.config import MissionFile
    from mission.errors import MissionError
    from mission.hooks import Event, hookimpl
    from mission.loading import load_mission
    from mission.phase import Environment, Limit, Outcome, Phase, PhaseSpec
    from mission.report import MissionReport, PhaseRecord, TrainingRecord
    from mission.reports.charts import Chart, histogram, time_chart
    from mission.reports.records import FlightRecords, Section
    from mission.resolve import resolve_mission
    from mission.runner import fly_mission, train_mission
    from mission.sac_config import ActorConfig, FillConfig, NetworkConfig, SacConfig, WarmUpConfig

__version__ = "0.1.0"

_HOME = {
    "Chart": "reports.charts",
    "histogram": "reports.charts",
    "time_chart": "reports.charts",
    "MissionFile": "config",
    "MissionError": "errors",
    "Event": "hooks",
    "hookimpl": "hooks",
    "load_mission": "loading",
    "Environment": "phase",
    "Limit": "phase",
    "Outcome": "phase",
    "Phase": "phase",
    "PhaseSpec": "phase",
    "FlightRecords": "reports.records",
    "Section": "reports.records",
    "MissionReport": "report",
    "PhaseRecord": "report",
    "TrainingRecord": "report",
    "resolve_mission": "resolve",
    "fly_mission": "runner",
    "train_mission": "runner",
    "ActorConfig": "sac_config",
    "FillConfig": "sac_config",
    "NetworkConfig": "sac_config",
    "SacConfig": "sac_config",
    "WarmUpConfig": "sac_config",
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
