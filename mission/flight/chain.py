"""A mission that is ready to fly: compiled phases, their pilots, and batches of flights through the chain.

Shapes: N flights of a batch, at most 1,000.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mission.errors import InputError
from mission.flight.batches import (
    BATCH,
    batches,
    block_rows,
    compile_flight,
    concatenate,
    first_rows,
    flight_keys,
    fly_batch,
    join,
    map_each,
    name_key,
    nominal_starts,
    pad,
    prepare_flight,
    start_block,
    to_host,
)
from mission.flight.causes import check_flight_causes
from mission.flight.fly import PhaseFlight
from mission.flight.guard.counts import GuardComparison
from mission.flight.guard.store import guarded_policies
from mission.flight.onboard.flying import with_library
from mission.flight.starts import Starts, read_starts
from mission.machine.devices import configure
from mission.machine.programs import Program, in_background
from mission.machine.stages import tell
from mission.missionfile.arguments import check_pilots, given_mission, given_seed, whole_number
from mission.missionfile.models import Judge, MissionFile
from mission.missionfile.phases import LibraryPhase, Phase, PolicyPhase, TrainedPhase, policy_folders
from mission.missionfile.pilots import guarded
from mission.missionfile.resolve import digest, judged, resolve_mission
from mission.storage.borrowed import borrowed_policy
from mission.storage.policies import DEFAULT_CHECKPOINTS, find_policies, stored_actor
from mission.storage.steps import PhaseFolder, content_hash

MOST_FLIGHTS = 1 << 32  # keys are folded from 32 bits
# (phase index, handoff [N, ...], keys [N], alive bool [N]) -> the flights of that phase
FlyOne = Callable[[int, Any, Any, np.ndarray], PhaseFlight]


@dataclasses.dataclass(frozen=True, eq=False)
class Chain:
    """The phases of a mission in the order of flight, each with the policy that flies it (None: its guide does).

    `root` is the folder of the mission's own policies, which may be shipped ones; `home` is the folder to which
    results of this mission are written. `folders` holds the policies of other folders, by phase; `guard` describes the
    guard that flies with them.
    """

    mission: MissionFile
    phases: tuple[Phase, ...]
    actors: tuple[Any, ...]
    flights: tuple[Program, ...]
    seed: int
    policy: str
    root: Path
    home: Path = Path()
    devices: int | None = None  # the most cores or accelerators that fly; None: all
    folders: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    guard: GuardComparison | None = None
    given: Starts | None = None  # in place of the mission's own starts

    def folder(self, index: int) -> Path:
        """Return the folder of the policy that flies phase `index`, or where its own would be."""
        name = self.phases[index].name
        return self.folders.get(name, self.root / name)

    @property
    def channels(self) -> tuple[str, ...]:
        """Every telemetry channel, in order of appearance."""
        return tuple(dict.fromkeys(name for phase in self.phases for name in phase.channels))

    @property
    def digest(self) -> str:
        """The digest of the validated configuration of all phases."""
        return digest([phase.configuration() for phase in self.phases])

    def policy_hashes(self) -> tuple[str | None, ...]:
        """Return the SHA-256 of the numbers of each policy that flies; None for a guide."""
        return tuple(None if actor is None else content_hash(actor) for actor in self.actors)

    def fly(self, numbers: np.ndarray, fly_one: FlyOne | None = None) -> list[PhaseFlight]:
        """Fly flights `numbers` (int [N]) from the first phase to the last; failed flights stay where they are.

        Args:
          numbers: flight numbers; keys are folded from them, so a flight is the same in any batch.
          fly_one: the function that flies one phase of the batch; None: the compiled flights do.

        Raises:
          PluginError: a flight ended with a cause that contradicts the contract.
        """
        by_phase = self.keys(numbers)
        if fly_one is None:
            return self._fly_blocks(by_phase, numbers)
        return self.fly_from(0, self.starts(numbers), numbers, np.ones(len(numbers), bool), fly_one)

    def fly_from(
        self, first: int, handoff: Any, numbers: np.ndarray, alive: np.ndarray, fly_one: FlyOne | None = None
    ) -> list[PhaseFlight]:
        """Fly phase `first` and those after it.

        Args:
          first: index of a phase, or the number of phases, in which case nothing is flown.
          handoff: leaves [N, ...], with which the flights enter it.
          numbers, fly_one: as for `fly`; a number may occur several times.
          alive: bool [N], the flights that enter it.
        """
        by_phase, results = self.keys(numbers), []
        for k, phase in list(enumerate(self.phases))[first:]:
            keys = by_phase[k][: len(numbers)]
            if fly_one is None:
                result = fly_batch(self.flights[k], self.actors[k], handoff, keys, alive)
            else:
                result = fly_one(k, handoff, keys, alive)
            check_flight_causes(phase, result.cause, alive)
            results.append(result._replace(handoff=()))
            handoff, alive = result.handoff, result.success
        return results

    def starts(self, numbers: np.ndarray) -> Any:
        """Return the hand-overs [N, ...] with which flights `numbers` (int [N], at most 1,000) enter the first phase."""
        if self.given is not None:
            return jax.tree.map(lambda leaf: leaf[numbers], self.given.rows)
        return to_host(nominal_starts(self.phases[0], self.keys(numbers)[0][: len(numbers)]))

    @property
    def most_flights(self) -> int:
        """The largest number of flights of this chain."""
        return MOST_FLIGHTS if self.given is None else self.given.count

    def starting_from(self, table: Path) -> Chain:
        """Return the same mission with flights that start from the rows of a table (docs/trajectories.md).

        Raises:
          InputError: the table is wrong; names row and column.
        """

        def nominal(count: int) -> Any:
            return jax.tree.map(concatenate, *(self.starts(numbers) for numbers in batches(count)))

        return dataclasses.replace(self, given=read_starts(table, self.phases[0].accepts, nominal))

    def keys(self, numbers: np.ndarray) -> list[Any]:
        """Return the keys [BATCH] of flights by phase; those beyond N repeat the first."""
        key = name_key(jax.random.key(self.seed), "flights of")  # no phase can have this name
        keys = pad(flight_keys(key, numbers), len(numbers))
        return [jax.vmap(name_key, (0, None))(keys, phase.name) for phase in self.phases]

    def _fly_blocks(self, keys: list[Any], numbers: np.ndarray) -> list[PhaseFlight]:
        """Fly every block from the first phase to the last, independently of the others; keys [BATCH] by phase."""
        _ = self._preparing
        rows = len(numbers)

        def fly(alive: np.ndarray, given: Any, *keys: Any) -> list[PhaseFlight]:
            results: list[PhaseFlight] = []
            handoff = start_block(self.phases[0], keys[0]) if self.given is None else given
            for k, phase in enumerate(self.phases):
                self.flights[k].prepare(self.actors[k], handoff, keys[k], alive)
                tell(phase.name, "flying")
                result = to_host(self.flights[k](self.actors[k], handoff, keys[k], alive))
                check_flight_causes(phase, result.cause, alive)
                results.append(result._replace(handoff=()))
                handoff, alive = result.handoff, result.success
            return results

        lanes = np.arange(BATCH) < rows
        given = lanes if self.given is None else pad(self.starts(numbers), rows)
        blocks = map_each(fly, *(block_rows(tree, rows) for tree in (lanes, given, *keys)), devices=self.devices)
        return [first_rows(join(list(parts)), rows) for parts in zip(*blocks, strict=True)]

    @cached_property
    def _preparing(self) -> None:
        """Compile or read the flights of all phases at the same time; a block waits for what it needs."""
        parts = zip(self.flights, self.phases, self.actors, strict=True)
        in_background([partial(prepare_flight, *part) for part in parts])

    def has_agents_and_guides(self) -> bool:
        """Return whether a policy flies at least one phase and every phase has a guide (or has no actions)."""
        guided = all(p.environment.guide is not None or not p.environment.action_names for p in self.phases)
        return guided and any(isinstance(phase, PolicyPhase) for phase in self.phases)

    def guided(self) -> Chain:
        """Return the same mission on the same seeds, every phase flown by its guide."""
        phases = tuple(phase.guided() for phase in self.phases)
        return dataclasses.replace(
            self,
            mission=self.mission.all_guides(),
            phases=phases,
            actors=(None,) * len(phases),
            flights=tuple(compile_flight(phase) for phase in phases),
            policy="guide",
            folders={},
            guard=None,
        )


def prepare_chain(
    mission: MissionFile,
    *,
    checkpoints: str | Path | None = None,
    seed: int | None = None,
    policy: str = "agent",
    policies: Mapping[str, str | Path] | None = None,
    allow_stale: bool = False,
    allow_local_plugins: bool = False,
    devices: int | None = None,
    judge: Judge | None = None,
    guard: bool = True,
) -> Chain:
    """Resolve a mission and read its policies, without compiling anything.

    For the arguments see `fly_mission`; without `guard` the networks of guarded phases fly alone.
    """
    configure()
    mission = _flown_by(given_mission(mission, "fly_mission"), policy, policies)
    mission = mission if guard else mission.unguarded()
    phases = resolve_mission(mission, allow_local_plugins=allow_local_plugins)
    if policy == "guarded":
        policy = "agent"
        mission, phases = _all_guarded(mission, phases, policies or {}) if guard else (mission, phases)
    root, folders = find_policies(mission, phases, checkpoints), policy_folders(mission, phases, policies or ())
    trusted = [phase.name for phase in phases] if allow_local_plugins else (policies or ())
    phases = tuple(_with_library(mission, k, phase, folders, trusted) for k, phase in enumerate(phases))

    def policy_of(k: int, phase: Phase) -> Any:
        if isinstance(phase, TrainedPhase):
            return to_host(stored_actor(PhaseFolder(root / phase.name), phases, k, allow_stale))
        if isinstance(phase, PolicyPhase):
            if isinstance(phase, LibraryPhase):
                return phase.sha256
            where = mission.source.where(("phases", k, "policy"))
            return to_host(borrowed_policy(folders[phase.name], phase, where))
        return None

    actors = tuple(policy_of(k, phase) for k, phase in enumerate(phases))
    if judge is not None:  # of these flights, not of the training
        mission = mission.judged_by(judge)
        phases = judged(mission, phases)
    home = (DEFAULT_CHECKPOINTS if checkpoints is None else Path(checkpoints)) / mission.name
    actors, comparison = guarded_policies(home, mission, phases, actors)
    return Chain(
        mission=mission,
        phases=phases,
        actors=actors,
        flights=tuple(compile_flight(phase) for phase in phases),
        seed=given_seed(mission.seed if seed is None else seed),
        policy=policy,
        root=root,
        home=home,
        devices=None if devices is None else whole_number(devices, "--devices", 1),
        folders=folders,
        guard=comparison,
    )


def _flown_by(mission: MissionFile, policy: str, policies: Mapping[str, str | Path] | None) -> MissionFile:
    """Return the mission with the pilots of `fly_mission`."""
    check_pilots(policy, policies)
    if policy == "guide":
        _refuse_both(policies)
        mission = mission.all_guides()
    return mission.flown_by(policies or {})


def _all_guarded(
    mission: MissionFile, phases: Sequence[Phase], others: Collection[str]
) -> tuple[MissionFile, tuple[Phase, ...]]:
    """Return a mission with a guard in every phase that can have one, except those whose pilot is named (`others`)."""
    able = [phase.name for phase in phases if phase.guardable and not phase.guarded and phase.name not in others]
    if not able and not any(phase.guarded for phase in phases):
        raise InputError(
            "--policy guarded",
            expected="a phase that has both an agent and a guide, which could take over",
            found="none",
            remedy="remove it",
        )
    flown = tuple(phase.flown_by(guarded(phase.pilot)) if phase.name in able else phase for phase in phases)
    return mission.guarded_in(able), flown


def _with_library(
    mission: MissionFile, k: int, phase: Phase, folders: Mapping[str, Path], trusted: Collection[str]
) -> Phase:
    """Return phase `k`, flown by an ONNX model or the library of an exported policy if that is its pilot."""
    if not isinstance(phase, PolicyPhase) or phase.name not in folders:
        return phase
    where = mission.source.where(("phases", k, "policy"))
    return with_library(phase, folders[phase.name], where, phase.name in trusted)


def _refuse_both(policies: Mapping[str, str | Path] | None) -> None:
    for name, pilot in (policies or {}).items():
        raise InputError(
            f"--policy {name}={pilot}",
            expected="pilots of single phases without --policy guide, which flies every phase by its guide",
            found="both",
            remedy=f"remove one; --policy {name}=guide flies this phase by its guide",
        )


def check_flights(flights: int, until: float | None, first: int = 0) -> None:
    """Reject invalid numbers of flights and widths of intervals."""
    if first < 0 or first % BATCH or first + flights > MOST_FLIGHTS:
        raise InputError(
            "--first-flight",
            expected=f"a multiple of {BATCH:,}, with flight numbers below 2^32: flights are flown in batches of {BATCH:,}",
            found=f"{first}, with {flights} flights",
            remedy=f"begin at {max(0, min(first, MOST_FLIGHTS - flights)) // BATCH * BATCH}, for example",
        )
    if flights < 1:
        raise InputError("--flights", expected="at least 1", found=str(flights), remedy="fly at least one")
    if until is not None and (not isinstance(until, float | int | np.floating) or not 0.0 < until < 1.0):
        raise InputError("--until", expected="above 0 and below 1", found=str(until), remedy="0.01 is one percent")
    if until is not None and flights <= BATCH:
        raise InputError(
            "--until",
            expected=f"only with --flights above {BATCH:,}, since the interval is computed after each {BATCH:,} flights",
            found=f"--flights {flights}, which are flown in any case",
            remedy="raise --flights, or remove --until",
        )
