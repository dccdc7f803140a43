"""The contract between the engine and a phase of flight.

`H` is the state handed from one phase to the next, `S` a phase's own state: pytrees of the plugin's
choosing, opaque to the engine. Everything is written for ONE vehicle; the engine vectorises.

Shapes: O observation, A action. A `key` argument is consumed: the callee may split it, the caller
does not use it again.
"""

from __future__ import annotations

import abc
import dataclasses
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from jax import Array
    from pydantic import BaseModel

    from mission.missionfile.models import PhaseEntry
    from mission.report.records import FlightRecords, Section
    from mission.sac.config import SacConfig

H = TypeVar("H")
S = TypeVar("S")

TIME_OUT = "time_out"
NON_FINITE = "non_finite"


class Outcome(NamedTuple):
    """How a vehicle stands; decided once, from the state alone.

    `terminated` bool []: physics or goal ended it, so nothing is bootstrapped from here.
    `success` bool []: implies `terminated`.
    `cause` int32 []: index into `Environment.causes` (0 is success); no meaning before `terminated`.
    """

    terminated: Array
    success: Array
    cause: Array


class Environment(abc.ABC, Generic[H, S]):
    """One phase of flight for one vehicle. Concrete classes are frozen dataclasses with `eq=False`.

    Attributes:
      observation_names: O names, in the order of `observe`.
      action_names: A names, in the order of the action; empty where a guide flies alone.
      causes: `causes[0]` names success, the rest ways to fail. The engine appends `time_out` and
        `non_finite`.
      control_period_s: seconds between two actions.
      max_steps: time limit in control steps. A time-out fails the flight; in training it bootstraps.

    An environment with a classical controller overrides `guide(state) -> action`.
    """

    observation_names: tuple[str, ...]
    action_names: tuple[str, ...]
    causes: tuple[str, ...]
    control_period_s: float
    max_steps: int
    guide: ClassVar[Any] = None

    @abc.abstractmethod
    def start(self, key: Array) -> H:
        """Nominal entry state; its tree, shapes and dtypes declare what the phase accepts."""

    @abc.abstractmethod
    def enter(self, key: Array, handoff: H) -> S:
        """Own bookkeeping and disturbances on top of what is handed over; normalises it; cheap."""

    @abc.abstractmethod
    def step(self, key: Array, state: S, action: Array) -> S:
        """One control period under `action` [A] in [-1, 1]; stops at an event inside the period."""

    @abc.abstractmethod
    def observe(self, state: S) -> Array:
        """float32 [O], each entry of order one."""

    @abc.abstractmethod
    def outcome(self, state: S) -> Outcome:
        """Whether and how the flight of this phase has ended."""

    @abc.abstractmethod
    def leave(self, state: S) -> H:
        """What the next phase receives."""

    @abc.abstractmethod
    def telemetry(self, state: S) -> dict[str, Array]:
        """Named scalar channels ending in their unit (`position_m`).

        The optional channel `phase_time_s` is the time since `enter`; with it the reported duration
        is exact to the event, without it a whole number of control periods.
        """


@dataclasses.dataclass(frozen=True)
class Limit:
    """A bound on a telemetry channel, reported as a margin over the whole phase."""

    channel: str
    minimum: float | None = None
    maximum: float | None = None


@dataclasses.dataclass(frozen=True)
class PhaseSpec:
    """What a plugin's hook `mission_phase` returns.

    Attributes:
      params: the plugin's own parameter model.
      environment: parameters -> Environment.
      reward: parameters -> (state, action, next state, outcome of it) -> named scalar terms. The
        engine sums the terms and logs each. May be None where `sac` is None.
      limits: parameters -> limits on telemetry channels.
      sac: hyper-parameters of the agent; None where the phase is flown by its guide, never trained.
      report: records of the whole mission -> sections that this plugin adds to the report page; asked
        once, however many phases name the same function (docs/reports.md).
    """

    params: type[BaseModel]
    environment: Callable[[Any], Environment]
    reward: Callable[[Any], Callable[[Any, Array, Any, Outcome], dict[str, Array]]] | None = None
    limits: Callable[[Any], tuple[Limit, ...]] = lambda params: ()
    sac: SacConfig | None = None
    report: Callable[[FlightRecords], tuple[Section, ...]] | None = None


@dataclasses.dataclass(frozen=True)
class PluginOrigin:
    """Where a plugin came from; goes into every checkpoint and error message."""

    name: str
    distribution: str
    version: str
    source_sha256: str

    def __str__(self) -> str:
        return f'plugin "{self.name}" of {self.distribution} {self.version}'


@dataclasses.dataclass(frozen=True, eq=False)
class Phase:
    """A phase of a mission, resolved: plugin loaded, parameters validated, contract checked.

    Hashed by identity, so it is a static argument of compiled functions.
    """

    name: str
    origin: PluginOrigin
    params: BaseModel
    environment: Environment
    reward: Callable[[Any, Array, Any, Outcome], dict[str, Array]] | None
    limits: tuple[Limit, ...]
    sac: SacConfig | None
    entry: PhaseEntry
    report: Callable[[FlightRecords], tuple[Section, ...]] | None = None
    channels: tuple[str, ...] = ()  # of its telemetry, once the contract is checked
    leaves: Any = None  # shapes and dtypes of what it hands over, once the contract is checked

    @property
    def causes(self) -> tuple[str, ...]:
        """The environment's causes and the engine's two."""
        return (*self.environment.causes, TIME_OUT, NON_FINITE)

    @property
    def trained(self) -> bool:
        """Whether an agent flies it (True) or its guide (False)."""
        return self.sac is not None and self.entry.policy == "agent"

    def configuration(self) -> dict[str, Any]:
        """What decides the trained result; budget, gate, observers and seed are left out."""
        entry = self.entry
        return {
            "name": self.name,
            "plugin": entry.plugin.rpartition(":")[2],  # whose it is stands in the origin, however it was written
            "policy": "agent" if self.trained else "guide",
            "params": json.loads(self.params.model_dump_json()),
            "sac": self.sac.model_dump(mode="json") if self.sac is not None else None,
            "restart": entry.restart.model_dump(mode="json"),
            "bank": entry.bank.model_dump(mode="json"),
            "evaluation": entry.evaluation.model_dump(mode="json"),
        }
