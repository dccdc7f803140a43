"""Whole flights of a chain with gradients, which cross the links.

Each phase has two programs. The first flies B vehicles from their hand-overs to the end of the phase by the mean action of its
policy, and keeps the states before each control step. The second propagates the gradient of the return from the
hand-overs at the end back through `leave`, every step and `enter`, to the hand-overs at the start, and accumulates the
gradient with respect to the policy: SVG(H) with the whole flight as its horizon (Heess et al. 2015, arXiv:1510.09142),
over phases.

Shapes: B flights, H control steps, A actions.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from mission.flight.batches import program_identity
from mission.flight.fly import Controller, enter_phase, goes_on, guide_controller, policy_controller
from mission.machine.programs import Program
from mission.machine.trees import drop_weak_types, floats, where_rows, with_floats, with_keys, without_keys
from mission.missionfile.phases import Phase, PolicyPhase
from mission.phase import Outcome


class Leg(NamedTuple):
    """B flights of one phase. `states` [H, B, ...] and `over` [H, B] are those before each step; the first `steps` count."""

    states: Any
    over: Array
    steps: Array  # int32 []
    end: Any  # leaves [B, ...]
    handoff: Any  # leaves [B, ...]
    passed: Array  # bool [B]
    earned: Array  # float32 [B]


class Pulled(NamedTuple):
    """The gradient of the return of B flights with respect to the policy's parameters and to the entry hand-overs."""

    policy: Any
    handoff: list[Array]


@dataclasses.dataclass(frozen=True, eq=False)
class PhaseFlights:
    """The flights of one phase; `without` names ignored reward terms, `bound` is the largest gradient by an action."""

    phase: Phase
    without: tuple[str, ...]
    bound: float

    def programs(self) -> tuple[Program, Program]:
        """Return the programs of `forward` and `backward`."""
        kinds = (("joint forward", self.forward), ("joint backward", self.backward))
        known = [(program_identity(self.phase, f"{name} {self.without} {self.bound}"), call) for name, call in kinds]
        forward, backward = (Program(call, identity, phase=self.phase.name) for identity, call in known)
        return forward, backward

    @property
    def control(self) -> Controller:
        """Return who flies, without a guard."""
        phase = self.phase
        return policy_controller(phase) if isinstance(phase, PolicyPhase) else guide_controller(phase)

    def forward(self, policy: Any, handoff: Any, keys: Array, alive: Array) -> Leg:
        """Fly B vehicles to the end of the phase; those not alive stay where they are.

        Args:
          policy: parameters.
          handoff: leaves [B, ...].
          keys: typed keys [B]; the flights are those that `fly_phase` flies with them.
          alive: bool [B].
        """
        env = self.phase.environment
        begun = enter_phase(self.phase, handoff, keys)
        over = ~alive | jax.vmap(env.outcome)(begun).terminated
        state, horizon = without_keys(begun), env.max_steps
        rows = jax.tree.map(lambda leaf: jnp.zeros((horizon, *leaf.shape), leaf.dtype), (state, over))

        def step(carry: Any) -> Any:
            t, state, over, (states, overs), earned = carry
            kept = jax.tree.map(lambda row, leaf: row.at[t].set(leaf), (states, overs), (state, over))
            after, gain, ended = self._advance(policy, begun, state, over, keys, t, self._no_nudge(over))
            return t + 1, after, over | ended, kept, earned + gain

        goes = lambda carry: (carry[0] < horizon) & ~carry[2].all()  # noqa: E731
        first = (jnp.int32(0), state, over, rows, jnp.zeros(over.shape))
        steps, end, _, (states, overs), earned = lax.while_loop(goes, step, first)
        outcome: Outcome = jax.vmap(env.outcome)(with_keys(end, begun))
        passed = alive & outcome.terminated & (outcome.success | goes_on(self.phase, outcome))
        left = jax.vmap(env.leave)(with_keys(end, begun))
        return Leg(states, overs, steps, end, left, passed, earned)

    def backward(self, policy: Any, handoff: Any, keys: Array, leg: Leg, pulled: list[Array], share: Array) -> Pulled:
        """Propagate the gradient of the flights of `forward` back to their hand-overs.

        Args:
          policy, handoff, keys: as in `forward`.
          leg: what it returned.
          pulled: by the floats of the hand-overs that the flights left; 0 for those that did not pass.
          share: weight of one flight.
        """
        env = self.phase.environment
        like = enter_phase(self.phase, handoff, keys)

        def leave(numbers: list[Array]) -> list[Array]:
            return floats(jax.vmap(env.leave)(with_keys(with_floats(leg.end, numbers), like)))

        (at_end,) = jax.vjp(leave, floats(leg.end))[1](pulled)

        def back(i: Array, carry: tuple[list[Array], Any]) -> tuple[list[Array], Any]:
            pulled, grads = carry
            t = leg.steps - 1 - i
            state, over = jax.tree.map(lambda row: row[t], (leg.states, leg.over))

            def step(numbers: list[Array], nudge: Array) -> tuple[list[Array], Array]:
                after, gain, _ = self._advance(policy, like, with_floats(state, numbers), over, keys, t, nudge)
                return floats(after), gain

            weights = jnp.full(over.shape, share)
            before, nudged = self._bounded(
                jax.vjp(step, floats(state), self._no_nudge(over))[1]((pulled, weights)), share
            )
            flying = with_keys(state, like)

            def act(policy: Any) -> Array:
                return self.control(policy, flying, jax.vmap(env.observe)(flying))

            (more,) = jax.vjp(act, policy)[1](jnp.where(over[:, None], 0.0, nudged))
            return before, jax.tree.map(jnp.add, grads, _finite(more))

        none = jax.tree.map(jnp.zeros_like, policy)
        at_start, grads = lax.fori_loop(0, leg.steps, back, (_finite(at_end), none))

        def enter(numbers: list[Array]) -> list[Array]:
            return floats(without_keys(enter_phase(self.phase, with_floats(handoff, numbers), keys)))

        (given,) = jax.vjp(enter, floats(handoff))[1](at_start)
        return Pulled(grads, _finite(given))

    def _advance(
        self, policy: Any, like: Any, state: Any, over: Array, keys: Array, t: Array, nudge: Array
    ) -> tuple[Any, Array, Array]:
        """Fly one control step with `nudge` [B, A] added to the action; return (state, gain [B], whether it ended [B])."""
        env, reward = self.phase.environment, self.phase.reward
        before = with_keys(state, like)
        action = self.control(policy, before, jax.vmap(env.observe)(before))
        action = jnp.clip(action + nudge, -1.0, 1.0)
        step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, t + 1)
        after = where_rows(over, before, drop_weak_types(jax.vmap(env.step)(step_keys, before, action)))
        outcome = jax.vmap(env.outcome)(after)
        gain = jnp.zeros(over.shape)
        if reward is not None:
            terms = jax.vmap(reward)(before, action, after, outcome)
            gain = sum((jnp.asarray(term) for name, term in terms.items() if name not in self.without), gain)
        return without_keys(after), jnp.where(over, 0.0, gain), outcome.terminated

    def _no_nudge(self, over: Array) -> Array:
        return jnp.zeros((over.size, len(self.phase.environment.action_names)))

    def _bounded(self, pulled: tuple[list[Array], Array], share: Array) -> tuple[list[Array], Array]:
        """Scale down the gradient of each flight whose gradient with respect to an action exceeds the bound."""
        pulled = _finite(pulled)
        most = jnp.linalg.norm(pulled[1], axis=-1) / share if pulled[1].shape[1] else jnp.zeros(pulled[1].shape[0])
        scale = self.bound / jnp.maximum(most, self.bound)
        return jax.tree.map(lambda leaf: leaf * scale.reshape(-1, *(1,) * (leaf.ndim - 1)), pulled)


def _finite(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.where(jnp.isfinite(leaf), leaf, 0.0), tree)
