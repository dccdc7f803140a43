"""Flights on worker processes: the same bits, workers and drivers that are killed, and workers that are refused."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factory import CART, ROOT, write_mission

from mission import fly_mission, load_mission, resolve_mission
from mission.errors import GateError, InputError, MachineError, MissionError, PluginError
from mission.flight.batches import fly_batches
from mission.flight.chain import prepare_chain
from mission.missionfile import sources
from mission.phase import PluginOrigin
from mission.report import recording
from mission.report.batch_recorder import BatchRecorder
from mission.report.redraw import read_report
from mission.scale import flying
from mission.scale.cluster import Place, cluster, place_of
from mission.scale.flying import Fleet
from mission.scale.shipping import check_origin, pack_mission, unpack_mission
from mission.scale.worker import perform, worker_environment, worker_versions

FLIGHTS = 3000
# In a worker, the first one that imports the plugin dies with its batch. A worker is told its number of cores.
FRAGILE = """
import os, signal
if "MISSION_CORES" in os.environ:
    try:
        os.close(os.open({flag!r}, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        pass
    else:
        os.kill(os.getpid(), signal.SIGKILL)
"""
OVERRIDES = ["phases.first.params.tolerance_m=0.012", "phases.second.params.tolerance_m=0.0002"]


def load(folder: Path):
    return load_mission(folder / "mission.yaml", OVERRIDES)


def fly(folder: Path, **options: Any):
    return fly_mission(load(folder), policy="guide", allow_local_plugins=True, **({"flights": FLIGHTS} | options))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mission whose plugin kills the first worker that imports it, and imports a file beside it; flown here."""
    folder = tmp_path_factory.mktemp("ray")
    write_mission(folder, plugin=CART + "\nimport fragile\n")
    (folder / "fragile.py").write_text(FRAGILE.format(flag=str(folder / "killed")))
    fly(folder, report=folder / "here")
    return folder


def same_reports(one: Path, other: Path) -> None:
    (header, arrays), (found, found_arrays) = read_report(one), read_report(other)
    assert list(found_arrays) == list(arrays)
    for name, values in arrays.items():
        np.testing.assert_array_equal(found_arrays[name], values, err_msg=name)
    assert found.report == header.report
    assert found.guide == header.guide


# Places


@pytest.mark.parametrize(
    ("on", "place"),
    [
        ("local", Place(False)),
        ("ray", Place(True)),
        ("ray:auto", Place(True, "auto")),
        ("ray:10.0.0.1:6379", Place(True, "10.0.0.1:6379")),
        ("ray:[::1]:6379", Place(True, "[::1]:6379")),
        ("ray:ray://head:10001", Place(True, "ray://head:10001")),
    ],
)
def test_places(on: str, place: Place) -> None:
    assert place_of(on) == place


@pytest.mark.parametrize(
    "on",
    ["", "Ray", "ray:", "ray:head", "ray:head:0", "ray:head:65536", "ray:a b:1", "local:x", "dask", "ray:http://a:1"],
)
def test_other_places_are_errors(on: str, folder: Path) -> None:
    with pytest.raises(InputError, match="--on"):
        fly(folder, on=on)


def test_without_ray_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissionError) as caught:
        fly(folder, on="ray", flights=10)
    assert 'pip install "mission-engine[ray]"' in caught.value.remedy


def test_a_cluster_that_is_not_there_is_exit_3() -> None:
    with pytest.raises(MachineError, match=r"--on ray:127\.0\.0\.1:9") as caught, cluster("ray:127.0.0.1:9"):
        pass
    assert "refused" in caught.value.found


def test_tasks_in_this_process() -> None:
    with cluster("local") as here:
        assert list(here.run(pow, [3, 4], here.put(2))) == [(0, 8), (1, 16)]
        assert here.workers == 1


# Workers


def test_errors_travel(folder: Path) -> None:
    error = GateError("here", expected="a", found="b", remedy="c")
    error.add_note("a traceback")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.exit_code) == (GateError, str(error), 1)
    assert again.__notes__ == ["a traceback"]


def fail(error: BaseException, item: int) -> int:
    raise error


def test_an_error_of_a_plugin_is_the_same_in_a_worker() -> None:
    broken = PluginError("mission.yaml:3", expected="a", found="b", remedy="c")
    _, error, seconds = perform(fail, "mission fly", worker_versions(), broken, 1)
    assert error is broken
    assert seconds >= 0.0
    _, error, _ = perform(fail, "mission fly", worker_versions(), MemoryError("of the worker"), 1)
    assert isinstance(error, MachineError)
    assert (error.where, error.expected) == ("mission fly", "enough memory")


@pytest.mark.parametrize("name", ["engine", "jax", "jaxlib"])
def test_a_worker_with_another_version_is_refused_by_name(name: str) -> None:
    expected = worker_versions() | {name: "9.9"}
    result, error, _ = perform(pow, "mission fly", expected, 2, 3)
    assert result is None
    assert isinstance(error, MachineError)
    assert (error.exit_code, error.expected) == (3, f"{name} 9.9, as where the command runs")
    assert error.found == f"{name} {worker_versions()[name]}"
    assert f"the Ray worker {os.getpid()}" in error.where


@pytest.mark.parametrize(
    ("change", "found"),
    [({"source_sha256": "1" * 64}, "source 111111111111"), ({"version": "9"}, "9"), ({"distribution": "copy"}, "copy")],
)
def test_a_worker_with_another_plugin_is_refused_by_name(change: dict[str, str], found: str) -> None:
    origin = PluginOrigin("cart", "carts", "1", "0" * 64)
    other = PluginOrigin(
        **({"name": "cart", "distribution": "carts", "version": "1", "source_sha256": "0" * 64} | change)
    )
    with pytest.raises(MachineError) as caught:
        check_origin(origin, other)
    assert "carts" in caught.value.expected
    assert found in caught.value.found


def test_tasks_keep_to_their_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/somewhere")
    variables = worker_environment(3)
    assert {variables[name] for name in ("MISSION_CORES", "NPROC", "OMP_NUM_THREADS")} == {"3"}
    assert variables["JAX_PLATFORMS"] == "cpu"
    assert variables["XLA_FLAGS"] == os.environ["XLA_FLAGS"]
    assert "JAX_COMPILATION_CACHE_DIR" not in variables
    code = "from mission.machine.devices import configure, visible_cores as v; configure(); import jax; print(v(), jax.device_count())"
    environment = os.environ | worker_environment(1)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "1"]


# Missions on their way to workers


def test_local_plugins_are_shipped_with_what_they_import_and_read(tmp_path: Path) -> None:
    (tmp_path / "missions").mkdir()
    (tmp_path / "missions" / "parts").mkdir()
    (tmp_path / "missions" / "parts" / "deep.py").write_text("import pathlib\nK = 1\n")
    (tmp_path / "missions" / "numbers.txt").write_text("5")
    read = "import parts.deep, pathlib\npathlib.Path(__file__).with_name('numbers.txt').read_text()\n"
    write_mission(tmp_path / "missions", plugin=CART + read)
    (tmp_path / "missions" / "unused.py").write_text("")
    mission = load_mission(tmp_path / "missions" / "mission.yaml")
    phases = resolve_mission(mission, allow_local_plugins=True)
    shipment = pickle.loads(pickle.dumps(pack_mission(mission, phases)))
    assert sorted(shipment.files) == ["cart.py", "numbers.txt", "parts/deep.py"]
    unpacked, again = unpack_mission(shipment)
    assert [phase.origin for phase in again] == [phase.origin for phase in phases]
    assert [phase.configuration() for phase in again] == [phase.configuration() for phase in phases]
    assert unpacked.folder != mission.folder
    for damage in ({"cart.py": shipment.files["cart.py"] + b"# edited\n"}, {"parts/deep.py": b"K ="}):
        with pytest.raises(MachineError, match="Ray worker"):
            unpack_mission(shipment._replace(files=shipment.files | damage))


def test_data_that_parameters_name_is_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of installed distributions are not: they are compared."""
    vehicle = ROOT / "missions" / "vehicles"
    (tmp_path / "missions").mkdir()
    (tmp_path / "vehicles").mkdir()
    text = (ROOT / "missions" / "small_booster.yaml").read_text()
    for path in vehicle.iterdir():
        (tmp_path / "vehicles" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "missions" / "mine.yaml").write_text(text.replace("./vehicles", "../vehicles"))
    mission = load_mission(tmp_path / "missions" / "mine.yaml").all_guides()
    shipment = pack_mission(mission, resolve_mission(mission))
    assert shipment.file == "missions/mine.yaml"
    assert list(shipment.files) == [f"vehicles/{path.name}" for path in sorted(vehicle.iterdir())]
    monkeypatch.setattr(sources, "_read_in_calls", {})  # as in a new process
    unpacked, _ = unpack_mission(shipment)
    assert unpacked.folder != mission.folder


def test_a_local_plugin_needs_permission_before_anything_is_sent(folder: Path) -> None:
    with pytest.raises(InputError, match="--allow-local-plugins"):
        fly_mission(load(folder), policy="guide", flights=10, on="ray")


# The order of the batches


class Backwards:
    """A cluster whose results arrive in the opposite order, in this process."""

    workers, core_seconds = 7, 1.5

    def __init__(self) -> None:
        self.done: list[int] = []

    def put(self, value: Any) -> Any:
        return value

    def run(self, function: Any, items: Iterable[Any], shared: Any, name: Any = str) -> Generator[tuple[int, Any]]:
        for index, item in reversed(list(enumerate(items))):
            self.done.append(index)
            yield index, function(shared, item)


@pytest.fixture
def backwards(folder: Path) -> Generator[tuple[Backwards, Any]]:
    chain = prepare_chain(load(folder), policy="guide", allow_local_plugins=True)
    yield Backwards(), chain
    flying._prepared.clear()


def test_early_results_wait_for_their_turn(backwards: tuple[Backwards, Any]) -> None:
    workers, chain = backwards
    seen = []
    with Fleet(workers, chain).flying(FLIGHTS, 0) as fly:
        flown = fly_batches(FLIGHTS, None, fly, lambda done, total: seen.append(done))
    here = fly_batches(FLIGHTS, None, chain.fly)
    assert workers.done == [2, 1, 0]
    assert seen == [1000, 2000, 3000]
    for phase, other in zip(here, flown, strict=True):
        for name in ("success", "cause", "steps", "returns", "enter"):
            np.testing.assert_array_equal(getattr(phase, name), getattr(other, name))


def test_flights_after_the_stopping_batch_are_dropped(
    folder: Path, backwards: tuple[Backwards, Any], tmp_path: Path
) -> None:
    workers, chain = backwards
    rate = fly(folder, flights=1000).success
    until = 0.45 * (rate.high - rate.low)  # 0.5 of it after 1,000 flights, 0.35 after 2,000
    stopped = recording.report_flights(chain, tmp_path / "out", FLIGHTS, until, None, 0, Fleet(workers, chain))
    fly(folder, until=until, report=tmp_path / "here")
    assert stopped.flights == 2000
    assert stopped.looks == 2
    same_reports(tmp_path / "here", tmp_path / "out")


def test_agents_fly_with_the_policies_that_were_sent(tmp_path: Path) -> None:
    """The report of the workers equals that of the process that sent the policies."""
    mission = load_mission(ROOT / "missions" / "vertical.yaml")
    shipped = ROOT / "checkpoints" / "shipped"
    fly_mission(mission, checkpoints=shipped, flights=1100, report=tmp_path / "here")
    chain = prepare_chain(mission, checkpoints=shipped)
    recording.report_flights(chain, tmp_path / "out", 1100, None, None, 0, Fleet(Backwards(), chain))
    flying._prepared.clear()
    same_reports(tmp_path / "here", tmp_path / "out")


# A real Ray


def descendants(pid: int) -> list[int]:
    """The processes below one, by reading /proc."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    found, waiting = [], [pid]
    while waiting:
        now = waiting.pop()
        below = [child for child, parent in parents.items() if parent == now]
        found += below
        waiting += below
    return found


def listening(pids: list[int]) -> set[str]:
    """The addresses, in hexadecimal, on which processes listen."""
    sockets = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            links = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
            sockets |= {link[8:-1] for link in links if link.startswith("socket:[")}
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()[1:]]
    return {row[1].rpartition(":")[0] for row in rows if row[3] == "0A" and row[9] in sockets}


LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


def test_two_workers_of_which_one_is_killed_fly_the_same_bits(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    addresses: set[str] = set()

    def progress(done: int, total: int) -> None:
        addresses.update(listening([os.getpid(), *descendants(os.getpid())]))

    before = set(descendants(os.getpid()))
    fly(folder, report=tmp_path / "out", on="ray", devices=2, progress=progress)
    assert (folder / "killed").exists()
    assert caplog.text.count("a Ray worker died at flights") == 1
    assert "it is repeated (1 of 3)" in caplog.text
    same_reports(folder / "here", tmp_path / "out")
    assert addresses
    assert addresses <= LOOPBACK
    deadline = time.monotonic() + 20.0
    while set(descendants(os.getpid())) - before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert set(descendants(os.getpid())) <= before
    assert not list(Path(tempfile.gettempdir()).glob(f"mission-ray-{os.getpid()}-*"))


def test_a_driver_that_was_killed_resumes(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    overrides = [word for override in OVERRIDES for word in ("--set", override)]
    options = ["--policy", "guide", "--allow-local-plugins", "--flights", "100000", "--on", "ray", "--devices", "1"]
    command = [sys.executable, "-m", "mission", "fly", str(folder / "mission.yaml"), *overrides, *options]
    driver = subprocess.Popen([*command, "--report", str(out)], stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 240.0
        while (
            not (stored := list(out.glob(".flights/*.npz"))) and driver.poll() is None and time.monotonic() < deadline
        ):
            time.sleep(0.02)
    finally:
        below = descendants(driver.pid)
        driver.kill()
        _, errors = driver.communicate()
    assert driver.returncode == -signal.SIGKILL, errors
    assert stored
    kept = {path.name for path in out.glob(".flights/guide-[012]*.npz")} & {
        f"guide-{n}-1000.npz" for n in (0, 1000, 2000)
    }
    flown: list[int] = []
    monkeypatch.setattr(BatchRecorder, "fly", count_calls(BatchRecorder.fly, flown))
    fly(folder, report=out)
    assert len(flown) == 3 - len(kept) < 3
    same_reports(folder / "here", out)
    deadline = time.monotonic() + 60.0
    while (left := remains(driver.pid, below)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left, "Ray and its folder end with the command, even if it was killed"


def remains(driver: int, below: list[int]) -> list[str]:
    """The folder and the processes of a Ray whose driver was killed; its two agents notice that later."""
    names = [str(folder) for folder in Path(tempfile.gettempdir()).glob(f"mission-ray-{driver}-*")]
    for pid in below:
        with contextlib.suppress(OSError):
            names.append(Path(f"/proc/{pid}/cmdline").read_text())
    return [name for name in names if name and "Agent" not in name]


def count_calls(fly: Any, flown: list[int]) -> Any:
    def call(self: BatchRecorder, numbers: np.ndarray) -> Any:
        flown.append(int(numbers[0]))
        return fly(self, numbers)

    return call
