"""The gradient of a control step: smooth phases pass with their events, and each kind of missing gradient is named."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import probes
import pytest
from factory import CART, ROOT, blocks, write_mission
from jax import Array, lax

from mission import Environment, Outcome, PhaseSpec, SacConfig, load_mission, train_mission
from mission.errors import PluginError
from mission.missionfile.plugins import load_local
from mission.testing import check_gradients, check_phase
from mission.training import phase as training

PERIOD_S, GRAVITY_M_S2 = 0.5, 9.81
TABLE = jnp.linspace(-1.0, 1.0, 12) ** 3


class Ball(NamedTuple):
    height_m: Array
    speed_m_s: Array  # upwards
    lit: Array  # bool
    landed: Array  # bool
    steps: Array  # int32


def same(value: Any) -> Any:
    return value


@dataclasses.dataclass(frozen=True, eq=False)
class Drop(Environment[Ball, Ball]):
    """A ball falls, lights its motor after a commanded time, and stops on the ground, both inside the step.

    Each field replaces a value that the motion passes through.
    """

    thrust: Callable[[Array], Array] = same
    delay: Callable[[Array], Array] = same
    drag: Callable[[Array], Array] = same
    fall: Callable[[Array], Array] = same  # seconds to the ground
    seen: Callable[[Array], Array] = same

    observation_names = ("height", "speed", "lit")
    action_names = ("thrust", "delay")
    causes = ("slow", "fast")
    control_period_s = PERIOD_S
    max_steps = 60

    def start(self, key: Array) -> Ball:
        height, speed = jax.random.uniform(key, (2,), minval=jnp.array([20.0, -1.0]), maxval=jnp.array([30.0, 1.0]))
        return Ball(height, speed, jnp.bool_(False), jnp.bool_(False), jnp.int32(0))

    def enter(self, key: Array, handoff: Ball) -> Ball:
        return handoff._replace(lit=jnp.bool_(False), landed=jnp.bool_(False))

    def step(self, key: Array, state: Ball, action: Array) -> Ball:
        delay = self.delay(2.0 * (action[1] + 1.0))
        lights = ~state.lit & (delay <= PERIOD_S)
        burning = jnp.where(state.lit, 1.0, jnp.where(lights, 1.0 - delay / PERIOD_S, 0.0))
        drag = self.drag(0.02 * state.speed_m_s * jnp.abs(state.speed_m_s))
        upwards = burning * 6.0 * (1.0 + self.thrust(action[0])) - GRAVITY_M_S2 - drag
        root = jnp.sqrt(jnp.maximum(state.speed_m_s**2 - 2.0 * upwards * state.height_m, 1e-6))
        to_ground = 2.0 * state.height_m / jnp.maximum(root - state.speed_m_s, 1e-6)
        landed = to_ground <= PERIOD_S
        seconds = jnp.where(landed, self.fall(to_ground), PERIOD_S)
        height = jnp.where(landed, 0.0, state.height_m + state.speed_m_s * seconds + 0.5 * upwards * seconds**2)
        speed = state.speed_m_s + upwards * seconds
        return Ball(height, speed, state.lit | lights, landed, state.steps + 1)

    def observe(self, state: Ball) -> Array:
        seen = self.seen(jnp.stack([state.height_m / 20.0, state.speed_m_s / 10.0]))
        return jnp.append(seen, state.lit.astype(jnp.float32))

    def outcome(self, state: Ball) -> Outcome:
        slow = jnp.abs(state.speed_m_s) < 8.0
        return Outcome(state.landed, state.landed & slow, jnp.where(slow, 0, 1).astype(jnp.int32))

    def leave(self, state: Ball) -> Ball:
        return state

    def telemetry(self, state: Ball) -> dict[str, Array]:
        return {"height_m": state.height_m, "whole_m": jnp.round(state.height_m)}

    def guide(self, state: Ball) -> Array:
        needed = state.speed_m_s**2 / jnp.maximum(2.0 * state.height_m, 1.0)
        return jnp.clip(jnp.stack([needed / 6.0 + 0.6, (state.height_m - 22.0) / 5.0]), -1.0, 1.0)


def drop(reward: Callable[[Array], Array] = same, horizon: int = 0, **fields: Any) -> PhaseSpec:
    """Pays for a slow touchdown, and 10 at once for a success: that jump belongs to the critics."""

    def terms(params: Any) -> Any:
        return lambda state, action, after, outcome: {
            "speed": reward(-0.01 * after.speed_m_s**2),
            "landed": jnp.where(outcome.success, 10.0, 0.0),
        }

    sac = probes.probe_sac()
    if horizon:
        sac = sac.model_copy(update={"actor_horizon": horizon})
    return PhaseSpec(probes.Nothing, lambda params: Drop(**fields), terms, sac=sac)


def test_a_smooth_phase_passes_with_its_events() -> None:
    assert check_gradients(drop()) is None


def test_a_drift_passes() -> None:
    assert check_gradients(probes.drift(probes.probe_sac())) is None


def test_the_example_of_the_documentation_passes(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "writing-a-phase.md").read_text()
    (tmp_path / "descent.py").write_text("\n\n".join(blocks(page, "python", "descent.py")))
    check_gradients(load_local(tmp_path / "descent.py", "here").mission_phase(), vehicles=32)


def endless(value: Array) -> Array:
    return lax.while_loop(lambda carry: carry[1] < 3, lambda carry: (carry[0] * 1.0, carry[1] + 1), (value, 0))[0]


def root_at_zero(drag: Array) -> Array:
    return jnp.where(drag > 1e9, jnp.sqrt(drag * 0.0), drag)


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        (lambda: drop(thrust=lambda u: jnp.round(10.0 * u) / 10.0), 'with respect to action "thrust"'),
        (lambda: drop(thrust=jnp.sign), 'with respect to action "thrust"'),
        (lambda: drop(thrust=lambda u: (8.0 * u).astype(jnp.int32) / 8.0), 'with respect to action "thrust"'),
        (lambda: drop(thrust=lax.stop_gradient), 'action "thrust" is 0, but finite differences give'),
        (lambda: drop(thrust=lambda u: TABLE[(6.0 * u + 6.0).astype(int)]), 'with respect to action "thrust"'),
        (lambda: drop(thrust=lambda u: u + 0.5 * lax.stop_gradient(u)), 'with respect to action "thrust"'),
        (lambda: drop(delay=lax.stop_gradient), 'action "delay" is 0, but finite differences give'),
        (lambda: drop(drag=lax.stop_gradient), "state.height_m with respect to state.speed_m_s"),
        (lambda: drop(drag=lambda d: jnp.round(4.0 * d) / 4.0), "state.speed_m_s with respect to state.speed_m_s"),
        (lambda: drop(fall=lax.stop_gradient), "in a step that ends the phase"),
        (lambda: drop(drag=root_at_zero), "with respect to state.speed_m_s is not finite"),
        (lambda: drop(thrust=endless), "Reverse-mode differentiation"),
        (lambda: drop(reward=lax.stop_gradient), "the gradient of the reward"),
        (lambda: drop(reward=jnp.round), "the gradient of the reward"),
        (lambda: drop(seen=lax.stop_gradient), 'observation "height" with respect to state.height_m'),
        (
            lambda: drop(seen=lambda o: jnp.round(20.0 * o) / 20.0),
            'observation "height" with respect to state.height_m',
        ),
    ],
    ids=[
        "round",
        "sign",
        "cast",
        "stop",
        "index",
        "partly",
        "delay",
        "drag",
        "drag-rounded",
        "fall",
        "root",
        "loop",
        "reward",
        "reward-rounded",
        "seen",
        "seen-rounded",
    ],
)
def test_a_missing_gradient_is_named(spec: Callable[[], PhaseSpec], found: str) -> None:
    with pytest.raises(PluginError) as caught:
        check_gradients(spec(), vehicles=32)
    assert found in caught.value.found


def test_check_phase_looks_at_gradients_only_if_the_learner_needs_them() -> None:
    check_phase(drop(thrust=jnp.sign), steps=5)
    check_phase(drop(horizon=4), steps=5)
    with pytest.raises(PluginError, match="actor_horizon: 0"):
        check_phase(drop(thrust=jnp.sign, horizon=4), steps=5)


def test_training_refuses_the_phase_before_anything_is_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SacConfig, "needs_gradients", property(lambda self: True))
    monkeypatch.setattr(training, "begin", lambda *arguments: pytest.fail("programs were compiled"))
    path = write_mission(tmp_path, plugin=CART.replace("0.1 * action[0]", "0.1 * jnp.sign(action[0])"))
    with pytest.raises(PluginError, match=r'mission.yaml:\d+:\d+: .*\n.*\n.*action "acceleration"'):
        train_mission(load_mission(path), checkpoints=tmp_path, allow_local_plugins=True)


@jax.custom_vjp
def own_rule(value: Array) -> Array:
    return 1.0 * value


own_rule.defvjp(lambda value: (own_rule(value), None), lambda _, pulled: (pulled,))


@jax.custom_vjp
def wrong_rule(value: Array) -> Array:
    return 1.0 * value


wrong_rule.defvjp(lambda value: (wrong_rule(value), None), lambda _, pulled: (0.5 * pulled,))


def test_a_rule_for_backpropagation_is_compared_too() -> None:
    check_gradients(drop(thrust=own_rule), vehicles=32)
    with pytest.raises(PluginError) as caught:
        check_gradients(drop(thrust=wrong_rule), vehicles=32)
    assert 'with respect to action "thrust"' in caught.value.found
