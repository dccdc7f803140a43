"""The actions of a phase by name: from a guidance law to an action, and from an action to a setting.

An action lies in [-1, 1]. `throttle` runs from the least to full throttle, `time_to_...` from now to `longest_s`,
and the names of an actuator and an axis (`gimbal_yaw`) are shares of the actuator's limit.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from mission_rocket.physics.vector import Scalar, Vector
from mission_rocket.physics.vehicle import EngineGroup

EVENT = "time_to_"
CENTRED = Vector(0.0, 0.0, 0.0)
_AXES = {"yaw": 0, "pitch": 1, "roll": 2}


class Setting(NamedTuple):
    """The meaning of an action: throttle in [0, 1] from least to full, seconds to events, shares of the limits."""

    throttle: Scalar = 0.0
    seconds: Mapping[str, Scalar] = {}
    gimbal: Vector = CENTRED
    fin: Vector = CENTRED
    rcs: Vector = CENTRED


@dataclasses.dataclass(frozen=True, eq=False)
class Controls:
    """The actions of a phase; those named in `shares` get that fraction of the residual, all others get all of it."""

    names: tuple[str, ...]
    longest_s: float = 20.0
    fine_s: float | None = None  # below it times are coded linearly, above it by their logarithm; None: all linearly
    shares: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def events(self) -> tuple[int, ...]:
        """Return the positions of the times to events."""
        return tuple(at for at, name in enumerate(self.names) if name.startswith(EVENT))

    def encode(self, setting: Setting) -> Array:
        """Return the action [A] of a setting, bounded; parts of the setting without an action are ignored."""

        def value(name: str) -> Scalar:
            if name.startswith(EVENT):
                return 2.0 * self._share_of(setting.seconds[name]) - 1.0
            if name == "throttle":
                return 2.0 * setting.throttle - 1.0
            actuator, _, axis = name.partition("_")
            return getattr(setting, actuator)[_AXES[axis]]

        return bounded(jnp.stack([jnp.asarray(value(name), jnp.float32) for name in self.names]), self.events)

    def decode(self, action: Array) -> Setting:
        """Return the setting of an action [A]; actuators without an action are centred."""
        named, zero = dict(zip(self.names, action, strict=True)), jnp.zeros(())

        def shares(actuator: str) -> Vector:
            return Vector(*(named.get(f"{actuator}_{axis}", zero) for axis in _AXES))

        return Setting(
            throttle=0.5 * (named["throttle"] + 1.0) if "throttle" in named else zero,
            seconds={self.names[at]: self._seconds(action[at]) for at in self.events},
            gimbal=shares("gimbal"),
            fin=shares("fin"),
            rcs=shares("rcs"),
        )

    def _share_of(self, seconds: Scalar) -> Scalar:
        """Return a time as a share of its range, 0 for now and 1 for `longest_s`; below 0 if it is overdue."""
        if self.fine_s is None:
            return seconds / self.longest_s
        return jnp.sign(seconds) * jnp.log1p(jnp.abs(seconds) / self.fine_s) / math.log1p(self.longest_s / self.fine_s)

    def _seconds(self, action: Scalar) -> Scalar:
        """Return the time of an action."""
        if self.fine_s is None:
            return 0.5 * self.longest_s * (action + 1.0)
        share = 0.5 * (action + 1.0)
        size = jnp.expm1(jnp.abs(share) * math.log1p(self.longest_s / self.fine_s))
        return jnp.sign(share) * self.fine_s * size

    def corrected(self, guide: Array, residual: float, action: Array) -> Array:
        """Return the action that the vehicle receives; see the function of this name."""
        return corrected(guide, residual, action, tuple(self.shares.get(name, 1.0) for name in self.names))


def throttle_share(group: EngineGroup, throttle: Scalar) -> Scalar:
    """Return a throttle as a fraction of the range from the least to full throttle of an engine."""
    return (throttle - group.throttle_min) / (1.0 - group.throttle_min)


def throttle_of(group: EngineGroup, share: Scalar) -> Scalar:
    """Return the throttle of an engine at a fraction of that range."""
    return group.throttle_min + (1.0 - group.throttle_min) * share


def bounded(action: Array, events: tuple[int, ...] = ()) -> Array:
    """Clip the action of a guidance law to [-1, 1]; its times to events may be overdue, down to -2.

    A correction can therefore postpone an event, but not indefinitely: the longer it is overdue, the less it counts.
    """
    return jnp.clip(action, jnp.full(len(action), -1.0).at[jnp.array(events, int)].set(-2.0), 1.0)


def corrected(guide: Array, residual: float, action: Array, shares: tuple[float, ...] | None = None) -> Array:
    """Return the guide's action plus `residual` times the agent's, clipped; with residual 0 the agent's alone.

    `shares` holds the fraction of the residual for each action; None means all of it.
    """
    correction = action if shares is None else jnp.array(shares) * action
    return jnp.clip(guide + residual * correction, -1.0, 1.0) if residual > 0.0 else action


def uncorrected(guide: Array, residual: float) -> Array:
    """Return the agent's action with which the guide flies alone."""
    return jnp.zeros_like(guide) if residual > 0.0 else jnp.clip(guide, -1.0, 1.0)
