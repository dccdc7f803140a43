"""The interface between the engine and a learning algorithm; Soft Actor-Critic ships, in `mission/sac/`.

A learner is a subclass of `LearnerConfig` and an implementation of `Learner`. It lives in its own folder and is
registered in `LEARNERS`; nothing else in the engine names it.

Shapes: E training vehicles, V those of one device, O observation, A action. Everything that takes arrays is traced: pure
functions of JAX, run on every device of the mesh at once (`mission.machine.devices.AXIS`). `act` and `explore` get the vehicles
of their device and a key of its own; all others get equal arguments.
"""

from __future__ import annotations

import abc
import importlib
import math
from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from pydantic import Field, model_validator

from mission.strict import Count, Positive, StrictModel

if TYPE_CHECKING:
    from jax import Array


class Entry(NamedTuple):
    """The import paths of a learner, as "module:class": its configuration, and its implementation."""

    config: str
    learner: str


LEARNERS: dict[str, Entry] = {"sac": Entry("mission.sac.config:SacConfig", "mission.sac.learner:Sac")}

_MOST_ITERATIONS = 1024  # steps of all vehicles between two updates


class Transition(NamedTuple):
    """One control step of E vehicles, as a learner stores it."""

    obs: Array  # [E, O]
    action: Array  # [E, A] as sampled, before the vehicle clips it
    reward: Array  # [E]
    next_obs: Array  # [E, O] before any restart
    terminated: Array  # float32 [E], time-outs excluded
    ended: Array  # float32 [E], terminated or timed out


class PhaseInterface(NamedTuple):
    """What a learner knows of the phase that it learns: O observations, A actions, and the phase as a simulator.

    `environment` and `reward` are those of the phase, without which gradients through the simulator are not available.
    """

    observations: int
    actions: int
    control_period_s: float = 1.0
    environment: Any = None  # mission.Environment
    reward: Callable[[Any, Array, Any, Any], dict[str, Array]] | None = None


class FillConfig(StrictModel):
    """Transitions that are collected before the first update."""

    env_steps: Count = Field(5000, le=10**9, description="Vehicle steps, rounded up to whole update cycles.")
    policy: Literal["random", "guide"] = Field(
        "random", description="Uniform actions, or those of the phase's classical guidance law."
    )


class LearnerConfig(StrictModel):
    """The settings that every learner has, because the engine collects the experience for it.

    One iteration is one control step of every vehicle; `update_cycle` states how iterations and updates alternate.
    """

    # Variants of the settings by name; `sac: {preset: NAME}` in a mission file starts from one.
    presets: ClassVar[dict[str, dict[str, Any]]] = {}

    vehicles: Count = Field(64, le=65536, description="Vehicles flown side by side.")
    fill: FillConfig = Field(default_factory=FillConfig, description="Transitions before the first update.")
    updates_per_step: Positive = Field(
        0.0625,
        le=1024,
        description="Gradient updates per vehicle step: 64 vehicles at 1/16 make 4 updates per iteration.",
    )
    chunk_env_steps: Count = Field(
        16_384, le=10**9, description="Vehicle steps of one compiled chunk, rounded up to whole iterations."
    )

    history: Count = Field(
        1,
        le=64,
        description="Observations that the agent sees at once: the newest, then those of the control steps before it; at the "
        "start of a flight the first one stands for them.",
    )
    episode_noise: bool = Field(
        False,
        description="Draw the exploration of the phase's `event_actions` once per episode instead of once per control step.",
    )

    @model_validator(mode="after")
    def _updates_often_enough(self) -> LearnerConfig:
        if self.updates_per_step * self.vehicles < 1.0 / _MOST_ITERATIONS:
            raise ValueError(
                f"updates_per_step must give at least 1 update in {_MOST_ITERATIONS} steps of all vehicles"
            )
        return self

    @property
    def needs_gradients(self) -> bool:
        """Whether the learner differentiates through the control step of its phase."""
        return False

    def lacks(self, environment: Any) -> tuple[str, str] | None:
        """Return what these settings require of a `mission.Environment` that it does not have, and how to do without.

        None if it has everything.
        """
        if self.episode_noise and not environment.event_actions:
            return "event_actions, since sac.episode_noise is true", "set sac.episode_noise: false"
        return None

    @property
    def update_cycle(self) -> tuple[int, int]:
        """(iterations, updates) in lowest terms: so many iterations are followed by so many updates."""
        ratio = Fraction(self.updates_per_step * self.vehicles).limit_denominator(_MOST_ITERATIONS)
        return ratio.denominator, ratio.numerator

    @property
    def cycle_steps(self) -> int:
        """Number of vehicle steps in one update cycle."""
        return self.update_cycle[0] * self.vehicles

    @property
    def fill_cycles(self) -> int:
        """Number of update cycles, without their updates, in which the fill is collected."""
        return math.ceil(self.fill.env_steps / self.cycle_steps)

    @property
    def chunk_cycles(self) -> int:
        """Number of update cycles in one chunk."""
        return math.ceil(self.chunk_env_steps / self.cycle_steps)

    @property
    def chunk_steps(self) -> int:
        """Number of vehicle steps that one chunk actually takes."""
        return self.chunk_cycles * self.cycle_steps


class PolicyNetwork(StrictModel):
    """A stored policy as formulas over its tensors: a multi-layer perceptron with O inputs and A actions.

    Attributes:
      algorithm: the learner's name.
      head: name of the policy's distribution.
      hidden_sizes: widths of the hidden layers.
      activation: of the hidden layers.
      layer_norm: whether each hidden layer is normalised before its activation.
      layer_norm_epsilon: added to the variance there.
      tensors: names in `actor.safetensors`, in the order in which they apply: kernel [inputs, outputs] and bias of a
        layer, then scale and bias of its normalisation.
      hidden_layer: a hidden layer as a formula.
      output: the last layer as a formula.
      mean_action: the action that flies, as a formula of the output.
      standard_deviation: that of the exploration in training, as a formula of the output.
    """

    algorithm: str
    head: str
    hidden_sizes: tuple[int, ...]
    activation: str
    layer_norm: bool
    layer_norm_epsilon: float
    tensors: tuple[str, ...]
    hidden_layer: str
    output: str
    mean_action: str
    standard_deviation: str


class Learner(abc.ABC):
    """A learning algorithm for one phase; made from (its configuration, the `PhaseInterface`).

    Its state has two parts, both pytrees of its choosing: `agent` (parameters, optimisers, counters) and `replay`
    (the stored experience). Every `key` is consumed.

    Attributes:
      metrics: names of the scalars that `update` returns, in the order in which it computes them.
      shown: label -> name of a metric that the progress display shows.
      warm_up_steps: number of updates that `warm_up` makes; 0: there is no warm-up.
      warm_up_metric: name of the loss that `warm_up` returns.
      replay_setting: the setting of its configuration that decides how much memory the replay takes.
    """

    metrics: ClassVar[tuple[str, ...]] = ()
    shown: ClassVar[dict[str, str]] = {}
    warm_up_steps: int = 0
    warm_up_metric: ClassVar[str] = "WarmUp/Loss"
    replay_setting: ClassVar[str] = "buffer_size"

    @abc.abstractmethod
    def init(self, key: Array) -> Any:
        """Return a fresh agent."""

    @abc.abstractmethod
    def empty_replay(self) -> Any:
        """Return an empty replay buffer."""

    @abc.abstractmethod
    def act(self, agent: Any, obs: Array, key: Array) -> Array:
        """Return exploring actions [V, A] for observations [V, O]."""

    def explore(self, action: Array, key: Array) -> Array:
        """Return perturbed actions [V, A] for collection, including the fill."""
        return action

    @abc.abstractmethod
    def remember(self, replay: Any, transition: Transition) -> Any:
        """Return the replay buffer with E more transitions."""

    @abc.abstractmethod
    def update(self, agent: Any, replay: Any, key: Array) -> tuple[Any, Any, dict[str, Array], dict[str, Array]]:
        """Make one update.

        Returns:
          agent, replay: after the update.
          metrics: scalars by the names in `metrics`.
          samples: arrays for histograms; those of a chunk's last update are logged.
        """

    def warm_up(self, agent: Any, replay: Any, key: Array) -> tuple[Any, Any, Array]:
        """Prepare the agent between the fill and the first update; also returns the losses [warm_up_steps]."""
        raise NotImplementedError

    @abc.abstractmethod
    def policy(self, agent: Any) -> Any:
        """Return the part of the agent that flies: what a policy stores and `mean_action` takes."""

    @abc.abstractmethod
    def with_policy(self, agent: Any, policy: Any) -> Any:
        """Return the agent with its policy replaced, for example by that of `--init`."""

    @abc.abstractmethod
    def mean_action(self, policy: Any, obs: Array) -> Array:
        """Return the actions [N, A] that the trained policy flies, without exploration."""

    def networks(self, agent: Any) -> dict[str, Any]:
        """Return the parameters of each network by its name, to check that they are finite."""
        return {"Policy": self.policy(agent)}

    def replay_samples(self, replay: Any, key: Array) -> dict[str, Array]:
        """Return arrays of the replay for histograms, once per chunk."""
        return {}

    def describe_policy(self) -> PolicyNetwork | None:
        """Return the description with which `actor.safetensors` can be evaluated; None: that file is not written."""
        return None


def _load(place: str) -> Any:
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)


def config_class(name: str) -> type[LearnerConfig]:
    """Return the configuration class of a learner of `LEARNERS`."""
    return _load(LEARNERS[name].config)


def learner_name(config: LearnerConfig) -> str | None:
    """Return the name of a configuration's learner in `LEARNERS`; None if it is not registered there."""
    return next((name for name in LEARNERS if type(config) is config_class(name)), None)


def build_learner(config: LearnerConfig, interface: PhaseInterface) -> Learner:
    """Return the learner of a configuration for a phase.

    Raises:
      KeyError: no learner of this configuration is registered in `LEARNERS`.
    """
    name = learner_name(config)
    if name is None:
        raise KeyError(f"{type(config).__name__} is the configuration of no learner in mission.learner.LEARNERS")
    return _load(LEARNERS[name].learner)(config, interface)
