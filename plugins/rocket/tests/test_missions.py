"""Every file in `missions/` loads, resolves and links."""

from __future__ import annotations

from pathlib import Path

import jax
import pytest

from mission import load_mission, resolve_mission

MISSIONS = sorted((Path(__file__).parents[3] / "missions").glob("*.yaml"))


def test_there_are_missions() -> None:
    assert MISSIONS


@pytest.mark.parametrize("path", MISSIONS, ids=lambda path: path.stem)
def test_mission_resolves(path: Path) -> None:
    mission = load_mission(path)
    phases = resolve_mission(mission)
    assert mission.name == path.stem
    assert [phase.name for phase in phases] == [entry.name for entry in mission.phases]
    assert path.read_text().startswith("# yaml-language-server: $schema=../docs/mission.schema.json\n")


@pytest.mark.parametrize("path", MISSIONS, ids=lambda path: path.stem)
def test_gates_name_channels_that_exist(path: Path) -> None:
    for phase in resolve_mission(load_mission(path)):
        env = phase.environment
        channels = jax.eval_shape(lambda key, env=env: env.telemetry(env.enter(key, env.start(key))), jax.random.key(0))
        if phase.entry.gate is not None:
            assert set(phase.entry.gate.channels) <= set(channels)
