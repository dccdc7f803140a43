"""A phase whose agent sees several observations at once: the newest first, then those of the control steps before it.

Shapes: n observations seen at once, O names in one of them.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from mission.phase import Environment, ObservationEntry, Outcome, Reward


class Remembered(NamedTuple):
    """A state of the phase, and the observations before it."""

    now: Any
    earlier: Array  # [n - 1, O], the latest first


def stacked_names(names: tuple[str, ...], history: int) -> tuple[str, ...]:
    """Return the n O names of stacked observations: `x`, then `x[-1]` for the control step before, and so on."""
    return tuple(name + (f"[-{back}]" if back else "") for back in range(history) for name in names)


@dataclasses.dataclass(frozen=True, eq=False)
class WithHistory(Environment[Any, Remembered]):
    """A phase that observes n observations; everything else is that of the phase."""

    inner: Environment
    history: int

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Return what the contract does not know, such as `params`, from the phase."""
            return getattr(self.inner, name)

    @property
    def observation_names(self) -> tuple[str, ...]:
        """The names of all n observations."""
        return stacked_names(self.inner.observation_names, self.history)

    @property
    def action_names(self) -> tuple[str, ...]:
        """Those of the phase."""
        return self.inner.action_names

    @property
    def causes(self) -> tuple[str, ...]:
        """Those of the phase."""
        return self.inner.causes

    @property
    def control_period_s(self) -> float:
        """That of the phase."""
        return self.inner.control_period_s

    @property
    def max_steps(self) -> int:
        """That of the phase."""
        return self.inner.max_steps

    @property
    def time_out_cause(self) -> str | None:
        """That of the phase."""
        return self.inner.time_out_cause

    @property
    def box_causes(self) -> tuple[str, ...]:
        """Those of the phase."""
        return self.inner.box_causes

    @property
    def mirror(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """The signs of all n observations, and of the action."""
        signs = self.inner.mirror
        return None if signs is None else (signs[0] * self.history, signs[1])

    @property
    def event_actions(self) -> tuple[str, ...]:
        """Those of the phase."""
        return self.inner.event_actions

    @property
    def observation_entries(self) -> tuple[ObservationEntry, ...]:
        """The descriptions of all n observations."""
        return self.inner.observation_entries * self.history

    @property
    def guide(self) -> Any:
        """The guidance law of the phase, which sees the state alone."""
        guide = self.inner.guide
        return None if guide is None else lambda state: guide(state.now)

    @property
    def privileged_names(self) -> tuple[str, ...]:
        """Those of the phase."""
        return self.inner.privileged_names

    @property
    def privileged(self) -> Any:
        """The privileged values of the phase, which are not stacked."""
        privileged = self.inner.privileged
        return None if privileged is None else lambda state: privileged(state.now)

    def unguided(self) -> Environment:
        """Return the phase without what only its guide needs."""
        return dataclasses.replace(self, inner=self.inner.unguided())

    def perturb(self, handoff: Any, noise: Any) -> Any:
        """Return a hand-over moved by noise."""
        return self.inner.perturb(handoff, noise)

    def redraw(self, key: Array, handoff: Any) -> Any:
        """Return a hand-over with new dispersions."""
        return self.inner.redraw(key, handoff)

    def start(self, key: Array) -> Any:
        """Return a nominal entry state of the phase."""
        return self.inner.start(key)

    def enter(self, key: Array, handoff: Any) -> Remembered:
        """Enter the phase; the first observation takes the place of earlier ones."""
        state = self.inner.enter(key, handoff)
        return Remembered(state, jnp.repeat(self.inner.observe(state)[None], self.history - 1, axis=0))

    def step(self, key: Array, state: Remembered, action: Array) -> Remembered:
        """Advance the phase and remember what was observed before the step."""
        seen = self.inner.observe(state.now)
        return Remembered(
            self.inner.step(key, state.now, action), jnp.concatenate([seen[None], state.earlier])[: self.history - 1]
        )

    def observe(self, state: Remembered) -> Array:
        """Return all n observations, [n O]."""
        return jnp.concatenate([self.inner.observe(state.now)[None], state.earlier]).reshape(-1)

    def outcome(self, state: Remembered) -> Outcome:
        """Return the outcome of the phase."""
        return self.inner.outcome(state.now)

    def leave(self, state: Remembered) -> Any:
        """Return what the next phase receives, which does not include the observations."""
        return self.inner.leave(state.now)

    def telemetry(self, state: Remembered) -> dict[str, Array]:
        """Return the channels of the phase."""
        return self.inner.telemetry(state.now)


def with_history(environment: Environment, reward: Reward | None, history: int) -> tuple[Environment, Reward | None]:
    """Return a phase and its reward with n observations at once; unchanged for n = 1."""
    if history == 1 or reward is None:
        return environment, reward
    return WithHistory(environment, history), lambda state, action, after, outcome: reward(
        state.now, action, after.now, outcome
    )
