"""Discovery over fake dist-info folders, and plugins that are broken in every way we could think of."""

from __future__ import annotations

import json
import sys

import jax
import jax.numpy as jnp
import pytest
from factory import CART, MISSION, fake_distribution, run_cli, write_mission

from mission import MissionError, load_mission, resolve_mission
from mission.errors import LinkError, PluginError
from mission.missionfile.contract import first_difference
from mission.missionfile.hooks import OBSERVER_GROUP, PHASE_GROUP
from mission.missionfile.plugins import find_plugin, list_plugins, load_observer


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder of installed distributions, in front of sys.path."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return folder


def mission_with(tmp_path, plugin: str):
    text = f"name: trial\nphases:\n  - name: only\n    plugin: {plugin}\n"
    (tmp_path / "m.yaml").write_text(text)
    return load_mission(tmp_path / "m.yaml")


def phases(*names: str) -> dict[str, dict[str, str]]:
    return {PHASE_GROUP: {name: f"module_{name}" for name in names}}


def test_listing_imports_nothing(site):
    fake_distribution(site, "acme-phases", "1.2", phases("acme"), {"module_acme": "raise SystemExit(3)"})
    row = next(row for row in list_plugins() if row.name == "acme")
    assert (row.distribution, row.version, row.target, row.duplicate) == ("acme-phases", "1.2", "module_acme", False)
    assert "module_acme" not in sys.modules


def test_duplicate_names_both_and_qualified_name_resolves(site, tmp_path):
    for name, version in (("acme-one", "1.0"), ("acme_two", "2.0")):
        fake_distribution(
            site,
            name,
            version,
            {PHASE_GROUP: {"twice": f"module_{name.replace('-', '_')}"}},
            {f"module_{name.replace('-', '_')}": CART},
        )
    with pytest.raises(PluginError) as caught:
        resolve_mission(mission_with(tmp_path, "twice"))
    assert all(
        part in str(caught.value) for part in ("acme-one 1.0", "acme-two 2.0", 'write "acme-one:twice"', "m.yaml:4:5")
    )
    assert resolve_mission(mission_with(tmp_path, "Acme.Two:twice"))[0].origin.version == "2.0"
    assert [row.duplicate for row in list_plugins() if row.name == "twice"] == [True, True]


def test_a_plugin_s_name_may_be_qualified_without_becoming_another(tmp_path):
    short, long = (
        resolve_mission(mission_with(tmp_path, name)) for name in ("vertical_coast", "mission-rocket:vertical_coast")
    )
    assert short[0].configuration() == long[0].configuration()


def test_unknown_plugin_names_what_is_there_and_the_nearest():
    with pytest.raises(PluginError, match="vertical_burn, vertical_coast") as caught:
        find_plugin("vertical_cost", "here")
    assert 'did you mean "vertical_coast"' in str(caught.value)


@pytest.mark.parametrize("entry_points", [b"[mission.phases]\nno equals sign\n", b"[mission.phases]\nx = \xff\n"])
def test_a_damaged_distribution_harms_no_other(site, caplog, entry_points):
    fake_distribution(site, "acme-damaged", "1", phases("acme"), {})
    (site / "acme_damaged-1.dist-info" / "entry_points.txt").write_bytes(entry_points)
    assert find_plugin("vertical_coast", "here").distribution == "mission-rocket"
    assert any("acme_damaged-1.dist-info is left out" in record.message for record in caplog.records)
    assert run_cli("plugins", path=site).returncode == 0


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("import does_not_exist", "ModuleNotFoundError"),
        ("def f(:", "SyntaxError"),
        ("x = 1", "0 of them"),
        ("from mission import hookimpl\n@hookimpl\ndef mission_fase(): ...", "mission_fase"),
        ("from mission import hookimpl\n@hookimpl\ndef mission_phase(x): ...", "x"),
        ("from mission import hookimpl\n@hookimpl\ndef mission_phase(): return 3", "int"),
        (
            "from mission import hookimpl\n@hookimpl\ndef mission_phase(): raise RuntimeError('boom')",
            "RuntimeError: boom",
        ),
        (
            "from mission import hookimpl, PhaseSpec\n@hookimpl\ndef mission_phase(): return PhaseSpec(params=int, environment=int)",
            "pydantic model class",
        ),
    ],
)
def test_broken_plugin_is_named_and_harms_no_other(site, tmp_path, source, part):
    name = f"bad{abs(hash(source))}"
    fake_distribution(site, "acme-broken", "0.9", {PHASE_GROUP: {name: f"module_{name}"}}, {f"module_{name}": source})
    with pytest.raises(PluginError) as caught:
        resolve_mission(mission_with(tmp_path, name))
    text = str(caught.value)
    assert part in text
    assert "acme-broken" in text
    assert "0.9" in text
    assert name in text
    assert resolve_mission(mission_with(tmp_path, "vertical_coast"))[0].origin.distribution == "mission-rocket"


LIMITS = 'limits=lambda params: (Limit("position_m", maximum=1.2),)'
FAULTS = [
    ("def start(self, key):\n", "def start(self, key):\n        raise ValueError('boom')\n", "start to work", "boom"),
    ("def enter(self, key, handoff):\n", "def enter(self, key, handoff):\n        raise ValueError('boom')\n", "enter to work", "boom"),
    ("def step(self, key, state, action):\n", "def step(self, key, state, action):\n        raise ValueError('boom')\n", "step to work", "boom"),
    ("def observe(self, state):\n", "def observe(self, state):\n        raise ValueError('boom')\n", "observe to work", "boom"),
    ("def outcome(self, state):\n", "def outcome(self, state):\n        raise ValueError('boom')\n", "outcome to work", "boom"),
    ("def leave(self, state):\n", "def leave(self, state):\n        raise ValueError('boom')\n", "leave to work", "boom"),
    ("def telemetry(self, state):\n", "def telemetry(self, state):\n        raise ValueError('boom')\n", "telemetry to work", "boom"),
    ("def guide(self, state):\n", "def guide(self, state):\n        raise ValueError('boom')\n", "guide to work", "boom"),
    ("def terms(state, action, after, outcome):\n", "def terms(state, action, after, outcome):\n        raise ValueError('boom')\n", "reward to work", "boom"),
    ("environment=Hold", "environment=lambda params: 1 / 0", "environment to work", "division"),
    ("environment=Hold", "environment=lambda params: params", "return an Environment", "Params"),
    ("jnp.stack([state.cart.position_m, state.cart.velocity_m_s])", "jnp.zeros(3)", "observe to be float32[2]", "float32[3]"),
    ("jnp.stack([state.cart.position_m, state.cart.velocity_m_s])", "jnp.zeros(2, jnp.int32)", "observe to be float32[2]", "int32[2]"),
    ("return Outcome(over, held, jnp.where(held, 0, 1).astype(jnp.int32))", "return Outcome(over, held, jnp.where(held, 0.0, 1.0))", "cause to be int32[]", "float32"),
    ("return Outcome(over, held, jnp.where(held, 0, 1).astype(jnp.int32))", "return over, held", "return an Outcome", "tuple"),
    ("return State(Cart(state.cart.position_m + 0.1 * velocity, velocity), state.time_s + 0.1)", "return state.cart", "a state like enter's", "leaf"),
    ('("held", "missed")', '("held",)', "at least one failure", "held"),
    ("max_steps = 50", "max_steps = 0", "max_steps", "0"),
    ("control_period_s = 0.1", "control_period_s = -1", "control_period_s", "-1"),
    ('action_names = ("acceleration",)', 'action_names = ("a", "a")', "different words", "a"),
    ('{"near": 1.0 / (1.0 + 4.0 * jnp.abs(after.cart.position_m)), "end": jnp.where(outcome.success, 5.0, 0.0)}', "jnp.zeros(())", "named scalars", "reward"),
    ('Limit("position_m", maximum=1.2)', 'Limit("height_m", maximum=1.2)', "limits on telemetry channels", "height_m"),
    ("jnp.clip(-4.0 * state.cart.position_m - 4.0 * state.cart.velocity_m_s, -1.0, 1.0)[None]", "state.cart.position_m", "guide to be float32[1]", "float32[]"),
    (LIMITS, 'limits=lambda params: (Limit("position_m", maximum=1.2))', "limits to work", "not iterable"),
    (LIMITS, "limits=lambda params: 1 / 0", "limits to work", "division"),
    (LIMITS, 'limits=lambda params: (Limit("position_m", maximum=float("inf")),)', "finite numbers as bounds", "inf"),
    (LIMITS, 'limits=lambda params: (Limit("position_m", maximum="1.2"),)', "finite numbers as bounds", "'1.2'"),
    (LIMITS, 'limits=lambda params: (Limit("position_m", minimum=2.0, maximum=1.0),)', "minimum is not above its maximum", "2.0"),
    (LIMITS, 'limits=lambda params: (Limit("position_m", maximum=True),)', "finite numbers as bounds", "True"),
    (LIMITS, 'limits=lambda params: (Limit("position_m"),)', "at least one", "None"),
    (LIMITS, 'limits=lambda params: (Limit("position_m", maximum=1.2), Limit("position_m", minimum=-1.0))', "one limit per channel", "position_m, position_m"),
    ("    control_period_s = 0.1\n", "", "control_period_s above 0", "None"),
    ("control_period_s = 0.1", "control_period_s = float('inf')", "control_period_s above 0", "inf"),
    ("control_period_s = 0.1", "control_period_s = 1e-300", "control_period_s above 0, from 1e-06", "1e-300"),
    ("control_period_s = 0.1", "control_period_s = 1e300", "to 1e+09 s", "1e+300"),
    ("control_period_s = 0.1", "control_period_s = True", "control_period_s above 0", "True"),
    ("max_steps = 50", "max_steps = 2**31", "at most 1,000,000,000", "2147483648"),
    ("max_steps = 50", "max_steps = True", "max_steps to be a whole number", "True"),
    ("max_steps = 50", "max_steps = 50.0", "max_steps to be a whole number", "50.0"),
    ('observation_names = ("position", "velocity")', "observation_names = ()", "at least one name in observation_names", "none"),
    ('action_names = ("acceleration",)', "action_names = ()", "at least one name in action_names", "none"),
    ('action_names = ("acceleration",)', 'action_names = ("",)', "different words", "''"),
    ('observation_names = ("position", "velocity")', "observation_names = tuple(map(str, range(5000)))", "at most 4,096 names", "5,000"),
    ('("held", "missed")', "tuple(map(str, range(300)))", "at most 254 names", "300"),
    ("return state.cart\n    def telemetry", "return ()\n    def telemetry", "leave to return at least one array", "tuple"),
    ("return state.cart\n    def telemetry", "return None\n    def telemetry", "leave to return at least one array", "NoneType"),
    ("return state.cart\n    def telemetry", "return jnp.zeros((0, 3))\n    def telemetry", "arrays that are not empty", "(root): float32[0, 3]"),
    ("return state.cart\n    def telemetry", "return (state.cart, jnp.zeros(0))\n    def telemetry", "arrays that are not empty", "[1]: float32[0]"),
    ("return state.cart\n    def telemetry", "return jnp.zeros(4097)\n    def telemetry", "at most 4,096 floats", "4,097"),
    ("return state.cart\n    def telemetry", "return 1j * state.cart.position_m\n    def telemetry", "real numbers", "complex64"),
    ("return Cart(jax.random.uniform(key, minval=-1.0, maxval=1.0), jnp.zeros(()))", "return {}", "start to return at least one array", "dict"),
    ("return State(handoff, jnp.zeros(()))", "return {}", "enter to return at least one array", "dict"),
    ('"velocity_m_s": state.cart.velocity_m_s}', '"": state.cart.velocity_m_s}', "a real scalar with a name", "float32[]"),
    ('"velocity_m_s": state.cart.velocity_m_s}', '"velocity_m_s": 1j * state.cart.velocity_m_s}', "a real scalar with a name", "complex64[]"),
    ("    max_steps = 50\n", "", "max_steps to be a whole number", "None"),
    ('("held", "missed")', '("held", "time_out")', "the engine adds", "time_out"),
    ("def step(self, key, state, action):\n", "def step(self, key, state, action):\n        raise SystemExit(5)\n", "step to work", "SystemExit: 5"),
    ("    small = dict", "    raise SystemExit(4)\n    small = dict", "mission_phase to work", "SystemExit: 4"),
    ("reward=reward", "reward=lambda params: 1 / 0", "reward to work", "division"),
    ("reward=reward", "reward=reward, report=3", "report to be a function", "3"),
    ("    seconds: float = Field(3.0, gt=0)\n", "    seconds: float = Field(3.0, gt=0)\n    model_config = ConfigDict(arbitrary_types_allowed=True)\n    x: object = object()\n", "kept as JSON", "serialize"),
    ("    seconds: float = Field(3.0, gt=0)\n", "    seconds: float = Field(3.0, gt=0)\n    def model_post_init(self, context):\n        raise RuntimeError('boom')\n", "to validate its parameters", "boom"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "expected", "found"), FAULTS)
def test_fault_in_each_method_is_named(tmp_path, old, new, expected, found):
    assert old in CART
    mission = load_mission(write_mission(tmp_path, plugin=CART.replace(old, new, 1)))
    with pytest.raises(PluginError) as caught:
        resolve_mission(mission, allow_local_plugins=True)
    text = str(caught.value)
    assert expected in text
    assert found in text
    assert "cart" in text
    assert text.startswith("mission.yaml:")
    assert 'phases[0] "first"' in text
    assert caught.value.exit_code == 2


def test_linkage_mismatch_names_both_phases_and_the_leaf(tmp_path):
    (tmp_path / "other.py").write_text(CART.replace("position_m", "range_m"))
    mission = load_mission(write_mission(tmp_path, MISSION.replace("./cart.py\n    params", "./other.py\n    params")))
    with pytest.raises(LinkError) as caught:
        resolve_mission(mission, allow_local_plugins=True)
    assert '"first" -> "second"' in str(caught.value)
    assert "leaf .position_m against leaf .range_m" in str(caught.value)


def test_classes_of_the_same_name_are_told_apart_by_their_modules(site, tmp_path):
    for module in ("same_name_one", "same_name_two"):
        points = {PHASE_GROUP: {module: f"module_{module}"}}
        fake_distribution(site, module.replace("_", "-"), "1", points, {f"module_{module}": CART})
    names = ("same_name_one", "same_name_two")
    text = "name: trial\nphases:\n" + "".join(f"  - {{name: {name}, plugin: {name}}}\n" for name in names)
    (tmp_path / "m.yaml").write_text(text)
    with pytest.raises(LinkError) as caught:
        resolve_mission(load_mission(tmp_path / "m.yaml"))
    found = caught.value.found
    assert found.startswith(f"Cart of module module_same_name_one ({site}")
    assert f"against Cart of module module_same_name_two ({site}" in found


def test_a_difference_between_trees_with_equal_leaves_is_named():
    leaf = jax.ShapeDtypeStruct((), jnp.float32)
    assert first_difference((leaf,), [leaf]) == "tuple of module builtins against list of module builtins"
    assert first_difference({"a": leaf, "b": ()}, {"a": leaf, "b": None}).startswith("tuple of module")
    assert first_difference([leaf, ()], [leaf, (), ()]).startswith("tree ")


def test_first_difference_is_about_shape_and_dtype_not_weak_types():
    tree = {"a": jax.ShapeDtypeStruct((), jnp.float32), "b": jax.ShapeDtypeStruct((3,), jnp.float32)}
    assert first_difference(tree, tree) == ""
    assert first_difference(tree, jax.eval_shape(lambda: {"a": 1.0 * jnp.float32(2), "b": jnp.zeros(3)})) == ""
    assert (
        first_difference(tree, tree | {"b": jax.ShapeDtypeStruct((4,), jnp.float32)})
        == "leaf ['b']: float32[3] against float32[4]"
    )
    assert (
        first_difference(tree, tree | {"a": jax.ShapeDtypeStruct((), jnp.int32)})
        == "leaf ['a']: float32[] against int32[]"
    )
    assert "exists on the first only" in first_difference(tree, {"a": tree["a"]})


def test_local_plugins_are_opt_in(tmp_path):
    mission = load_mission(write_mission(tmp_path))
    with pytest.raises(MissionError, match="--allow-local-plugins"):
        resolve_mission(mission)
    assert [phase.name for phase in resolve_mission(mission, allow_local_plugins=True)] == ["first", "second"]
    with pytest.raises(MissionError, match="no such file"):
        resolve_mission(mission_with(tmp_path, "./none.py"), allow_local_plugins=True)


def test_observer_that_raises_is_reported_once_and_dropped(site, tmp_path, caplog):
    source = "from mission import hookimpl\ncalls = []\n@hookimpl\ndef mission_event(event):\n    calls.append(event.kind)\n    raise RuntimeError('boom')\n"
    fake_distribution(site, "acme-watch", "1", {OBSERVER_GROUP: {"watch": "module_watch"}}, {"module_watch": source})
    from mission.observers import Observers

    (tmp_path / "m.yaml").write_text("name: trial\nobservers: [watch]\nphases:\n  - name: a\n    plugin: b\n")
    with Observers(load_mission(tmp_path / "m.yaml"), tmp_path) as observers:
        for _ in range(3):
            observers.emit("chunk")
    assert sys.modules["module_watch"].calls == ["chunk"]
    assert sum('observer "watch" is dropped' in record.message for record in caplog.records) == 1
    with pytest.raises(PluginError, match="progress, tensorboard"):
        load_observer("none", "here")


def test_plugins_command_marks_duplicates_and_exits_0(site):
    fake_distribution(site, "acme", "1", {PHASE_GROUP: {"vertical_burn": "nowhere"}}, {})
    done = run_cli("plugins", "--json", path=site)
    rows = json.loads(done.stdout)
    assert done.returncode == 0
    assert sorted(row["distribution"] for row in rows if row["name"] == "vertical_burn" and row["duplicate"]) == [
        "acme",
        "mission-rocket",
    ]
    assert "DUPLICATE" in run_cli("plugins", path=site).stdout
