"""Exact value gradients: the actor's gradient through the simulator over H steps, closed by the critics.

The actor maximises E[sum_{t<H} gamma^t (r_t - alpha log pi_t) + gamma^H (min_i Q_i(s_H, a_H) - alpha log pi_H)] along
flights of its own from visited states: SVG(H), Heess et al. 2015, arXiv:1510.09142, with the entropy of SAC-SVG, Amos et
al. 2021, arXiv:2008.12775, section 3.

Backpropagation is two loops over one compiled control step: the first flies and stores the states, the second
propagates lambda_t = d J / d a_t of the closed loop back through the step. Then dJ/dtheta = sum_t lambda_t . d a_t / d
theta, in which
lambda_t has the place of a critic's dQ/da, and may be bounded for each flight. H is a number at run time, and the loops end with the last flight.

Shapes: B flights of this device, O observation, A action.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from mission.learner import PhaseInterface
from mission.machine.trees import drop_weak_types, floats, where_rows, with_floats, with_keys, without_keys
from mission.sac.config import SacConfig
from mission.sac.losses import critic_view
from mission.sac.networks import Networks, sample_action


class Flown(NamedTuple):
    """B flights after some steps of the horizon."""

    state: Any  # leaves [B, ...]
    over: Array  # bool [B]


class Forward(NamedTuple):
    """The flights before each step of the horizon, [H, ...]; only the first `steps` are filled."""

    flown: Flown
    steps: Array  # int32 []


class ActorGradient(NamedTuple):
    """The gradient of the actor's loss, and means over the flights: the loss, log pi and std of the live steps."""

    grads: Any
    loss: Array
    log_density: Array
    std: Array


@dataclasses.dataclass(frozen=True, eq=False)
class ValueGradient:
    """The actor's gradient through one phase."""

    config: SacConfig
    networks: Networks
    interface: PhaseInterface
    gamma: float

    def __call__(
        self, actor: Any, critic: Any, temperature: Array, visited: tuple[Any, Array], key: Array
    ) -> ActorGradient:
        """Return the gradient of the actor's loss.

        Args:
          actor, critic: parameters.
          temperature: alpha.
          visited: leaves [B, ...] and bool [B]: states, and whether they count.
          key: consumed.
        """
        state, valid = visited
        flight = _Flight(self, actor, critic, temperature, state, key, 1.0 / jnp.maximum(valid.sum(), 1))
        forward, end, value = flight.fly(Flown(without_keys(state), ~valid))
        closing = jax.value_and_grad(flight.last, argnums=(0, 1))
        final, (grads, pulled) = closing(actor, floats(end.state), end, forward.steps)
        sums = (jax.tree.map(jnp.negative, grads), jnp.zeros(()), jnp.zeros(()), jnp.zeros(()))

        def back(i: Array, carry: Any) -> Any:
            return flight.back(forward, forward.steps - 1 - i, *carry)

        _, (grads, density, std, live) = lax.fori_loop(0, forward.steps, back, (_finite(pulled), sums))
        live = jnp.maximum(live, 1.0)
        return ActorGradient(grads, -(value + final), density / live, std / live)


class _Flight(NamedTuple):
    """The flights of one call of a `ValueGradient`; `like` is a state with its keys, and `share` the weight of a flight in the mean."""

    parts: ValueGradient
    actor: Any
    critic: Any
    temperature: Array
    like: Any
    key: Array
    share: Array

    def policy(self, actor: Any, obs: Array, noise: Array) -> tuple[Array, Array, Array]:
        """Return (action [B, A], log pi [B], mean std []) for standard normal noise [B, A]."""
        normal = self.parts.networks.normal(actor, obs)
        action, log_density = sample_action(self.parts.config.actor.head, normal, noise)
        return action, log_density, jnp.exp(normal.log_std).mean(axis=-1)

    def noise(self, t: Array, flights: int) -> Array:
        return jax.random.normal(jax.random.fold_in(self.key, 2 * t), (flights, self.parts.interface.actions))

    def observe(self, state: Any) -> Array:
        return jax.vmap(self.parts.interface.environment.observe)(state)

    def privileged(self, state: Any) -> Array | None:
        """Return the privileged values [B, P], which only the critics use."""
        if not self.parts.config.privileged_critic:
            return None
        return _finite(jax.vmap(self.parts.interface.environment.privileged)(state))

    def advance(self, flown: Flown, t: Array, nudge: Array) -> tuple[Flown, Array, Array]:
        """Fly one control step with `nudge` [B, A] added to the action; also return gains and observations."""
        env, reward = self.parts.interface.environment, self.parts.interface.reward
        if reward is None:
            raise ValueError("actor_horizon needs the phase's environment and reward")
        state = with_keys(flown.state, self.like)
        obs = self.observe(state)
        over = flown.over | _broken(obs)
        action, log_density, _ = self.policy(self.actor, obs, self.noise(t, over.size))
        sent = jnp.clip(action + nudge, -1.0, 1.0)
        keys = jax.random.split(jax.random.fold_in(self.key, 2 * t + 1), over.size)
        after = drop_weak_types(jax.vmap(env.step)(keys, state, sent))
        outcome = jax.vmap(env.outcome)(after)
        terms = jax.vmap(reward)(state, sent, after, outcome).values()
        gain = jnp.stack([jnp.asarray(term, jnp.float32) for term in terms]).sum(axis=0)
        gain = jnp.where(over, 0.0, gain - self.temperature * log_density)
        after = where_rows(over, state, after)
        return Flown(without_keys(after), over | outcome.terminated), gain, obs

    def fly(self, begun: Flown) -> tuple[Forward, Flown, Array]:
        """Fly to the horizon; return the states before each step, the last ones, and the mean discounted gain."""
        horizon, none = self.parts.config.actor_horizon, jnp.zeros((begun.over.size, self.parts.interface.actions))
        rows = jax.tree.map(lambda leaf: jnp.zeros((horizon, *leaf.shape), leaf.dtype), begun)

        def step(carry: Any) -> Any:
            now, forward, value = carry
            t = forward.steps
            after, gain, _ = self.advance(now, t, none)
            kept = jax.tree.map(lambda row, leaf: row.at[t].set(leaf), forward.flown, now)
            return after, Forward(kept, t + 1), value + self.discount(t) * self.share * _finite(gain).sum()

        def goes_on(carry: Any) -> Array:
            return (carry[1].steps < horizon) & ~carry[0].over.all()

        end, forward, value = lax.while_loop(goes_on, step, (begun, Forward(rows, jnp.int32(0)), jnp.zeros(())))
        return forward, end, value

    def discount(self, t: Array) -> Array:
        """Return gamma^t."""
        return jnp.asarray(self.parts.gamma, jnp.float32) ** t.astype(jnp.float32)

    def last(self, actor: Any, numbers: list[Array], end: Flown, steps: Array) -> Array:
        """Return the discounted mean value of the flights that are not over."""
        obs = self.observe(with_keys(with_floats(end.state, numbers), self.like))
        over, obs = end.over | _broken(obs), _finite(obs)
        action, log_density, _ = self.policy(actor, obs, self.noise(steps, over.size))
        view = critic_view(obs, self.privileged(with_keys(with_floats(end.state, numbers), self.like)))
        value = self.parts.networks.q(self.critic, view, action).min(axis=0) - self.temperature * log_density
        return self.discount(steps) * self.share * jnp.where(over, 0.0, value).sum()

    def back(self, forward: Forward, t: Array, pulled: list[Array], sums: Any) -> tuple[list[Array], Any]:
        """Propagate the gradient of the value back through step `t`, and add that of the policy in it."""
        flown = jax.tree.map(lambda rows: rows[t], forward.flown)
        none = jnp.zeros((flown.over.size, self.parts.interface.actions))

        def step(numbers: list[Array], nudge: Array) -> Any:
            after, gain, obs = self.advance(Flown(with_floats(flown.state, numbers), flown.over), t, nudge)
            return (floats(after.state), gain), obs

        _, pull, obs = jax.vjp(step, floats(flown.state), none, has_aux=True)
        weight = jnp.full(flown.over.size, self.discount(t) * self.share)
        pulled, nudged = self.bounded(*_finite(pull((pulled, weight))))
        alive, obs = ~(flown.over | _broken(obs)), _finite(obs)

        def loss(actor: Any) -> tuple[Array, tuple[Array, Array]]:
            action, log_density, std = self.policy(actor, obs, self.noise(t, alive.size))
            gain = (nudged * action).sum(axis=-1) - weight * self.temperature * log_density
            return -jnp.where(alive, gain, 0.0).sum(), (log_density, std)

        grads, (log_density, std) = jax.grad(loss, has_aux=True)(self.actor)
        means = (jnp.where(alive, row, 0.0).sum() for row in (log_density, std, jnp.ones(alive.size)))
        return pulled, jax.tree.map(jnp.add, sums, (grads, *means))

    def bounded(self, pulled: list[Array], nudged: Array) -> tuple[list[Array], Array]:
        """Scale the gradients of each flight down to the largest lambda_t that one flight may have."""
        limit = self.parts.config.actor_flight_grad_max
        if limit is None:
            return pulled, nudged
        scale = limit / jnp.maximum(jnp.linalg.norm(nudged, axis=-1) / self.share, limit)
        return jax.tree.map(lambda leaf: leaf * scale.reshape(-1, *(1,) * (leaf.ndim - 1)), (pulled, nudged))


def _finite(tree: Any) -> Any:
    """Replace non-finite values by 0, so that a broken flight does not spoil the gradients of the others."""
    return jax.tree.map(lambda leaf: jnp.where(jnp.isfinite(leaf), leaf, 0.0), tree)


def _broken(obs: Array) -> Array:
    """Return which of B observations are not finite."""
    return ~jnp.isfinite(obs).all(axis=-1)
