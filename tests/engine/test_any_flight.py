"""A report comes out of any flights; missions without a notion of success; gates on returns and on NaN."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from factory import CART, MISSION, run_cli, write_mission
from probes import Nothing, Probe, probe_sac
from typer.testing import CliRunner

from mission import PhaseSpec, fly_mission, load_mission
from mission.cli import app
from mission.errors import PluginError
from mission.flight.batches import compile_flight, fly_rows
from mission.learner import Transition
from mission.missionfile.gate import ChannelGate, Gate, gate_verdict
from mission.missionfile.phases import TrainedPhase
from mission.report.bands import GRID_POINTS
from mission.report.charts import Chart, nice_ticks
from mission.report.compare import compare
from mission.report.folder import UnfinishedReport
from mission.report.header import UnfinishedKey
from mission.report.redraw import draw_report, read_records
from mission.report.tracks import SAMPLES
from mission.testing import make_phase
from mission.training.step import start_waiting, step_envs, waiting_envs

ONE = MISSION.partition("  - name: second")[0]
TELEMETRY = 'return {"position_m": state.cart.position_m, "velocity_m_s": state.cart.velocity_m_s}'
CLOCK = TELEMETRY.replace("}", ', "phase_time_s": state.time_s}')
STEP = "return State(Cart(state.cart.position_m + 0.1 * velocity, velocity), state.time_s + 0.1)"
ENTER = "return State(handoff, jnp.zeros(()))"
SPEC = "return PhaseSpec("
BROKEN_FROM = "jnp.where((state.time_s > 0.4) & (state.cart.position_m > 0.5), jnp.nan, state.time_s + 0.1)"


def edited(*edits: tuple[str, str]) -> str:
    plugin = CART
    for old, new in edits:
        assert old in plugin
        plugin = plugin.replace(old, new)
    return plugin


CASES = {
    "no time passes": edited((TELEMETRY, CLOCK), ("state.time_s >= self.params.seconds - 0.01", "state.time_s >= -1.0")),
    "the clock breaks": edited((TELEMETRY, CLOCK), (STEP, STEP.replace("state.time_s + 0.1", BROKEN_FROM))),
    "only the clock is broken": edited((TELEMETRY, CLOCK.replace("state.time_s", "state.time_s * jnp.nan"))),
    "the clock is infinite": edited((TELEMETRY, CLOCK.replace("state.time_s", "state.time_s * 1e38 * 1e38"))),
    "the clock is enormous": edited((TELEMETRY, CLOCK.replace("state.time_s", "state.time_s * 1e37"))),
    "NaN on entering": edited((ENTER, "return State(Cart(handoff.position_m * jnp.nan, handoff.velocity_m_s), jnp.zeros(()))")),
    "every channel is infinite": edited(("state.cart.position_m, \"vel", "state.cart.position_m / 0.0, \"vel")),
    "its report raises": edited((SPEC, "return PhaseSpec(report=lambda records: 1 / 0, ")),
    "its report exits": edited((SPEC, "return PhaseSpec(report=lambda records: exit(0), ")),
    "its report is no text": edited(("SacConfig, hookimpl\n", "SacConfig, Section, hookimpl\n"), (SPEC, "return PhaseSpec(report=lambda r: (Section(None, 1),), ")),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_report_comes_out(tmp_path, case):
    mission = load_mission(write_mission(tmp_path, ONE, CASES[case]))
    out = tmp_path / "out"
    summary = fly_mission(mission, flights=40, policy="guide", allow_local_plugins=True, report=out)
    page = (out / "index.html").read_text()
    drawings = re.findall(r"<svg.*?</svg>", page)
    assert len(drawings) >= 2
    assert not [drawing for drawing in drawings if re.search(r"\b(nan|inf)\b", drawing)]
    _, records = read_records(out)
    assert records.flights.count == summary.flights == 40
    assert np.isfinite(records.bands.time_s).all()
    for flight in records.chosen:
        assert all(np.isfinite(track.time_s).all() for track in flight.tracks)
    assert ("is left out" in page) == case.startswith("its report")
    assert "could not be drawn" not in page
    draw_report(out)


def test_axes_that_cannot_be_drawn_are_replaced():
    assert nice_ticks(2.0, 2.0) == [2.0]
    assert nice_ticks(0.0, float("inf")) == [0.0]
    for x in ((0.0, 0.0), (1.0, float("nan")), (-1e308, 1e308), (1e20, 1e20 + 1), (3.0, 1.0)):
        html = Chart("t", "x", "y", x, x).points(np.array([0.0, np.nan]), np.array([0.0, 1.0])).html()
        assert not re.search(r"\b(nan|inf)\b", html)
        assert len(html) < 5000


WEEKS = edited(
    ("control_period_s = 0.1", "control_period_s = 60.0"),
    ("max_steps = 50", "max_steps = 50000"),
    ("state.time_s + 0.1", "state.time_s + 60.0"),
    ("velocity = state.cart.velocity_m_s + 0.1 * action[0]", "velocity = jnp.sin(state.time_s / 86400.0)"),
)


def test_a_mission_of_days_has_a_bounded_number_of_samples(tmp_path):
    """Ten days at 60 s per control step, in two phases."""
    text = MISSION.replace("plugin: ./cart.py\n", "plugin: ./cart.py\n    params: {seconds: 432000.0}\n", 1)
    text = text.replace("{seconds: 2.0}", "{seconds: 432000.0}")
    mission = load_mission(write_mission(tmp_path, text, WEEKS), ["phases.first.params.tolerance_m=1e9"])
    fly_mission(mission, flights=20, policy="guide", allow_local_plugins=True, report=tmp_path / "out")
    _, records = read_records(tmp_path / "out")
    assert len(records.bands.time_s) <= GRID_POINTS
    assert records.bands.time_s[-1] == pytest.approx(10 * 86400, rel=0.01)
    for flight in records.chosen:
        assert sum(len(track.time_s) for track in flight.tracks) <= SAMPLES + 2 * len(flight.tracks)
        assert len(flight.tracks) == 2
        assert len(flight.tracks[0].time_s) > SAMPLES / 8
        ends = [phase.end[flight.number, 0] for phase in records.flights.phases]
        assert [track.channels["position_m"][-1] for track in flight.tracks] == ends
    speed = records.bands.of("velocity_m_s")
    within = records.bands.time_s < 4.3e5  # the first phase
    np.testing.assert_allclose(speed[1][within], np.sin(records.bands.time_s[within] / 86400.0), atol=0.02)
    assert sum(path.stat().st_size for path in (tmp_path / "out").iterdir()) < 2e6


def test_a_batch_that_was_copied_over_another_is_flown_again(tmp_path):
    key = UnfinishedKey(mission="m", digest="d", seed=1, policy="guide", actors=(None,), plugins=("p",), engine="0")
    store = UnfinishedReport(tmp_path / "a", key)
    store.put("guide-0-1000", {"x": np.arange(3)})
    other = UnfinishedReport(tmp_path / "b", key.model_copy(update={"seed": 2}))
    found = store.get("guide-0-1000")
    assert found is not None
    assert found["x"].tolist() == [0, 1, 2]
    shutil.copy(store.folder / "guide-0-1000.npz", store.folder / "guide-1000-1000.npz")
    shutil.copy(store.folder / "guide-0-1000.npz", other.folder / "guide-0-1000.npz")
    assert store.get("guide-1000-1000") is None
    assert other.get("guide-0-1000") is None
    with np.load(store.folder / "guide-0-1000.npz") as stored:
        arrays = dict(stored)
    np.savez(store.folder / "guide-0-1000.npz", **(arrays | {"x": np.array([0, 1, 3])}))
    assert store.get("guide-0-1000") is None


# Success by survival


class Survivor(Probe):
    """A probe whose goal is to reach the time limit."""

    time_out_cause = "still there"


def survivor(lives: int) -> TrainedPhase:
    spec = PhaseSpec(
        Nothing,
        lambda params: Survivor(lives, 3),
        lambda params: lambda state, action, after, outcome: {"alive": jnp.ones(())},
        sac=probe_sac(),
    )
    phase = make_phase(spec)
    assert isinstance(phase, TrainedPhase)
    return phase


def test_surviving_is_a_success_with_its_own_cause():
    phase = survivor(lives=0)
    learner = phase.build_learner()
    actor = learner.policy(learner.init(jax.random.key(0)))
    flight = fly_rows(phase, compile_flight(phase), actor, None, np.arange(20), jax.random.key(1))
    assert flight.success.all()
    assert {phase.causes[cause] for cause in flight.cause} == {"still there"}
    assert phase.causes == ("done", "failed", "still there", "non_finite")


def test_surviving_still_bootstraps():
    phase = survivor(lives=0)
    keys = jax.random.split(jax.random.key(0), 4)
    envs = start_waiting(phase, None, waiting_envs(phase, 4), keys)
    obs, action = jnp.zeros((4, 2)), jnp.zeros((4, 1))
    for _ in range(3):
        after = step_envs(phase, envs, obs, action, keys)
        envs = after.envs
        transition: Transition = after.transition
    assert after.end.ended.all()
    assert after.end.success.all()
    assert transition.ended.all()
    assert not transition.terminated.any()


def test_the_name_of_survival_may_be_that_of_success_but_not_of_a_failure():
    class Same(Probe):
        time_out_cause = "done"

    class Wrong(Probe):
        time_out_cause = "failed"

    def spec(kind: type[Probe]) -> PhaseSpec:
        return PhaseSpec(Nothing, lambda params: kind(0, 3))

    phase = make_phase(PhaseSpec(Nothing, lambda params: Same(0, 3), survivor_reward, sac=probe_sac()))
    assert phase.causes == ("done", "failed", "time_out", "non_finite")
    assert phase.time_out == 0
    with pytest.raises(PluginError, match="time_out_cause"):
        make_phase(PhaseSpec(Nothing, lambda params: Wrong(0, 3), survivor_reward, sac=probe_sac()))


def survivor_reward(params: Nothing):
    return lambda state, action, after, outcome: {"alive": jnp.ones(())}


# Returns and gates


def test_a_gate_on_the_return_tests_no_success_unless_it_is_set():
    gate, none = Gate(return_mean_min=2.0, flights=4), np.zeros(4, bool)
    assert gate.success_low is None
    assert gate_verdict(gate, none, {}, np.full(4, 3.0)).passed
    assert gate_verdict(gate, none, {}, np.full(4, 1.0)).failures == ("return: mean 1.0, min 2.0",)
    both = Gate(return_mean_min=2.0, success_low=0.4, flights=4)
    assert "success 0 of 4" in gate_verdict(both, none, {}, np.full(4, 3.0)).failures[0]
    assert Gate.model_validate_json(gate.model_dump_json()) == gate
    assert Gate().success_low == 0.9


def test_nan_fails_a_gate_and_is_counted():
    success, values = np.ones(40, bool), np.full(40, np.nan)
    values[0] = 1.0
    gate = Gate(success_low=0.0, channels={"x_m": ChannelGate(mean_max=5.0)})
    (failure,) = gate_verdict(gate, success, {"x_m": values}).failures
    assert "39 of 40 values are not finite" in failure
    assert gate_verdict(gate, success, {"x_m": np.ones(40)}).passed
    broken = np.array([5.0] * 39 + [np.inf])
    (failure,) = gate_verdict(Gate(return_mean_min=0.0), success, {}, broken).failures
    assert "1 of 40 values are not finite" in failure


def test_a_verdict_says_what_its_interval_counts():
    verdict = gate_verdict(Gate(success_low=0.0), np.ones(100, bool), {}, starts=40, looks=3)
    assert verdict.counted() == "100 of 100 flights from 40 different starts, look 3 at the gate"
    assert gate_verdict(None, np.ones(9, bool), {}).counted() == "9 of 9 flights"


def test_returns_are_in_the_table_in_json_and_paired_in_comparisons(tmp_path):
    path = write_mission(tmp_path, ONE)
    other = tmp_path / "other.yaml"
    other.write_text(ONE.replace("plugin: ./cart.py", "plugin: ./cart.py\n    policy: guide"))
    path.write_text(other.read_text())
    options = ["--policy", "guide", "--allow-local-plugins", "--flights", "30"]
    table = CliRunner().invoke(app, ["fly", str(path), *options])
    assert table.exit_code == 0, table.output
    assert "mean return" in table.stdout
    stored = json.loads(CliRunner().invoke(app, ["fly", str(path), *options, "--json", "-"]).stdout)
    assert stored["returns"] == stored["phases"][0]["returns"]
    assert stored["returns"]["mean"] > 0.0
    assert f"return {stored['returns']['mean']:.4g} in the mean" in table.stdout
    result = compare(path, other, flights=30, allow_local_plugins=True)
    assert (result.returns.mean, result.returns.sd, result.returns.flights) == (0.0, 0.0, 30)


# What a plugin prints

NOISY = edited(
    ("import dataclasses\n", "import dataclasses, os\nprint('at import')\nos.write(1, b'below Python')\n"),
    ("velocity = state.cart.velocity_m_s", "jax.debug.callback(lambda: print('in a program'))\n        velocity = state.cart.velocity_m_s"),
)  # fmt: skip


def test_standard_output_is_json_whatever_a_plugin_prints(tmp_path):
    path = write_mission(tmp_path, ONE, NOISY)
    done = run_cli("fly", path, "--policy", "guide", "--allow-local-plugins", "--flights", 3, "--json", "-")
    assert json.loads(done.stdout)["flights"] == 3
    for text in ("at import", "below Python", "in a program"):
        assert text in done.stderr


HOSTILE = "\x1b[2J[red]" + "x" * 500


def test_names_from_outside_reach_the_terminal_as_text(tmp_path):
    plugin = edited(
        ('causes = ("held", "missed")', f"causes = ({HOSTILE + '!'!r}, {HOSTILE!r})"),
        ('"position_m": state', f"{HOSTILE!r}: state.cart.velocity_m_s, \"position_m\": state"),
        ('(Limit("position_m", maximum=1.2),)', f"(Limit({HOSTILE!r}, maximum=1e-9),)"),
    )  # fmt: skip
    path = write_mission(tmp_path, ONE.replace("budget:", "params: {tolerance_m: 0.001}\n    budget:"), plugin)
    options = ["--policy", "guide", "--allow-local-plugins", "--flights", "30"]
    done = CliRunner().invoke(app, ["fly", str(path), *options, "--report", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert not [c for c in done.output if not c.isprintable() and c != "\n"]
    assert "\\x1b[2J[red]x" in re.sub(r"\s", "", done.output)
    assert "x" * 121 not in re.sub(r"\s", "", done.output)
    page = (tmp_path / "out" / "index.html").read_text()
    assert "\x1b" not in page
    written = CliRunner().invoke(app, ["fly", str(path), *options, "--json", "-"])
    assert HOSTILE in json.loads(written.stdout)["phases"][0]["causes"]
    assert "\x1b" not in written.stdout


def test_an_error_quotes_printable_text_that_is_cut():
    error = PluginError("a\x1b[2J", expected="b\nerror: c", found="d" * 9999, remedy=str(Path("/very") / ("e" * 200)))
    lines = str(error).splitlines()
    assert [line.strip()[:9] for line in lines] == ["a\\x1b[2J", "expected:", "found: dd", "to do: /v"]
    assert len(lines[2]) < 150
    assert "e" * 200 in lines[3], "a path stays whole"


def test_one_function_escapes_what_a_page_shows(tmp_path):
    root = Path(__file__).parents[2] / "mission"
    users = [p.name for p in root.rglob("*.py") if re.search(r"^(import html|from html import)", p.read_text(), re.M)]
    assert users == ["markup.py"]
    page = (root / "report" / "page" / "__init__.py").read_text()
    assert "base-uri 'none'; form-action 'none'" in page
