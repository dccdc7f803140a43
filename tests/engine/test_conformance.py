"""`check_phase` passes a sound phase and names what is wrong with an unsound one."""

from __future__ import annotations

import pytest
from factory import CART

from mission.errors import PluginError
from mission.missionfile.plugins import load_local
from mission.testing import check_phase

OUTCOME = "return Outcome(over, held, jnp.where(held, 0, 1).astype(jnp.int32))"


def spec(tmp_path, old="", new=""):
    assert old in CART
    (tmp_path / "cart.py").write_text(CART.replace(old, new, 1))
    return load_local(tmp_path / "cart.py", "here").mission_phase()


def test_sound_phase_passes(tmp_path):
    assert check_phase(spec(tmp_path)) is None


def test_the_leaf_that_changes_its_weak_type_is_named(tmp_path):
    """`enter` gives a Python number, and `step` a number of a dtype of its own."""
    enter = "return State(handoff, jnp.zeros(()))\n    def step(self, key, state, action):\n"
    step = "        state = state._replace(time_s=state.time_s + jnp.float32(0.0))\n"
    wrong = spec(tmp_path, enter, enter.replace("jnp.zeros(())", "0.0") + step)
    with pytest.raises(PluginError) as caught:
        check_phase(wrong, steps=3)
    assert "2 traces: state.time_s is float32[] of weak type on entering, float32[] after" in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        (OUTCOME, OUTCOME.replace("jnp.where(held, 0, 1)", "jnp.where(held, 1, 1)"), "a success of cause 1"),
        ("control_period_s = 0.1", "control_period_s = 1e-300", "1e-300"),
        ("max_steps = 50", "max_steps = 2**31", "2147483648"),
        ("return state.cart\n    def telemetry", "return ()\n    def telemetry", "without arrays"),
        (
            "return State(Cart(state",
            "velocity = velocity / 0.0\n        return State(Cart(state",
            "state.cart.position_m",
        ),
        ("return jnp.stack([state.cart.position_m, ", "return jnp.stack([jnp.log(state.time_s - 9.0), ", "observation"),
        (OUTCOME, OUTCOME.replace("over, held", "over & False, held"), "success of a flight that has not ended"),
        (OUTCOME, "return Outcome(over, over & False, jnp.where(over, 2, 2).astype(jnp.int32))", "2 to 2"),
        ("jnp.where(outcome.success, 5.0, 0.0)", "1e6 * after.time_s", "at step"),
        ("-1.0, 1.0)[None]", "-9.0, 9.0)[None] * 9.0", "at step"),
    ],
)
def test_fault_is_named(tmp_path, old, new, found):
    wrong = spec(tmp_path, old, new)
    with pytest.raises(PluginError) as caught:
        check_phase(wrong)
    assert found in str(caught.value)
