"""The space of a search: the varied settings and their ranges; read from a YAML file or built in Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, JsonValue, RootModel, ValidationError, model_validator

from mission.errors import InputError, MissionError
from mission.missionfile.arguments import given_path
from mission.missionfile.models import Source
from mission.missionfile.reading import explain, parse_yaml, read_text, read_yaml
from mission.scale.combinations import check_key, override
from mission.strict import StrictModel

Number = int | float
Scalar = str | bool | int | float | None
_WHAT = "a space file"


class Dimension(StrictModel):
    """The values of one setting: a range from `low` to `high`, or a list of choices."""

    low: Number | None = Field(None, description="Least value.")
    high: Number | None = Field(None, description="Largest value.")
    log: bool = Field(False, description="Draw the logarithm evenly; both ends must be positive.")
    step: Number | None = Field(None, description="Distance between values.")
    choices: Annotated[tuple[Scalar, ...] | None, Field(strict=False)] = Field(
        None, description="Values to choose from."
    )

    @model_validator(mode="after")
    def _is_a_range_or_choices(self) -> Dimension:
        if self.choices is not None:
            if self.low is not None or self.high is not None or self.step is not None or self.log:
                raise ValueError("either low and high, or choices")
            if not self.choices or len({repr(choice) for choice in self.choices}) < len(self.choices):
                raise ValueError("choices that are different, at least one")
            return self
        if self.low is None or self.high is None:
            raise ValueError("low and high, or choices")
        if self.low >= self.high:
            raise ValueError("low below high")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("with log: a positive low, and no step")
        if self.step is not None and not 0 < self.step <= self.high - self.low:
            raise ValueError("a positive step of at most high - low")
        return self

    @property
    def whole(self) -> bool:
        """True for a range of integers."""
        return all(type(value) in (int, type(None)) for value in (self.low, self.high, self.step))

    def ends(self) -> tuple[JsonValue, ...]:
        """Return the values that are tried on the mission file before the first trial."""
        return self.choices if self.choices is not None else (self.low, self.high)


class Space(RootModel[dict[str, Dimension]]):
    """The settings that vary, by key as for `--set`, such as `phases.burn.sac.gamma`."""

    model_config = ConfigDict(strict=True, frozen=True)

    @model_validator(mode="after")
    def _varies_something(self) -> Space:
        if not self.root:
            raise ValueError("at least one setting")
        return self


def load_space(given: str | Path | Mapping[str, Any]) -> tuple[Space, Source]:
    """Return a space, and the places of its keys for messages.

    Args:
      given: a YAML file, or the same as a mapping.

    Raises:
      InputError: names the position of the error.
    """
    if isinstance(given, Mapping):
        source = Source(Path("space"), {}, {})
        try:
            return Space.model_validate(dict(given)), source
        except ValidationError as error:
            raise explain(error, source, (), Space) from None
    path = given_path(given, "--space")
    space = read_yaml(path, Space, _WHAT)
    return space, Source(path, parse_yaml(read_text(path, _WHAT), path.name)[1], {})


def check_space(space: Space, source: Source, accepts: Callable[[str], None]) -> Space:
    """Try both ends of each range and each choice on the mission file; nothing is trained.

    A range of integers becomes one of floats if the setting accepts fractions and no step is given.

    Args:
      space: to check.
      source: the places of its keys.
      accepts: raises a MissionError if the mission file is wrong with this "KEY=VALUE".

    Raises:
      InputError: names the place in the space, and what the mission file says about the value.
    """
    checked = {}
    for key, dimension in space.root.items():
        where = source.where((key,))
        check_key(key, where)
        for value in dimension.ends():
            try:
                accepts(override(key, value))
            except MissionError as error:
                raise InputError(where, expected=error.expected, found=error.found, remedy=error.remedy) from None
        checked[key] = dimension
        if dimension.low is not None and dimension.high is not None and dimension.whole and dimension.step is None:
            try:
                accepts(override(key, dimension.low + 0.5))
            except MissionError:
                continue
            ends = {"low": float(dimension.low), "high": float(dimension.high)}
            checked[key] = dimension.model_copy(update=ends)
    return Space(checked)
