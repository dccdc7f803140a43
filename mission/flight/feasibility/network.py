"""A small calibrated classifier: the probability of success from an observation.

A perceptron on standardised observations, fitted by its log loss, then two numbers fitted to flights that the
perceptron has not seen (Platt 1999, "Probabilistic outputs for support vector machines"). Its parameters are named arrays,
so that they can be stored, and evaluated by JAX or by numpy.
Shapes: N flights, O observation.
"""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mission.strict import Count, Natural, Positive, StrictModel

Weights = dict[str, Any]  # name -> array
_HIDDEN = 2
_FAR = 8.0  # standard deviations to which an input is clipped
_DECAY = 1e-3
_LOOKS = 20  # at the validation flights while fitting


class FitSettings(StrictModel):
    """The settings with which a network is fitted."""

    width: Count = 64
    updates: Count = 3000
    batch: Count = 512
    rate: Positive = 3e-3


class FeasibilitySettings(FitSettings):
    """The settings of the networks and of the flights to which they are fitted."""

    flights: Count = 10_000
    rounds: Natural = 3  # of split flights, which look for what is lost seldom


def check_weights(weights: Weights, observations: int, stacked: bool) -> None:
    """Check that stored arrays are a network for that number of observations, or several of equal size, stacked.

    Raises:
      ValueError: an array is missing, has another shape, is not float32, or holds a value that is not finite.
    """
    lead = np.asarray(weights.get("slope", ())).shape
    if len(lead) != int(stacked) or 0 in lead:
        raise ValueError(f"slope has the shape {list(lead)}")
    width = (np.asarray(weights.get("kernel_0", ())).shape or (0,))[-1]
    shapes: dict[str, tuple[int, ...]] = {"mean": (observations,), "std": (observations,), "slope": (), "offset": ()}
    for layer, sizes in enumerate(itertools.pairwise([observations, *[width] * _HIDDEN, 1])):
        shapes |= {f"kernel_{layer}": sizes, f"bias_{layer}": sizes[1:]}
    if set(weights) != set(shapes):
        raise ValueError(f"arrays missing or added: {', '.join(sorted(set(weights) ^ set(shapes)))}")
    for name, shape in shapes.items():
        array = np.asarray(weights[name])
        if array.dtype != np.float32 or array.shape != (*lead, *shape):
            raise ValueError(f"{name} is {array.dtype} {list(array.shape)}, not float32 {[*lead, *shape]}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} holds a value that is not finite")


def logit(weights: Weights, obs: Array) -> Array:
    """Return the log-odds of success [N] from observations [N, O]; differentiable."""
    x = jnp.clip((obs - weights["mean"][None, :]) / weights["std"][None, :], -_FAR, _FAR)
    for layer in range(_HIDDEN):
        x = jax.nn.silu(x @ weights[f"kernel_{layer}"] + weights[f"bias_{layer}"][None, :])
    raw = (x @ weights[f"kernel_{_HIDDEN}"] + weights[f"bias_{_HIDDEN}"][None, :])[:, 0]
    return weights["slope"] * raw + weights["offset"]


def probability(weights: Weights, obs: Array) -> Array:
    """Return the probability of success [N] from observations [N, O]."""
    return jax.nn.sigmoid(logit(weights, obs))


def likely(weights: Weights, obs: np.ndarray) -> np.ndarray:
    """Return the probability of success [N] of observations [N, O], on the host."""
    return np.asarray(probability(weights, jnp.asarray(obs)), np.float64)


def fit(
    obs: np.ndarray,
    success: np.ndarray,
    counts: np.ndarray,
    settings: FitSettings,
    seed: int,
    flights: np.ndarray | None = None,
    even: bool = False,
) -> Weights:
    """Fit a network to three quarters of the flights; the others select among its states and calibrate it.

    Args:
      obs: [N, O], finite.
      success: bool [N].
      counts: [N], the number of flights that each one represents.
      settings: sizes and lengths.
      seed: of the first weights and of the minibatches.
      flights: int [N], the flight of each row, so that rows of one flight stay together; None: each row is a flight.
      even: fit with equal weights of all rows, and use `counts` only for the calibration.
    """
    import optax  # here, because flights under guard evaluate networks and fit none

    counts = counts / counts.mean()
    groups = np.arange(len(obs)) if flights is None else np.unique(flights, return_inverse=True)[1]
    shuffled = np.random.default_rng(seed).permutation(groups.max() + 1)
    place = np.argsort(shuffled)[groups]
    order, cut = np.argsort(place, kind="stable"), int((place < len(shuffled) // 4).sum())
    learned = np.ones_like(counts) if even else counts
    teach, choose = (jax.tree.map(lambda a, i=i: a[i], (obs, success, learned)) for i in (order[cut:], order[:cut]))
    weights = _first_weights(teach[0], settings.width, jax.random.key(seed))
    best, best_loss = weights, np.inf
    optimiser = optax.adamw(optax.cosine_decay_schedule(settings.rate, settings.updates), weight_decay=_DECAY)
    state = optimiser.init(_learned(weights))
    run = jax.jit(partial(_updates, optimiser, -(-settings.updates // _LOOKS), min(settings.batch, len(teach[0]))))
    loss = jax.jit(log_loss)
    for look in range(_LOOKS):
        weights, state = run(weights, state, *teach, jax.random.fold_in(jax.random.key(seed + 1), look))
        found = float(loss(logit(weights, choose[0]), *choose[1:]))
        if found < best_loss:
            best, best_loss = weights, found
    best = {name: np.asarray(value) for name, value in best.items()}
    return _calibrated(best, *choose[:2], counts[order[:cut]])


def log_loss(log_odds: Array, success: Array, counts: Array) -> Array:
    """Return the mean log loss of predictions [N] for flights that represent `counts` [N] flights each."""
    import optax

    return (counts * optax.sigmoid_binary_cross_entropy(log_odds, jnp.asarray(success, jnp.float32))).mean()


def _first_weights(obs: np.ndarray, width: int, key: Array) -> Weights:
    mean, std = obs.mean(axis=0), obs.std(axis=0)
    weights: Weights = {"mean": mean, "std": np.where(std > 1e-6, std, 1.0), "slope": 1.0, "offset": 0.0}
    sizes = [obs.shape[1], *[width] * _HIDDEN, 1]
    for layer, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
        draw = jax.random.normal(jax.random.fold_in(key, layer), (fan_in, fan_out))
        weights[f"kernel_{layer}"] = draw * (2.0 / (fan_in + fan_out)) ** 0.5
        weights[f"bias_{layer}"] = jnp.zeros(fan_out)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), weights)


def _learned(weights: Weights) -> Weights:
    return {name: value for name, value in weights.items() if name.startswith(("kernel", "bias"))}


def _updates(
    optimiser: Any,
    count: int,
    batch: int,
    weights: Weights,
    state: Any,
    obs: Array,
    success: Array,
    counts: Array,
    key: Array,
) -> tuple[Weights, Any]:
    """Make some updates on minibatches."""

    def update(carry: tuple[Weights, Any], key: Array) -> tuple[tuple[Weights, Any], None]:
        weights, state = carry
        rows = jax.random.randint(key, (batch,), 0, obs.shape[0])
        grads = jax.grad(lambda w: log_loss(logit(weights | w, obs[rows]), success[rows], counts[rows]))(
            _learned(weights)
        )
        changes, state = optimiser.update(grads, state, _learned(weights))
        moved = {name: weights[name] + change for name, change in changes.items()}
        return (weights | moved, state), None

    return jax.lax.scan(update, (weights, state), jax.random.split(key, count))[0]


def _calibrated(weights: Weights, obs: np.ndarray, success: np.ndarray, counts: np.ndarray) -> Weights:
    """Return the weights with a slope and an offset of the log-odds that are fitted to unseen flights.

    The targets are Platt's, a little less than 1 and more than 0, so that flights that all succeed have finite odds.
    """
    from scipy.optimize import minimize

    raw = np.asarray(logit(weights, jnp.asarray(obs)), np.float64)
    good, bad = counts[success].sum(), counts[~success].sum()
    target = np.where(success, (good + 1.0) / (good + 2.0), 1.0 / (bad + 2.0))

    def loss(at: np.ndarray) -> float:
        line = at[0] * raw + at[1]
        prior = 1e-3 * (at[0] - 1.0) ** 2  # where all flights succeed, any slope is as good
        return float((counts * (np.logaddexp(0.0, line) - target * line)).mean() + prior)

    slope, offset = minimize(loss, np.array([1.0, 0.0]), method="BFGS").x
    return weights | {"slope": np.float32(max(slope, 0.0)), "offset": np.float32(offset)}
