"""Hyper-parameters of Soft Actor-Critic: one strict model, every field with its source.

Papers: SAC, Haarnoja et al. 2018, arXiv:1801.01290 and 1812.05905; prioritised experience replay (PER), Schaul et al.
2016, arXiv:1511.05952; n-step returns, Sutton and Barto 2018, section 7.1; LayerNorm, Ba et al. 2016,
arXiv:1607.06450.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from mission.learner import LearnerConfig
from mission.strict import Count, Fraction01, Positive, StrictModel


class NetworkConfig(StrictModel):
    """A multi-layer perceptron: `width` and `depth`, or the list `layers`."""

    width: Count = Field(256, le=8192, description="Units per hidden layer.")
    depth: Count = Field(
        2,
        le=64,
        description="Number of hidden layers.",
    )
    layers: tuple[Count, ...] | None = Field(
        None,
        strict=False,
        min_length=1,
        max_length=64,
        description="Widths of the hidden layers; replaces width and depth.",
    )
    layer_norm: bool = Field(False, description="LayerNorm before each activation (Ba et al. 2016).")
    activation: Literal["relu", "tanh", "elu", "silu"] = Field("relu", description="Hidden activation.")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Widths of the hidden layers."""
        return self.layers if self.layers is not None else (self.width,) * self.depth


class ActorConfig(NetworkConfig):
    """The policy network and its distribution."""

    head: Literal["squashed", "bounded", "softplus"] = Field(
        "squashed",
        description="squashed: tanh-Gaussian (1812.05905, appendix C). bounded: tanh mean, std = max_std * sigmoid. "
        "softplus: free mean, softplus std.",
    )
    log_std_min: float = Field(-5.0, description="Lower bound of log std, squashed head only.")
    log_std_max: float = Field(2.0, description="Upper bound of log std, squashed head only.")
    output_scale: Fraction01 = Field(
        1.0,
        description="Factor on the initial weights of the last layer; with 0 the mean action starts at 0, so "
        "that a residual policy starts as the guidance law that it corrects (Silver et al. 2018, "
        "arXiv:1812.06298).",
    )


class PriorConfig(StrictModel):
    """The first transitions of the fill, which are kept permanently (RLPD, Ball et al. 2023, arXiv:2302.02948)."""

    env_steps: int = Field(
        0,
        ge=0,
        le=10**9,
        description="First transitions of the fill that are never overwritten, rounded up to whole iterations; they are kept in addition to "
        "buffer_size (RLPD, Ball et al. 2023, arXiv:2302.02948). 0: none.",
    )
    share: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.5, description="Share of each minibatch that is drawn from the prior transitions (RLPD: half)."
    )


class WarmUpConfig(StrictModel):
    """Critic-only updates between the fill and the first joint update."""

    steps: int = Field(0, ge=0, le=10**9, description="Number of critic updates in the warm-up.")
    learning_rate: Positive | None = Field(
        None, description="Learning rate of the warm-up. None: critic_learning_rate."
    )
    batch_size: Count | None = Field(None, description="Transitions per update of the warm-up. None: batch_size.")


# `seed`: the hyper-parameters that the source document prints for its flip-over and boostback agent, for comparison
# (docs/sac.md). Its depth counts the layers after the first, so its 14 and 18 are 15 and 19 here.
PRESETS: dict[str, dict[str, Any]] = {
    "seed": {
        "actor": {"width": 50, "depth": 15, "head": "bounded"},
        "critic": {"width": 50, "depth": 19},
        "gamma": 0.98,
        "tau": 0.0005,
        "temperature_initial": 0.005,
        "alpha": 0.6,
        "beta": 0.4,
        "beta_decay": 0.99,
        "buffer_size": 500_000,
        "n_step": 200,
        "batch_size": 2048,
        "critic_learning_rate": 1e-4,
        "actor_learning_rate": 5e-12,
        "temperature_learning_rate": 1e-7,
        "critic_grad_max_norm": 0.2,
        "actor_grad_max_norm": 0.2,
        "temperature_grad_max_norm": 0.1,
        "target_entropy": "max_std",
        "max_std": 0.001,
        "warm_up": {"steps": 1000, "learning_rate": 2e-4, "batch_size": 256},
    },
}


class SacConfig(LearnerConfig):
    """The hyper-parameters of one agent: data only. The plugin sets defaults, and the mission file overrides them."""

    presets: ClassVar[dict[str, dict[str, Any]]] = PRESETS
    alternatives: ClassVar[tuple[tuple[str, str], ...]] = (
        ("gamma", "discount_time_s"),
        ("target_entropy", "target_std_fraction"),
    )

    actor: ActorConfig = Field(
        default_factory=ActorConfig,
        description="Policy network.",
    )
    critic: NetworkConfig = Field(
        default_factory=NetworkConfig,
        description="Each of the two Q networks.",
    )
    gamma: Annotated[float, Field(gt=0, le=1)] = Field(
        0.99, description="Discount per control step (1801.01290, eq. 2)."
    )
    discount_time_s: Positive | None = Field(
        None,
        description="Discount by time: gamma = exp(-control_period_s / discount_time_s), which then replaces gamma, so "
        "that the discount does not depend on the control period (Doya 2000, Neural Computation 12; Tallec et al. 2019, "
        "arXiv:1901.09732). None: gamma.",
    )
    tau: Annotated[float, Field(gt=0, le=1)] = Field(
        0.005, description="Soft update of the target critics (1801.01290, algorithm 1)."
    )
    actor_learning_rate: Positive = Field(
        3e-4, description="Learning rate of the actor, Adam (Kingma and Ba 2015, arXiv:1412.6980)."
    )
    critic_learning_rate: Positive = Field(3e-4, description="Learning rate of the critics, Adam (1412.6980).")
    temperature_learning_rate: Positive = Field(
        3e-4, description="Learning rate of the log temperature, Adam (1812.05905, eq. 18)."
    )
    actor_grad_max_norm: Positive | None = Field(
        None,
        description="Clip the actor's gradient to this global norm (Pascanu et al. 2013, arXiv:1211.5063).",
    )
    critic_grad_max_norm: Positive | None = Field(
        None, description="Clip the gradient of both critics to this global norm (1211.5063)."
    )
    temperature_grad_max_norm: Positive | None = Field(
        None, description="Clip the gradient of the temperature to this norm (1211.5063)."
    )
    temperature_initial: Positive = Field(0.1, description="Temperature at the start (alpha of 1812.05905).")
    temperature_learned: bool = Field(
        True, description="Learn the temperature; false keeps temperature_initial (1801.01290)."
    )
    temperature_min: Positive = Field(1e-6, description="Lower clip of the temperature.")
    temperature_max: Positive = Field(10.0, description="Upper clip of the temperature.")
    temperature_delay_updates: int = Field(
        1, ge=0, description="Joint updates before the first update of the temperature."
    )
    target_entropy: Literal["action_dim", "max_std"] | float = Field(
        "action_dim",
        description="action_dim: -A (1812.05905, section 5). max_std: entropy of a Gaussian with that std, "
        "A (log max_std + 0.5 log 2 pi e). Or a number.",
    )
    target_std_fraction: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None,
        description="Replaces target_entropy by the entropy of a Gaussian with std = target_std_fraction * "
        "max_std. The bounded head can reach it for values below 1; it cannot reach max_std itself, "
        "so the temperature would rise indefinitely. None: target_entropy (1812.05905, section 5).",
    )
    max_std: Positive = Field(
        1.0,
        description="Largest std of the bounded head; also used by target_entropy: max_std and by target_std_fraction.",
    )
    buffer_size: Count = Field(200_000, le=2**31 - 1, description="Transitions kept, rounded down to whole iterations.")
    batch_size: Count = Field(256, description="Transitions per update.")
    n_step: Count = Field(1, le=1000, description="Steps summed before bootstrapping (Sutton 7.1).")
    prioritised: bool = Field(True, description="Prioritised experience replay; false samples uniformly.")
    alpha: Fraction01 = Field(0.6, description="Priority exponent (PER, eq. 1).")
    beta: Fraction01 = Field(0.4, description="Importance-sampling exponent at the start (PER, section 3.4).")
    beta_decay: Annotated[float, Field(gt=0, le=1)] = Field(
        0.9999,
        description="1 - beta shrinks by this factor per update, so beta is annealed to 1 (PER anneals linearly).",
    )
    priority_epsilon: Positive = Field(1e-3, description="Added to |TD error| (PER, section 3.3).")
    prior: PriorConfig = Field(default_factory=PriorConfig, description="Transitions that are never overwritten.")
    actor_uniform_share: Fraction01 = Field(
        0.0,
        description="Share of the actor's minibatch that is drawn uniformly instead of by priority: transitions with "
        "large TD errors mislead the actor (LA3P, Saglam et al. 2023, JAIR 78, arXiv:2209.00532). 0: the critics' minibatch.",
    )
    privileged_critic: bool = Field(
        False,
        description="Give the phase's privileged values to the critics, never to the actor (asymmetric "
        "actor-critic, Pinto et al. 2017, arXiv:1710.06542).",
    )
    warm_up: WarmUpConfig = Field(default_factory=WarmUpConfig, description="Critic warm-up.")
    standardise: bool = Field(
        False,
        description="Standardise observations with the mean and standard deviation of the first observations, "
        "which the policy stores.",
    )
    actor_average: Fraction01 = Field(
        0.0,
        description="Weight of each update in the running average of the actor's weights, which is flown (Polyak "
        "and Juditsky 1992); 0: the actor itself is flown.",
    )
    actor_rate_updates: int = Field(
        0,
        ge=0,
        description="Number of updates over which the actor's learning rate falls along a cosine; 0: constant rate.",
    )
    actor_rate_final: Fraction01 = Field(
        0.05, description="Learning rate of the actor after actor_rate_updates, as a fraction of the initial rate."
    )
    actor_horizon: int = Field(
        0,
        ge=0,
        le=100_000,
        description="Control steps of exact value gradients through the simulator, closed by the critics: SVG(H), Heess "
        "et al. 2015, arXiv:1510.09142; 0: plain SAC.",
    )
    actor_batch: Count = Field(256, description="Flights per update with actor_horizon.")
    actor_flight_grad_max: Positive | None = Field(
        None,
        description="With actor_horizon: the largest gradient of the return with respect to the action of one "
        "control step of one flight. If it is larger, the gradient of the flight is scaled down for "
        "this step and all earlier ones; otherwise a few chaotic flights outweigh all others (Metz et "
        "al. 2021, arXiv:2111.05803).",
    )
    exploration_noise: Annotated[float, Field(ge=0)] = Field(
        0.0,
        description="Standard deviation of the Gaussian noise that is added to the sampled actions of "
        "training vehicles.",
    )

    mirror: bool = Field(
        False,
        description="Mirror half of each minibatch, if the phase declares its symmetry (Environment.mirror); the "
        "critics and the actor then learn from both sides.",
    )

    @property
    def prior_rows(self) -> int:
        """Number of transitions that are kept permanently, in whole iterations."""
        return math.ceil(self.prior.env_steps / self.vehicles) * self.vehicles

    @property
    def sees_privileged(self) -> bool:
        """Whether transitions hold the phase's privileged values."""
        return self.privileged_critic

    def discount(self, control_period_s: float) -> float:
        """Return the discount of one control step; all code that discounts uses this method."""
        if self.discount_time_s is None:
            return self.gamma
        return math.exp(-control_period_s / self.discount_time_s)

    def lacks(self, environment: Any) -> tuple[str, str] | None:
        """Return a requirement of these settings that a phase does not meet; see `LearnerConfig.lacks`."""
        if self.mirror and environment.mirror is None:
            return "a mirror, since sac.mirror is true", "set sac.mirror: false"
        return super().lacks(environment)

    @property
    def needs_gradients(self) -> bool:
        """Whether the actor is trained with value gradients through the simulator."""
        return self.actor_horizon > 0

    @model_validator(mode="after")
    def _consistent(self) -> SacConfig:
        if self.temperature_min > self.temperature_max:
            raise ValueError("temperature_min must not be above temperature_max")
        if not self.temperature_min <= self.temperature_initial <= self.temperature_max:
            raise ValueError("temperature_initial must lie in [temperature_min, temperature_max]")
        if self.actor.log_std_min >= self.actor.log_std_max:
            raise ValueError("actor.log_std_min must be below actor.log_std_max")
        if self.buffer_size < self.vehicles:
            raise ValueError("buffer_size must hold at least one transition per vehicle")
        if self.fill_cycles * self.cycle_steps < self.batch_size + self.prior_rows:
            more = " beyond those of prior.env_steps" if self.prior_rows else ""
            raise ValueError(f"fill.env_steps must give at least batch_size transitions{more}")
        if self.prior_rows and min(self.batch_size, self.warm_up.batch_size or self.batch_size) < 2:
            raise ValueError("batch_size must be at least 2 with prior.env_steps, one transition of each part")
        return self
