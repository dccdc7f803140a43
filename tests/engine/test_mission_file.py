"""Reading mission files: positions, four-part messages, and whatever bytes come along."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest
from factory import MISSION, ROOT, write_mission
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mission import MissionError, load_mission
from mission.errors import InputError
from mission.missionfile.reading import MAX_BYTES

sys.path.insert(0, str(ROOT / "benchmarks"))

from mutations import PIECES


def load(tmp_path: Path, text: str | bytes, *overrides: str):
    path = tmp_path / "mission.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_mission(path, overrides)


def test_valid_file(tmp_path):
    mission = load(tmp_path, MISSION)
    assert (mission.name, mission.seed, [p.name for p in mission.phases]) == ("trial", 3, ["first", "second"])
    assert mission.phases[1].params == {"seconds": 2.0}


def test_yaml_1_2_numbers(tmp_path):
    text = MISSION.replace("{seconds: 2.0}", "{a: 5e-12, b: 0o17, c: yes, d: 1.0e+3}")
    assert load(tmp_path, text).phases[1].params == {"a": 5e-12, "b": 15, "c": "yes", "d": 1000.0}


@pytest.mark.parametrize(
    ("old", "new", "where", "part"),
    [
        ("seed: 3", "seeed: 3", "mission.yaml:2:1: seeed", 'did you mean "seed"'),
        ("seed: 3", "seed: 3\nseed: 4", "mission.yaml:3:1: seed", "a second time"),
        ("seed: 3", "seed: -1", "mission.yaml:2:1: seed", "greater than or equal to 0"),
        ("seed: 3", "seed: 4294967296", "mission.yaml:2:1: seed", "4294967295"),
        ("seed: 3", "seed: 3.5", "mission.yaml:2:1: seed", "integer"),
        ("seed: 3", "seed: .nan", "mission.yaml:2:7: seed", "finite"),
        ("seed: 3", "seed: 1e999", "mission.yaml:2:7: seed", "finite"),
        ("name: trial", "name: Trial", "mission.yaml:1:1: name", "pattern"),
        ("name: trial", "name: &a trial", "mission.yaml:1:7", "anchors"),
        ("name: trial", "name: !!str trial", "mission.yaml:1:7", "tags"),
        ("name: trial", "name: [", "mission.yaml", "YAML"),
        ("name: trial\n", "", "mission.yaml:1:1: name", 'add "name:"'),
        ("- name: second", "- name: first", "mission.yaml:1:1", "used twice: first"),
        (
            "env_steps: 2500",
            "env_stepps: 2500",
            'mission.yaml:12:14: phases[1] "second": budget.env_stepps',
            "env_steps",
        ),
        ("env_steps: 2500", "env_steps: 0", 'mission.yaml:12:14: phases[1] "second": budget.env_steps', "greater"),
        ("seed: 3", "seed: 0x" + 5000 * "f", "mission.yaml:2:7: seed", "64 bits"),
        ("success_low: 0.0", "success_low: 0.97", 'phases[1] "second": gate', "at most 0.963: 100 successes"),
        ("minimum: 4", "minimum: 400", 'phases[0] "first": bank', "at most flights: 200 flights never give 400"),
        (
            "bank: {flights: 200, minimum: 4}",
            "bank: {flights: 10, held_out: 0.96, minimum: 2}",
            'phases[0] "first": bank',
            "0.96 of 10 flights is all of them",
        ),
        (
            "bank: {flights: 200, minimum: 4}",
            "bank: {flights: 2, held_out: 0.9, minimum: 2}",
            'phases[0] "first": bank',
            "leave flights for training",
        ),
        ("bank: {flights: 200, minimum: 4}", "bank: {flights: 2, held_out: 0.9}", 'phases[0] "first": bank', "minimum"),
        (
            "success_low: 0.0, flights: 100}",
            "success_low: 0.0, flights: 100, channels: {x_m: {mean_min: 2.0, mean_max: 1.0}}}",
            'phases[1] "second": gate.channels.x_m',
            "mean_min of at most mean_max",
        ),
        ("env_steps: 2500", "env_steps: 1e6", 'phases[1] "second": budget.env_steps', "write 1000000\n"),
        ("env_steps: 2500", "env_steps: 2500.5", 'phases[1] "second": budget.env_steps', "change the value"),
        ("seed: 3", "seed: 3.0", "mission.yaml:2:1: seed", "write 3\n"),
        ("success_low: 0.0", "success_low: 1.5", 'phases[1] "second": gate.success_low', "less than or equal to 1"),
        ("gate: {", "restart: {stored: 0.9}\n    gate: {", 'phases[1] "second": restart', "must be 1"),
        ("phases:", "phases: []\nother:", "mission.yaml", "found"),
    ],
)
def test_message_points_at_the_place(tmp_path, old, new, where, part):
    with pytest.raises(InputError) as caught:
        load(tmp_path, MISSION.replace(old, new, 1))
    text = str(caught.value) + "\n"
    assert where in text
    assert part in text
    assert all(f"  {word}: " in text for word in ("expected", "found", "to do"))
    assert caught.value.exit_code == 2


def test_refuses_what_is_no_mission_file(tmp_path):
    for content, part in (
        (b"\xff\xfe\x00", "UTF-8"),
        (b"x" * (MAX_BYTES + 1), "bytes"),
        (b"", "a mapping with keys of"),
        (b"[" * 5000, "levels"),
        (b"a: *b", "alias"),
        (b'a: "\\ud800"', "surrogate"),
    ):
        with pytest.raises(InputError, match=part):
            load(tmp_path, content)
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(InputError):
            load_mission(path)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"x" * (1 << 20), "at most 65,536 bytes"),
        ("é".encode() * 40_000, "at most 65,536 bytes"),
        (b"a: [" + b"1," * 30_000 + b"]", "at most 5,000 values"),
        (b"phases:\n" + b"- {}\n" * 12_000, "at most 5,000 values"),
        (b"a: &a [1]\nb: &b [*a,*a]\nc: &c [*b,*b]\n", "no anchors or aliases"),
    ],
    ids=["1 MiB", "two bytes each", "list", "phases", "nested aliases"],
)
def test_a_large_or_nested_file_is_refused_at_once(tmp_path, content, part):
    began = time.process_time()
    with pytest.raises(InputError, match=part):
        load(tmp_path, content)
    assert time.process_time() - began < 2.0


def test_a_long_value_of_set_and_a_named_pipe_are_refused_at_once(tmp_path):
    with pytest.raises(InputError, match="at most 65,536 characters"):
        load(tmp_path, MISSION, "phases.first.params.x=[" + "1," * 40_000 + "]")
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(InputError, match="no regular file"):
        load_mission(tmp_path / "pipe.yaml")


def test_set_goes_through_the_same_validation(tmp_path):
    mission = load(tmp_path, MISSION, "phases.second.sac.gamma=0.5", "seed=9", "phases.first.budget.env_steps=77")
    assert (mission.phases[1].sac, mission.seed, mission.phases[0].budget.env_steps) == ({"gamma": 0.5}, 9, 77)
    for override, part in (
        ("seed=-1", "--set seed=-1: seed"),
        ("phases.third.sac.gamma=1", "first, second"),
        ("phases.second.budget.x=1", 'phases[1] "second": budget.x'),
        ("gamma", "KEY=VALUE"),
        ("=1", "KEY=VALUE"),
        ("seed.x=1", "a mapping at seed"),
        ("seed=[", "YAML"),
    ):
        with pytest.raises(InputError) as caught:
            load(tmp_path, MISSION, override)
        assert part in str(caught.value)


MUTABLE = (ROOT / "missions" / "vertical.yaml").read_text().encode()


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.integers(0, len(MUTABLE)), st.integers(0, 12), st.sampled_from(PIECES) | st.binary(max_size=4)),
        min_size=1,
        max_size=5,
    )
)
def test_mutations_resolve_or_are_refused(tmp_path, edits):
    from mission.missionfile.resolve import resolve_mission

    data = MUTABLE
    for at, cut, put in edits:
        data = data[:at] + put + data[at + cut :]
    try:
        ended = bool(resolve_mission(load(tmp_path, data)))
    except MissionError as error:
        ended = error.exit_code == 2
    assert ended


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_any_bytes(tmp_path, data):
    with pytest.raises(MissionError):
        load(tmp_path, data)


def test_plugin_parameters_point_at_the_place(tmp_path):
    from mission.missionfile.resolve import resolve_mission

    path = write_mission(tmp_path)
    for override, where, part in (
        ("phases.second.params.second=1.0", 'phases[1] "second": params.second', 'did you mean "seconds"'),
        ("phases.second.params.seconds=-1.0", 'phases[1] "second": params.seconds', "greater than 0"),
        ("phases.second.sac.gama=0.9", 'phases[1] "second": sac.gama', 'did you mean "gamma"'),
        ("phases.second.sac.actor.width=0", 'phases[1] "second": sac.actor.width', "greater"),
        ("phases.second.sac.preset=sed", 'phases[1] "second": sac.preset', "seed"),
        ("params.secondz=1.0", "params.secondz", "seconds"),
        ("params.tolerance_m=-1.0", "--set params.tolerance_m=-1.0: params.tolerance_m", "greater than 0"),
        ("phases.second.sac.preset=[seed]", 'phases[1] "second": sac.preset', "one of seed"),
        ("phases.second.sac.target_entropy=x", 'phases[1] "second": sac.target_entropy\n', "or a valid number"),
        (
            "phases.second.sac.batch_size=100000",
            "sac",
            "these settings together, with --set phases.second.sac.batch_size",
        ),
        ("phases.second.sac.updates_per_step=1e308", "sac.updates_per_step", "less than or equal to 1024"),
        ("phases.second.sac.updates_per_step=1e-6", "sac", "at least 1 update in 1024 steps"),
        ("phases.second.sac.buffer_size=1e5", "sac.buffer_size", "write 100000"),
        ("phases.second.sac.warm_up.batch_size=64.0", "sac.warm_up.batch_size", "write 64"),
        ("phases.second.sac.buffer_size=99999999999", "sac.buffer_size", "2147483647"),
        ("phases.second.gate.channels.position={mean_min: 0.0}", "gate.channels.position", 'mean "position_m"'),
    ):
        with pytest.raises(MissionError) as caught:
            resolve_mission(load_mission(path, [override]), allow_local_plugins=True)
        assert where in str(caught.value)
        assert part in str(caught.value)
        assert caught.value.exit_code == 2


def test_shared_parameters_and_presets(tmp_path):
    from mission.missionfile.resolve import resolve_mission

    mission = load_mission(
        write_mission(tmp_path), ["params.seconds=1.5", "phases.first.sac.preset=seed", "phases.first.sac.gamma=0.5"]
    )
    first, second = resolve_mission(mission, allow_local_plugins=True)
    assert (first.params.seconds, second.params.seconds) == (1.5, 2.0)
    assert (first.learner.gamma, first.learner.actor.sizes, first.learner.critic.sizes, first.learner.n_step) == (
        0.5,
        (50,) * 15,
        (50,) * 19,
        200,
    )
