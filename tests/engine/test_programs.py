"""Programs and contracts that are kept on disk: made once, read again, and never read where that is not safe."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from factory import write_mission
from typer.testing import CliRunner

from mission import load_mission
from mission.cli.commands import app
from mission.flight import batches
from mission.flight.chain import prepare_chain
from mission.machine import kept
from mission.machine.programs import Program
from mission.machine.stages import watch
from mission.missionfile import resolve

NUMBERS = np.arange(4, dtype=np.float32)
VERTICAL = Path(__file__).parents[2] / "missions" / "vertical.yaml"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An empty folder of kept programs."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kept.program_folder.cache_clear()
    yield tmp_path / "mission" / "programs"
    kept.program_folder.cache_clear()


class Doubled:
    """A function that counts how often it is traced."""

    def __init__(self) -> None:
        self.traced = 0

    def __call__(self, numbers):
        self.traced += 1
        return {"twice": 2.0 * numbers, "count": jnp.int32(len(numbers))}

    def program(self, identity: str | None = "doubled") -> Program:
        return Program(self, identity, lambda numbers: {"twice": 0, "count": 0})


def test_a_kept_program_is_neither_traced_nor_compiled_again(folder: Path) -> None:
    first, second = Doubled(), Doubled()
    made, read = first.program()(NUMBERS), second.program()(NUMBERS)
    assert (first.traced, second.traced) == (1, 0)
    assert read["twice"].tolist() == made["twice"].tolist() == [0.0, 2.0, 4.0, 6.0]
    assert int(read["count"]) == 4
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize("change", ["identity", "shape", "dtype", "none"])
def test_another_program_is_made_anew(folder: Path, change: str) -> None:
    Doubled().program()(NUMBERS)
    other = Doubled()
    program = other.program({"identity": "other", "none": None}.get(change, "doubled"))
    program({"shape": NUMBERS[:3], "dtype": NUMBERS.astype(np.int32)}.get(change, NUMBERS))
    assert other.traced == 1


@pytest.mark.parametrize("damage", [b"", b"mission program 1\nshort", b"x" * 500])
def test_a_damaged_entry_is_made_again(folder: Path, damage: bytes) -> None:
    Doubled().program()(NUMBERS)
    (entry,) = folder.iterdir()
    whole = entry.read_bytes()
    entry.write_bytes(damage or whole[:-1] + bytes([whole[-1] ^ 1]))
    other = Doubled()
    assert other.program()(NUMBERS)["twice"].tolist() == [0.0, 2.0, 4.0, 6.0]
    assert other.traced == 1
    assert kept.read_entry(entry) is not None


def test_a_folder_that_others_may_write_to_is_not_read(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    Doubled().program()(NUMBERS)
    os.chmod(folder, 0o777)
    kept.program_folder.cache_clear()
    other = Doubled()
    other.program()(NUMBERS)
    assert other.traced == 1
    assert "mode 0700" in caplog.text


def test_the_entries_that_were_not_used_for_longest_go_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "_MOST_BYTES", 1000)
    kept.program_folder()
    for number in range(3):
        kept.write_entry(folder / f"{number}", bytes(400))
        os.utime(folder / f"{number}", (number, number))
    kept.read_entry(folder / "1")
    kept.write_entry(folder / "last", bytes(400))
    assert sorted(path.name for path in folder.iterdir()) == ["1", "last"]


def test_threads_make_a_program_once(folder: Path) -> None:
    doubled = Doubled()
    program = doubled.program()
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(program, [NUMBERS] * 16))
    assert doubled.traced == 1
    assert all(result["twice"].tolist() == [0.0, 2.0, 4.0, 6.0] for result in results)


def test_a_contract_is_checked_once_for_each_plugin_and_its_parameters(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[str] = []
    original = resolve.check_contract

    def counted(where, origin, *contract):
        checked.append(origin.name)
        return original(where, origin, *contract)

    monkeypatch.setattr(resolve, "check_contract", counted)
    first = resolve.resolve_mission(load_mission(VERTICAL))
    again = resolve.resolve_mission(load_mission(VERTICAL))
    assert checked == ["vertical_coast", "vertical_burn"]
    assert [phase.channels for phase in again] == [phase.channels for phase in first]
    assert [phase.origin for phase in again] == [phase.origin for phase in first]
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))  # what is kept elsewhere is not the plugin's data
    assert [phase.origin for phase in resolve.resolve_mission(load_mission(VERTICAL))] == [p.origin for p in first]
    resolve.resolve_mission(load_mission(VERTICAL, ["phases.burn.params.touchdown_speed_m_s=1.5"]))
    assert checked[2:] == ["vertical_burn"]


def test_a_check_is_recalled_until_something_that_it_depends_on_changes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved: list[str] = []
    original = resolve.resolve_mission

    def counted(mission, **options):
        resolved.append(mission.name)
        return original(mission, **options)

    monkeypatch.setattr(resolve, "resolve_mission", counted)
    mission = write_mission(tmp_path)
    plugin = mission.parent / "cart.py"
    words = ["check", str(mission), "--allow-local-plugins"]
    outputs = [CliRunner().invoke(app, words).stdout for _ in range(2)]
    assert outputs[0] == outputs[1] != ""
    assert len(resolved) == 1
    plugin.write_text(plugin.read_text() + "\n# changed\n")
    assert CliRunner().invoke(app, words).stdout != outputs[0]  # the version of a local plugin is its hash
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    CliRunner().invoke(app, words)
    assert len(resolved) == 3


def test_flights_are_the_same_for_any_number_of_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = prepare_chain(load_mission(VERTICAL), policy="guide")
    results = []
    for cores in (1, 2, 8):
        with ThreadPoolExecutor(cores) as pool:
            monkeypatch.setattr(batches, "workers", lambda devices, pool=pool: pool)
            results.append(chain.fly(np.arange(1000)))
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            for name in ("success", "cause", "steps", "returns", "enter"):
                np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


def test_a_display_hears_of_every_stage(folder: Path) -> None:
    heard: list[tuple[str, str]] = []
    with watch(lambda phase, stage: heard.append((phase, stage))):
        prepare_chain(load_mission(VERTICAL), policy="guide").fly(np.arange(10))
        first, heard = heard, []
    stages = [stage for phase, stage in first if phase == "burn"]
    assert list(dict.fromkeys(stages)) == ["checking", "tracing", "compiling", "flying"]
    with watch(lambda phase, stage: heard.append((phase, stage))):
        prepare_chain(load_mission(VERTICAL), policy="guide").fly(np.arange(10))
    stages = [stage for phase, stage in heard if phase == "burn"]
    assert list(dict.fromkeys(stages)) == ["checking", "reading its program", "flying"]


def test_cache_shows_and_removes_what_is_kept(folder: Path) -> None:
    Doubled().program()(NUMBERS)
    shown = json.loads(CliRunner().invoke(app, ["cache", "--json"]).stdout)
    assert shown["entries"] == 1
    assert shown["bytes"] > 1000
    assert "removed 1 entries" in CliRunner().invoke(app, ["cache", "--clear"]).stdout
    assert not list(folder.iterdir())
