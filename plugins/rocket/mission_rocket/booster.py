"""Everything that the phases of the booster share: parameters, causes, box, reward terms, and `BoosterPhase`.

A phase is a final subclass of `BoosterPhase` in its own file; phases/landing_burn.py is a good template.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from functools import cached_property
from typing import Any, ClassVar, Generic, Literal, TypeVar

import jax
import jax.numpy as jnp
from jax import Array
from pydantic import Field, model_validator

from mission import (
    ActorConfig,
    FillConfig,
    ImitationConfig,
    Limit,
    NetworkConfig,
    Outcome,
    PhaseSpec,
    SacConfig,
    WarmUpConfig,
)
from mission_rocket.controls import CENTRED, Setting, throttle_of, uncorrected
from mission_rocket.dispersions import Dispersions
from mission_rocket.measurement import Measurement, exact, measure
from mission_rocket.observation import ObservedPhase
from mission_rocket.physics.channels import Impact, channels, fall
from mission_rocket.physics.constants import EARTH_ROTATION_RAD_S
from mission_rocket.physics.gravity import Site, wgs84
from mission_rocket.physics.integrate import advance_twice, blow, cross_altitude
from mission_rocket.physics.perturb import perturb
from mission_rocket.physics.state import Command, Dispersion, Handover, start_state
from mission_rocket.physics.vector import Scalar, Vector, norm, quaternion_of_axis
from mission_rocket.physics.vehicle import Body
from mission_rocket.report import sections
from mission_rocket.vehicles import Strict, Vehicle, build_body, flying_parts, misplaced
from mission_rocket.winds import Winds

GOAL = 40.0  # reward of a success, penalty of a vehicle that is lost before the end, and scale of the cost of a box
_SHARP, _INSIDE = 8.0, 0.8  # of the cost of a side of a box: linear above 0.8 of its limit, flat inside

# Dispersions that critics may see: nominal value and size.
PRIVILEGED = {
    "thrust": (1.0, 0.01),
    "specific_impulse": (1.0, 0.01),
    "dry_mass": (1.0, 0.01),
    "drag": (1.0, 0.1),
    "lift": (1.0, 0.1),
    "centre_of_mass_x": (0.0, 0.1),
    "centre_of_mass_y": (0.0, 0.1),
    "actuator_lag": (1.0, 0.2),
    "ignition_delay": (0.2, 0.1),
}

S = TypeVar("S")
Box = dict[str, Array]  # deviations by name as fractions of their limits in a success box: above 1 is outside


class FlightParams(Strict):
    """The parameters of every phase of the booster; set them once under `params` of the mission."""

    vehicle: Vehicle = Field("falcon9_class", validate_default=True)
    dispersions: Dispersions = Dispersions()
    earth_rotation: bool = True
    latitude_deg: float = Field(28.4858, ge=-90.0, le=90.0)
    azimuth_deg: float = Field(90.0, ge=0.0, lt=360.0, description="Direction of downrange, clockwise from north.")
    earth: Literal["sphere", "wgs84"] = Field(
        "sphere", description="A sphere with inverse-square gravity, or the WGS-84 ellipsoid with J2."
    )
    wind: Winds = Field(None, description="Steady wind by altitude, in place of the envelope: a table or a file.")

    @model_validator(mode="after")
    def _engine_exists(self) -> FlightParams:
        engines = sum(len(group.positions_m) for group in self.vehicle.stages[0].engines)
        known = f"an engine of {self.vehicle.name} from 0 to {engines - 1}"
        if (out := self.dispersions.engine_out) >= engines:
            raise misplaced(("dispersions", "engine_out"), out, f"-1, or {known}")
        for place, out in enumerate(self.dispersions.engines_out):
            if not 0 <= out < engines:
                raise misplaced(("dispersions", "engines_out", place), out, known)
        return self

    def site(self) -> Site:
        """Return the launch site."""
        azimuth = math.radians(self.azimuth_deg)
        parts: dict[str, Any] = {
            "rotation": EARTH_ROTATION_RAD_S if self.earth_rotation else 0.0,
            "latitude": math.radians(self.latitude_deg),
            "azimuth": azimuth,
            "winds": None if self.wind is None else self.wind.profile(azimuth),
        }
        return wgs84(**parts) if self.earth == "wgs84" else Site(**parts)


def residual_field(default: float) -> Any:
    """Return the field `residual` of a phase with a guidance law."""
    return Field(default, ge=0.0, le=1.0, description="Authority of the agent over the guide; 0: no guide.")


def outside(box: Box, *names: str) -> Array:
    """Return whether a vehicle is outside any of the named sides of a box; of all sides if none is named."""
    return jnp.stack([~(box[name] <= 1.0) for name in names or box]).any()


def off_centre(value: Scalar, bounds: tuple[float, float], centre: float | None = None) -> Array:
    """Return the distance of a value from the centre of a range, in units of half its width."""
    low, high = bounds
    return jnp.abs(value - (0.5 * (low + high) if centre is None else centre)) / (0.5 * (high - low))


def near_miss(box: Box, most: float) -> Array:
    """Return the reward `most` / (1 + side^2) summed over the sides, so that a near miss beats a far one."""
    return (most / (1.0 + jnp.stack(list(box.values())) ** 2)).sum()


def box_cost(box: Box) -> Array:
    """Return the cost of the sides of a box: small and nearly flat inside it, linear outside of it, at most 5 in all."""
    sides = jnp.stack(list(box.values()))
    cost = jax.nn.softplus(_SHARP * (sides - _INSIDE)) / _SHARP + 0.02 * jnp.minimum(sides, 10.0)
    return jnp.minimum(cost.sum(), 5.0)


def shortage(left: Scalar, per: float) -> Array:
    """Return the cost of what a vehicle has left [kg]: nearly 0 from 3 `per` upwards, linear below 0, 1 per 10 `per`."""
    return 0.1 * jax.nn.softplus(-jnp.asarray(left) / per)


def with_success(outcome: Outcome, reward: Scalar) -> Array:
    """Return a reward that only a success earns."""
    return jnp.where(outcome.success, reward, 0.0)


def between(bounds: tuple[float, float], draw: Array) -> Array:
    """Map a draw in [-1, 1] to a range."""
    return bounds[0] + (bounds[1] - bounds[0]) * 0.5 * (draw + 1.0)


@dataclasses.dataclass(frozen=True, eq=False)
class BoosterPhase(ObservedPhase[Handover, S], Generic[S]):
    """A phase of the booster: the plumbing between the engine, the physics and a guidance law.

    A concrete phase is final. It states `controls`, `causes`, `observation`, the control period and the time limit,
    and writes `start`, `enter`, `step`, `outcome` and `reward`. Its state is a NamedTuple with the fields `flight`
    (Handover), `time` (in the phase [s]), `arrived` (whether the phase has reached its regular end), `measured`,
    `worst` (largest share of a structural limit so far), `plan` (of the guidance law, with the field `action`) and
    further fields.
    """

    params: Any
    body: Body
    site: Site
    planned: bool = True  # whether each step computes the plan of the guidance law

    law_type: ClassVar[Any]  # the class of the guidance law
    controls: ClassVar[Any]  # Controls, or a property where they depend on the parameters
    engine_first: ClassVar[bool] = True
    carries_stages: ClassVar[bool] = False
    # penalty per second, times the share of a structural limit above 80 %
    limit_penalty_per_s: ClassVar[float] = 1.0

    @classmethod
    def build(cls, params: Any) -> Any:
        """Build the phase for its parameters."""
        return cls(params, build_body(params.vehicle, 0, carrying=cls.carries_stages), params.site())

    @cached_property
    def law(self) -> Any:
        """Return the guidance law."""
        return self.law_type(self.params, self.body, self.site, self.controls, self.control_period_s)

    def unguided(self) -> Any:
        """Return the phase without the plans of its guidance law, unless the agent corrects them."""
        return dataclasses.replace(self, planned=self.params.residual > 0.0)

    @property
    def action_names(self) -> tuple[str, ...]:  # ty: ignore[incompatible-property-override]
        """Return the names of the actions."""
        return self.controls.names

    @property
    def privileged_names(self) -> tuple[str, ...]:  # ty: ignore[incompatible-attribute-override]
        """Return the names of the dispersions of a flight, which critics may see and no policy."""
        return (*PRIVILEGED, "wind_percentile")

    def privileged(self, state: Any) -> Array:
        """Return the dispersions of the flight about their nominal values, of order one."""
        day = state.flight.dispersion
        values = [(getattr(day, name) - middle) / size for name, (middle, size) in PRIVILEGED.items()]
        return jnp.stack([jnp.asarray(value, jnp.float32) for value in (*values, day.wind.percentile / 50.0 - 1.5)])

    @property
    def event_actions(self) -> tuple[str, ...]:  # ty: ignore[incompatible-attribute-override]
        """Return the names of the actions that are times to an event."""
        return tuple(self.controls.names[at] for at in self.controls.events)

    @abc.abstractmethod
    def reward(self, state: S, action: Array, after: S, outcome: Outcome) -> dict[str, Array]:
        """Return the reward terms of a step."""

    def burning_groups(self) -> int:
        """Return how many engine groups burn, counted from the first: all of them, unless a phase overrides this."""
        return len(self.body.engines)

    def own_telemetry(self, state: S) -> dict[str, Scalar]:
        """Return the telemetry channels that only this phase has."""
        return {}

    def impact(self, state: S) -> Impact | None:
        """Return the vacuum impact point if the phase predicts it anyway; None: telemetry predicts it."""
        return None

    def day(self, key: Array) -> Dispersion:
        """Draw the dispersions of one flight. Key consumed."""
        return self.params.dispersions.draw(key, sum(len(group.positions) for group in self.body.engines))

    def draw(self, key: Array, count: int) -> tuple[Dispersion, Array, Array]:
        """Draw a start: (dispersions, `count` numbers in [-1, 1], key of the turbulence). Key consumed."""
        dispersion_key, draw_key, gust_key = jax.random.split(key, 3)
        numbers = jax.random.uniform(draw_key, (count,), minval=-1.0, maxval=1.0)
        return self.day(dispersion_key), numbers, gust_key

    def place(
        self,
        dispersion: Dispersion,
        key: Array,
        position: Vector,
        velocity: Vector,
        axis: Vector,
        propellant: Array,
        ignitions_left: tuple[float, ...],
        rates: Vector = CENTRED,
        gas: Scalar | None = None,
    ) -> Handover:
        """Return a vehicle with its engines off and its nose along `axis`; `key` (consumed) draws the turbulence."""
        attitude = quaternion_of_axis(axis * (1.0 / norm(axis)))
        state = start_state(self.body, position, velocity, attitude, propellant, key)
        motion = state.motion._replace(rates=Vector(*(jnp.asarray(rate, jnp.float32) for rate in rates)))
        if gas is not None:
            motion = motion._replace(rcs_propellant=jnp.asarray(gas, jnp.float32))
        left = tuple(jnp.asarray(number, jnp.float32) for number in ignitions_left)
        return Handover(state._replace(motion=motion, ignitions_left=left), dispersion)

    def aimed(self, velocity: Vector, height: Scalar, target_x: Scalar, target_y: Scalar) -> Vector:
        """Return the position at an altitude from which a ballistic fall in vacuum ends at a target."""
        position = Vector(jnp.zeros(()), jnp.zeros(()), jnp.asarray(height, jnp.float32))
        for _ in range(2):  # the Earth is round: the second pass corrects the altitude
            impact, _ = fall(self.site, position, velocity)
            x, y = position.x + target_x - impact.x, position.y + target_y - impact.y
            position = Vector(x, y, height - (x * x + y * y) / (2.0 * self.site.radius))
        return position

    def perturb(self, handoff: Handover, noise: Handover) -> Handover:
        """Move the vehicle by noise; the dispersions of its flight stay."""
        return handoff._replace(state=perturb(self.body, handoff.state, noise.state))

    def redraw(self, key: Array, handoff: Handover) -> Handover:
        """Draw the dispersions of a flight again. The vehicle stays as it is, also what its tanks hold. Key consumed."""
        return handoff._replace(dispersion=self.day(key))

    def entered(self, flight: Handover) -> dict[str, Any]:
        """Return the shared fields of the state, but for the plan, of a flight that enters the phase."""
        # no step of this phase has loaded the structure so far
        measured = measure(self.body, self.site, self.engine_first, flight)._replace(limit_share=jnp.zeros(()))
        zero = jnp.zeros(())
        return {"flight": flight, "time": zero, "arrived": jnp.bool_(False), "measured": measured, "worst": zero}

    def received(self, state: Any, action: Array) -> Setting:
        """Return the setting that the vehicle receives for an action of the agent."""
        if self.params.residual > 0.0:
            action = self.controls.corrected(state.plan.action, self.params.residual, action)
        return self.controls.decode(action)

    def switch(self, state: Any, burning: Array, *events: tuple[Array, Scalar]) -> Array:
        """Return where to divide the period [s]: at the first event (whether, seconds) that switches the command.

        Without one, where engines that are `burning` from its start ignite after their delay; else halfway.
        """
        delayed = state.flight.dispersion.ignition_delay - state.flight.state.lit_for[0]
        ignites = burning & (delayed > 0.0) & (delayed < self.control_period_s)
        at = jnp.where(ignites, delayed, 0.5 * self.control_period_s)
        for happens, seconds in reversed(events):
            at = jnp.where(happens, jnp.clip(seconds, 0.0, self.control_period_s), at)
        return at

    def command(self, setting: Setting, on: Array) -> Command:
        """Return the command of a setting, with the engines burning where `on`."""
        groups = self.burning_groups()
        throttle = [jnp.where(on, throttle_of(group, setting.throttle), 0.0) for group in self.body.engines[:groups]]
        return Command(
            throttle=(*throttle, *(jnp.zeros(()) for _ in self.body.engines[groups:])),
            gimbal=setting.gimbal * self.body.gimbal.limit,
            fins=setting.fin * (self.body.fins.limit if self.body.fins else 0.0),
            rcs=setting.rcs,
        )

    def fly(
        self,
        key: Array,
        state: Any,
        setting: Setting,
        on: tuple[Array, Array],
        switch: Array,
        steps_each: int = 1,
        stop_at: float | None = None,
    ) -> Any:
        """Fly one control period and measure: the shared fields of the state advance, but for the plan.

        Args:
          key: consumed.
          state: of the phase.
          setting: of the actuators.
          on: whether the engines burn until `switch` seconds, and after that.
          switch: seconds from the method `switch`.
          steps_each: integration steps before and after the switch.
          stop_at: altitude [m] at which the period stops on the way down; the phase has then arrived.
        """
        period, flight, dispersion = self.control_period_s, state.flight, state.flight.dispersion
        commands = self.command(setting, on[0]), self.command(setting, on[1])
        begun = blow(self.site, dispersion, flight.state, key, period)
        spans = (switch, period - switch)
        moved = advance_twice(self.body, self.site, dispersion, begun, commands, spans, steps_each)
        arrived, spent = state.arrived, jnp.asarray(period)
        if stop_at is not None:
            arrived, moved = cross_altitude(self.site, flight.state, moved, period, stop_at)
            spent = jnp.where(arrived, moved.time - flight.state.time, period)
        flight = flight._replace(state=moved)
        noise_key = jax.random.fold_in(key, 1)
        measured = measure(self.body, self.site, self.engine_first, flight, commands[1], noise_key)
        worst = jnp.maximum(state.worst, measured.limit_share)
        return state._replace(flight=flight, time=state.time + spent, arrived=arrived, measured=measured, worst=worst)

    def exact(self, state: Any) -> Measurement:
        """Return the measurement without the errors of navigation: what happens, not what navigation reports."""
        return exact(self.site, state.measured, state.flight.state.motion)

    def failures(self, state: Any) -> dict[str, Array]:
        """Return the failures that end a powered phase at once."""
        return {
            "overstressed": state.worst > 1.0,
            "out_of_propellant": jnp.asarray(state.measured.motion.propellant <= 0.0),
        }

    def limit_penalty(self, measured: Measurement) -> Array:
        """Return the reward for the share of a structural limit above 80 %, over one control period."""
        charge = self.limit_penalty_per_s * self.control_period_s
        return -charge * jnp.clip(measured.limit_share - 0.8, 0.0, 1.0)

    def guide(self, state: Any) -> Array:
        """Return the action of the guidance law; zero where the action corrects it."""
        return uncorrected(state.plan.action, self.params.residual)

    def leave(self, state: Any) -> Handover:
        """Hand over the vehicle and its dispersions."""
        return state.flight

    def telemetry(self, state: Any) -> dict[str, Array]:
        """Return every derived channel, the time in the phase, and the channels of the phase's own."""
        measured, vehicle = self.exact(state), state.flight.state
        wind = measured.wind + measured.gust
        derived = channels(self.body, self.site, vehicle, measured.loads, wind, self.impact(state))
        own = {"phase_time_s": state.time} | self.own_telemetry(state)
        return derived | {name: jnp.asarray(value) for name, value in own.items()}


def booster_spec(phase: type[BoosterPhase[Any]], params: type[FlightParams], sac: SacConfig) -> PhaseSpec:
    """Return the record of a booster phase for the engine."""
    return PhaseSpec(
        params=params,
        environment=phase.build,
        reward=lambda values: phase.build(values).reward,
        limits=lambda values: structural_limits(values, phase.engine_first),
        report=sections,
        sac=sac,
    )


def structural_limits(params: FlightParams, engine_first: bool) -> tuple[Limit, ...]:
    """Return the limits of the vehicle as the engine reports them."""
    limits = flying_parts(params.vehicle.stages[0]).limits
    pressure = limits.dynamic_pressure_engine_first_pa if engine_first else limits.dynamic_pressure_nose_first_pa
    return (
        Limit("dynamic_pressure_pa", maximum=pressure),
        Limit("q_alpha_pa_deg", maximum=limits.q_alpha_pa_deg),
        Limit("axial_load_m_s2", maximum=limits.axial_load_m_s2),
        Limit("lateral_load_m_s2", maximum=limits.lateral_load_m_s2),
        Limit("rate_deg_s", maximum=limits.body_rate_deg_s),
        Limit("propellant_kg", minimum=0.0),
    )


def residual_sac(
    target_entropy: float,
    width: int = 128,
    gamma: float = 0.995,
    actor_learning_rate: float = 5e-5,
    exploration_noise: float = 0.1,
) -> SacConfig:
    """Return the defaults of an agent that makes small corrections to a good guide and must not become worse than it.

    At the start the policy equals the guide (`output_scale`), and the replay buffer holds noisy flights of it. The
    critics learn from those first: without critic warm-up the actor forgets the guide within 50,000 steps, because it
    follows untrained critics.
    """
    return SacConfig(
        actor=ActorConfig(width=width, layer_norm=True, log_std_max=0.0, output_scale=0.0),
        critic=NetworkConfig(width=width, layer_norm=True),
        gamma=gamma,
        tau=0.01,
        n_step=5,
        actor_learning_rate=actor_learning_rate,
        critic_learning_rate=5e-4,
        temperature_initial=5e-4,
        target_entropy=target_entropy,
        exploration_noise=exploration_noise,
        buffer_size=400_000,
        fill=FillConfig(env_steps=65_536, policy="guide"),
        warm_up=WarmUpConfig(steps=15_000),
    )


def flown_alone_sac(rounds: int = 20, width: int = 256, actor_horizon: int = 0) -> SacConfig:
    """Return the defaults of an agent that flies alone: it imitates the guide, then follows exact value gradients.

    Args:
      rounds: of the imitation.
      width: of the hidden layers.
      actor_horizon: control steps of the value gradients; 0: none, for phases whose imitator loses hardly any flight.
    """
    return SacConfig(
        actor=ActorConfig(width=width, layer_norm=True, activation="silu", log_std_max=-2.5),
        critic=NetworkConfig(width=width, layer_norm=True),
        standardise=True,
        imitation=ImitationConfig(rounds=rounds, event_weight=5.0, weight=3.0),
        gamma=0.999,
        tau=0.01,
        actor_learning_rate=5e-5,
        actor_grad_max_norm=1.0,
        actor_rate_updates=120,
        actor_average=0.04,
        actor_horizon=actor_horizon,
        actor_batch=256,
        critic_learning_rate=5e-4,
        temperature_initial=1e-4,
        temperature_learned=False,
        buffer_size=200_000,
        vehicles=512,
        updates_per_step=1 / 4096,
        fill=FillConfig(env_steps=65_536, policy="agent"),
        warm_up=WarmUpConfig(steps=2000 if actor_horizon else 0),
    )
