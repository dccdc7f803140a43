"""The base of every pydantic model of the engine, and the number types that models share."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, JsonValue
from pydantic.fields import FieldInfo

Positive = Annotated[float, Field(gt=0)]
Fraction01 = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0, le=2**63 - 1)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]


class StrictModel(BaseModel):
    """A model without coercion and unknown keys: immutable, with finite numbers only."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


# Marks an option that changes results even at its default: `Field(0.0, json_schema_extra=CHANGES_RESULTS)`. Policies
# that were stored before the option existed are then stale; a new option without the mark leaves them valid.
CHANGES_RESULTS: dict[str, JsonValue] = {"changes_results": True}


def changes_results(field: FieldInfo) -> bool:
    """Return whether a field carries the mark `changes_results`."""
    extra = field.json_schema_extra
    return isinstance(extra, dict) and extra.get("changes_results") is True
