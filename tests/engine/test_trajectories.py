"""Single flights again, tables of starts, tables of trajectories, and formats of plugins."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from factory import write_mission
from typer.testing import CliRunner

from mission import MissionError, Trajectory, TrajectoryPhase, fly_mission, load_mission, write_trajectories
from mission.cli import app
from mission.errors import InputError, PluginError
from mission.flight.again import check_again, parse_flights
from mission.flight.chain import prepare_chain
from mission.flight.starts import read_starts, start_columns, starts_table
from mission.flight.tables import read_table, table_bytes
from mission.report.trajectories import formats
from mission.report.trajectories.tables import event_columns, trajectory_columns, unit_of

MISSION = Path(__file__).parents[2] / "missions" / "vertical.yaml"


def run(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.stdout


# Flights again


def test_a_flight_again_is_that_of_the_campaign_by_python_and_by_the_command_line(tmp_path):
    mission = load_mission(MISSION)
    flown = fly_mission(mission, flights=[4711, 12], policy="guide")
    assert [one.number for one in flown] == [12, 4711]
    text = run("fly", MISSION, "--policy", "guide", "--only", "4711,12", "--trajectory", tmp_path, "--json", "-")
    told = {one["number"]: one for one in json.loads(text)["flights"]}
    for one in flown:
        last = one.phases[-1]
        assert told[one.number]["outcome"] == one.outcome
        assert told[one.number]["phases"][-1]["end"] == {n: float(v[-1]) for n, v in last.channels.items()}
    with (tmp_path / "trajectories.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(len(phase.time_s) for one in flown for phase in one.phases)
    table = [np.float32(row["height_m"]) for row in rows if row["flight"] == "4711"]
    np.testing.assert_array_equal(table, np.concatenate([phase.channels["height_m"] for phase in flown[1].phases]))


@pytest.mark.parametrize(
    ("numbers", "flights", "first", "found"),
    [
        ([100], 100, 0, "100"),
        ([5], 1000, 1000, "5"),
        ([1 << 32], None, 0, str(1 << 32)),
        ([1, 2, 1], None, 0, "1 twice"),
        ([], None, 0, "0 numbers"),
        ([1.5], None, 0, "1.5"),
    ],
)
def test_numbers_that_are_no_flights_of_the_campaign(numbers, flights, first, found):
    with pytest.raises(InputError) as error:
        check_again(numbers, flights, first)
    assert error.value.found == found


def test_lists_of_numbers():
    assert parse_flights("4711") == (4711,)
    assert parse_flights("0, 3,8-10") == (0, 3, 8, 9, 10)
    for text in ("", "a", "3-1", "1,,2", "-1", "0-1000"):
        with pytest.raises(InputError):
            parse_flights(text)


@pytest.mark.parametrize(
    "options",
    [
        ("--only", "100", "--flights", "100"),
        ("--only", "1", "--until", "0.01"),
        ("--only", "1", "--report", "out"),
        ("--only", "1", "--splitting"),
        ("--only", "1", "--on", "ray"),
        ("--trajectory", "out"),
        ("--only", "1", "--format", "csv"),
        ("--only", "1", "--trajectory", "out", "--format", "cvs"),
        ("--only", "1", "--trajectory", "out", "--format-set", "colour=red"),
        ("--starts", "missing.csv", "--flights", "10"),
        ("--starts", "missing.csv"),
        ("--starts", "starts.txt"),
    ],
)
def test_options_without_a_meaning_are_refused(options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissionError) as error:
        run("fly", MISSION, "--policy", "guide", *options)
    assert error.value.exit_code == 2
    assert not list(tmp_path.iterdir())


def test_the_error_for_an_unknown_format_lists_the_formats():
    with pytest.raises(PluginError, match=r"csv, .*parquet"):
        formats.Writer(["cvs"])


# Starts


def test_flying_the_starts_of_a_campaign_gives_the_same_flights(tmp_path):
    mission = load_mission(MISSION)
    for name in ("starts.csv", "starts.parquet"):
        path = tmp_path / name
        run("starts", MISSION, "-o", path, "--flights", 260)
        whole = fly_mission(mission, flights=260, policy="guide")
        assert fly_mission(mission, starts=path, policy="guide") == whole
        again = fly_mission(mission, starts=path, flights=[255], policy="guide")
        (own,) = fly_mission(mission, flights=[255], policy="guide")
        for one, other in zip(own.phases, again[0].phases, strict=True):
            jax.tree.map(np.testing.assert_array_equal, one.channels, other.channels)
    with pytest.raises(InputError, match="from 0 to 259"):
        fly_mission(mission, starts=path, flights=[260], policy="guide")


def test_columns_that_are_missing_are_drawn_and_the_report_names_the_table(tmp_path):
    mission, path = load_mission(MISSION), tmp_path / "starts.csv"
    path.write_text("height_m\n9000\n11000\n")
    chain = prepare_chain(mission, policy="guide")
    starts, own = chain.starting_from(path).starts(np.arange(2)), chain.starts(np.arange(2))
    assert starts.height_m.tolist() == [9000.0, 11000.0]
    np.testing.assert_array_equal(starts.mass_kg, own.mass_kg)
    summary = fly_mission(mission, starts=path, policy="guide", report=tmp_path / "report")
    assert summary.flights == 2
    command = json.loads((tmp_path / "report" / "summary.json").read_text())["provenance"]["commands"][0]
    assert f"--starts {path}" in command
    low, high = (one.phases[0].channels["height_m"][0] for one in fly_mission(mission, starts=path, flights=[0, 1]))
    assert (low, high) == (9000.0, 11000.0)


@pytest.mark.parametrize(
    ("text", "where", "found"),
    [
        ("height_m,mass\n1,2\n", "starts.csv", 'the column "mass"'),
        ("height_m,mass_kg\n9000,33000\n9100,nan\n", 'row 1, column "mass_kg"', "nan"),
        ("height_m\n9000\nhigh\n", 'row 1, column "height_m"', "high"),
        ("height_m,mass_kg\n9000,\n", 'row 0, column "mass_kg"', "nothing"),
        ("height_m\n1e39\n", 'row 0, column "height_m"', "1e39"),
        ("height_m\ninf\n", 'row 0, column "height_m"', "inf"),
        ("height_m\n", "starts.csv", "no row"),
        ("", "starts.csv", "no column"),
        ("height_m,height_m\n1,2\n", "starts.csv", 'the column "height_m" twice'),
        ("height_m,mass_kg\n1\n", "starts.csv", "1 values in row 0, 2 columns"),
    ],
)
def test_bad_tables_say_where(tmp_path, text, where, found):
    path = tmp_path / "starts.csv"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        prepare_chain(load_mission(MISSION), policy="guide").starting_from(path)
    assert where in error.value.where
    assert error.value.found == found
    if "mass" in found:
        assert "height_m, velocity_m_s, mass_kg" in error.value.expected


def test_any_tree_of_arrays_has_columns(tmp_path):
    tree = {
        "position": jax.ShapeDtypeStruct((2, 2), jnp.float32),
        "counts": (jax.ShapeDtypeStruct((), jnp.int32), jax.ShapeDtypeStruct((), jnp.bool_)),
        "key": jax.eval_shape(lambda: jax.random.key(0)),
    }
    names = ["['counts'][0]", "['counts'][1]", *(f"['position'][{i},{j}]" for i in (0, 1) for j in (0, 1))]
    assert list(start_columns(tree)) == names
    assert list(start_columns(jax.ShapeDtypeStruct((2,), jnp.float32))) == ["start[0]", "start[1]"]
    rows = {
        "position": np.arange(12, dtype=np.float32).reshape(3, 2, 2) / 7,
        "counts": (np.array([1, -2, 3], np.int32), np.array([True, False, True])),
        "key": jax.random.split(jax.random.key(1), 3),
    }
    path = tmp_path / "starts.csv"
    path.write_bytes(table_bytes(starts_table(tree, rows), ".csv", "test"))
    zeros = jax.tree.map(
        lambda leaf: leaf if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else np.zeros_like(leaf), rows
    )
    read = read_starts(path, tree, lambda count: zeros).rows
    np.testing.assert_array_equal(read["position"], rows["position"])
    jax.tree.map(np.testing.assert_array_equal, read["counts"], rows["counts"])
    path.write_text("['counts'][0]\n1.5\n")
    with pytest.raises(InputError, match="int32"):
        read_starts(path, tree, lambda count: jax.tree.map(lambda leaf: leaf[:count], zeros))
    path.write_text("['counts'][1]\n2\n")
    with pytest.raises(InputError, match="0 or 1"):
        read_starts(path, tree, lambda count: jax.tree.map(lambda leaf: leaf[:count], zeros))


# Tables and events


def flight() -> Trajectory:
    first = {"parts": np.array([0, 0, 2, 2], np.float32), "speed_m_s": np.array([1, 2, 3, 4.5], np.float32)}
    second = {"parts": np.array([1, 1], np.float32), "angle_deg": np.array([0.5, 0.25], np.float32)}
    phases = (
        TrajectoryPhase("up", "up", {}, True, "done", 1.0, np.arange(4) * 0.5, first, takeover=1),
        TrajectoryPhase("down", "down", {}, False, "hit", 1.0, np.array([1.5, 2.0]), second),
    )
    return Trajectory("m", "digest", 3, "agent", 42, phases)


def test_events_are_phases_take_overs_and_changes_of_what_is_counted():
    one = flight()
    assert (one.success, one.outcome, one.duration_s) == (False, "lost in down: hit", 2.0)
    assert [(event.time_s, event.phase, event.name) for event in one.events()] == [
        (0.0, "up", "up begins"),
        (0.5, "up", "the guide takes over"),
        (1.0, "up", "parts from 0 to 2"),
        (1.5, "up", "up ends: done"),
        (1.5, "down", "down begins"),
        (1.5, "down", "parts from 2 to 1"),
        (2.0, "down", "down ends: hit"),
    ]
    assert event_columns([one])["event"][0] == "up begins"


def test_parquet_holds_the_units_and_every_bit(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is in the extra data")
    files = {path.name for path in write_trajectories([flight()], tmp_path, ("csv", "parquet"))}
    assert files == {"trajectories.csv", "events.csv", "units.csv", "trajectories.parquet", "events.parquet"}
    table = parquet.read_table(tmp_path / "trajectories.parquet")
    units = {field.name: field.metadata[b"unit"].decode() for field in table.schema}
    assert units["speed_m_s"] == "m/s"
    assert (units["parts"], units["mission_time_s"], units["angle_deg"]) == ("-", "s", "deg")
    with (tmp_path / "units.csv").open() as file:
        assert {row["column"]: row["unit"] for row in csv.DictReader(file)} == units
    columns = trajectory_columns([flight()])
    for name, values in columns.items():
        read = table.column(name).to_numpy()
        np.testing.assert_array_equal(read, values)
        assert read.dtype == values.dtype or values.dtype.kind == "U"
    text = read_table(tmp_path / "trajectories.csv", "test")
    np.testing.assert_array_equal(text["speed_m_s"].astype(np.float32), columns["speed_m_s"])


def test_units_of_channels():
    names = {
        "velocity_x_m_s": "m/s",
        "q_alpha_pa_deg": "Pa deg",
        "load_m_s2": "m/s2",
        "attitude_w": "-",
        "share_percent": "%",
    }
    assert {name: unit_of(name) for name in names} == names


def test_numbers_in_csv_give_the_same_bits():
    values = np.random.default_rng(0).integers(0, 1 << 32, 5000, np.uint32).view(np.float32)
    values = values[np.isfinite(values)]
    read = table_bytes({"x": values}, ".csv", "test").decode().split()[1:]
    np.testing.assert_array_equal(
        np.array([np.float32(float(text)) for text in read]).view(np.uint32), values.view(np.uint32)
    )


# Formats of plugins

FORMAT = """
from pydantic import BaseModel, ConfigDict
from mission import TrajectoryFormat, hookimpl

class Options(BaseModel):
    model_config = ConfigDict(extra="forbid")
    greeting: str = "hello"

def files(trajectories, options):
    return {BAD or f"{one.number}.txt": f"{options.greeting} {one.outcome}" for one in trajectories}

BAD = ""

@hookimpl
def mission_trajectory():
    return TrajectoryFormat(files, Options)
"""


@pytest.fixture
def greeting(tmp_path, monkeypatch):
    """A distribution with a format."""
    info = tmp_path / "greet-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: greet\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[mission.trajectories]\ngreeting = greet_format\n")
    (tmp_path / "greet_format.py").write_text(FORMAT)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("greet_format", None)


def test_a_distribution_may_add_a_format_with_options(greeting):
    assert "greeting" in run("plugins")
    out = greeting / "out"
    write_trajectories([flight()], out, ["greeting"], {"greeting": "bye"})
    assert (out / "42.txt").read_text() == "bye lost in down: hit"
    with pytest.raises(InputError, match="greeting"):
        write_trajectories([flight()], out, ["greeting"], {"greeting": 5})
    with pytest.raises(InputError, match="an option of greeting: greeting"):
        write_trajectories([flight()], out, ["greeting"], {"colour": 5})


def test_a_format_writes_into_its_folder_only(greeting):
    path = greeting / "greet_format.py"
    path.write_text(FORMAT.replace('BAD = ""', 'BAD = "../away.txt"'))
    with pytest.raises(PluginError, match="file"):
        write_trajectories([flight()], greeting / "out", ["greeting"])
    assert not (greeting / "away.txt").exists()


def test_a_format_that_cannot_hold_a_phase_is_refused_before_the_flight(greeting, monkeypatch):
    path = greeting / "greet_format.py"
    path.write_text(
        FORMAT.replace(
            "TrajectoryFormat(files, Options)", 'TrajectoryFormat(files, Options, (("x_m", "z_m"), ("y_m",)))'
        )
    )
    writer = formats.Writer(["greeting", "csv"])
    writer.check({"down": ("x_m", "z_m", "mass_kg"), "up": ("y_m",)})
    with pytest.raises(InputError, match='phase "up" with x_m'):
        writer.check({"down": ("x_m", "z_m"), "up": ("x_m",)})
    monkeypatch.setattr("mission.scale.fly.fly_mission", lambda *args, **more: pytest.fail("it flew"))
    with pytest.raises(InputError, match="--format greeting"):
        run(
            "fly",
            write_mission(greeting),
            "--allow-local-plugins",
            "--policy",
            "guide",
            "--only",
            "1",
            "--trajectory",
            greeting / "out",
            "--format",
            "greeting",
        )
    assert not (greeting / "out").exists()


def test_options_of_formats_are_key_and_value():
    assert formats.parse_options(["longitude_deg=-80.5", "name=a=b"]) == {"longitude_deg": -80.5, "name": "a=b"}
    for texts in (["a"], ["=1"], ["a=1", "a=2"]):
        with pytest.raises(InputError):
            formats.parse_options(texts)
