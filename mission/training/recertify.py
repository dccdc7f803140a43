"""`mission recertify`: check whether stored policies still fly as they did when their baseline was recorded.

If every flight ends as before, the hashes of the plugins' sources in the records are renewed. Rounding in the last bits
(another compiler or processor) may shift the end of at most 0.5 % of the flights by one control step. After a deliberate
change of the physics, `equivalent` requires success rates that agree within 0.2 percentage points instead.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from mission import __version__
from mission.errors import DifferentFlightsError, InputError, MachineError, StaleError, machine_errors
from mission.flight.batches import fly_batches
from mission.flight.chain import Chain
from mission.machine.devices import configure
from mission.missionfile.arguments import given_path
from mission.missionfile.changes import configuration_change
from mission.missionfile.models import ChainSettings, MissionFile, PhaseEntry
from mission.missionfile.phases import Phase, TrainedPhase
from mission.missionfile.pilots import NAMED_PILOTS
from mission.missionfile.resolve import resolve_mission
from mission.phase import LOCAL_FILE, LOCAL_SOURCE
from mission.storage.baseline import BASELINE, Baseline, read_baseline
from mission.storage.export import policy_files
from mission.storage.lock import folder_lock
from mission.storage.policies import load_actor
from mission.storage.records import PluginRecord, PolicyRecord, Record, StoredRecord, plugin_records
from mission.storage.steps import PhaseFolder, rewrite_record
from mission.strict import StrictModel
from mission.training.baseline import load_chain, outcomes_of
from mission.training.outcomes import OutcomeComparison, RateDifference, compare_outcomes

EQUIVALENT_FLIGHTS = 10_000
EQUIVALENT_WITHIN = 0.002  # of a success rate: 0.2 percentage points
EQUIVALENCE = "equivalence.json"


class PluginChange(StrictModel):
    """The plugin of a phase according to the records, and the current one."""

    phase: str
    before: PluginRecord
    now: PluginRecord


class Recertification(StrictModel):
    """The result of `mission recertify`; the fields are those of its `--json`."""

    mission: str
    seed: int
    verdict: Literal["equal", "different", "equivalent", "not equivalent"]
    outcomes: OutcomeComparison
    plugins: tuple[PluginChange, ...]

    @property
    def passed(self) -> bool:
        """Return whether the hashes were renewed."""
        return self.verdict in ("equal", "equivalent")


class EquivalenceRecord(Record):
    """The verdict of `--equivalent`, stored beside the policies as `equivalence.json`."""

    mission: str
    seed: int
    flights: int
    within: float
    policies: dict[str, str]  # phase -> content hash
    chain: RateDifference
    phases: tuple[RateDifference, ...]
    plugins: tuple[PluginChange, ...]
    engine_before: str
    engine_now: str


def recertify_mission(
    folder: str | Path,
    *,
    mission: MissionFile | None = None,
    equivalent: bool = False,
    allow_local_plugins: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Recertification:
    """Fly the policies of a folder on the seed of their baseline, compare, and renew the records if they agree.

    Args:
      folder: folder of a mission, `checkpoints/MISSION`.
      mission: the mission that was trained; None: as the records describe it.
      equivalent: require success rates that agree within 0.2 percentage points instead of equal flights.
      allow_local_plugins: permit `plugin: ./file.py`.
      progress: called with (flights done, flights).

    Returns:
      The result; `require_passed` turns a negative one into an error.

    Raises:
      MissionError: no baseline, another mission, stale policies (2); unreadable or not writable (3).
    """
    folder = given_path(folder, "recertify")
    configure()
    records = read_policies(folder)
    baseline = _read_baseline(folder, records, equivalent)
    phases, mission = _resolve(folder, records, mission, allow_local_plugins)
    with folder_lock(folder, "FOLDER"):
        chain = load_chain(mission, phases, records, folder, baseline.record.seed)
        flights = EQUIVALENT_FLIGHTS if equivalent else baseline.record.flights
        now = outcomes_of(phases, fly_batches(flights, None, chain.fly, progress))
        outcomes = compare_outcomes([phase.name for phase in phases], baseline.outcomes, now)
        result = Recertification(
            mission=mission.name,
            seed=chain.seed,
            verdict=_verdict(outcomes, equivalent),
            outcomes=outcomes,
            plugins=tuple(
                PluginChange(phase=record.phase, before=record.plugins[-1], now=plugin)
                for record, plugin in zip(records, plugin_records(phases), strict=True)
            ),
        )
        if result.verdict == "equivalent":
            _write_equivalence(folder, result, records)
        if result.passed:
            _renew(folder, records, chain)
    return result


def require_passed(result: Recertification) -> None:
    """Raise an error if the result is negative.

    Raises:
      DifferentFlightsError: names the number of flights that differ and the first of them, or the rates that disagree.
    """
    if result.passed:
        return
    outcomes = result.outcomes
    if result.verdict == "not equivalent":
        expected = f"success rates within {100 * EQUIVALENT_WITHIN:g} percentage points of the baseline's"
        rates = (outcomes.chain, *outcomes.phases)
        found = "; ".join(str(rate) for rate in rates if not rate.within(EQUIVALENT_WITHIN))
        remedy = "nothing was written: undo the change of the plugins, or train the policies again"
    else:
        expected = f"{outcomes.flights:,} flights that end as in the baseline"
        found = f"{outcomes.different:,} that do not"
        found += f" and {outcomes.rounded:,} that end one control step apart" if outcomes.rounded else ""
        found += "; " + "; ".join(map(str, outcomes.differences))
        remedy = "nothing was written: undo the change; if it is deliberate, pass --equivalent or train again"
    raise DifferentFlightsError(result.mission, expected=expected, found=found, remedy=remedy)


def read_policies(folder: Path) -> list[PolicyRecord]:
    """Return the records of a mission's policies, in the order of flight.

    Raises:
      MachineError: a policy is missing or damaged.
      FormatError: a record has a format that this version does not read.
    """
    with machine_errors(folder, "a folder of policies, such as checkpoints/MISSION", "correct the path"):
        found = [PhaseFolder(path).policy_record() for path in sorted(folder.iterdir()) if path.is_dir()]
    records = sorted((one for one in found if one is not None), key=lambda one: len(one.configuration))
    names = [one.name for one in records[-1].configuration] if records else []
    if not records or [record.phase for record in records] != names:
        raise MachineError(
            str(folder),
            expected=f"a policy for each phase of a mission{': ' if names else ''}{', '.join(names)}",
            found=f"policies of {', '.join(record.phase for record in records) or 'no phase'}",
            remedy="give the folder checkpoints/MISSION; or train the mission to its end",
        )
    return records


def _read_baseline(folder: Path, records: Sequence[PolicyRecord], equivalent: bool) -> Baseline:
    """Return the baseline of these policies.

    Raises:
      InputError: there is none, or it is of other policies, or too small.
    """

    def error(expected: str, found: str) -> InputError:
        command = f"mission train FILE --baseline {EQUIVALENT_FLIGHTS}"
        remedy = f"run `{command}` with the code that made the policies: it records a baseline and trains nothing"
        return InputError(str(folder / BASELINE), expected=expected, found=found, remedy=remedy)

    baseline = read_baseline(folder)
    if baseline is None:
        raise error("a baseline: how every flight of these policies ended when they were made", "no such file")
    if baseline.record.policies() != {record.phase: record.content_sha256 for record in records}:
        raise error("a baseline of the policies in this folder", "one of other policies")
    if equivalent and baseline.record.flights < EQUIVALENT_FLIGHTS:
        raise error(f"at least {EQUIVALENT_FLIGHTS:,} flights for --equivalent", f"{baseline.record.flights:,}")
    return baseline


def _resolve(
    folder: Path, records: Sequence[PolicyRecord], mission: MissionFile | None, allow_local: bool
) -> tuple[tuple[Phase, ...], MissionFile]:
    """Return the current phases, and the mission to which they belong.

    Raises:
      StaleError: the policies were made under another configuration.
    """
    last, chosen = records[-1], (mission or mission_of(folder, records)).unguarded()
    try:
        phases = resolve_mission(chosen, allow_local_plugins=allow_local)
    except InputError as error:
        if mission is not None:
            raise
        raise _rejected(folder, f"{error.where}: {error.found}") from None
    change = configuration_change(last.configuration, phases)
    if chosen.name != last.mission:
        change = f"policies of the mission {last.mission}, not of {chosen.name}"
    if change:
        raise StaleError(
            str(folder),
            expected="policies of this configuration",
            found=change,
            remedy="name the mission file that was trained; a changed configuration needs training",
        )
    return phases, chosen


def _rejected(folder: Path, found: str) -> StaleError:
    return StaleError(
        str(folder),
        expected="records whose settings are accepted today",
        found=found,
        remedy="add --mission FILE if a parameter names a file beside it; otherwise train again",
    )


def mission_of(folder: Path, records: Sequence[StoredRecord]) -> MissionFile:
    """Return the mission that stored records of its phases describe; one that still trains is flown by its agent.

    Raises:
      InputError: they do not suffice: a local plugin, a policy of another folder, or records of version 0.1.
      StaleError: a setting is not accepted any more.
    """
    last = records[-1]
    specs = [plugin.name for plugin in last.plugins if plugin.distribution == LOCAL_SOURCE]
    if specs:
        raise InputError(
            str(folder),
            expected="phases of installed distributions, or of files beside a mission file",
            found=f"PhaseSpecs that a program or a notebook had defined ({', '.join(specs)})",
            remedy="write them to a file beside a mission file, train again, and name that mission: --mission FILE",
        )
    local = [plugin.name for plugin in last.plugins if plugin.distribution == LOCAL_FILE]
    flown_by = [one.flown_by if isinstance(one, PolicyRecord) else "agent" for one in records]
    pairs = zip(records, flown_by, strict=True)
    folders = [f"{one.phase} is flown by {pilot}" for one, pilot in pairs if pilot not in NAMED_PILOTS]
    if local or folders or last.given is None:
        found = ", ".join(folders) or "records of version 0.1, without the parameters as the file gives them"
        raise InputError(
            str(folder),
            expected="the mission file",
            found=f"local plugins ({', '.join(local)})" if local else found,
            remedy="add --mission FILE" + (" --allow-local-plugins" if local else ""),
        )
    entries = [
        {
            **stored.model_dump(exclude={"plugin", "params", "sac", "tolerated"}, exclude_none=True),
            "plugin": f"{plugin.distribution}:{stored.plugin}",
            "params": given,
            "sac": stored.sac or {},
            "policy": pilot,
        }
        for stored, plugin, given, pilot in zip(last.configuration, last.plugins, last.given, flown_by, strict=True)
    ]
    try:
        phases = tuple(PhaseEntry.model_validate_json(json.dumps(entry)) for entry in entries)
    except ValidationError as error:
        first = error.errors()[0]
        raise _rejected(folder, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    chain = ChainSettings(judge="mission") if any(stored.tolerated for stored in last.configuration) else None
    return MissionFile(name=last.mission, seed=last.seed, phases=phases, chain=chain)


def _verdict(
    outcomes: OutcomeComparison, equivalent: bool
) -> Literal["equal", "different", "equivalent", "not equivalent"]:
    if not equivalent:
        return "equal" if outcomes.equal else "different"
    rates = (outcomes.chain, *outcomes.phases)
    return "equivalent" if all(rate.within(EQUIVALENT_WITHIN) for rate in rates) else "not equivalent"


def _renew(folder: Path, records: Sequence[PolicyRecord], chain: Chain) -> None:
    """Write the current plugins into the records, in the current format, with the files of `mission.storage.export`."""
    plugins, given = plugin_records(chain.phases), tuple(phase.given for phase in chain.phases)
    for k, (record, phase) in enumerate(zip(records, chain.phases, strict=True)):
        stored = PhaseFolder(folder / phase.name)
        files = policy_files(phase, load_actor(stored, phase)) if isinstance(phase, TrainedPhase) else {}
        renewed = record.model_copy(update={"plugins": plugins[: k + 1], "given": record.given or given[: k + 1]})
        rewrite_record(stored.policy, renewed, files)


def _write_equivalence(folder: Path, result: Recertification, records: Sequence[PolicyRecord]) -> None:
    record = EquivalenceRecord(
        mission=result.mission,
        seed=result.seed,
        flights=result.outcomes.flights,
        within=EQUIVALENT_WITHIN,
        policies={one.phase: one.content_sha256 for one in records},
        chain=result.outcomes.chain,
        phases=result.outcomes.phases,
        plugins=result.plugins,
        engine_before=records[-1].engine,
        engine_now=__version__,
    )
    path, temporary = folder / EQUIVALENCE, folder / f".tmp-{EQUIVALENCE}"
    with machine_errors(path, "a verdict to be written", "free disk space or correct the permissions"):
        temporary.write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
        temporary.replace(path)
