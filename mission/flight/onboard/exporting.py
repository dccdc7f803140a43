"""`export_policy`: write the policy that flies a phase in a format for other programs, and compare it with its policy.

Shapes: M observations, A action.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from mission.errors import InputError, ParityError, machine_errors
from mission.flight.batches import BLOCK
from mission.flight.chain import Chain, prepare_chain
from mission.flight.onboard.formats import TARGETS, Act, Target, golden_text
from mission.flight.onboard.interface import (
    GOLDEN,
    NOTICE,
    PARITY,
    ActionField,
    ChannelField,
    Interface,
    ObservationField,
    Parity,
    sha256,
)
from mission.flight.onboard.observations import flown_observations
from mission.flight.onboard.subject import Subject
from mission.flight.onboard.texts import template
from mission.learner import PolicyLayers
from mission.machine.stages import tell
from mission.missionfile.arguments import given_mission, given_path, whole_number
from mission.missionfile.models import MissionFile
from mission.missionfile.phases import Phase, PolicyPhase
from mission.storage.export import INTERFACE
from mission.storage.protection import refuse_read_only
from mission.storage.steps import content_hash

BOUND = 1e-6  # on the difference of an action from the policy
OBSERVATIONS, LEAST_OBSERVATIONS = 10_000, 100
_GOLDEN = 64


class ExportSummary(NamedTuple):
    """A written export: its folder, its interface and its parity report (docs/export.md)."""

    folder: Path
    interface: Interface
    parity: Parity


def check_target(name: str, output: Path) -> Target:
    """Return a format after checking that its requirements are installed and that the folder is writable.

    Args:
      name: of the format.
      output: the folder.

    Raises:
      InputError: no such format, or a folder that is not empty.
      MachineError: a package or compiler is missing.
    """
    if name not in TARGETS:
        remedy = "name one of them"
        raise InputError(f"--format {name}", expected=", ".join(TARGETS), found=name or "nothing", remedy=remedy)
    if os.path.lexists(output) and not (output.is_dir() and not any(output.iterdir())):
        raise InputError(
            f"-o {output}",
            expected="a folder that does not exist yet, or an empty one",
            found="a folder that is not empty" if output.is_dir() else "a file",
            remedy="choose another folder, or remove it",
        )
    refuse_read_only(output, "-o DIR")
    target = TARGETS[name]
    target.check()
    return target


def check_phase_name(names: Sequence[str], name: str) -> int:
    """Return the number of a phase.

    Raises:
      InputError: there is no such phase.
    """
    if name not in names:
        expected = f"one of {', '.join(names)}"
        raise InputError(f"--phase {name}", expected=expected, found=name or "nothing", remedy="name one of them")
    return list(names).index(name)


def export_policy(
    mission: MissionFile,
    phase: str,
    target: str,
    output: str | Path,
    *,
    checkpoints: str | Path | None = None,
    observations: int = OBSERVATIONS,
    seed: int | None = None,
    policy: str = "agent",
    policies: Mapping[str, str | Path] | None = None,
    allow_stale: bool = False,
    allow_local_plugins: bool = False,
    devices: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ExportSummary:
    """Export the policy of a phase to other programs, and compare the export with it on observations from flights.

    Args:
      mission: from `load_mission`.
      phase: name of the phase.
      target: the format: "c99" (extra `c`), "onnx" (extra `onnx`), "stablehlo" (extra `stablehlo`) or "npz" (docs/export.md).
      output: output folder, new or empty; it appears only when all files are complete.
      observations: M, the number of control steps on which the export is compared, at least 100.
      checkpoints, seed, policy, policies, allow_stale, allow_local_plugins, devices: of the flights, as in `fly_mission`.
      progress: called with (control steps flown, M).

    Raises:
      InputError: a wrong argument, no such format or phase, no network flies the phase, or too few flights reach it.
      ParityError: the export differs from its policy by more than 1e-6.
      MachineError: a package or compiler is missing, the compiler fails, or the folder cannot be written.
    """
    mission = given_mission(mission, "export_policy")
    observations = whole_number(observations, "--observations", LEAST_OBSERVATIONS)
    chosen = check_target(target, given_path(output, "-o DIR"))
    check_phase_name([entry.name for entry in mission.phases], phase)
    chain = prepare_chain(
        mission,
        checkpoints=checkpoints,
        seed=seed,
        policy=policy,
        policies=policies,
        allow_stale=allow_stale,
        allow_local_plugins=allow_local_plugins,
        devices=devices,
    )
    return export_flown(chain, phase, chosen, output, observations=observations, progress=progress)


def export_flown(
    chain: Chain,
    phase: str,
    target: Target,
    output: str | Path,
    *,
    observations: int = OBSERVATIONS,
    progress: Callable[[int, int], None] | None = None,
) -> ExportSummary:
    """Export the policy of a phase of a chain that is ready to fly, as `export_policy` does.

    Args:
      chain: the mission, with its policies (`prepare_chain`).
      phase: name of the phase.
      target: from `check_target`.
      output: folder to write; it appears once everything is in it.
      observations: M, the number of control steps on which the export is compared.
      progress: called with (control steps flown, M).

    Raises:
      InputError: no network flies the phase, its learner does not describe it, or too few flights reach it.
      ParityError: the export differs from its policy by more than 1e-6.
      MachineError: the compiler fails, or the folder cannot be written.
    """
    index, output = check_phase_name([one.name for one in chain.phases], phase), Path(output)
    flown, layers = _exportable(chain.phases[index], chain.actors[index])
    seen = flown_observations(chain, index, observations, progress)
    actor = chain.actors[index]
    subject = Subject(chain.mission.name, flown, actor, layers, seen.observations, seen.channels)
    with machine_errors(output, "a folder to write", "choose another -o DIR"):
        output.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".tmp-export-", dir=output.parent))
        try:
            interface, parity = _write(subject, target, work)
            work.chmod(0o755)
            work.replace(output)  # an empty folder is replaced
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return ExportSummary(output, interface, parity)


def _exportable(phase: Phase, actor: Any) -> tuple[PolicyPhase, PolicyLayers]:
    """Return a phase that a network flies, and the layers of that network."""
    where = f'phase "{phase.name}"'
    if not isinstance(phase, PolicyPhase):
        raise InputError(
            where,
            expected="a phase that a network flies",
            found="one that its guide flies",
            remedy="name another phase, or train an agent for it",
        )
    layers = None if phase.from_library else phase.build_learner().policy_layers(actor)
    if layers is None:
        found = "an exported policy" if phase.from_library else f"a learner without: {type(phase.learner).__name__}"
        remedy = "export the policy that was trained" if phase.from_library else "override Learner.policy_layers"
        raise InputError(where, expected="a policy with a description of its layers", found=found, remedy=remedy)
    return phase, layers


def _write(subject: Subject, target: Target, folder: Path) -> tuple[Interface, Parity]:
    """Write every file of an export to a folder, and measure it."""
    name = subject.phase.name
    rows = np.random.default_rng(0).permutation(len(subject.observations))[:_GOLDEN].tolist()
    notice = _notice(subject)
    tell(name, f"writing {target.name}")
    target.write(subject, folder, rows, notice)
    (folder / NOTICE).write_text(notice, encoding="utf-8")
    (folder / GOLDEN).write_text(golden_text(subject, rows), encoding="utf-8")
    tell(name, "comparing")
    parity = compare(subject, target, folder, len(rows))
    (folder / PARITY).write_text(parity.model_dump_json(indent=1) + "\n", encoding="utf-8")
    interface = _interface(subject, target, folder)
    (folder / INTERFACE).write_text(interface.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return interface, parity


def compare(subject: Subject, target: Target, folder: Path, golden: int = 0) -> Parity:
    """Load the written export again and compare it with the policy on all observations.

    Raises:
      ParityError: an action or an observation is further away than `BOUND`.
    """
    act = target.load(subject, folder)
    got = in_blocks(act, subject.observations)
    wanted = subject.exact if target.float64 else subject.flown
    worst = _apart(got, wanted)
    measured = target.measure(subject, folder, act)
    observed = None
    if measured.observations is not None:
        observed = _apart(measured.observations, subject.exact_observations)
    for what, difference in (("action", worst), ("observation", observed or 0.0)):
        if not difference <= BOUND:
            raise ParityError(
                f'phase "{subject.phase.name}": --format {target.name}',
                expected=f"each {what} within {BOUND:g} of the policy's",
                found=f"{difference:.3g}, on {len(got):,} observations",
                remedy="nothing was written; report this as a fault of the engine, with the mission file",
            )
    function = "the policy evaluated by JAX in float64" if target.float64 else "the policy as it flies, in float32"
    return Parity(
        target=target.name,
        compared_with=function,
        observations=len(got),
        largest_difference=worst,
        bound=BOUND,
        from_flown=_apart(got, subject.flown),
        rounding_of_flown=_apart(subject.flown, subject.exact),
        observation_difference=observed,
        golden_vectors=golden,
        latency=measured.latency,
        stack_bytes=measured.stack_bytes,
        undefined_symbols=measured.undefined_symbols,
        flags=measured.flags,
        versions=target.versions() | {"mission": _version(), "jax": jax.__version__},
    )


def in_blocks(act: Act, observations: np.ndarray) -> np.ndarray:
    """Return the actions [M, A] for observations [M, n O], evaluated in blocks as flights are."""
    starts = range(0, len(observations), BLOCK)
    return np.concatenate([act(observations[at : at + BLOCK]) for at in starts])


def _apart(got: np.ndarray, wanted: np.ndarray) -> float:
    """Return the largest difference; infinite if one is NaN."""
    difference = np.abs(got.astype(np.float64) - wanted)
    return float(np.where(np.isnan(difference), np.inf, difference).max())


def _interface(subject: Subject, target: Target, folder: Path) -> Interface:
    phase, env, origin = subject.phase, subject.environment, subject.phase.origin
    names = phase.environment.observation_names
    entries = phase.environment.observation_entries or (None,) * len(names)
    described = [dict.fromkeys(("quantity", "unit", "scale", "frame")) if e is None else e._asdict() for e in entries]
    observed = zip(names, described, *_ranges(subject.observations), strict=True)
    acted = zip(env.action_names, *_ranges(subject.flown), strict=True)
    channels = zip(subject.inputs_of_observation, *_ranges(subject.input_channels), strict=True)
    files = {path.name: sha256(path.read_bytes()) for path in sorted(folder.iterdir())}
    return Interface(
        target=target.name,
        arithmetic="float64 between float32 inputs and outputs" if target.float64 else "float32",
        made_by=f"mission-engine {_version()}",
        mission=subject.mission,
        phase=phase.name,
        plugin=origin.name,
        plugin_version=f"{origin.distribution} {origin.version}",
        policy_sha256=content_hash(subject.actor),
        control_period_s=env.control_period_s,
        rate_hz=1.0 / env.control_period_s,
        history=subject.history,
        observations=tuple(ObservationField(name=n, **d, lowest=a, highest=b) for n, d, a, b in observed),
        actions=tuple(ActionField(name=n, lowest_flown=a, highest_flown=b) for n, a, b in acted),
        channels=tuple(ChannelField(name=n, lowest=a, highest=b) for n, a, b in channels),
        declarations=target.declarations(subject),
        files=files,
    )


def _ranges(values: np.ndarray) -> tuple[list[float], list[float]]:
    """Return the least and the largest value of each column of [M, K]."""
    return values.min(axis=0).astype(float).tolist(), values.max(axis=0).astype(float).tolist()


def _notice(subject: Subject) -> str:
    """Return the licence note."""
    words = {
        "__VERSION__": _version(),
        "__PHASE__": subject.phase.name,
        "__MISSION__": subject.mission,
        "__PLUGIN__": str(subject.phase.origin),
    }
    return template("LICENSE_NOTE.txt", words)


def _version() -> str:
    import mission

    return mission.__version__
