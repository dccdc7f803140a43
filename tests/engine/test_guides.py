"""Phases without an agent: flown by their guide, with a bank like any other."""

from __future__ import annotations

import json

import pytest
from factory import CART, write_mission

from mission import MissionError, fly_mission, load_mission, train_mission

NO_AGENT = CART[: CART.index("        sac=SacConfig(")].replace("reward=reward,", "") + "    )\n"


def test_guide_phase_hands_its_bank_to_the_agent_after_it(tmp_path):
    path = write_mission(tmp_path)
    mission = load_mission(path, ["phases.first.policy=guide", "phases.first.params.tolerance_m=0.3"])
    records = train_mission(mission, checkpoints=tmp_path / "ck", allow_local_plugins=True)
    assert [record.status for record in records] == ["flown by its guide", "trained"]
    meta = json.loads((tmp_path / "ck" / "trial" / "first" / "policy" / "meta.json").read_text())
    assert meta["bank"]["rows"] + meta["bank"]["held_out"] == round(200 * meta["success"])
    assert records[0].success > 0.9
    report = fly_mission(mission, checkpoints=tmp_path / "ck", flights=50, allow_local_plugins=True)
    assert report.phases[1].entered == report.phases[0].succeeded > 45


def test_phase_without_sac_needs_no_checkpoint(tmp_path):
    path = write_mission(tmp_path, plugin=NO_AGENT)
    report = fly_mission(load_mission(path), checkpoints=tmp_path / "none", flights=50, allow_local_plugins=True)
    assert report.success.count == 50


def test_guide_that_does_not_exist_is_refused(tmp_path):
    path = write_mission(tmp_path, plugin=CART.replace("def guide(", "def no_guide("))
    with pytest.raises(MissionError, match="set policy: agent"):
        fly_mission(load_mission(path), flights=5, policy="guide", allow_local_plugins=True)
    with pytest.raises(MissionError, match=r"fill\.policy"):
        train_mission(
            load_mission(path, ["phases.first.sac.fill.policy=guide"]),
            checkpoints=tmp_path / "ck",
            allow_local_plugins=True,
        )


def test_warm_start_from_the_guide(tmp_path):
    path = write_mission(tmp_path)
    mission = load_mission(
        path,
        [
            "phases.first.sac.fill.policy=guide",
            "phases.first.sac.warm_up.steps=30",
            "phases.first.budget.env_steps=1100",
        ],
    )
    (record,) = train_mission(mission, checkpoints=tmp_path / "ck", only=["first"], allow_local_plugins=True)
    assert record.env_steps == 512 + 2 * 512


def test_handoff_may_hold_keys_integers_and_flags(tmp_path):
    """What stays with the vehicle travels in the handoff, whatever its dtype, through bank and checkpoint."""
    plugin = (
        CART.replace(
            "class Cart(NamedTuple):",
            "class Cart(NamedTuple):\n    weather: jax.Array\n    stage: jax.Array\n    flag: jax.Array\n    vector: jax.Array",
        )
        .replace(
            "return Cart(jax.random.uniform",
            "return Cart(key, jnp.int32(7), jnp.bool_(True), jnp.zeros(3), jax.random.uniform",
        )
        .replace(
            "return State(Cart(state.cart.position_m + 0.1 * velocity, velocity), state.time_s + 0.1)",
            "return State(state.cart._replace(position_m=state.cart.position_m + 0.1 * velocity, velocity_m_s=velocity, vector=state.cart.vector + 0.1), state.time_s + 0.1)",
        )
    )
    mission = load_mission(write_mission(tmp_path, plugin=plugin))
    train_mission(mission, checkpoints=tmp_path / "ck", allow_local_plugins=True, checkpoint_every_s=0)
    report = fly_mission(mission, checkpoints=tmp_path / "ck", flights=20, allow_local_plugins=True)
    assert report.phases[1].entered > 15


def test_flight_that_never_terminates_times_out(tmp_path):
    plugin = CART.replace("over = state.time_s >= self.params.seconds - 0.01", "over = state.time_s > 1e9")
    report = fly_mission(
        load_mission(write_mission(tmp_path, plugin=plugin)), flights=10, policy="guide", allow_local_plugins=True
    )
    assert report.phases[0].causes == {"missed": 0, "time_out": 10, "non_finite": 0}
    assert report.success.count == 0
