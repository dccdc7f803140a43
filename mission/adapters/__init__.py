"""Phases for other frameworks, and environments of other frameworks as phases; nothing in the engine needs this family.

The names below load on first use, because Gymnasium imports this package to find the registered environments.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mission.adapters.foreign import brax_phase, gymnax_phase, playground_phase

__all__ = ["brax_phase", "gymnax_phase", "playground_phase"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'mission.adapters' has no attribute {name!r}")
    return getattr(importlib.import_module("mission.adapters.foreign"), name)
