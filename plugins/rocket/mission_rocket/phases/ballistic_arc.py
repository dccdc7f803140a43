"""Ballistic arc: from the end of the boostback through apogee down to `end_altitude_m`, engines off.

Actions (6): `rcs_yaw`, `rcs_pitch`, `rcs_roll`, `fin_yaw`, `fin_pitch`, `fin_roll` (shares of the actuators' limits).
With `residual` r > 0 the vehicle receives guide + r x action, clipped; with 0 the action itself.

Observation (34): position downrange (40 km about 40 km) and across (2 km), altitude (40 km about 100 km), velocity
across (300 m/s, 30 m/s) and up (700 m/s), the axis (as it is), rates (0.05 rad/s and log, 0.005 rad/s), the angle
off the direction wanted in body axes (as it is and tanh, 0.1), incidence (0.1, tanh), dynamic pressure (log,
100 Pa), gas (200 kg), time to the end (150 s), fins (their limits), distance of the impact without air from the
target (log, 300 m), and the guide's action.

Success `oriented`: at `end_altitude_m` descending, engines first with at most `incidence_deg` to the flow,
at most `rate_deg_s`, gas left. Failures: `overstressed` (at once, when a structural limit is passed),
`out_of_gas` (at once), and at the end altitude `misaligned` (incidence, or nose first) and `turning` (rate).

Limits: dynamic pressure engines first, q-alpha, axial and lateral load, turning rate of the vehicle file,
reported as margins; the largest share of any is carried in the state.

Reward: `oriented` 20 for the whole box: what counts. `arrival` pays 3 / (1 + (x / limit)^2) at the end for
incidence and for rate, so that a near miss beats a far one. `pointing` pays 0.02 / (1 + angle / 10 deg) a
second, some 4 in all, for being turned early. `aim` pays 1 / (1 + (impact error / 1 km)^2) at the end: nothing
here steers the flight, but the thrusters' push and the drag move it by some metres, so position still costs.
`gas` takes 1 for each 5 kg: every flight arrives, so the gas is what an agent can win. `limits` takes the share of a limit above 80 %, each step.

Guide: the nose goes to where it is against the flow at the end altitude, foreseen from the present fall, at
a slow rate (the gas for a turn grows with its rate), with proportional-derivative control; in air that can
be felt the fins take over, and only damp: the vehicle is stable engines first.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from pydantic import Field

from mission import Environment, Outcome, PhaseSpec, hookimpl
from mission_rocket.flight import (
    Flight,
    FlightParams,
    Range,
    View,
    agent,
    body_components,
    bounded,
    compress,
    corrected,
    draw_day,
    move,
    stress,
    stress_ratio,
    structural_limits,
    uncorrected,
    view,
)
from mission_rocket.guidance import point
from mission_rocket.physics.channels import channels, fall
from mission_rocket.physics.constants import DEGREE
from mission_rocket.physics.gravity import Site, free_fall
from mission_rocket.physics.integrate import cross_altitude
from mission_rocket.physics.state import Command, start_state
from mission_rocket.physics.vector import Vector, norm, quaternion_of_axis
from mission_rocket.physics.vehicle import Body
from mission_rocket.report import sections
from mission_rocket.vehicles import build_body

ORIENTED, MISALIGNED, TURNING, OUT_OF_GAS, OVERSTRESSED = range(5)
_SLEW = 0.025  # rad/s
_FELT_PA = 150.0  # above this the fins and the air turn the vehicle better than the gas


class Params(FlightParams):
    """What the entry accepts, and what a start of its own scatters about."""

    residual: float = Field(0.2, ge=0.0, le=1.0, description="Authority of the agent over the guide; 0: no guide.")
    end_altitude_m: float = Field(70e3, gt=10e3, lt=110e3)
    incidence_deg: float = Field(5.0, gt=0.0)
    rate_deg_s: float = Field(1.0, gt=0.0)
    target_offset_m: float = Field(-2800.0, description="Where along x the boostback aims a fall without air.")
    start_altitude_m: Range = (114e3, 144e3)
    start_climb_m_s: Range = (200.0, 640.0)
    start_propellant_kg: Range = (13_000.0, 22_000.0)
    start_gas_kg: Range = (250.0, 400.0)


class Plan(NamedTuple):
    """What the guide would do now [6], where the nose should point (unit vector), seconds until the end altitude."""

    action: Array
    wanted: Vector
    seconds: Array


class State(NamedTuple):
    """A booster on its arc. `share` of the worst structural limit now, `worst` so far; `begun_kg` of gas."""

    flight: Flight
    time: Array
    arrived: Array
    begun_kg: Array
    share: Array
    worst: Array
    plan: Plan  # made once a step: it is both acted on and observed


@dataclasses.dataclass(frozen=True, eq=False)
class BallisticArc(Environment[Flight, State]):
    """See the module's docstring."""

    params: Params
    body: Body
    site: Site

    observation_names = (
        "x", "y", "altitude", "velocity_x", "velocity_y", "climb", "axis_x", "axis_y", "axis_z", "rate_x", "rate_y",
        "rate_z", "rate_x_fine", "rate_y_fine", "rate_z_fine", "off_x", "off_y", "off_x_fine", "off_y_fine",
        "incidence", "pressure_log", "gas", "time_left", "fin_yaw", "fin_pitch", "fin_roll",
        "impact_x", "impact_y",
        "guide_rcs_yaw", "guide_rcs_pitch", "guide_rcs_roll", "guide_fin_yaw", "guide_fin_pitch", "guide_fin_roll",
    )  # fmt: skip
    action_names = ("rcs_yaw", "rcs_pitch", "rcs_roll", "fin_yaw", "fin_pitch", "fin_roll")
    causes = ("oriented", "misaligned", "turning", "out_of_gas", "overstressed")
    control_period_s = 1.0
    max_steps = 450

    def start(self, key: Array) -> Flight:
        """As the boostback leaves it: nose about level, towards the pad; a fall without air ends at the target."""
        params = self.params
        day_key, draw_key, gust_key = jax.random.split(key, 3)
        day = draw_day(params, day_key)
        n = jax.random.uniform(draw_key, (12,), minval=-1.0, maxval=1.0)

        def between(bounds: tuple[float, float], draw: Array) -> Array:
            return 0.5 * (bounds[0] + bounds[1] + (bounds[1] - bounds[0]) * draw)

        height = between(params.start_altitude_m, n[0])
        velocity = Vector(-365.0 + 95.0 * n[1], 15.0 * n[2], between(params.start_climb_m_s, n[3]))
        axis = Vector(jnp.full((), -1.0), 0.1 * n[4], 0.2 * n[5])
        attitude = quaternion_of_axis(axis * (1.0 / norm(axis)))
        zero = jnp.zeros(())
        position = Vector(zero, zero, height)
        for _ in range(2):  # the Earth is round: the second pass corrects the altitude's share
            impact, _ = fall(self.site, position, velocity)
            x = position.x + params.target_offset_m + 1000.0 * n[6] - impact.x
            y = position.y + 500.0 * n[7] - impact.y
            position = Vector(x, y, height - (x * x + y * y) / (2.0 * self.site.radius))
        propellant = between(params.start_propellant_kg, n[8])
        state = start_state(self.body, position, velocity, attitude, propellant, gust_key)
        left = tuple(jnp.full((), 2.0) for _ in self.body.engines)
        motion = state.motion._replace(
            rates=Vector(0.02 * n[9], 0.02 * n[10], 0.01 * n[11]),
            rcs_propellant=between(params.start_gas_kg, n[4] * n[5]),
        )
        return Flight(state._replace(motion=motion, ignitions_left=left), day)

    def enter(self, key: Array, handoff: Flight) -> State:
        zero, gas = jnp.zeros(()), jnp.asarray(handoff.state.motion.rcs_propellant)
        return State(handoff, zero, jnp.bool_(False), gas, zero, zero, self._plan(handoff))

    def _wanted(self, seen: View) -> tuple[Vector, Array]:
        """(where the nose should point: against the flow at the end; seconds until then)."""
        pull = free_fall(self.site, seen.position, seen.velocity)
        above = jnp.maximum(seen.altitude - self.params.end_altitude_m, 0.0)
        root = jnp.sqrt(seen.climb * seen.climb - 2.0 * pull.z * above)
        seconds = (seen.climb + root) / -pull.z
        through = seen.velocity + pull * seconds - seen.wind
        return through * (-1.0 / norm(through)), seconds

    def _plan(self, flight: Flight) -> Plan:
        """The guide; see the module's docstring."""
        seen = view(self.body, self.site, flight)
        wanted, seconds = self._wanted(seen)
        felt = seen.pressure > _FELT_PA
        turn = point(self.body, flight, seen, wanted, jnp.where(felt, 0.0, 0.03), 0.25, _SLEW, hold=0.0)
        gas = jnp.where(felt, 0.0, 1.0)
        action = jnp.stack(
            [turn.rcs.x * gas, turn.rcs.y * gas, turn.rcs.z * gas, turn.fins.x, turn.fins.y, turn.fins.z]
        )
        return Plan(bounded(action), wanted, seconds)

    def guide(self, state: State) -> Array:
        """The guide's action; zero where the action corrects it."""
        return uncorrected(state.plan.action, self.params.residual)

    def step(self, key: Array, state: State, action: Array) -> State:
        body, period = self.body, self.control_period_s
        told = corrected(state.plan.action, self.params.residual, action)
        fins, zero = body.fins.limit if body.fins else 0.0, jnp.zeros(())
        command = Command(
            (zero,) * len(body.engines),
            Vector(zero, zero, zero),
            Vector(told[3] * fins, told[4] * fins, told[5] * fins),
            Vector(told[0], told[1], told[2]),
        )
        moved = move(body, self.site, key, state.flight, (command, command), 0.5 * period, period, steps_each=3)
        arrived, there = cross_altitude(self.site, state.flight.state, moved.state, period, self.params.end_altitude_m)
        flight = moved._replace(state=there)
        share = stress_ratio(body, stress(body, self.site, flight, command), True)
        spent = jnp.where(arrived, there.time - state.flight.state.time, period)
        worst = jnp.maximum(state.worst, share)
        return State(flight, state.time + spent, arrived, state.begun_kg, share, worst, self._plan(flight))

    def observe(self, state: State) -> Array:
        seen, motion = view(self.body, self.site, state.flight), state.flight.state.motion
        plan = state.plan
        fins = self.body.fins.limit if self.body.fins else 1.0
        off = body_components(state.flight, plan.wanted)
        # straight behind, the sine is as small as straight ahead
        off_x, off_y = (jnp.where(off.z < 0.0, jnp.sign(part), part) for part in (off.x, off.y))
        impact, _ = fall(self.site, seen.position, seen.velocity)
        return jnp.stack(
            [
                seen.position.x / 40e3 - 1.0,
                seen.position.y / 2e3,
                (seen.altitude - 100e3) / 40e3,
                seen.velocity.x / 300.0,
                seen.velocity.y / 30.0,
                seen.climb / 700.0,
                seen.axis.x,
                seen.axis.y,
                seen.axis.z,
                seen.rates.x / 0.05,
                seen.rates.y / 0.05,
                seen.rates.z / 0.05,
                compress(seen.rates.x, 0.005),
                compress(seen.rates.y, 0.005),
                compress(seen.rates.z, 0.005),
                off_x,
                off_y,
                jnp.tanh(off_x / 0.1),
                jnp.tanh(off_y / 0.1),
                jnp.tanh(self._incidence(seen) / 0.1),
                compress(seen.pressure, 100.0) / 2.0,
                motion.rcs_propellant / 200.0 - 1.0,
                plan.seconds / 150.0 - 1.0,
                motion.fins.x / fins,
                motion.fins.y / fins,
                motion.fins.z / fins,
                compress(impact.x - self.params.target_offset_m, 300.0) / 2.0,
                compress(impact.y, 300.0) / 2.0,
                *plan.action,
            ]
        )

    def _incidence(self, seen: View) -> Array:
        """Angle of the nose off the flow's way, engines first [rad]."""
        return 2.0 * jnp.arcsin(jnp.clip(0.5 * norm(seen.axis + seen.toward, 1e-12), 0.0, 1.0))

    def arrival(self, state: State) -> dict[str, Array]:
        """What the box at the end bounds, as shares of its sides."""
        seen = view(self.body, self.site, state.flight)
        return {
            "incidence": self._incidence(seen) / (self.params.incidence_deg * DEGREE),
            "rate": norm(seen.rates, 1e-12) / (self.params.rate_deg_s * DEGREE),
        }

    def outcome(self, state: State) -> Outcome:
        box = self.arrival(state)
        over, empty = state.worst > 1.0, state.flight.state.motion.rcs_propellant <= 0.0
        at_end = jnp.where(box["incidence"] > 1.0, MISALIGNED, jnp.where(box["rate"] > 1.0, TURNING, ORIENTED))
        cause = jnp.where(over, OVERSTRESSED, jnp.where(empty, OUT_OF_GAS, at_end))
        ended = state.arrived | over | empty
        return Outcome(ended, ended & (cause == ORIENTED), cause.astype(jnp.int32))

    def leave(self, state: State) -> Flight:
        return state.flight

    def telemetry(self, state: State) -> dict[str, Array]:
        motion = state.flight.state.motion
        return channels(self.body, self.site, state.flight.dispersion, state.flight.state) | {
            "phase_time_s": state.time,
            "gas_used_kg": jnp.asarray(state.begun_kg - motion.rcs_propellant),
        }


def environment(params: Params) -> BallisticArc:
    """The phase for its parameters."""
    return BallisticArc(params, build_body(params.vehicle, 0, carrying=False), params.site())


def reward(params: Params):
    """Reward terms; see the module's docstring."""
    env = environment(params)

    def terms(state: State, action: Array, after: State, outcome: Outcome) -> dict[str, Array]:
        seen = view(env.body, env.site, after.flight)
        angle = 2.0 * jnp.arcsin(jnp.clip(0.5 * norm(seen.axis - after.plan.wanted, 1e-12), 0.0, 1.0))
        sides = jnp.stack(list(env.arrival(after).values()))
        impact, _ = fall(env.site, seen.position, seen.velocity)
        error = ((impact.x - params.target_offset_m) ** 2 + impact.y**2) / 1e6
        at_end = after.arrived & (outcome.cause != OVERSTRESSED) & (outcome.cause != OUT_OF_GAS)
        used = state.flight.state.motion.rcs_propellant - after.flight.state.motion.rcs_propellant
        return {
            "oriented": jnp.where(outcome.success, 20.0, 0.0),
            "arrival": jnp.where(at_end, (3.0 / (1.0 + sides**2)).sum(), 0.0),
            "pointing": 0.02 * (after.time - state.time) / (1.0 + angle / (10.0 * DEGREE)),
            "aim": jnp.where(at_end, 1.0 / (1.0 + error), 0.0),
            "gas": jnp.asarray(-used / 5.0),
            "limits": -jnp.clip(after.share - 0.8, 0.0, 1.0),
        }

    return terms


@hookimpl
def mission_phase() -> PhaseSpec:
    """The phase's record."""
    return PhaseSpec(
        params=Params,
        environment=environment,
        reward=reward,
        limits=lambda params: structural_limits(params, True),
        report=sections,
        sac=agent(target_entropy=-12.0, width=64, gamma=0.997),
    )
