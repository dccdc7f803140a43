"""Observations as tables: each entry is declared once, with its meaning and the way to compute it.

The names, the values and the table in the docstring of a phase all come from the same rows.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from operator import attrgetter
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import jax.numpy as jnp
from jax import Array

from mission import Environment, ObservationEntry
from mission_rocket.causes import Causes
from mission_rocket.physics.vector import Scalar, Vector

H = TypeVar("H")
S = TypeVar("S")
# A path in the state, as "measured.altitude", or a function of the phase and its state; a scalar, or a vector where
# the rows are its components.
Value = str | Callable[[Any, Any], Any]

LOCAL, BODY, NO_FRAME = "local", "body", "-"


class Scale(NamedTuple):
    """A transform to order one, the unit of its argument, and its description."""

    unit: str
    text: str
    transform: Callable[[Scalar], Scalar]


def linear(size: float, unit: str, about: float = 0.0, most: float | None = None) -> Scale:
    """Return (x - about) / size, at most `most`."""
    text = f"{size:g}" + (f" about {about:g}" if about else "") + (f", at most {most:g}" if most is not None else "")

    def transform(value: Scalar) -> Scalar:
        # x / size -+ 1 is how the shipped policies were trained; the other form differs in the last bits.
        shift_last = not about or abs(about) == size
        scaled = value / size - about / size if shift_last else (value - about) / size
        return scaled if most is None else jnp.minimum(scaled, most)

    return Scale(unit, text, transform)


def log(size: float, unit: str, per: float = 1.0, less: float = 0.0) -> Scale:
    """Return sign(x) log(1 + |x| / size) / per - less: fine near zero, with bounded growth far away."""
    text = f"log, {size:g}" + (f"; divided by {per:g}" if per != 1.0 else "") + (f", less {less:g}" if less else "")

    def transform(value: Scalar) -> Scalar:
        # jnp.abs and jnp.sign have no slope at 0, where a vehicle on the pad is
        negative = value < 0.0
        logged = jnp.log1p(jnp.where(negative, -value, value) / size)
        return jnp.where(negative, -logged, logged) / per - less

    return Scale(unit, text, transform)


def tanh(size: float, unit: str) -> Scale:
    """Return tanh(x / size)."""
    return Scale(unit, f"tanh, {size:g}", lambda value: jnp.tanh(value / size))


class Row(NamedTuple):
    """One entry of an observation; `component` selects a component of a vector."""

    name: str
    quantity: str
    frame: str
    scale: Scale
    value: Value
    component: int | None = None

    def compute(self, phase: Any, state: Any) -> Array:
        """Compute this entry for a state of a phase, float32 []."""
        return self.scaled(self.valued(phase, state))

    def valued(self, phase: Any, state: Any) -> Any:
        """Compute the value, of which this entry is a component or the whole."""
        return attrgetter(self.value)(state) if isinstance(self.value, str) else self.value(phase, state)

    def scaled(self, value: Any) -> Array:
        """Return this entry of a value, float32 []."""
        value = value if self.component is None else value[self.component]
        return jnp.asarray(self.scale.transform(value), jnp.float32)


def row(name: str, quantity: str, frame: str, scale: Scale, value: Value) -> Row:
    """Return the row of a scalar."""
    return Row(name=name, quantity=quantity, frame=frame, scale=scale, value=value)


def rows(names: str, quantity: str, frame: str, scale: Scale, value: Value) -> tuple[Row, ...]:
    """Return one row per name; the first takes the first component of a vector, and so on."""
    one = row("", quantity, frame, scale, value)
    return tuple(one._replace(name=name, component=at) for at, name in enumerate(names.split()))


def flag(name: str, quantity: str, value: Value) -> Row:
    """Return the row of a condition or of a fraction, which needs no scale."""
    return row(name, quantity, NO_FRAME, linear(1.0, "-"), value)


def rate_rows(size: float) -> tuple[Row, ...]:
    """Return the rows of the angular velocity."""
    return rows("rate_x rate_y rate_z", "angular velocity", BODY, linear(size, "rad/s"), RATES)


@functools.cache
def in_body(path: str) -> Value:
    """Return a function that turns a local vector into body axes."""
    return lambda phase, state: state.measured.in_body(attrgetter(path)(state))


@functools.cache
def across(path: str) -> Value:
    """Return a function that computes the horizontal part of a local vector in body axes."""

    def components(phase: Any, state: Any) -> Vector:
        vector = attrgetter(path)(state)
        return state.measured.in_body(Vector(vector.x, vector.y, jnp.zeros_like(vector.x)))

    return components


def reserve(phase: Any, state: Any) -> Scalar:
    """Return the propellant above the reserve of the phase [kg]."""
    return state.measured.motion.propellant - phase.params.reserve_kg


@functools.cache
def over_limit(actuator: str) -> Value:
    """Return a function that computes the angles of an actuator divided by its limit."""

    def angles(phase: Any, state: Any) -> Vector:
        part = getattr(phase.body, actuator)
        return getattr(state.measured.motion, actuator) * (1.0 / (part.limit if part else 1.0))

    return angles


def excess_lag(phase: Any, state: Any) -> Scalar:
    """Return the estimated minus the nominal lag of the engines [s]."""
    return state.estimate.lag - phase.body.engines[0].lag


POSITION, VELOCITY = "measured.motion.position", "measured.motion.velocity"
RATES = "measured.motion.rates"
FORCE, TURN = "measured.specific_force", "measured.angular_acceleration"
SHARE = linear(1.0, "-")
LEVEL = rows("level", "thrust level of the centre engine", NO_FRAME, SHARE, "measured.motion.levels")[0]
LAG = row("lag", "estimated less nominal lag of the engines", NO_FRAME, linear(0.1, "s"), excess_lag)
OFFSET = rows("offset_x offset_y", "offset of the axial force", BODY, linear(0.1, "m"), "estimate.offset")
GIMBAL = rows("gimbal_x gimbal_y gimbal_z", "gimbal angle over its limit", BODY, SHARE, over_limit("gimbal"))
FINS = rows("fin_x fin_y fin_z", "fin angle over its limit", BODY, SHARE, over_limit("fins"))


class Observation(tuple[Row, ...]):
    """The rows of a phase's observation, in order."""

    @property
    def names(self) -> tuple[str, ...]:
        """Return the name of each entry."""
        return tuple(row.name for row in self)

    @property
    def entries(self) -> tuple[ObservationEntry, ...]:
        """Return what each entry is."""
        return tuple(ObservationEntry(row.quantity, row.scale.unit, row.scale.text, row.frame) for row in self)

    def values(self, phase: Any, state: Any) -> Array:
        """Compute the observation, float32 [O]; rows of one vector compute it once."""
        values: dict[Value, Any] = {}
        for row in self:
            if row.value not in values:
                values[row.value] = row.valued(phase, state)
        return jnp.stack([row.scaled(values[row.value]) for row in self])

    def table(self) -> str:
        """Return the table that the docstring of the phase shows."""
        cells = [("name", "quantity", "unit", "scale", "frame")]
        cells += [(row.name, row.quantity, row.scale.unit, row.scale.text, row.frame) for row in self]
        widths = [max(len(line[at]) for line in cells) for at in range(len(cells[0]))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]
        lines.insert(1, "  ".join("-" * width for width in widths))
        return "\n".join(line.rstrip() for line in lines)


class ObservedPhase(Environment[H, S], Generic[H, S]):
    """A phase that declares its observation as a table; the table is appended to the docstring of the class."""

    observation: ClassVar[Observation]
    causes: Causes  # ty: ignore[incompatible-mutable-override]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "observation" in cls.__dict__:
            cls.observation_names = cls.observation.names
            cls.observation_entries = cls.observation.entries
            text, size = inspect.cleandoc(cls.__doc__ or ""), len(cls.observation)
            cls.__doc__ = f"{text}\n\nObservation ({size}):\n\n{cls.observation.table()}\n"

    def observe(self, state: S) -> Array:
        """Compute the observation of a state, float32 [O]."""
        return self.observation.values(self, state)
