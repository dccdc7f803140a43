"""The guard takes over where the agent is known to fail and the guide not, and nowhere else; to the end of the phase."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from factory import run_cli
from relay import AGENT_FAILS, DUEL, GUIDE_FAILS, write_duel

from mission import fly_mission, load_mission, merge_reports, resolve_mission, train_mission
from mission.cli.options import mission_and_pilots
from mission.errors import InputError, MachineError, StaleError
from mission.flight.batches import program_identity
from mission.flight.chain import Chain, prepare_chain
from mission.flight.guard.counts import count_takeovers
from mission.flight.guard.decision import foreseen, guide_promises_more
from mission.flight.guard.fitting import GuardSettings, fit_guard
from mission.flight.guard.flying import NEVER, Explorer, fly_entries, with_guards
from mission.flight.guard.store import GUARD, read_guard
from mission.missionfile.phases import TrainedPhase
from mission.report.redraw import read_records
from mission.training.recertify import read_policies

QUICK = GuardSettings(flights=1500, samples=1500, updates=800, width=32, members=2)
GUARDED = {"duel": "guarded"}


@pytest.fixture(scope="module")
def duel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained mission with its guard; its folder also holds the policies."""
    folder = tmp_path_factory.mktemp("duel")
    path = write_duel(folder)
    train_mission(load_mission(path), checkpoints=folder, allow_local_plugins=True, baseline_flights=0)
    fit_guard(chain_of(path, guard=False), QUICK)
    return path


@pytest.fixture
def copied(duel: Path, tmp_path: Path) -> Path:
    shutil.copytree(duel.parent, tmp_path / "run")
    return tmp_path / "run" / duel.name


def chain_of(path: Path, **options) -> Chain:
    return prepare_chain(load_mission(path), checkpoints=path.parent, allow_local_plugins=True, **options)


def fly(path: Path, **options):
    return fly_mission(load_mission(path), checkpoints=path.parent, allow_local_plugins=True, **options)


# What it does


def test_the_guide_takes_over_where_the_agent_fails_and_nowhere_else(duel: Path) -> None:
    """Between the two bounds both succeed, and below the lower one the guide fails; flights fly fresh starts."""
    flown = chain_of(duel, policies=GUARDED).fly(np.arange(1000, 4000)[:1000])
    x, taken = flown[0].telemetry["x_m"], flown[0].takeover >= 0
    assert not taken[x < AGENT_FAILS - 0.03].any()
    assert taken[x > AGENT_FAILS + 0.03].all()
    assert taken.sum() > 50
    assert (flown[0].takeover[taken] < 3).all(), "x is not observed later"
    clear = np.abs(x - AGENT_FAILS) > 0.03
    assert flown[1].success[clear].all()


def test_a_take_over_holds_to_the_end_of_the_phase(duel: Path) -> None:
    """After the third step the networks promise nothing more by the guide, and the last step decides."""
    chain = chain_of(duel, policies=GUARDED)
    late = np.array([[0.0, 4.0], [0.0, 5.0]], np.float32)
    assert not np.asarray(guide_promises_more(chain.actors[0], late, 4)).any()
    flown = chain.fly(np.arange(500))[0]
    np.testing.assert_array_equal(flown.telemetry["guided"] == 1.0, flown.takeover >= 0)


def test_the_networks_know_both_probabilities(duel: Path) -> None:
    networks = read_guard(duel.parent / "duel").networks["duel"]
    x = np.concatenate(
        [np.linspace(-0.95, GUIDE_FAILS - 0.1, 20), np.linspace(GUIDE_FAILS + 0.1, 0.7, 20), [0.9, 0.95]]
    )
    obs = np.stack([x, np.ones_like(x)], axis=-1).astype(np.float32)
    stay, take = foreseen(networks, obs)
    assert np.abs(stay - (x <= AGENT_FAILS)).max() < 0.15
    assert np.abs(take - (x >= GUIDE_FAILS)).max() < 0.15


def test_what_it_saves_is_paired_with_the_same_flights_without_it(duel: Path) -> None:
    record = read_guard(duel.parent / "duel").record
    found, flights = record.comparison, QUICK.flights
    summaries = [fly(duel, flights=flights, policies=pilots) for pilots in ({}, GUARDED)]
    assert [one.success.count for one in summaries] == [found.without.count, found.guarded.count]
    assert found.any_phase == found.phases["duel"]
    assert found.any_phase.saved.rate > 0.95
    assert found.any_phase.false_alarms.rate <= 0.01
    assert found.success.only_second == found.any_phase.saved.count
    assert found.success.only_first == found.any_phase.spoiled
    taken = summaries[1].phases[0].takeovers
    assert taken.flights == found.any_phase.in_lost + found.any_phase.false_alarms.count
    assert summaries[1].guard == found
    assert summaries[0].phases[0].takeovers is None
    assert summaries[1].digest == summaries[0].digest


def test_all_phases_that_can_be_are_guarded_at_once(duel: Path) -> None:
    chain = chain_of(duel, policy="guarded")
    assert ([phase.pilot for phase in chain.phases], chain.policy) == (["guarded", "guide"], "agent")
    chain = chain_of(duel, policy="guarded", guard=False)
    assert [phase.pilot for phase in chain.phases] == ["agent", "guide"]
    with pytest.raises(InputError, match=r"--policy guarded(.|\n)*both an agent and a guide"):
        chain_of(duel, policy="guarded", policies={"duel": "agent"})


def test_take_overs_are_counted() -> None:
    taken, without, guarded = (np.array(list(bits)) == "1" for bits in ("110110", "001111", "101110"))
    found = count_takeovers(taken, without, guarded)
    assert (found.lost, found.landed, found.in_lost, found.saved.count) == (2, 4, 2, 1)
    assert (found.false_alarms.count, found.spoiled) == (2, 0)
    assert found.false_alarms.rate == 0.5


def test_a_scheduled_take_over_happens_at_its_step(duel: Path) -> None:
    chain = with_guards(chain_of(duel, guard=False), [0])
    entries = fly_entries(chain, np.arange(60), lambda count: None)[0]
    at = np.where(np.arange(60) % 2, np.arange(60) % 6, NEVER).astype(np.int32)
    found, success = Explorer(chain, 0).explore(chain.actors[0], entries, at, lambda count: None)
    np.testing.assert_array_equal(found.flight.takeover, np.where(at == NEVER, -1, at))
    np.testing.assert_array_equal(found.obs[at != NEVER, 1], at[at != NEVER])
    x = found.flight.telemetry["x_m"]
    np.testing.assert_array_equal(success, np.where(at == NEVER, x <= AGENT_FAILS, x >= GUIDE_FAILS))
    np.testing.assert_array_equal(entries.success, x <= AGENT_FAILS)


# What it does not change


def test_flights_do_not_depend_on_devices_and_batches(duel: Path) -> None:
    chains = [chain_of(duel, policies=GUARDED, devices=devices) for devices in (1, 2)]
    one, two = (chain.fly(np.arange(600)) for chain in chains)
    jax.tree.map(np.testing.assert_array_equal, one, two)
    part = chains[1].fly(np.arange(300, 310))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[300:310], b), one, part)


def test_the_same_flights_give_the_same_guard(duel: Path, tmp_path: Path) -> None:
    chain = dataclasses.replace(chain_of(duel, guard=False, devices=1), home=tmp_path)
    fit_guard(chain, QUICK)
    first, second = (read_guard(folder) for folder in (duel.parent / "duel", tmp_path))
    assert first.record == second.record
    jax.tree.map(np.testing.assert_array_equal, first.networks, second.networks)


def test_a_guard_without_margin_flies_as_the_agent_does(duel: Path) -> None:
    chain = chain_of(duel, policies=GUARDED)
    off = dataclasses.replace(chain, actors=({**chain.actors[0], "margin": np.float32(np.inf)}, None))
    flown, agent = off.fly(np.arange(300)), chain_of(duel).fly(np.arange(300))
    jax.tree.map(np.testing.assert_array_equal, flown, agent)
    assert (flown[0].takeover == -1).all()


def test_the_pilot_decides_program_and_environment_but_not_the_configuration(duel: Path) -> None:
    phases = [
        resolve_mission(load_mission(duel, [f"phases.duel.policy={pilot}"]), allow_local_plugins=True)[0]
        for pilot in ("agent", "guarded", "guarded:./x", "guide")
    ]
    assert [phase.guarded for phase in phases] == [False, True, True, False]
    assert isinstance(phases[1], TrainedPhase)
    assert not isinstance(phases[2], TrainedPhase)
    assert [phase.environment.planned for phase in phases] == [False, True, True, True]
    assert len({phase.configuration().model_dump_json() for phase in phases}) == 1
    identities = [program_identity(phase, "flight") for phase in phases]
    assert identities[1] == identities[2]
    assert len(set(identities)) == 3


def test_training_never_flies_guarded(duel: Path, tmp_path: Path) -> None:
    path = write_duel(tmp_path, "guarded")
    records = train_mission(load_mission(path), checkpoints=tmp_path, allow_local_plugins=True, baseline_flights=0)
    assert [one.status for one in records] == ["trained", "flown by its guide"]
    guarded, agent = (read_policies(folder / "duel")[0] for folder in (tmp_path, duel.parent))
    assert guarded.content_sha256 == agent.content_sha256
    assert guarded.flown_by == "agent"


# What it refuses


def test_a_change_downstream_makes_it_stale(copied: Path) -> None:
    text = copied.read_text()
    copied.write_text(text.replace("plugin: ./verdict.py,", "plugin: ./verdict.py, params: {agent: 0.7},"))
    with pytest.raises(StaleError, match=r"phases\.verdict.*agent(.|\n)*mission guard"):
        chain_of(copied, policies=GUARDED)
    copied.write_text(text)
    chain_of(copied, policies=GUARDED)
    plugin = copied.parent / "verdict.py"
    plugin.write_text(plugin.read_text() + "\n# another version\n")
    with pytest.raises(StaleError, match='plugin of phase "verdict"'):
        chain_of(copied, policies=GUARDED)
    chain_of(copied)


def test_without_a_guard_the_command_is_named(copied: Path) -> None:
    (copied.parent / "duel" / GUARD).unlink()
    done = run_cli("fly", copied, "--allow-local-plugins", "--checkpoints", copied.parent, "--policy", "duel=guarded")
    assert (done.returncode, done.stdout) == (2, "")
    words = " ".join(done.stderr.split())
    assert "--policy duel=guarded" in words
    assert f"`mission guard {copied}`" in words
    assert "found: none" in words


def test_damaged_and_read_only_files_are_errors(copied: Path) -> None:
    path = copied.parent / "duel" / GUARD
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(MachineError, match="readable guard"):
        read_guard(path.parent)
    (copied.parent / "READ_ONLY").touch()
    with pytest.raises(InputError, match="read-only"):
        fit_guard(chain_of(copied, guard=False), QUICK)


def test_a_phase_without_guide_or_agent_has_no_guard(duel: Path, copied: Path) -> None:
    with pytest.raises(InputError, match="has no learner") as caught:
        chain_of(duel, policies={"verdict": "guarded"})
    assert str(caught.value.where).startswith("--policy verdict=guarded")
    with pytest.raises(InputError, match=r"--phase verdict(.|\n)*both an agent and a guide: duel"):
        fit_guard(chain_of(duel, guard=False), QUICK, only=["verdict"])
    plugin = copied.parent / "duel.py"
    plugin.write_text(DUEL.replace("def guide(", "def other("))
    for pilot in ("guarded", "guarded:./duel/duel"):
        with pytest.raises(InputError, match="to offer a guide, which takes over"):
            resolve_mission(load_mission(copied, [f"phases.duel.policy={pilot}"]), allow_local_plugins=True)
    with pytest.raises(InputError, match="which could take over"):
        fit_guard(chain_of(copied, guard=False, allow_stale=True), QUICK)


def test_a_guard_that_gains_nothing_stays_off_and_says_so(copied: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The agent is never lost, so that there is nothing to learn."""
    copied.write_text(
        copied.read_text().replace("plugin: ./verdict.py,", "plugin: ./verdict.py, params: {agent: 2.0},")
    )
    record = fit_guard(chain_of(copied, guard=False), GuardSettings(flights=200))
    assert record.guards[0].margin is None
    assert "0 of 200 flights that could be taken over were lost" in record.guards[0].reason
    flown = chain_of(copied, policies=GUARDED).fly(np.arange(100))
    assert (flown[0].takeover == -1).all()
    assert 'the guard of phase "duel" is off' in caplog.text


# Commands and reports


def test_the_networks_of_a_folder_are_guarded_too(copied: Path) -> None:
    """As the networks of another mission: the hashes of the policies decide, not where they lie."""
    folder = copied.parent / "duel"
    (folder / GUARD).unlink()
    found = fit_guard(chain_of(copied, policies={"duel": folder / "duel"}, guard=False), QUICK)
    flown = fly(copied, policies={"duel": f"guarded:{folder / 'duel'}"}, flights=QUICK.flights)
    assert flown.phases[0].flown_by == f"guarded:{folder / 'duel'}"
    assert flown.guard == found.comparison
    assert flown.success.count == found.comparison.guarded.count > found.comparison.without.count
    with pytest.raises(InputError, match="no such folder"):
        fly(copied, policies={"duel": f"guarded:{folder / 'none'}"})


def test_the_folder_of_a_mission_is_guarded_phase_by_phase(duel: Path) -> None:
    folder = duel.parent / "duel"
    mission, policy, pilots = mission_and_pilots(duel, None, [f"guarded:{folder}", "verdict=guide"], False)
    assert (mission.name, policy) == ("duel", "agent")
    assert pilots == {"duel": f"guarded:{folder / 'duel'}", "verdict": "guide"}
    assert chain_of(duel, policies=pilots).policy_hashes() == chain_of(duel, policies=GUARDED).policy_hashes()
    with pytest.raises(InputError, match="agent, guide or guarded for all phases"):
        mission_and_pilots(duel, None, ["guarded:./nowhere"], False)


def test_the_commands_say_what_the_guard_does(duel: Path, tmp_path: Path) -> None:
    words = [duel, "--allow-local-plugins", "--checkpoints", duel.parent, "--policy", "duel=guarded"]
    done = run_cli("fly", *words, "--flights", "300", "--report", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "duel: its guide took over in" in done.stdout
    assert "flown with and without guard (seed 11)" in " ".join(done.stdout.split())
    page = (tmp_path / "out" / "index.html").read_text()
    assert "Take-overs by the guides" in page
    assert "flown by its agent under guard" in page
    stored, records = read_records(tmp_path / "out")
    taken = records.flights.phases[0].takeover
    assert stored.report.phases[0].takeovers.flights == (taken >= 0).sum() > 0
    assert stored.guide is not None
    assert stored.report.guard == records.guard


def test_the_command_stores_and_prints_a_guard_that_is_off(copied: Path, tmp_path: Path) -> None:
    """Of 100 flights too few are lost."""
    out = tmp_path / "guard.json"
    words = [copied, "--allow-local-plugins", "--checkpoints", copied.parent, "--policy", "guarded", "--flights", "100"]
    done = run_cli("guard", *words, "--phase", "duel", "--json", out)
    assert done.returncode == 0, done.stderr
    assert "duel: off:" in done.stdout
    assert "100 flights with and without guard, seed 11" in done.stdout
    found = json.loads(out.read_text())
    assert found["guards"][0]["margin"] is None
    assert found["comparison"]["any_phase"]["saved"]["count"] == 0
    assert found == read_guard(copied.parent / "duel").record.model_dump(mode="json")


def test_reports_under_guard_are_joined(duel: Path, tmp_path: Path) -> None:
    for first, flights in ((0, 1000), (1000, 100)):
        fly(duel, policies=GUARDED, report=tmp_path / f"part{first}", flights=flights, first_flight=first)
    joined = merge_reports([tmp_path / "part0", tmp_path / "part1000"], tmp_path / "joined")
    whole = fly(duel, policies=GUARDED, flights=1100)
    assert joined.phases[0].takeovers == whole.phases[0].takeovers
