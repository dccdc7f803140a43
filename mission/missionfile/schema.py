"""The JSON Schema of mission files, for editors, with the settings of the learner spelled out."""

from __future__ import annotations

from typing import Any

from mission.learner import config_class
from mission.missionfile.models import MissionFile


def mission_schema() -> dict[str, Any]:
    """Return the schema that `mission schema` prints; it leaves the parameters of plugins open."""
    schema, learner = MissionFile.model_json_schema(), config_class("sac")
    sac = learner.model_json_schema(ref_template="#/$defs/{model}")
    schema["$defs"] |= sac.pop("$defs")
    sac["properties"]["preset"] = {
        "enum": sorted(learner.presets),
        "description": "Replaces the plugin's defaults before the other keys apply.",
    }
    schema["$defs"][learner.__name__] = sac
    schema["$defs"]["PhaseEntry"]["properties"]["sac"] = {"$ref": f"#/$defs/{learner.__name__}"}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
