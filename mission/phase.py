"""The contract between the engine and a phase of flight.

`H` is the state that is handed from one phase to the next, `S` the state of a phase: pytrees that the plugin
chooses, opaque to the engine. Everything is written for ONE vehicle; the engine vectorises it.

Shapes: O observation, A action, P privileged values. A `key` argument is consumed: the callee may split it, the caller does not use it
again.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from jax import Array
    from pydantic import BaseModel

    from mission.learner import LearnerConfig

H = TypeVar("H")
S = TypeVar("S")

TIME_OUT = "time_out"
NON_FINITE = "non_finite"
LOCAL_FILE = "local file"  # the distribution of a plugin that is a file beside the mission file
LOCAL_SOURCE = "local source"  # of a PhaseSpec that a program or a notebook passes itself


class Outcome(NamedTuple):
    """The status of a vehicle, decided once and from the state alone.

    `terminated` bool []: physics or the goal ended the phase, so nothing is bootstrapped from here.
    `success` bool []: implies `terminated`.
    `cause` int32 []: index into `Environment.causes` (0 is success); undefined before `terminated`.
    """

    terminated: Array
    success: Array
    cause: Array


class ObservationEntry(NamedTuple):
    """Description of one entry of an observation, for users who connect a policy to their sensors.

    `quantity` is given in words, with its `unit` and `frame` ("-" if it has none). `scale` says how the entry, which
    is of order one, is computed from the quantity.
    """

    quantity: str
    unit: str = "-"
    scale: str = "1"
    frame: str = "-"


class Environment(abc.ABC, Generic[H, S]):
    """One phase of flight for one vehicle. Concrete classes are frozen dataclasses with `eq=False`.

    Attributes:
      observation_names: O names, in the order of `observe`.
      action_names: A names, in the order of the action; empty if the phase has no controls.
      causes: `causes[0]` names the success, the others name the failures. The engine appends `time_out` and
        `non_finite`.
      control_period_s: seconds between two actions.
      max_steps: time limit in control steps. A time-out fails the flight; in training it bootstraps.
      time_out_cause: name of the time-out if surviving `max_steps` is the goal, `causes[0]` or another word. A
        time-out is then a success; in training it bootstraps as before. None: a time-out is a failure.
      box_causes: those of `causes` that mean only that the hand-over lies outside the box of the phase. With
        `chain: {judge: mission}` they do not fail a flight, except in the last phase; none by default.
      mirror: signs of the observation (O) and of the action (A), each 1 or -1: a flight whose observations and actions
        are multiplied by them is as likely, and as good, as the flight itself. None: no such symmetry is known.
      event_actions: the actions that are times to an event, such as an ignition.

      observation_entries: O descriptions of the observation, or none.
      observation_inputs: telemetry channels from which `observe_channels` computes the observation; an export to C
        then also computes the observation (docs/export.md). Empty: the observation cannot be computed from channels.

      privileged_names: P names of values that are used only in training, such as the dispersions of a flight; empty by
        default.

    An environment with a classical guidance law overrides `guide(state) -> action`. One with `privileged_names` overrides
    `privileged(state) -> Array`, float32 [P], each entry of order one. Override `perturb` and `redraw` if a hand-over
    is more than a list of independent numbers.
    """

    if TYPE_CHECKING:  # properties, because class attributes, fields, properties and methods may override them

        @property
        def observation_names(self) -> tuple[str, ...]:
            """Return O names."""
            ...

        @property
        def action_names(self) -> tuple[str, ...]:
            """Return A names."""
            ...

        @property
        def causes(self) -> tuple[str, ...]:
            """Return the names of the ends, success first."""
            ...

        @property
        def control_period_s(self) -> float:
            """Return the seconds between two actions."""
            ...

        @property
        def max_steps(self) -> int:
            """Return the time limit."""
            ...

        @property
        def time_out_cause(self) -> str | None:
            """Return the name of the time-out if surviving is the goal, or None."""
            ...

        @property
        def box_causes(self) -> tuple[str, ...]:
            """Return the causes that mean only that the hand-over lies outside the box."""
            ...

        @property
        def mirror(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
            """Return the signs of observation and action in a mirrored flight, or None."""
            ...

        @property
        def event_actions(self) -> tuple[str, ...]:
            """Return the names of the actions that are times to an event."""
            ...

        @property
        def guide(self) -> Any:
            """Return the guidance law, or None."""
            ...

        @property
        def observation_entries(self) -> tuple[ObservationEntry, ...]:
            """Return O descriptions, none by default."""
            ...

        @property
        def observation_inputs(self) -> tuple[str, ...]:
            """Return the channels from which the observation can be computed, none by default."""
            ...

        @property
        def privileged_names(self) -> tuple[str, ...]:
            """Return P names, none by default."""
            ...

        @property
        def privileged(self) -> Any:
            """Return the function of a state that gives the privileged values, or None."""
            ...

    else:
        time_out_cause = mirror = guide = privileged = None
        box_causes = event_actions = privileged_names = observation_entries = observation_inputs = ()

    def observe_channels(self, channels: dict[str, Array]) -> Array:
        """Return the observation, float32 [O], from the telemetry channels that `observation_inputs` names.

        The result must equal that of `observe` for the same state; override it if `observation_inputs` is not empty. An
        export translates it to C, so it must consist of elementary operations on scalars.
        """
        raise NotImplementedError

    def unguided(self) -> Environment[H, Any]:
        """Return the phase without the computations of its guide, for flights by an agent; its state may be smaller.

        Flights, observations, hand-overs and telemetry are the same.
        """
        return self

    @abc.abstractmethod
    def start(self, key: Array) -> H:
        """Return a nominal entry state; its tree, shapes and dtypes declare what the phase accepts."""

    def perturb(self, handoff: H, noise: H) -> H:
        """Return a hand-over with added noise, for the noisy restarts; it must be a valid state of a vehicle.

        The default adds the noise. Override it if a sum can leave the valid range: normalise, clip, keep counters.

        Args:
          handoff: a stored row of the previous phase's bank.
          noise: a tree like it: on float leaves a draw from the covariance of the bank, scaled by `restart.noise_scale`;
            zeros on the others.
        """
        import jax
        import jax.numpy as jnp

        return jax.tree.map(
            lambda leaf, move: leaf + move if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, handoff, noise
        )

    def redraw(self, key: Array, handoff: H) -> H:
        """Return a stored hand-over with its dispersions drawn again, for vehicles that train on `training_params`.

        The default returns it unchanged. Override it if `start` draws dispersions that are part of the hand-over.
        """
        return handoff

    @abc.abstractmethod
    def enter(self, key: Array, handoff: H) -> S:
        """Return the first state of the phase: the hand-over with the phase's own variables and disturbances."""

    @abc.abstractmethod
    def step(self, key: Array, state: S, action: Array) -> S:
        """Advance one control period under `action` [A] in [-1, 1]; stop at an event inside the period."""

    @abc.abstractmethod
    def observe(self, state: S) -> Array:
        """Return the observation, float32 [O], each entry of order one."""

    @abc.abstractmethod
    def outcome(self, state: S) -> Outcome:
        """Return whether and how the flight of this phase has ended."""

    @abc.abstractmethod
    def leave(self, state: S) -> Any:
        """Return the hand-over for the next phase; its type may differ from the one that this phase accepts."""

    @abc.abstractmethod
    def telemetry(self, state: S) -> dict[str, Array]:
        """Return named scalar channels that end in their unit (`position_m`).

        The optional channel `phase_time_s` is the time since `enter`. With it the reported duration is exact to the
        event; without it, it is a whole number of control periods.
        """


@dataclasses.dataclass(frozen=True)
class Limit:
    """A bound on a telemetry channel, reported as a margin over the whole phase."""

    channel: str
    minimum: float | None = None
    maximum: float | None = None


# (state, action, next state, outcome of the next state) -> named scalar terms
Reward = Callable[[Any, "Array", Any, Outcome], "dict[str, Array]"]


@dataclasses.dataclass(frozen=True)
class PhaseSpec:
    """The record that a plugin's hook `mission_phase` returns.

    Attributes:
      params: the plugin's own parameter model.
      environment: parameters -> Environment.
      reward: parameters -> (state, action, next state, its outcome) -> named scalar terms. The engine adds the terms
        and logs each of them. May be None if `sac` is None.
      limits: parameters -> limits on telemetry channels.
      sac: settings of the learner, a `SacConfig` for Soft Actor-Critic; None if the phase is flown by its guide and
        never trained.
      report: `mission.FlightRecords` of the whole mission -> the `mission.Section`s that this plugin adds to the
        report page; called once, however many phases name the same function (docs/reports.md).
    """

    params: type[BaseModel]
    environment: Callable[[Any], Environment]
    reward: Callable[[Any], Reward] | None = None
    limits: Callable[[Any], tuple[Limit, ...]] = lambda params: ()
    sac: LearnerConfig | None = None
    report: Callable[[Any], tuple[Any, ...]] | None = None


@dataclasses.dataclass(frozen=True)
class PluginOrigin:
    """Where a plugin comes from; part of every checkpoint and of error messages."""

    name: str
    distribution: str
    version: str
    source_sha256: str

    @property
    def local(self) -> bool:
        """Whether no distribution installs it: its classes have another name, or none, in the next process."""
        return self.distribution in (LOCAL_FILE, LOCAL_SOURCE)

    def __str__(self) -> str:
        return f'plugin "{self.name}" of {self.distribution} {self.version}'
