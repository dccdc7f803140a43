"""Register every installed phase with Gymnasium as `mission/NAME-v0`; Gymnasium calls it through an entry point.

It runs while `gymnasium` itself is imported, so it reads the metadata of distributions and imports no plugin.
"""

from __future__ import annotations

import importlib

from mission.missionfile.plugins import list_plugins


def register_phases() -> None:
    """Register the phases; the namespace `mission` is Gymnasium's, from the name of the entry point."""
    register = importlib.import_module("gymnasium.envs.registration").register
    for row in list_plugins():
        if row.duplicate:
            continue  # nothing says which of them is meant; Env("distribution:name") does
        register(
            id=f"{row.name}-v0",
            entry_point="mission.adapters.gymnasium:Env",
            vector_entry_point="mission.adapters.gymnasium:VectorEnv",
            kwargs={"phase": row.name},
        )
