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


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
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
