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
    assert report.success["count"] == 50


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
