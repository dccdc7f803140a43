"""The causes of the end of a phase, by name."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from mission import Outcome


class Causes(tuple[str, ...]):
    """The causes of a phase: success, then the failures; the first failure whose condition holds is the cause."""

    def judge(self, ended: Array, at_once: dict[str, Array], at_end: dict[str, Array]) -> Outcome:
        """Return the outcome of a vehicle.

        Args:
          ended: whether the phase has reached its regular end.
          at_once: failures by name that end the phase whenever they hold.
          at_end: failures by name that count only where the phase has `ended`.
        """
        failures, cause = at_once | at_end, jnp.zeros((), jnp.int32)
        for number in range(len(self) - 1, 0, -1):
            cause = jnp.where(failures[self[number]], jnp.int32(number), cause)
        terminated = jnp.stack([ended, *at_once.values()]).any()
        return Outcome(terminated, ended & (cause == 0), cause)

    def among(self, outcome: Outcome, *names: str) -> Array:
        """Return whether the cause of an outcome is one of those named."""
        return jnp.stack([outcome.cause == self.index(name) for name in names]).any()
