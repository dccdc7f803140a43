"""Every shipped phase keeps the contract, documents its observation, and links with the others."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint, distribution
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import mission_rocket
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mission_rocket.controls import Controls, Setting
from mission_rocket.dispersions import Dispersions
from mission_rocket.phases import (
    ascent,
    ballistic_arc,
    entry_burn,
    flip_boostback,
    landing_burn,
    stage_burn,
    stage_coast,
    stage_drop,
)
from mission_rocket.physics.vector import Vector
from pydantic import ValidationError

from mission.testing import check_gradients, check_phase

PHASES = [point for point in distribution("mission-rocket").entry_points if point.group == "mission.phases"]
CONTROLS = (ascent.CONTROLS, ascent.WITH_FINS, flip_boostback.CONTROLS, entry_burn.CONTROLS, landing_burn.CONTROLS)


def build(point: EntryPoint) -> Any:
    spec = point.load().mission_phase()
    return spec.environment(spec.params())


@pytest.mark.parametrize("point", PHASES, ids=lambda point: point.name)
def test_contract(point: EntryPoint) -> None:
    spec = point.load().mission_phase()
    if spec.sac is not None:  # the gradients take minutes: below
        spec = dataclasses.replace(spec, sac=spec.sac.model_copy(update={"actor_horizon": 0}))
    check_phase(spec)


@pytest.mark.slow
def test_gradients_of_the_phase_that_is_trained_with_them() -> None:
    spec = landing_burn.mission_phase()
    assert spec.sac is not None
    assert spec.sac.actor_horizon > 0
    check_gradients(spec, vehicles=16)


def test_contract_with_fins_on_the_way_up() -> None:
    params = ascent.Params(fins=True)
    assert ascent.Ascent.build(params).action_names[-3:] == ("fin_yaw", "fin_pitch", "fin_roll")
    check_phase(ascent.mission_phase(), params, steps=20)


def test_every_phase_is_here() -> None:
    assert len(PHASES) == 11
    assert "brake_then_land" in {point.name for point in PHASES}


@pytest.mark.parametrize("point", PHASES, ids=lambda point: point.name)
def test_the_docstring_holds_a_row_for_every_observation(point: EntryPoint) -> None:
    """Name, quantity, unit, scale and frame, in the order of the observation."""
    env = build(point)
    text = inspect.getdoc(type(env)) or ""
    head, _, table = text.partition(f"Observation ({len(env.observation_names)}):\n\n")
    assert head.strip()
    titles, rule, *lines = table.rstrip().splitlines()
    assert titles.split() == ["name", "quantity", "unit", "scale", "frame"]
    starts = [at for at in range(len(rule)) if rule[at] == "-" and (at == 0 or rule[at - 1] == " ")]
    cells = [[line[a:b].strip() for a, b in zip(starts, [*starts[1:], None], strict=True)] for line in lines]
    assert tuple(row[0] for row in cells) == tuple(env.observation_names)
    assert all(all(row) for row in cells)
    assert max(len(line) for line in lines) <= 120


def test_stage_and_booster_phases_hand_over_the_same() -> None:
    """One class, so that a booster phase can follow a stage phase of the same vehicle, and the other way round."""
    key = jax.random.key(0)
    vehicle = landing_burn.Params().vehicle
    trees = []
    for module, params in (
        (stage_burn, stage_burn.Params(vehicle=vehicle)),
        (stage_coast, stage_coast.Params(vehicle=vehicle)),
        (ascent, ascent.Params()),
        (flip_boostback, flip_boostback.Params()),
        (ballistic_arc, ballistic_arc.Params()),
        (entry_burn, entry_burn.Params()),
        (landing_burn, landing_burn.Params()),
    ):
        env = module.mission_phase().environment(params)
        trees.append(jax.eval_shape(lambda env=env: env.leave(env.enter(key, env.start(key)))))
    assert all(jax.tree.structure(tree) == jax.tree.structure(trees[0]) for tree in trees)
    shapes = [[(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)] for tree in trees]
    assert all(shape == shapes[0] for shape in shapes)
    assert type(stage_drop.StageDrop(stage_drop.Params()).start(key)) is type(trees[0])


@pytest.mark.parametrize("engines", [[3, 1], (3, 1)])
def test_two_burns_in_one_landing_are_refused_with_the_way_out(engines: Any) -> None:
    with pytest.raises(ValidationError, match="plugin: brake_then_land"):
        landing_burn.Params.model_validate({"engines": engines})


@pytest.mark.parametrize("controls", CONTROLS, ids=lambda controls: str(len(controls.names)))
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_controls_decode_what_they_encode_by_name(controls: Controls, data: st.DataObject) -> None:
    share, signed = st.floats(0.0, 1.0, width=32), st.floats(-1.0, 1.0, width=32)
    vectors = st.tuples(signed, signed, signed).map(lambda parts: Vector(*parts))
    events = [name for name in controls.names if name.startswith("time_to_")]
    setting = Setting(
        throttle=data.draw(share),
        seconds={name: data.draw(share) * controls.longest_s for name in events},
        gimbal=data.draw(vectors),
        fin=data.draw(vectors),
        rcs=data.draw(vectors),
    )
    decoded = controls.decode(controls.encode(setting))
    axes = {"yaw": 0, "pitch": 1, "roll": 2}
    for name in controls.names:
        if name == "throttle":
            sent, received = setting.throttle, decoded.throttle
        elif name in events:
            sent, received = setting.seconds[name], decoded.seconds[name]
        else:
            actuator, axis = name.split("_")
            sent, received = (getattr(side, actuator)[axes[axis]] for side in (setting, decoded))
        assert float(received) == pytest.approx(float(sent), abs=1e-5), name
    absent = {"gimbal", "fin", "rcs"} - {name.split("_")[0] for name in controls.names}
    assert all(float(part) == 0.0 for actuator in absent for part in getattr(decoded, actuator))


def test_actions_without_a_name_in_the_setting_stay_centred() -> None:
    middle = ascent.WITH_FINS.decode(jnp.zeros(8)).seconds
    action = ascent.WITH_FINS.encode(Setting(throttle=0.5, seconds=middle))
    np.testing.assert_allclose(action, np.zeros(8), atol=1e-6)


GOLDEN = {
    0: (
        Dispersions(),
        "0x1.02918ep+0 0x1.fb5cc8p-1 0x1.fe15f4p-1 0x1.fa01dp-1 0x1.d36b76p-1 0x1.0f10fep+0 0x1.285b5ep-4 -0x1.a3cdeep-4 "
        "0x1.54f7e2p+0 -0x1.afd998p-8 -0x1.269daep-8 0x1.7e68p-9 -0x1.0p+0 0x1.978554p+5 -0x1.be70bp-1 -0x1.f556bep-2 "
        "0x1.0p+0 0x0.0p+0",
    ),
    7: (
        Dispersions(
            thrust_percent=2.0,
            centre_of_mass_m=0.3,
            ignition_delay_s=(0.1, 0.2),
            wind_percentile=(10.0, 20.0),
            turbulence=2.0,
            engine_out=3,
            uniform_wind_m_s=5.0,
        ),
        "0x1.05b328p+0 0x1.005cc6p+0 0x1.fea9c8p-1 0x1.fdc8aep-1 0x1.3d7e5ep+0 0x1.d5f714p-1 -0x1.b19922p-5 "
        "-0x1.18c90ep-2 0x1.341c46p+0 -0x1.ae4792p-8 -0x1.0f17bep-8 0x1.57114p-3 0x1.8p+1 0x1.24303p+4 -0x1.928da2p-1 "
        "0x1.3c60b4p-1 0x1.0p+1 0x1.4p+2",
    ),
}


@pytest.mark.parametrize("seed", GOLDEN)
def test_dispersions_draw_the_numbers_they_always_drew(seed: int) -> None:
    """Bit for bit the draws of version 0.1.0, from which the shipped policies and their banks come."""
    dispersions, expected = GOLDEN[seed]
    drawn = jax.tree.leaves(dispersions.draw(jax.random.key(seed), 9))
    numbers = [float.fromhex(number) for number in expected.split()]
    assert [float(value) for value in drawn[: len(numbers)]] == numbers
    assert not any(float(value) for value in drawn[len(numbers) :])  # errors of navigation, 0 by default
    assert all(jnp.asarray(value).dtype == jnp.float32 for value in drawn)


def test_the_public_names_exist_and_load_lazily() -> None:
    assert set(mission_rocket.__all__) == set(mission_rocket._HOME)
    assert all(getattr(mission_rocket, name) is not None for name in mission_rocket.__all__)
    code = "import sys, mission_rocket; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """(module, name) of every `from mission_rocket... import name` of a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mission_rocket"):
            yield from ((node.module or "", alias.name) for alias in node.names)


def test_imports_run_downwards_and_take_no_private_names() -> None:
    """The package's own `__init__` is left out: it loads lazily."""
    root = Path(mission_rocket.__file__).parent
    files = {
        ".".join(("mission_rocket", *path.relative_to(root).with_suffix("").parts)).removesuffix(".__init__"): path
        for path in root.rglob("*.py")
    }
    edges: dict[str, set[str]] = {}
    for name, path in files.items():
        found = list(imports(path))
        assert not [used for _, used in found if used.startswith("_")], name
        edges[name] = {module for pair in found for module in (pair[0], ".".join(pair)) if module in files}
    edges["mission_rocket"] = set()
    for name in edges:
        reached, stack = set(), list(edges[name])
        while stack:
            used = stack.pop()
            if used not in reached:
                reached.add(used)
                stack.extend(edges[used])
        assert name not in reached, f"{name} imports itself"
