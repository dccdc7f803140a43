"""The differences between a stored configuration and the current one, both read through the current models.

So a new option whose default keeps the old behaviour is no difference. An option with a mark (`mission.strict`) is one,
and so is a stored value that a current model rejects.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, JsonValue, ValidationError

from mission.errors import exception_text
from mission.missionfile.phases import Phase, PhaseConfiguration, json_of
from mission.missionfile.resolve import first_change
from mission.strict import changes_results

M = TypeVar("M", bound=BaseModel)


def configuration_change(stored: Sequence[PhaseConfiguration], phases: Sequence[Phase]) -> str:
    """Return the first difference between a stored configuration and that of the current phases; empty if none.

    Args:
      stored: one per phase, in the order of flight.
      phases: the resolved phases to compare with, as many.
    """
    current = [phase.configuration() for phase in phases]
    if len(stored) != len(current):
        return first_change([{"name": one.name} for one in stored], [{"name": one.name} for one in current])
    for before, now, phase in zip(stored, current, phases, strict=True):
        at, labels = f"phases.{before.name}", {"name", "plugin"}
        change = first_change(before.model_dump(include=labels), now.model_dump(include=labels), at)
        models = {"params": phase.params, "sac": phase.learner} | {
            part: getattr(phase.entry, part) for part in ("restart", "bank", "evaluation")
        }
        for part, model in models.items():
            change = change or model_change(getattr(before, part), model, f"{at}.{part}", phase.folder)
        wide = phase.wide.params if phase.wide is not None else None
        change = change or model_change(before.training_params, wide, f"{at}.training_params", phase.folder)
        change = change or first_change(
            list(before.tolerated), list(now.tolerated), f"{at}: causes that do not fail it"
        )
        change = change or first_change(before.training_share, now.training_share, f"{at}.training_share")
        if change:
            return change
    return ""


def parameters_change(stored: Mapping[str, dict[str, JsonValue]], phases: Sequence[Phase]) -> str:
    """Return the first difference between the parameters in a report and the current ones; empty if none.

    Args:
      stored: name of a phase -> its parameters as JSON, in the order of flight.
      phases: the resolved phases to compare with.
    """
    names = [phase.name for phase in phases]
    if list(stored) != names:
        return first_change([{"name": name} for name in stored], [{"name": name} for name in names])
    changes = (
        model_change(stored[phase.name], phase.params, f"phases.{phase.name}.params", phase.folder) for phase in phases
    )
    return next(filter(None, changes), "")


def model_change(stored: dict[str, JsonValue] | None, model: BaseModel | None, at: str, folder: Path = Path()) -> str:
    """Return the first difference between stored settings and a current model; empty if none.

    Args:
      stored: what an older version of the model wrote as JSON; None if there were no such settings.
      model: the current settings, or None.
      at: their place, for the message.
      folder: the base of relative paths in parameters.
    """
    current = None if model is None else json_of(model)
    if stored is None or model is None or current is None:
        return first_change(stored, current, at)
    change = next(_new_or_gone(model, stored, at), "")
    if change or stored == current:
        return change
    try:
        read = read_settings(type(model), stored, folder)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in (at, *first["loc"]))
        if first["type"] == "missing":
            return f"{key} is required today and was not stored"
        return f"{key} was {_shown(_value(stored, first['loc']))}, which is not accepted any more: {first['msg']}"
    except Exception as error:  # of a plugin's validator
        return f"{at} is not accepted any more: {exception_text(error)}"
    return first_change(json_of(read), current, at)


def read_settings(model: type[M], stored: Mapping[str, JsonValue], folder: Path) -> M:
    """Return stored settings, read through their current model; relative paths in them are relative to `folder`.

    Raises:
      ValidationError: the current model does not accept them.
    """
    known = {key: value for key, value in stored.items() if key not in model.model_computed_fields}
    return model.model_validate_json(json.dumps(known), context={"folder": folder}, by_alias=True, by_name=True)


def _new_or_gone(model: BaseModel, stored: Mapping[str, Any], at: str) -> Iterator[str]:
    """Yield the marked options that a stored mapping lacks, and its keys that the current model would ignore."""
    fields = type(model).model_fields
    for name, field in fields.items():
        value, below = getattr(model, name), stored.get(name)
        if name not in stored and changes_results(field):
            yield f"{at}.{name} is new and changes results; it is {_shown(json_of(model).get(name))}"
        for label, part, settings in _models_in(value, below):
            yield from _new_or_gone(part, settings if isinstance(settings, dict) else {}, f"{at}.{name}{label}")
    if type(model).model_config.get("extra", "ignore") == "ignore":
        for key in stored:
            if key not in fields and key not in type(model).model_computed_fields:
                yield f"{at}.{key} was {_shown(stored[key])}, which is no option any more"


def _models_in(value: Any, stored: Any) -> Iterator[tuple[str, BaseModel, Any]]:
    """Yield the models that a field's value consists of, each with what was stored in its place."""
    if isinstance(value, BaseModel):
        yield "", value, stored
    elif isinstance(value, tuple | list):
        for i, item in enumerate(value):
            below = stored[i] if isinstance(stored, list) and i < len(stored) else None
            yield from ((f"[{i}]{label}", part, settings) for label, part, settings in _models_in(item, below))
    elif isinstance(value, dict):
        for key, item in value.items():
            below = stored.get(key) if isinstance(stored, dict) else None
            yield from ((f".{key}{label}", part, settings) for label, part, settings in _models_in(item, below))


def _value(settings: Any, location: Sequence[str | int]) -> Any:
    """Return the stored value at a place of a pydantic error; None where the place is not one of the settings."""
    for part in location:
        try:
            settings = settings[part]
        except (KeyError, IndexError, TypeError):  # such as the name of a union's branch
            continue
    return settings


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
