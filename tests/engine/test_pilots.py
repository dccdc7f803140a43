"""Who flies a phase: agent, imitator, guide, or the policy in a folder; and what is not stale because of it."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from factory import CART, MISSION, write_mission

from mission import cli, fly_mission, load_mission, merge_reports, resolve_mission, train_mission
from mission.errors import InputError, MachineError, MissionError, StaleError
from mission.flight.batches import program_identity
from mission.flight.chain import Chain, prepare_chain
from mission.missionfile.phases import Phase, PolicyPhase, TrainedPhase
from mission.missionfile.resolve import digest
from mission.report import header, recording
from mission.report.folder import read_header
from mission.report.handovers import training_starts
from mission.report.recording import StoredBatches
from mission.report.redraw import read_records
from mission.report.tracks import TelemetryRecorder
from mission.scale.best_file import write_mission_file
from mission.scale.flying import Job, Prepared
from mission.scale.shipping import pack_mission
from mission.storage.policies import load_actor
from mission.storage.records import FORMAT, upgrade
from mission.storage.steps import PhaseFolder
from mission.storage.stored import seal
from mission.training.bank import load_bank
from mission.training.recertify import mission_of, read_policies, recertify_mission

SHORT = MISSION.replace("env_steps: 3000", "env_steps: 1100").replace("env_steps: 2500", "env_steps: 1100")
GUIDED = "phases.first.policy=guide"
FLOWN = {"allow_local_plugins": True, "flights": 60}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A mission of two phases, trained by agents, with its policies in `ck`."""
    folder = tmp_path_factory.mktemp("pilots")
    write_mission(folder, SHORT)
    train(folder)
    return folder


def load(folder: Path, *overrides: str):
    return load_mission(folder / "mission.yaml", overrides)


def train(folder: Path, *overrides: str, **options):
    mission = load(folder, *overrides)
    return train_mission(mission, checkpoints=folder / "ck", allow_local_plugins=True, **options)


def fly(folder: Path, *overrides: str, **options):
    return fly_mission(load(folder, *overrides), checkpoints=folder / "ck", **(FLOWN | options))


def chain(folder: Path, *overrides: str, **policies: str | Path) -> Chain:
    mission = load(folder, *overrides)
    return prepare_chain(mission, checkpoints=folder / "ck", policies=policies, allow_local_plugins=True)


def command(monkeypatch, capsys, *words: object) -> tuple[int, str, str]:
    """Run the command line in this process: exit code, standard output and standard error."""
    monkeypatch.setattr(sys, "argv", ["mission", *map(str, words)])
    try:
        code = cli.main()
    except SystemExit as end:
        code = end.code
    return code or 0, *capsys.readouterr()


def pilots(summary) -> list[str]:
    return [phase.flown_by for phase in summary.phases]


def stored_hashes(folder: Path) -> list[str]:
    return [record.content_sha256 for record in read_policies(folder / "ck" / "trial")]


def give_an_imitator(folder: Path, phase: str, factor: float = 0.0) -> None:
    """Store an imitator beside the actor of a phase: its networks times a factor."""
    own, (resolved,) = (
        PhaseFolder(folder / "ck" / "trial" / phase),
        [one for one in chain(folder).phases if one.name == phase],
    )
    record, actor = own.policy_record(), load_actor(own, resolved)
    imitator = jax.tree.map(lambda leaf: leaf * factor, actor)
    tree = {"actor": actor, "imitator": imitator, "bank": load_bank(own, resolved, record)}
    kept = {name: (own.policy / name).read_bytes() for name in ("actor.safetensors", "policy.json")}
    own.save_policy(tree, record, kept)


# What is no part of the trained configuration


def test_the_pilot_decides_neither_configuration_nor_digest(trained):
    missions = [load(trained, f"phases.first.policy={pilot}") for pilot in ("agent", "imitator", "guide", "./ck/x")]
    resolved = [resolve_mission(mission, allow_local_plugins=True) for mission in missions]
    assert len({digest([phase.configuration() for phase in phases]) for phases in resolved}) == 1
    assert [type(phases[0]) for phases in resolved] == [TrainedPhase, TrainedPhase, Phase, PolicyPhase]
    assert [phases[0].pilot for phases in resolved] == ["agent", "imitator", "guide", "./ck/x"]


def test_the_pilot_decides_the_flight_program(trained):
    phases = [
        resolve_mission(load(trained, f"phases.first.policy={pilot}"), allow_local_plugins=True)[0]
        for pilot in ("agent", "imitator", "./ck/x", "guide")
    ]
    agent, imitator, folder, guide = [program_identity(phase, "flight") for phase in phases]
    assert agent == imitator == folder, "only the numbers of the policy differ"
    assert guide != agent is not None


def test_flying_by_the_guide_and_back_leaves_the_policies_valid(trained):
    before, hashes = fly(trained), stored_hashes(trained)
    guided = fly(trained, GUIDED)
    assert pilots(guided) == ["guide", "agent"]
    assert guided.digest == before.digest
    assert [one.status for one in train(trained, GUIDED)] == ["already trained"] * 2
    assert fly(trained) == before
    assert stored_hashes(trained) == hashes


def test_records_of_format_3_are_read_without_their_pilot(trained):
    record = json.loads((trained / "ck" / "trial" / "first" / "policy" / "meta.json").read_text())
    del record["flown_by"]
    old = record | {"format": 3, "configuration": [one | {"policy": "guide"} for one in record["configuration"]]}
    now = upgrade(old, "here")
    assert now == record | {"flown_by": "guide", "format": FORMAT}
    step = {name: value for name, value in old.items() if name != "bank"}
    assert "flown_by" not in upgrade(step, "here"), "only the record of a policy says who flew its bank"


def test_a_guided_phase_becomes_trained_and_its_new_bank_is_noticed(trained, tmp_path, caplog):
    """The bank is the identity of the starts: the next phase is stale if it changes, and only then."""
    write_mission(tmp_path, SHORT)
    one = train(tmp_path, GUIDED, only=["first"])
    assert [record.status for record in one] == ["flown by its guide"]
    with pytest.raises(MachineError, match=r"an agent(.|\n)*none in it(.|\n)*--policy first=guide"):
        fly(tmp_path, "phases.second.policy=guide")
    guided = PhaseFolder(tmp_path / "ck" / "trial" / "first")
    assert guided.policy_record().flown_by == "guide"
    second = tmp_path / "ck" / "trial" / "second"
    shutil.copytree(trained / "ck" / "trial" / "second", second)  # trained from the bank of an agent
    with pytest.raises(StaleError, match="the previous phase was trained again"):
        train(tmp_path, GUIDED)
    shutil.rmtree(second)
    assert [record.status for record in train(tmp_path, only=["first"])] == ["trained"]
    assert "has no agent, since the phase was flown by its guide" in caplog.text
    assert guided.policy_record().flown_by == "agent"
    assert [guided.policy_record().content_sha256] == stored_hashes(trained)[:1]
    shutil.copytree(trained / "ck" / "trial" / "second", second)
    assert [record.status for record in train(tmp_path, GUIDED)] == ["already trained"] * 2


def test_a_bank_of_another_pilot_is_named_before_training_from_it(copy, caplog):
    shutil.rmtree(copy / "ck" / "trial" / "second")
    train(copy, GUIDED)
    assert (
        'phase "second" is trained from the bank that its agent flew in "first"; its guide flies there now'
        in caplog.text
    )


# Imitator and folder


def test_an_imitator_is_flown_by_its_own_networks(copy):
    give_an_imitator(copy, "first")
    still = chain(copy, first="imitator")
    assert float(jnp.abs(jax.tree.leaves(still.actors[0])[0]).max()) == 0.0
    assert still.policy_hashes()[0] != chain(copy).policy_hashes()[0]
    assert pilots(fly(copy, "phases.first.policy=imitator")) == ["imitator", "agent"]
    assert [one.status for one in train(copy, "phases.first.policy=imitator")] == ["already trained"] * 2
    position = still.fly(np.arange(40))[0].telemetry
    assert np.abs(position["velocity_m_s"]).max() == 0.0, "networks of zeros do not accelerate"


def test_an_imitator_that_became_the_actor_is_stored_once_and_flies(copy):
    give_an_imitator(copy, "first", factor=1.0)
    own = PhaseFolder(copy / "ck" / "trial" / "first")
    assert (own.policy / "imitator").read_text() == "actor\n"
    assert own.policy_record() is not None, "its manifest covers the file"
    assert chain(copy, first="imitator").policy_hashes() == chain(copy).policy_hashes()


def test_a_policy_without_an_imitator_says_so(trained):
    with pytest.raises(MachineError) as caught:
        fly(trained, policies={"second": "imitator"})
    error = caught.value
    assert (error.expected, error.found) == ("a policy with an imitator", "none in it")
    assert error.where.endswith("second")
    assert "--policy second=agent or guide" in error.remedy


def test_the_policy_of_a_folder_flies_other_parameters(trained, tmp_path):
    """Real states, flown by the networks of another mission: only the parameters differ."""
    folder = trained / "ck" / "trial" / "second"
    same = fly(trained, policies={"second": folder})
    assert pilots(same) == ["agent", str(folder)]
    assert same.phases[1].model_copy(update={"flown_by": "agent"}) == fly(trained).phases[1]
    other = SHORT.replace("name: trial", "name: measured").replace("seconds: 2.0", "seconds: 1.5")
    write_mission(tmp_path, other)
    both = {"first": trained / "ck" / "trial" / "first", "second": folder}
    flown = fly(tmp_path, policies=both)
    assert (flown.flights, pilots(flown)) == (60, [str(one) for one in both.values()])
    assert flown.phases[1].duration_s.p50 == pytest.approx(1.5, abs=0.11)


def test_the_networks_of_a_mission_fly_another_one(trained, tmp_path, monkeypatch, capsys):
    write_mission(tmp_path, SHORT.replace("name: trial", "name: measured").replace("name: first", "name: other"))
    folder, fixed = trained / "ck" / "trial", ("--flights", "5", "--json", "-", "--allow-local-plugins")
    pilot = ("--policy", folder, "--policy", "other=guide")
    code, out, err = command(monkeypatch, capsys, "fly", tmp_path / "mission.yaml", *pilot, *fixed)
    assert code == 0, err
    assert [phase["flown_by"] for phase in json.loads(out)["phases"]] == ["guide", str(folder / "second")]
    code, _, err = command(monkeypatch, capsys, "fly", tmp_path / "mission.yaml", "--policy", trained, *fixed)
    assert code == 2
    assert "a policy for one of other, second" in " ".join(err.split())


def test_folders_are_relative_to_the_mission_file_or_to_the_caller(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written = fly(trained, "phases.second.policy=ck/trial/second")
    assert pilots(written) == ["agent", "ck/trial/second"]
    monkeypatch.chdir(trained / "ck" / "trial")
    assert pilots(fly(trained, policies={"second": "second"})) == ["agent", "./second"]
    with pytest.raises(InputError, match="no such folder"):
        fly(trained, "phases.second.policy=./second")


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (("actor=ActorConfig(**small)", "actor=ActorConfig(width=8, depth=1)"), r"hidden_sizes\[0\] was 16, is 8"),
        (("actor=ActorConfig(**small)", 'actor=ActorConfig(**small, activation="tanh")'), 'activation was "relu"'),
        (('"position", "velocity")', '"velocity", "position")'), "observations differ: another order"),
        (('"position", "velocity")', '"position", "speed")'), "observations differ: it had velocity; it had not speed"),
        (('action_names = ("acceleration",)', 'action_names = ("push",)'), "actions differ: it had acceleration"),
    ],
)
def test_a_folder_of_other_networks_is_refused(trained, tmp_path, change, found):
    write_mission(tmp_path, SHORT, CART.replace(*change))
    with pytest.raises(StaleError, match=found) as caught:
        fly(tmp_path, policies={"first": "guide", "second": trained / "ck" / "trial" / "second"})
    assert str(caught.value.where).startswith("--policy second=")


def test_a_folder_of_another_plugin_is_refused(trained, tmp_path):
    write_mission(tmp_path, SHORT.replace("./cart.py", "./wagon.py"))
    (tmp_path / "wagon.py").write_text(CART)
    with pytest.raises(StaleError, match="plugin was cart of local file, is wagon of local file"):
        fly(tmp_path, "phases.first.policy=guide", policies={"second": trained / "ck" / "trial" / "second"})


@pytest.mark.parametrize(
    ("pilot", "found", "remedy"),
    [
        ("ck/none", "no such folder", "name such a folder"),
        ("ck/trial", "no policy in it", "write .*ck/trial/second"),
        ("ck/trial/second/policy", "no policy in it", "write .*ck/trial/second$"),
        ("./mission.yaml", "no policy in it", "name such a folder"),
        ("./" + "x" * 5000, "no such folder", "name such a folder"),
    ],
)
def test_a_folder_without_a_policy_is_an_input_error(trained, pilot, found, remedy):
    with pytest.raises(InputError, match=found) as caught:
        fly(trained, f"phases.second.policy={pilot}")
    assert re.search(remedy, caught.value.remedy)


def test_a_phase_without_a_learner_has_no_networks(tmp_path):
    plain = re.sub(r"sac=SacConfig\(.*", ")", CART, flags=re.DOTALL)
    write_mission(tmp_path, SHORT, plain)
    for pilot in ("imitator", "./ck/trial/first"):
        with pytest.raises(InputError, match="has no learner"):
            resolve_mission(load(tmp_path, f"phases.first.policy={pilot}"), allow_local_plugins=True)


# The command line and Python


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["first=autopilot"], "agent, imitator, guide, guarded, the folder of a trained phase, or onnx:FILE"),
        (["third=guide"], "one of first, second"),
        (["first="], "NAME=PILOT"),
        (["=guide"], "NAME=PILOT"),
        (["first=guide", "first=agent"], "first twice"),
        (["guide", "first=agent"], "without --policy guide"),
        (["guide", "agent"], "remove one"),
        (["imitator"], "--policy NAME=imitator"),
    ],
)
def test_wrong_pilots_are_input_errors(trained, monkeypatch, capsys, options, words):
    given = [word for option in options for word in ("--policy", option)]
    code, out, err = command(monkeypatch, capsys, "fly", trained / "mission.yaml", "--allow-local-plugins", *given)
    assert (code, out) == (2, "")
    assert words in err
    assert "Traceback" not in err


def test_the_command_line_names_pilots_by_phase(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    words = ["fly", "mission.yaml", "--allow-local-plugins", "--checkpoints", "ck", "--flights", "60"]
    named = ["--policy", "first=guide", "--policy", "second=ck/trial/second"]
    code, out, err = command(monkeypatch, capsys, *words, *named, "--json", "-")
    assert code == 0, err
    assert [phase["flown_by"] for phase in json.loads(out)["phases"]] == ["guide", "ck/trial/second"]
    code, out, err = command(monkeypatch, capsys, *words, *named)
    assert code == 0, err
    assert "60 flights by guide and folder" in out
    assert re.search(r"first +guide +60", out)
    assert "second: flown by the policy in ck/trial/second" in out


def test_check_names_the_pilot_and_checks_its_folder(trained, monkeypatch, capsys):
    check = ["check", trained / "mission.yaml", "--allow-local-plugins", "--set"]
    code, out, _ = command(monkeypatch, capsys, *check, "phases.second.policy=ck/trial/second")
    assert code == 0
    assert "    ck/trial/second; no gate" in out
    assert "    agent, 1,100 vehicle steps" in out
    code, _, err = command(monkeypatch, capsys, *check, "phases.second.policy=ck/trial/third")
    assert code == 2
    assert "ck/trial/third: no such folder" in err


def test_the_schema_and_the_file_take_the_same_pilots():
    import jsonschema

    from mission.missionfile.schema import mission_schema

    schema = mission_schema()
    for pilot, accepted in (("imitator", True), ("../ck/trial/first", True), ("autopilot", False), (1, False)):
        entry = {"name": "a", "plugin": "b", "policy": pilot}
        valid = jsonschema.Draft202012Validator(schema).is_valid({"name": "m", "phases": [entry]})
        assert valid == accepted, pilot


# Reports, workers and training


def test_each_pilot_has_its_own_unfinished_report(copy, tmp_path, monkeypatch):
    """An interrupted report resumes for the same pilots only."""
    give_an_imitator(copy, "second")
    chains = [chain(copy, second=pilot) for pilot in ("agent", "imitator", "guide")]
    assert len({one.digest for one in chains}) == 1
    assert len({one.policy_hashes() for one in chains}) == 3

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(recording, "write_report", stop)
        with pytest.raises(KeyboardInterrupt):
            fly(copy, report=tmp_path / "out")
    flown: list[str] = []
    kept = StoredBatches.fly
    monkeypatch.setattr(StoredBatches, "fly", lambda self, n: flown.append(self.recorder.chain.policy) or kept(self, n))
    assert len(list((tmp_path / "out" / ".flights").glob("*.npz"))) == 2
    fly(copy, report=tmp_path / "out", policies={"second": "imitator"})
    assert pilots(read_header(tmp_path / "out").report) == ["agent", "imitator"]
    assert flown == ["agent", "guide"]


def test_a_report_says_who_flew_each_phase(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(trained)
    policies = {"first": "guide", "second": Path("ck/trial/second")}
    summary = fly(trained, policies=policies, report=tmp_path / "out")
    stored, records = read_records(tmp_path / "out")
    assert [phase.flown_by for phase in records.headers] == pilots(summary) == ["guide", "ck/trial/second"]
    assert pilots(stored.guide) == ["guide", "guide"]
    assert stored.provenance.policies_sha256[0] is None
    assert "--policy first=guide --policy second=ck/trial/second" in stored.provenance.commands[0]
    page = (tmp_path / "out" / "index.html").read_text()
    assert "flown by guides and the policy in ck/trial/second" in page
    assert "<small>flown by its guide" in page
    assert "<small>flown by the policy in ck/trial/second" in page


def test_a_folder_in_a_page_is_escaped(trained, tmp_path):
    shutil.copytree(trained / "ck" / "trial" / "second", tmp_path / "<b>evil")
    fly(trained, policies={"second": tmp_path / "<b>evil"}, report=tmp_path / "out")
    page = (tmp_path / "out" / "index.html").read_text()
    assert "&lt;b&gt;evil" in page
    assert "<b>evil" not in page


def test_reports_flown_from_two_folders_of_one_policy_are_joined(trained, tmp_path):
    shutil.copytree(trained / "ck" / "trial", tmp_path / "copied")
    for first, folder in ((0, trained / "ck" / "trial" / "second"), (1000, tmp_path / "copied" / "second")):
        out = tmp_path / f"part{first}"
        fly(trained, policies={"second": folder}, report=out, flights=1000 if first == 0 else 50, first_flight=first)
    joined = merge_reports([tmp_path / "part0", tmp_path / "part1000"], tmp_path / "joined")
    assert (joined.flights, pilots(joined)) == (1050, ["agent", str(trained / "ck" / "trial" / "second")])
    fly(trained, policies={"second": "guide"}, report=tmp_path / "part1000", flights=50, first_flight=1000)
    with pytest.raises(InputError, match="policies_sha256"):
        merge_reports([tmp_path / "part0", tmp_path / "part1000"], tmp_path / "joined")


def test_a_report_of_format_4_learns_who_flew(trained, tmp_path):
    fly(trained, policies={"first": "guide"}, report=tmp_path)
    data = json.loads((tmp_path / "summary.json").read_text())
    new = json.loads(json.dumps(data))
    for side in ("report", "guide"):
        for phase in data[side]["phases"]:
            del phase["flown_by"]
    data["format"] = 4
    data["sha256"] = seal({name: value for name, value in data.items() if name != "sha256"})
    assert header.upgrade(data, "here") == new | {"sha256": ""}
    data["report"]["flights"] += 1
    with pytest.raises(ValueError, match="hash of the summary"):
        header.upgrade(data, "here")


def test_training_starts_of_a_folder_are_those_of_its_mission(trained, tmp_path):
    write_mission(tmp_path, SHORT.replace("name: trial", "name: measured"))
    borrowed = chain(tmp_path, first="guide", second=trained / "ck" / "trial" / "second")
    own = chain(trained)
    starts = [training_starts(one, 1, TelemetryRecorder(one)) for one in (borrowed, own)]
    assert "stored end states of first" in starts[0].source
    np.testing.assert_array_equal(starts[0].values, starts[1].values)


def test_a_worker_flies_the_same_pilots(trained):
    here = chain(trained, first="guide", second=trained / "ck" / "trial" / "second")
    shipped = pack_mission(here.mission, here.phases)
    there = Prepared(Job("key", shipped, here.actors, here.seed, here.policy)).chain("agent")
    assert [phase.pilot for phase in there.phases] == [phase.pilot for phase in here.phases]
    numbers = np.arange(30)
    jax.tree.map(np.testing.assert_array_equal, there.fly(numbers), here.fly(numbers))


def test_a_folder_flies_a_phase_of_a_training_run(trained, tmp_path):
    """Its flights fill the bank, as those of a guide do; the baseline is flown by who flew the banks."""
    text = SHORT.replace("    budget", "    policy: ./borrowed\n    budget", 1)
    write_mission(tmp_path, text)
    shutil.copytree(trained / "ck" / "trial" / "first", tmp_path / "borrowed")
    statuses = [record.status for record in train(tmp_path, baseline_flights=100)]
    assert statuses == ["flown by the policy in ./borrowed", "trained"]
    first = PhaseFolder(tmp_path / "ck" / "trial" / "first")
    assert (first.policy_record().flown_by, first.holds("actor")) == ("./borrowed", False)
    assert (tmp_path / "ck" / "trial" / "second" / "done").is_file()
    phases = chain(tmp_path).phases
    banks = [load_bank(one, phases[0], one.policy_record()) for one in (first, PhaseFolder(tmp_path / "borrowed"))]
    jax.tree.map(np.testing.assert_array_equal, *banks)
    mission = load(tmp_path, GUIDED)
    result = recertify_mission(tmp_path / "ck" / "trial", mission=mission, allow_local_plugins=True)
    assert result.verdict == "equal", "the pilot that the file names now does not matter"
    with pytest.raises(InputError, match=r"first is flown by \./borrowed|local plugins"):
        mission_of(tmp_path, read_policies(tmp_path / "ck" / "trial"))


def test_the_file_of_the_best_trial_names_the_same_folder(trained, tmp_path):
    overrides = ["phases.second.policy=ck/trial/second"]
    write_mission_file(tmp_path / "best.yaml", trained / "mission.yaml", overrides, "best", allow_local_plugins=True)
    best = load_mission(tmp_path / "best.yaml")
    assert best.phases[0].policy == "agent"
    assert (best.folder / best.phases[1].policy).samefile(trained / "ck" / "trial" / "second")


def test_a_wrong_folder_stops_a_training_run_before_it_begins(tmp_path):
    write_mission(tmp_path, SHORT.replace("    budget", "    policy: ./none\n    budget", 1))
    with pytest.raises(MissionError, match="no such folder"):
        train(tmp_path)
    assert not list((tmp_path / "ck").rglob("policy"))


def test_telemetry_missions_are_flown_with_shipped_networks():
    root = Path(__file__).parents[2]
    missions = sorted((root / "missions").glob("telemetry_*.yaml"))
    assert len(missions) == 3
    for path in missions:
        mission, shipped = load_mission(path), root / "checkpoints" / "shipped" / "return_to_launch_site"
        policies = {phase.name: shipped / phase.name for phase in mission.phases}
        one = prepare_chain(mission, policies=policies)
        assert None not in one.policy_hashes()
        assert [phase.pilot for phase in one.phases] == [str(folder) for folder in policies.values()]


def test_a_bank_is_flown_by_the_imitator_if_it_is_the_pilot(tmp_path: Path) -> None:
    """The actor's updates at a rate of 10 spoil it, and the next phase starts where the imitator ends."""
    settings = (
        "imitation: {rounds: 2, env_steps: 512, rows: 2048, updates: 300, batch_size: 64}, actor_learning_rate: 10.0"
    )
    write_mission(
        tmp_path,
        SHORT.replace(
            "    budget: {env_steps: 1100}\n", f"    budget: {{env_steps: 1100}}\n    sac: {{{settings}}}\n", 1
        ),
    )
    train(tmp_path, "phases.first.policy=imitator")
    first, second = read_policies(tmp_path / "ck" / "trial")
    assert (first.flown_by, second.flown_by) == ("imitator", "agent")
    assert pilots(fly(tmp_path, "phases.first.policy=imitator")) == ["imitator", "agent"]
    phase = chain(tmp_path, first="imitator").phases[0]
    bank = load_bank(PhaseFolder(tmp_path / "ck" / "trial" / "first"), phase, first)
    assert bank is not None
    assert float(jnp.abs(bank.rows.position_m).mean()) < 0.2  # the guide holds the cart
