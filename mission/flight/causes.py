"""Causes that a plugin reports: a cause that contradicts the contract is an error, in flights and in training.

Compiled programs cannot raise errors, so they mark such a cause, and the host checks for the mark. Shapes: N vehicles.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array

from mission.errors import PluginError
from mission.missionfile.phases import Phase
from mission.phase import Environment, Outcome

# Added to a wrong cause that another flight may have with right, such as the two causes of the engine.
_MARK = 1 << 30


def marked_causes(environment: Environment, outcome: Outcome) -> Array:
    """Return the causes of an outcome, int32 [N]; causes that contradict the contract are out of range."""
    own, every = len(environment.causes), len(environment.causes) + 2
    valid = (outcome.cause < own) & (outcome.success == (outcome.cause == 0))
    hidden = outcome.terminated & ~valid & (outcome.cause >= 0) & (outcome.cause < every)
    return jnp.where(hidden, outcome.cause + _MARK, outcome.cause)


def check_flight_causes(phase: Phase, causes: np.ndarray, flown: np.ndarray) -> None:
    """Check the causes [N] of the flights that were flown (bool [N]); they may be the engine's, too.

    Raises:
      PluginError: names the first wrong cause, and the number of flights that have one.
    """
    causes = causes[flown]
    wrong = causes[(causes < 0) | (causes >= len(phase.causes))]
    if wrong.size:
        raise cause_error(phase, int(wrong[0]), f"{wrong.size} of {causes.size} flights report a wrong cause")


def cause_error(phase: Phase, cause: int, when: str) -> PluginError:
    """Return the error for a cause, marked or not, that contradicts the contract."""
    names = phase.environment.causes
    cause -= _MARK if _MARK <= cause < _MARK + len(phase.causes) else 0
    found = f"cause {cause}"
    if 0 <= cause < len(names):
        found = f'{"a success" if cause else "a failure"} with cause {cause} ("{names[cause]}")'
    return PluginError(
        f'phase "{phase.name}"',
        expected=f"{phase.origin}: causes 0 to {len(names) - 1}; 0 for each success, another one for each failure",
        found=f"{found}; {when}",
        remedy="correct the cause that outcome returns, or add the missing name to causes",
    )
