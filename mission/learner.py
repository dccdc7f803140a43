"""The interface between the engine and a learning algorithm; Soft Actor-Critic is included, in `mission/sac/`.

A learner is a subclass of `LearnerConfig` and an implementation of `Learner`. It lives in its own folder and is
registered in `LEARNERS`; nothing else in the engine names it.

Shapes: E training vehicles, V those of one device, O observation, A action, P privileged values. Everything that takes arrays is traced: pure
functions of JAX, run on every device of the mesh at once (`mission.machine.devices.AXIS`). `act` and `explore` get the vehicles
of their device and a key of its own; all others get equal arguments.
"""

from __future__ import annotations

import abc
import importlib
import math
from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import Field, model_validator

from mission.strict import Count, Fraction01, Positive, StrictModel

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
    privileged: Array | None = None  # [E, P], only with `LearnerConfig.sees_privileged`
    next_privileged: Array | None = None  # [E, P] before any restart


class PhaseInterface(NamedTuple):
    """The part of a phase that its learner uses: O observations, A actions, and the phase as a simulator.

    `environment` and `reward` are those of the phase, without which gradients through the simulator are not available.
    """

    observations: int
    actions: int
    control_period_s: float = 1.0
    environment: Any = None  # mission.Environment
    reward: Callable[[Any, Array, Any, Any], dict[str, Array]] | None = None
    privileged: int = 0  # values P that only training sees


class Labels(NamedTuple):
    """Observations and the actions of the guidance law in the same states; the first `size` rows are filled."""

    obs: Array  # [C, O]
    action: Array  # [C, A], clipped to [-1, 1]
    cursor: Array  # int32 [], the next row to write
    size: Array  # int32 []


class FillConfig(StrictModel):
    """Transitions that are collected before the first update."""

    env_steps: Count = Field(5000, le=10**9, description="Vehicle steps, rounded up to whole update cycles.")
    policy: Literal["random", "guide", "agent"] = Field(
        "random",
        description="Actions of the fill: random (uniform), guide (the phase's guidance law), or agent (the "
        "agent's first policy). With agent after --init or an imitation, learning begins with flights "
        "of the policy that it improves (WSRL, Zhou et al. 2024, arXiv:2412.07762).",
    )


class ImitationConfig(StrictModel):
    """Imitation of the phase's guidance law before the fill: DAgger, Ross et al. 2011, arXiv:1011.0686.

    In each round the vehicles continue to fly, and the guide's action in every visited state is stored with the
    observation. The policy is then fitted to all stored actions.
    """

    rounds: Count = Field(20, le=10_000, description="Number of rounds of flying and fitting.")
    guide_shares: tuple[Fraction01, ...] = Field(
        (1.0, 1.0, 0.5, 0.5),
        strict=False,
        min_length=1,
        description="Share of the vehicles that the guide flies, by round; in later rounds the policy flies all "
        "vehicles.",
    )
    env_steps: Count = Field(131_072, le=10**9, description="Vehicle steps per round, rounded up.")
    rows: Count = Field(
        1_000_000, le=10**9, description="Largest number of stored actions; the newest replace the oldest."
    )
    updates: Count = Field(2500, le=10**9, description="Updates per round.")
    batch_size: Count = Field(1024, description="Stored actions per update.")
    learning_rate: Positive = Field(
        1e-3, description="Learning rate of Adam; it falls along a cosine over all updates."
    )
    final_rate: Fraction01 = Field(0.03, description="Learning rate at the end, as a fraction of the initial rate.")
    huber: Positive = Field(0.1, description="Error of an action above which its loss is linear (Huber 1964).")
    event_weight: Annotated[float, Field(ge=1)] = Field(
        1.0,
        description="Weight of the error of an event time whose event is due now; the weight falls to 1 for "
        "times in the upper three quarters of the action's range.",
    )
    average: Positive = Field(
        0.001,
        le=1.0,
        description="Weight of each update in the running average of the network's weights, which "
        "is flown (Polyak averaging).",
    )
    weight: Annotated[float, Field(ge=0)] = Field(
        0.0, description="Weight in the actor's loss of the squared distance from the imitator's actions."
    )


class LearnerConfig(StrictModel):
    """The settings that every learner has, because the engine collects its experience.

    One iteration is one control step of every vehicle; `update_cycle` states how iterations and updates alternate.
    """

    # Variants of the settings by name; `sac: {preset: NAME}` in a mission file starts from one.
    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    # Pairs of settings of which a mission file gives at most one; it then replaces the plugin's value of either.
    alternatives: ClassVar[tuple[tuple[str, str], ...]] = ()

    vehicles: Count = Field(64, le=65536, description="Number of training vehicles, which fly in parallel.")
    imitation: ImitationConfig | None = Field(
        None, description="Imitation of the guidance law before the fill; null: none."
    )
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
        description="Number of stacked observations: the newest, then those of the previous control steps. At "
        "the start of a flight, the first observation takes the place of missing ones.",
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
    def sees_privileged(self) -> bool:
        """Whether transitions hold what `Environment.privileged` returns."""
        return False

    @property
    def needs_gradients(self) -> bool:
        """Whether the learner differentiates through the control step of its phase."""
        return False

    def lacks(self, environment: Any) -> tuple[str, str] | None:
        """Return a requirement of these settings that a `mission.Environment` does not meet, and the remedy.

        None if it meets all of them.
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
      input: the input of the first layer, as a formula of the observation.
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
    input: str = "observation"
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


class Layer(NamedTuple):
    """One layer of a policy: y = x @ kernel + bias, normalised if there is a scale, then the activation.

    All arrays are float32 numpy: kernel [I, J]; bias, scale and shift [J]. The normalisation is
    scale * (y - mean(y)) / sqrt(variance(y) + epsilon) + shift; without one `scale` and `shift` are None.
    """

    kernel: Any
    bias: Any
    activation: Literal["relu", "tanh", "elu", "silu", "identity"]
    scale: Any = None
    shift: Any = None


class PolicyLayers(NamedTuple):
    """The numbers of a policy in the order in which they apply, for programs that fly it without the engine.

    The input is (observation - mean) / std, clipped to +-most; `mean` is None if the observation is taken as it is. The
    action is the output of the last layer, clipped to [-1, 1].
    """

    layers: tuple[Layer, ...]
    epsilon: float  # of the normalisations
    mean: Any = None  # float32 [O]
    std: Any = None  # float32 [O]
    most: float = 0.0  # deviations from the mean


class Learner(abc.ABC):
    """A learning algorithm for one phase; created from its configuration and the `PhaseInterface`.

    Its state has two parts, which may be any pytrees: `agent` (parameters, optimisers, counters) and `replay`
    (the stored experience). Every `key` is consumed.

    Attributes:
      metrics: names of the scalars that `update` returns, in the order in which it computes them.
      shown: label -> name of a metric that the progress display shows.
      warm_up_steps: number of updates that `warm_up` makes; 0: there is no warm-up.
      warm_up_metric: name of the loss that `warm_up` returns.
      replay_setting: the setting of its configuration that determines the memory of the replay buffer.
      horizon: number of control steps that `update` flies from visited states; 0: it needs no visited states.
      prepares: whether `warm_up` is called although it makes no updates.
    """

    metrics: ClassVar[tuple[str, ...]] = ()
    shown: ClassVar[dict[str, str]] = {}
    warm_up_steps: int = 0
    warm_up_metric: ClassVar[str] = "WarmUp/Loss"
    replay_setting: ClassVar[str] = "buffer_size"
    horizon: int = 0
    prepares: bool = False

    def warnings(self) -> tuple[tuple[str, str], ...]:
        """Return (key, sentence) for each setting that cannot have its effect in this phase."""
        return ()

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
    def update(
        self, agent: Any, replay: Any, visited: Any, key: Array
    ) -> tuple[Any, Any, dict[str, Array], dict[str, Array]]:
        """Make one update.

        Args:
          agent, replay: of the learner.
          visited: (leaves [V, ...], bool [V]): for each vehicle of this device a state that it visited, at most `horizon`
            control steps before the end of an episode, and whether there is one yet; empty if `horizon` is 0.
          key: consumed.

        Returns:
          agent, replay: after the update.
          metrics: scalars by the names in `metrics`.
          samples: arrays for histograms; those of a chunk's last update are logged.
        """

    def warm_up(self, agent: Any, replay: Any, key: Array) -> tuple[Any, Any, Array]:
        """Prepare the agent between the fill and the first update; also returns the losses [warm_up_steps]."""
        raise NotImplementedError

    def imitate(self, agent: Any, labels: Labels, first: Array, key: Array) -> tuple[Any, Array]:
        """Fit the policy to stored actions; make the updates of one round.

        Args:
          agent: of the learner.
          labels: the stored actions.
          first: int32 [], number of updates made in the rounds before; 0 in the first round.
          key: consumed.

        Returns:
          agent: the agent, whose policy is the imitator.
          losses: [updates].
        """
        raise NotImplementedError

    @abc.abstractmethod
    def policy(self, agent: Any) -> Any:
        """Return the part of the agent that flies, which a policy stores and `mean_action` uses."""

    def imitator(self, agent: Any) -> Any:
        """Return the policy at the end of the imitation, stored beside the trained policy; None without imitation."""
        return None

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
        """Return the description that is needed to evaluate `actor.safetensors`; None: that file is not written."""
        return None

    def policy_layers(self, policy: Any) -> PolicyLayers | None:
        """Return the layers that `mean_action` computes; None: the policy cannot be exported (docs/export.md)."""
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
