"""JSON Schema of mission files, for editors: the models', with the SAC settings spelled out."""

from __future__ import annotations

from typing import Any

from mission.missionfile.models import MissionFile
from mission.sac.config import PRESETS, SacConfig


def mission_schema() -> dict[str, Any]:
    """The schema that `mission schema` prints. Plugins' own parameters stay open in it."""
    schema = MissionFile.model_json_schema()
    sac = SacConfig.model_json_schema(ref_template="#/$defs/{model}")
    schema["$defs"] |= sac.pop("$defs")
    sac["properties"]["preset"] = {
        "enum": sorted(PRESETS),
        "description": "Replaces the plugin's defaults before the other keys apply.",
    }
    schema["$defs"]["SacConfig"] = sac
    schema["$defs"]["PhaseEntry"]["properties"]["sac"] = {"$ref": "#/$defs/SacConfig"}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
