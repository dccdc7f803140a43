"""The base of every pydantic model of the engine, and the number types that models share."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0)]
Fraction01 = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class StrictModel(BaseModel):
    """No coercion, no unknown keys, immutable, finite numbers only."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
