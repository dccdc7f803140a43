"""mission-rocket: the flight of a reusable booster as phases for the mission engine.

Other distributions may use the names below, and the modules `mission_rocket.physics.*`; everything loads on first use.
A phase of the booster is a subclass of `BoosterPhase`; phases/landing_burn.py is a good template.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mission_rocket.booster import BoosterPhase, Box, FlightParams, booster_spec, residual_sac
    from mission_rocket.causes import Causes
    from mission_rocket.controls import Controls, Setting
    from mission_rocket.dispersions import Dispersions
    from mission_rocket.guides.guidance import GuidanceLaw
    from mission_rocket.measurement import Measurement, measure
    from mission_rocket.observation import Observation, ObservedPhase, Row
    from mission_rocket.physics.state import Handover
    from mission_rocket.stages import StageParams, StagePhase
    from mission_rocket.vehicles import Vehicle, build_body, load_vehicle, vehicle_schema

_HOME = {
    "BoosterPhase": "booster",
    "Box": "booster",
    "Causes": "causes",
    "Controls": "controls",
    "Dispersions": "dispersions",
    "FlightParams": "booster",
    "GuidanceLaw": "guides.guidance",
    "Handover": "physics.state",
    "Measurement": "measurement",
    "Observation": "observation",
    "ObservedPhase": "observation",
    "Row": "observation",
    "Setting": "controls",
    "StageParams": "stages",
    "StagePhase": "stages",
    "Vehicle": "vehicles",
    "booster_spec": "booster",
    "build_body": "vehicles",
    "load_vehicle": "vehicles",
    "measure": "measurement",
    "residual_sac": "booster",
    "vehicle_schema": "vehicles",
}

__all__ = [
    "BoosterPhase",
    "Box",
    "Causes",
    "Controls",
    "Dispersions",
    "FlightParams",
    "GuidanceLaw",
    "Handover",
    "Measurement",
    "Observation",
    "ObservedPhase",
    "Row",
    "Setting",
    "StageParams",
    "StagePhase",
    "Vehicle",
    "booster_spec",
    "build_body",
    "load_vehicle",
    "measure",
    "residual_sac",
    "vehicle_schema",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'mission_rocket' has no attribute {name!r}")
    return getattr(importlib.import_module(f"mission_rocket.{_HOME[name]}"), name)
