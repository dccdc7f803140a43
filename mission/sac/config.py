"""Hyper-parameters of Soft Actor-Critic: one strict model, every field with its source.

"Seed" names the option in the specification that this project started from. Papers: SAC, Haarnoja
et al. 2018, arXiv:1801.01290 and 1812.05905; PER, Schaul et al. 2016, arXiv:1511.05952; n-step,
Sutton and Barto 2018, section 7.1; LayerNorm, Ba et al. 2016, arXiv:1607.06450.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[float, Field(gt=0)]
Fraction01 = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
_MOST_ITERATIONS = 1024  # of all vehicles, between two updates


class StrictModel(BaseModel):
    """No coercion, no unknown keys, immutable, finite numbers only."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class NetworkConfig(StrictModel):
    """A multi-layer perceptron: `width` and `depth`, or the list `layers`."""

    width: Count = Field(256, le=8192, description="Units a hidden layer. Seed: hidden_dim.")
    depth: Count = Field(
        2,
        le=64,
        description="Hidden layers, all of them. Seed: number_of_hidden_layers + 1 (its input layer is extra).",
    )
    layers: tuple[Count, ...] | None = Field(
        None,
        strict=False,
        min_length=1,
        max_length=64,
        description="Widths of the hidden layers, instead of width and depth. Seed: none.",
    )
    layer_norm: bool = Field(False, description="LayerNorm before each activation (Ba et al. 2016). Seed: none.")
    activation: Literal["relu", "tanh", "elu", "silu"] = Field("relu", description="Hidden activation. Seed: relu.")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Widths of the hidden layers."""
        return self.layers if self.layers is not None else (self.width,) * self.depth


class ActorConfig(NetworkConfig):
    """The policy network and its distribution."""

    head: Literal["squashed", "bounded", "softplus"] = Field(
        "squashed",
        description="squashed: tanh-Gaussian (1812.05905, appendix C). bounded: tanh mean, std = max_std * sigmoid. "
        "softplus: free mean, softplus std. Seed: the last two are its Actor's two versions.",
    )
    log_std_min: float = Field(-5.0, description="Lower bound of log std, squashed head only. Seed: none.")
    log_std_max: float = Field(2.0, description="Upper bound of log std, squashed head only. Seed: none.")
    output_scale: Fraction01 = Field(
        1.0,
        description="Factor on the last layer's initial weights; 0 begins at mean 0, so that a correction begins with "
        "what it corrects (Silver et al. 2018, arXiv:1812.06298). Seed: none.",
    )


class WarmUpConfig(StrictModel):
    """Critic-only updates between the fill and the first joint update."""

    steps: int = Field(0, ge=0, le=10**9, description="Critic updates. Seed: critic_warm_up_steps.")
    learning_rate: Positive | None = Field(
        None, description="None: the critic's. Seed: pre_train_critic_learning_rate."
    )
    batch_size: Count | None = Field(None, description="None: batch_size. Seed: pre_train_critic_batch_size.")


class FillConfig(StrictModel):
    """Transitions stored before the first update."""

    env_steps: Count = Field(5000, le=10**9, description="Vehicle steps, rounded up to whole iterations. Seed: none.")
    policy: Literal["random", "guide"] = Field(
        "random", description="Uniform actions, or the phase's classical controller. Seed: none."
    )


class SacConfig(StrictModel):
    """One agent's hyper-parameters. Data only; the plugin gives defaults, the mission file overrides."""

    actor: ActorConfig = Field(
        default_factory=ActorConfig,
        description="Policy network. Seed: hidden_dim_actor, number_of_hidden_layers_actor.",
    )
    critic: NetworkConfig = Field(
        default_factory=NetworkConfig,
        description="Each of the two Q networks. Seed: hidden_dim_critic, number_of_hidden_layers_critic.",
    )
    gamma: Annotated[float, Field(gt=0, le=1)] = Field(
        0.99, description="Discount a control step (1801.01290, eq. 2). Seed: gamma."
    )
    tau: Annotated[float, Field(gt=0, le=1)] = Field(
        0.005, description="Soft update of the target critics (1801.01290, algorithm 1). Seed: tau."
    )
    actor_learning_rate: Positive = Field(
        3e-4, description="Adam (Kingma and Ba 2015, arXiv:1412.6980). Seed: actor_learning_rate."
    )
    critic_learning_rate: Positive = Field(3e-4, description="Adam (1412.6980). Seed: critic_learning_rate.")
    temperature_learning_rate: Positive = Field(
        3e-4, description="Adam on log temperature (1812.05905, eq. 18). Seed: temperature_learning_rate."
    )
    actor_grad_max_norm: Positive | None = Field(
        None,
        description="Clip the actor's gradient to this global norm (Pascanu et al. 2013, arXiv:1211.5063). Seed: actor_grad_max_norm.",
    )
    critic_grad_max_norm: Positive | None = Field(
        None, description="Clip both critics' gradient to this global norm (1211.5063). Seed: critic_grad_max_norm."
    )
    temperature_grad_max_norm: Positive | None = Field(
        None, description="Clip the temperature's gradient (1211.5063). Seed: temperature_grad_max_norm."
    )
    temperature_initial: Positive = Field(
        0.1, description="Temperature at the start (alpha of 1812.05905). Seed: temperature_initial."
    )
    temperature_learned: bool = Field(
        True, description="False keeps temperature_initial (1801.01290). Seed: always learned."
    )
    temperature_min: Positive = Field(1e-6, description="Lower clip of the temperature. Seed: none.")
    temperature_max: Positive = Field(10.0, description="Upper clip of the temperature. Seed: none.")
    temperature_delay_updates: int = Field(
        1, ge=0, description="Joint updates before the temperature moves. Seed: first_step_bool (1)."
    )
    target_entropy: Literal["action_dim", "max_std"] | float = Field(
        "action_dim",
        description="action_dim: -A (1812.05905, section 5). max_std: entropy of a Gaussian with that std, "
        "A (log max_std + 0.5 log 2 pi e). Or a number. Seed: -A log max_std, whose sign cannot be reached.",
    )
    max_std: Positive = Field(1.0, description="Largest std of the bounded head; target entropy. Seed: max_std.")
    buffer_size: Count = Field(
        200_000, le=2**31 - 1, description="Transitions kept, rounded down to whole iterations. Seed: buffer_size."
    )
    batch_size: Count = Field(256, description="Transitions an update. Seed: batch_size.")
    n_step: Count = Field(
        1, le=1000, description="Steps summed before bootstrapping (Sutton 7.1). Seed: trajectory_length."
    )
    prioritised: bool = Field(True, description="PER; False samples uniformly. Seed: always PER.")
    alpha: Fraction01 = Field(0.6, description="Priority exponent (PER, eq. 1). Seed: alpha_buffer.")
    beta: Fraction01 = Field(
        0.4, description="Importance-sampling exponent at the start (PER, section 3.4). Seed: beta_buffer."
    )
    beta_decay: Annotated[float, Field(gt=0, le=1)] = Field(
        0.9999,
        description="1 - beta shrinks by this factor an update, so beta is annealed to 1 (PER anneals linearly). Seed: beta_decay_buffer.",
    )
    priority_epsilon: Positive = Field(1e-3, description="Added to |TD error| (PER, section 3.3). Seed: none.")
    warm_up: WarmUpConfig = Field(
        default_factory=WarmUpConfig, description="Critic warm-up. Seed: critic_warm_up_steps and two more."
    )
    fill: FillConfig = Field(default_factory=FillConfig, description="Transitions before the first update. Seed: none.")
    exploration_noise: Annotated[float, Field(ge=0)] = Field(
        0.0, description="Std of Gaussian noise added to the sampled action while collecting. Seed: yes, unnamed."
    )
    vehicles: Count = Field(64, le=65536, description="Vehicles flown side by side. Seed: 1.")
    updates_per_step: Positive = Field(
        0.0625,
        le=1024,
        description="Gradient updates per vehicle step, a ratio: 64 vehicles at 1/16 make 4 updates an iteration. Seed: 1.",
    )
    chunk_env_steps: Count = Field(
        16_384, le=10**9, description="Vehicle steps of one compiled chunk, rounded up to whole iterations. Seed: none."
    )

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
        if self.fill_iterations * self.vehicles < self.batch_size:
            raise ValueError("fill.env_steps must give at least batch_size transitions")
        if self.updates_per_step * self.vehicles < 1.0 / _MOST_ITERATIONS:
            raise ValueError(
                f"updates_per_step must give at least 1 update in {_MOST_ITERATIONS} steps of all vehicles"
            )
        return self

    @property
    def update_cycle(self) -> tuple[int, int]:
        """(iterations, updates): so many updates follow on so many iterations, smallest numbers."""
        from fractions import Fraction

        ratio = Fraction(self.updates_per_step * self.vehicles).limit_denominator(_MOST_ITERATIONS)
        return ratio.denominator, ratio.numerator

    @property
    def fill_iterations(self) -> int:
        """Iterations of the fill; each is one step of every vehicle."""
        return math.ceil(self.fill.env_steps / self.vehicles)

    @property
    def chunk_cycles(self) -> int:
        """Update cycles of one chunk."""
        return math.ceil(self.chunk_env_steps / (self.vehicles * self.update_cycle[0]))

    @property
    def chunk_steps(self) -> int:
        """Vehicle steps that one chunk really takes."""
        return self.chunk_cycles * self.update_cycle[0] * self.vehicles


# The hyper-parameters printed in the seed (flip-over and boostback agent), for comparison. Its
# depth counts the layers after the first, so 14 and 18 are 15 and 19 here.
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
